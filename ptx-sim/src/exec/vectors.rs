//! Loops over lanes, compiled twice: for every processor of the architecture, and for those with wider vectors.
//!
//! The results are the same bits. Nothing here reorders or contracts floating-point operations: the compiler may do so
//! in neither version, and [`Vectors::FUSED`] is for operations whose result it does not change.

use std::sync::LazyLock;

/// A loop, with all that it works on.
pub(crate) trait Kernel {
    type Output;
    /// Runs it. Implementations are `#[inline(always)]`: only then are they compiled for the vectors of `V`.
    fn run<V: Vectors>(self) -> Self::Output;
}

/// What vectors the code is compiled for.
pub(crate) trait Vectors {
    /// Whether `mul_add` is an instruction. Elsewhere it is a slow function.
    const FUSED: bool;
}

/// The least that the architecture has.
struct Baseline;

impl Vectors for Baseline {
    const FUSED: bool = cfg!(target_feature = "fma");
}

/// Vectors of 256 bits, and fused multiplication and addition.
#[cfg(target_arch = "x86_64")]
struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Vectors for Avx2 {
    const FUSED: bool = true;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,f16c,fma,lzcnt,popcnt")]
fn with_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Avx2>()
}

/// Whether this processor has wider vectors than the least of its architecture, and fused multiplication and addition.
/// Asked for every instruction, so it is found out once.
#[inline]
pub(crate) fn has_wide_vectors() -> bool {
    static WIDE: LazyLock<bool> = LazyLock::new(|| {
        #[cfg(target_arch = "x86_64")]
        return is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        #[cfg(not(target_arch = "x86_64"))]
        false
    });
    *WIDE
}

/// Runs a loop in the version for this processor.
#[inline(always)]
pub(crate) fn run<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if has_wide_vectors() {
        // SAFETY: the processor has every feature that the function is compiled for.
        return unsafe { with_avx2(kernel) };
    }
    kernel.run::<Baseline>()
}
