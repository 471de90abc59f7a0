//! `combine`.

use half::bf16;
use latent_attention::device::Device;
use latent_attention::ops::{Combine, CombineArgs, CombineConfig};
use latent_attention::reference::{self, Attended};
use latent_attention::{Error, Result};

use crate::Validation;
use crate::case::{Case, Kind, Operation};
use crate::compare::Comparison;
use crate::draw::Draw;
use crate::tensors::wide;
use crate::tolerance::{self, Rule};

pub(crate) const COMBINE: Operation = Operation { kind: Kind::Combine, name: "combine", inputs, run, check };

/// Parts to merge.
const SPLITS: usize = 5;

/// Largest log-sum-exp of a partial: weights from all to next to nothing.
const LSE: f32 = 8.0;

/// The heads of one query token in partials, of which every fourth saw nothing; none saw anything of the first head. Odd
/// partials say so as FlashAttention 2 does, by plus infinity.
fn inputs(case: &mut Case, _: &Validation, draw: &mut Draw) -> Result<()> {
    let (rows, rank) = (case.geometry().query_heads, case.geometry().latent_rank);
    let mut o_partial = draw.f32(SPLITS * rows * rank, 1.0);
    let mut lse_partial = draw.f32(SPLITS * rows, LSE);
    for (partial, (lse, o)) in lse_partial.iter_mut().zip(o_partial.chunks_exact_mut(rank)).enumerate() {
        if partial % rows == 0 || draw.below(4) == 0 {
            *lse = if partial / rows % 2 == 0 { f32::NEG_INFINITY } else { f32::INFINITY };
            o.fill(f32::NAN);
        }
    }
    case.tensors.put("o_partial", &[SPLITS, rows, rank], &o_partial);
    case.tensors.put("lse_partial", &[SPLITS, rows], &lse_partial);
    Ok(())
}

fn run(case: &mut Case, device: &Device) -> Result<()> {
    let rank = case.geometry().latent_rank;
    let [splits, rows] = case.tensors.sizes("lse_partial")?;
    let o_partial = case.tensors.upload::<f32>(device, "o_partial", &[splits, rows, rank])?;
    let lse_partial = case.tensors.upload::<f32>(device, "lse_partial", &[splits, rows])?;
    let mut o_latent = device.upload(&vec![bf16::NAN; rows * rank])?;
    let mut lse = device.upload(&vec![f32::NAN; rows])?;
    Combine::new(device, CombineConfig::new(rank, splits))?.run(
        &device.stream()?,
        CombineArgs {
            rows,
            splits,
            o_partial: o_partial.view(),
            lse_partial: lse_partial.view(),
            o_latent: o_latent.view_mut(),
            lse: lse.view_mut(),
        },
    )?;
    case.keep("o_latent", &[rows, rank], &o_latent)?;
    case.keep("lse", &[rows], &lse)
}

fn check(case: &Case) -> Result<Vec<Comparison>> {
    let rank = case.geometry().latent_rank;
    let [splits, rows] = case.tensors.sizes("lse_partial")?;
    let (o_latent, lse) = (case.output::<bf16>("o_latent", &[rows, rank])?, case.output::<f32>("lse", &[rows])?);
    if rows == 0 {
        // Then nothing bounds the number of partials.
        let source = case.tensors.source().display();
        return Err(Error::Config { what: format!("lse_partial in {source}"), why: "has no rows".into() });
    }
    let o_partial = wide(&case.tensors.get::<f32>("o_partial", &[splits, rows, rank])?);
    let lse_partial = wide(&case.tensors.get::<f32>("lse_partial", &[splits, rows])?);
    let partial = |split: usize| Attended {
        o_latent: o_partial[split * rows * rank..][..rows * rank].to_vec(),
        lse: lse_partial[split * rows..][..rows].to_vec(),
    };
    let merged = reference::combine(&(0..splits).map(partial).collect::<Vec<_>>())?;
    let seen = o_partial.chunks_exact(rank).zip(&lse_partial).filter(|&(_, &lse)| lse.is_finite());
    let numbers = seen.flat_map(|(o, _)| o).filter(|value| value.is_finite());
    let largest = numbers.fold(0f64, |largest, value| largest.max(value.abs()));
    let (o_latent, lse) = (o_latent.against(merged.o_latent), lse.against(merged.lse));
    Ok(vec![
        o_latent.elementwise(Rule::Merged, |_, want| tolerance::merged(want, largest)),
        lse.log_sum_exp(Rule::MergedLse, tolerance::merged_lse),
    ])
}
