//! The kernels over what [`Memory`] makes of tensors, all of them checked already.

use candle_core::{Result, Tensor};
use half::bf16;

use super::memory::{Memory, Owned};
use super::plan::{Chunks, HostBatch, MlaPlan};
use crate::device::{TensorMut, View, ViewMut};
use crate::ops::{
    AbsorbConfig, AbsorbQuery, AbsorbQueryArgs, Batch, CacheView, CacheViewMut, Decode, DecodeArgs, DecodeConfig,
    ExpandOutput, ExpandOutputArgs, Gather, GatherArgs, GatherConfig, Pages, Plan, RopeAppend, RopeAppendArgs,
    RopeAppendConfig,
};
use crate::rope::Pairing;

/// The operations of a layer's shape, loaded.
#[derive(Debug)]
pub(super) struct Kernels {
    memory: Memory,
    config: DecodeConfig,
    append: RopeAppend,
    absorb: AbsorbQuery,
    decode: Decode,
    expand: ExpandOutput,
    gather: Gather,
}

/// A batch in device memory and how its attention is divided.
#[derive(Debug)]
pub(super) struct Division {
    // Before the memory that it borrows, so that it goes first.
    plan: Plan<'static>,
    _batch: DeviceBatch,
    _workspace: Owned<u8>,
}

impl Kernels {
    pub fn new(memory: Memory, config: &DecodeConfig) -> Result<Self> {
        let (device, g) = (memory.device(), &config.geometry.validate()?);
        // Engines rotate keys themselves, so that no dimensions are paired.
        let append = RopeAppendConfig::new(*g, config.layout, Pairing::Half);
        let absorb = AbsorbConfig::new(*g).with_policy(config.policy);
        Ok(Self {
            append: RopeAppend::new(device, append)?,
            absorb: AbsorbQuery::new(device, absorb)?,
            decode: Decode::new(device, *config)?,
            expand: ExpandOutput::new(device, absorb)?,
            gather: Gather::new(device, GatherConfig::new(config.layout))?,
            config: *config,
            memory,
        })
    }

    #[cfg(feature = "candle-cuda")]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// [`Kernels::append`] into a cache in host memory.
    pub fn append_on_host(&self, cache: &mut [u8], c_kv: &Tensor, k_pe: &Tensor, slots: &Tensor) -> Result<()> {
        let mut copy = self.memory.device().upload::<u8>(cache)?;
        self.append(copy.view_mut(), c_kv, k_pe, slots)?;
        cache.copy_from_slice(&copy.to_vec()?);
        Ok(())
    }

    pub fn append(&self, cache: ViewMut<u8>, c_kv: &Tensor, k_pe: &Tensor, slots: &Tensor) -> Result<()> {
        let (g, tokens) = (&self.config.geometry, slots.elem_count());
        let key_shape = [tokens, g.rope_heads, g.rope_dim];
        let (c_kv, k_pe) = (self.memory.lend::<bf16>("c_kv", c_kv)?, self.memory.lend::<bf16>("k_pe", k_pe)?);
        let slots = self.memory.lend::<i64>("slot_mapping", slots)?;
        Ok(self.append.run(
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
        let query_tokens = batch.sequences().query_tokens();
        let batch = DeviceBatch::upload(&self.memory, batch)?;
        let workspace = self.memory.allocate::<u8>(self.decode.workspace_bytes())?;
        // A view without a lifetime: `Division` keeps the workspace as long as the plan.
        let (address, len) = (workspace.view().address(), self.decode.workspace_bytes());
        let nobody: &'static mut [(); 0] = &mut [];
        // SAFETY: nothing but the plan uses the workspace, which has so many bytes and is dropped after it.
        let lasting = unsafe { ViewMut::borrow(self.memory.device(), address, len, nobody) };
        let plan = self.decode.plan(self.memory.stream(), &batch.batch, query_tokens, lasting)?;
        Ok(Division { plan, _batch: batch, _workspace: workspace })
    }

    pub fn attend(
        &self,
        q_latent: &Tensor,
        q_pe: &Tensor,
        cache: &Tensor,
        plan: &mut MlaPlan,
    ) -> Result<(Tensor, Tensor)> {
        let (g, tokens) = (&self.config.geometry, plan.query_tokens());
        let Some(division) = &mut plan.division else {
            let why = "was made by operations on CPU tensors".into();
            return Err(crate::Error::Config { what: "plan".into(), why }.into());
        };
        let (q_latent, q_pe) = (self.memory.lend("q_latent", q_latent)?, self.memory.lend("q_pe", q_pe)?);
        let cache = self.memory.lend::<u8>("cache", cache)?;
        let dims = [tokens, g.query_heads, g.latent_rank];
        let rows = tokens * g.query_heads;
        let mut o_latent = self.memory.allocate::<bf16>(rows * g.latent_rank)?;
        let mut lse = self.memory.allocate::<f32>(rows)?;
        self.decode.run(
            self.memory.stream(),
            &mut division.plan,
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
                batch: &on_device.batch,
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
    // Before the memory that it borrows, so that it goes first.
    batch: Batch<'static>,
    _memory: [Owned<i32>; 3],
}

impl DeviceBatch {
    fn upload(memory: &Memory, batch: &HostBatch) -> Result<Self> {
        let sequences = batch.sequences();
        let (table, max_pages) = batch.table();
        let upload = |numbers| upload(memory, numbers);
        let owned = [upload(sequences.query_starts)?, upload(sequences.seq_lens)?, upload(table)?];
        let lasting = |owned: &Owned<i32>, len: usize| {
            let address = owned.view().address();
            // SAFETY: `DeviceBatch` keeps the memory, which has so many numbers, as long as the batch.
            unsafe { View::borrow(memory.device(), address, len, &()) }
        };
        let starts = lasting(&owned[0], sequences.query_starts.len());
        let lens = lasting(&owned[1], sequences.seq_lens.len());
        let pages = Pages::Dense { table: lasting(&owned[2], table.len()), max_pages };
        // SAFETY: a `HostBatch` has been checked, for caches of so many pages.
        let batch = unsafe { Batch::from_device(starts, lens, pages, batch.pages()) }?;
        Ok(Self { batch, _memory: owned })
    }
}

/// A copy of numbers. Drivers refuse empty allocations: of none it is memory for one.
fn upload(memory: &Memory, numbers: &[i32]) -> Result<Owned<i32>> {
    if numbers.is_empty() { memory.allocate(1) } else { memory.upload(numbers) }
}
