//! Random maps and boxes.

use proptest::prelude::*;
use ptx_sim::LaunchError;
use ptx_sim::tensor_map::{DataType, Swizzle, Tiled};

use crate::{COMMIT, DONE, INIT, Kernel, kernel, machine};

/// Numbers of which many are small.
fn some(most: u64) -> impl Strategy<Value = u64> {
    prop_oneof![0..=most.min(40), 0..=most, Just(most)]
}

fn coordinate() -> impl Strategy<Value = i32> {
    prop_oneof![-40..40i32, any::<i32>(), Just(i32::MIN), Just(i32::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a map and the coordinates are, there is a result or a fault, and it comes at once.
    #[test]
    fn any_map_and_any_box_return(
        rank in 1..=5usize,
        ty in 0..13usize,
        swizzle in 0..4usize,
        base in prop_oneof![Just(None), any::<u64>().prop_map(Some)],
        dims in prop::collection::vec(some((1 << 32) - 1), 5),
        strides in prop::collection::vec(some((1 << 36) - 1), 4),
        sizes in prop::collection::vec(1..=32u32, 5),
        steps in prop::collection::vec(1..=8u32, 5),
        corner in prop::collection::vec(coordinate(), 5),
        to in prop_oneof![Just(0u32), (0..20u32).prop_map(|line| 128 * line), any::<u32>()],
        kind in 0..4usize,
    ) {
        let (_, input, _) = machine();
        let ty = DataType::ALL[ty];
        let fits = 16 / ty.size().unwrap() as u32;
        let span = [fits * (1 + sizes[0] % 4), 2 * fits, 4 * fits, 8 * fits][swizzle];
        let sizes: Vec<u32> = sizes.iter().enumerate().map(|(d, &size)| if d == 0 { span } else { size % 5 + 1 }).collect();
        let dims: Vec<u64> = dims[..rank].iter().map(|dim| dim + 1).collect();
        let strides: Vec<u64> = strides[..rank - 1].iter().map(|stride| 16 * stride).collect();
        let address = base.map_or(input, |base| base & !15);
        let tiled = Tiled::new(ty, address, &dims, &strides, &sizes[..rank])
            .with_element_strides(&steps[..rank])
            .with_swizzle([Swizzle::None, Swizzle::B32, Swizzle::B64, Swizzle::B128][swizzle]);
        let corner: Vec<String> = corner[..rank].iter().map(i32::to_string).collect();
        let operand = format!("[%rd1, {{{}}}]", corner.join(", "));
        let to = format!("mov.b32 %r8, {to};\n");
        let store = |form: &str| format!("{to}{form} {operand}, [%r8];\n{COMMIT}{DONE}");
        let load = "shared::cluster.global.mbarrier::complete_tx::bytes";
        let body = match kind {
            0 => format!("{INIT}{to}cp.async.bulk.tensor.{rank}d.{load} [%r8], {operand}, [bar];\n"),
            1 => store(&format!("cp.async.bulk.tensor.{rank}d.global.shared::cta.bulk_group")),
            2 => store(&format!("cp.reduce.async.bulk.tensor.{rank}d.global.shared::cta.add.bulk_group")),
            _ => format!("cp.async.bulk.prefetch.tensor.{rank}d.L2.global {operand};\n"),
        };
        let map = tiled.encode().unwrap().bytes().to_vec();
        let (result, _) = Kernel { map, ..kernel(&body) }.launch();
        prop_assert!(!matches!(result, Err(LaunchError::Configuration(_) | LaunchError::NoKernel { .. })), "{result:?}");
    }
}
