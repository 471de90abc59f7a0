//! The cache in the loop: numbers as they come back from it, and gradients as if they had not been there.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use half::bf16;
use latent_attention::cache::{CacheFormat, LatentFormat, RangeSetting, RopeFormat, quantize};

use super::node::{Value, by_type, common_type, node1, with_numbers};
use super::primitives::{self, by_hand};
use super::real::{Real, for_rows};

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Rounded to bf16.
    Bf16,
    /// As codes `0..=max_code` with a scale and a minimum for every `group` of them.
    Codes {
        /// 15 or 255.
        max_code: u8,
        /// Numbers that share a scale; the last group of a row may be shorter.
        group: usize,
        /// How the range of a group is chosen.
        range: RangeSetting,
    },
}

impl Stored {
    /// How a cache stores its latents.
    #[must_use]
    pub fn latent(format: CacheFormat) -> Self {
        match format.latent {
            LatentFormat::Bf16 => Self::Bf16,
            LatentFormat::Int4 { group } => Self::Codes { max_code: 15, group: group.size(), range: format.range },
        }
    }

    /// How a cache stores its rotated keys.
    #[must_use]
    pub fn rope(format: CacheFormat) -> Self {
        match format.rope {
            RopeFormat::Bf16 => Self::Bf16,
            // One scale for each run of up to 512 values, as that format is documented.
            RopeFormat::Int8 => Self::Codes { max_code: 255, group: 512, range: format.range },
            RopeFormat::Int4 { group } => Self::Codes { max_code: 15, group: group.size(), range: format.range },
        }
    }
}

impl Stored {
    /// Replaces the numbers by what the cache would give back, rounded to f32.
    fn apply(self, numbers: &mut [f32]) {
        match self {
            Self::Bf16 => numbers.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
            Self::Codes { max_code, group, range } => {
                let bits = if max_code == 15 { 4 } else { 8 };
                // The largest group there is.
                let mut codes = [0u8; 512];
                for values in numbers.chunks_mut(group.clamp(1, codes.len())) {
                    let codes = &mut codes[..values.len()];
                    let affine = quantize(values, max_code, range.of_group(values.len(), bits), codes).affine;
                    values.iter_mut().zip(codes).for_each(|(x, code)| *x = affine.value(*code) as f32);
                }
            }
        }
    }
}

/// Columns that are stored together, as one row of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    /// Which.
    pub columns: Range<usize>,
    /// How.
    pub stored: Stored,
}

/// Puts columns of each row through the cache: the numbers are exactly those that
/// [`quantize`](latent_attention::cache::quantize)'s codes stand for, rounded to f32; the gradient passes unchanged
/// (straight-through), since that of a staircase is 0 wherever it exists.
///
/// # Errors
/// If a row is narrower than the columns named.
pub fn fake_quantise(x: &Tensor, parts: &Arc<[StoredPart]>) -> Result<Tensor> {
    let (dtype, (_, width)) = (common_type("quantisation", &[x])?, x.dims2()?);
    if let Some(part) = parts.iter().find(|part| part.columns.start > part.columns.end || part.columns.end > width) {
        bail!("quantisation of columns {:?} of {width}", part.columns)
    }
    if !by_hand(x) {
        return primitives::fake_quantise(x, parts);
    }
    by_type!(dtype, run(&x.contiguous()?, parts))
}

/// Puts a row through the cache.
pub(super) fn store<T: Real>(row: &mut [T], parts: &[StoredPart]) {
    for part in parts {
        let row = &mut row[part.columns.clone()];
        let mut numbers: Vec<f32> = row.iter().map(|x| x.to_f32()).collect();
        part.stored.apply(&mut numbers);
        row.iter_mut().zip(numbers).for_each(|(x, stored)| *x = T::from_f64(stored.into()));
    }
}

fn run<T: Real>(x: &Tensor, parts: &[StoredPart]) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let mut out = with_numbers([x], |[x]: [&[T]; 1]| Ok(x.to_vec()))?;
    for_rows(&mut out, width, |_, row| store(row, parts));
    node1("quantisation", x, Value::new(out, (tokens, width)), |_, gradient| Ok([Some(gradient.clone())]))
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{noise, random};
    use super::super::inner;
    use super::*;
    use candle_core::{Device, Var};
    use latent_attention::Geometry;
    use latent_attention::cache::{CacheLayout, Group, PagedCache};

    #[test]
    fn the_numbers_are_the_caches() {
        let geometry = Geometry::mha2mla(4, 4, 32, 20, 150).unwrap(); // 600 latents, 80 rotated
        let (latent, rope) = (geometry.latent_rank, geometry.rope_width());
        let numbers: Vec<f32> = noise(5, 3 * (latent + rope)).into_iter().map(|x| (x * x * x * 9.0) as f32).collect();
        let x = Tensor::from_slice(&numbers, (3, latent + rope), &Device::Cpu).unwrap();
        let formats = [
            CacheFormat::BF16,
            CacheFormat::INT4,
            CacheFormat::int4(Group::G128),
            CacheFormat::INT4.with_rope(RopeFormat::Int8),
            CacheFormat::INT4.with_range(RangeSetting::Mse),
            CacheFormat::int4(Group::G128).with_range(RangeSetting::Mse).with_rope(RopeFormat::Int8),
        ];
        for format in formats {
            let parts = [(0..latent, Stored::latent(format)), (latent..latent + rope, Stored::rope(format))];
            let parts: Arc<[StoredPart]> =
                parts.into_iter().map(|(columns, stored)| StoredPart { columns, stored }).collect();
            let got: Vec<Vec<f32>> = fake_quantise(&x, &parts).unwrap().to_vec2().unwrap();
            let mut cache = PagedCache::new(CacheLayout::new(&geometry, format, 8).unwrap(), 1).unwrap();
            for (slot, row) in numbers.chunks_exact(latent + rope).enumerate() {
                assert_eq!(cache.write(slot, &row[..latent], &row[latent..]).unwrap(), 0);
                let stored = [cache.latent(slot).unwrap(), cache.rope(slot).unwrap()].concat();
                let stored: Vec<f32> = stored.into_iter().map(|x| x as f32).collect();
                assert_eq!(got[slot], stored, "{format:?}");
            }
        }
    }

    #[test]
    fn gradients_pass_and_other_columns_stay() {
        let stored = Stored::Codes { max_code: 15, group: 32, range: RangeSetting::MinMax };
        let parts: Arc<[StoredPart]> = [StoredPart { columns: 2..5, stored }].into();
        let x = Var::from_tensor(&random(1, &[4, 6])).unwrap();
        let y = fake_quantise(&x, &parts).unwrap();
        let (before, after): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (x.to_vec2().unwrap(), y.to_vec2().unwrap());
        for (before, after) in before.iter().zip(&after) {
            assert_eq!((before[0], before[1], before[5]), (after[0], after[1], after[5]));
            assert_ne!(before[2..5], after[2..5]);
        }
        let weights = random(2, &[4, 6]);
        let gradients = inner(&y, &weights).unwrap().backward().unwrap();
        assert_eq!(gradients.get(&x).unwrap().to_vec2::<f64>().unwrap(), weights.to_vec2::<f64>().unwrap());
        assert!(fake_quantise(&random(1, &[4, 4]), &parts).is_err());
    }
}
