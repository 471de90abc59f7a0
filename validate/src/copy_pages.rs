//! `copy_pages`: bytes.

use latent_attention::device::Device;
use latent_attention::ops::{CopyPages, CopyPagesArgs, CopyPagesConfig, DeviceCache};
use latent_attention::{Result, reference};

use crate::Validation;
use crate::case::{Case, Kind, Operation};
use crate::compare::Comparison;
use crate::draw::Draw;
use crate::rope_append::compare_cache;

pub(crate) const COPY_PAGES: Operation = Operation { kind: Kind::CopyPages, name: "copy-pages", inputs, run, check };

/// From some pages of a batch's cache to others, and to one page that is not there.
fn inputs(case: &mut Case, validation: &Validation, draw: &mut Draw) -> Result<()> {
    let batch = validation.batch(draw);
    let cache = batch.cache(draw, case.settings.layout()?, false)?;
    let pages = cache.pages() as i32;
    let mut ids: Vec<i32> = (0..pages).collect();
    draw.shuffle(&mut ids);
    let (sources, destinations) = ids.split_at(ids.len().div_ceil(2));
    let mut copies = vec![];
    for &destination in destinations {
        copies.push([sources[draw.below(sources.len() as u32) as usize], destination]);
    }
    copies.extend(sources.first().map(|&source| [source, pages]));
    case.put_cache("cache_before", &cache);
    case.tensors.put("copies", &[copies.len(), 2], copies.as_flattened());
    Ok(())
}

fn run(case: &mut Case, device: &Device) -> Result<()> {
    let before = case.cache("cache_before")?;
    let [count, _] = case.tensors.sizes("copies")?;
    let copies = case.tensors.upload(device, "copies", &[count, 2])?;
    let mut cache = DeviceCache::upload(device, &before)?;
    let mut counters = device.zeros(1)?;
    let operation = CopyPages::new(device, CopyPagesConfig::new(*before.layout()))?;
    operation.run(
        &device.stream()?,
        CopyPagesArgs { cache: cache.view_mut(), copies: copies.view(), counters: Some(counters.view_mut()) },
    )?;
    case.keep("counters", &[1], &counters)?;
    case.put_cache("cache", &cache.download()?);
    Ok(())
}

fn check(case: &Case) -> Result<Vec<Comparison>> {
    let counters = case.output::<u64>("counters", &[1])?;
    let mut cache = case.cache("cache_before")?;
    let [count, _] = case.tensors.sizes("copies")?;
    let copies: Vec<i32> = case.tensors.get("copies", &[count, 2])?;
    // The reference refuses what the kernel counts.
    let is_page = |id: &i32| usize::try_from(*id).is_ok_and(|id| id < cache.pages());
    let (copies, _) = copies.as_chunks::<2>();
    let there: Vec<[i32; 2]> = copies.iter().filter(|copy| copy.iter().all(is_page)).copied().collect();
    let refused = copies.len() - there.len();
    reference::copy_pages(&there, &mut cache)?;
    Ok(vec![compare_cache(case, &cache)?, counters.against(vec![refused as f64]).exact()])
}
