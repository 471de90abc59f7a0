//! By AMX's tiles, or by vectors of AVX-512 VNNI.

use std::arch::asm;
use std::arch::x86_64::{_mm512_dpbusd_epi32, _mm512_reduce_add_epi32, _mm512_set1_epi8, _mm512_setzero_si512};
use std::hint::black_box;

use super::OF_NUMBERS;
use crate::cpu::level::{Level, Tiles};

/// Products of a round: of two vectors, and of two tiles.
const OF_VECTORS: usize = OF_NUMBERS / 64;
const OF_TILES: usize = OF_NUMBERS / (16 * 16 * 64);

/// Sums of vectors that do not wait for each other, and of tiles.
const CHAINS: usize = 16;
const TILES: usize = 4;

/// As [`int8::multiply`](super::multiply).
///
/// # Safety
/// As there.
pub(super) unsafe fn multiply(level: Level, rounds: u32) -> f64 {
    // SAFETY: promised by the caller.
    unsafe { if level == Level::Amx { by_tiles(rounds) } else { by_vectors(rounds) } }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn by_vectors(rounds: u32) -> f64 {
    // Numbers that the compiler does not know.
    let (a, b) = (_mm512_set1_epi8(black_box(1)), _mm512_set1_epi8(black_box(1)));
    let mut total = 0.0;
    for _ in 0..rounds {
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..OF_VECTORS / CHAINS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        total += sums.iter().map(|&sum| f64::from(_mm512_reduce_add_epi32(sum))).sum::<f64>();
    }
    total
}

/// # Safety
/// There are tiles.
unsafe fn by_tiles(rounds: u32) -> f64 {
    // SAFETY: promised by the caller.
    let _tiles = unsafe { Tiles::new() };
    let (ones, mut total) = ([1u8; 1024], 0.0);
    for _ in 0..rounds {
        let mut sums = [[0i32; 256]; TILES];
        // SAFETY: there are tiles, configured, and memory of their size.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "tileloadd tmm4, [{ones} + {line}]",
                "tileloadd tmm5, [{ones} + {line}]",
                "2:",
                "tdpbuud tmm0, tmm4, tmm5",
                "tdpbuud tmm1, tmm4, tmm5",
                "tdpbuud tmm2, tmm4, tmm5",
                "tdpbuud tmm3, tmm4, tmm5",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{sums} + {line}], tmm0",
                "tilestored [{sums} + {line} + 1024], tmm1",
                "tilestored [{sums} + {line} + 2048], tmm2",
                "tilestored [{sums} + {line} + 3072], tmm3",
                ones = in(reg) ones.as_ptr(),
                line = in(reg) 64usize,
                steps = inout(reg) OF_TILES / TILES => _,
                sums = in(reg) sums.as_mut_ptr(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _,
                options(nostack),
            );
        }
        total += sums.as_flattened().iter().map(|&sum| f64::from(sum)).sum::<f64>();
    }
    total
}
