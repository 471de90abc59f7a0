//! `gather`: bits.

use std::ops::Range;

use half::bf16;
use latent_attention::device::{Device, TensorMut};
use latent_attention::ops::{DeviceCache, Gather, GatherArgs, GatherConfig};
use latent_attention::{Error, Result, reference};

use crate::Validation;
use crate::batch::RaggedBatch;
use crate::case::{Case, Kind, Operation};
use crate::compare::Comparison;
use crate::draw::Draw;
use crate::tensors::wide;

pub(crate) const GATHER: Operation = Operation { kind: Kind::Gather, name: "gather", inputs, run, check };

/// Of each sequence a chunk: from a token on, all that follow.
fn inputs(case: &mut Case, validation: &Validation, draw: &mut Draw) -> Result<()> {
    let layout = case.settings.layout()?;
    let batch = validation.batch(draw);
    let cache = batch.cache(draw, layout, false)?;
    let firsts: Vec<i32> = batch.lens().map(|len| draw.below(len as u32 + 1) as i32).collect();
    let mut starts = vec![0];
    for (len, &first) in batch.lens().zip(&firsts) {
        starts.push(starts[starts.len() - 1] + len as i32 - first);
    }
    batch.put(&mut case.tensors);
    case.put_cache("cache", &cache);
    case.tensors.put("first_tokens", &[firsts.len()], &firsts);
    case.tensors.put("token_starts", &[starts.len()], &starts);
    Ok(())
}

fn run(case: &mut Case, device: &Device) -> Result<()> {
    let (cache, tensors) = (case.cache("cache")?, &case.tensors);
    let batch = RaggedBatch::get(tensors, case.settings.page_size, cache.pages())?;
    let ranges = ranges(case, &batch)?;
    let [tokens, width] = sizes(case, &ranges);
    let operation = Gather::new(device, GatherConfig::new(*cache.layout()))?;
    let buffers = batch.upload(device, cache.layout(), cache.pages())?;
    let cache = DeviceCache::upload(device, &cache)?;
    let token_starts = tensors.upload(device, "token_starts", &[ranges.len() + 1])?;
    let first_tokens = tensors.upload(device, "first_tokens", &[ranges.len()])?;
    let mut gathered = device.upload(&vec![bf16::NAN; tokens * width])?;
    operation.run(
        &device.stream()?,
        GatherArgs {
            cache: cache.view(),
            batch: &buffers.batch(),
            token_starts: token_starts.view(),
            first_tokens: Some(first_tokens.view()),
            gathered: TensorMut::dense(gathered.view_mut(), [tokens, 1, width])?,
        },
    )?;
    case.keep("gathered", &[tokens, width], &gathered)
}

fn check(case: &Case) -> Result<Vec<Comparison>> {
    let cache = case.cache("cache")?;
    let batch = RaggedBatch::get(&case.tensors, case.settings.page_size, cache.pages())?;
    let ranges = ranges(case, &batch)?;
    let gathered = case.output::<bf16>("gathered", &sizes(case, &ranges))?;
    let exact = reference::gather(&batch.sequences(), Some(&ranges), &cache)?;
    let rounded: Vec<bf16> = exact.into_iter().map(|number| bf16::from_f32(number as f32)).collect();
    Ok(vec![gathered.against(wide(&rounded)).exact()])
}

/// Which tokens of each sequence are gathered.
///
/// # Errors
/// [`Error::Config`] if the starts do not ascend from 0, or a sequence has no such tokens: rows of no token, which the
/// operation makes zeros, are not validated.
fn ranges(case: &Case, batch: &RaggedBatch) -> Result<Vec<Range<usize>>> {
    let (tensors, sequences) = (&case.tensors, batch.lens().count());
    let starts: Vec<i32> = tensors.get("token_starts", &[sequences + 1])?;
    let firsts: Vec<i32> = tensors.get("first_tokens", &[sequences])?;
    let range = |((starts, &first), len): ((&[i32], &i32), usize)| {
        let count = usize::try_from(starts[1].checked_sub(starts[0])?).ok()?;
        let first = usize::try_from(first).ok()?;
        (first.checked_add(count)? <= len).then(|| first..first + count)
    };
    let ranges: Option<Vec<_>> = starts.windows(2).zip(&firsts).zip(batch.lens()).map(range).collect();
    ranges.filter(|_| starts[0] == 0).ok_or_else(|| Error::Config {
        what: format!("token_starts and first_tokens in {}", tensors.source().display()),
        why: format!("expected ascending starts from 0 and tokens of the sequences, got {starts:?} and {firsts:?}"),
    })
}

/// Of the output.
fn sizes(case: &Case, ranges: &[Range<usize>]) -> [usize; 2] {
    let g = case.geometry();
    [ranges.iter().map(ExactSizeIterator::len).sum(), g.latent_rank + g.rope_width()]
}
