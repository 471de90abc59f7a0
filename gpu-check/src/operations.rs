//! Each operation on one model's shapes, to be timed.

use anyhow::Result;
use half::bf16;
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, Group, PageTable, Sequences};
use latent_attention::device::{Buffer, Device, Element, Tensor, TensorMut};
use latent_attention::ops::{
    AbsorbConfig, AbsorbQuery, AbsorbQueryArgs, BatchBuffers, CacheView, CacheViewMut, Decode, DecodeArgs,
    DecodeConfig, ExpandOutput, ExpandOutputArgs, RopeAppend, RopeAppendArgs, RopeAppendConfig, RotationBuffers,
    UpProject, UpProjectArgs, UpProjectConfig,
};
use latent_attention::rope::{FrequencyIndex, Pairing, RopeTables};

use crate::timing::{Clock, Row};

/// Sequences of a batch, one query token each, and tokens that each has in the cache.
const SEQUENCES: usize = 16;
const CACHED: usize = 16_384;

/// Tokens that are up-projected of each of so many sequences.
const PREFILL: usize = 1024;

/// Tokens per page.
const PAGE_SIZE: usize = 64;

const FORMATS: [(&str, CacheFormat); 3] =
    [("int4", CacheFormat::INT4), ("int4 group 64", CacheFormat::int4(Group::G64)), ("bf16", CacheFormat::BF16)];

/// All operations of a model, the cache in its usual format, decoding in all three.
pub fn rows(device: &Device, clock: &mut Clock, name: &'static str) -> Result<Vec<Row>> {
    let model = Shapes { device, name, geometry: Geometry::named(name)? };
    let mut rows = vec![model.append(clock)?, model.absorb(clock)?, model.expand(clock)?];
    for (label, format) in FORMATS {
        rows.push(model.decode(clock, label, format)?);
    }
    rows.push(model.up_project(clock)?);
    Ok(rows)
}

/// A model on a device.
struct Shapes<'a> {
    device: &'a Device,
    name: &'static str,
    geometry: Geometry,
}

impl Shapes<'_> {
    /// bf16 numbers around zero: rates depend on how many bits change.
    fn numbers(&self, len: usize) -> Result<Buffer<bf16>> {
        let number = |i: usize| bf16::from_f32(((i.wrapping_mul(2_654_435_761) >> 8 & 255) as f32 - 127.5) / 128.0);
        self.upload((0..len).map(number))
    }

    fn upload<T: Element>(&self, values: impl Iterator<Item = T>) -> Result<Buffer<T>> {
        Ok(self.device.upload(&values.collect::<Vec<_>>())?)
    }

    /// A full cache for all sequences: the codes look random, the scales are 2^-4.
    fn cache(&self, layout: &CacheLayout) -> Result<Buffer<u8>> {
        let page: Vec<u8> = (0..layout.page_bytes())
            .map(|i| match (i >= layout.affine_tile().offset, i % 4) {
                (true, 1) => 0x2C, // f16 0x2C00, the scale
                (true, _) => 0,
                // Below 0x40 in the upper byte, bf16 numbers are below 2.
                (false, _) => (i.wrapping_mul(2_654_435_761) >> 9) as u8 & if i % 2 == 1 { 0xBF } else { 0xFF },
            })
            .collect();
        Ok(self.device.upload(&page.repeat(SEQUENCES * CACHED / PAGE_SIZE))?)
    }

    /// Sequences of `cached` tokens with one query token each, their pages interleaved.
    fn batch(&self, layout: &CacheLayout, cached: usize) -> Result<BatchBuffers> {
        let pages = cached / PAGE_SIZE;
        let table: Vec<i32> = (0..SEQUENCES * pages).map(|i| (i % pages * SEQUENCES + i / pages) as i32).collect();
        let starts: Vec<i32> = (0..=SEQUENCES as i32).collect();
        let sequences = Sequences {
            query_starts: &starts,
            seq_lens: &[cached as i32; SEQUENCES],
            pages: PageTable::Dense { table: &table, max_pages: pages },
        };
        Ok(BatchBuffers::upload(self.device, &sequences, layout, SEQUENCES * CACHED / PAGE_SIZE)?)
    }

    fn layout(&self, format: CacheFormat) -> Result<CacheLayout> {
        Ok(CacheLayout::new(&self.geometry, format, PAGE_SIZE)?)
    }

    fn label(&self, what: String) -> String {
        format!("{}, {what}", self.name)
    }

    fn append(&self, clock: &mut Clock) -> Result<Row> {
        let (g, layout) = (&self.geometry, self.layout(CacheFormat::INT4)?);
        let append = RopeAppend::new(self.device, RopeAppendConfig::new(*g, layout, Pairing::Half))?;
        let mut cache = self.device.zeros(SEQUENCES * layout.page_bytes())?;
        let tables = RopeTables::from_theta(1e4, 2 * g.rope_dim.max(1), 1024);
        let index = FrequencyIndex::all(g.rope_heads, g.rope_dim);
        let rotation = RotationBuffers::upload(self.device, &tables, &index)?;
        let q_rope = self.numbers(SEQUENCES * g.query_heads * g.rope_dim)?;
        let mut q_rotated = self.device.zeros::<bf16>(q_rope.len())?;
        let (k_rope, c_kv) = (self.numbers(SEQUENCES * g.rope_width())?, self.numbers(SEQUENCES * g.latent_rank)?);
        let positions = self.upload((0..SEQUENCES).map(|i| 17 * i as i32))?;
        let slots = self.upload((0..SEQUENCES).map(|i| (PAGE_SIZE * i) as i64))?;
        let times = clock.time(|stream| {
            append.run(
                stream,
                RopeAppendArgs {
                    q_rope: Some(Tensor::dense(q_rope.view(), [SEQUENCES, g.query_heads, g.rope_dim])?),
                    q_rotated: TensorMut::dense(q_rotated.view_mut(), [SEQUENCES, g.query_heads, g.rope_dim])?,
                    k_rope: Tensor::dense(k_rope.view(), [SEQUENCES, g.rope_heads, g.rope_dim])?,
                    c_kv: Tensor::dense(c_kv.view(), [SEQUENCES, 1, g.latent_rank])?,
                    positions: positions.view(),
                    slots: slots.view(),
                    rotation: rotation.rotation(),
                    norm: None,
                    bias: None,
                    cache: CacheViewMut::new(layout, cache.view_mut())?,
                    counters: None,
                },
            )
        })?;
        let bytes = SEQUENCES * (2 * (2 * g.query_heads * g.rope_dim + g.rope_width() + g.latent_rank) + 12)
            + SEQUENCES * layout.bytes_per_token();
        let flops = SEQUENCES * 3 * (g.query_heads * g.rope_dim + g.rope_width());
        Ok(Row::new("rope_append", self.label(format!("{SEQUENCES} tokens, int4")), &times, bytes as u64, flops as u64))
    }

    fn absorb(&self, clock: &mut Clock) -> Result<Row> {
        let g = &self.geometry;
        let absorb = AbsorbQuery::new(self.device, AbsorbConfig::new(*g))?;
        let up_key = self.numbers(g.kv_heads * g.nope_dim * g.latent_rank)?;
        let q_nope = self.numbers(SEQUENCES * g.query_heads * g.nope_dim)?;
        let mut q_latent = self.device.zeros::<bf16>(SEQUENCES * g.query_heads * g.latent_rank)?;
        let times = clock.time(|stream| {
            absorb.run(
                stream,
                AbsorbQueryArgs {
                    up_key: Tensor::dense(up_key.view(), [g.kv_heads, g.nope_dim, g.latent_rank])?,
                    q_nope: Tensor::dense(q_nope.view(), [SEQUENCES, g.query_heads, g.nope_dim])?,
                    q_latent: TensorMut::dense(q_latent.view_mut(), [SEQUENCES, g.query_heads, g.latent_rank])?,
                },
            )
        })?;
        Ok(self.product("absorb_query", &times, g.nope_dim))
    }

    fn expand(&self, clock: &mut Clock) -> Result<Row> {
        let g = &self.geometry;
        let expand = ExpandOutput::new(self.device, AbsorbConfig::new(*g))?;
        let up_value = self.numbers(g.kv_heads * g.value_dim * g.latent_rank)?;
        let o_latent = self.numbers(SEQUENCES * g.query_heads * g.latent_rank)?;
        let mut out = self.device.zeros::<bf16>(SEQUENCES * g.query_heads * g.value_dim)?;
        let times = clock.time(|stream| {
            expand.run(
                stream,
                ExpandOutputArgs {
                    up_value: Tensor::dense(up_value.view(), [g.kv_heads, g.value_dim, g.latent_rank])?,
                    value_bias: None,
                    o_latent: Tensor::dense(o_latent.view(), [SEQUENCES, g.query_heads, g.latent_rank])?,
                    out: TensorMut::dense(out.view_mut(), [SEQUENCES, g.query_heads, g.value_dim])?,
                },
            )
        })?;
        Ok(self.product("expand_output", &times, g.value_dim))
    }

    /// A product of each head's latent with its `dim` x L weights.
    fn product(&self, operation: &'static str, times: &[f64], dim: usize) -> Row {
        let g = &self.geometry;
        let weights = g.kv_heads * dim * g.latent_rank;
        let bytes = 2 * (weights + SEQUENCES * g.query_heads * (dim + g.latent_rank));
        let flops = 2 * SEQUENCES * g.query_heads * dim * g.latent_rank;
        Row::new(operation, self.label(format!("{SEQUENCES} tokens")), times, bytes as u64, flops as u64)
    }

    fn decode(&self, clock: &mut Clock, label: &str, format: CacheFormat) -> Result<Row> {
        let (g, layout) = (&self.geometry, self.layout(format)?);
        let config = DecodeConfig::new(*g, layout, g.default_scale() as f32, SEQUENCES, CACHED);
        let decode = Decode::new(self.device, config)?;
        let (cache, batch) = (self.cache(&layout)?, self.batch(&layout, CACHED)?);
        let rows = SEQUENCES * g.query_heads;
        let (q_latent, q_rope) = (self.numbers(rows * g.latent_rank)?, self.numbers(rows * g.rope_dim)?);
        let mut o_latent = self.device.zeros::<bf16>(rows * g.latent_rank)?;
        let mut lse = self.device.zeros::<f32>(rows)?;
        let mut workspace = self.device.allocate::<u8>(decode.workspace_bytes())?;
        let batch = batch.batch();
        // The plan is part of a model's step, but not of each layer's.
        let planning = self.device.stream()?;
        let mut plan = decode.plan(&planning, &batch, SEQUENCES, workspace.view_mut())?;
        planning.synchronize()?;
        let times = clock.time(|stream| {
            decode.run(
                stream,
                &mut plan,
                DecodeArgs {
                    q_latent: Tensor::dense(q_latent.view(), [SEQUENCES, g.query_heads, g.latent_rank])?,
                    q_rope: Tensor::dense(q_rope.view(), [SEQUENCES, g.query_heads, g.rope_dim])?,
                    cache: CacheView::new(layout, cache.view())?,
                    o_latent: o_latent.view_mut(),
                    lse: lse.view_mut(),
                },
            )
        })?;
        let bytes = SEQUENCES * CACHED * layout.bytes_per_token() + 2 * rows * (2 * g.latent_rank + g.rope_dim);
        let flops = 2 * SEQUENCES * CACHED * g.query_heads * (2 * g.latent_rank + g.rope_dim);
        let shape = self.label(format!("{SEQUENCES} x {CACHED}, {label}"));
        Ok(Row::new("decode", shape, &times, bytes as u64, flops as u64))
    }

    fn up_project(&self, clock: &mut Clock) -> Result<Row> {
        let (g, layout) = (&self.geometry, self.layout(CacheFormat::INT4)?);
        let up_project = UpProject::new(self.device, UpProjectConfig::new(*g, layout))?;
        let (cache, batch) = (self.cache(&layout)?, self.batch(&layout, PREFILL)?);
        let starts = self.upload((0..=SEQUENCES).map(|b| (b * PREFILL) as i32))?;
        let tokens = SEQUENCES * PREFILL;
        let up_key = self.numbers(g.kv_heads * g.nope_dim * g.latent_rank)?;
        let up_value = self.numbers(g.kv_heads * g.value_dim * g.latent_rank)?;
        let key_dim = g.nope_dim + g.rope_dim;
        let mut keys = self.device.zeros::<bf16>(tokens * g.kv_heads * key_dim)?;
        let mut values = self.device.zeros::<bf16>(tokens * g.kv_heads * g.value_dim)?;
        let batch = batch.batch();
        let times = clock.time(|stream| {
            up_project.run(
                stream,
                UpProjectArgs {
                    cache: CacheView::new(layout, cache.view())?,
                    batch: &batch,
                    token_starts: starts.view(),
                    up_key: Tensor::dense(up_key.view(), [g.kv_heads, g.nope_dim, g.latent_rank])?,
                    up_value: Tensor::dense(up_value.view(), [g.kv_heads, g.value_dim, g.latent_rank])?,
                    value_bias: None,
                    keys: TensorMut::dense(keys.view_mut(), [tokens, g.kv_heads, key_dim])?,
                    values: TensorMut::dense(values.view_mut(), [tokens, g.kv_heads, g.value_dim])?,
                },
            )
        })?;
        let outputs = g.kv_heads * (g.nope_dim + g.value_dim);
        let bytes = tokens * (layout.bytes_per_token() + 2 * g.kv_heads * (key_dim + g.value_dim))
            + 2 * outputs * g.latent_rank;
        let flops = 2 * tokens * outputs * g.latent_rank;
        let shape = self.label(format!("{SEQUENCES} x {PREFILL}, int4"));
        Ok(Row::new("up_project", shape, &times, bytes as u64, flops as u64))
    }
}
