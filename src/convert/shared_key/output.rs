//! Step 6: the output projection, fitted to what the whole block should add.

use faer::Mat;

use crate::convert::linalg::{add_product, regress, round, widen};
use crate::error::{Error, Result, check_len};
use crate::weights::Linear;

/// Sums for a ridge regression of an output projection.
///
/// The converted heads' outputs differ from the original's in ways that depend on them. A small change of the output
/// projection takes back what can be predicted.
#[derive(Clone, Debug)]
pub struct OutputFit {
    width: usize,
    hidden: usize,
    gram: Mat<f64>,
    cross: Mat<f64>,
}

impl OutputFit {
    /// Nothing observed yet; `width` is H*Dv.
    #[must_use]
    pub fn new(width: usize, hidden: usize) -> Self {
        Self { width, hidden, gram: Mat::zeros(width, width), cross: Mat::zeros(width, hidden) }
    }

    /// Adds tokens: their heads' outputs (`[tokens, width]`), what the projection of them lacks (`[tokens, hidden]`, the
    /// target minus today's output), and a weight for each token.
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths do not fit each other.
    pub fn observe(&mut self, heads: &[f32], lacking: &[f32], weights: &[f32]) -> Result<()> {
        let tokens = weights.len();
        check_len("heads' outputs", heads.len(), &[("tokens", tokens), ("width", self.width)])?;
        check_len("lacking output", lacking.len(), &[("tokens", tokens), ("hidden", self.hidden)])?;
        let weighted = |values: &[f32], width: usize| {
            Mat::from_fn(width, tokens, |i, token| f64::from(weights[token]) * f64::from(values[token * width + i]))
        };
        let (heads, lacking) = (weighted(heads, self.width), weighted(lacking, self.hidden));
        add_product(self.gram.as_mut(), heads.as_ref(), heads.transpose());
        add_product(self.cross.as_mut(), heads.as_ref(), lacking.transpose());
        Ok(())
    }

    /// The projection with what was lacking added, held back by `ridge` times the mean second moment.
    ///
    /// # Errors
    /// [`Error::Shape`] if the projection has other sizes; [`Error::Numeric`] if an observed number was not finite.
    pub fn solve(&self, output: &Linear, ridge: f64) -> Result<Linear> {
        let weight = &output.weight;
        if (weight.rows(), weight.cols()) != (self.hidden, self.width) {
            return Err(Error::Shape {
                what: "output projection",
                expected: format!("[{}, {}]", self.hidden, self.width),
                got: format!("[{}, {}]", weight.rows(), weight.cols()),
            });
        }
        let mean = (0..self.width).map(|i| self.gram[(i, i)]).sum::<f64>() / self.width.max(1) as f64;
        let mut gram = self.gram.clone();
        for i in 0..self.width {
            gram[(i, i)] += ridge * mean;
        }
        let change = regress(gram, self.cross.clone(), 0.0, &Mat::zeros(self.width, self.hidden))?;
        let changed = widen(weight) + change.transpose();
        Ok(Linear { weight: round("rounding the output projection", changed.as_ref())?, bias: output.bias.clone() })
    }
}
