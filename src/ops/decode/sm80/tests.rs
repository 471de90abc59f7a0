use super::*;
use crate::cache::CacheFormat;

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
        (32, (8, 16), 512, int4, ["whole_1x4_32 32x2 1", "whole_1x4_32 32x2 2", "whole_1x4_64 64x2 2"]),
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

/// Hashes of the choices below, one for each amount of shared memory, in KiB: made by the version that first had a kernel
/// for each size of tile.
const CHOICES: [(usize, u64); 12] = [
    (16, 0x850B_F8F3_7E9E_62CC),
    (24, 0x12FD_1BCC_F229_7B1C),
    (32, 0xBBB1_01F4_F9E3_8976),
    (48, 0x9DDB_1231_177D_05E1),
    (64, 0xE3E4_E24D_03E7_6F55),
    (80, 0x0DBC_D4E1_F365_495D),
    (99, 0xA771_DD47_7BC1_876F),
    (120, 0x55DE_B90B_022A_8A04),
    (140, 0x4CF9_96A0_9578_FAD3),
    (163, 0x8DD1_2979_FC3F_52AB),
    (200, 0xB90A_F18A_F76D_2C56),
    (227, 0xE3B7_909D_CC05_1543),
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
