//! The kernels over what [`Memory`] makes of tensors, all of them checked already.

use candle_core::Tensor;
use half::bf16;
use latent_attention::device::{TensorMut, ViewMut};
use latent_attention::ops::{
    AbsorbConfig, AbsorbQuery, AbsorbQueryArgs, Batch, CacheView, CacheViewMut, Decode, DecodeArgs, DecodeConfig,
    ExpandOutput, ExpandOutputArgs, Gather, GatherArgs, GatherConfig, Pages, RopeAppend, RopeAppendArgs,
    RopeAppendConfig,
};
use latent_attention::rope::Pairing;

use crate::batch::{Chunks, HostBatch};
use crate::error::Result;
use crate::memory::{Memory, Owned};

/// The operations of a layer's shape, loaded.
#[derive(Debug)]
pub(crate) struct Kernels {
    memory: Memory,
    config: DecodeConfig,
    rope_append: RopeAppend,
    absorb: AbsorbQuery,
    decode: Decode,
    expand: ExpandOutput,
    gather: Gather,
}

/// A batch in device memory, and a workspace in which [`Decode::plan`] left how its attention is divided.
#[derive(Debug)]
pub(crate) struct Division {
    batch: DeviceBatch,
    query_tokens: usize,
    workspace: Owned<u8>,
}

impl Kernels {
    pub fn new(memory: Memory, config: &DecodeConfig) -> Result<Self> {
        let (device, g) = (memory.device(), &config.geometry.validate()?);
        // Engines rotate keys themselves, so that no dimensions are paired.
        let rope_append = RopeAppendConfig::new(*g, config.layout, Pairing::Half);
        let absorb = AbsorbConfig::new(*g).with_policy(config.policy);
        Ok(Self {
            rope_append: RopeAppend::new(device, rope_append)?,
            absorb: AbsorbQuery::new(device, absorb)?,
            decode: Decode::new(device, *config)?,
            expand: ExpandOutput::new(device, absorb)?,
            gather: Gather::new(device, GatherConfig::new(config.layout))?,
            config: *config,
            memory,
        })
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// [`Kernels::rope_append`] into a cache in host memory.
    pub fn rope_append_on_host(&self, cache: &mut [u8], c_kv: &Tensor, k_pe: &Tensor, slots: &Tensor) -> Result<()> {
        self.memory.lend_mut(cache, |cache| self.rope_append(cache, c_kv, k_pe, slots))
    }

    /// Writes tokens whose keys are rotated already into their slots.
    pub fn rope_append(&self, cache: ViewMut<u8>, c_kv: &Tensor, k_pe: &Tensor, slots: &Tensor) -> Result<()> {
        let (g, tokens) = (&self.config.geometry, slots.elem_count());
        let key_shape = [tokens, g.rope_heads, g.rope_dim];
        let (c_kv, k_pe) = (self.memory.lend::<bf16>("c_kv", c_kv)?, self.memory.lend::<bf16>("k_pe", k_pe)?);
        let slots = self.memory.lend::<i64>("slot_mapping", slots)?;
        Ok(self.rope_append.run(
            self.memory.stream(),
            RopeAppendArgs {
                q_rope: None,
                q_rotated: None,
                k_rope: k_pe.tensor(key_shape)?,
                c_kv: c_kv.tensor([tokens, 1, g.latent_rank])?,
                positions: None,
                slots: slots.view(),
                rotation: None,
                norm: None,
                bias: None,
                cache: CacheViewMut::new(self.config.layout, cache)?,
                counters: None,
                key_norm: None,
            },
        )?)
    }

    pub fn absorb_query(&self, q_nope: &Tensor, up_key: &Tensor) -> Result<Tensor> {
        let (g, tokens) = (&self.config.geometry, q_nope.dim(0)?);
        let (q_nope, up_key) = (self.memory.lend("q_nope", q_nope)?, self.memory.lend("up_key", up_key)?);
        let out = [tokens, g.query_heads, g.latent_rank];
        let mut q_latent = self.memory.allocate::<bf16>(out.iter().product())?;
        self.absorb.run(
            self.memory.stream(),
            AbsorbQueryArgs {
                up_key: up_key.tensor([g.kv_heads, g.nope_dim, g.latent_rank])?,
                q_nope: q_nope.tensor([tokens, g.query_heads, g.nope_dim])?,
                q_latent: TensorMut::dense(q_latent.view_mut(out.iter().product())?, out)?,
            },
        )?;
        self.memory.tensor(q_latent, &out)
    }

    pub fn expand_output(&self, o_latent: &Tensor, up_value: &Tensor, value_bias: Option<&Tensor>) -> Result<Tensor> {
        let (g, tokens) = (&self.config.geometry, o_latent.dim(0)?);
        let (o_latent, up_value) = (self.memory.lend("o_latent", o_latent)?, self.memory.lend("up_value", up_value)?);
        // Operations take it as one run of numbers; this is free if it is one.
        let value_bias = value_bias.map(Tensor::contiguous).transpose()?;
        let value_bias = value_bias.as_ref().map(|bias| self.memory.lend("value_bias", bias)).transpose()?;
        let dims = [tokens, g.query_heads, g.value_dim];
        let mut out = self.memory.allocate::<bf16>(dims.iter().product())?;
        self.expand.run(
            self.memory.stream(),
            ExpandOutputArgs {
                up_value: up_value.tensor([g.kv_heads, g.value_dim, g.latent_rank])?,
                value_bias: value_bias.as_ref().map(|bias| bias.view()),
                o_latent: o_latent.tensor([tokens, g.query_heads, g.latent_rank])?,
                out: TensorMut::dense(out.view_mut(dims.iter().product())?, dims)?,
            },
        )?;
        self.memory.tensor(out, &dims)
    }

    /// Copies a batch to the device and divides it.
    pub fn divide(&self, batch: &HostBatch) -> Result<Division> {
        let (query_tokens, bytes) = (batch.sequences().query_tokens(), self.decode.workspace_bytes());
        let batch = DeviceBatch::upload(&self.memory, batch)?;
        let mut workspace = self.memory.allocate::<u8>(bytes)?;
        self.decode.plan(self.memory.stream(), &batch.batch()?, query_tokens, workspace.view_mut(bytes)?)?;
        Ok(Division { batch, query_tokens, workspace })
    }

    /// Attends, by a division that these operations or others of the same configuration made.
    pub fn attend(
        &self,
        q_latent: &Tensor,
        q_pe: &Tensor,
        cache: &Tensor,
        division: &mut Division,
    ) -> Result<(Tensor, Tensor)> {
        let (g, tokens) = (&self.config.geometry, division.query_tokens);
        let (q_latent, q_pe) = (self.memory.lend("q_latent", q_latent)?, self.memory.lend("q_pe", q_pe)?);
        let cache = self.memory.lend::<u8>("cache", cache)?;
        let dims = [tokens, g.query_heads, g.latent_rank];
        let rows = tokens * g.query_heads;
        let mut o_latent = self.memory.allocate::<bf16>(rows * g.latent_rank)?;
        let mut lse = self.memory.allocate::<f32>(rows)?;
        let bytes = division.workspace.view().len();
        let workspace = division.workspace.view_mut(bytes)?;
        // SAFETY: `divide` planned in this workspace, for this batch, and a `Division` lends both to nobody else; that
        // device and configuration are the same is checked here and by `Mla`.
        let mut plan = unsafe { self.decode.planned(&division.batch.batch()?, tokens, workspace) }?;
        self.decode.run(
            self.memory.stream(),
            &mut plan,
            DecodeArgs {
                q_latent: q_latent.tensor(dims)?,
                q_rope: q_pe.tensor([tokens, g.query_heads, g.rope_dim])?,
                cache: CacheView::new(self.config.layout, cache.view())?,
                o_latent: o_latent.view_mut(rows * g.latent_rank)?,
                lse: lse.view_mut(rows)?,
            },
        )?;
        Ok((self.memory.tensor(o_latent, &dims)?, self.memory.tensor(lse, &[tokens, g.query_heads])?))
    }

    /// Latents and rotated keys of tokens, side by side.
    pub fn gather(&self, cache: &Tensor, batch: &HostBatch, chunks: &Chunks) -> Result<Tensor> {
        let g = &self.config.geometry;
        let dims = [chunks.tokens(), 1, g.latent_rank + g.rope_width()];
        let len = dims.iter().product();
        let mut gathered = self.memory.allocate::<bf16>(len)?;
        let token_starts = self.memory.upload(&chunks.starts)?;
        let first_tokens = upload(&self.memory, &chunks.firsts)?;
        let (cache, on_device) = (self.memory.lend::<u8>("cache", cache)?, DeviceBatch::upload(&self.memory, batch)?);
        self.gather.run(
            self.memory.stream(),
            GatherArgs {
                cache: CacheView::new(self.config.layout, cache.view())?,
                batch: &on_device.batch()?,
                token_starts: token_starts.view(),
                first_tokens: Some(first_tokens.view().slice(..chunks.len())?),
                gathered: TensorMut::dense(gathered.view_mut(len)?, dims)?,
            },
        )?;
        self.memory.tensor(gathered, &[dims[0], dims[2]])
    }
}

/// A checked batch in device memory.
#[derive(Debug)]
struct DeviceBatch {
    query_starts: Owned<i32>,
    seq_lens: Owned<i32>,
    /// `[sequences, max_pages]`.
    table: Owned<i32>,
    sequences: usize,
    max_pages: usize,
    /// Page ids are below this.
    pages: usize,
}

impl DeviceBatch {
    fn upload(memory: &Memory, batch: &HostBatch) -> Result<Self> {
        let (sequences, (table, max_pages)) = (batch.sequences(), batch.table());
        Ok(Self {
            query_starts: upload(memory, sequences.query_starts)?,
            seq_lens: upload(memory, sequences.seq_lens)?,
            table: upload(memory, table)?,
            sequences: sequences.len(),
            max_pages,
            pages: batch.pages(),
        })
    }

    /// As operations take it.
    fn batch(&self) -> Result<Batch<'_>> {
        // Of none there is memory for one.
        let starts = self.query_starts.view().slice(..self.sequences + 1)?;
        let lens = self.seq_lens.view().slice(..self.sequences)?;
        let table = self.table.view().slice(..self.sequences * self.max_pages)?;
        let pages = Pages::Dense { table, max_pages: self.max_pages };
        // SAFETY: a `HostBatch` has been checked, for caches of so many pages, and nothing writes to its copies.
        Ok(unsafe { Batch::from_device(starts, lens, pages, self.pages) }?)
    }
}

/// A copy of numbers. Drivers refuse empty allocations: of none it is memory for one.
fn upload(memory: &Memory, numbers: &[i32]) -> Result<Owned<i32>> {
    if numbers.is_empty() { memory.allocate(1) } else { memory.upload(numbers) }
}
