//! A block's 4-bit codes as bytes, twice: by token, to be multiplied by queries, and woven, to be multiplied by weights.
//!
//! Latents stand in the order in which a mask unpacks them, in chunks of [`CHUNK`] positions: the lower nibbles of 16
//! words, then the upper ones.

use super::lanes::{LANES, Line, zeros};
use super::vectors::{load_bytes, load_floats, nibbles, no_words, picked, store, store_floats, woven};

/// Positions that 64 bytes of codes are unpacked to.
pub(super) const CHUNK: usize = 128;

/// Codes of a block of tokens.
pub(super) struct Codes {
    /// Positions of a latent: whole chunks.
    pub width: usize,
    /// `[tokens][width / 64]`: codes by token.
    pub rows: Vec<Line<u32>>,
    /// `[width / 128][tokens / 4][8]`: by chunk, by four tokens, and by tile of 16 positions. Written a chunk's tiles at a
    /// time, lines lie in few pages: caches of addresses to write to have few places.
    woven: Vec<Line<u32>>,
    /// `tokens / 4`.
    fours: usize,
}

/// Tiles of a chunk, and so the lines from one four of a tile's tokens to the next.
pub(super) const TILES: usize = CHUNK / LANES;

impl Codes {
    pub fn new(latent_rank: usize, tokens: usize) -> Self {
        let (width, fours) = (latent_rank.next_multiple_of(CHUNK), tokens / 4);
        Self { width, rows: zeros(tokens * width / 64), woven: zeros(width / LANES * fours), fours }
    }

    /// The woven codes of an even tile and the next one, of the first so many fours: [`TILES`] lines from each other.
    pub fn woven_tiles(&self, tile: usize, fours: usize) -> &[Line<u32>] {
        let first = tile / TILES * self.fours * TILES + tile % TILES;
        &self.woven[first..][..(fours * TILES).saturating_sub(TILES - 2)]
    }

    /// Unpacks the codes of four tokens, the `four`th of the block. What is past their end is zeros.
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512f,avx512bw"))]
    #[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
    pub fn unpack(&mut self, four: usize, packed: [&[u8]; 4]) {
        let row_lines = self.width / 64;
        for chunk in 0..self.width / CHUNK {
            let rows = &mut self.rows[4 * four * row_lines + 2 * chunk..];
            let woven = &mut self.woven.as_chunks_mut().0[chunk * self.fours + four];
            unpack_chunk(packed, chunk, (rows, row_lines), woven);
        }
    }
}

/// Unpacks a chunk of four tokens' codes: to two lines of each token's row, which are `row_lines` apart, and to a line of each
/// of its tiles, which have the codes of the four tokens side by side, as [`in_order`] has them.
#[inline]
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512f,avx512bw"))]
#[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
fn unpack_chunk(
    packed: [&[u8]; 4],
    chunk: usize,
    (rows, row_lines): (&mut [Line<u32>], usize),
    tiles: &mut [Line<u32>; TILES],
) {
    let mut halves = [[no_words(); 4]; 2];
    for (token, packed) in packed.into_iter().enumerate() {
        let [low, high] = nibbles(load_bytes(packed.get(chunk * CHUNK / 2..).unwrap_or_default()));
        (halves[0][token], halves[1][token]) = (low, high);
        store(&mut rows[token * row_lines], low);
        store(&mut rows[token * row_lines + 1], high);
    }
    for (half, tiles) in halves.into_iter().zip(tiles.as_chunks_mut::<4>().0) {
        for (tile, codes) in tiles.iter_mut().zip(woven(half)) {
            store(tile, codes);
        }
    }
}

/// Which of a word's eight latents stand at the four positions of its lower nibbles, and at those of its upper ones.
pub(super) const LATENTS_OF_WORD: [[usize; 4]; 2] = [[0, 4, 1, 5], [2, 6, 3, 7]];

/// The numbers of a chunk's eight tiles, in the order of their latents. Lanes 4 i to 4 i + 3 of tiles k and k + 4 are of the
/// eight latents of word 4 i + k.
#[inline]
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512f"))]
#[cfg_attr(target_arch = "aarch64", target_feature(enable = "neon"))]
pub(super) fn in_order(tiles: &[Line<f32>; TILES], latents: &mut [f32; CHUNK]) {
    /// Of a word's latents, the lane of both tiles' four: the second tile's from 16 on.
    const LANE_OF_LATENT: [u32; 8] = [0, 2, 16, 18, 1, 3, 17, 19];
    const fn lanes(first: u32) -> Line<u32> {
        let (mut line, mut i) = (Line([0; LANES]), 0);
        while i < LANES {
            line.0[i] = LANE_OF_LATENT[i % 8] + first + 4 * (i / 8) as u32;
            i += 1;
        }
        line
    }
    const LANES_OF_WORDS: [Line<u32>; 2] = [lanes(0), lanes(8)];
    let words = latents.as_chunks_mut::<8>().0;
    for k in 0..4 {
        let (low, high) = (load_floats(&tiles[k]), load_floats(&tiles[k + 4]));
        for pair in 0..2 {
            let mut two = Line::default();
            store_floats(&mut two, picked(low, &LANES_OF_WORDS[pair], high));
            for (i, word) in two.0.as_chunks::<8>().0.iter().enumerate() {
                words[4 * (2 * pair + i) + k] = *word;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::unpack_nibbles;

    /// The latent that stands at a position.
    fn latent_of_position(position: usize) -> usize {
        let (chunk, half, byte) = (position / CHUNK, position % CHUNK / 64, position % 64);
        chunk * CHUNK + byte / 4 * 8 + LATENTS_OF_WORD[half][byte % 4]
    }
    use crate::cpu::level::Level;

    #[test]
    fn codes_come_back_in_the_order_of_their_latents() {
        const TOKENS: usize = 8;
        if !Level::available().any(Level::has_int8) {
            return;
        }
        for rank in [8, 120, 128, 200, 520] {
            let mut codes = Codes::new(rank, TOKENS);
            let rows: [Vec<u8>; TOKENS] =
                std::array::from_fn(|token| (0..rank / 2).map(|i| (i * 37 + token * 91 + i * i) as u8).collect());
            for (four, rows) in rows.as_chunks::<4>().0.iter().enumerate() {
                // SAFETY: there are the vectors.
                unsafe { codes.unpack(four, rows.each_ref().map(|row| &row[..])) };
            }
            for (token, packed) in rows.iter().enumerate() {
                let words = packed.as_chunks::<4>().0.iter();
                let mut want: Vec<u8> = words.flat_map(|word| unpack_nibbles(u32::from_le_bytes(*word))).collect();
                want.resize(codes.width, 0);
                let byte = |line: &Line<u32>, i: usize| line.0[i / 4].to_le_bytes()[i % 4];
                for position in 0..codes.width {
                    let line = &codes.rows[token * codes.width / 64 + position / 64];
                    assert_eq!(byte(line, position % 64), want[latent_of_position(position)], "position {position}");
                }
                let woven = |tile: usize, lane: usize| {
                    byte(
                        &codes.woven_tiles(tile / 2 * 2, TOKENS / 4)[token / 4 * TILES + tile % 2],
                        4 * lane + token % 4,
                    )
                };
                for chunk in 0..codes.width / CHUNK {
                    let tiles: [Line<f32>; TILES] = std::array::from_fn(|tile| {
                        Line(std::array::from_fn(|lane| f32::from(woven(TILES * chunk + tile, lane))))
                    });
                    let mut latents = [f32::NAN; CHUNK];
                    // SAFETY: as above.
                    unsafe { in_order(&tiles, &mut latents) };
                    assert_eq!(latents.map(|code| code as u8)[..], want[chunk * CHUNK..][..CHUNK]);
                }
            }
        }
    }
}
