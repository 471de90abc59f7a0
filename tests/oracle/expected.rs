//! What transformers computed: `expected.safetensors` of one family.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::Tokens;

/// The sequences that were computed, by name.
pub const RUNS: [&str; 3] = ["near", "far", "gap"];

/// The bytes of the file.
pub struct Expected(Vec<u8>);

impl Expected {
    pub fn read(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap())
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    fn integers(&self, name: &str) -> Vec<usize> {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::I64);
        tensor.data().as_chunks().0.iter().map(|&raw| usize::try_from(i64::from_le_bytes(raw)).unwrap()).collect()
    }

    fn vectors(&self, name: &str) -> Tokens {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F32);
        let numbers: Vec<f64> =
            tensor.data().as_chunks().0.iter().map(|&raw| f64::from(f32::from_le_bytes(raw))).collect();
        numbers.chunks_exact(tensor.shape()[1]).map(<[f64]>::to_vec).collect()
    }

    pub fn has_layer(&self, layer: usize) -> bool {
        self.tensors().tensor(&format!("{}.attention.{layer}.input", RUNS[0])).is_ok()
    }

    /// What goes into a layer's attention, and what the layer adds to the residual stream.
    pub fn layer(&self, run: &str, layer: usize) -> (Tokens, Tokens) {
        let part = |part: &str| self.vectors(&format!("{run}.attention.{layer}.{part}"));
        (part("input"), part("output"))
    }

    pub fn positions(&self, run: &str) -> Vec<usize> {
        self.integers(&format!("{run}.positions"))
    }

    pub fn tokens(&self, run: &str) -> Vec<usize> {
        self.integers(&format!("{run}.tokens"))
    }

    pub fn logits(&self, run: &str) -> Tokens {
        self.vectors(&format!("{run}.logits"))
    }
}
