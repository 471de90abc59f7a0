//! Writing into a cache that is a candle tensor.

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor};

use super::{Backend, Mla, host, refused};

/// Tokens on their way into the cache, all checked. In place is candle's word for it: the tensor, and every other that
/// shares its storage, holds them afterwards.
pub(super) struct Store<'a> {
    pub mla: &'a Mla,
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
            return Err(refused("cache", "is not a contiguous tensor of u8"));
        };
        let cache = &mut bytes[start..end];
        match &self.mla.backend {
            Backend::Reference => host::append(&self.mla.config.layout, cache, self.c_kv, self.k_pe, self.slot_mapping),
            Backend::Kernels(kernels) => kernels.append_on_host(cache, self.c_kv, self.k_pe, self.slot_mapping),
        }
    }

    #[cfg(feature = "candle-cuda")]
    fn cuda_fwd(&self, storage: &mut candle_core::CudaStorage, layout: &Layout) -> Result<()> {
        let (Backend::Kernels(kernels), Some((start, end))) = (&self.mla.backend, layout.contiguous_offsets()) else {
            return Err(refused("cache", "is not a contiguous tensor of a GPU's"));
        };
        let cache = kernels.memory().borrow_mut(storage, start, end - start)?;
        kernels.append(cache, self.c_kv, self.k_pe, self.slot_mapping)
    }
}
