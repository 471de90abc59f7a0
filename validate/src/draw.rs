//! Random inputs, the same on every machine: from a seed, by IEEE operations alone.

use half::bf16;
use latent_attention::rope::RopeTables;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// A source of random numbers.
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    /// Each `stream` of a seed has numbers of its own, so that one case does not change another's.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// Uniform in -size..size.
    pub fn f32(&mut self, len: usize, size: f32) -> Vec<f32> {
        (0..len).map(|_| size * self.0.random_range(-1.0f32..1.0)).collect()
    }

    /// Uniform in -size..size.
    pub fn bf16(&mut self, len: usize, size: f32) -> Vec<bf16> {
        self.f32(len, size).into_iter().map(bf16::from_f32).collect()
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0.random_range(0..bound)
    }

    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        values.shuffle(&mut self.0);
    }

    /// Cosines and sines of random angles, from the tangents of their halves: libraries of mathematics may differ in
    /// the last bit of a cosine, but not of a quotient.
    pub fn tables(&mut self, positions: usize, frequencies: usize) -> latent_attention::Result<RopeTables> {
        let angle = |half: f32| {
            let tangent = f64::from(half);
            let length = 1.0 + tangent * tangent;
            (((1.0 - tangent * tangent) / length) as f32, (2.0 * tangent / length) as f32)
        };
        let (cos, sin) = self.f32(positions * frequencies, 4.0).into_iter().map(angle).unzip();
        RopeTables::new(frequencies, cos, sin)
    }
}
