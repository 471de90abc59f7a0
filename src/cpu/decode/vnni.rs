//! Products of 4-bit codes by AVX-512 VNNI, for `integers`.
//!
//! Latents stand in the order in which a mask unpacks them, in chunks of [`CHUNK`] positions: the lower nibbles of 16
//! words, then the upper ones. The other operand's numbers are taken in parts of 8 bits, one product for each.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_epi32, _mm512_and_si512, _mm512_castps_si512, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
    _mm512_fmadd_ps, _mm512_load_si512, _mm512_maskz_loadu_epi8, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_slli_epi32, _mm512_srli_epi16,
    _mm512_store_si512, _mm512_unpackhi_epi8, _mm512_unpackhi_epi16, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi8, _mm512_unpacklo_epi16, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

/// Numbers of a vector.
pub(super) const LANES: usize = 16;

/// Positions that 64 bytes of codes are unpacked to.
pub(super) const CHUNK: usize = 128;

/// The contents of a vector, at an address that is a multiple of its size.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub [u32; LANES]);

impl Line {
    pub const ZERO: Self = Self([0; LANES]);
}

#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512i {
    // SAFETY: a line has 64 bytes, and is aligned to as many.
    unsafe { _mm512_load_si512((&raw const *line).cast()) }
}

#[target_feature(enable = "avx512f")]
fn store(line: &mut Line, vector: __m512i) {
    // SAFETY: a line has 64 bytes, and is aligned to as many.
    unsafe { _mm512_store_si512((&raw mut *line).cast(), vector) }
}

/// Up to 64 bytes, and zeros.
#[target_feature(enable = "avx512f,avx512bw")]
fn load_bytes(bytes: &[u8]) -> __m512i {
    let mask = u64::MAX.checked_shr(64 - bytes.len().min(64) as u32).unwrap_or(0);
    // SAFETY: what is beyond the bytes is masked.
    unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast()) }
}

/// Unpacks a chunk of four tokens' codes: to two lines of each token's row, which are `row_lines` apart, and to a line of each
/// of eight tiles of 16 positions, which are `tile_lines` apart and have the codes of the four tokens side by side, by
/// [`position_of_lane`].
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn unpack(
    codes: [&[u8]; 4],
    (rows, row_lines): (&mut [Line], usize),
    (woven, tile_lines): (&mut [Line], usize),
) {
    let mask = _mm512_set1_epi8(15);
    let mut halves = [[_mm512_setzero_si512(); 4]; 2];
    for (token, codes) in codes.into_iter().enumerate() {
        let packed = load_bytes(codes);
        let (low, high) = (_mm512_and_si512(packed, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(packed), mask));
        (halves[0][token], halves[1][token]) = (low, high);
        store(&mut rows[token * row_lines], low);
        store(&mut rows[token * row_lines + 1], high);
    }
    for (half, [a, b, c, d]) in halves.into_iter().enumerate() {
        let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
        let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
        let tile = |i: usize| (4 * half + i) * tile_lines;
        store(&mut woven[tile(0)], _mm512_unpacklo_epi16(ab, cd));
        store(&mut woven[tile(1)], _mm512_unpackhi_epi16(ab, cd));
        store(&mut woven[tile(2)], _mm512_unpacklo_epi16(ab_high, cd_high));
        store(&mut woven[tile(3)], _mm512_unpackhi_epi16(ab_high, cd_high));
    }
}

/// The position of lane `lane` of tile `tile` of woven codes.
pub(super) fn position_of_lane(tile: usize, lane: usize) -> usize {
    tile / 4 * 64 + lane / 4 * 16 + tile % 4 * 4 + lane % 4
}

/// The latent that stands at a position of a chunk.
pub(super) fn latent_of_position(position: usize) -> usize {
    const OF_BYTE: [[usize; 4]; 2] = [[0, 4, 1, 5], [2, 6, 3, 7]];
    let (chunk, half, byte) = (position / CHUNK, position % CHUNK / 64, position % 64);
    chunk * CHUNK + byte / 4 * 8 + OF_BYTE[half][byte % 4]
}

/// Sums of products of codes and the queries of 16 heads, for 16 tokens, by head. `query` has, for each four positions, the
/// upper (signed), the middle and the lower 8 bits of the heads' four numbers; `rows` are the tokens' codes.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn scores(query: &[[Line; 3]], rows: [&[Line]; LANES]) -> [[f32; LANES]; LANES] {
    let mut sums = [_mm512_setzero_ps(); LANES];
    for (half, sums) in sums.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let rows: [&[Line]; 8] = std::array::from_fn(|token| &rows[8 * half + token][..query.len() / LANES]);
        let mut parts = [[_mm512_setzero_si512(); 3]; 8];
        for (line, query) in query.as_chunks::<LANES>().0.iter().enumerate() {
            for (four, [high, middle, low]) in query.iter().enumerate() {
                let (high, middle, low) = (load(high), load(middle), load(low));
                for (parts, row) in parts.iter_mut().zip(rows) {
                    let codes = _mm512_set1_epi32(row[line].0[four] as i32);
                    parts[0] = _mm512_dpbusd_epi32(parts[0], codes, high);
                    parts[1] = _mm512_dpbusd_epi32(parts[1], middle, codes);
                    parts[2] = _mm512_dpbusd_epi32(parts[2], low, codes);
                }
            }
        }
        // Each part's sum has less than 24 bits, which f32 holds.
        *sums = parts.map(|parts| {
            let [high, middle, low] = parts.map(|part| _mm512_cvtepi32_ps(part));
            let upper = _mm512_fmadd_ps(high, _mm512_set1_ps(256.0), middle);
            _mm512_fmadd_ps(upper, _mm512_set1_ps(256.0), low)
        });
    }
    transposed(sums)
}

/// Sums of products of woven codes, of two tiles of positions, and of weights of four heads, by head and tile. Weights have an
/// upper and a lower part (unsigned) of each four tokens.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn outputs(woven: [&[Line]; 2], weights: [[&[u32]; 2]; 4]) -> [[[i32; LANES]; 2]; 4] {
    let fours = woven[0].len();
    let (woven, weights) = (woven.map(|tile| &tile[..fours]), weights.map(|parts| parts.map(|part| &part[..fours])));
    let mut sums = [[[_mm512_setzero_si512(); 2]; 2]; 4];
    for four in 0..fours {
        let codes = woven.map(|tile| load(&tile[four]));
        for (sums, weights) in sums.iter_mut().zip(weights) {
            let weights = weights.map(|part| _mm512_set1_epi32(part[four] as i32));
            for (sums, codes) in sums.iter_mut().zip(codes) {
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_dpbusd_epi32(*sum, weights, codes);
                }
            }
        }
    }
    sums.map(|tiles| tiles.map(|parts| numbers(joined(parts))))
}

fn numbers(vector: __m512i) -> [i32; LANES] {
    // SAFETY: both have 16 numbers of 32 bits, and every pattern of them is valid.
    unsafe { std::mem::transmute(vector) }
}

/// The sum of both parts' sums.
#[target_feature(enable = "avx512f")]
fn joined([high, low]: [__m512i; 2]) -> __m512i {
    _mm512_add_epi32(_mm512_slli_epi32::<8>(high), low)
}

/// 16 vectors of 16 numbers, transposed.
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512; LANES]) -> [[f32; LANES]; LANES] {
    let zero = _mm512_setzero_si512();
    let (mut a, mut b) = (rows.map(|row| _mm512_castps_si512(row)), [zero; LANES]);
    for i in 0..8 {
        b[2 * i] = _mm512_unpacklo_epi32(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm512_unpackhi_epi32(a[2 * i], a[2 * i + 1]);
    }
    for i in 0..4 {
        a[4 * i] = _mm512_unpacklo_epi64(b[4 * i], b[4 * i + 2]);
        a[4 * i + 1] = _mm512_unpackhi_epi64(b[4 * i], b[4 * i + 2]);
        a[4 * i + 2] = _mm512_unpacklo_epi64(b[4 * i + 1], b[4 * i + 3]);
        a[4 * i + 3] = _mm512_unpackhi_epi64(b[4 * i + 1], b[4 * i + 3]);
    }
    for i in 0..4 {
        b[i] = _mm512_shuffle_i32x4::<0x88>(a[i], a[i + 4]);
        b[i + 4] = _mm512_shuffle_i32x4::<0xDD>(a[i], a[i + 4]);
        b[i + 8] = _mm512_shuffle_i32x4::<0x88>(a[i + 8], a[i + 12]);
        b[i + 12] = _mm512_shuffle_i32x4::<0xDD>(a[i + 8], a[i + 12]);
    }
    for i in 0..8 {
        a[i] = _mm512_shuffle_i32x4::<0x88>(b[i], b[i + 8]);
        a[i + 8] = _mm512_shuffle_i32x4::<0xDD>(b[i], b[i + 8]);
    }
    // SAFETY: a vector has 16 numbers of 32 bits, and every pattern of them is valid.
    a.map(|row| unsafe { std::mem::transmute::<__m512i, [f32; LANES]>(row) })
}

/// 16 rows of 16 numbers, transposed.
#[target_feature(enable = "avx512f")]
pub(super) fn transposed_numbers(rows: [[f32; LANES]; LANES]) -> [[f32; LANES]; LANES] {
    // SAFETY: as above.
    transposed(rows.map(|row| unsafe { std::mem::transmute::<[f32; LANES], __m512>(row) }))
}
