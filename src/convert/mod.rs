//! Makes [`LatentAttention`] of [`DenseAttention`]: MHA2MLA's conversion (arXiv 2502.14837).
//!
//! 1. **Partial RoPE.** Every head keeps the rotation of `rope_dim/2` pairs ([`RopeChoice`]); the other dimensions
//!    are no longer rotated. This is the step that changes the model, and that fine-tuning repairs.
//! 2. **Low rank.** The unrotated key rows and the value rows become `up down` ([`Factorization`]), and
//!    `c = down x` is what is cached. At full rank this step is exact.
//! 3. **Basis.** The latent is rotated, or centred too ([`Basis`]), which changes nothing but its quantisation error.
//!
//! Arithmetic is f64, and every weight is rounded to f32 once, at the end.
//!
//! Biases: queries keep theirs, rotated keys too. The bias of an unrotated key adds the same number to all scores of
//! a query, which softmax ignores, so it is dropped. The value bias is added after the up-projection.
//!
//! Norms over heads (Qwen3) stay: the gain of unrotated keys moves to the queries that meet them, and what no weight can
//! take in, each key's root mean square, is the layer's [`HeadNorms`](crate::weights::HeadNorms). Whatever shifts a key's
//! unrotated part would change it: [`Basis::centre`] and biases on keys are refused beside them.
//!
//! ```
//! use latent_attention::convert::{Calibration, ConvertOptions, convert};
//! use latent_attention::weights::{DenseAttention, Linear, Matrix};
//!
//! let weights = |rows, cols| Linear::new(Matrix::from_fn(rows, cols, |r, c| ((7 * r + 3 * c) % 11) as f32 - 5.0));
//! let layer = DenseAttention {
//!     query_heads: 4,
//!     kv_heads: 2,
//!     head_dim: 8,
//!     query: weights(32, 24),
//!     key: weights(16, 24),
//!     value: weights(16, 24),
//!     output: weights(24, 32),
//!     head_norms: None,
//! };
//! let hidden_states: Vec<f32> = (0..10 * 24).map(|i| (i as f32).sin()).collect();
//! let mut calibration = Calibration::new(&layer)?;
//! calibration.observe(&layer, &hidden_states)?;
//!
//! let converted = convert(&layer, &ConvertOptions::new(4, 16), Some(&calibration))?;
//! assert_eq!(converted.down.weight.rows(), 16);
//! # Ok::<(), latent_attention::Error>(())
//! ```

mod basis;
mod calibration;
mod factorize;
mod heads;
mod linalg;
mod options;
pub mod shared_key;

pub use basis::{centre_latent, rotate_latent};
pub use calibration::Calibration;
pub use options::{Basis, ConvertOptions, Factorization, RopeChoice};

use basis::{Latent, RoundedLatent};
use factorize::{Factors, Whitener, factorize};
use heads::HeadRows;
use options::need;

use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::rope::Pairing;
use crate::weights::{DenseAttention, LatentAttention};

/// Converts one layer.
///
/// # Errors
/// - [`Error::Geometry`] and [`Error::Shape`] as for [`DenseAttention::validate`], or if `rope_dim` does not fit the
///   head or `latent_rank` is 0;
/// - [`Error::NotFinite`] if a weight is not finite;
/// - [`Error::Config`] if `latent_rank` exceeds the full rank, the calibration belongs to a
///   layer of other sizes, an option needs a calibration and there is none, or a layer with norms over heads has biases on
///   keys or is to be centred;
/// - [`Error::Numeric`] if a factorisation fails or a result does not fit into f32.
pub fn convert(
    layer: &DenseAttention,
    options: &ConvertOptions,
    calibration: Option<&Calibration>,
) -> Result<LatentAttention> {
    check_dense(layer)?;
    check_head_norms(layer, options)?;
    let geometry = Geometry::mha2mla(layer.query_heads, layer.kv_heads, layer.head_dim, options.rope_dim, 1)?
        .with_latent_rank(options.latent_rank)?
        .with_key_norm(layer.head_norms.is_some());
    if let Some(calibration) = calibration {
        calibration.check_fits(layer)?;
    }
    let frequencies = options.rope.select(layer, options.rope_dim, calibration)?;
    let rows = HeadRows::new(layer, &frequencies);
    let latent = make_latent(layer, &rows, options, calibration)?;
    let RoundedLatent { down, latent_bias, up_key, up_value, value_bias } = latent.round()?;
    Ok(LatentAttention {
        geometry,
        query_down: None,
        query_rope: layer.query.select_outputs(&rows.query_rope),
        query_nope: layer.query.select_outputs(&rows.query_nope),
        key_rope: layer.key.select_outputs(&rows.key_rope),
        down,
        latent_norm: None,
        latent_bias,
        up_key,
        up_value,
        value_bias,
        output: layer.output.clone(),
        frequencies,
        pairing: Pairing::Half,
        scale: geometry.default_scale(),
        head_norms: layer.head_norms.as_ref().map(|norms| rows.head_norms(norms, layer.head_dim)),
    })
}

/// Returns [`Error::Config`] for what would change a key's root mean square.
fn check_head_norms(layer: &DenseAttention, options: &ConvertOptions) -> Result<()> {
    if layer.head_norms.is_none() {
        return Ok(());
    }
    let refused = |what: &str, why: &str| Err(Error::Config { what: what.into(), why: why.into() });
    if layer.key.bias.is_some() {
        return refused(
            "a bias on keys",
            "the conversion drops its unrotated part, which the layer's norm over keys needs",
        );
    }
    if options.basis.centre {
        return refused(
            "Basis::centre",
            "shifts keys, over which the layer has a norm; use Basis::rotated or Basis::plain",
        );
    }
    Ok(())
}

/// Factorises, then changes to the wanted basis.
fn make_latent(
    layer: &DenseAttention,
    rows: &HeadRows,
    options: &ConvertOptions,
    calibration: Option<&Calibration>,
) -> Result<Latent> {
    let mean = if options.basis.centre {
        Some(need(calibration, "Basis::centre", "use Basis::rotated or Basis::plain")?.mean())
    } else {
        None
    };
    let whitener = if options.whiten {
        Some(Whitener::new(need(calibration, "ConvertOptions::whiten", "convert without whitening")?)?)
    } else {
        None
    };
    let key = linalg::widen(&layer.key.weight.select_rows(&rows.key_nope));
    let value = linalg::widen(&layer.value.weight);
    let Factors { down, up_key, up_value } =
        factorize(options.factorization, key.as_ref(), value.as_ref(), options.latent_rank, whitener.as_ref())?;
    let value_bias = layer.value.bias.as_deref().map(linalg::widen_vector);
    let mut latent = Latent { down, down_bias: None, latent_bias: None, up_key, up_value, value_bias };
    if options.basis.rotate {
        // Of a split latent both parts are turned together: one scale per token then fits keys and values alike.
        // It is as exact as two rotations, since the zero blocks of the up-projections turn along.
        latent.rotate(options.basis.seed);
    }
    if let Some(mean) = mean {
        let latent_mean = linalg::apply(latent.down.as_ref(), &mean);
        latent.centre(&latent_mean);
    }
    Ok(latent)
}

/// Checks a dense layer's shapes and that all of its numbers are finite.
fn check_dense(layer: &DenseAttention) -> Result<()> {
    layer.validate()?;
    if layer.hidden() == 0 {
        return Err(Error::Config { what: "dense attention".into(), why: "its hidden size is 0".into() });
    }
    for (what, linear) in [
        ("query projection", &layer.query),
        ("key projection", &layer.key),
        ("value projection", &layer.value),
        ("output projection", &layer.output),
    ] {
        check_finite(what, linear.weight.data())?;
        check_finite(&format!("{what}'s bias"), linear.bias.as_deref().unwrap_or_default())?;
    }
    if let Some(norms) = &layer.head_norms {
        check_finite("query head norm", &norms.query)?;
        check_finite("key head norm", &norms.key)?;
    }
    Ok(())
}

/// Returns [`Error::NotFinite`] with the first element that is NaN or infinite.
fn check_finite<T: Copy + Into<f64>>(what: &str, values: &[T]) -> Result<()> {
    for (i, &value) in values.iter().enumerate() {
        let value: f64 = value.into();
        if !value.is_finite() {
            return Err(Error::NotFinite { what: what.into(), why: format!("element {i} is {value}, must be finite") });
        }
    }
    Ok(())
}
