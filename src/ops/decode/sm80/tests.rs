use super::*;
use crate::cache::{CacheFormat, Group, LatentFormat};

const KIB: usize = 1024;

fn chosen(heads: usize, rope: (usize, usize), rank: usize, format: CacheFormat, kib: usize) -> Candidate {
    let mut geometry = Geometry::mha2mla(heads, rope.0, rope.1 + 8, rope.1, 1).unwrap();
    geometry.latent_rank = rank;
    let layout = CacheLayout::new(&geometry, format, 64).unwrap();
    choose(&geometry, &layout, &limits(kib)).unwrap()
}

fn limits(kib: usize) -> Limits {
    Limits { shared_bytes: kib * KIB, shared_bytes_per_multiprocessor: (kib + 1) * KIB, multiprocessors: 100 }
}

/// The cheapest candidate in code for GPUs before Blackwell.
fn choose(geometry: &Geometry, layout: &CacheLayout, limits: &Limits) -> Result<Candidate> {
    let mut candidates = candidates(geometry, layout, limits, Arch::Sm80)?;
    candidates.sort_by_key(|candidate| candidate.cost);
    Ok(candidates[0])
}

/// Kernel, tokens per tile, stages and blocks per multiprocessor, for GeForce and L40, A100, H100.
#[test]
fn choices_for_named_models() {
    let of = |heads, rope, rank, format| {
        [99, 163, 227].map(|kib| {
            let t = chosen(heads, rope, rank, format, kib);
            let kernel = t.kernel.trim_start_matches("decode_");
            format!("{kernel} {}x{} {}", t.tile_tokens, t.shared.stage_count, t.blocks_per_multiprocessor)
        })
    };
    let (int4, groups, bf16) = (CacheFormat::INT4, CacheFormat::int4(Group::G32), CacheFormat::BF16);
    for (heads, rope, rank, format, expected) in [
        // Llama3-8B, d_kv 64.
        (32, (8, 16), 512, int4, ["whole_1x4_32 32x2 1", "whole_1x4_64 64x2 1", "whole_1x4_64 64x2 2"]),
        (32, (8, 16), 512, groups, ["groups_1x4_32 32x2 1", "groups_1x4_64 64x2 1", "groups_1x4_64 64x2 1"]),
        (32, (8, 16), 512, bf16, ["bf16_1x2_32 32x1 1", "bf16_1x4_32 32x2 1", "bf16_1x4_32 32x2 1"]),
        // DeepSeek-V2-Lite.
        (16, (1, 64), 512, int4, ["whole_1x2_64 64x2 1", "whole_1x2_64 64x2 2", "whole_1x2_64 64x2 2"]),
        // Llama2-7B, d_kv 16, 32 and 64.
        (32, (32, 16), 512, int4, ["whole_1x4_32 32x1 1", "whole_1x4_64 64x2 1", "whole_1x4_32 32x2 2"]),
        (32, (32, 16), 1024, int4, ["whole_2x2_32 32x1 1", "whole_2x4_32 32x2 1", "whole_2x4_64 64x2 1"]),
        (32, (32, 16), 2048, int4, ["whole_5x1_32 32x1 1", "whole_5x2_32 32x1 1", "whole_5x2_32 32x2 1"]),
        (32, (32, 16), 2048, groups, ["groups_5x1_16 16x1 1", "groups_5x1_32 32x1 1", "groups_5x1_32 32x2 1"]),
        (32, (32, 16), 2048, bf16, ["bf16_5x1_16 8x1 1", "bf16_5x1_16 16x1 1", "bf16_5x1_32 32x1 1"]),
        // SmolLM-135M, d_kv 32.
        (9, (3, 8), 96, int4, ["whole_1x2_32 32x2 2", "whole_1x2_64 64x2 2", "whole_1x2_64 64x2 3"]),
    ] {
        assert_eq!(of(heads, rope, rank, format), expected);
    }
}

/// Every latent that the kernels take is served on the smallest device, beside as many rotated numbers as Llama2-7B
/// has; only where all of both are bf16, the last two steps of latents are too many.
#[test]
fn everything_fits_99_kib() {
    for rank in (1..=2560).step_by(53).chain([512, 1024, 2048, 2560]) {
        let (whole, groups) = (CacheFormat::INT4, CacheFormat::int4(Group::G32));
        let wide = [whole, groups].map(|format| format.with_rope(RopeFormat::Bf16));
        for format in [whole, groups, wide[0], wide[1], CacheFormat::BF16] {
            for (heads, rope) in [(32, (32, 16)), (128, (1, 64)), (9, (3, 8)), (1, (1, 0))] {
                if format == CacheFormat::BF16 && heads == 32 && rank > 38 * STEP {
                    continue;
                }
                let tiling = chosen(heads, rope, rank, format, 99);
                assert!(tiling.shared_bytes + sys::DECODE_SM80_STATIC_BYTES as usize <= 99 * KIB);
            }
        }
    }
}

/// Hashes of the choices below, one for each amount of shared memory, in KiB: made by the version that first copied pieces of
/// rows.
const CHOICES: [(usize, u64); 12] = [
    (16, 0x7E4B_318F_06AA_F16E),
    (24, 0x5F1E_60EA_8530_4632),
    (32, 0x7557_A7BB_EF88_5749),
    (48, 0x334E_9985_FBFB_49A2),
    (64, 0x0095_D80F_4F84_1B6F),
    (80, 0x12CE_A2C8_A191_9DC5),
    (99, 0xE6B1_3DA7_16CC_FE34),
    (120, 0x8260_DC01_DC0B_DF8A),
    (140, 0x75CC_0809_8743_D4F0),
    (163, 0x044D_B9BC_5ADE_38C3),
    (200, 0x8EE8_56EE_6DB4_F389),
    (227, 0x6D81_C118_7620_E19B),
];

/// The choices for many layers have not changed: neither a kernel nor a tile nor the blocks on a multiprocessor, of which
/// the order of a user's sums depends, nor what an error says.
#[test]
fn choices_stay_what_they_were() {
    let groups = [Group::Whole, Group::G32, Group::G128];
    let latents = groups.map(|group| LatentFormat::Int4 { group }).into_iter().chain([LatentFormat::Bf16]);
    let ropes = [RopeFormat::Int4 { group: Group::Whole }, RopeFormat::Int8, RopeFormat::Bf16];
    let formats: Vec<_> = latents.flat_map(|latent| ropes.map(|rope| CacheFormat::new(latent, rope))).collect();
    let heads = [1usize, 3, 8, 9, 16, 17, 24, 32, 40, 64, 128];
    let ranks = [1, 64, 100, 256, 448, 512, 513, 768, 1024, 1025, 1536, 2048, 2304, 2560, 2561];
    let got = CHOICES.map(|(kib, _)| {
        let mut hash = Fnv::default();
        for heads in heads {
            for rope in [(1, 64), (1, 0), (heads, 16), (heads, 64), (heads.div_ceil(8), 8)] {
                if heads % rope.0 != 0 {
                    continue;
                }
                for rank in ranks {
                    let mut geometry = Geometry::mha2mla(heads, rope.0, rope.1 + 8, rope.1, 1).unwrap();
                    geometry.latent_rank = rank;
                    for &format in &formats {
                        let layout = CacheLayout::new(&geometry, format, 64).unwrap();
                        hash.add(&match choose(&geometry, &layout, &limits(kib)) {
                            Ok(t) => format!(
                                "{} {} {} {} {} {:?}",
                                t.kernel, t.heads, t.tile_tokens, t.blocks_per_multiprocessor, t.shared_bytes, t.shared
                            ),
                            Err(error) => error.to_string(),
                        });
                    }
                }
            }
        }
        (kib, hash.0)
    });
    assert_eq!(got, CHOICES);
}

/// FNV-1a.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, text: &str) {
        for byte in text.bytes().chain([0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }
}
