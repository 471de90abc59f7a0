//! `schedule` equals the reference, number for number.

use latent_attention::cache::{CacheFormat, CacheLayout, PageTable, Sequences};
use latent_attention::device::{Device, ViewMut};
use latent_attention::ops::{BatchBuffers, Schedule, ScheduleArgs, ScheduleConfig, SplitPolicy};
use latent_attention::reference::{Split, balanced_split_tokens, schedule};
use latent_attention::splits::SplitCosts;
use latent_attention::{Geometry, sys};
use proptest::prelude::*;

use crate::common::{Batch, page_size, rng};
use crate::device;

/// 32-bit words of a split.
const WORDS: usize = size_of::<sys::DecodeSplit>() / 4;

/// A batch on a device, cut by an operation.
fn run(device: &Device, config: ScheduleConfig, batch: &Sequences, pages: usize, tokens: usize) -> Vec<(Split, u32)> {
    let layout = CacheLayout::new(&Geometry::smollm_135m(8).unwrap(), CacheFormat::INT4, config.page_size).unwrap();
    let operation = Schedule::new(device, config).unwrap();
    let batch = BatchBuffers::upload(device, batch, &layout, pages).unwrap();
    let poison = |len: usize| vec![0xDEAD_BEEF; len];
    let mut splits = device.upload::<u32>(&poison(config.max_batch_splits(tokens) * WORDS)).unwrap();
    let mut count = device.upload::<u32>(&poison(1)).unwrap();
    let mut starts = device.upload(&vec![-7i32; tokens + 1]).unwrap();
    // Two tiles of heads.
    let mut merges = device.upload(&vec![u64::MAX; 2 * tokens]).unwrap();
    let args = ScheduleArgs {
        batch: &batch.batch(),
        query_tokens: tokens,
        splits: splits.view_mut(),
        split_count: count.view_mut(),
        split_starts: starts.view_mut(),
        merges: merges.view_mut(),
    };
    operation.run(&device.stream().unwrap(), args).unwrap();
    let (words, count, starts) = (splits.to_vec().unwrap(), count.to_vec().unwrap()[0], starts.to_vec().unwrap());
    let (used, unused) = words.split_at(count as usize * WORDS);
    assert!(unused.iter().all(|&word| word == 0xDEAD_BEEF));
    assert!(merges.to_vec().unwrap().iter().all(|&word| word == 0));
    let splits: Vec<(Split, u32)> = used
        .chunks_exact(WORDS)
        .map(|words| {
            let partial = usize::try_from(words[4].cast_signed()).ok();
            (Split { query: words[0] as usize, tokens: words[2] as usize..words[3] as usize, partial }, words[1])
        })
        .collect();
    // Where each query token's partials begin follows from the splits.
    let partials_before =
        |query: usize| splits.iter().filter(|(split, _)| split.query < query && split.partial.is_some()).count();
    assert!(starts.iter().enumerate().all(|(query, &start)| start == partials_before(query) as i32), "{starts:?}");
    assert!(partials_before(tokens) <= config.max_partials() || config.max_query_tokens < tokens);
    splits
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
        target_splits in 1usize..80,
        fixed in prop_oneof![Just(None), (1usize..300).prop_map(Some)],
        padding in 0usize..3,
        costs in prop_oneof![Just([0.0; 4]), prop::array::uniform4(0.0..3.0), prop::array::uniform4(0.0..0.1)],
        is_dense: bool,
        seed: u64,
    ) {
        let (lens, queries): (Vec<usize>, Vec<usize>) = rows.into_iter().unzip();
        let batch = Batch::new(&mut rng(seed), &lens, &queries, page_size);
        let tokens = batch.query_tokens() + padding;
        let seen = seen(&lens, &queries, tokens);
        let policy = fixed.map_or(SplitPolicy::Balanced, |tokens| SplitPolicy::Fixed { tokens });
        let config = ScheduleConfig::new(policy, tokens.max(1), 3000, page_size, tile_tokens, target_splits)
            .with_costs(SplitCosts::new(1.0, costs));
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
        let split_tokens = fixed.unwrap_or_else(|| balanced_split_tokens(&seen, tile_tokens, target_splits, &config.costs));
        let splits: Vec<Split> = got.iter().map(|(split, _)| split.clone()).collect();
        prop_assert_eq!(splits, schedule(&seen, split_tokens));
        for (split, row) in got.iter().filter(|(split, _)| !split.tokens.is_empty()) {
            let sequence = batch.query_starts.partition_point(|&start| start as usize <= split.query) - 1;
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
    let splits: Vec<Split> = got.into_iter().map(|(split, _)| split).collect();
    assert_eq!(splits, schedule(&seen(&lens, &queries, tokens), 32));
}

/// Of 700 query tokens of as many sequences, which are fewer than run in four waves, or more.
#[test]
fn balanced_splits_of_more_query_tokens_than_threads() {
    let (lens, queries): (Vec<usize>, Vec<usize>) = (0..700).map(|i| (i * 37 % 900, 1)).unzip();
    let batch = Batch::new(&mut rng(4), &lens, &queries, 16);
    for target in [150, 200, 300, 800] {
        let config = ScheduleConfig::new(SplitPolicy::Balanced, 700, 900, 16, 16, target);
        let got = run(&device(), config, &batch.sequences(), batch.pages, 700);
        let splits: Vec<Split> = got.into_iter().map(|(split, _)| split).collect();
        let seen = seen(&lens, &queries, 700);
        let split_tokens = balanced_split_tokens(&seen, 16, target, &config.costs);
        assert_eq!(splits, schedule(&seen, split_tokens), "{target}");
    }
}

/// Long sequences among short ones, and lengths at which bisection has far to go.
#[test]
fn balanced_splits_of_long_sequences_cost_least() {
    let device = device();
    for (lens, target) in
        [(vec![131_072], 264), (vec![131_072, 1, 5000, 64], 66), (vec![40_000; 60], 66), (vec![9000; 100], 66)]
    {
        let queries = vec![1; lens.len()];
        let batch = Batch::new(&mut rng(5), &lens, &queries, 64);
        for beside in [[0.0; 4], [2.0, 0.2, 0.005, 0.05], [0.5, 2.0, 0.2, 0.5]] {
            let costs = SplitCosts::new(1.0, beside);
            let config = ScheduleConfig::new(SplitPolicy::Balanced, lens.len(), 131_072, 64, 64, target);
            let got = run(&device, config.with_costs(costs), &batch.sequences(), batch.pages, lens.len());
            let splits: Vec<Split> = got.into_iter().map(|(split, _)| split).collect();
            assert_eq!(
                splits,
                schedule(&lens, balanced_split_tokens(&lens, 64, target, &costs)),
                "{target} {beside:?}"
            );
        }
    }
}

#[test]
fn sequences_longer_than_the_limit_are_cut_off() {
    let batch = Batch::new(&mut rng(2), &[100], &[2], 16);
    let config = ScheduleConfig::new(SplitPolicy::Fixed { tokens: 32 }, 2, 70, 16, 16, 4);
    let got = run(&device(), config, &batch.sequences(), batch.pages, 2);
    let splits: Vec<Split> = got.into_iter().map(|(split, _)| split).collect();
    assert_eq!(splits, schedule(&[70, 70], 32));
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
    assert_eq!(refused(&|c| c.target_splits = 0), "schedule: splits at once 0: must be 1..2^31");
    assert_eq!(refused(&|c| c.page_size = 12), "schedule: page size 12: must be one of [8, 16, 32, 64]");
    let fixed = |tokens| SplitPolicy::Fixed { tokens };
    assert_eq!(refused(&|c| c.policy = fixed(0)), "schedule: splits of 0 tokens: must be at least 1");
    let message = refused(&|c| (c.policy, c.max_tokens, c.max_query_tokens) = (fixed(1), 1 << 20, 1 << 20));
    let wanted = "schedule: 1048576 splits for each of 1048576 query tokens: must be less than 2^31 in all";
    assert_eq!(message, wanted);

    let operation = Schedule::new(&device, good).unwrap();
    let batch = Batch::new(&mut rng(3), &[20], &[2], 16);
    let layout = CacheLayout::new(&Geometry::smollm_135m(8).unwrap(), CacheFormat::INT4, 16).unwrap();
    let batch = BatchBuffers::upload(&device, &batch.sequences(), &layout, batch.pages).unwrap();
    let words_len = good.max_batch_splits(2) * WORDS;
    // Query tokens, words of splits, numbers of count and starts, the element of the memory that the splits begin at, and
    // words for merging.
    let check = |[tokens, words, count, starts, shift, merges]: [usize; 6], expected: &str| {
        let (mut splits, mut number) = (device.zeros(words + shift).unwrap(), device.zeros(count).unwrap());
        let (mut numbers, mut merges) = (device.zeros(starts).unwrap(), device.zeros(merges).unwrap());
        let args = ScheduleArgs {
            batch: &batch.batch(),
            query_tokens: tokens,
            splits: ViewMut::slice(splits.view_mut(), shift..).unwrap(),
            split_count: number.view_mut(),
            split_starts: numbers.view_mut(),
            merges: merges.view_mut(),
        };
        let message = operation.run(&device.stream().unwrap(), args).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    };
    check([5, words_len, 1, 6, 0, 0], "5 query tokens: this operation was made for at most 4");
    check([2, words_len - 1, 1, 3, 0, 0], "splits: expected [splits 8, words 8] = 64 elements, got 63");
    check([2, words_len, 2, 3, 0, 0], "split count: expected [numbers 1] = 1 elements, got 2");
    check([2, words_len, 1, 2, 0, 0], "split starts: expected [query tokens + 1 3] = 3 elements, got 2");
    check([2, words_len, 1, 3, 1, 0], "splits: expected a multiple of 32 bytes, got address");
    check([2, words_len, 1, 3, 0, 3], "merges: expected [query tokens 2, tiles 1] = 2 elements, got 3");
}
