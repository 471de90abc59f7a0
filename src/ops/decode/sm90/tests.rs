use super::*;
use crate::cache::CacheFormat;

/// An H100's and H200's shared memory.
pub(super) const LIMITS: Limits =
    Limits { shared_bytes: 227 * 1024, shared_bytes_per_multiprocessor: 228 * 1024, multiprocessors: 132 };

pub(super) fn layer(heads: usize, rope: (usize, usize), rank: usize) -> Geometry {
    let mut geometry = Geometry::mha2mla(heads, rope.0, rope.1 + 8, rope.1, 1).unwrap();
    geometry.latent_rank = rank;
    geometry
}

pub(super) fn chosen(heads: usize, rope: (usize, usize), rank: usize, format: CacheFormat) -> Result<Candidate> {
    let geometry = layer(heads, rope, rank);
    let layout = CacheLayout::new(&geometry, format, 64).unwrap();
    candidates(&geometry, &layout, &LIMITS, Arch::Sm90a).map(|candidates| candidates[0])
}

fn pair_bytes(heads: usize, rope: (usize, usize), rank: usize, format: CacheFormat) -> u32 {
    CacheLayout::new(&layer(heads, rope, rank), format, 64).unwrap().affine_tile().row_bytes as u32
}

/// What swizzled blocks, copies and vectors count on.
pub(super) fn assert_fits_and_is_aligned(candidate: &Candidate) {
    assert!(candidate.shared_bytes <= LIMITS.shared_bytes, "{candidate:?}");
    let s = candidate.sm90;
    for (begin, unit) in
        [(s.q_rope, 1024), (s.q_sums, 1024), (s.weights, 1024), (s.state, 128), (s.stages, 128), (s.rope, 16)]
    {
        assert!(begin.is_multiple_of(unit), "{candidate:?}");
    }
}

/// Keys in groups of which each pair of heads has one are told from those that all heads have, and from those that lie
/// across groups.
#[test]
fn groups_of_pairs_of_heads() {
    let way = |heads, rope, group| {
        let format = CacheFormat::INT4.with_rope(RopeFormat::Int4 { group });
        chosen(heads, rope, 512, format).unwrap().sm90.rope_way
    };
    for (heads, rope, group, expected) in [
        (32, (8, 16), Group::G32, 3),
        (32, (32, 16), Group::G32, 3),
        (32, (32, 16), Group::G64, 3),
        (32, (16, 32), Group::G32, 3),
        (32, (8, 16), Group::Whole, 3),
        // One block, of one group or of several that all heads have; a head has two; a pair has two.
        (16, (1, 64), Group::Whole, 2),
        (15, (5, 8), Group::G32, 1),
        (128, (1, 64), Group::G32, 1),
        (32, (8, 24), Group::G32, 1),
        (8, (8, 32), Group::G32, 1),
        (32, (8, 64), Group::G32, 1),
        (32, (1, 0), Group::G32, 0),
    ] {
        assert_eq!(way(heads, rope, group), expected, "{heads} {rope:?} {group:?}");
    }
}

#[test]
fn choices_for_named_models() {
    for (heads, rope, rank, expected) in [
        // Llama3-8B, d_kv 64; Llama2-7B, d_kv 16; DeepSeek-V2-Lite and V3; MiniCPM3; SmolLM-135M, d_kv 32.
        (32, (8, 16), 512, "whole_8x4 6"),
        (32, (32, 16), 512, "whole_8x4 3"),
        (16, (1, 64), 512, "whole_8x2 6"),
        (128, (1, 64), 512, "whole_8x8 4"),
        (40, (1, 32), 256, "whole_4x4 6"),
        (9, (3, 8), 96, "whole_4x2 6"),
    ] {
        let candidate = chosen(heads, rope, rank, CacheFormat::INT4).unwrap();
        let kernel = candidate.kernel.trim_start_matches("decode_sm90_");
        assert_eq!(format!("{kernel} {}", candidate.sm90.stage_count), expected);
    }
}

/// Latents of bf16: two tiles of 512 numbers have room beside the query of 64 heads, to the byte, if the rotated keys are
/// bf16; otherwise beside that of fewer.
#[test]
fn choices_for_named_models_of_bf16() {
    let codes = CacheFormat::BF16.with_rope(RopeFormat::Int8);
    for (heads, rope, rank, format, expected) in [
        (32, (8, 16), 512, CacheFormat::BF16, "bf16_8x4 2"),
        (16, (1, 64), 512, CacheFormat::BF16, "bf16_8x2 2"),
        (128, (1, 64), 512, CacheFormat::BF16, "bf16_8x8 2"),
        (128, (1, 64), 512, codes, "bf16_8x4 2"),
        (40, (1, 32), 256, CacheFormat::BF16, "bf16_4x8 3"),
        (9, (3, 8), 96, CacheFormat::BF16, "bf16_4x2 5"),
    ] {
        let candidate = chosen(heads, rope, rank, format).unwrap();
        let kernel = candidate.kernel.trim_start_matches("decode_sm90_");
        assert_eq!(format!("{kernel} {}", candidate.sm90.stage_count), expected);
    }
    assert_eq!(chosen(128, (1, 64), 512, CacheFormat::BF16).unwrap().shared_bytes, LIMITS.shared_bytes);
}

/// Of every kernel of bf16: swizzled blocks are aligned, regions do not overlap, and the lower parts of weights lie where
/// nothing is that is not written anew, and over no latents.
#[test]
fn shared_memory_is_divided_for_bf16() {
    let mut kernels = std::collections::BTreeSet::new();
    for rank in (1..=512).step_by(37).chain([256, 512]) {
        for (heads, rope) in [(32, (16, 16)), (128, (1, 64)), (9, (3, 8)), (1, (1, 0)), (64, (8, 16)), (20, (1, 128))] {
            for rope_format in [RopeFormat::Bf16, RopeFormat::Int8, RopeFormat::Int4 { group: Group::G32 }] {
                let format = CacheFormat::BF16.with_rope(rope_format);
                let geometry = layer(heads, rope, rank);
                let layout = CacheLayout::new(&geometry, format, 64).unwrap();
                for candidate in candidates(&geometry, &layout, &LIMITS, Arch::Sm90a).unwrap() {
                    kernels.insert(candidate.kernel);
                    let s = candidate.sm90;
                    assert_fits_and_is_aligned(&candidate);
                    let (block, width) = (128 * candidate.heads as u32, (rope.0 * rope.1) as u32);
                    let latents = 8192 * candidate.latent_steps as u32;
                    assert!(s.stages.is_multiple_of(1024) && s.stage_bytes.is_multiple_of(1024), "{candidate:?}");
                    assert!(s.q_rope + s.rope_blocks * block == s.q_sums && s.q_sums <= s.weights, "{candidate:?}");
                    assert!(s.weights + block == s.state && s.state < s.stages, "{candidate:?}");
                    assert!(latents <= s.rope && s.rope <= s.affine, "{candidate:?}");
                    let pairs = TILE as u32 * pair_bytes(heads, rope, rank, format);
                    let behind = s.affine + if pairs > 0 { pairs + 32 } else { 0 };
                    let weights = s.stage_bytes - block;
                    let over_keys = rope_format == RopeFormat::Bf16 && width > 0 && width.is_multiple_of(64);
                    assert!(weights >= if over_keys { s.rope } else { behind }, "{candidate:?}");
                    let end = s.stages + s.stage_count * s.stage_bytes;
                    assert!(s.stage_count >= 2 && end as usize <= candidate.shared_bytes, "{candidate:?}");
                }
            }
        }
    }
    assert_eq!(kernels.len(), sys::DECODE_SM90_KERNELS.iter().filter(|kernel| kernel.1 == "Bf16").count());
}

/// What swizzled blocks, copies and vectors count on, and that regions do not overlap.
#[test]
fn shared_memory_is_divided() {
    for rank in (1..=512).step_by(37).chain([256, 512]) {
        for (heads, rope) in [(32, (32, 16)), (128, (1, 64)), (9, (3, 8)), (1, (1, 0)), (32, (8, 16))] {
            for rope_format in [RopeFormat::Bf16, RopeFormat::Int8, RopeFormat::Int4 { group: Group::G32 }] {
                let format = CacheFormat::INT4.with_rope(rope_format);
                let Ok(candidate) = chosen(heads, rope, rank, format) else {
                    assert!(rope.0 * rope.1 == 512 && rope_format == RopeFormat::Bf16, "{heads} {rope:?} {rank}");
                    continue;
                };
                let s = candidate.sm90;
                assert_fits_and_is_aligned(&candidate);
                let block = 128 * candidate.heads as u32;
                assert!(
                    s.q_rope + s.rope_blocks * block == s.q_sums
                        && s.weights + if candidate.heads == 64 { 2 } else { 4 } * block == s.state
                );
                assert!(s.q_sums < s.weights && s.state < s.states && s.states <= s.stages, "{candidate:?}");
                // Zeros behind the pairs.
                let pairs = s.affine + TILE as u32 * pair_bytes(heads, rope, rank, format);
                assert!(pairs.is_multiple_of(16) && pairs + 32 <= s.stage_bytes, "{candidate:?}");
                let stages = s.stages + s.stage_count * s.stage_bytes;
                assert!(stages as usize <= candidate.shared_bytes, "{candidate:?}");
            }
        }
    }
}

/// As the kernels find the row of a 16-byte unit.
#[test]
fn inverses_divide() {
    for units in 1..=MOST_ROPE_BYTES / 16 {
        let inverse = unit_inverse(16 * units);
        assert!((0..8 * units).all(|i| (i * inverse) >> 16 == i / units), "{units}");
    }
}

#[test]
fn what_is_not_served_is_named() {
    let why = |heads, rope, rank, format| match chosen(heads, rope, rank, format).unwrap_err() {
        Error::Unsupported { why, .. } => why,
        other => panic!("{other}"),
    };
    assert_eq!(why(32, (8, 16), 513, CacheFormat::BF16), "latents of bf16 have at most 512 numbers");
    let two_tiles = "needs 297984 bytes of shared memory per block, and the device has 232448";
    assert_eq!(why(32, (32, 16), 512, CacheFormat::BF16), two_tiles);
    assert!(chosen(32, (8, 16), 512, CacheFormat::int4(Group::G64)).is_ok());
    let whole = "its latents are int4 with one scale for each 512 numbers";
    assert_eq!(why(32, (32, 16), 1024, CacheFormat::int4(Group::G64)), whole);
    assert_eq!(why(32, (32, 16), 2561, CacheFormat::INT4), "at most 2560 numbers are supported");
    assert!(chosen(32, (32, 16), 1024, CacheFormat::INT4.with_rope(RopeFormat::Bf16)).is_ok());
    let wide = CacheFormat::INT4.with_rope(RopeFormat::Bf16);
    assert_eq!(why(32, (32, 32), 512, wide), "a token's rotated keys are 2048 bytes, of at most 1024");
}
