//! `schedule`: number for number.

use latent_attention::device::Device;
use latent_attention::ops::{Schedule, ScheduleArgs, ScheduleConfig};
use latent_attention::reference::{balanced_split_tokens, schedule};
use latent_attention::{Result, sys};

use crate::Validation;
use crate::batch::RaggedBatch;
use crate::case::{Case, Kind, Operation};
use crate::compare::{Comparison, Output};
use crate::draw::Draw;

pub(crate) const SCHEDULE_BALANCED: Operation =
    Operation { kind: Kind::ScheduleBalanced, name: "schedule-balanced", inputs, run, check };

pub(crate) const SCHEDULE_FIXED: Operation =
    Operation { kind: Kind::ScheduleFixed, name: "schedule-fixed", ..SCHEDULE_BALANCED };

/// 32-bit words of a split.
const WORDS: usize = size_of::<sys::DecodeSplit>() / 4;

/// Of those, the ones that mean something: query token, row of the page table, first token, end, partial.
const USED_WORDS: usize = 5;

fn inputs(case: &mut Case, validation: &Validation, draw: &mut Draw) -> Result<()> {
    validation.batch(draw).put(&mut case.tensors);
    Ok(())
}

/// A batch without a cache: its page ids are not looked at.
fn batch(case: &Case) -> Result<RaggedBatch> {
    RaggedBatch::get(&case.tensors, case.settings.page_size, i32::MAX as usize)
}

fn config(case: &Case, batch: &RaggedBatch) -> ScheduleConfig {
    let s = &case.settings;
    let (tokens, longest) = (batch.query_tokens(), batch.longest().max(1));
    ScheduleConfig::new(s.policy(), tokens.max(1), longest, s.page_size, s.tile_tokens, s.target_items)
}

fn run(case: &mut Case, device: &Device) -> Result<()> {
    let batch = batch(case)?;
    let (t, config) = (batch.query_tokens(), config(case, &batch));
    let operation = Schedule::new(device, config)?;
    let buffers = batch.upload(device, &case.settings.layout()?, i32::MAX as usize)?;
    let mut splits = device.zeros(config.max_batch_splits(t) * WORDS)?;
    let (mut split_count, mut split_starts) = (device.zeros(1)?, device.zeros(t + 1)?);
    let mut merges = device.zeros(0)?;
    operation.run(
        &device.stream()?,
        ScheduleArgs {
            batch: &buffers.batch(),
            query_tokens: t,
            splits: splits.view_mut(),
            split_count: split_count.view_mut(),
            split_starts: split_starts.view_mut(),
            merges: merges.view_mut(),
        },
    )?;
    case.keep("items", &[config.max_batch_splits(t), WORDS], &splits)?;
    case.keep("item_count", &[1], &split_count)?;
    case.keep("split_starts", &[t + 1], &split_starts)
}

fn check(case: &Case) -> Result<Vec<Comparison>> {
    let batch = batch(case)?;
    let t = batch.query_tokens();
    // In files, splits are called items.
    let (split_count, split_starts) =
        (case.output::<u32>("item_count", &[1])?, case.output::<i32>("split_starts", &[t + 1])?);
    let config = config(case, &batch);
    config.check()?;
    let found: Vec<u32> = case.tensors.get("items", &[config.max_batch_splits(t), WORDS])?;

    let places = batch.query_places();
    let seen: Vec<usize> = places.iter().map(|place| place.map_or(0, |place| place.token + 1)).collect();
    let split_tokens = case
        .settings
        .fixed_tokens
        .unwrap_or_else(|| balanced_split_tokens(&seen, config.tile_tokens, config.target_splits, &config.costs));
    let splits = schedule(&seen, split_tokens);
    let mut want = Vec::with_capacity(splits.len() * USED_WORDS);
    for (split, words) in splits.iter().zip(found.chunks_exact(WORDS)) {
        // The row of a split without tokens is not read, whatever it is.
        let row = places[split.query].map_or(f64::from(words[1]), |place| (place.sequence * batch.max_pages()) as f64);
        let partial = split.partial.map_or(-1.0, |partial| partial as f64);
        want.extend([split.query as f64, row, split.tokens.start as f64, split.tokens.end as f64, partial]);
    }
    let rows = want.len() / USED_WORDS;
    let got = found.chunks_exact(WORDS).take(rows).flat_map(|words| {
        let [query, row, first, end, partial] = [words[0], words[1], words[2], words[3], words[4]];
        [query, row, first, end].map(f64::from).into_iter().chain([f64::from(partial.cast_signed())])
    });
    let found =
        Output { case: case.kind().name(), name: "items", shape: vec![rows, USED_WORDS], got: got.collect(), want };
    let mut starts = vec![0.0; t + 1];
    for split in splits.iter().filter(|split| split.partial.is_some()) {
        starts[split.query + 1] += 1.0;
    }
    (0..t).for_each(|query| starts[query + 1] += starts[query]);
    Ok(vec![
        found.exact(),
        split_count.against(vec![splits.len() as f64]).exact(),
        split_starts.against(starts).exact(),
    ])
}
