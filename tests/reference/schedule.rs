//! `schedule`: the splits are all of the work, once, in even parts.

use latent_attention::reference::{balanced_split_tokens, schedule};
use latent_attention::splits::SplitCosts;
use proptest::prelude::*;

proptest! {
    #[test]
    fn splits_cover_every_token_once_and_in_order(seen in prop::collection::vec(0usize..400, 0..12), split_tokens in 1usize..200) {
        let splits = schedule(&seen, split_tokens);
        let mut partials = 0..;
        for (query, &tokens) in seen.iter().enumerate() {
            let own: Vec<_> = splits.iter().filter(|split| split.query == query).collect();
            let covered: Vec<usize> = own.iter().flat_map(|split| split.tokens.clone()).collect();
            prop_assert_eq!(covered, (0..tokens).collect::<Vec<_>>());
            // A query token without tokens has its split too, which writes that it saw nothing.
            prop_assert!(!own.is_empty());
            for each in &own {
                prop_assert_eq!(each.partial, if own.len() > 1 { partials.next() } else { None });
            }
        }
        prop_assert!(splits.is_sorted_by_key(|split| split.query));
    }

    #[test]
    fn balanced_splits_cost_least(
        seen in prop::collection::vec(0usize..2000, 1..12),
        tile in 1usize..70,
        target in 1usize..40,
        beside in prop::array::uniform4(0.0..3.0),
    ) {
        let costs = SplitCosts::new(1.0, beside);
        let split_tokens = balanced_split_tokens(&seen, tile, target, &costs);
        prop_assert_eq!(split_tokens % tile, 0);
        // Counted from the splits themselves; 4 waves at most, or one where one split each fills but half of it.
        let cost = |split_tokens: usize| {
            let splits = schedule(&seen, split_tokens);
            let partials = splits.iter().filter(|split| split.partial.is_some()).count();
            let of_query = |query| splits.iter().filter(|split| split.query == query).count();
            let most = (0..seen.len()).map(of_query).max().unwrap();
            let waves = splits.len().div_ceil(target) as u32;
            let tiles = splits.iter().map(|split| split.tokens.len().div_ceil(tile)).max().unwrap().max(1) as u32;
            let merging = costs.merge + partials as u32 * costs.merge_partial + most.div_ceil(64) as u32 * costs.merge_batch;
            let is_allowed = partials == 0 || splits.len() <= if seen.len() > target / 2 { 4 * target } else { target };
            is_allowed.then(|| waves * (costs.block + 65536 * tiles) + if partials > 0 { merging } else { 0 })
        };
        let least = (1..=2000usize.div_ceil(tile)).filter_map(|tiles| cost(tiles * tile)).min();
        prop_assert!(least.is_some() && cost(split_tokens) == least, "{split_tokens} {:?} {least:?}", cost(split_tokens));
        let shorter = (1..split_tokens / tile).map(|tiles| cost(tiles * tile));
        prop_assert!(shorter.flatten().all(|cost| Some(cost) > least));
    }
}
