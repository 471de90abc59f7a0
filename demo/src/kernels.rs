//! One layer's attention on a device, one sequence at a time.

use std::ops::Range;

use anyhow::Result;
use half::bf16;
use latent_attention::cache::{CacheFormat, CacheLayout, PageTable, PagedCache, Sequences};
use latent_attention::device::{Buffer, Device, Stream, Tensor, TensorMut};
use latent_attention::layer::{LatentAttentionLayer, LayerConfig, LayerWorkspace, StepArgs};
use latent_attention::ops::{BatchBuffers, DeviceCache, RotationBuffers};
use latent_attention::reference::{ReferenceInputs, ReferenceLayer};
use latent_attention::rope::RopeTables;
use latent_attention::weights::{LatentAttention, Matrix};

/// Tokens of one step; longer ones are taken in parts.
const STEP_TOKENS: usize = 128;

/// A layer, its cache and its workspace on a device.
pub struct KernelLayer {
    device: Device,
    stream: Stream,
    layer: LatentAttentionLayer,
    cache: DeviceCache,
    workspace: LayerWorkspace,
    plan: Buffer<u8>,
}

impl KernelLayer {
    /// Copies a layer to the device, with an empty cache of `pages` pages of `page_size` tokens.
    ///
    /// # Errors
    /// If the layer is inconsistent or the device refuses it.
    pub fn new(
        device: &Device,
        weights: &LatentAttention,
        tables: &RotationBuffers,
        format: CacheFormat,
        page_size: usize,
        pages: usize,
    ) -> Result<Self> {
        let layout = CacheLayout::new(&weights.geometry, format, page_size)?;
        let config = LayerConfig::new(layout, STEP_TOKENS, pages * page_size);
        let layer = LatentAttentionLayer::new(device, weights, tables, config)?;
        Ok(Self {
            device: device.clone(),
            stream: device.stream()?,
            cache: layer.new_cache(pages)?,
            workspace: layer.new_workspace()?,
            plan: device.allocate(layer.plan_bytes())?,
            layer,
        })
    }

    /// Appends the tokens at `positions` of the one sequence in `pages`, and attends. `inputs` are those of the
    /// reference; the first `positions.len()` tokens of them count. Returns `[tokens, H, Dv]` and how many cached
    /// values saturated.
    ///
    /// # Errors
    /// If a size does not fit, or a launch fails.
    pub fn step(
        &mut self,
        inputs: &ReferenceInputs,
        positions: Range<usize>,
        pages: &[i32],
    ) -> Result<(Vec<f32>, usize)> {
        let (mut out, mut saturated) = (Vec::new(), 0);
        for start in positions.clone().step_by(STEP_TOKENS) {
            let part = start..(start + STEP_TOKENS).min(positions.end);
            let (heads, bad) = self.part(inputs, part.start - positions.start, part, pages)?;
            out.extend(heads);
            saturated += bad;
        }
        Ok((out, saturated))
    }

    /// One launch of each kernel, for the tokens of `inputs` from `first` on.
    fn part(
        &mut self,
        inputs: &ReferenceInputs,
        first: usize,
        positions: Range<usize>,
        pages: &[i32],
    ) -> Result<(Vec<f32>, usize)> {
        let (g, tokens, device) = (*self.layer.geometry(), positions.len(), &self.device);
        let sequences = Sequences {
            query_starts: &[0, i32::try_from(tokens)?],
            seq_lens: &[i32::try_from(positions.end)?],
            pages: PageTable::Dense { table: pages, max_pages: pages.len() },
        };
        let batch = BatchBuffers::upload(device, &sequences, &self.layer.config().layout, self.cache.pages())?;
        let rows = |values: &[f32], width: usize| -> Result<Buffer<bf16>> {
            let values: Vec<bf16> =
                values[first * width..][..tokens * width].iter().map(|&value| bf16::from_f32(value)).collect();
            Ok(device.upload(&values)?)
        };
        let q_rope = rows(inputs.q_rope, g.query_heads * g.rope_dim)?;
        let q_nope = rows(inputs.q_nope, g.query_heads * g.nope_dim)?;
        let k_rope = rows(inputs.k_rope, g.rope_width())?;
        let c_kv = rows(inputs.c_kv, g.latent_rank)?;
        let table_rows = device.upload(&inputs.positions[first..][..tokens])?;
        let slots = device.upload(&inputs.slots[first..][..tokens])?;
        let mut out = device.allocate::<bf16>(tokens * g.query_heads * g.value_dim)?;
        let mut counters = device.zeros::<u64>(2)?;
        let mut plan = self.layer.plan(&self.stream, &batch.batch(), tokens, self.plan.view_mut())?;
        let args = StepArgs {
            q_rope: Tensor::dense(q_rope.view(), [tokens, g.query_heads, g.rope_dim])?,
            q_nope: Tensor::dense(q_nope.view(), [tokens, g.query_heads, g.nope_dim])?,
            k_rope: Tensor::dense(k_rope.view(), [tokens, g.rope_heads, g.rope_dim])?,
            c_kv: Tensor::dense(c_kv.view(), [tokens, 1, g.latent_rank])?,
            positions: table_rows.view(),
            slots: slots.view(),
            plan: &mut plan,
            workspace: &mut self.workspace,
            cache: self.cache.view_mut(),
            out: TensorMut::dense(out.view_mut(), [tokens, g.query_heads, g.value_dim])?,
            counters: Some(counters.view_mut()),
        };
        self.layer.step(&self.stream, args)?;
        let heads = out.to_vec()?.into_iter().map(bf16::to_f32).collect();
        Ok((heads, usize::try_from(counters.to_vec()?[0])?))
    }
}

/// A layer's kernels beside a reference of their own, which is given the same bf16 numbers: what differs between the two
/// is what the kernels compute.
pub struct Sample {
    kernels: KernelLayer,
    reference: ReferenceLayer,
    cache: PagedCache,
}

impl Sample {
    /// Prepares both, with empty caches.
    ///
    /// # Errors
    /// As [`KernelLayer::new`].
    pub fn new(
        kernels: KernelLayer,
        weights: &LatentAttention,
        format: CacheFormat,
        page_size: usize,
        pages: usize,
    ) -> Result<Self> {
        let mut weights = weights.clone();
        for matrix in [&mut weights.up_key, &mut weights.up_value] {
            *matrix = Matrix::new(matrix.rows(), matrix.cols(), rounded(matrix.data()))?;
        }
        let reference = ReferenceLayer::new(weights)?;
        let cache = reference.new_cache(format, page_size, pages)?;
        Ok(Self { kernels, reference, cache })
    }

    /// Lets both take in the first `positions.len()` tokens of `inputs`. Returns the largest difference between their
    /// outputs, relative to the largest number of the reference's.
    ///
    /// # Errors
    /// As [`KernelLayer::step`].
    pub fn difference(
        &mut self,
        inputs: &ReferenceInputs,
        positions: Range<usize>,
        pages: &[i32],
        tables: &RopeTables,
    ) -> Result<f64> {
        let tokens = positions.len();
        let first = |values: &[f32]| rounded(&values[..values.len() / inputs.slots.len() * tokens]);
        let sequences = Sequences {
            query_starts: &[0, i32::try_from(tokens)?],
            seq_lens: &[i32::try_from(positions.end)?],
            pages: PageTable::Dense { table: pages, max_pages: pages.len() },
        };
        let same = ReferenceInputs {
            q_rope: &first(inputs.q_rope),
            q_nope: &first(inputs.q_nope),
            k_rope: &first(inputs.k_rope),
            c_kv: &first(inputs.c_kv),
            positions: &inputs.positions[..tokens],
            slots: &inputs.slots[..tokens],
        };
        let expected = self.reference.step(&same, &sequences, tables, &mut self.cache)?.out;
        let (got, _) = self.kernels.step(&same, positions, pages)?;
        Ok(largest_difference(&got, &expected))
    }
}

fn rounded(values: &[f32]) -> Vec<f32> {
    values.iter().map(|&value| bf16::from_f32(value).to_f32()).collect()
}

/// Relative to the largest number.
fn largest_difference(got: &[f32], expected: &[f32]) -> f64 {
    let largest = |numbers: &mut dyn Iterator<Item = f32>| numbers.fold(0.0, |most, x| f64::max(most, x.abs().into()));
    let difference = largest(&mut got.iter().zip(expected).map(|(g, e)| g - e));
    difference / largest(&mut expected.iter().copied()).max(f64::MIN_POSITIVE)
}
