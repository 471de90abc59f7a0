//! `schedule`: number for number.

use latent_attention::device::Device;
use latent_attention::ops::{Schedule, ScheduleArgs, ScheduleConfig};
use latent_attention::reference::{balanced_piece, schedule};
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

/// 32-bit words of an item.
const WORDS: usize = size_of::<sys::DecodeItem>() / 4;

/// Of those, the ones that mean something: query token, row of the page table, first token, end, slot.
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
    let mut items = device.zeros(config.max_items(t) * WORDS)?;
    let (mut item_count, mut split_starts) = (device.zeros(1)?, device.zeros(t + 1)?);
    operation.run(
        &device.stream()?,
        ScheduleArgs {
            batch: &buffers.batch(),
            query_tokens: t,
            items: items.view_mut(),
            item_count: item_count.view_mut(),
            split_starts: split_starts.view_mut(),
        },
    )?;
    case.keep("items", &[config.max_items(t), WORDS], &items)?;
    case.keep("item_count", &[1], &item_count)?;
    case.keep("split_starts", &[t + 1], &split_starts)
}

fn check(case: &Case) -> Result<Vec<Comparison>> {
    let batch = batch(case)?;
    let t = batch.query_tokens();
    let (item_count, split_starts) =
        (case.output::<u32>("item_count", &[1])?, case.output::<i32>("split_starts", &[t + 1])?);
    let config = config(case, &batch);
    config.check()?;
    let items: Vec<u32> = case.tensors.get("items", &[config.max_items(t), WORDS])?;

    let places = batch.query_places();
    let seen: Vec<usize> = places.iter().map(|place| place.map_or(0, |place| place.token + 1)).collect();
    let piece = case
        .settings
        .fixed_tokens
        .unwrap_or_else(|| balanced_piece(&seen, config.tile_tokens, config.target_items, config.max_tokens));
    let pieces = schedule(&seen, piece);
    let mut want = Vec::with_capacity(pieces.len() * USED_WORDS);
    for (piece, item) in pieces.iter().zip(items.chunks_exact(WORDS)) {
        // The row of a piece without tokens is not read, whatever it is.
        let row = places[piece.query].map_or(f64::from(item[1]), |place| (place.sequence * batch.max_pages()) as f64);
        let slot = piece.slot.map_or(-1.0, |slot| slot as f64);
        want.extend([piece.query as f64, row, piece.tokens.start as f64, piece.tokens.end as f64, slot]);
    }
    let rows = want.len() / USED_WORDS;
    let words = items.chunks_exact(WORDS).take(rows).flat_map(|item| {
        let [query, row, first, end, slot] = [item[0], item[1], item[2], item[3], item[4]];
        [query, row, first, end].map(f64::from).into_iter().chain([f64::from(slot.cast_signed())])
    });
    let items =
        Output { case: case.kind().name(), name: "items", shape: vec![rows, USED_WORDS], got: words.collect(), want };
    let mut starts = vec![0.0; t + 1];
    for piece in pieces.iter().filter(|piece| piece.slot.is_some()) {
        starts[piece.query + 1] += 1.0;
    }
    (0..t).for_each(|query| starts[query + 1] += starts[query]);
    Ok(vec![items.exact(), item_count.against(vec![pieces.len() as f64]).exact(), split_starts.against(starts).exact()])
}
