//! Writing into a cache that is a candle tensor.

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor};
use latent_attention::cache::CacheLayout;

use crate::backend::Backend;
use crate::error::refused;
use crate::host;

/// Tokens on their way into the cache, all checked. In place is candle's word for it: the tensor, and every other that
/// shares its storage, holds them afterwards.
pub(crate) struct Store<'a> {
    pub backend: &'a Backend,
    pub layout: &'a CacheLayout,
    pub c_kv: &'a Tensor,
    pub k_pe: &'a Tensor,
    pub slot_mapping: &'a Tensor,
}

impl InplaceOp1 for Store<'_> {
    fn name(&self) -> &'static str {
        "concat_and_cache_mla"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::U8(bytes), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            return Err(refused("cache", "is not a contiguous tensor of u8").into());
        };
        let cache = &mut bytes[start..end];
        match self.backend {
            Backend::Reference => host::rope_append(self.layout, cache, self.c_kv, self.k_pe, self.slot_mapping)?,
            Backend::Kernels(kernels) => {
                if kernels.memory().is_host() {
                    host::check_slots(self.layout, cache, self.slot_mapping)?;
                }
                kernels.rope_append_on_host(cache, self.c_kv, self.k_pe, self.slot_mapping)?;
            }
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &mut candle_core::CudaStorage, layout: &Layout) -> Result<()> {
        let (Backend::Kernels(kernels), Some((start, end))) = (self.backend, layout.contiguous_offsets()) else {
            return Err(refused("cache", "is not a contiguous tensor of a GPU's").into());
        };
        let cache = kernels.memory().borrow_mut(storage, start, end - start)?;
        Ok(kernels.rope_append(cache, self.c_kv, self.k_pe, self.slot_mapping)?)
    }
}
