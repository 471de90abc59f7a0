//! `schedule`: the pieces are all of the work, once, in even parts.

use latent_attention::reference::{balanced_piece, schedule};
use proptest::prelude::*;

proptest! {
    #[test]
    fn pieces_cover_every_token_once_and_in_order(seen in prop::collection::vec(0usize..400, 0..12), piece in 1usize..200) {
        let pieces = schedule(&seen, piece);
        let mut slots = 0..;
        for (query, &tokens) in seen.iter().enumerate() {
            let own: Vec<_> = pieces.iter().filter(|piece| piece.query == query).collect();
            let covered: Vec<usize> = own.iter().flat_map(|piece| piece.tokens.clone()).collect();
            prop_assert_eq!(covered, (0..tokens).collect::<Vec<_>>());
            // A query token without tokens has its piece too, which writes that it saw nothing.
            prop_assert!(!own.is_empty());
            for each in &own {
                prop_assert_eq!(each.slot, if own.len() > 1 { slots.next() } else { None });
            }
        }
        prop_assert!(pieces.is_sorted_by_key(|piece| piece.query));
    }

    #[test]
    fn balanced_pieces_are_as_short_as_the_target_allows(
        seen in prop::collection::vec(0usize..2000, 1..12),
        tile in 1usize..70,
        target in 1usize..40,
    ) {
        let longest = *seen.iter().max().unwrap();
        let piece = balanced_piece(&seen, tile, target, longest);
        prop_assert_eq!(piece % tile, 0);
        let count = |piece: usize| schedule(&seen, piece).len();
        // More query tokens than pieces that run at once cannot be cut further.
        prop_assert!(count(piece) <= target.max(seen.len()));
        prop_assert!(piece == tile || count(piece - tile) > target);
    }
}
