//! Which instructions the operations use.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod dotprod;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

use std::fmt::{self, Display, Formatter};

#[cfg(target_arch = "x86_64")]
pub(super) use self::amx::Tiles;
#[cfg(target_arch = "x86_64")]
use self::avx2::Avx2;
#[cfg(target_arch = "aarch64")]
pub(super) use self::dotprod::{add_signed_dots, add_unsigned_dots};
#[cfg(target_arch = "aarch64")]
use self::neon::Neon;
#[cfg(target_arch = "aarch64")]
pub(super) use self::neon::floats_of_halves;
use self::portable::Portable;
use crate::cache::AFFINE_BYTES;
use crate::error::{Error, Result};

/// Instructions that operations on the host use.
///
/// Results of one level are the same to the bit on every machine that has it; those of another may differ in last bits, by
/// fused multiply-adds and by the order of sums. What lands in the cache is the same in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// What every CPU of the compiler's target has.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 (F, BW, DQ, VL) and its VNNI.
    Avx512Vnni,
    /// That, and AMX's tiles of 8-bit integers and of bf16 (Linux only).
    Amx,
    /// NEON, which every CPU of 64-bit Arm has.
    Neon,
    /// That, and its sums of four products of 8-bit integers (`dotprod`).
    NeonDotprod,
}

/// The environment variable that names the level, instead of the best one there is.
const VARIABLE: &str = "LATENT_ATTENTION_CPU";

impl Level {
    /// All of them, the best of an architecture last.
    pub const ALL: [Self; 6] = [Self::Portable, Self::Avx2, Self::Avx512Vnni, Self::Amx, Self::Neon, Self::NeonDotprod];

    /// Its name, as the environment variable `LATENT_ATTENTION_CPU` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512Vnni => "avx512vnni",
            Self::Amx => "amx",
            Self::Neon => "neon",
            Self::NeonDotprod => "neon-dotprod",
        }
    }

    /// Whether this CPU, under this operating system, has the instructions.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Amx => Self::Avx512Vnni.is_available() && amx::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512Vnni | Self::Amx => false,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            #[cfg(target_arch = "aarch64")]
            Self::NeonDotprod => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(not(target_arch = "aarch64"))]
            Self::Neon | Self::NeonDotprod => false,
        }
    }

    /// Whether it has products of 8-bit integers that sum to 32 bits.
    pub(crate) fn has_int8(self) -> bool {
        matches!(self, Self::Avx512Vnni | Self::Amx | Self::NeonDotprod)
    }

    /// Those that this machine has.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|level| level.is_available())
    }

    /// The level that the environment names, or the best there is.
    pub(crate) fn from_environment() -> Result<Self> {
        let best = || Self::available().last().unwrap_or(Self::Portable);
        std::env::var_os(VARIABLE).map_or_else(|| Ok(best()), |name| Self::named(&name.to_string_lossy()))
    }

    fn named(name: &str) -> Result<Self> {
        let level = Self::ALL.into_iter().find(|level| level.name() == name).ok_or_else(|| Error::Config {
            what: format!("{VARIABLE}={name}"),
            why: format!("known levels are {}", Self::ALL.map(Self::name).join(", ")),
        })?;
        level.checked()
    }

    /// This level, if the machine has it.
    pub(crate) fn checked(self) -> Result<Self> {
        if self.is_available() {
            return Ok(self);
        }
        let available: Vec<_> = Self::available().map(Self::name).collect();
        Err(Error::Unsupported {
            what: format!("CPU level {self}"),
            why: format!("this machine has {}", available.join(", ")),
        })
    }

    /// Runs a task in code for this level, which the machine must have.
    pub(super) fn run(self, task: impl Task) {
        match self {
            Self::Portable => task.run::<Portable>(),
            // SAFETY: levels that the machine lacks are refused when a device is made.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { run_avx2(task) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni | Self::Amx => unsafe { run_avx512(task) },
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512Vnni | Self::Amx => Self::is_not_there(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon | Self::NeonDotprod => task.run::<Neon>(),
            #[cfg(not(target_arch = "aarch64"))]
            Self::Neon | Self::NeonDotprod => Self::is_not_there(),
        }
    }

    fn is_not_there() -> ! {
        unreachable!("a device is made of a level that the machine has")
    }
}

impl Display for Level {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A part of an operation, which is compiled for every level: it and all that it calls in its loops has to be
/// `#[inline(always)]`, since a function that is called is compiled for the least.
pub(super) trait Task {
    fn run<A: Arithmetic>(self);
}

/// Numbers of a register of the arithmetic: on every level as many, so that sums are taken in the same order.
pub(super) const LANES: usize = 8;

/// How a level computes, eight numbers at a time.
pub(super) trait Arithmetic {
    /// Eight numbers.
    type Eight: Copy;

    /// Eight times the same.
    fn splat(number: f32) -> Self::Eight;

    fn load(numbers: &[f32; LANES]) -> Self::Eight;

    fn store(eight: Self::Eight, to: &mut [f32; LANES]);

    fn multiply(a: Self::Eight, b: Self::Eight) -> Self::Eight;

    /// `a * b + c`.
    fn multiply_add(a: Self::Eight, b: Self::Eight, c: Self::Eight) -> Self::Eight;

    /// The sums of four times eight numbers, each in the same order.
    fn sums(four: [Self::Eight; 4]) -> [f32; 4];

    /// The eight codes of a word, in the order of [`unpack_nibbles`](crate::cache::unpack_nibbles).
    fn nibbles(word: u32) -> Self::Eight;

    /// Codes of 8 bits.
    fn bytes(codes: &[u8; LANES]) -> Self::Eight;

    /// Eight times the scale of an [`Affine`](crate::cache::Affine)'s bytes, and eight times its min.
    fn affine(bytes: [u8; AFFINE_BYTES]) -> [Self::Eight; 2];
}

/// That of levels which have products of 8-bit integers.
#[cfg(target_arch = "x86_64")]
pub(super) type WithInt8 = Avx2;
#[cfg(target_arch = "aarch64")]
pub(super) type WithInt8 = Neon;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2(task: impl Task) {
    task.run::<Avx2>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn run_avx512(task: impl Task) {
    task.run::<Avx2>();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_known_by_name() {
        for level in Level::available() {
            assert_eq!(Level::named(level.name()).unwrap(), level);
        }
        let message = Level::named("sse9").unwrap_err().to_string();
        assert_eq!(
            message,
            "LATENT_ATTENTION_CPU=sse9: known levels are portable, avx2, avx512vnni, amx, neon, neon-dotprod"
        );
    }

    #[test]
    fn a_level_that_the_machine_lacks_is_refused() {
        for level in Level::ALL.into_iter().filter(|level| !level.is_available()) {
            let message = level.checked().unwrap_err().to_string();
            assert!(message.starts_with(&format!("CPU level {level}: this machine has portable")), "{message}");
        }
    }
}
