//! `schedule`: the splits are all of the work, once, in even parts.

use latent_attention::reference::{balanced_split_tokens, schedule};
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
    fn balanced_splits_are_as_short_as_the_target_allows(
        seen in prop::collection::vec(0usize..2000, 1..12),
        tile in 1usize..70,
        target in 1usize..40,
    ) {
        let longest = *seen.iter().max().unwrap();
        let split_tokens = balanced_split_tokens(&seen, tile, target, longest);
        prop_assert_eq!(split_tokens % tile, 0);
        let count = |split_tokens: usize| schedule(&seen, split_tokens).len();
        // More query tokens than splits that run at once cannot be cut further.
        prop_assert!(count(split_tokens) <= target.max(seen.len()));
        prop_assert!(split_tokens == tile || count(split_tokens - tile) > target);
    }
}
