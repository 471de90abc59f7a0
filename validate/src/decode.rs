//! `decode`, with the `schedule` and the `combine` that belong to it.

use half::bf16;
use latent_attention::Result;
use latent_attention::cache::PagedCache;
use latent_attention::device::{Device, Tensor};
use latent_attention::ops::{Decode, DecodeArgs, DecodeConfig, DeviceCache};
use latent_attention::reference::{self, DecodeInputs};

use crate::Validation;
use crate::batch::RaggedBatch;
use crate::case::{Case, Kind, Operation};
use crate::compare::Comparison;
use crate::draw::Draw;
use crate::tensors::{Number, wide};
use crate::tolerance::{self, Rule};

pub(crate) const DECODE_BALANCED: Operation =
    Operation { kind: Kind::DecodeBalanced, name: "decode-balanced", inputs, run, check };

pub(crate) const DECODE_FIXED: Operation =
    Operation { kind: Kind::DecodeFixed, name: "decode-fixed", ..DECODE_BALANCED };

fn inputs(case: &mut Case, validation: &Validation, draw: &mut Draw) -> Result<()> {
    let (g, layout) = (*case.geometry(), case.settings.layout()?);
    let batch = validation.batch(draw);
    let t = batch.query_tokens();
    let cache = batch.cache(draw, layout, false)?;
    let q_latent = draw.bf16(t * g.query_heads * g.latent_rank, 1.0);
    let q_rope = draw.bf16(t * g.query_heads * g.rope_dim, 1.0);
    batch.put(&mut case.tensors);
    case.put_cache("cache", &cache);
    case.tensors.put("q_latent", &[t, g.query_heads, g.latent_rank], &q_latent);
    case.tensors.put("q_rope", &[t, g.query_heads, g.rope_dim], &q_rope);
    Ok(())
}

fn run(case: &mut Case, device: &Device) -> Result<()> {
    let (g, settings, cache) = (*case.geometry(), &case.settings, case.cache("cache")?);
    let batch = RaggedBatch::get(&case.tensors, settings.page_size, cache.pages())?;
    let t = batch.query_tokens();
    let (latent, rope) = ([t, g.query_heads, g.latent_rank], [t, g.query_heads, g.rope_dim]);
    let config = DecodeConfig::new(g, *cache.layout(), settings.scale, t, batch.longest().max(1));
    let decode = Decode::new(device, config.with_policy(settings.policy()))?;
    let stream = device.stream()?;
    let buffers = batch.upload(device, cache.layout(), cache.pages())?;
    let on_device = buffers.batch();
    let cache = DeviceCache::upload(device, &cache)?;
    let q_latent = case.tensors.upload::<bf16>(device, "q_latent", &latent)?;
    let q_rope = case.tensors.upload::<bf16>(device, "q_rope", &rope)?;
    let mut o_latent = device.upload(&vec![bf16::NAN; q_latent.len()])?;
    let mut lse = device.upload(&vec![f32::NAN; t * g.query_heads])?;
    let mut workspace = device.allocate(decode.workspace_bytes())?;
    let mut plan = decode.plan(&stream, &on_device, t, workspace.view_mut())?;
    let args = DecodeArgs {
        q_latent: Tensor::dense(q_latent.view(), latent)?,
        q_rope: Tensor::dense(q_rope.view(), rope)?,
        cache: cache.view(),
        o_latent: o_latent.view_mut(),
        lse: lse.view_mut(),
    };
    decode.run(&stream, &mut plan, args)?;
    case.keep("o_latent", &latent, &o_latent)?;
    case.keep("lse", &[t, g.query_heads], &lse)
}

fn check(case: &Case) -> Result<Vec<Comparison>> {
    let (g, settings, tensors) = (case.geometry(), &case.settings, &case.tensors);
    let cache = case.cache("cache")?;
    let batch = RaggedBatch::get(tensors, settings.page_size, cache.pages())?;
    let t = batch.query_tokens();
    let (latent, rope) = ([t, g.query_heads, g.latent_rank], [t, g.query_heads, g.rope_dim]);
    let (o_latent, lse) = (case.output::<bf16>("o_latent", &latent)?, case.output::<f32>("lse", &latent[..2])?);
    let inputs = DecodeInputs {
        geometry: g,
        q_latent: &wide(&tensors.get::<bf16>("q_latent", &latent)?),
        q_rope: &wide(&tensors.get::<bf16>("q_rope", &rope)?),
        scale: settings.scale.wide(),
        sequences: batch.sequences(),
    };
    let attended = reference::decode(&inputs, &cache)?;
    let largest = largest_latent(&batch, &cache)?;
    let cosine = tolerance::attended_cosine(&attended.o_latent, largest);
    let (o_latent, lse) = (o_latent.against(attended.o_latent), lse.against(attended.lse));
    Ok(vec![
        o_latent.elementwise(Rule::Attended, |_, want| tolerance::attended(want, largest)).with_cosine(cosine),
        lse.log_sum_exp(Rule::Lse, tolerance::lse),
    ])
}

/// The largest magnitude among the batch's latents, of those that are numbers: an infinite one would allow everything.
fn largest_latent(batch: &RaggedBatch, cache: &PagedCache) -> Result<f64> {
    let mut largest = 0f64;
    for place in batch.places() {
        let latent = cache.latent(batch.slot(place, cache.layout().page_size()))?;
        largest =
            latent.iter().filter(|value| value.is_finite()).fold(largest, |largest, value| largest.max(value.abs()));
    }
    Ok(largest)
}
