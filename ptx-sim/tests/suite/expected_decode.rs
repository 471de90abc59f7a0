//! Attention by warp-specialised kernels (`decode_90.cu`): what all of `mbarrier`, `cp.async`, `wgmma`, its fences and
//! `stmatrix` and `setmaxnreg` have to come to. The results are those of the formula, in f64.

use crate::cases::{Case, Format, Tolerance};
use crate::inputs::Random;

const LATENTS: usize = 512;
/// Threads of the block; a warpgroup and a part of another do not compute.
const THREADS: usize = 384;
/// What scores are multiplied by, to the base 2.
const FACTOR: f64 = 0.0625;

/// The sizes of a kernel.
#[derive(Clone, Copy)]
struct Decode {
    heads: usize,
    /// Of a tile.
    tokens: usize,
    tiles: usize,
}

/// The inputs as numbers.
struct Inputs {
    codes: Vec<Vec<u8>>,
    scales: Vec<f64>,
    minima: Vec<f64>,
    query: Vec<Vec<f64>>,
    /// Sums of the query, and maxima, of each head.
    sums: Vec<f64>,
    maxima: Vec<f64>,
}

fn half(x: f64) -> f64 {
    half::f16::from_f64(x).to_f64()
}

impl Decode {
    /// Whether both warpgroups work on every tile.
    fn shared(self) -> bool {
        self.tokens == 128
    }

    /// Words of a thread's results.
    fn words(self) -> usize {
        (if self.shared() { 4 } else { 8 }) * self.heads / 2 + self.heads / 2
    }

    fn inputs(self) -> Inputs {
        let mut random = Random(0xDEC0_DE00_0000 + self.heads as u64);
        let all = self.tiles * self.tokens;
        let codes = (0..all).map(|_| (0..LATENTS).map(|_| (random.next() >> 13 & 15) as u8).collect()).collect();
        let scales: Vec<f64> = (0..all).map(|_| half(0.02 + 0.03 * random.unit())).collect();
        let minima: Vec<f64> = (0..all).map(|_| half(-0.3 * random.unit())).collect();
        // Quarters: a sixteenth of one is an f16, too, and the products' sums need no rounding.
        let mut quarters =
            || (0..LATENTS).map(|_| (random.next() >> 20) as i64 % 9 - 4).map(|x| x as f64 / 4.0).collect();
        let query: Vec<Vec<f64>> = (0..self.heads).map(|_| quarters()).collect();
        let sums = query.iter().map(|query| query.iter().sum()).collect();
        let mut inputs = Inputs { codes, scales, minima, query, sums, maxima: vec![0.0; self.heads] };
        for head in 0..self.heads {
            let scores = (0..all).map(|token| inputs.score(head, token));
            // Not quite the maximum: weights may be somewhat greater than 1.
            inputs.maxima[head] = f64::from((scores.fold(f64::NEG_INFINITY, f64::max) - 1.5) as f32);
        }
        inputs
    }

    /// The inputs as the kernel takes them, in rows of words.
    fn rows(self, inputs: &Inputs) -> Vec<Vec<u64>> {
        let mut bytes: Vec<u8> = Vec::new();
        let nibbles = inputs.codes.iter().flat_map(|codes| codes.chunks(2).map(|pair| pair[0] | pair[1] << 4));
        bytes.extend(nibbles);
        let f16 = |x: &f64| half::f16::from_f64(*x).to_le_bytes();
        bytes
            .extend(inputs.scales.iter().zip(&inputs.minima).flat_map(|(scale, min)| [f16(scale), f16(min)]).flatten());
        bytes.extend(inputs.query.iter().flatten().flat_map(f16));
        bytes.extend(inputs.sums.iter().chain(&inputs.maxima).flat_map(|x| (*x as f32).to_le_bytes()));
        let words = bytes.len().div_ceil(8).next_multiple_of(THREADS);
        bytes.resize(8 * words, 0);
        let words: Vec<u64> =
            bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).collect();
        words.chunks(words.len() / THREADS).map(<[u64]>::to_vec).collect()
    }

    /// The results of all threads. A thread of a warpgroup has the accumulators of its matrices, of 64 latents each in an
    /// order that unpacking makes, and then the sums of weights and of weights times minima of the tokens it has scored.
    fn expected(self, inputs: &Inputs) -> Vec<Vec<u64>> {
        let all = self.tiles * self.tokens;
        let weights: Vec<Vec<f64>> = (0..self.heads)
            .map(|head| (0..all).map(|token| (inputs.score(head, token) - inputs.maxima[head]).exp2()).collect())
            .collect();
        // Which warpgroup's tokens: all, or every other tile.
        let of = |group: usize, token: usize| self.shared() || token / self.tokens % 2 == group;
        let float = |x: f64| u64::from((x as f32).to_bits());
        let output = |group: usize, head: usize, latent: usize| -> f64 {
            let tokens = (0..all).filter(|token| of(group, *token));
            tokens
                .map(|token| weights[head][token] * inputs.scales[token] * f64::from(inputs.codes[token][latent]))
                .sum()
        };
        let matrices = if self.shared() { 4 } else { 8 };
        let thread = |thread: usize| {
            let mut row = Vec::new();
            let (group, warp, lane) = (thread / 128, thread / 32 % 4, thread % 32);
            let (g, t) = (lane / 4, lane % 4);
            for matrix in 0..matrices {
                for element in 0..self.heads / 2 {
                    let (below, head) = (element / 2 % 2, element / 4 * 8 + 2 * t + element % 2);
                    // A warp unpacks the words of 8 codes that its lanes have: matrix j has codes j and j + 4 of each.
                    let word = if self.shared() { 32 * group + 8 * warp + g } else { 16 * warp + 2 * g + matrix / 4 };
                    row.push(float(output(group, head, 8 * word + matrix % 4 + 4 * below)));
                }
            }
            // Its rows of scores are two of each 64 tokens that its warpgroup scores.
            let first = 16 * warp + 4 * (g / 2) + g % 2;
            let mine = |token: usize| {
                let half = !self.shared() || token % 128 / 64 == group;
                of(group, token) && half && (token % 64 == first || token % 64 == first + 2)
            };
            for minima in [false, true] {
                for index in 0..self.heads / 4 {
                    let head = index / 2 * 8 + 2 * t + index % 2;
                    let tokens = (0..all).filter(|token| mine(*token));
                    let term = |token: usize| weights[head][token] * if minima { inputs.minima[token] } else { 1.0 };
                    row.push(float(tokens.map(term).sum()));
                }
            }
            row
        };
        (0..THREADS).map(|index| if index < 256 { thread(index) } else { vec![0; self.words()] }).collect()
    }

    fn case(self) -> Case {
        let inputs = self.inputs();
        let instruction = format!("wgmma.mma_async.sync.aligned.m64n{}k16.f32.f16.f16", self.heads);
        let rows = self.rows(&inputs);
        let kernel = format!("decode_{}", self.heads);
        let case = Case::all("decode_90", &kernel, &instruction, self.words(), rows, move |_| self.expected(&inputs));
        let shared = 1024 + self.heads * (2 * 128 + 1024) + 4 * self.tokens * (LATENTS / 2 + 36);
        // Weights are rounded to f16, and the smallest of them to its subnormals.
        let tolerance = Tolerance::Within { format: Format::F32, relative: 1e-3, absolute: 2e-4 };
        Case { threads: THREADS as u32, dynamic_shared: shared, ..case.within(tolerance) }
    }
}

impl Inputs {
    /// A head's score of a token, to the base 2.
    fn score(&self, head: usize, token: usize) -> f64 {
        let product: f64 = self.query[head].iter().zip(&self.codes[token]).map(|(q, code)| q * f64::from(*code)).sum();
        FACTOR * (self.scales[token] * product + self.minima[token] * self.sums[head])
    }
}

pub fn cases() -> Vec<Case> {
    let all = [(16, 64, 5), (32, 64, 11), (64, 128, 3)];
    all.map(|(heads, tokens, tiles)| Decode { heads, tokens, tiles }.case()).into()
}
