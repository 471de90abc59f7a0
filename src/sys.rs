//! Parameter blocks and constants of the kernels. Made from `csrc/params.h`, which explains each field, by
//! `cargo xtask bindings`; do not edit.
#![allow(missing_docs, non_upper_case_globals)]

pub const ROW_BF16: u32 = 0;
pub const ROW_INT4: u32 = 1;
pub const ROW_INT8: u32 = 2;
pub const COMBINE_THREADS: u32 = 256;
pub const COMBINE_CHUNK: u32 = 128;
pub const COMBINE_FEW: u32 = 16;
pub const COMBINE_BATCH: u32 = 64;
pub const COMBINE_MAX_SPLITS: u32 = 8192;
pub const SCHEDULE_THREADS: u32 = 512;
pub const SCHEDULE_TILE: u32 = 65536;
pub const SCHEDULE_WAVES: u32 = 4;
pub const DECODE_THREADS: u32 = 256;
pub const DECODE_STEP: u32 = 64;
pub const DECODE_ROPE_STEP: u32 = 32;
pub const DECODE_GROUP_BLOCK: u32 = 16;
pub const DECODE_SM80_STATIC_BYTES: u32 = 3712;
pub const DECODE_MAX_TILE: u32 = 64;
pub const DECODE_MERGE_BYTES: u32 = 4320;
pub const DECODE_SM90_THREADS: u32 = 384;
pub const DECODE_SM90_MAX_STAGES: u32 = 6;
pub const DECODE_SM90_TOGETHER_STAGES: u32 = 4;
pub const DECODE_SM90_STATE_BYTES: u32 = 256;
pub const DECODE_SM90_STATE_HEAD_BYTES: u32 = 88;
pub const DECODE_CLUSTER_SM90_THREADS: u32 = 512;
pub const DECODE_CLUSTER_SM90_RUN: u32 = 512;
pub const DECODE_CLUSTER_SM90_WEIGHT_TILES: u32 = 6;
pub const DECODE_CLUSTER_SM90_TILES_AHEAD: u32 = 2;
pub const DECODE_CLUSTER_SM90_STATE_BYTES: u32 = 1664;
pub const DECODE_CLUSTER_SM90_STATE_HEADS_BYTES: u32 = 1920;
pub const DECODE_CLUSTER_SM90_STATE_BLOCK_BYTES: u32 = 384;
pub const DECODE_CLUSTER_SM90_STATE_PARTIAL_BYTES: u32 = 512;
pub const PAIRING_HALF: u32 = 0;
pub const PAIRING_INTERLEAVED: u32 = 1;
pub const ROPE_APPEND_THREADS: u32 = 128;
pub const ROPE_APPEND_RUN: u32 = 512;
pub const HEAD_NORM_THREADS: u32 = 128;
pub const CEILING_THREADS: u32 = 256;
pub const CEILING_MMA_FLOPS_PER_WARP: u32 = 32768;
pub const ABSORB_FEW_ROWS: u32 = 16;
pub const ABSORB_SMALL_BLOCKS: u32 = 3;
pub const ABSORB_FEW_THREADS: u32 = 128;
pub const ABSORB_QUERY_FEW_OUTPUTS: u32 = 64;
pub const EXPAND_OUTPUT_FEW_OUTPUTS: u32 = 16;
pub const ABSORB_ORDERED_OUTPUTS: u32 = 64;
pub const ABSORB_ORDERED_SHARED_BYTES: u32 = 40960;
pub const ABSORB_MEDIUM_TILE: u32 = 64;
pub const ABSORB_MEDIUM_THREADS: u32 = 128;
pub const GEMM_THREADS: u32 = 256;
pub const GEMM_TILE: u32 = 128;
pub const GEMM_SHARED_BYTES: u32 = 49152;
pub const UP_PROJECT_SM90_THREADS: u32 = 384;
pub const UP_PROJECT_SM90_COLUMNS: u32 = 256;
pub const UP_PROJECT_SM90_KEPT_STEPS: u32 = 8;
pub const UP_PROJECT_SM90_SHARED_BYTES: u32 = 231992;
pub const GATHER_THREADS: u32 = 256;
pub const GATHER_TOKENS: u32 = 16;
pub const COPY_PAGES_THREADS: u32 = 256;
pub const COPY_PAGES_BYTES: u32 = 16384;
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct GeometryParams {
    pub query_heads: u32,
    pub kv_heads: u32,
    pub latent_rank: u32,
    pub rope_heads: u32,
    pub rope_dim: u32,
    pub nope_dim: u32,
    pub value_dim: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GeometryParams"][::core::mem::size_of::<GeometryParams>() - 32usize];
    ["Alignment of GeometryParams"][::core::mem::align_of::<GeometryParams>() - 4usize];
    ["Offset of field: GeometryParams::query_heads"][::core::mem::offset_of!(GeometryParams, query_heads) - 0usize];
    ["Offset of field: GeometryParams::kv_heads"][::core::mem::offset_of!(GeometryParams, kv_heads) - 4usize];
    ["Offset of field: GeometryParams::latent_rank"][::core::mem::offset_of!(GeometryParams, latent_rank) - 8usize];
    ["Offset of field: GeometryParams::rope_heads"][::core::mem::offset_of!(GeometryParams, rope_heads) - 12usize];
    ["Offset of field: GeometryParams::rope_dim"][::core::mem::offset_of!(GeometryParams, rope_dim) - 16usize];
    ["Offset of field: GeometryParams::nope_dim"][::core::mem::offset_of!(GeometryParams, nope_dim) - 20usize];
    ["Offset of field: GeometryParams::value_dim"][::core::mem::offset_of!(GeometryParams, value_dim) - 24usize];
    ["Offset of field: GeometryParams::reserved"][::core::mem::offset_of!(GeometryParams, reserved) - 28usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct CacheParams {
    pub pages: u64,
    pub page_bytes: u64,
    pub page_count: u32,
    pub page_size: u32,
    pub latent_row_bytes: u32,
    pub rope_offset: u32,
    pub rope_row_bytes: u32,
    pub affine_offset: u32,
    pub affine_row_bytes: u32,
    pub latent_groups: u32,
    pub latent_kind: u32,
    pub latent_group: u32,
    pub rope_kind: u32,
    pub rope_group: u32,
    pub key_factors: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CacheParams"][::core::mem::size_of::<CacheParams>() - 72usize];
    ["Alignment of CacheParams"][::core::mem::align_of::<CacheParams>() - 8usize];
    ["Offset of field: CacheParams::pages"][::core::mem::offset_of!(CacheParams, pages) - 0usize];
    ["Offset of field: CacheParams::page_bytes"][::core::mem::offset_of!(CacheParams, page_bytes) - 8usize];
    ["Offset of field: CacheParams::page_count"][::core::mem::offset_of!(CacheParams, page_count) - 16usize];
    ["Offset of field: CacheParams::page_size"][::core::mem::offset_of!(CacheParams, page_size) - 20usize];
    ["Offset of field: CacheParams::latent_row_bytes"]
        [::core::mem::offset_of!(CacheParams, latent_row_bytes) - 24usize];
    ["Offset of field: CacheParams::rope_offset"][::core::mem::offset_of!(CacheParams, rope_offset) - 28usize];
    ["Offset of field: CacheParams::rope_row_bytes"][::core::mem::offset_of!(CacheParams, rope_row_bytes) - 32usize];
    ["Offset of field: CacheParams::affine_offset"][::core::mem::offset_of!(CacheParams, affine_offset) - 36usize];
    ["Offset of field: CacheParams::affine_row_bytes"]
        [::core::mem::offset_of!(CacheParams, affine_row_bytes) - 40usize];
    ["Offset of field: CacheParams::latent_groups"][::core::mem::offset_of!(CacheParams, latent_groups) - 44usize];
    ["Offset of field: CacheParams::latent_kind"][::core::mem::offset_of!(CacheParams, latent_kind) - 48usize];
    ["Offset of field: CacheParams::latent_group"][::core::mem::offset_of!(CacheParams, latent_group) - 52usize];
    ["Offset of field: CacheParams::rope_kind"][::core::mem::offset_of!(CacheParams, rope_kind) - 56usize];
    ["Offset of field: CacheParams::rope_group"][::core::mem::offset_of!(CacheParams, rope_group) - 60usize];
    ["Offset of field: CacheParams::key_factors"][::core::mem::offset_of!(CacheParams, key_factors) - 64usize];
    ["Offset of field: CacheParams::reserved"][::core::mem::offset_of!(CacheParams, reserved) - 68usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct BatchParams {
    pub query_starts: u64,
    pub seq_lens: u64,
    pub page_table: u64,
    pub page_starts: u64,
    pub sequences: u32,
    pub max_pages: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of BatchParams"][::core::mem::size_of::<BatchParams>() - 40usize];
    ["Alignment of BatchParams"][::core::mem::align_of::<BatchParams>() - 8usize];
    ["Offset of field: BatchParams::query_starts"][::core::mem::offset_of!(BatchParams, query_starts) - 0usize];
    ["Offset of field: BatchParams::seq_lens"][::core::mem::offset_of!(BatchParams, seq_lens) - 8usize];
    ["Offset of field: BatchParams::page_table"][::core::mem::offset_of!(BatchParams, page_table) - 16usize];
    ["Offset of field: BatchParams::page_starts"][::core::mem::offset_of!(BatchParams, page_starts) - 24usize];
    ["Offset of field: BatchParams::sequences"][::core::mem::offset_of!(BatchParams, sequences) - 32usize];
    ["Offset of field: BatchParams::max_pages"][::core::mem::offset_of!(BatchParams, max_pages) - 36usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct CombineParams {
    pub o_partial: u64,
    pub lse_partial: u64,
    pub o_latent: u64,
    pub lse: u64,
    pub split_starts: u64,
    pub rows: u32,
    pub splits: u32,
    pub latent_rank: u32,
    pub heads: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CombineParams"][::core::mem::size_of::<CombineParams>() - 56usize];
    ["Alignment of CombineParams"][::core::mem::align_of::<CombineParams>() - 8usize];
    ["Offset of field: CombineParams::o_partial"][::core::mem::offset_of!(CombineParams, o_partial) - 0usize];
    ["Offset of field: CombineParams::lse_partial"][::core::mem::offset_of!(CombineParams, lse_partial) - 8usize];
    ["Offset of field: CombineParams::o_latent"][::core::mem::offset_of!(CombineParams, o_latent) - 16usize];
    ["Offset of field: CombineParams::lse"][::core::mem::offset_of!(CombineParams, lse) - 24usize];
    ["Offset of field: CombineParams::split_starts"][::core::mem::offset_of!(CombineParams, split_starts) - 32usize];
    ["Offset of field: CombineParams::rows"][::core::mem::offset_of!(CombineParams, rows) - 40usize];
    ["Offset of field: CombineParams::splits"][::core::mem::offset_of!(CombineParams, splits) - 44usize];
    ["Offset of field: CombineParams::latent_rank"][::core::mem::offset_of!(CombineParams, latent_rank) - 48usize];
    ["Offset of field: CombineParams::heads"][::core::mem::offset_of!(CombineParams, heads) - 52usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct DecodeSplit {
    pub query: u32,
    pub row: u32,
    pub first: u32,
    pub end: u32,
    pub partial: i32,
    pub reserved: [u32; 3usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of DecodeSplit"][::core::mem::size_of::<DecodeSplit>() - 32usize];
    ["Alignment of DecodeSplit"][::core::mem::align_of::<DecodeSplit>() - 4usize];
    ["Offset of field: DecodeSplit::query"][::core::mem::offset_of!(DecodeSplit, query) - 0usize];
    ["Offset of field: DecodeSplit::row"][::core::mem::offset_of!(DecodeSplit, row) - 4usize];
    ["Offset of field: DecodeSplit::first"][::core::mem::offset_of!(DecodeSplit, first) - 8usize];
    ["Offset of field: DecodeSplit::end"][::core::mem::offset_of!(DecodeSplit, end) - 12usize];
    ["Offset of field: DecodeSplit::partial"][::core::mem::offset_of!(DecodeSplit, partial) - 16usize];
    ["Offset of field: DecodeSplit::reserved"][::core::mem::offset_of!(DecodeSplit, reserved) - 20usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct SplitCosts {
    pub block: u32,
    pub merge: u32,
    pub merge_partial: u32,
    pub merge_batch: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of SplitCosts"][::core::mem::size_of::<SplitCosts>() - 16usize];
    ["Alignment of SplitCosts"][::core::mem::align_of::<SplitCosts>() - 4usize];
    ["Offset of field: SplitCosts::block"][::core::mem::offset_of!(SplitCosts, block) - 0usize];
    ["Offset of field: SplitCosts::merge"][::core::mem::offset_of!(SplitCosts, merge) - 4usize];
    ["Offset of field: SplitCosts::merge_partial"][::core::mem::offset_of!(SplitCosts, merge_partial) - 8usize];
    ["Offset of field: SplitCosts::merge_batch"][::core::mem::offset_of!(SplitCosts, merge_batch) - 12usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct ScheduleParams {
    pub batch: BatchParams,
    pub splits: u64,
    pub split_count: u64,
    pub split_starts: u64,
    pub merges: u64,
    pub query_tokens: u32,
    pub max_tokens: u32,
    pub page_size: u32,
    pub tile_tokens: u32,
    pub target_splits: u32,
    pub fixed_tokens: u32,
    pub merge_tiles: u32,
    pub reserved: u32,
    pub costs: SplitCosts,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of ScheduleParams"][::core::mem::size_of::<ScheduleParams>() - 120usize];
    ["Alignment of ScheduleParams"][::core::mem::align_of::<ScheduleParams>() - 8usize];
    ["Offset of field: ScheduleParams::batch"][::core::mem::offset_of!(ScheduleParams, batch) - 0usize];
    ["Offset of field: ScheduleParams::splits"][::core::mem::offset_of!(ScheduleParams, splits) - 40usize];
    ["Offset of field: ScheduleParams::split_count"][::core::mem::offset_of!(ScheduleParams, split_count) - 48usize];
    ["Offset of field: ScheduleParams::split_starts"][::core::mem::offset_of!(ScheduleParams, split_starts) - 56usize];
    ["Offset of field: ScheduleParams::merges"][::core::mem::offset_of!(ScheduleParams, merges) - 64usize];
    ["Offset of field: ScheduleParams::query_tokens"][::core::mem::offset_of!(ScheduleParams, query_tokens) - 72usize];
    ["Offset of field: ScheduleParams::max_tokens"][::core::mem::offset_of!(ScheduleParams, max_tokens) - 76usize];
    ["Offset of field: ScheduleParams::page_size"][::core::mem::offset_of!(ScheduleParams, page_size) - 80usize];
    ["Offset of field: ScheduleParams::tile_tokens"][::core::mem::offset_of!(ScheduleParams, tile_tokens) - 84usize];
    ["Offset of field: ScheduleParams::target_splits"]
        [::core::mem::offset_of!(ScheduleParams, target_splits) - 88usize];
    ["Offset of field: ScheduleParams::fixed_tokens"][::core::mem::offset_of!(ScheduleParams, fixed_tokens) - 92usize];
    ["Offset of field: ScheduleParams::merge_tiles"][::core::mem::offset_of!(ScheduleParams, merge_tiles) - 96usize];
    ["Offset of field: ScheduleParams::reserved"][::core::mem::offset_of!(ScheduleParams, reserved) - 100usize];
    ["Offset of field: ScheduleParams::costs"][::core::mem::offset_of!(ScheduleParams, costs) - 104usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct DecodeShared {
    pub q_latent: u32,
    pub q_latent_stride: u32,
    pub q_rope: u32,
    pub q_rope_stride: u32,
    pub q_rope_sums: u32,
    pub stages: u32,
    pub stage_count: u32,
    pub stage_step: u32,
    pub latent_stride: u32,
    pub rope: u32,
    pub rope_stride: u32,
    pub affine: u32,
    pub affine_stride: u32,
    pub latent_pieces: u32,
    pub rope_pieces: u32,
    pub q_sums: u32,
    pub scales: u32,
    pub scale_stride: u32,
    pub mins: u32,
    pub scores: u32,
    pub weights: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of DecodeShared"][::core::mem::size_of::<DecodeShared>() - 84usize];
    ["Alignment of DecodeShared"][::core::mem::align_of::<DecodeShared>() - 4usize];
    ["Offset of field: DecodeShared::q_latent"][::core::mem::offset_of!(DecodeShared, q_latent) - 0usize];
    ["Offset of field: DecodeShared::q_latent_stride"][::core::mem::offset_of!(DecodeShared, q_latent_stride) - 4usize];
    ["Offset of field: DecodeShared::q_rope"][::core::mem::offset_of!(DecodeShared, q_rope) - 8usize];
    ["Offset of field: DecodeShared::q_rope_stride"][::core::mem::offset_of!(DecodeShared, q_rope_stride) - 12usize];
    ["Offset of field: DecodeShared::q_rope_sums"][::core::mem::offset_of!(DecodeShared, q_rope_sums) - 16usize];
    ["Offset of field: DecodeShared::stages"][::core::mem::offset_of!(DecodeShared, stages) - 20usize];
    ["Offset of field: DecodeShared::stage_count"][::core::mem::offset_of!(DecodeShared, stage_count) - 24usize];
    ["Offset of field: DecodeShared::stage_step"][::core::mem::offset_of!(DecodeShared, stage_step) - 28usize];
    ["Offset of field: DecodeShared::latent_stride"][::core::mem::offset_of!(DecodeShared, latent_stride) - 32usize];
    ["Offset of field: DecodeShared::rope"][::core::mem::offset_of!(DecodeShared, rope) - 36usize];
    ["Offset of field: DecodeShared::rope_stride"][::core::mem::offset_of!(DecodeShared, rope_stride) - 40usize];
    ["Offset of field: DecodeShared::affine"][::core::mem::offset_of!(DecodeShared, affine) - 44usize];
    ["Offset of field: DecodeShared::affine_stride"][::core::mem::offset_of!(DecodeShared, affine_stride) - 48usize];
    ["Offset of field: DecodeShared::latent_pieces"][::core::mem::offset_of!(DecodeShared, latent_pieces) - 52usize];
    ["Offset of field: DecodeShared::rope_pieces"][::core::mem::offset_of!(DecodeShared, rope_pieces) - 56usize];
    ["Offset of field: DecodeShared::q_sums"][::core::mem::offset_of!(DecodeShared, q_sums) - 60usize];
    ["Offset of field: DecodeShared::scales"][::core::mem::offset_of!(DecodeShared, scales) - 64usize];
    ["Offset of field: DecodeShared::scale_stride"][::core::mem::offset_of!(DecodeShared, scale_stride) - 68usize];
    ["Offset of field: DecodeShared::mins"][::core::mem::offset_of!(DecodeShared, mins) - 72usize];
    ["Offset of field: DecodeShared::scores"][::core::mem::offset_of!(DecodeShared, scores) - 76usize];
    ["Offset of field: DecodeShared::weights"][::core::mem::offset_of!(DecodeShared, weights) - 80usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct DecodeSm90Shared {
    pub q_rope: u32,
    pub q_sums: u32,
    pub weights: u32,
    pub state: u32,
    pub stages: u32,
    pub stage_bytes: u32,
    pub stage_count: u32,
    pub rope: u32,
    pub rope_stride: u32,
    pub affine: u32,
    pub rope_blocks: u32,
    pub rope_way: u32,
    pub rope_part_stride: u32,
    pub is_regular: u32,
    pub latent_inverse: u32,
    pub rope_inverse: u32,
    pub rope_lane_bytes: u32,
    pub states: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of DecodeSm90Shared"][::core::mem::size_of::<DecodeSm90Shared>() - 72usize];
    ["Alignment of DecodeSm90Shared"][::core::mem::align_of::<DecodeSm90Shared>() - 4usize];
    ["Offset of field: DecodeSm90Shared::q_rope"][::core::mem::offset_of!(DecodeSm90Shared, q_rope) - 0usize];
    ["Offset of field: DecodeSm90Shared::q_sums"][::core::mem::offset_of!(DecodeSm90Shared, q_sums) - 4usize];
    ["Offset of field: DecodeSm90Shared::weights"][::core::mem::offset_of!(DecodeSm90Shared, weights) - 8usize];
    ["Offset of field: DecodeSm90Shared::state"][::core::mem::offset_of!(DecodeSm90Shared, state) - 12usize];
    ["Offset of field: DecodeSm90Shared::stages"][::core::mem::offset_of!(DecodeSm90Shared, stages) - 16usize];
    ["Offset of field: DecodeSm90Shared::stage_bytes"]
        [::core::mem::offset_of!(DecodeSm90Shared, stage_bytes) - 20usize];
    ["Offset of field: DecodeSm90Shared::stage_count"]
        [::core::mem::offset_of!(DecodeSm90Shared, stage_count) - 24usize];
    ["Offset of field: DecodeSm90Shared::rope"][::core::mem::offset_of!(DecodeSm90Shared, rope) - 28usize];
    ["Offset of field: DecodeSm90Shared::rope_stride"]
        [::core::mem::offset_of!(DecodeSm90Shared, rope_stride) - 32usize];
    ["Offset of field: DecodeSm90Shared::affine"][::core::mem::offset_of!(DecodeSm90Shared, affine) - 36usize];
    ["Offset of field: DecodeSm90Shared::rope_blocks"]
        [::core::mem::offset_of!(DecodeSm90Shared, rope_blocks) - 40usize];
    ["Offset of field: DecodeSm90Shared::rope_way"][::core::mem::offset_of!(DecodeSm90Shared, rope_way) - 44usize];
    ["Offset of field: DecodeSm90Shared::rope_part_stride"]
        [::core::mem::offset_of!(DecodeSm90Shared, rope_part_stride) - 48usize];
    ["Offset of field: DecodeSm90Shared::is_regular"][::core::mem::offset_of!(DecodeSm90Shared, is_regular) - 52usize];
    ["Offset of field: DecodeSm90Shared::latent_inverse"]
        [::core::mem::offset_of!(DecodeSm90Shared, latent_inverse) - 56usize];
    ["Offset of field: DecodeSm90Shared::rope_inverse"]
        [::core::mem::offset_of!(DecodeSm90Shared, rope_inverse) - 60usize];
    ["Offset of field: DecodeSm90Shared::rope_lane_bytes"]
        [::core::mem::offset_of!(DecodeSm90Shared, rope_lane_bytes) - 64usize];
    ["Offset of field: DecodeSm90Shared::states"][::core::mem::offset_of!(DecodeSm90Shared, states) - 68usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct DecodeParams {
    pub geometry: GeometryParams,
    pub cache: CacheParams,
    pub page_table: u64,
    pub splits: u64,
    pub split_count: u64,
    pub q_latent: u64,
    pub q_rope: u64,
    pub o_latent: u64,
    pub lse: u64,
    pub o_partial: u64,
    pub lse_partial: u64,
    pub split_starts: u64,
    pub merges: u64,
    pub q_latent_token_stride: u32,
    pub q_latent_head_stride: u32,
    pub q_rope_token_stride: u32,
    pub q_rope_head_stride: u32,
    pub scale: f32,
    pub tile_tokens: u32,
    pub latent_group_log2: u32,
    pub rope_group_log2: u32,
    pub latent_steps: u32,
    pub rope_steps: u32,
    pub rope_span: u32,
    pub shared: DecodeShared,
    pub sm90: DecodeSm90Shared,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of DecodeParams"][::core::mem::size_of::<DecodeParams>() - 392usize];
    ["Alignment of DecodeParams"][::core::mem::align_of::<DecodeParams>() - 8usize];
    ["Offset of field: DecodeParams::geometry"][::core::mem::offset_of!(DecodeParams, geometry) - 0usize];
    ["Offset of field: DecodeParams::cache"][::core::mem::offset_of!(DecodeParams, cache) - 32usize];
    ["Offset of field: DecodeParams::page_table"][::core::mem::offset_of!(DecodeParams, page_table) - 104usize];
    ["Offset of field: DecodeParams::splits"][::core::mem::offset_of!(DecodeParams, splits) - 112usize];
    ["Offset of field: DecodeParams::split_count"][::core::mem::offset_of!(DecodeParams, split_count) - 120usize];
    ["Offset of field: DecodeParams::q_latent"][::core::mem::offset_of!(DecodeParams, q_latent) - 128usize];
    ["Offset of field: DecodeParams::q_rope"][::core::mem::offset_of!(DecodeParams, q_rope) - 136usize];
    ["Offset of field: DecodeParams::o_latent"][::core::mem::offset_of!(DecodeParams, o_latent) - 144usize];
    ["Offset of field: DecodeParams::lse"][::core::mem::offset_of!(DecodeParams, lse) - 152usize];
    ["Offset of field: DecodeParams::o_partial"][::core::mem::offset_of!(DecodeParams, o_partial) - 160usize];
    ["Offset of field: DecodeParams::lse_partial"][::core::mem::offset_of!(DecodeParams, lse_partial) - 168usize];
    ["Offset of field: DecodeParams::split_starts"][::core::mem::offset_of!(DecodeParams, split_starts) - 176usize];
    ["Offset of field: DecodeParams::merges"][::core::mem::offset_of!(DecodeParams, merges) - 184usize];
    ["Offset of field: DecodeParams::q_latent_token_stride"]
        [::core::mem::offset_of!(DecodeParams, q_latent_token_stride) - 192usize];
    ["Offset of field: DecodeParams::q_latent_head_stride"]
        [::core::mem::offset_of!(DecodeParams, q_latent_head_stride) - 196usize];
    ["Offset of field: DecodeParams::q_rope_token_stride"]
        [::core::mem::offset_of!(DecodeParams, q_rope_token_stride) - 200usize];
    ["Offset of field: DecodeParams::q_rope_head_stride"]
        [::core::mem::offset_of!(DecodeParams, q_rope_head_stride) - 204usize];
    ["Offset of field: DecodeParams::scale"][::core::mem::offset_of!(DecodeParams, scale) - 208usize];
    ["Offset of field: DecodeParams::tile_tokens"][::core::mem::offset_of!(DecodeParams, tile_tokens) - 212usize];
    ["Offset of field: DecodeParams::latent_group_log2"]
        [::core::mem::offset_of!(DecodeParams, latent_group_log2) - 216usize];
    ["Offset of field: DecodeParams::rope_group_log2"]
        [::core::mem::offset_of!(DecodeParams, rope_group_log2) - 220usize];
    ["Offset of field: DecodeParams::latent_steps"][::core::mem::offset_of!(DecodeParams, latent_steps) - 224usize];
    ["Offset of field: DecodeParams::rope_steps"][::core::mem::offset_of!(DecodeParams, rope_steps) - 228usize];
    ["Offset of field: DecodeParams::rope_span"][::core::mem::offset_of!(DecodeParams, rope_span) - 232usize];
    ["Offset of field: DecodeParams::shared"][::core::mem::offset_of!(DecodeParams, shared) - 236usize];
    ["Offset of field: DecodeParams::sm90"][::core::mem::offset_of!(DecodeParams, sm90) - 320usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct RopeAppendParams {
    pub geometry: GeometryParams,
    pub cache: CacheParams,
    pub q_rope: u64,
    pub q_rotated: u64,
    pub k_rope: u64,
    pub c_kv: u64,
    pub positions: u64,
    pub slots: u64,
    pub cos: u64,
    pub sin: u64,
    pub frequency_index: u64,
    pub norm_gain: u64,
    pub bias: u64,
    pub counters: u64,
    pub key_factors: u64,
    pub key_gain: u64,
    pub tokens: u32,
    pub table_positions: u32,
    pub table_frequencies: u32,
    pub pairing: u32,
    pub q_rope_token_stride: u32,
    pub q_rope_head_stride: u32,
    pub q_rotated_token_stride: u32,
    pub q_rotated_head_stride: u32,
    pub k_rope_token_stride: u32,
    pub k_rope_head_stride: u32,
    pub c_kv_token_stride: u32,
    pub norm_epsilon: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of RopeAppendParams"][::core::mem::size_of::<RopeAppendParams>() - 264usize];
    ["Alignment of RopeAppendParams"][::core::mem::align_of::<RopeAppendParams>() - 8usize];
    ["Offset of field: RopeAppendParams::geometry"][::core::mem::offset_of!(RopeAppendParams, geometry) - 0usize];
    ["Offset of field: RopeAppendParams::cache"][::core::mem::offset_of!(RopeAppendParams, cache) - 32usize];
    ["Offset of field: RopeAppendParams::q_rope"][::core::mem::offset_of!(RopeAppendParams, q_rope) - 104usize];
    ["Offset of field: RopeAppendParams::q_rotated"][::core::mem::offset_of!(RopeAppendParams, q_rotated) - 112usize];
    ["Offset of field: RopeAppendParams::k_rope"][::core::mem::offset_of!(RopeAppendParams, k_rope) - 120usize];
    ["Offset of field: RopeAppendParams::c_kv"][::core::mem::offset_of!(RopeAppendParams, c_kv) - 128usize];
    ["Offset of field: RopeAppendParams::positions"][::core::mem::offset_of!(RopeAppendParams, positions) - 136usize];
    ["Offset of field: RopeAppendParams::slots"][::core::mem::offset_of!(RopeAppendParams, slots) - 144usize];
    ["Offset of field: RopeAppendParams::cos"][::core::mem::offset_of!(RopeAppendParams, cos) - 152usize];
    ["Offset of field: RopeAppendParams::sin"][::core::mem::offset_of!(RopeAppendParams, sin) - 160usize];
    ["Offset of field: RopeAppendParams::frequency_index"]
        [::core::mem::offset_of!(RopeAppendParams, frequency_index) - 168usize];
    ["Offset of field: RopeAppendParams::norm_gain"][::core::mem::offset_of!(RopeAppendParams, norm_gain) - 176usize];
    ["Offset of field: RopeAppendParams::bias"][::core::mem::offset_of!(RopeAppendParams, bias) - 184usize];
    ["Offset of field: RopeAppendParams::counters"][::core::mem::offset_of!(RopeAppendParams, counters) - 192usize];
    ["Offset of field: RopeAppendParams::key_factors"]
        [::core::mem::offset_of!(RopeAppendParams, key_factors) - 200usize];
    ["Offset of field: RopeAppendParams::key_gain"][::core::mem::offset_of!(RopeAppendParams, key_gain) - 208usize];
    ["Offset of field: RopeAppendParams::tokens"][::core::mem::offset_of!(RopeAppendParams, tokens) - 216usize];
    ["Offset of field: RopeAppendParams::table_positions"]
        [::core::mem::offset_of!(RopeAppendParams, table_positions) - 220usize];
    ["Offset of field: RopeAppendParams::table_frequencies"]
        [::core::mem::offset_of!(RopeAppendParams, table_frequencies) - 224usize];
    ["Offset of field: RopeAppendParams::pairing"][::core::mem::offset_of!(RopeAppendParams, pairing) - 228usize];
    ["Offset of field: RopeAppendParams::q_rope_token_stride"]
        [::core::mem::offset_of!(RopeAppendParams, q_rope_token_stride) - 232usize];
    ["Offset of field: RopeAppendParams::q_rope_head_stride"]
        [::core::mem::offset_of!(RopeAppendParams, q_rope_head_stride) - 236usize];
    ["Offset of field: RopeAppendParams::q_rotated_token_stride"]
        [::core::mem::offset_of!(RopeAppendParams, q_rotated_token_stride) - 240usize];
    ["Offset of field: RopeAppendParams::q_rotated_head_stride"]
        [::core::mem::offset_of!(RopeAppendParams, q_rotated_head_stride) - 244usize];
    ["Offset of field: RopeAppendParams::k_rope_token_stride"]
        [::core::mem::offset_of!(RopeAppendParams, k_rope_token_stride) - 248usize];
    ["Offset of field: RopeAppendParams::k_rope_head_stride"]
        [::core::mem::offset_of!(RopeAppendParams, k_rope_head_stride) - 252usize];
    ["Offset of field: RopeAppendParams::c_kv_token_stride"]
        [::core::mem::offset_of!(RopeAppendParams, c_kv_token_stride) - 256usize];
    ["Offset of field: RopeAppendParams::norm_epsilon"]
        [::core::mem::offset_of!(RopeAppendParams, norm_epsilon) - 260usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct HeadNormParams {
    pub geometry: GeometryParams,
    pub q_rope: u64,
    pub q_nope: u64,
    pub q_rope_out: u64,
    pub q_nope_out: u64,
    pub query_gain: u64,
    pub k_rope: u64,
    pub k_nope: u64,
    pub key_factors: u64,
    pub tokens: u32,
    pub q_rope_token_stride: u32,
    pub q_rope_head_stride: u32,
    pub q_nope_token_stride: u32,
    pub q_nope_head_stride: u32,
    pub q_rope_out_token_stride: u32,
    pub q_rope_out_head_stride: u32,
    pub q_nope_out_token_stride: u32,
    pub q_nope_out_head_stride: u32,
    pub k_rope_token_stride: u32,
    pub k_rope_head_stride: u32,
    pub k_nope_token_stride: u32,
    pub k_nope_head_stride: u32,
    pub epsilon: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of HeadNormParams"][::core::mem::size_of::<HeadNormParams>() - 152usize];
    ["Alignment of HeadNormParams"][::core::mem::align_of::<HeadNormParams>() - 8usize];
    ["Offset of field: HeadNormParams::geometry"][::core::mem::offset_of!(HeadNormParams, geometry) - 0usize];
    ["Offset of field: HeadNormParams::q_rope"][::core::mem::offset_of!(HeadNormParams, q_rope) - 32usize];
    ["Offset of field: HeadNormParams::q_nope"][::core::mem::offset_of!(HeadNormParams, q_nope) - 40usize];
    ["Offset of field: HeadNormParams::q_rope_out"][::core::mem::offset_of!(HeadNormParams, q_rope_out) - 48usize];
    ["Offset of field: HeadNormParams::q_nope_out"][::core::mem::offset_of!(HeadNormParams, q_nope_out) - 56usize];
    ["Offset of field: HeadNormParams::query_gain"][::core::mem::offset_of!(HeadNormParams, query_gain) - 64usize];
    ["Offset of field: HeadNormParams::k_rope"][::core::mem::offset_of!(HeadNormParams, k_rope) - 72usize];
    ["Offset of field: HeadNormParams::k_nope"][::core::mem::offset_of!(HeadNormParams, k_nope) - 80usize];
    ["Offset of field: HeadNormParams::key_factors"][::core::mem::offset_of!(HeadNormParams, key_factors) - 88usize];
    ["Offset of field: HeadNormParams::tokens"][::core::mem::offset_of!(HeadNormParams, tokens) - 96usize];
    ["Offset of field: HeadNormParams::q_rope_token_stride"]
        [::core::mem::offset_of!(HeadNormParams, q_rope_token_stride) - 100usize];
    ["Offset of field: HeadNormParams::q_rope_head_stride"]
        [::core::mem::offset_of!(HeadNormParams, q_rope_head_stride) - 104usize];
    ["Offset of field: HeadNormParams::q_nope_token_stride"]
        [::core::mem::offset_of!(HeadNormParams, q_nope_token_stride) - 108usize];
    ["Offset of field: HeadNormParams::q_nope_head_stride"]
        [::core::mem::offset_of!(HeadNormParams, q_nope_head_stride) - 112usize];
    ["Offset of field: HeadNormParams::q_rope_out_token_stride"]
        [::core::mem::offset_of!(HeadNormParams, q_rope_out_token_stride) - 116usize];
    ["Offset of field: HeadNormParams::q_rope_out_head_stride"]
        [::core::mem::offset_of!(HeadNormParams, q_rope_out_head_stride) - 120usize];
    ["Offset of field: HeadNormParams::q_nope_out_token_stride"]
        [::core::mem::offset_of!(HeadNormParams, q_nope_out_token_stride) - 124usize];
    ["Offset of field: HeadNormParams::q_nope_out_head_stride"]
        [::core::mem::offset_of!(HeadNormParams, q_nope_out_head_stride) - 128usize];
    ["Offset of field: HeadNormParams::k_rope_token_stride"]
        [::core::mem::offset_of!(HeadNormParams, k_rope_token_stride) - 132usize];
    ["Offset of field: HeadNormParams::k_rope_head_stride"]
        [::core::mem::offset_of!(HeadNormParams, k_rope_head_stride) - 136usize];
    ["Offset of field: HeadNormParams::k_nope_token_stride"]
        [::core::mem::offset_of!(HeadNormParams, k_nope_token_stride) - 140usize];
    ["Offset of field: HeadNormParams::k_nope_head_stride"]
        [::core::mem::offset_of!(HeadNormParams, k_nope_head_stride) - 144usize];
    ["Offset of field: HeadNormParams::epsilon"][::core::mem::offset_of!(HeadNormParams, epsilon) - 148usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct CeilingCopyParams {
    pub from: u64,
    pub to: u64,
    pub units: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CeilingCopyParams"][::core::mem::size_of::<CeilingCopyParams>() - 24usize];
    ["Alignment of CeilingCopyParams"][::core::mem::align_of::<CeilingCopyParams>() - 8usize];
    ["Offset of field: CeilingCopyParams::from"][::core::mem::offset_of!(CeilingCopyParams, from) - 0usize];
    ["Offset of field: CeilingCopyParams::to"][::core::mem::offset_of!(CeilingCopyParams, to) - 8usize];
    ["Offset of field: CeilingCopyParams::units"][::core::mem::offset_of!(CeilingCopyParams, units) - 16usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct CeilingMmaParams {
    pub out: u64,
    pub rounds: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CeilingMmaParams"][::core::mem::size_of::<CeilingMmaParams>() - 16usize];
    ["Alignment of CeilingMmaParams"][::core::mem::align_of::<CeilingMmaParams>() - 8usize];
    ["Offset of field: CeilingMmaParams::out"][::core::mem::offset_of!(CeilingMmaParams, out) - 0usize];
    ["Offset of field: CeilingMmaParams::rounds"][::core::mem::offset_of!(CeilingMmaParams, rounds) - 8usize];
    ["Offset of field: CeilingMmaParams::reserved"][::core::mem::offset_of!(CeilingMmaParams, reserved) - 12usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct AbsorbParams {
    pub weights: u64,
    pub input: u64,
    pub bias: u64,
    pub output: u64,
    pub tokens: u32,
    pub query_heads: u32,
    pub kv_heads: u32,
    pub contracted: u32,
    pub outputs: u32,
    pub weight_head_stride: u32,
    pub weight_row_stride: u32,
    pub input_token_stride: u32,
    pub input_head_stride: u32,
    pub output_token_stride: u32,
    pub output_head_stride: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of AbsorbParams"][::core::mem::size_of::<AbsorbParams>() - 80usize];
    ["Alignment of AbsorbParams"][::core::mem::align_of::<AbsorbParams>() - 8usize];
    ["Offset of field: AbsorbParams::weights"][::core::mem::offset_of!(AbsorbParams, weights) - 0usize];
    ["Offset of field: AbsorbParams::input"][::core::mem::offset_of!(AbsorbParams, input) - 8usize];
    ["Offset of field: AbsorbParams::bias"][::core::mem::offset_of!(AbsorbParams, bias) - 16usize];
    ["Offset of field: AbsorbParams::output"][::core::mem::offset_of!(AbsorbParams, output) - 24usize];
    ["Offset of field: AbsorbParams::tokens"][::core::mem::offset_of!(AbsorbParams, tokens) - 32usize];
    ["Offset of field: AbsorbParams::query_heads"][::core::mem::offset_of!(AbsorbParams, query_heads) - 36usize];
    ["Offset of field: AbsorbParams::kv_heads"][::core::mem::offset_of!(AbsorbParams, kv_heads) - 40usize];
    ["Offset of field: AbsorbParams::contracted"][::core::mem::offset_of!(AbsorbParams, contracted) - 44usize];
    ["Offset of field: AbsorbParams::outputs"][::core::mem::offset_of!(AbsorbParams, outputs) - 48usize];
    ["Offset of field: AbsorbParams::weight_head_stride"]
        [::core::mem::offset_of!(AbsorbParams, weight_head_stride) - 52usize];
    ["Offset of field: AbsorbParams::weight_row_stride"]
        [::core::mem::offset_of!(AbsorbParams, weight_row_stride) - 56usize];
    ["Offset of field: AbsorbParams::input_token_stride"]
        [::core::mem::offset_of!(AbsorbParams, input_token_stride) - 60usize];
    ["Offset of field: AbsorbParams::input_head_stride"]
        [::core::mem::offset_of!(AbsorbParams, input_head_stride) - 64usize];
    ["Offset of field: AbsorbParams::output_token_stride"]
        [::core::mem::offset_of!(AbsorbParams, output_token_stride) - 68usize];
    ["Offset of field: AbsorbParams::output_head_stride"]
        [::core::mem::offset_of!(AbsorbParams, output_head_stride) - 72usize];
    ["Offset of field: AbsorbParams::reserved"][::core::mem::offset_of!(AbsorbParams, reserved) - 76usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct PrepareParams {
    pub absorb: AbsorbParams,
    pub append: RopeAppendParams,
    pub append_blocks: u32,
    pub append_runs: u32,
    pub absorb_x: u32,
    pub absorb_y: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PrepareParams"][::core::mem::size_of::<PrepareParams>() - 360usize];
    ["Alignment of PrepareParams"][::core::mem::align_of::<PrepareParams>() - 8usize];
    ["Offset of field: PrepareParams::absorb"][::core::mem::offset_of!(PrepareParams, absorb) - 0usize];
    ["Offset of field: PrepareParams::append"][::core::mem::offset_of!(PrepareParams, append) - 80usize];
    ["Offset of field: PrepareParams::append_blocks"][::core::mem::offset_of!(PrepareParams, append_blocks) - 344usize];
    ["Offset of field: PrepareParams::append_runs"][::core::mem::offset_of!(PrepareParams, append_runs) - 348usize];
    ["Offset of field: PrepareParams::absorb_x"][::core::mem::offset_of!(PrepareParams, absorb_x) - 352usize];
    ["Offset of field: PrepareParams::absorb_y"][::core::mem::offset_of!(PrepareParams, absorb_y) - 356usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct UpProjectParams {
    pub geometry: GeometryParams,
    pub cache: CacheParams,
    pub batch: BatchParams,
    pub token_starts: u64,
    pub up_key: u64,
    pub up_value: u64,
    pub value_bias: u64,
    pub keys: u64,
    pub values: u64,
    pub up_key_head_stride: u32,
    pub up_key_row_stride: u32,
    pub up_value_head_stride: u32,
    pub up_value_row_stride: u32,
    pub key_token_stride: u32,
    pub key_head_stride: u32,
    pub value_token_stride: u32,
    pub value_head_stride: u32,
    pub token_capacity: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of UpProjectParams"][::core::mem::size_of::<UpProjectParams>() - 232usize];
    ["Alignment of UpProjectParams"][::core::mem::align_of::<UpProjectParams>() - 8usize];
    ["Offset of field: UpProjectParams::geometry"][::core::mem::offset_of!(UpProjectParams, geometry) - 0usize];
    ["Offset of field: UpProjectParams::cache"][::core::mem::offset_of!(UpProjectParams, cache) - 32usize];
    ["Offset of field: UpProjectParams::batch"][::core::mem::offset_of!(UpProjectParams, batch) - 104usize];
    ["Offset of field: UpProjectParams::token_starts"]
        [::core::mem::offset_of!(UpProjectParams, token_starts) - 144usize];
    ["Offset of field: UpProjectParams::up_key"][::core::mem::offset_of!(UpProjectParams, up_key) - 152usize];
    ["Offset of field: UpProjectParams::up_value"][::core::mem::offset_of!(UpProjectParams, up_value) - 160usize];
    ["Offset of field: UpProjectParams::value_bias"][::core::mem::offset_of!(UpProjectParams, value_bias) - 168usize];
    ["Offset of field: UpProjectParams::keys"][::core::mem::offset_of!(UpProjectParams, keys) - 176usize];
    ["Offset of field: UpProjectParams::values"][::core::mem::offset_of!(UpProjectParams, values) - 184usize];
    ["Offset of field: UpProjectParams::up_key_head_stride"]
        [::core::mem::offset_of!(UpProjectParams, up_key_head_stride) - 192usize];
    ["Offset of field: UpProjectParams::up_key_row_stride"]
        [::core::mem::offset_of!(UpProjectParams, up_key_row_stride) - 196usize];
    ["Offset of field: UpProjectParams::up_value_head_stride"]
        [::core::mem::offset_of!(UpProjectParams, up_value_head_stride) - 200usize];
    ["Offset of field: UpProjectParams::up_value_row_stride"]
        [::core::mem::offset_of!(UpProjectParams, up_value_row_stride) - 204usize];
    ["Offset of field: UpProjectParams::key_token_stride"]
        [::core::mem::offset_of!(UpProjectParams, key_token_stride) - 208usize];
    ["Offset of field: UpProjectParams::key_head_stride"]
        [::core::mem::offset_of!(UpProjectParams, key_head_stride) - 212usize];
    ["Offset of field: UpProjectParams::value_token_stride"]
        [::core::mem::offset_of!(UpProjectParams, value_token_stride) - 216usize];
    ["Offset of field: UpProjectParams::value_head_stride"]
        [::core::mem::offset_of!(UpProjectParams, value_head_stride) - 220usize];
    ["Offset of field: UpProjectParams::token_capacity"]
        [::core::mem::offset_of!(UpProjectParams, token_capacity) - 224usize];
    ["Offset of field: UpProjectParams::reserved"][::core::mem::offset_of!(UpProjectParams, reserved) - 228usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct GatherParams {
    pub cache: CacheParams,
    pub batch: BatchParams,
    pub token_starts: u64,
    pub first_tokens: u64,
    pub output: u64,
    pub output_token_stride: u32,
    pub latent_rank: u32,
    pub rope_width: u32,
    pub token_capacity: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GatherParams"][::core::mem::size_of::<GatherParams>() - 152usize];
    ["Alignment of GatherParams"][::core::mem::align_of::<GatherParams>() - 8usize];
    ["Offset of field: GatherParams::cache"][::core::mem::offset_of!(GatherParams, cache) - 0usize];
    ["Offset of field: GatherParams::batch"][::core::mem::offset_of!(GatherParams, batch) - 72usize];
    ["Offset of field: GatherParams::token_starts"][::core::mem::offset_of!(GatherParams, token_starts) - 112usize];
    ["Offset of field: GatherParams::first_tokens"][::core::mem::offset_of!(GatherParams, first_tokens) - 120usize];
    ["Offset of field: GatherParams::output"][::core::mem::offset_of!(GatherParams, output) - 128usize];
    ["Offset of field: GatherParams::output_token_stride"]
        [::core::mem::offset_of!(GatherParams, output_token_stride) - 136usize];
    ["Offset of field: GatherParams::latent_rank"][::core::mem::offset_of!(GatherParams, latent_rank) - 140usize];
    ["Offset of field: GatherParams::rope_width"][::core::mem::offset_of!(GatherParams, rope_width) - 144usize];
    ["Offset of field: GatherParams::token_capacity"][::core::mem::offset_of!(GatherParams, token_capacity) - 148usize];
};
#[repr(C)]
#[derive(Debug, Default, Copy, Clone)]
pub struct CopyPagesParams {
    pub cache: CacheParams,
    pub copies: u64,
    pub counters: u64,
    pub count: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of CopyPagesParams"][::core::mem::size_of::<CopyPagesParams>() - 96usize];
    ["Alignment of CopyPagesParams"][::core::mem::align_of::<CopyPagesParams>() - 8usize];
    ["Offset of field: CopyPagesParams::cache"][::core::mem::offset_of!(CopyPagesParams, cache) - 0usize];
    ["Offset of field: CopyPagesParams::copies"][::core::mem::offset_of!(CopyPagesParams, copies) - 72usize];
    ["Offset of field: CopyPagesParams::counters"][::core::mem::offset_of!(CopyPagesParams, counters) - 80usize];
    ["Offset of field: CopyPagesParams::count"][::core::mem::offset_of!(CopyPagesParams, count) - 88usize];
    ["Offset of field: CopyPagesParams::reserved"][::core::mem::offset_of!(CopyPagesParams, reserved) - 92usize];
};
pub const DECODE_SM80_KERNELS: [(&str, &str, u32, u32, u32, u32, u32); 29] = [
    ("decode_whole_1x4_64", "Whole", 1, 4, 64, 2, 1),
    ("decode_whole_1x4_32", "Whole", 1, 4, 32, 2, 1),
    ("decode_whole_1x2_64", "Whole", 1, 2, 64, 3, 3),
    ("decode_whole_1x2_32", "Whole", 1, 2, 32, 2, 2),
    ("decode_whole_1x2_16", "Whole", 1, 2, 16, 2, 2),
    ("decode_whole_2x4_64", "Whole", 2, 4, 64, 1, 1),
    ("decode_whole_2x4_32", "Whole", 2, 4, 32, 1, 1),
    ("decode_whole_2x2_64", "Whole", 2, 2, 64, 2, 2),
    ("decode_whole_2x2_32", "Whole", 2, 2, 32, 2, 2),
    ("decode_whole_5x2_32", "Whole", 5, 2, 32, 1, 1),
    ("decode_whole_5x1_32", "Whole", 5, 1, 32, 1, 1),
    ("decode_whole_5x1_16", "Whole", 5, 1, 16, 1, 1),
    ("decode_groups_1x4_64", "Groups", 1, 4, 64, 1, 1),
    ("decode_groups_1x4_32", "Groups", 1, 4, 32, 1, 1),
    ("decode_groups_1x2_64", "Groups", 1, 2, 64, 3, 2),
    ("decode_groups_1x2_32", "Groups", 1, 2, 32, 2, 2),
    ("decode_groups_1x2_16", "Groups", 1, 2, 16, 2, 2),
    ("decode_groups_2x2_64", "Groups", 2, 2, 64, 2, 2),
    ("decode_groups_2x2_32", "Groups", 2, 2, 32, 2, 2),
    ("decode_groups_5x1_32", "Groups", 5, 1, 32, 1, 1),
    ("decode_groups_5x1_16", "Groups", 5, 1, 16, 1, 1),
    ("decode_bf16_1x4_64", "Bf16", 1, 4, 64, 1, 1),
    ("decode_bf16_1x4_32", "Bf16", 1, 4, 32, 1, 1),
    ("decode_bf16_1x2_64", "Bf16", 1, 2, 64, 2, 3),
    ("decode_bf16_1x2_32", "Bf16", 1, 2, 32, 2, 2),
    ("decode_bf16_1x2_16", "Bf16", 1, 2, 16, 2, 2),
    ("decode_bf16_2x2_32", "Bf16", 2, 2, 32, 2, 2),
    ("decode_bf16_5x1_32", "Bf16", 5, 1, 32, 1, 1),
    ("decode_bf16_5x1_16", "Bf16", 5, 1, 16, 1, 1),
];
pub const DECODE_SM90_KERNELS: [(&str, &str, u32, u32); 23] = [
    ("decode_sm90_whole_8x8", "Whole", 8, 8),
    ("decode_sm90_whole_8x4", "Whole", 8, 4),
    ("decode_sm90_whole_8x2", "Whole", 8, 2),
    ("decode_sm90_whole_8x1", "Whole", 8, 1),
    ("decode_sm90_whole_4x4", "Whole", 4, 4),
    ("decode_sm90_whole_4x2", "Whole", 4, 2),
    ("decode_sm90_whole_4x1", "Whole", 4, 1),
    ("decode_sm90_groups_8x8", "Groups", 8, 8),
    ("decode_sm90_groups_8x4", "Groups", 8, 4),
    ("decode_sm90_groups_8x2", "Groups", 8, 2),
    ("decode_sm90_groups_4x4", "Groups", 4, 4),
    ("decode_sm90_groups_4x2", "Groups", 4, 2),
    ("decode_sm90_groups32_8x8", "Groups32", 8, 8),
    ("decode_sm90_groups32_8x4", "Groups32", 8, 4),
    ("decode_sm90_groups32_8x2", "Groups32", 8, 2),
    ("decode_sm90_groups32_4x4", "Groups32", 4, 4),
    ("decode_sm90_groups32_4x2", "Groups32", 4, 2),
    ("decode_sm90_bf16_8x8", "Bf16", 8, 8),
    ("decode_sm90_bf16_8x4", "Bf16", 8, 4),
    ("decode_sm90_bf16_8x2", "Bf16", 8, 2),
    ("decode_sm90_bf16_4x8", "Bf16", 4, 8),
    ("decode_sm90_bf16_4x4", "Bf16", 4, 4),
    ("decode_sm90_bf16_4x2", "Bf16", 4, 2),
];
pub const DECODE_CLUSTER_SM90_KERNELS: [(&str, &str, u32, u32); 12] = [
    ("decode_cluster_sm90_whole_2x4", "Whole", 2, 4),
    ("decode_cluster_sm90_whole_2x2", "Whole", 2, 2),
    ("decode_cluster_sm90_whole_2x1", "Whole", 2, 1),
    ("decode_cluster_sm90_whole_3x4", "Whole", 3, 4),
    ("decode_cluster_sm90_whole_3x2", "Whole", 3, 2),
    ("decode_cluster_sm90_whole_3x1", "Whole", 3, 1),
    ("decode_cluster_sm90_whole_4x4", "Whole", 4, 4),
    ("decode_cluster_sm90_whole_4x2", "Whole", 4, 2),
    ("decode_cluster_sm90_whole_4x1", "Whole", 4, 1),
    ("decode_cluster_sm90_whole_5x4", "Whole", 5, 4),
    ("decode_cluster_sm90_whole_5x2", "Whole", 5, 2),
    ("decode_cluster_sm90_whole_5x1", "Whole", 5, 1),
];
