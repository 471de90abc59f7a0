//! `schedule` equals the reference, number for number.

use latent_attention::cache::{CacheFormat, CacheLayout, PageTable, Sequences};
use latent_attention::device::{Device, ViewMut};
use latent_attention::ops::{BatchBuffers, Schedule, ScheduleArgs, ScheduleConfig, SplitPolicy};
use latent_attention::reference::{Piece, balanced_piece, schedule};
use latent_attention::{Geometry, sys};
use proptest::prelude::*;

use crate::common::{Batch, page_size, rng};
use crate::device;

/// 32-bit words of an item.
const WORDS: usize = size_of::<sys::DecodeItem>() / 4;

/// A batch on a device, cut by an operation.
fn run(device: &Device, config: ScheduleConfig, batch: &Sequences, pages: usize, tokens: usize) -> Vec<(Piece, u32)> {
    let layout = CacheLayout::new(&Geometry::smollm_135m(8).unwrap(), CacheFormat::INT4, config.page_size).unwrap();
    let operation = Schedule::new(device, config).unwrap();
    let batch = BatchBuffers::upload(device, batch, &layout, pages).unwrap();
    let poison = |len: usize| vec![0xDEAD_BEEF; len];
    let mut items = device.upload::<u32>(&poison(config.max_items(tokens) * WORDS)).unwrap();
    let mut count = device.upload::<u32>(&poison(1)).unwrap();
    let mut starts = device.upload(&vec![-7i32; tokens + 1]).unwrap();
    let args = ScheduleArgs {
        batch: &batch.batch(),
        query_tokens: tokens,
        items: items.view_mut(),
        item_count: count.view_mut(),
        split_starts: starts.view_mut(),
    };
    operation.run(&device.stream().unwrap(), args).unwrap();
    let (items, count, starts) = (items.to_vec().unwrap(), count.to_vec().unwrap()[0], starts.to_vec().unwrap());
    let (used, unused) = items.split_at(count as usize * WORDS);
    assert!(unused.iter().all(|&word| word == 0xDEAD_BEEF));
    let pieces: Vec<(Piece, u32)> = used
        .chunks_exact(WORDS)
        .map(|item| {
            let slot = usize::try_from(item[4].cast_signed()).ok();
            (Piece { query: item[0] as usize, tokens: item[2] as usize..item[3] as usize, slot }, item[1])
        })
        .collect();
    // Where each query token's slots begin follows from the pieces.
    let slots_before = |query: usize| pieces.iter().filter(|(p, _)| p.query < query && p.slot.is_some()).count();
    assert!(starts.iter().enumerate().all(|(query, &start)| start == slots_before(query) as i32), "{starts:?}");
    assert!(slots_before(tokens) <= config.max_slots() || config.max_query_tokens < tokens);
    pieces
}

/// How many tokens each of `tokens` rows sees.
fn seen(lens: &[usize], queries: &[usize], tokens: usize) -> Vec<usize> {
    let of_sequences = lens.iter().zip(queries);
    let seen = of_sequences.flat_map(|(&len, &n)| (0..n).map(move |j| (len + j + 1).saturating_sub(n).min(len)));
    let mut seen: Vec<usize> = seen.collect();
    seen.resize(tokens, 0);
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_reference(
        rows in prop::collection::vec((prop_oneof![Just(0usize), 1usize..40, 500usize..3000], 0usize..4), 1..7),
        page_size in page_size(),
        tile_tokens in prop_oneof![Just(8usize), Just(16), Just(64)],
        target_items in 1usize..80,
        fixed in prop_oneof![Just(None), (1usize..300).prop_map(Some)],
        padding in 0usize..3,
        is_dense: bool,
        seed: u64,
    ) {
        let (lens, queries): (Vec<usize>, Vec<usize>) = rows.into_iter().unzip();
        let batch = Batch::new(&mut rng(seed), &lens, &queries, page_size);
        let tokens = batch.query_tokens() + padding;
        let seen = seen(&lens, &queries, tokens);
        let policy = fixed.map_or(SplitPolicy::Balanced, |tokens| SplitPolicy::Fixed { tokens });
        let config = ScheduleConfig::new(policy, tokens.max(1), 3000, page_size, tile_tokens, target_items);
        // The same table as CSR, each row cut to what its sequence uses.
        let mut csr = (vec![0i32], Vec::new());
        for (row, len) in batch.table.chunks_exact(batch.max_pages).zip(&lens) {
            csr.1.extend(&row[..len.div_ceil(page_size)]);
            csr.0.push(csr.1.len() as i32);
        }
        let mut sequences = batch.sequences();
        if !is_dense {
            sequences.pages = PageTable::Csr { indptr: &csr.0, indices: &csr.1 };
        }
        let got = run(&device(), config, &sequences, batch.pages, tokens);
        let piece = fixed.unwrap_or_else(|| balanced_piece(&seen, tile_tokens, target_items, 3000));
        let pieces: Vec<Piece> = got.iter().map(|(piece, _)| piece.clone()).collect();
        prop_assert_eq!(pieces, schedule(&seen, piece));
        for (piece, row) in got.iter().filter(|(piece, _)| !piece.tokens.is_empty()) {
            let sequence = batch.query_starts.partition_point(|&start| start as usize <= piece.query) - 1;
            let want = if is_dense { sequence * batch.max_pages } else { csr.0[sequence] as usize };
            prop_assert_eq!(*row as usize, want);
        }
    }
}

#[test]
fn more_query_tokens_than_threads() {
    // The block has 512 threads, each of which looks at several query tokens.
    let (lens, queries): (Vec<usize>, Vec<usize>) = (0..700).map(|i| (i % 90, 1 + i % 2)).unzip();
    let batch = Batch::new(&mut rng(1), &lens, &queries, 16);
    let tokens = batch.query_tokens();
    let config = ScheduleConfig::new(SplitPolicy::Fixed { tokens: 32 }, tokens, 90, 16, 16, 4);
    let got = run(&device(), config, &batch.sequences(), batch.pages, tokens);
    let pieces: Vec<Piece> = got.into_iter().map(|(piece, _)| piece).collect();
    assert_eq!(pieces, schedule(&seen(&lens, &queries, tokens), 32));
}

#[test]
fn sequences_longer_than_the_limit_are_cut_off() {
    let batch = Batch::new(&mut rng(2), &[100], &[2], 16);
    let config = ScheduleConfig::new(SplitPolicy::Fixed { tokens: 32 }, 2, 70, 16, 16, 4);
    let got = run(&device(), config, &batch.sequences(), batch.pages, 2);
    let pieces: Vec<Piece> = got.into_iter().map(|(piece, _)| piece).collect();
    assert_eq!(pieces, schedule(&[70, 70], 32));
}

#[test]
fn wrong_arguments_are_named() {
    let device = device();
    let good = ScheduleConfig::new(SplitPolicy::Balanced, 4, 100, 16, 16, 8);
    let refused = |change: &dyn Fn(&mut ScheduleConfig)| {
        let mut config = good;
        change(&mut config);
        Schedule::new(&device, config).unwrap_err().to_string()
    };
    assert_eq!(refused(&|c| c.max_query_tokens = 0), "schedule: most query tokens 0: must be 1..2^31");
    assert_eq!(refused(&|c| c.max_tokens = 1 << 31), "schedule: most tokens 2147483648: must be 1..2^31");
    assert_eq!(refused(&|c| c.tile_tokens = 0), "schedule: tokens per tile 0: must be 1..2^31");
    assert_eq!(refused(&|c| c.target_items = 0), "schedule: items at once 0: must be 1..2^31");
    assert_eq!(refused(&|c| c.page_size = 12), "schedule: page size 12: must be one of [8, 16, 32, 64]");
    let fixed = |tokens| SplitPolicy::Fixed { tokens };
    assert_eq!(refused(&|c| c.policy = fixed(0)), "schedule: pieces of 0 tokens: must be at least 1");
    let message = refused(&|c| (c.policy, c.max_tokens, c.max_query_tokens) = (fixed(1), 1 << 20, 1 << 20));
    let wanted = "schedule: 1048576 pieces for each of 1048576 query tokens: must be less than 2^31 in all";
    assert_eq!(message, wanted);

    let operation = Schedule::new(&device, good).unwrap();
    let batch = Batch::new(&mut rng(3), &[20], &[2], 16);
    let layout = CacheLayout::new(&Geometry::smollm_135m(8).unwrap(), CacheFormat::INT4, 16).unwrap();
    let batch = BatchBuffers::upload(&device, &batch.sequences(), &layout, batch.pages).unwrap();
    let items_len = good.max_items(2) * WORDS;
    // Query tokens, words of items, numbers of count and starts, and the element of the memory that the items begin at.
    let check = |[tokens, items, count, starts, shift]: [usize; 5], expected: &str| {
        let (mut words, mut number) = (device.zeros(items + shift).unwrap(), device.zeros(count).unwrap());
        let mut numbers = device.zeros(starts).unwrap();
        let args = ScheduleArgs {
            batch: &batch.batch(),
            query_tokens: tokens,
            items: ViewMut::slice(words.view_mut(), shift..).unwrap(),
            item_count: number.view_mut(),
            split_starts: numbers.view_mut(),
        };
        let message = operation.run(&device.stream().unwrap(), args).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    };
    check([5, items_len, 1, 6, 0], "5 query tokens: this operation was made for at most 4");
    check([2, items_len - 1, 1, 3, 0], "items: expected [items 8, words 8] = 64 elements, got 63");
    check([2, items_len, 2, 3, 0], "item count: expected [numbers 1] = 1 elements, got 2");
    check([2, items_len, 1, 2, 0], "split starts: expected [query tokens + 1 3] = 3 elements, got 2");
    check([2, items_len, 1, 3, 1], "items: expected a multiple of 32 bytes, got address");
}
