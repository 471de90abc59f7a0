//! The weights of one attention layer, before conversion ([`DenseAttention`]) and after ([`LatentAttention`]).
//!
//! All matrices are row-major f32 with one row per output, as in PyTorch's `nn.Linear`: `y = W x + b`.

use crate::error::{Error, Result, check_epsilon, check_finite, check_len};
use crate::geometry::Geometry;
use crate::rope::{FrequencyIndex, Pairing};

/// A row-major f32 matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    data: Vec<f32>,
}

impl Matrix {
    /// Wraps `data`, `rows * cols` numbers in row-major order.
    ///
    /// # Errors
    /// [`Error::Shape`] if `data` has another length.
    pub fn new(rows: usize, cols: usize, data: Vec<f32>) -> Result<Self> {
        check_len("matrix", data.len(), &[("rows", rows), ("cols", cols)])?;
        Ok(Self { rows, cols, data })
    }

    /// A matrix whose element at `(row, col)` is `f(row, col)`.
    pub fn from_fn(rows: usize, cols: usize, mut f: impl FnMut(usize, usize) -> f32) -> Self {
        let data = (0..rows * cols).map(|i| f(i / cols, i % cols)).collect();
        Self { rows, cols, data }
    }

    /// Number of rows (outputs).
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (inputs).
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All elements, row-major.
    #[must_use]
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// All elements, row-major, without a copy.
    #[must_use]
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// One row.
    ///
    /// # Panics
    /// If `row >= rows`, like slice indexing.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols..][..self.cols]
    }

    /// The matrix made of the given rows, in the given order.
    ///
    /// # Panics
    /// If an index is `>= rows`, like slice indexing.
    #[must_use]
    pub fn select_rows(&self, rows: &[usize]) -> Self {
        Self { rows: rows.len(), cols: self.cols, data: rows.iter().flat_map(|&r| self.row(r)).copied().collect() }
    }

    /// Returns [`Error::Shape`] unless the matrix is `rows x cols`.
    pub(crate) fn check(&self, what: &'static str, rows: usize, cols: usize) -> Result<()> {
        if (self.rows, self.cols) == (rows, cols) {
            return Ok(());
        }
        Err(Error::Shape {
            what,
            expected: format!("[{rows}, {cols}]"),
            got: format!("[{}, {}]", self.rows, self.cols),
        })
    }
}

/// A linear map with an optional bias: `y = W x + b`.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `[outputs, inputs]`.
    pub weight: Matrix,
    /// `[outputs]`.
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    /// A map without a bias.
    #[must_use]
    pub fn new(weight: Matrix) -> Self {
        Self { weight, bias: None }
    }

    /// The map that yields the given outputs, in the given order.
    ///
    /// # Panics
    /// If an index is out of range, like slice indexing.
    #[must_use]
    pub fn select_outputs(&self, rows: &[usize]) -> Self {
        Self {
            weight: self.weight.select_rows(rows),
            bias: self.bias.as_ref().map(|bias| rows.iter().map(|&r| bias[r]).collect()),
        }
    }

    /// `W x + b` for every row of `x`, `[T, inputs]`; returns `[T, outputs]`. Sums in f64 and rounds once: meant for
    /// examples and checks, not for speed.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` does not divide into rows of `inputs`, or the bias does not fit the weight.
    pub fn apply(&self, x: &[f32]) -> Result<Vec<f32>> {
        self.check("linear", self.weight.rows(), self.weight.cols())?;
        let inputs = self.weight.cols();
        let tokens = x.len().checked_div(inputs).unwrap_or(0);
        check_len("linear input", x.len(), &[("tokens", tokens), ("inputs", inputs)])?;
        let output = |x: &[f32], row: usize| {
            let products = self.weight.row(row).iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let bias = self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[row]));
            (products.sum::<f64>() + bias) as f32
        };
        let rows = (0..tokens).map(|t| &x[t * inputs..][..inputs]);
        Ok(rows.flat_map(|x| (0..self.weight.rows()).map(move |row| output(x, row))).collect())
    }

    fn check(&self, what: &'static str, rows: usize, cols: usize) -> Result<()> {
        self.weight.check(what, rows, cols)?;
        match &self.bias {
            Some(bias) => check_len(what, bias.len(), &[("bias", rows)]),
            None => Ok(()),
        }
    }
}

/// RMSNorm: `x / sqrt(mean(x^2) + epsilon) * gain`.
#[derive(Clone, Debug, PartialEq)]
pub struct RmsNorm {
    /// One factor per dimension.
    pub gain: Vec<f32>,
    /// Added to the mean square: finite, not negative.
    pub epsilon: f32,
}

/// Norms over whole heads of queries and keys, in front of their rotation (Qwen3): `x / sqrt(mean(x^2) + epsilon) * gain`.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadNorms {
    /// The gain of queries: `[d]`, the same for all heads, of a dense layer; of a latent one `[G, R + Dn]`, each KV head's
    /// rotated dimensions first, where the unrotated ones include the gain of the keys that they meet.
    pub query: Vec<f32>,
    /// The gain of keys: `[d]` of a dense layer; of a latent one that of rotated dimensions, `[G, R]`.
    pub key: Vec<f32>,
    /// Added to the mean square: finite, not negative.
    pub epsilon: f32,
}

impl HeadNorms {
    fn check(&self, query: &[(&str, usize)], key: &[(&str, usize)]) -> Result<()> {
        check_len("query head norm", self.query.len(), query)?;
        check_len("key head norm", self.key.len(), key)?;
        check_epsilon("head norm", self.epsilon)
    }
}

/// One attention layer of an MHA or GQA model whose heads are rotated as a whole, rows head-major.
///
/// Rotation pairs dimension `i` with `i + head_dim/2` ([`Pairing::Half`]), which is how Hugging Face stores Llama
/// and Qwen models; loaders bring other orders into this one.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseAttention {
    /// Query heads, H.
    pub query_heads: usize,
    /// KV heads, G.
    pub kv_heads: usize,
    /// Dimensions per head, d.
    pub head_dim: usize,
    /// `[H*d, hidden]`.
    pub query: Linear,
    /// `[G*d, hidden]`.
    pub key: Linear,
    /// `[G*d, hidden]`.
    pub value: Linear,
    /// `[hidden, H*d]`.
    pub output: Linear,
    /// Norms over heads of queries and keys, if the model has them.
    pub head_norms: Option<HeadNorms>,
}

impl DenseAttention {
    /// Width of the layer's input and output.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.query.weight.cols()
    }

    /// Checks every shape against the head counts.
    ///
    /// # Errors
    /// [`Error::Geometry`] if the head counts do not fit, [`Error::Shape`] names the matrix that does not.
    pub fn validate(&self) -> Result<()> {
        let (heads, groups, d) = (self.query_heads, self.kv_heads, self.head_dim);
        // A layer that rotates everything and keeps all of V is the same layer in latent terms.
        Geometry::mha2mla(heads, groups, d, d, d)?;
        let hidden = self.hidden();
        self.query.check("query projection", heads * d, hidden)?;
        self.key.check("key projection", groups * d, hidden)?;
        self.value.check("value projection", groups * d, hidden)?;
        self.output.check("output projection", hidden, heads * d)?;
        self.head_norms.as_ref().map_or(Ok(()), |norms| norms.check(&[("head", d)], &[("head", d)]))
    }
}

/// The low-rank query of DeepSeek's larger models: `q = W_b norm(W_a x)`.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryDown {
    /// `[q_rank, hidden]`.
    pub down: Linear,
    /// Norm over `q_rank`.
    pub norm: RmsNorm,
    /// Whether the query projections read `W_a x` itself too, behind its normed self, so that their inputs are `2 q_rank`
    /// (A.X K2). False for all others.
    pub with_unnormed: bool,
}

impl QueryDown {
    /// Inputs of the query projections.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.norm.gain.len() * if self.with_unnormed { 2 } else { 1 }
    }
}

/// One latent-attention layer: MHA2MLA's or DeepSeek's.
///
/// For a hidden state `x`, with `n` the optional norms:
///
/// ```text
/// q_rope, q_nope = W_qr n(W_qa x), W_qn n(W_qa x)      k_rope = W_kr x
/// c = n(W_down x) + latent_bias                        cached: c, rotated k_rope
/// score(h, t) = scale (q_nope[h] . W_UK[g] c_t + rot(q_rope[h]) . rot(k_rope_t[g']))
/// out = W_o concat_h (W_UV[g] sum_t p_t c_t + value_bias[g])
/// ```
///
/// A key up-projection has no bias: it would shift all scores of a query alike, which softmax ignores.
///
/// With [`HeadNorms`], queries and keys are normalised head by head in front of scores and rotation, a key being
/// `W_UK[g] c_t` and `k_rope_t[g]` together:
///
/// ```text
/// f_t[g] = 1 / sqrt((|k_rope_t[g]|^2 + |W_UK[g] c_t|^2) / (R + Dn) + epsilon)        cached, too
/// score(h, t) = scale (f_t[g] q_nope'[h] . W_UK[g] c_t + rot(q_rope'[h]) . rot(gain f_t[g] k_rope_t[g]))
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LatentAttention {
    /// The layer's sizes.
    pub geometry: Geometry,
    /// Low-rank stage in front of the query projections; `None` means they read the hidden state.
    pub query_down: Option<QueryDown>,
    /// `[H*R, inputs]`, head-major.
    pub query_rope: Linear,
    /// `[H*Dn, inputs]`, head-major.
    pub query_nope: Linear,
    /// `[Gr*R, hidden]`.
    pub key_rope: Linear,
    /// `[L, hidden]`. Its bias acts before the norm.
    pub down: Linear,
    /// Norm over the latent (DeepSeek); MHA2MLA has none.
    pub latent_norm: Option<RmsNorm>,
    /// `[L]`, added after the norm: minus the latent's mean when the basis is centred.
    pub latent_bias: Option<Vec<f32>>,
    /// W_UK, `[G*Dn, L]`.
    pub up_key: Matrix,
    /// W_UV, `[G*Dv, L]`.
    pub up_value: Matrix,
    /// `[G*Dv]`, added to every value.
    pub value_bias: Option<Vec<f32>>,
    /// `[hidden, H*Dv]`.
    pub output: Linear,
    /// Which frequency turns which pair of each rope head.
    pub frequencies: FrequencyIndex,
    /// Which two dimensions of a rope head make a pair.
    pub pairing: Pairing,
    /// Factor on every score before softmax, finite.
    pub scale: f64,
    /// Norms over heads of queries and keys, where the geometry says that keys are normalised.
    pub head_norms: Option<HeadNorms>,
}

impl LatentAttention {
    /// Width of the layer's input and output.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.down.weight.cols()
    }

    /// Checks every shape against the geometry, and that scale and epsilons are numbers to calculate with.
    ///
    /// # Errors
    /// [`Error::Geometry`] if the geometry is inconsistent, [`Error::Shape`] names the part that does not fit,
    /// [`Error::NotFinite`] a scale that is not finite, [`Error::Config`] an epsilon that is not, or is negative.
    pub fn validate(&self) -> Result<()> {
        check_finite("scale", self.scale)?;
        let g = self.geometry.validate()?;
        let hidden = self.hidden();
        let inputs = match &self.query_down {
            None => hidden,
            Some(stage) => {
                let rank = stage.norm.gain.len();
                stage.down.check("query down-projection", rank, hidden)?;
                check_epsilon("query norm", stage.norm.epsilon)?;
                stage.outputs()
            }
        };
        let rope_rows = g.query_heads * g.rope_dim;
        let nope_rows = g.query_heads * g.nope_dim;
        let value_rows = g.kv_heads * g.value_dim;
        self.query_rope.check("rope query projection", rope_rows, inputs)?;
        self.query_nope.check("nope query projection", nope_rows, inputs)?;
        self.key_rope.check("rope key projection", g.rope_width(), hidden)?;
        self.down.check("down-projection", g.latent_rank, hidden)?;
        if let Some(norm) = &self.latent_norm {
            check_len("latent norm", norm.gain.len(), &[("latent", g.latent_rank)])?;
            check_epsilon("latent norm", norm.epsilon)?;
        }
        if let Some(bias) = &self.latent_bias {
            check_len("latent bias", bias.len(), &[("latent", g.latent_rank)])?;
        }
        self.up_key.check("key up-projection", g.kv_heads * g.nope_dim, g.latent_rank)?;
        self.up_value.check("value up-projection", value_rows, g.latent_rank)?;
        if let Some(bias) = &self.value_bias {
            check_len("value bias", bias.len(), &[("kv heads", g.kv_heads), ("value", g.value_dim)])?;
        }
        self.output.check("output projection", hidden, g.query_heads * g.value_dim)?;
        g.check_key_norm(self.head_norms.is_some())?;
        if let Some(norms) = &self.head_norms {
            let heads = ("kv heads", g.kv_heads);
            norms.check(&[heads, ("rope + nope", g.rope_dim + g.nope_dim)], &[heads, ("rope", g.rope_dim)])?;
        }
        self.frequencies.check(&g)
    }
}
