//! `rope_append`: bits, of the cache and of the rotated queries.

use half::bf16;
use latent_attention::Result;
use latent_attention::cache::{CacheLayout, PagedCache};
use latent_attention::device::{Device, Tensor, TensorMut};
use latent_attention::ops::{DeviceCache, DeviceNorm, RopeAppend, RopeAppendArgs, RopeAppendConfig, RotationBuffers};
use latent_attention::reference::{RopeAppendInputs, RopeAppendParams, RopeAppendRotation, rope_append};
use latent_attention::rope::{FrequencyIndex, RopeTables};
use latent_attention::weights::RmsNorm;

use crate::Validation;
use crate::batch::RaggedBatch;
use crate::case::{Case, Kind, Operation};
use crate::compare::{Comparison, Worst};
use crate::draw::Draw;
use crate::tensors::{single, wide};

/// Columns that the tables have more than a rope head has pairs, so that heads differ.
const SPARE_FREQUENCIES: usize = 3;

pub(crate) const ROPE_APPEND: Operation = Operation { kind: Kind::RopeAppend, name: "rope-append", inputs, run, check };

pub(crate) const ROPE_APPEND_NORM: Operation =
    Operation { kind: Kind::RopeAppendNorm, name: "rope-append-norm", ..ROPE_APPEND };

/// The new tokens of a batch and the cache that they go to.
fn inputs(case: &mut Case, validation: &Validation, draw: &mut Draw) -> Result<()> {
    let batch = validation.batch(draw);
    tokens(case, &batch, draw)?;
    if !case.kind().has_norm() {
        let (tokens, rank) = (batch.query_tokens(), case.geometry().latent_rank);
        let mut latents = case.tensors.get::<bf16>("c_kv", &[tokens, 1, rank])?;
        let len = latents.len() as u32;
        // Moved into their group's range and counted.
        for special in [f32::NAN, f32::INFINITY, -1e30] {
            latents[draw.below(len) as usize] = bf16::from_f32(special);
        }
        case.tensors.put("c_kv", &[tokens, 1, rank], &latents);
    }
    Ok(())
}

/// The inputs that a layer's step has too.
pub(crate) fn tokens(case: &mut Case, batch: &RaggedBatch, draw: &mut Draw) -> Result<()> {
    let (g, layout) = (*case.geometry(), case.settings.layout()?);
    let t = batch.query_tokens();
    let places = batch.query_places();
    // A query token in front of the first token has no place in the cache.
    let slots: Vec<i64> =
        places.iter().map(|place| place.map_or(-1, |place| batch.slot(place, layout.page_size()) as i64)).collect();
    let positions: Vec<i32> = places.iter().map(|place| place.map_or(0, |place| place.token as i32)).collect();
    let (positions_len, frequencies) = (batch.longest().max(1), g.rope_dim / 2 + SPARE_FREQUENCIES);
    let tables = draw.tables(positions_len, frequencies)?;
    let pairs = g.rope_width() / 2;
    let index: Vec<u32> = (0..pairs).map(|_| draw.below(frequencies as u32)).collect();
    let cache = batch.cache(draw, layout, true)?;
    case.put_cache("cache_before", &cache);
    let has_norm = case.kind().has_norm();
    let tensors = &mut case.tensors;
    tensors.put("q_rope", &[t, g.query_heads, g.rope_dim], &draw.bf16(t * g.query_heads * g.rope_dim, 1.0));
    tensors.put("k_rope", &[t, g.rope_heads, g.rope_dim], &draw.bf16(t * g.rope_width(), 1.0));
    tensors.put("c_kv", &[t, 1, g.latent_rank], &draw.bf16(t * g.latent_rank, 1.0));
    tensors.put("positions", &[t], &positions);
    tensors.put("slots", &[t], &slots);
    tensors.put("cos", &[positions_len, frequencies], tables.cos());
    tensors.put("sin", &[positions_len, frequencies], tables.sin());
    tensors.put("frequency_index", &[g.rope_heads, g.rope_dim / 2], &index);
    if has_norm {
        tensors.put("norm_gain", &[g.latent_rank], &draw.f32(g.latent_rank, 1.0));
        tensors.put("bias", &[g.latent_rank], &draw.f32(g.latent_rank, 1.0));
    }
    Ok(())
}

/// What turns the tokens, and what is done to their latents.
pub(crate) struct Parameters {
    pub tables: RopeTables,
    pub frequencies: FrequencyIndex,
    pub norm: Option<RmsNorm>,
    pub bias: Option<Vec<f32>>,
}

impl Parameters {
    pub fn get(case: &Case) -> Result<Self> {
        let (g, tensors) = (case.geometry(), &case.tensors);
        let [positions, frequencies] = tensors.sizes("cos")?;
        let table = |name| tensors.get(name, &[positions, frequencies]);
        let latent = |name| case.kind().has_norm().then(|| tensors.get(name, &[g.latent_rank])).transpose();
        Ok(Self {
            tables: RopeTables::new(frequencies, table("cos")?, table("sin")?)?,
            frequencies: FrequencyIndex::new(
                g.rope_heads,
                tensors.get("frequency_index", &[g.rope_heads, g.rope_dim / 2])?,
            )?,
            norm: latent("norm_gain")?.map(|gain| RmsNorm { gain, epsilon: case.settings.norm_epsilon }),
            bias: latent("bias")?,
        })
    }
}

fn run(case: &mut Case, device: &Device) -> Result<()> {
    let (g, settings, tensors) = (*case.geometry(), &case.settings, &case.tensors);
    let [t] = tensors.sizes("slots")?;
    let parameters = Parameters::get(case)?;
    let config = RopeAppendConfig::new(g, settings.layout()?, settings.pairing()?);
    let (append, stream) = (RopeAppend::new(device, config)?, device.stream()?);
    let query = [t, g.query_heads, g.rope_dim];
    let key = [t, g.rope_heads, g.rope_dim];
    let latent = [t, 1, g.latent_rank];
    let q_rope = tensors.upload::<bf16>(device, "q_rope", &query)?;
    let k_rope = tensors.upload::<bf16>(device, "k_rope", &key)?;
    let c_kv = tensors.upload::<bf16>(device, "c_kv", &latent)?;
    let (positions, slots) = (tensors.upload(device, "positions", &[t])?, tensors.upload(device, "slots", &[t])?);
    let rotation = RotationBuffers::upload(device, &parameters.tables, &parameters.frequencies)?;
    let gain = parameters.norm.as_ref().map(|norm| device.upload(&norm.gain)).transpose()?;
    let bias = parameters.bias.as_ref().map(|bias| device.upload(bias)).transpose()?;
    let mut cache = DeviceCache::upload(device, &case.cache("cache_before")?)?;
    let mut q_rotated = device.upload(&vec![bf16::NAN; q_rope.len()])?;
    let mut counters = device.zeros(2)?;
    append.run(
        &stream,
        RopeAppendArgs {
            q_rope: Some(Tensor::dense(q_rope.view(), query)?),
            q_rotated: Some(TensorMut::dense(q_rotated.view_mut(), query)?),
            k_rope: Tensor::dense(k_rope.view(), key)?,
            c_kv: Tensor::dense(c_kv.view(), latent)?,
            positions: Some(positions.view()),
            slots: slots.view(),
            rotation: Some(rotation.rotation()),
            norm: gain.as_ref().map(|gain| DeviceNorm { gain: gain.view(), epsilon: settings.norm_epsilon }),
            bias: bias.as_ref().map(|bias| bias.view()),
            cache: cache.view_mut(),
            counters: Some(counters.view_mut()),
            key_norm: None,
        },
    )?;
    case.keep("q_rotated", &query, &q_rotated)?;
    case.keep("counters", &[2], &counters)?;
    case.put_cache("cache", &cache.download()?);
    Ok(())
}

fn check(case: &Case) -> Result<Vec<Comparison>> {
    let (g, settings, tensors) = (case.geometry(), &case.settings, &case.tensors);
    let [t] = tensors.sizes("slots")?;
    let query = [t, g.query_heads, g.rope_dim];
    let (q_rotated, counters) = (case.output::<bf16>("q_rotated", &query)?, case.output::<u64>("counters", &[2])?);
    let parameters = Parameters::get(case)?;
    let rotation = RopeAppendRotation {
        pairing: settings.pairing()?,
        tables: &parameters.tables,
        frequencies: &parameters.frequencies,
    };
    let params = RopeAppendParams {
        geometry: g,
        rotation: Some(rotation),
        norm: parameters.norm.as_ref(),
        bias: parameters.bias.as_deref(),
    };
    let rows = |name, shape: [usize; 3]| Ok::<_, latent_attention::Error>(single(&tensors.get(name, &shape)?));
    let inputs = RopeAppendInputs {
        q_rope: Some(&rows("q_rope", query)?),
        k_rope: &rows("k_rope", [t, g.rope_heads, g.rope_dim])?,
        c_kv: &rows("c_kv", [t, 1, g.latent_rank])?,
        positions: Some(&tensors.get::<i32>("positions", &[t])?),
        slots: &tensors.get::<i64>("slots", &[t])?,
        key_norm: None,
    };
    let mut cache = case.cache("cache_before")?;
    let appended = rope_append(&params, &inputs, &mut cache)?;
    let rounded: Vec<bf16> = appended.q_rope.iter().map(|&q| bf16::from_f32(q)).collect();
    Ok(vec![
        q_rotated.against(wide(&rounded)).exact(),
        compare_cache(case, &cache)?,
        // The reference refuses tokens that the kernel would count.
        counters.against(vec![appended.saturated as f64, 0.0]).exact(),
    ])
}

/// All bytes of the cache that an operation left.
pub(crate) fn compare_cache(case: &Case, want: &PagedCache) -> Result<Comparison> {
    let layout = want.layout();
    let cache = case.output::<u8>("cache", &[want.pages(), layout.page_bytes()])?;
    let mut comparison = cache.against(wide(want.bytes())).exact();
    if let Some(Worst { index, place, .. }) = &mut comparison.worst {
        *place = Some(owner(layout, index[1]));
    }
    Ok(comparison)
}

/// What a byte of a page belongs to.
fn owner(layout: &CacheLayout, byte: usize) -> String {
    let (name, tile) = match byte {
        _ if byte < layout.rope_tile().offset => ("latent", layout.latent_tile()),
        _ if byte < layout.affine_tile().offset => ("rotated key", layout.rope_tile()),
        _ => ("scales", layout.affine_tile()),
    };
    let (row, byte) = ((byte - tile.offset) / tile.row_bytes, (byte - tile.offset) % tile.row_bytes);
    format!("byte {byte} of the {name} of the page's token {row}")
}
