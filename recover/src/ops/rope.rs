//! Rotary position embedding on some of a row's columns.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use latent_attention::rope::{Pairing, RopeTables};

use super::node::{Value, by_type, common_type, constant, node1, with_numbers};
use super::primitives::{self, by_hand};
use super::real::{Real, for_rows};

/// Which columns turn, by which frequency, at which position.
#[derive(Clone)]
pub struct Rotation {
    tables: Arc<RopeTables>,
    /// For each pair its two columns, and the frequency that turns it.
    pairs: Arc<[(usize, usize, usize)]>,
    /// One more than the largest column.
    width: usize,
}

impl Rotation {
    /// Turns heads of `rope_dim` columns each: those of `heads`, which says for each its first column and the frequencies
    /// (columns of the tables) of its pairs.
    ///
    /// # Errors
    /// If a head has not one frequency per pair, or the tables lack one.
    pub fn new<'a>(
        tables: Arc<RopeTables>,
        heads: impl IntoIterator<Item = (usize, &'a [u32])>,
        rope_dim: usize,
        pairing: Pairing,
    ) -> Result<Self> {
        let mut pairs = Vec::new();
        for (start, frequencies) in heads {
            if frequencies.len() * 2 != rope_dim {
                bail!("rotation: {} frequencies for a head of {rope_dim}", frequencies.len())
            }
            for (pair, &frequency) in frequencies.iter().enumerate() {
                if frequency as usize >= tables.frequencies() {
                    bail!("rotation: frequency {frequency} of {}", tables.frequencies())
                }
                let (i, j) = pairing.dims(pair, rope_dim);
                pairs.push((start + i, start + j, frequency as usize));
            }
        }
        let width = pairs.iter().map(|&(i, j, _)| i.max(j) + 1).max().unwrap_or(0);
        Ok(Self { tables, pairs: pairs.into(), width })
    }

    /// For each pair its two columns, and the frequency that turns it.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        self.pairs.iter().copied()
    }

    /// Cosine and sine of a pair's angle.
    pub(super) fn at(&self, position: usize, frequency: usize) -> (f32, f32) {
        self.tables.at(position, frequency)
    }

    /// Turns a row at `position`, or turns it back.
    #[inline(always)]
    fn turn<T: Real>(&self, row: &mut [T], position: usize, back: bool) {
        for &(i, j, frequency) in self.pairs.iter() {
            let (cos, sin) = self.tables.at(position, frequency);
            let (cos, sin) = (T::from_f64(cos.into()), T::from_f64(if back { -sin } else { sin }.into()));
            let (a, b) = (row[i], row[j]);
            row[i] = a * cos - b * sin;
            row[j] = b * cos + a * sin;
        }
    }
}

/// Rotates the columns that `rotation` names, each row at its position in its sequence of `sequence` tokens, and leaves
/// the others. In f32, the bits are those of [`rotate_head`](latent_attention::rope::rotate_head).
///
/// # Errors
/// If the rows are too narrow, no whole number of sequences, or the tables have too few positions.
pub fn rotate(x: &Tensor, rotation: &Rotation, sequence: usize) -> Result<Tensor> {
    let (dtype, (tokens, width)) = (common_type("rotation", &[x])?, x.dims2()?);
    if width < rotation.width || sequence == 0 || tokens % sequence != 0 {
        bail!("rotation of {:?} in sequences of {sequence} up to column {}", x.dims(), rotation.width)
    }
    if sequence > rotation.tables.positions() {
        bail!("rotation: {sequence} positions, the tables have {}", rotation.tables.positions())
    }
    if !by_hand(x) {
        return primitives::rotate(x, rotation, sequence);
    }
    by_type!(dtype, run(&x.contiguous()?, rotation, sequence))
}

fn run<T: Real>(x: &Tensor, rotation: &Rotation, sequence: usize) -> Result<Tensor> {
    let value = turned::<T>(x, rotation, sequence, false)?;
    let rotation = rotation.clone();
    node1("rotation", x, value, move |_, gradient| {
        Ok([Some(constant(turned::<T>(gradient, &rotation, sequence, true)?)?)])
    })
}

fn turned<T: Real>(x: &Tensor, rotation: &Rotation, sequence: usize, back: bool) -> Result<Value<T>> {
    let (tokens, width) = x.dims2()?;
    let mut out = with_numbers([x], |[x]: [&[T]; 1]| Ok(x.to_vec()))?;
    for_rows(
        &mut out,
        width,
        #[inline(always)]
        |row, out| rotation.turn(out, row % sequence, back),
    );
    Ok(Value::new(out, (tokens, width)))
}

#[cfg(test)]
mod tests {
    use super::super::gradient_check::{check, noise, random};
    use super::*;
    use candle_core::Device;
    use latent_attention::rope::rotate_head;

    #[test]
    fn gradients_agree_with_differences_and_bits_with_the_library() {
        let tables = Arc::new(RopeTables::from_theta(100.0, 8, 5));
        for pairing in [Pairing::Half, Pairing::Interleaved] {
            let heads: [(usize, &[u32]); 2] = [(1, &[3, 0]), (6, &[1, 2])];
            let rotation = Rotation::new(tables.clone(), heads, 4, pairing).unwrap();
            check(&[random(1, &[10, 12])], |x| rotate(&x[0], &rotation, 5));

            let mut numbers: Vec<f32> = noise(3, 60).into_iter().map(|x| x as f32).collect();
            let x = Tensor::from_slice(&numbers, (5, 12), &Device::Cpu).unwrap();
            let got: Vec<f32> = rotate(&x, &rotation, 5).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            for (position, row) in numbers.chunks_exact_mut(12).enumerate() {
                for (start, frequencies) in heads {
                    rotate_head(&mut row[start..start + 4], frequencies, pairing, &tables, position);
                }
            }
            assert_eq!(got, numbers);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let tables = Arc::new(RopeTables::from_theta(100.0, 8, 5));
        let new = |frequencies: &[u32]| Rotation::new(tables.clone(), [(0, frequencies)], 4, Pairing::Half);
        assert!(new(&[0]).is_err() && new(&[0, 4]).is_err());
        let rotation = new(&[0, 3]).unwrap();
        for (shape, sequence) in [([6, 4], 6), ([6, 4], 4), ([5, 3], 5), ([5, 4], 0)] {
            assert!(rotate(&random(1, &shape), &rotation, sequence).is_err(), "{shape:?} {sequence}");
        }
    }
}
