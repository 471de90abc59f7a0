//! The machine whose times are predicted: what of it is known beside its kernels.

use serde::{Deserialize, Serialize};

/// A GPU.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Most shared memory of a block, in bytes.
    pub shared_bytes: usize,
    /// Cycles per microsecond while kernels run. Nobody recorded the clock of the committed rows: this is the highest one
    /// of an H200.
    pub cycles_per_us: f64,
    /// Bytes per microsecond of global memory, as a copy reached them.
    pub bytes_per_us: f64,
    /// Multiplications and additions of `mma.sync` per cycle and scheduler, as products reached them.
    pub products_per_cycle: f64,
}

/// The H200 of `benches/results/h200`: its rates are the `ceilings` of `benchmarks.json`.
pub const H200: Machine = Machine {
    multiprocessors: 132,
    shared_bytes: 227 * 1024,
    cycles_per_us: 1980.0,
    bytes_per_us: 3.892e6,
    products_per_cycle: 642.5e6 / 2.0 / 1980.0 / (132.0 * 4.0),
};

impl Machine {
    /// Bytes of global memory per cycle and multiprocessor.
    #[must_use]
    pub fn bytes_per_cycle(&self) -> f64 {
        self.bytes_per_us / self.cycles_per_us / self.multiprocessors as f64
    }
}
