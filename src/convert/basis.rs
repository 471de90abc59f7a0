//! The coordinates of the latent: an orthogonal rotation and a shift of the origin, folded into the weights.
//!
//! **Rotation.** For any orthogonal `Q`, caching `Q c` instead of `c` and using `W_UK Q^T` and `W_UV Q^T` gives the
//! same scores and values. A random `Q` spreads every direction's power over all dimensions, so that one scale per
//! token fits all of them.
//!
//! **Centring.** Caching `c - m` for a constant `m` shifts every score of a query by `-scale q_nope . W_UK m`, the
//! same for all tokens, which softmax ignores; the values come back with `W_UV m` added to their bias.

use faer::Mat;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::check_finite;
use super::linalg::{apply, product, round, round_vector, thin_qr, widen, widen_vector};
use crate::error::{Error, Result, check_len};
use crate::weights::{LatentAttention, Linear, Matrix, RmsNorm};

/// The part of a layer that knows the latent's coordinates, in f64.
pub(super) struct Latent {
    pub down: Mat<f64>,
    pub down_bias: Option<Vec<f64>>,
    pub latent_bias: Option<Vec<f64>>,
    pub up_key: Mat<f64>,
    pub up_value: Mat<f64>,
    pub value_bias: Option<Vec<f64>>,
}

/// [`Latent`] in f32.
pub(super) struct RoundedLatent {
    pub down: Linear,
    pub latent_bias: Option<Vec<f32>>,
    pub up_key: Matrix,
    pub up_value: Matrix,
    pub value_bias: Option<Vec<f32>>,
}

impl Latent {
    fn of(layer: &LatentAttention) -> Self {
        let vector = |vector: &Option<Vec<f32>>| vector.as_deref().map(widen_vector);
        Self {
            down: widen(&layer.down.weight),
            down_bias: vector(&layer.down.bias),
            latent_bias: vector(&layer.latent_bias),
            up_key: widen(&layer.up_key),
            up_value: widen(&layer.up_value),
            value_bias: vector(&layer.value_bias),
        }
    }

    /// Caches `Q c` instead of `c`. The down-projection's outputs are turned too, which is right if there is no norm
    /// behind it or one without a gain.
    pub fn rotate(&mut self, seed: u64) {
        let q = random_orthogonal(self.down.nrows(), seed);
        self.down = product(q.as_ref(), self.down.as_ref());
        self.up_key = product(self.up_key.as_ref(), q.transpose());
        self.up_value = product(self.up_value.as_ref(), q.transpose());
        for bias in [&mut self.down_bias, &mut self.latent_bias].into_iter().flatten() {
            *bias = apply(q.as_ref(), bias);
        }
    }

    /// Caches `c - mean` instead of `c`.
    pub fn centre(&mut self, mean: &[f64]) {
        let bias = self.latent_bias.get_or_insert_with(|| vec![0.0; mean.len()]);
        bias.iter_mut().zip(mean).for_each(|(bias, mean)| *bias -= mean);
        let lost = apply(self.up_value.as_ref(), mean);
        self.add_to_values(&lost);
    }

    /// Moves a latent norm's gain into the up-projections.
    ///
    /// A latent bias `b` stands behind the gain, so it becomes `b / gain`. Where the gain is 0 the cached number is
    /// the constant `b`: its share of the values moves into their bias, and its share of the scores is dropped like
    /// every constant.
    fn absorb_gain(&mut self, gain: &[f64]) {
        if let Some(bias) = &mut self.latent_bias {
            let mut constant = vec![0.0; gain.len()];
            for ((bias, constant), &gain) in bias.iter_mut().zip(&mut constant).zip(gain) {
                match gain {
                    0.0 => *constant = std::mem::take(bias),
                    _ => *bias /= gain,
                }
            }
            let lost = apply(self.up_value.as_ref(), &constant);
            self.add_to_values(&lost);
        }
        for up in [&mut self.up_key, &mut self.up_value] {
            for (i, gain) in gain.iter().enumerate() {
                up.col_mut(i).iter_mut().for_each(|x| *x *= gain);
            }
        }
    }

    fn add_to_values(&mut self, constant: &[f64]) {
        let bias = self.value_bias.get_or_insert_with(|| vec![0.0; constant.len()]);
        bias.iter_mut().zip(constant).for_each(|(bias, constant)| *bias += constant);
    }

    /// Rounds everything to f32.
    ///
    /// # Errors
    /// [`Error::Numeric`](crate::Error::Numeric) if a number does not fit into f32.
    pub fn round(&self) -> Result<RoundedLatent> {
        let vector = |what, vector: &Option<Vec<f64>>| vector.as_ref().map(|v| round_vector(what, v)).transpose();
        Ok(RoundedLatent {
            down: Linear {
                weight: round("rounding the down-projection", self.down.as_ref())?,
                bias: vector("rounding the down-projection's bias", &self.down_bias)?,
            },
            latent_bias: vector("rounding the latent bias", &self.latent_bias)?,
            up_key: round("rounding the key up-projection", self.up_key.as_ref())?,
            up_value: round("rounding the value up-projection", self.up_value.as_ref())?,
            value_bias: vector("rounding the value bias", &self.value_bias)?,
        })
    }
}

/// The same layer with its latent turned by the random orthogonal matrix of `seed`.
///
/// The outputs stay the same up to rounding, whatever layer it is. DeepSeek's layers have a norm between the
/// down-projection and the cache. RMSNorm without its gain commutes with a rotation, which keeps the mean square, but
/// the gain does not. So the gain moves into the up-projections' columns, and the norm is left with ones.
///
/// # Errors
/// As for [`LatentAttention::validate`]; [`Error::NotFinite`](crate::Error::NotFinite) if a number of the latent's
/// projections is not finite, [`Error::Numeric`](crate::Error::Numeric) if a result does not fit into f32.
pub fn rotate_latent(layer: &LatentAttention, seed: u64) -> Result<LatentAttention> {
    check_latent(layer)?;
    let mut latent = Latent::of(layer);
    if let Some(norm) = &layer.latent_norm {
        latent.absorb_gain(&widen_vector(&norm.gain));
    }
    latent.rotate(seed);
    let unit_gain = |norm: &RmsNorm| RmsNorm { gain: vec![1.0; norm.gain.len()], ..*norm };
    with_latent(layer, &latent, layer.latent_norm.as_ref().map(unit_gain))
}

/// The same layer caching `c - mean` instead of `c`.
///
/// `mean` (`[latent_rank]`) is the average of what the layer caches now, after its latent norm and latent bias.
/// Rotate first: a rotation with a latent norm moves the gain, and the mean has to be the one of the new latent.
///
/// # Errors
/// As for [`rotate_latent`]; [`Error::Shape`](crate::Error::Shape) if `mean` has another length,
/// [`Error::Config`](crate::Error::Config) if the layer has norms over heads: keys would be shifted that are normalised.
pub fn centre_latent(layer: &LatentAttention, mean: &[f64]) -> Result<LatentAttention> {
    check_latent(layer)?;
    if layer.head_norms.is_some() {
        return Err(Error::Config {
            what: "centring a latent".into(),
            why: "would shift keys, over which the layer has norms; rotate it instead".into(),
        });
    }
    check_len("latent mean", mean.len(), &[("latent", layer.geometry.latent_rank)])?;
    check_finite("latent mean", mean)?;
    let mut latent = Latent::of(layer);
    latent.centre(mean);
    with_latent(layer, &latent, layer.latent_norm.clone())
}

fn with_latent(layer: &LatentAttention, latent: &Latent, norm: Option<RmsNorm>) -> Result<LatentAttention> {
    let RoundedLatent { down, latent_bias, up_key, up_value, value_bias } = latent.round()?;
    let layer = layer.clone();
    Ok(LatentAttention { down, latent_norm: norm, latent_bias, up_key, up_value, value_bias, ..layer })
}

/// Checks the layer's shapes, and that the numbers a change of basis reads are finite.
fn check_latent(layer: &LatentAttention) -> Result<()> {
    layer.validate()?;
    check_finite("down-projection", layer.down.weight.data())?;
    check_finite("down-projection's bias", layer.down.bias.as_deref().unwrap_or_default())?;
    check_finite("latent norm", layer.latent_norm.as_ref().map_or(&[], |norm| &norm.gain))?;
    check_finite("latent bias", layer.latent_bias.as_deref().unwrap_or_default())?;
    check_finite("key up-projection", layer.up_key.data())?;
    check_finite("value up-projection", layer.up_value.data())?;
    check_finite("value bias", layer.value_bias.as_deref().unwrap_or_default())
}

/// An orthogonal matrix, uniformly distributed (Haar): the Q of a Gaussian matrix, made unique by a positive
/// diagonal of R (Mezzadri, arXiv math-ph/0609050, section 5).
pub(super) fn random_orthogonal(size: usize, seed: u64) -> Mat<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let gaussian: Vec<f64> = (0..size * size).map(|_| standard_normal(&mut rng)).collect();
    let (mut q, r) = thin_qr(Mat::from_fn(size, size, |row, col| gaussian[row * size + col]));
    for i in 0..size {
        let sign = 1f64.copysign(r[(i, i)]);
        q.col_mut(i).iter_mut().for_each(|x| *x *= sign);
    }
    q
}

/// Box and Muller's transform; `1 - u` lies in (0, 1], so the logarithm is finite.
fn standard_normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
