//! `schedule`: cuts the tokens that each query token sees into pieces.

use std::ops::Range;

/// One piece of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Query token of the batch.
    pub query: usize,
    /// Tokens of its sequence; empty if it sees none.
    pub tokens: Range<usize>,
    /// Which partial result it makes; `None` if it is all of its query token's work.
    pub slot: Option<usize>,
}

/// The length of pieces with which a batch's work is in at most `target` pieces: the smallest multiple of `tile` tokens,
/// not above `max_tokens` rounded up to one, that does it, or that largest multiple if none does. `seen[q]` is how many
/// tokens query token `q` sees.
///
/// # Panics
/// If `tile` is 0.
#[must_use]
pub fn balanced_piece(seen: &[usize], tile: usize, target: usize, max_tokens: usize) -> usize {
    let largest = max_tokens.div_ceil(tile).max(1);
    let pieces = |tiles: usize| seen.iter().map(|tokens| tokens.div_ceil(tiles * tile).max(1)).sum::<usize>();
    (1..largest).find(|&tiles| pieces(tiles) <= target).unwrap_or(largest) * tile
}

/// Cuts every query token's work at the multiples of `piece` tokens. Pieces stand in the order of query tokens, and of
/// tokens within one; those of query tokens with more than one piece are numbered.
///
/// # Panics
/// If `piece` is 0.
#[must_use]
pub fn schedule(seen: &[usize], piece: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut slots = 0..;
    for (query, &tokens) in seen.iter().enumerate() {
        let count = tokens.div_ceil(piece).max(1);
        pieces.extend((0..count).map(|i| Piece {
            query,
            tokens: i * piece..tokens.min((i + 1) * piece),
            slot: if count > 1 { slots.next() } else { None },
        }));
    }
    pieces
}
