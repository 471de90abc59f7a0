//! What the simulator writes down of what warps do: where they changed the number of their registers, what they print.

use ptx_sim::LaunchError;
use ptx_sim::fault::Fault;

use crate::kernels::Kernel;
use crate::{rounds, run, takes_no_memory};

#[test]
fn loops_that_change_the_number_of_registers_take_no_memory() {
    let body = rounds(
        "setmaxnreg.dec.sync.aligned.u32 24;
        bar.sync 0;
        setmaxnreg.inc.sync.aligned.u32 96;
        bar.sync 0;",
    );
    takes_no_memory(&Kernel { directives: ".maxnreg 96", body: &body, threads: 128, ..Kernel::default() });
}

#[test]
fn a_loop_that_prints_ends_with_the_line_that_printed_too_much() {
    // 4096 characters of each lane.
    let text: Vec<String> = b"%4096d\0".iter().map(u8::to_string).collect();
    let module = format!(
        ".global .b8 text[7] = {{{}}};\n.extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 a);",
        text.join(", ")
    );
    let print = "{
        .param .b64 f;
        .param .b64 a;
        .param .b32 r;
        st.param.b64 [f], %d2;
        st.param.b64 [a], %d0;
        call (r), vprintf, (f, a); /* print */
        }";
    let body = format!("mov.u64 %d2, text;\ncvta.global.u64 %d2, %d2;\n{}", rounds(print));
    let kernel = Kernel { module: &module, body: &body, ..Kernel::default() };
    let printed = run(&kernel, 100).0.report().printed.len();
    assert_eq!(printed, 100 * 32 * 4096);
    // A byte more than 64 MiB: 512 rounds, and one lane of the next.
    assert_eq!(run(&kernel, 512).0.report().printed.len(), 64 << 20);
    let (ran, _) = run(&kernel, 513);
    let Err(LaunchError::Fault(finding)) = &ran.result else { panic!("it printed all") };
    assert!(matches!(&finding.fault, Fault::OutOfMemory { bytes: 4096, why } if why.contains("printf")), "{finding}");
    assert!(finding.to_string().contains("kernel.cu:10"), "{finding}");
}
