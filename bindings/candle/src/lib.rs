//! The operations over candle's tensors, under the names that engines already call them by.
//!
//! An engine's MLA layer is four calls between its own matrix products: store the new tokens, absorb the query, attend,
//! expand. [`Mla`] has them, made once for all layers of the same shape. It runs CPU tensors through
//! [`Device::cpu`](latent_attention::device::Device::cpu), in place, and CUDA tensors (feature `cuda`) through the kernels, on
//! candle's own stream. [`Mla::reference`] runs CPU tensors through the f64
//! [`reference`](mod@latent_attention::reference), for validation, and [`Mla::simulated`] through the CUDA kernels, on the
//! simulator: what tests of the CUDA path need where there is no GPU.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use latent_attention::Geometry;
//! use latent_attention::cache::{CacheFormat, CacheLayout};
//! use latent_attention::ops::DecodeConfig;
//! use latent_attention_candle::Mla;
//!
//! let geometry = Geometry::deepseek(4, 32, 8, 16, 16)?; // 4 heads, latent of 32, shared rotated key of 8
//! let layout = CacheLayout::new(&geometry, CacheFormat::INT4, 16)?; // pages of 16 tokens
//! let scale = geometry.default_scale() as f32;
//! let mla = Mla::new(&Device::Cpu, DecodeConfig::new(geometry, layout, scale, 64, 4096))?;
//!
//! let random = |dims: &[usize]| Tensor::randn(0f32, 1.0, dims, &Device::Cpu);
//! let (up_key, up_value) = (random(&[4, 16, 32])?, random(&[4, 16, 32])?);
//! let cache = mla.new_cache(8)?; // u8 [8 pages, bytes of a page]
//!
//! // Two sequences' only tokens go to the first slots of pages 3 and 5; then each sequence attends to itself.
//! let slot_mapping = Tensor::new(&[3 * 16i64, 5 * 16], &Device::Cpu)?;
//! mla.concat_and_cache_mla(&random(&[2, 32])?, &random(&[2, 8])?, &cache, &slot_mapping)?;
//! let q_latent = mla.absorb_query(&random(&[2, 4, 16])?, &up_key)?;
//! let block_tables = Tensor::new(&[[3u32], [5]], &Device::Cpu)?;
//! let context_lens = Tensor::new(&[1u32, 1], &Device::Cpu)?;
//! let (o_latent, _lse) = mla.mla_decode(&q_latent, &random(&[2, 4, 8])?, &cache, &block_tables, &context_lens)?;
//! let out = mla.expand_output(&o_latent, &up_value, None)?;
//! assert_eq!((out.dims(), out.dtype()), (&[2, 4, 16][..], DType::F32));
//! # Ok::<(), latent_attention_candle::Error>(())
//! ```
//!
//! | | CPU tensors | CUDA tensors, and the simulator |
//! |---|---|---|
//! | queries, keys, latents, weights | f64, f32, bf16 or f16; results in the query's type | bf16 |
//! | they are computed with as | bf16, other types are rounded to it at each call; by the reference as f64 | bf16 |
//! | `lse` | f32 | f32 |
//! | value bias | any of these | f32 |
//! | [`gather_mla_cache`](Mla::gather_mla_cache) returns | f32 | bf16 |
//! | a slot that is not in the cache | an error | skipped |
//!
//! No gradients flow through any of it.

mod backend;
mod batch;
mod check;
#[cfg(feature = "cuda")]
mod cuda;
mod error;
mod host;
mod kernels;
mod memory;
mod plan;
mod store;

use candle_core::{DType, Device, Tensor};
use latent_attention::ops::DecodeConfig;

use crate::backend::{Backend, as_read};
use crate::batch::HostBatch;
use crate::error::refused;
pub use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::memory::Memory;
pub use crate::plan::MlaPlan;
use crate::store::Store;

/// The program in the guide is compiled with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/candle.md")]
struct Guide;

/// Latent attention over candle's tensors, for all layers of one shape on one device.
///
/// Shapes: T query tokens, B sequences; the other letters are those of [`Geometry`](latent_attention::Geometry). Slices of
/// wider tensors will do where the last dimension is dense; only the cache must be contiguous. Every error names the
/// tensor.
#[derive(Debug)]
pub struct Mla {
    config: DecodeConfig,
    device: Device,
    backend: Backend,
}

impl Mla {
    /// Operations on candle's device. On a GPU, loads the kernels: make it once. On the CPU they work on rayon's global pool
    /// of threads, as candle's own do.
    ///
    /// # Errors
    /// If sizes do not fit together; on a device that is neither the CPU nor, with feature `cuda`, a GPU; what
    /// loading kernels, or [`Device::cpu`](latent_attention::device::Device::cpu), says.
    pub fn new(device: &Device, config: DecodeConfig) -> candle_core::Result<Self> {
        let backend = match device {
            Device::Cpu => Backend::Kernels(Box::new(Kernels::new(Memory::host()?, &config)?)),
            #[cfg(feature = "cuda")]
            Device::Cuda(cuda) => Backend::Kernels(Box::new(Kernels::new(Memory::cuda(cuda)?, &config)?)),
            other => {
                let what = if other.is_cuda() { "CUDA" } else { "Metal" };
                let why = "the device must be the CPU or, in a build with feature `cuda`, a CUDA device";
                return Err(refused(what, why).into());
            }
        };
        Ok(Self::with_backend(device, config, backend)?)
    }

    /// Operations on CPU tensors by the f64 [`reference`](mod@latent_attention::reference): exact, slow, for validation.
    ///
    /// # Errors
    /// If sizes do not fit together.
    pub fn reference(config: DecodeConfig) -> candle_core::Result<Self> {
        Ok(Self::with_backend(&Device::Cpu, config, Backend::Reference)?)
    }

    /// Operations on CPU tensors by the kernels, on the simulator: the results that a GPU gives, up to the order of
    /// sums, and an error where a kernel does something wrong. It copies the whole cache in and out at each call.
    ///
    /// # Errors
    /// As [`Mla::new`]; without kernels in the build, [`latent_attention::Error::NoKernelImage`]'s message.
    pub fn simulated(config: DecodeConfig) -> candle_core::Result<Self> {
        let memory = Memory::simulated(latent_attention::device::Device::simulated())?;
        Ok(Self::with_backend(&Device::Cpu, config, Backend::Kernels(Box::new(Kernels::new(memory, &config)?)))?)
    }

    fn with_backend(device: &Device, config: DecodeConfig, backend: Backend) -> Result<Self> {
        config.check()?;
        Ok(Self { config, device: device.clone(), backend })
    }

    /// What it was made for.
    #[must_use]
    pub fn config(&self) -> &DecodeConfig {
        &self.config
    }

    /// An empty cache for one layer: zeros, u8 `[pages, page_bytes]`, its bytes as
    /// [`cache`](latent_attention::cache) says.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new_cache(&self, pages: usize) -> candle_core::Result<Tensor> {
        Tensor::zeros((pages, self.config.layout.page_bytes()), DType::U8, &self.device)
    }

    /// Quantises new tokens and writes them into the cache, in place.
    ///
    /// `c_kv` `[T, L]` is the latent as it is to be cached (after its norm), `k_pe` `[T, Gr*R]` or `[T, Gr, R]` the
    /// *rotated* key, `slot_mapping` i64 `[T]` where each goes: `page * page_size + offset`, negative for nowhere.
    ///
    /// # Errors
    /// If a tensor does not fit. On the CPU also if a slot is not in the cache, or two tokens share one; nothing is
    /// written then.
    pub fn concat_and_cache_mla(
        &self,
        c_kv: &Tensor,
        k_pe: &Tensor,
        cache: &Tensor,
        slot_mapping: &Tensor,
    ) -> candle_core::Result<()> {
        let (g, tokens) = (&self.config.geometry, ("tokens", check::rows("slot_mapping", slot_mapping)?));
        self.check_cache(cache)?;
        self.floats("c_kv", c_kv, &[tokens, ("latent", g.latent_rank)])?;
        match k_pe.rank() {
            3 => self.floats("k_pe", k_pe, &[tokens, ("rope heads", g.rope_heads), ("rope", g.rope_dim)])?,
            _ => self.floats("k_pe", k_pe, &[tokens, ("rope heads x rope", g.rope_width())])?,
        }
        check::device("slot_mapping", slot_mapping, &self.device)?;
        check::dtype("slot_mapping", slot_mapping, &[DType::I64])?;
        check::shape("slot_mapping", slot_mapping, &[tokens])?;
        if tokens.1 == 0 {
            return Ok(());
        }
        let (c_kv, k_pe) = match &self.backend {
            Backend::Reference => (c_kv.clone(), k_pe.clone()),
            Backend::Kernels(_) => (as_read(c_kv)?, as_read(k_pe)?),
        };
        let (backend, layout) = (&self.backend, &self.config.layout);
        cache.inplace_op1(&Store { backend, layout, c_kv: &c_kv, k_pe: &k_pe, slot_mapping })
    }

    /// `q_latent[t, h] = W_UK[g]^T q_nope[t, h]`: `[T, H, Dn]` and `up_key` `[G, Dn, L]` to `[T, H, L]`.
    ///
    /// # Errors
    /// If a tensor does not fit.
    pub fn absorb_query(&self, q_nope: &Tensor, up_key: &Tensor) -> candle_core::Result<Tensor> {
        let (g, tokens) = (&self.config.geometry, check::rows("q_nope", q_nope)?);
        let (nope, latent) = (("nope", g.nope_dim), ("latent", g.latent_rank));
        self.floats("q_nope", q_nope, &[("tokens", tokens), ("query heads", g.query_heads), nope])?;
        self.floats("up_key", up_key, &[("kv heads", g.kv_heads), nope, latent])?;
        match &self.backend {
            Backend::Reference => Ok(host::absorb_query(g, q_nope, up_key)?),
            Backend::Kernels(kernels) => {
                kernels.absorb_query(&as_read(q_nope)?, &as_read(up_key)?)?.to_dtype(q_nope.dtype())
            }
        }
    }

    /// Checks a step's batch and divides its work, once for all layers.
    ///
    /// `block_tables` `[B, pages]` and `context_lens` `[B]`, i32 or u32, on any device, are as engines have them:
    /// lengths count the tokens just stored, entries past a sequence's last page may hold anything. `query_lens` says
    /// how many query tokens each sequence has, its last ones, causal among themselves; `None`: one each. Caches have
    /// (at least) `pages` pages.
    ///
    /// The numbers are read on the host, which waits for a GPU if they are on one; the [`ops`](latent_attention::ops)
    /// below, which CUDA graphs can capture, leave them on the device and unchecked.
    ///
    /// # Errors
    /// If a tensor does not fit, or a length or page id is out of range.
    pub fn plan(
        &self,
        block_tables: &Tensor,
        context_lens: &Tensor,
        query_lens: Option<&[usize]>,
        pages: usize,
    ) -> candle_core::Result<MlaPlan> {
        let lens = batch::context_lens(&self.config, context_lens)?;
        let starts = match query_lens {
            Some(lens) => batch::query_starts(&self.config, lens),
            None => batch::query_starts(&self.config, &vec![1; lens.len()]),
        }?;
        let batch = HostBatch::new(&self.config, block_tables, lens, starts, pages)?;
        Ok(MlaPlan {
            config: self.config,
            division: match &self.backend {
                Backend::Reference => None,
                Backend::Kernels(kernels) => Some(kernels.divide(&batch)?),
            },
            batch,
        })
    }

    /// Attends in the latent space: `q_latent` `[T, H, L]` and the rotated `q_pe` `[T, H, R]` to `o_latent` `[T, H, L]`
    /// and `lse` `[T, H]`, the natural logarithm of the sum of `exp(score)`. Zeros and minus infinity where a query
    /// sees no token.
    ///
    /// # Errors
    /// If a tensor does not fit, or the plan was made by operations of another configuration.
    pub fn attend(
        &self,
        q_latent: &Tensor,
        q_pe: &Tensor,
        cache: &Tensor,
        plan: &mut MlaPlan,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        if plan.config != self.config {
            return Err(refused("plan", "was made by operations of another configuration").into());
        }
        let (g, rows) = (&self.config.geometry, ("query tokens", plan.query_tokens()));
        let heads = ("query heads", g.query_heads);
        self.floats("q_latent", q_latent, &[rows, heads, ("latent", g.latent_rank)])?;
        self.floats("q_pe", q_pe, &[rows, heads, ("rope", g.rope_dim)])?;
        plan.batch.check_cache(self.check_cache(cache)?)?;
        match (&self.backend, &mut plan.division) {
            (Backend::Reference, _) => Ok(host::attend(&self.config, q_latent, q_pe, cache, &plan.batch)?),
            (Backend::Kernels(kernels), Some(division)) => {
                let (o_latent, lse) = kernels.attend(&as_read(q_latent)?, &as_read(q_pe)?, cache, division)?;
                Ok((o_latent.to_dtype(q_latent.dtype())?, lse))
            }
            (Backend::Kernels(_), None) => Err(refused("plan", "was made by the reference").into()),
        }
    }

    /// [`plan`](Mla::plan) and [`attend`](Mla::attend) in one, for one query token per sequence and one layer.
    ///
    /// # Errors
    /// As both.
    pub fn mla_decode(
        &self,
        q_latent: &Tensor,
        q_pe: &Tensor,
        cache: &Tensor,
        block_tables: &Tensor,
        context_lens: &Tensor,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let mut plan = self.plan(block_tables, context_lens, None, self.check_cache(cache)?)?;
        self.attend(q_latent, q_pe, cache, &mut plan)
    }

    /// `out[t, h] = W_UV[g] o_latent[t, h] + bias[g]`: `[T, H, L]`, `up_value` `[G, Dv, L]` and `value_bias` `[G, Dv]` to
    /// `[T, H, Dv]`.
    ///
    /// # Errors
    /// If a tensor does not fit.
    pub fn expand_output(
        &self,
        o_latent: &Tensor,
        up_value: &Tensor,
        value_bias: Option<&Tensor>,
    ) -> candle_core::Result<Tensor> {
        let (g, tokens) = (&self.config.geometry, check::rows("o_latent", o_latent)?);
        let (kv_heads, value, latent) = (("kv heads", g.kv_heads), ("value", g.value_dim), ("latent", g.latent_rank));
        self.floats("o_latent", o_latent, &[("tokens", tokens), ("query heads", g.query_heads), latent])?;
        self.floats("up_value", up_value, &[kv_heads, value, latent])?;
        if let Some(bias) = value_bias {
            check::device("value_bias", bias, &self.device)?;
            check::dtype("value_bias", bias, self.backend.types(&[DType::F32]))?;
            check::shape("value_bias", bias, &[kv_heads, value])?;
        }
        match &self.backend {
            Backend::Reference => Ok(host::expand_output(g, o_latent, up_value, value_bias)?),
            Backend::Kernels(kernels) => {
                let bias = value_bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?;
                let out = kernels.expand_output(&as_read(o_latent)?, &as_read(up_value)?, bias.as_ref())?;
                out.to_dtype(o_latent.dtype())
            }
        }
    }

    /// Dequantised latents `[S, L]` and rotated keys `[S, Gr*R]` of S tokens of a batch, sequence after sequence: what
    /// a prefill over a cached prefix reads. They are slices of one tensor `[S, L + Gr*R]`.
    ///
    /// `block_tables` is as for [`plan`](Mla::plan), `cu_seq_lens` `[B + 1]`, i32 or u32, holds the prefix sums of the
    /// numbers of tokens, from 0 to S. `seq_starts` `[B]`, i32 or u32, says at which of its tokens each sequence
    /// begins, where a chunk of a long prefix is gathered; `None`: at the first. All are read on the host.
    ///
    /// # Errors
    /// If a tensor does not fit, or a length or page id is out of range.
    pub fn gather_mla_cache(
        &self,
        cache: &Tensor,
        block_tables: &Tensor,
        cu_seq_lens: &Tensor,
        seq_starts: Option<&Tensor>,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let pages = self.check_cache(cache)?;
        let chunks = batch::chunks(cu_seq_lens, seq_starts)?;
        let no_queries = vec![0; chunks.len() + 1];
        let batch = HostBatch::new(&self.config, block_tables, chunks.ends(), no_queries, pages)?;
        let gathered = match &self.backend {
            Backend::Reference => host::gather(&self.config.layout, cache, &batch, &chunks),
            Backend::Kernels(kernels) => kernels.gather(cache, &batch, &chunks),
        }?;
        let gathered = if self.backend.is_on_host() { gathered.to_dtype(DType::F32)? } else { gathered };
        let g = &self.config.geometry;
        Ok((gathered.narrow(1, 0, g.latent_rank)?, gathered.narrow(1, g.latent_rank, g.rope_width())?))
    }

    /// Checks a cache and returns its number of pages.
    fn check_cache(&self, cache: &Tensor) -> Result<usize> {
        let pages = ("pages", check::rows("cache", cache)?);
        check::device("cache", cache, &self.device)?;
        check::dtype("cache", cache, &[DType::U8])?;
        check::shape("cache", cache, &[pages, ("page bytes", self.config.layout.page_bytes())])?;
        check::contiguous("cache", cache)?;
        Ok(pages.1)
    }

    /// Checks a tensor of numbers.
    fn floats(&self, what: &'static str, tensor: &Tensor, dims: &[(&str, usize)]) -> Result<()> {
        check::device(what, tensor, &self.device)?;
        check::dtype(what, tensor, self.backend.types(&[DType::BF16]))?;
        check::shape(what, tensor, dims)
    }
}
