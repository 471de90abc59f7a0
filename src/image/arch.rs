//! The architectures that kernels are compiled for. The build script includes this file too.

use std::cmp::Reverse;

/// Compute capabilities for which NVIDIA promises no compatibility with machine code of others of their generation:
/// Jetson Orin, and 8.8, of which no more than the number is published.
const INCOMPATIBLE: [(i32, i32); 2] = [(8, 7), (8, 8)];

/// An architecture that nvcc compiles for: a real one (`sm_80`: machine code) or a virtual one (`compute_80`: PTX).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Arch {
    /// Machine code for A100.
    Sm80,
    /// Machine code for A10, A40 and the GeForce RTX 30 series.
    Sm86,
    /// Machine code for L4, L40 and the GeForce RTX 40 series.
    Sm89,
    /// Machine code for H100 and H200, their own instructions included.
    Sm90a,
    /// Machine code for B200, B300 and what else has compute capability 10.x.
    Sm100,
    /// Machine code for the GeForce RTX 50 series, RTX PRO Blackwell and GB10.
    Sm120,
    /// PTX for every GPU from Ampere on, also those that are not built yet.
    Compute80,
    /// PTX with Hopper's own instructions, which only compute capability 9.0 runs.
    Compute90a,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Sm80, Self::Sm86, Self::Sm89, Self::Sm90a, Self::Sm100, Self::Sm120, Self::Compute80, Self::Compute90a];

    /// nvcc's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sm80 => "sm_80",
            Self::Sm86 => "sm_86",
            Self::Sm89 => "sm_89",
            Self::Sm90a => "sm_90a",
            Self::Sm100 => "sm_100",
            Self::Sm120 => "sm_120",
            Self::Compute80 => "compute_80",
            Self::Compute90a => "compute_90a",
        }
    }

    /// Whether code for it is PTX, which drivers compile when they load it.
    #[must_use]
    pub const fn is_virtual(self) -> bool {
        matches!(self, Self::Compute80 | Self::Compute90a)
    }

    /// The compute capability, major and minor, that it is made for.
    #[must_use]
    pub const fn capability(self) -> (i32, i32) {
        match self {
            Self::Sm80 | Self::Compute80 => (8, 0),
            Self::Sm86 => (8, 6),
            Self::Sm89 => (8, 9),
            Self::Sm90a | Self::Compute90a => (9, 0),
            Self::Sm100 => (10, 0),
            Self::Sm120 => (12, 0),
        }
    }

    /// Those whose code a GPU of a compute capability runs, the best first: machine code before PTX, new before old.
    pub(crate) fn running_on(capability: (i32, i32)) -> Vec<Self> {
        let mut running: Vec<Self> = Self::ALL.into_iter().filter(|arch| arch.runs_on(capability)).collect();
        running.sort_by_key(|arch| (arch.is_virtual(), Reverse(arch.capability())));
        running
    }

    /// Whether a GPU of a compute capability runs code for it. Code with an architecture's own instructions (the `a` in
    /// its name) runs on that one only. Other PTX runs on everything newer too, and other machine code on the newer
    /// GPUs of its generation, but for the incompatible ones.
    fn runs_on(self, capability: (i32, i32)) -> bool {
        if self.name().ends_with('a') {
            return capability == self.capability();
        }
        let is_newer = capability >= self.capability();
        let is_related = capability.0 == self.capability().0 && !INCOMPATIBLE.contains(&capability);
        is_newer && (self.is_virtual() || is_related)
    }
}
