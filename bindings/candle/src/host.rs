//! CPU tensors, through the f64 reference.

use std::collections::HashSet;

use candle_core::{DType, Device, Storage, Tensor};
use latent_attention::cache::{CacheLayout, PageTable, PagedCache, Sequences};
use latent_attention::ops::DecodeConfig;
use latent_attention::{Error, Geometry, reference};

use crate::batch::{Chunks, HostBatch};
use crate::error::{Result, refused};

/// Writes tokens whose keys are rotated already into their slots, if all of them are slots.
pub(crate) fn rope_append(
    layout: &CacheLayout,
    cache: &mut [u8],
    c_kv: &Tensor,
    k_pe: &Tensor,
    slots: &Tensor,
) -> Result<()> {
    let (page_size, page_bytes) = (layout.page_size(), layout.page_bytes());
    let slots = check_slots(layout, cache, slots)?;
    let (latents, keys) = (f32s(c_kv)?, f32s(k_pe)?);
    for (t, &slot) in slots.iter().enumerate() {
        let Ok(slot) = usize::try_from(slot) else { continue };
        let page = &mut cache[slot / page_size * page_bytes..][..page_bytes];
        let mut written = PagedCache::from_bytes(*layout, page.to_vec())?;
        let (latent, key) = (row(&latents, t, layout.latent_rank()), row(&keys, t, layout.rope_width()));
        written.write(slot % page_size, latent, key)?;
        page.copy_from_slice(written.bytes());
    }
    Ok(())
}

/// The slots, if each of them is negative or a slot of the cache's, and no two are the same.
pub(crate) fn check_slots(layout: &CacheLayout, cache: &[u8], slots: &Tensor) -> Result<Vec<i64>> {
    let (slots, count) = (slots.to_vec1::<i64>()?, cache.len() / layout.page_bytes() * layout.page_size());
    let mut seen = HashSet::new();
    for (i, &slot) in slots.iter().enumerate().filter(|(_, slot)| **slot >= 0) {
        if usize::try_from(slot).map_or(true, |slot| slot >= count) {
            let bound = format!("negative or 0..{count} slots");
            return Err(Error::Index { what: format!("slot_mapping [{i}]"), got: slot, bound }.into());
        }
        if !seen.insert(slot) {
            return Err(refused(format!("slot {slot}"), "two tokens of one step cannot share a slot"));
        }
    }
    Ok(slots)
}

/// [`reference::absorb_query`] in the query's type.
pub(crate) fn absorb_query(g: &Geometry, q_nope: &Tensor, up_key: &Tensor) -> Result<Tensor> {
    let tokens = q_nope.dim(0)?;
    let q_latent = reference::absorb_query(g, &f32s(up_key)?, &f64s(q_nope)?, tokens)?;
    tensor(q_latent, &[tokens, g.query_heads, g.latent_rank], q_nope.dtype())
}

/// [`reference::decode`], the output in the query's type.
pub(crate) fn attend(
    config: &DecodeConfig,
    q_latent: &Tensor,
    q_pe: &Tensor,
    cache: &Tensor,
    batch: &HostBatch,
) -> Result<(Tensor, Tensor)> {
    let g = &config.geometry;
    let pages = UsedPages::copy(&config.layout, cache, batch)?;
    let inputs = reference::DecodeInputs {
        geometry: g,
        q_latent: &f64s(q_latent)?,
        q_rope: &f64s(q_pe)?,
        scale: config.scale.into(),
        sequences: pages.sequences(batch),
    };
    let attended = reference::decode(&inputs, &pages.cache)?;
    let tokens = q_latent.dim(0)?;
    let o_latent = tensor(attended.o_latent, &[tokens, g.query_heads, g.latent_rank], q_latent.dtype())?;
    Ok((o_latent, tensor(attended.lse, &[tokens, g.query_heads], DType::F32)?))
}

/// [`reference::expand_output`] in the latents' type.
pub(crate) fn expand_output(
    g: &Geometry,
    o_latent: &Tensor,
    up_value: &Tensor,
    value_bias: Option<&Tensor>,
) -> Result<Tensor> {
    let tokens = o_latent.dim(0)?;
    let bias = value_bias.map(f32s).transpose()?;
    let out = reference::expand_output(g, &f32s(up_value)?, bias.as_deref(), &f64s(o_latent)?, tokens)?;
    tensor(out, &[tokens, g.query_heads, g.value_dim], o_latent.dtype())
}

/// Latents and rotated keys of tokens, side by side.
pub(crate) fn gather(layout: &CacheLayout, cache: &Tensor, batch: &HostBatch, chunks: &Chunks) -> Result<Tensor> {
    let pages = UsedPages::copy(layout, cache, batch)?;
    let gathered = reference::gather(&pages.sequences(batch), Some(&chunks.ranges()), &pages.cache)?;
    tensor(gathered, &[chunks.tokens(), layout.latent_rank() + layout.rope_width()], DType::F32)
}

/// A copy of those pages only that a batch reaches, which its attention reads anyway: engines' caches are large.
struct UsedPages {
    cache: PagedCache,
    indptr: Vec<i32>,
    indices: Vec<i32>,
}

impl UsedPages {
    fn copy(layout: &CacheLayout, cache: &Tensor, batch: &HostBatch) -> Result<Self> {
        let (storage, place) = cache.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { return Err(refused("cache", "is not on the CPU")) };
        let bytes = &storage.as_slice::<u8>()?[place.start_offset()..];
        let (mut used, mut indptr) = (Vec::new(), vec![0]);
        for sequence in 0..batch.sequences().len() {
            for &page in batch.used_pages(sequence, layout.page_size()) {
                used.extend_from_slice(&bytes[page as usize * layout.page_bytes()..][..layout.page_bytes()]);
            }
            indptr.push((used.len() / layout.page_bytes()) as i32);
        }
        let indices = (0..indptr[indptr.len() - 1]).collect();
        Ok(Self { cache: PagedCache::from_bytes(*layout, used)?, indptr, indices })
    }

    /// The batch over the copied pages.
    fn sequences<'a>(&'a self, batch: &'a HostBatch) -> Sequences<'a> {
        Sequences { pages: PageTable::Csr { indptr: &self.indptr, indices: &self.indices }, ..batch.sequences() }
    }
}

fn row(values: &[f32], index: usize, len: usize) -> &[f32] {
    &values[index * len..][..len]
}

fn f64s(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

fn f32s(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// The numbers as a tensor, each rounded once.
fn tensor(values: Vec<f64>, dims: &[usize], dtype: DType) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, dims, &Device::Cpu)?.to_dtype(dtype)?)
}
