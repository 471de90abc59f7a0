//! The core's errors and candle's, as one.

use std::fmt;

/// Shorthand for results of functions that call both the core and candle.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the core's or of candle's, on its way to be one of candle's.
///
/// [`Mla`](crate::Mla) returns candle's errors, as candle's own operations do. How a [`latent_attention::Error`] becomes
/// one of these is for neither crate to say, so functions that call both return this: `?` makes it of either, and where a
/// function returns candle's errors, `?` takes this.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use latent_attention::Geometry;
///
/// fn zeros(name: &str) -> latent_attention_candle::Result<Tensor> {
///     let geometry = Geometry::named(name)?;
///     Ok(Tensor::zeros((1, geometry.latent_rank), DType::BF16, &Device::Cpu)?)
/// }
///
/// fn twice(name: &str) -> candle_core::Result<Tensor> {
///     zeros(name)? * 2.0
/// }
/// assert_eq!(twice("deepseek-v3")?.dims(), [1, 512]);
/// assert!(twice("gpt-2").is_err());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(thiserror::Error)]
#[error(transparent)]
pub struct Error(#[from] candle_core::Error);

/// The message, as candle's own errors have it: what a program prints whose `main` returns one.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// With the message and nothing else. (`candle_core::Error::wrap` would append a backtrace to it where `RUST_BACKTRACE`
/// is set.)
impl From<latent_attention::Error> for Error {
    fn from(error: latent_attention::Error) -> Self {
        Self(candle_core::Error::Wrapped(Box::new(error)))
    }
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        error.0
    }
}

/// The error for a tensor, or whatever `what` names, that cannot be taken as it is.
pub(crate) fn refused(what: impl Into<String>, why: impl Into<String>) -> Error {
    latent_attention::Error::Config { what: what.into(), why: why.into() }.into()
}
