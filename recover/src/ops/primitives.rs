//! The operations again, made of candle's own: on a GPU, and wherever else numbers are not in host memory.
//!
//! candle differentiates them, so each keeps its intermediate tensors until the backward pass of its block, and computes the
//! gradients of frozen weights too. They run on any device; the tests hold them against the operations by hand on the CPU,
//! and have not been run on a GPU. The functions that call them have checked the arguments.

use candle_core::{D, DType, Device, Result, Tensor};

use super::attention::Columns;
use super::divergence::{CHUNK, Compared};
use super::quantise::{StoredPart, store};
use super::rope::Rotation;

/// Whether an operation on this tensor is the one by hand.
pub fn by_hand(x: &Tensor) -> bool {
    #[cfg(test)]
    if super::primitives_tests::FORCED.get() {
        return false;
    }
    x.device().is_cpu()
}

pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    // cuBLAS takes a matrix as it is or transposed, and no other strides.
    let product = x.contiguous()?.matmul(&weight.contiguous()?.t()?)?;
    match bias {
        Some(bias) => product.broadcast_add(bias),
        None => Ok(product),
    }
}

pub fn rms_norm(x: &Tensor, gain: &Tensor, epsilon: f64) -> Result<Tensor> {
    let root = (x.sqr()?.mean_keepdim(D::Minus1)? + epsilon)?.sqrt()?;
    x.broadcast_div(&root)?.broadcast_mul(gain)
}

pub fn swiglu(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(1)? / 2;
    x.narrow(1, 0, width)?.silu()? * x.narrow(1, width, width)?
}

pub fn inner(x: &Tensor, weights: &Tensor) -> Result<Tensor> {
    (x * weights.detach())?.sum_all()
}

/// Every column times a cosine, plus the other column of its pair times a sine.
pub fn rotate(x: &Tensor, rotation: &Rotation, sequence: usize) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    let like = |data: Vec<f32>| Tensor::from_vec(data, (sequence, width), x.device())?.to_dtype(x.dtype());
    let (mut cosines, mut sines) = (vec![1.0; sequence * width], vec![0.0; sequence * width]);
    let mut partners: Vec<u32> = (0..width as u32).collect();
    for (i, j, frequency) in rotation.pairs() {
        (partners[i], partners[j]) = (j as u32, i as u32);
        for position in 0..sequence {
            let (cos, sin) = rotation.at(position, frequency);
            let row = position * width;
            (cosines[row + i], cosines[row + j]) = (cos, cos);
            (sines[row + i], sines[row + j]) = (-sin, sin);
        }
    }
    let x = &x.contiguous()?;
    let partner = x.index_select(&Tensor::new(partners, x.device())?, 1)?;
    let by_sequence = |x: &Tensor| x.reshape((tokens / sequence, sequence, width));
    let turned =
        by_sequence(x)?.broadcast_mul(&like(cosines)?)? + by_sequence(&partner)?.broadcast_mul(&like(sines)?)?;
    turned?.reshape((tokens, width))
}

/// The numbers go through the cache on the host, so that they have the bits that every other part of the project gives them.
pub fn fake_quantise(x: &Tensor, parts: &[StoredPart]) -> Result<Tensor> {
    let width = x.dim(1)?;
    // Exact for f32 and f64 alike.
    let mut rows: Vec<f64> = x.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
    for row in rows.chunks_exact_mut(width.max(1)) {
        store(row, parts);
    }
    let stored = Tensor::from_vec(rows, x.shape(), &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())?;
    // What is added is zero, and its gradient one.
    stored + (x - x.detach())?
}

pub fn hidden_error(x: &Tensor, target: &Tensor, sequence: usize) -> Result<Tensor> {
    let (tokens, target) = (x.dim(0)?, target.detach());
    let share = 1.0 / (tokens - tokens / sequence) as f64;
    let shares: Vec<f64> = (0..tokens).map(|row| if row % sequence == 0 { 0.0 } else { share }).collect();
    let shares = Tensor::from_vec(shares, (tokens, 1), x.device())?.to_dtype(x.dtype())?;
    let norms = target.sqr()?.sum_keepdim(1)?;
    // A hidden state of zeros has no relative error.
    let zero = norms.eq(&norms.zeros_like()?)?.to_dtype(x.dtype())?;
    let weights = ((zero.neg()? + 1.0)? * shares / (norms + zero)?)?;
    ((x - target)?.sqr()?.sum_keepdim(1)? * weights)?.sum_all()
}

/// Logarithms of the probabilities that logits stand for.
fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

/// For every token, the divergence, and the logarithms of both models' probabilities.
fn divergences((x, head): (&Tensor, &Tensor), original: (&Tensor, &Tensor)) -> Result<(Tensor, [Tensor; 2])> {
    let x = log_softmax(&linear(x, head, None)?)?;
    let original = log_softmax(&linear(&original.0.detach(), &original.1.detach(), None)?)?;
    Ok(((original.exp()? * (&original - &x)?)?.sum(1)?, [x, original]))
}

pub fn divergence(x: (&Tensor, &Tensor), original: (&Tensor, &Tensor)) -> Result<Tensor> {
    divergences(x, original)?.0.mean_all()
}

pub fn compare(x: (&Tensor, &Tensor), original: (&Tensor, &Tensor), targets: &[u32]) -> Result<Compared> {
    let mut total = Compared::default();
    let sum = |numbers: &Tensor| -> Result<f64> {
        Ok(numbers.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?.iter().sum())
    };
    let heads = [x.1.detach(), original.1.detach()];
    for (chunk, targets) in targets.chunks(CHUNK).enumerate() {
        let rows = |of: &Tensor| of.detach().narrow(0, chunk * CHUNK, targets.len());
        let (divergences, logarithms) = divergences((&rows(x.0)?, &heads[0]), (&rows(original.0)?, &heads[1]))?;
        let targets = Tensor::new(targets, x.0.device())?.unsqueeze(1)?;
        let loss = |of: &Tensor| Ok::<_, candle_core::Error>(-sum(&of.gather(&targets, 1)?)?);
        total.divergence += sum(&divergences)?;
        total.loss += loss(&logarithms[0])?;
        total.original_loss += loss(&logarithms[1])?;
    }
    Ok(total)
}

/// Columns of projected tokens as `[sequences, heads, sequence, dim]`.
fn heads(x: &Tensor, column: usize, heads: usize, dim: usize, sequence: usize) -> Result<Tensor> {
    let tokens = x.dim(0)?;
    x.narrow(1, column, heads * dim)?.reshape((tokens / sequence, sequence, heads, dim))?.transpose(1, 2)
}

/// The same heads, each `times` times in a row.
fn repeat(x: &Tensor, times: usize) -> Result<Tensor> {
    let heads: Vec<u32> = (0..x.dim(1)?).flat_map(|head| std::iter::repeat_n(head as u32, times)).collect();
    x.contiguous()?.index_select(&Tensor::new(heads, x.device())?, 1)
}

/// Causal attention of `[sequences, H, sequence, D]` over as many keys and values, to `[tokens, H * Dv]`.
fn attend(queries: &Tensor, keys: &Tensor, values: &Tensor, scale: f64) -> Result<Tensor> {
    let (sequences, count, sequence, _) = queries.dims4()?;
    let mask: Vec<f32> =
        (0..sequence * sequence).map(|i| if i % sequence > i / sequence { f32::NEG_INFINITY } else { 0.0 }).collect();
    let mask = Tensor::from_vec(mask, (sequence, sequence), queries.device())?.to_dtype(queries.dtype())?;
    let scores = (queries.contiguous()?.matmul(&keys.transpose(2, 3)?.contiguous()?)? * scale)?;
    let weights = log_softmax(&scores.broadcast_add(&mask)?)?.exp()?;
    let out = weights.matmul(&values.contiguous()?)?;
    let dim = out.dim(3)?;
    out.transpose(1, 2)?.reshape((sequences * sequence, count * dim))
}

/// Attention over what the latents stand for: `expanded`, unrotated keys and then values, is `[tokens, G*Dn + G*Dv]`.
pub fn attention(
    projected: &Tensor,
    expanded: &Tensor,
    columns: &Columns,
    scale: f64,
    sequence: usize,
) -> Result<Tensor> {
    let (g, per_group) = (&columns.geometry, columns.per_group());
    let (mut queries, mut keys) = (Vec::new(), Vec::new());
    if g.rope_dim > 0 {
        queries.push(heads(projected, 0, g.query_heads, g.rope_dim, sequence)?);
        let shared = heads(projected, columns.k_rope, g.rope_heads, g.rope_dim, sequence)?;
        keys.push(repeat(&shared, g.query_heads / g.rope_heads)?);
    }
    if g.nope_dim > 0 {
        queries.push(heads(projected, columns.q_nope, g.query_heads, g.nope_dim, sequence)?);
        keys.push(repeat(&heads(expanded, 0, g.kv_heads, g.nope_dim, sequence)?, per_group)?);
    }
    let values = heads(expanded, g.kv_heads * g.nope_dim, g.kv_heads, g.value_dim, sequence)?;
    attend(&Tensor::cat(&queries, 3)?, &Tensor::cat(&keys, 3)?, &repeat(&values, per_group)?, scale)
}
