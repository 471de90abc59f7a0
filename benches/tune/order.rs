//! In which order the ways to serve a layer are measured.

use std::collections::BTreeMap;

use latent_attention::ops::DecodeVariant;

/// The first of each kernel, the second of each, and so on, so that kernels are compared before their tiles and stages; each
/// round in the given order, so that the chosen one remains the first of all.
pub fn by_kernels(variants: Vec<DecodeVariant>) -> Vec<DecodeVariant> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut with_rounds: Vec<(usize, DecodeVariant)> = variants
        .into_iter()
        .map(|variant| {
            let round = seen.entry(variant.kernel).or_default();
            *round += 1;
            (*round, variant)
        })
        .collect();
    with_rounds.sort_by_key(|(round, _)| *round);
    with_rounds.into_iter().map(|(_, variant)| variant).collect()
}
