//! What `absorb` may cost, as the simulator counts it: PTX instructions, which a GPU's compiler still thins out.

use latent_attention::device::Simulation;
use ptx_sim::meter::{Class, Meter};

use crate::absorb::{Case, Operation};
use crate::simulate;

/// Numbers along k of a k-step.
const K_STEP: usize = 32;

/// The meter of one block that multiplies a whole tile, over so many k-steps. None on a GPU.
fn meter(operation: Operation, multiprocessors: usize, tile: usize, steps: usize) -> Option<Meter> {
    let device = simulate(Simulation::default().with_multiprocessors(multiprocessors));
    let case = Case::new(8, operation, tile, [1, 1, steps * K_STEP, tile]);
    // Without `few`, which has the smaller blocks.
    case.batch_invariant(true).run(&device);
    device.take_counts().into_values().next().map(|counted| counted.meter)
}

/// Instructions of a warp for a k-step, with about 5 % to spare: in large tiles 32 products and 12 `ldmatrix`, in medium
/// ones half and two thirds as many.
#[test]
fn instructions_per_k_step() {
    use Operation::{Output, Query};
    for (operation, multiprocessors, tile, warps, most, [products, loads]) in [
        (Query, 1, 64, 4, 93, [16, 8]),
        (Output, 1, 64, 4, 82, [16, 8]),
        (Query, 0, 128, 8, 131, [32, 12]),
        (Output, 0, 128, 8, 120, [32, 12]),
    ] {
        let [short, long] = [8, 24].map(|steps| meter(operation, multiprocessors, tile, steps));
        let (Some(short), Some(long)) = (short, long) else { return };
        let per_step = |count: fn(&Meter) -> u64| (count(&long) - count(&short)) / (16 * warps);
        assert_eq!(per_step(|m| m.instructions(Class::Mma).warp), products, "{operation:?}, {tile}");
        assert_eq!(per_step(|m| m.instructions(Class::Matrix).warp), loads, "{operation:?}, {tile}");
        let warp = per_step(|m| m.total().warp);
        assert!(warp <= most, "{operation:?}, tiles of {tile}: {warp} instructions of a k-step, of {most}");
    }
}
