//! Small launches on the simulator, with profiles: a kernel's counts grow with tiles along a line, so that two of them
//! tell what a tile costs and what the rest does.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use half::{bf16, f16};
use latent_attention::Geometry;
use latent_attention::cache::{CacheLayout, PageTable, Sequences};
use latent_attention::device::{Counted, Device, Simulation, Tensor, TensorMut};
use latent_attention::image::Arch;
use latent_attention::ops::{
    AbsorbConfig, AbsorbQuery, AbsorbQueryArgs, BatchBuffers, CacheView, Combine, CombineConfig, CombineTiles, Decode,
    DecodeArgs, DecodeConfig, DecodeTiles, DecodeVariant, DeviceCache, ExpandOutput, ExpandOutputArgs, RopeAppend,
    RopeAppendArgs, RopeAppendConfig, RotationBuffers, SplitPolicy,
};
use latent_attention::rope::{FrequencyIndex, Pairing, RopeTables};
use latent_attention::sys::{self, CombineParams};
use ptx_sim::meter::{Class, Meter, Path};

use crate::machine::Machine;
use crate::work::Launch;

/// A simulated device that chooses the kernels that a machine would be given.
#[must_use]
pub fn device(machine: &Machine, arch: Arch) -> Device {
    let simulation = Simulation::default()
        .with_arch(arch)
        .with_multiprocessors(machine.multiprocessors)
        .with_shared_bytes(machine.shared_bytes)
        .with_checked(false)
        .with_profile(true);
    Device::simulate(simulation)
}

/// A layer's attention, and what of its kernel was chosen.
pub struct Attention {
    device: Device,
    geometry: Geometry,
    layout: CacheLayout,
    variant: Option<DecodeVariant>,
    /// The chosen kernel and its tiles.
    pub tiles: DecodeTiles,
}

impl Attention {
    /// Chooses the kernel, unless a variant names it.
    ///
    /// # Errors
    /// As [`Decode::new`].
    pub fn new(
        device: &Device,
        geometry: Geometry,
        layout: CacheLayout,
        variant: Option<DecodeVariant>,
    ) -> Result<Self> {
        let operation = Decode::new(device, config(&geometry, layout, 1, variant))?;
        Ok(Self { device: device.clone(), geometry, layout, variant, tiles: operation.tiles() })
    }

    /// Every way to serve a layer, the chosen one first.
    ///
    /// # Errors
    /// As [`Decode::variants`].
    pub fn variants(device: &Device, geometry: &Geometry, layout: CacheLayout) -> Result<Vec<DecodeVariant>> {
        Ok(Decode::variants(device, &config(geometry, layout, 1, None))?)
    }

    /// One sequence of `count` tiles, not split: a block for each tile of heads.
    ///
    /// # Errors
    /// What the operation or the simulator says.
    pub fn run(&self, count: usize) -> Result<Launch> {
        // Of several tiles of heads the fullest decide.
        let heads = match self.geometry.query_heads / self.tiles.heads {
            0 => self.geometry.query_heads,
            full => full * self.tiles.heads,
        };
        let mut g = self.geometry;
        (g.query_heads, g.kv_heads) = (heads, heads * g.kv_heads / g.query_heads);
        let g = &g;
        let tokens = count * self.tiles.tile_tokens;
        let operation = Decode::new(&self.device, config(g, self.layout, tokens, self.variant))?;
        let mut tiles = operation.tiles();
        tiles.target_splits = self.tiles.target_splits;
        ensure!(tiles == self.tiles, "{heads} heads are served by another kernel");
        let stream = self.device.stream()?;
        let pages = tokens.div_ceil(self.layout.page_size());
        let cache = self.device.upload(&page_bytes(&self.layout, pages))?;
        let numbers = numbers(g.query_heads * g.latent_rank.max(g.rope_dim));
        let q_latent = self.device.upload(&numbers[..g.query_heads * g.latent_rank])?;
        let q_rope = self.device.upload(&numbers[..g.query_heads * g.rope_dim])?;
        let mut o_latent = self.device.zeros::<bf16>(g.query_heads * g.latent_rank)?;
        let mut lse = self.device.zeros::<f32>(g.query_heads)?;
        let table: Vec<i32> = (0..i32::try_from(pages)?).collect();
        let sequences = Sequences {
            query_starts: &[0, 1],
            seq_lens: &[i32::try_from(tokens)?],
            pages: PageTable::Dense { table: &table, max_pages: pages },
        };
        let batch = BatchBuffers::upload(&self.device, &sequences, &self.layout, pages)?;
        let mut workspace = self.device.allocate::<u8>(operation.workspace_bytes())?;
        let mut plan = operation.plan(&stream, &batch.batch(), 1, workspace.view_mut())?;
        let args = DecodeArgs {
            q_latent: Tensor::dense(q_latent.view(), [1, g.query_heads, g.latent_rank])?,
            q_rope: Tensor::dense(q_rope.view(), [1, g.query_heads, g.rope_dim])?,
            cache: CacheView::new(self.layout, cache.view())?,
            o_latent: o_latent.view_mut(),
            lse: lse.view_mut(),
        };
        drop(self.device.take_counts());
        operation.run(&stream, &mut plan, args)?;
        let counts = self.device.take_counts();
        let blocks = g.query_heads.div_ceil(self.tiles.heads);
        launch(counts.get(self.tiles.kernel).context("the kernel was not launched")?, blocks)
    }
}

/// One row of a merge of so many partials, by the blocks for rows of about `expected` of them; and how many these are.
///
/// # Errors
/// What the operation or the simulator says.
pub fn combine(device: &Device, latent_rank: usize, splits: usize, expected: usize) -> Result<(Launch, CombineTiles)> {
    let config = CombineConfig::new(latent_rank, splits);
    let tiles = config.tiles(expected, 1, device.limits().multiprocessors);
    let operation = Combine::new(device, config)?;
    let partials: Vec<f32> = numbers(splits * latent_rank).into_iter().map(bf16::to_f32).collect();
    let o_partial = device.upload(&partials)?;
    let lse_partial = device.upload(&partials[..splits])?;
    let mut o_latent = device.zeros::<bf16>(latent_rank)?;
    let mut lse = device.zeros::<f32>(1)?;
    let params = CombineParams {
        o_partial: o_partial.view().address(),
        lse_partial: lse_partial.view().address(),
        o_latent: o_latent.view_mut().view().address(),
        lse: lse.view_mut().view().address(),
        split_starts: 0,
        rows: 1,
        splits: u32::try_from(splits)?,
        latent_rank: u32::try_from(latent_rank)?,
        heads: 0,
    };
    drop(device.take_counts());
    // SAFETY: the buffers are as large as the parameters say.
    unsafe { operation.launch(&device.stream()?, expected, &params)? };
    let counts = device.take_counts();
    Ok((launch(counts.get("combine").context("combine was not launched")?, tiles.blocks)?, tiles))
}

/// `absorb_query` of so many tokens, by the kernel for few of them; and its blocks.
///
/// # Errors
/// What the operation or the simulator says, and if tokens are too many for that kernel.
pub fn absorb_query(device: &Device, g: &Geometry, tokens: usize) -> Result<(Launch, usize)> {
    let operation = AbsorbQuery::new(device, AbsorbConfig::new(*g))?;
    let up_key = device.upload(&numbers(g.kv_heads * g.nope_dim * g.latent_rank))?;
    let q_nope = device.upload(&numbers(tokens * g.query_heads * g.nope_dim))?;
    let mut q_latent = device.zeros::<bf16>(tokens * g.query_heads * g.latent_rank)?;
    let args = AbsorbQueryArgs {
        up_key: Tensor::dense(up_key.view(), [g.kv_heads, g.nope_dim, g.latent_rank])?,
        q_nope: Tensor::dense(q_nope.view(), [tokens, g.query_heads, g.nope_dim])?,
        q_latent: TensorMut::dense(q_latent.view_mut(), [tokens, g.query_heads, g.latent_rank])?,
    };
    drop(device.take_counts());
    operation.run(&device.stream()?, args)?;
    few(device, "absorb_query_few", g, tokens, g.latent_rank.div_ceil(sys::ABSORB_QUERY_FEW_OUTPUTS as usize))
}

/// The same of `expand_output`.
///
/// # Errors
/// As [`absorb_query`].
pub fn expand_output(device: &Device, g: &Geometry, tokens: usize) -> Result<(Launch, usize)> {
    let operation = ExpandOutput::new(device, AbsorbConfig::new(*g))?;
    let up_value = device.upload(&numbers(g.kv_heads * g.value_dim * g.latent_rank))?;
    let o_latent = device.upload(&numbers(tokens * g.query_heads * g.latent_rank))?;
    let mut out = device.zeros::<bf16>(tokens * g.query_heads * g.value_dim)?;
    let args = ExpandOutputArgs {
        up_value: Tensor::dense(up_value.view(), [g.kv_heads, g.value_dim, g.latent_rank])?,
        value_bias: None,
        o_latent: Tensor::dense(o_latent.view(), [tokens, g.query_heads, g.latent_rank])?,
        out: TensorMut::dense(out.view_mut(), [tokens, g.query_heads, g.value_dim])?,
    };
    drop(device.take_counts());
    operation.run(&device.stream()?, args)?;
    few(device, "expand_output_few", g, tokens, g.value_dim.div_ceil(sys::EXPAND_OUTPUT_FEW_OUTPUTS as usize))
}

/// What was counted of a kernel for few tokens, of which each KV head has so many tiles of outputs.
fn few(device: &Device, kernel: &str, g: &Geometry, tokens: usize, tiles: usize) -> Result<(Launch, usize)> {
    let counts = device.take_counts();
    let counted =
        counts.get(kernel).with_context(|| format!("{tokens} tokens are not few: {kernel} was not launched"))?;
    let rows = tokens * (g.query_heads / g.kv_heads);
    let blocks = rows.div_ceil(sys::ABSORB_FEW_ROWS as usize) * tiles * g.kv_heads;
    Ok((launch(counted, blocks)?, blocks))
}

/// Taking in so many tokens, by the kernel of `rope_append`: of each the queries, the keys and a latent without norm or
/// bias. A token counts as a block.
///
/// # Errors
/// What the operation or the simulator says.
pub fn rope_append(device: &Device, g: &Geometry, layout: CacheLayout, tokens: usize) -> Result<Launch> {
    append_of(device, g, layout, tokens, tokens)
}

/// The same by block; and its blocks: a warp for each token, and a row of them for each run of a token.
///
/// # Errors
/// As [`rope_append`].
pub fn append(device: &Device, g: &Geometry, layout: CacheLayout, tokens: usize) -> Result<(Launch, usize)> {
    let runs = |width: usize| width.div_ceil(sys::ROPE_APPEND_RUN as usize);
    let of_a_token = runs(g.latent_rank) + runs(g.rope_width()) + runs(g.query_heads * g.rope_dim);
    let blocks = of_a_token * tokens.div_ceil(sys::ROPE_APPEND_THREADS as usize / 32);
    Ok((append_of(device, g, layout, tokens, blocks)?, blocks))
}

fn append_of(device: &Device, g: &Geometry, layout: CacheLayout, tokens: usize, blocks: usize) -> Result<Launch> {
    let operation = RopeAppend::new(device, RopeAppendConfig::new(*g, layout, Pairing::Half))?;
    let tables = RopeTables::from_theta(1e4, g.rope_dim.max(2), tokens);
    let rotation = RotationBuffers::upload(device, &tables, &FrequencyIndex::all(g.rope_heads, g.rope_dim))?;
    let mut cache = DeviceCache::new(device, layout, tokens.div_ceil(layout.page_size()))?;
    let q_rope = device.upload(&numbers(tokens * g.query_heads * g.rope_dim))?;
    let k_rope = device.upload(&numbers(tokens * g.rope_width()))?;
    let c_kv = device.upload(&numbers(tokens * g.latent_rank))?;
    let mut rotated = device.zeros::<bf16>(tokens * g.query_heads * g.rope_dim)?;
    let positions = device.upload(&(0..i32::try_from(tokens)?).collect::<Vec<_>>())?;
    let slots = device.upload(&(0..i64::try_from(tokens)?).collect::<Vec<_>>())?;
    let args = RopeAppendArgs {
        q_rope: Some(Tensor::dense(q_rope.view(), [tokens, g.query_heads, g.rope_dim])?),
        q_rotated: Some(TensorMut::dense(rotated.view_mut(), [tokens, g.query_heads, g.rope_dim])?),
        k_rope: Tensor::dense(k_rope.view(), [tokens, g.rope_heads, g.rope_dim])?,
        c_kv: Tensor::dense(c_kv.view(), [tokens, 1, g.latent_rank])?,
        positions: Some(positions.view()),
        slots: slots.view(),
        rotation: Some(rotation.rotation()),
        norm: None,
        bias: None,
        cache: cache.view_mut(),
        counters: None,
        key_norm: None,
    };
    drop(device.take_counts());
    operation.run(&device.stream()?, args)?;
    launch(device.take_counts().get("rope_append").context("rope_append was not launched")?, blocks)
}

fn config(geometry: &Geometry, layout: CacheLayout, tokens: usize, variant: Option<DecodeVariant>) -> DecodeConfig {
    let mut config = DecodeConfig::new(*geometry, layout, geometry.default_scale() as f32, 1, tokens)
        .with_policy(SplitPolicy::Fixed { tokens });
    config.variant = variant;
    config
}

/// What the simulator counted.
fn launch(counted: &Counted, blocks: usize) -> Result<Launch> {
    let mut issued: Vec<BTreeMap<u32, u64>> = Vec::new();
    for executed in &counted.profile {
        for (warp, &count) in executed.issued.iter().enumerate() {
            if issued.len() <= warp {
                issued.resize_with(warp + 1, BTreeMap::new);
            }
            *issued[warp].entry(executed.ptx_line).or_insert(0) += count;
        }
    }
    ensure!(!issued.is_empty(), "nothing was counted");
    let (wavefronts, bytes) = traffic(&counted.meter)?;
    let mma = counted.meter.instructions(Class::Mma).warp;
    Ok(Launch { blocks: blocks as f64, issued, wavefronts, bytes, mma })
}

/// Wavefronts of shared memory, and bytes of global memory.
fn traffic(meter: &Meter) -> Result<(u64, u64)> {
    let (mut wavefronts, mut bytes) = (0, 0);
    for (&path, traffic) in &meter.traffic {
        match path {
            Path::SharedRead
            | Path::SharedWrite
            | Path::SharedAtomic
            | Path::CopySharedRead
            | Path::CopySharedWrite => {
                wavefronts += traffic.wavefronts;
            }
            Path::GlobalRead
            | Path::GlobalWrite
            | Path::GlobalAtomic
            | Path::CopyGlobalRead
            | Path::CopyGlobalWrite => bytes += traffic.bytes,
            // Parameters and constants come from a cache of their own; a lone warp's path has the time that they take.
            Path::ConstRead => {}
            // Spills go through the same cache as shared memory, but as many as hit it nobody has measured; what goes on
            // between blocks of a cluster, in bulk, or through descriptors has rates that nobody has measured either.
            Path::LocalRead
            | Path::LocalWrite
            | Path::RemoteRead
            | Path::RemoteWrite
            | Path::RemoteAtomic
            | Path::BulkGlobalRead
            | Path::BulkGlobalWrite
            | Path::BulkSharedRead
            | Path::BulkSharedWrite
            | Path::DescriptorRead => bail!("{}: what such accesses cost is not measured yet", path.name()),
            path => bail!("{}: a kind of access that the cost model does not know", path.name()),
        }
    }
    Ok((wavefronts, bytes))
}

/// Numbers of -1..1, the same in each run.
fn numbers(len: usize) -> Vec<bf16> {
    random(len).map(|word| bf16::from_f32((word as f32 / u32::MAX as f32).mul_add(2.0, -1.0))).collect()
}

/// Random pages, as the benchmarks have them: codes of 4 bits with scales of 1/16 and minima of -1/2, or bf16 numbers.
fn page_bytes(layout: &CacheLayout, pages: usize) -> Vec<u8> {
    let (affine, bytes) = (layout.affine_tile(), pages * layout.page_bytes());
    if affine.row_bytes == 0 {
        return numbers(bytes / 2).into_iter().flat_map(bf16::to_le_bytes).collect();
    }
    let mut all: Vec<u8> = random(bytes.div_ceil(4)).flat_map(u32::to_le_bytes).take(bytes).collect();
    let pair = [1.0 / 16.0, -0.5].map(|number| f16::from_f32(number).to_le_bytes()).concat();
    for page in all.chunks_exact_mut(layout.page_bytes()) {
        page[affine.offset..].chunks_exact_mut(4).for_each(|bytes| bytes.copy_from_slice(&pair));
    }
    all
}

/// Words of a linear congruential generator (Knuth's constants), of which the upper halves are good enough.
fn random(len: usize) -> impl Iterator<Item = u32> {
    let mut state = 1u64;
    (0..len).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    })
}

#[cfg(test)]
mod tests {
    use ptx_sim::meter::Traffic;

    use super::*;

    /// A meter that counted 3 wavefronts and 5 bytes of each path.
    fn meter(paths: &[Path]) -> Meter {
        let counted = Traffic { accesses: 1, wavefronts: 3, bytes: 5, ..Traffic::default() };
        let mut meter = Meter::default();
        meter.traffic = paths.iter().map(|&path| (path, counted)).collect();
        meter
    }

    #[test]
    fn each_kind_of_traffic_is_counted_once_or_refused_by_its_name() {
        let (mut wavefronts, mut bytes, mut refused) = (0, 0, Vec::new());
        for path in Path::ALL {
            match traffic(&meter(&[path])) {
                Ok(counted) => (wavefronts, bytes) = (wavefronts + counted.0, bytes + counted.1),
                Err(error) => {
                    assert!(error.to_string().starts_with(path.name()), "{error}");
                    refused.push(path);
                }
            }
        }
        // Reads, writes and atomics of shared memory, copies from and to it; of global memory the same; constants cost
        // neither. Ten kinds are refused.
        assert_eq!((wavefronts, bytes), (5 * 3, 5 * 5));
        assert_eq!(refused.len(), Path::ALL.len() - 5 - 5 - 1);
        assert!(refused.contains(&Path::DescriptorRead) && refused.contains(&Path::BulkSharedWrite), "{refused:?}");
        assert_eq!(traffic(&meter(&[Path::SharedRead, Path::CopySharedRead, Path::GlobalAtomic])).unwrap(), (6, 5));
    }
}
