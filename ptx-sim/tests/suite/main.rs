//! The suite: kernels of `suite/*.cu`, as nvcc compiled them into `suite/ptx`, against values computed here from the
//! ISA's definitions.
//!
//! Cases are data. A [`Backend`] runs them: the simulator, or with `PTX_SIM_DEVICE=cuda` a GPU.

#[path = "../common/exact.rs"]
mod exact;

mod cases;
mod coverage;
mod cuda;
mod exactly;
mod expected_approximate;
mod expected_async_store;
mod expected_bits;
mod expected_bulk;
mod expected_cluster;
mod expected_compare;
mod expected_control;
mod expected_convert;
mod expected_decode;
mod expected_float;
mod expected_gemm;
mod expected_half;
mod expected_integer;
mod expected_memory;
mod expected_mma;
mod expected_narrow;
mod expected_sync;
mod expected_tensor;
mod expected_tensor_store;
mod expected_warp;
mod expected_wgmma;
mod inputs;
mod questions;
mod recompile;
mod run;
mod tensor;
mod wgmma_layout;

use cases::Case;
use run::{Backend, Simulator};

/// Runs the cases of one family, all of them even if some fail: time on a GPU is dear.
fn family(cases: Vec<Case>) {
    let mut backend = run::backend();
    assert!(!cases.is_empty());
    let failures: Vec<String> = cases.iter().filter_map(|case| run::check(backend.as_mut(), case).err()).collect();
    assert!(failures.is_empty(), "{} of {} cases\n{}", failures.len(), cases.len(), failures.join("\n"));
}

macro_rules! families {
    ($($name:ident),*) => {
        /// Every case of the suite.
        fn all() -> Vec<Case> {
            let mut cases = Vec::new();
            $(cases.extend($name::cases());)*
            cases
        }

        mod families {
            $(
                #[test]
                fn $name() {
                    super::family(super::$name::cases());
                }
            )*
        }
    };
}

families!(
    expected_approximate,
    expected_async_store,
    expected_bits,
    expected_cluster,
    expected_bulk,
    expected_compare,
    expected_control,
    expected_convert,
    expected_decode,
    expected_float,
    expected_gemm,
    expected_half,
    expected_integer,
    expected_memory,
    expected_mma,
    expected_narrow,
    expected_sync,
    expected_tensor,
    expected_tensor_store,
    expected_warp,
    expected_wgmma
);

#[test]
fn a_wrong_result_is_reported_with_its_operands() {
    let mut case = expected_integer::cases().into_iter().find(|case| case.kernel == "add_u32").unwrap();
    case.expected = Box::new(|rows| rows.iter().map(|row| vec![row[0] ^ row[1]]).collect());
    let message = run::check(&mut Simulator::default(), &case).unwrap_err();
    assert!(message.contains("add_u32") && message.contains("expected") && message.contains("row"), "{message}");
}

/// A back end can be put behind a pointer, as one chosen at run time is.
#[test]
fn back_ends_are_interchangeable() {
    let mut backend: Box<dyn Backend> = Box::new(Simulator::default());
    run::check(backend.as_mut(), &expected_integer::cases()[0]).unwrap();
}
