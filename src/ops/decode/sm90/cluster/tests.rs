use super::*;
use crate::cache::{CacheFormat, LatentFormat};
use crate::ops::decode::sm90::tests::{self, assert_fits_and_is_aligned};

const ROPES: [RopeFormat; 5] = [
    RopeFormat::Int4 { group: Group::G32 },
    RopeFormat::Int4 { group: Group::G128 },
    RopeFormat::Int4 { group: Group::Whole },
    RopeFormat::Int8,
    RopeFormat::Bf16,
];

fn format(rope: RopeFormat) -> CacheFormat {
    CacheFormat::new(LatentFormat::Int4 { group: Group::Whole }, rope)
}

fn layer(heads: usize, rope: (usize, usize), rank: usize, rope_format: RopeFormat) -> (Geometry, CacheLayout) {
    let geometry = tests::layer(heads, rope, rank);
    (geometry, CacheLayout::new(&geometry, format(rope_format), 64).unwrap())
}

fn chosen(heads: usize, rope: (usize, usize), rank: usize, rope_format: RopeFormat) -> Result<Candidate> {
    tests::chosen(heads, rope, rank, format(rope_format))
}

#[test]
fn choices_for_named_models() {
    for (heads, rope, rank, expected) in [
        // Llama2-7B, d_kv 32 and 64; others.
        (32, (32, 16), 1024, "2x4 4"),
        (32, (32, 16), 2048, "4x4 5"),
        (40, (8, 16), 1536, "3x4 6"),
        (8, (1, 64), 2560, "5x1 6"),
    ] {
        let candidate = chosen(heads, rope, rank, ROPES[0]).unwrap();
        let kernel = candidate.kernel.trim_start_matches("decode_cluster_sm90_whole_");
        assert_eq!(format!("{kernel} {}", candidate.sm90.stage_count), expected);
    }
}

/// What swizzled blocks, copies and vectors count on, and that regions do not overlap.
#[test]
fn shared_memory_is_divided() {
    for rank in (513..=2560).step_by(97).chain([1024, 2048, 2560]) {
        for (heads, rope) in [(32, (32, 16)), (128, (1, 64)), (9, (3, 8)), (1, (1, 0)), (32, (8, 16))] {
            for rope_format in ROPES {
                let (geometry, layout) = layer(heads, rope, rank, rope_format);
                let Ok(candidate) = chosen(heads, rope, rank, rope_format) else {
                    panic!("{heads} {rope:?} {rank} {rope_format:?} is not served");
                };
                let s = candidate.sm90;
                assert_eq!(candidate.cluster, rank.div_ceil(RUN));
                assert_fits_and_is_aligned(&candidate);
                assert!(s.affine.is_multiple_of(16), "{candidate:?}");
                let block = 128 * candidate.heads as u32;
                assert!(s.q_rope == 8 * block && s.q_rope + s.rope_blocks * block == s.q_sums);
                let groups = RopePart::new(&geometry, &layout, candidate.cluster).groups as u32;
                // The latents' sums and those of up to 16 groups are a block.
                assert_eq!(s.q_sums + groups.div_ceil(16).max(1) * block, s.weights);
                assert_eq!(s.weights + 6 * block, s.state);
                assert!(s.state < s.stages && s.rope_way < 3, "{candidate:?}");
                // Zeros behind the pairs.
                assert!(s.affine + TILE as u32 * 4 * (1 + groups) + 32 <= s.stage_bytes, "{candidate:?}");
                assert_eq!((s.stages + s.stage_count * s.stage_bytes) as usize, candidate.shared_bytes);
            }
        }
    }
}

/// All blocks' parts make up the rotated key, and no group is in two of them.
#[test]
fn a_rotated_key_is_divided() {
    for (heads, dims) in [(1, 64), (32, 16), (7, 80), (3, 24), (16, 64), (1, 0), (1, 2)] {
        for (rope_format, runs) in ROPES.into_iter().flat_map(|format| (2..=5).map(move |runs| (format, runs))) {
            let (geometry, layout) = layer(heads, (heads, dims), 512 * runs, rope_format);
            let part = RopePart::new(&geometry, &layout, runs);
            let width = heads * dims;
            assert!(part.blocks * ROPE_BLOCK * runs >= width);
            let groups = rope_groups(&layout);
            if groups > 1 {
                let size = part.blocks * ROPE_BLOCK / part.groups;
                assert!(part.groups * runs >= groups && width.div_ceil(size) == groups, "{width} {rope_format:?}");
            }
            assert_eq!(part.groups == 0, groups == 0);
        }
    }
}
