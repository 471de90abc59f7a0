//! The operations on a device: tensors are bf16, sums f32.

use std::ops::Range;

use half::bf16;
use latent_attention::cache::{CacheLayout, PagedCache, Sequences};
use latent_attention::device::{Buffer, Device, Tensor, TensorMut};
use latent_attention::ops::{
    AbsorbConfig, AbsorbQuery, AbsorbQueryArgs, BatchBuffers, Combine, CombineArgs, CombineConfig, CopyPages,
    CopyPagesArgs, CopyPagesConfig, Decode, DecodeArgs, DecodeConfig, DeviceCache, DeviceNorm, ExpandOutput,
    ExpandOutputArgs, Gather, GatherArgs, GatherConfig, KernelFamily, RopeAppend, RopeAppendArgs, RopeAppendConfig,
    RotationBuffers, UpProject, UpProjectArgs, UpProjectConfig,
};
use latent_attention::reference::{Attended, DecodeInputs, Projected, RopeAppendInputs, RopeAppendParams};
use latent_attention::{Error, Geometry};

use crate::common::prefix_sums;
use crate::properties::backend::Backend;

/// The operations on this device, `decode` by these kernels.
pub struct OnDevice(pub Device, pub KernelFamily);

impl OnDevice {
    fn decode_config(
        &self,
        geometry: &Geometry,
        layout: &CacheLayout,
        scale: f64,
        [tokens, longest]: [usize; 2],
    ) -> DecodeConfig {
        DecodeConfig::new(*geometry, *layout, scale as f32, tokens, longest).with_kernels(self.1)
    }

    fn bf16s(&self, values: impl IntoIterator<Item = f64>) -> Buffer<bf16> {
        let values: Vec<bf16> = values.into_iter().map(rounded).collect();
        self.0.upload(&values).unwrap()
    }

    fn weights(&self, values: &[f32]) -> Buffer<bf16> {
        self.bf16s(values.iter().map(|&value| value.into()))
    }

    /// For an operation to fill.
    fn output(&self, len: usize) -> Buffer<bf16> {
        self.0.upload(&vec![bf16::NAN; len]).unwrap()
    }

    fn batch(&self, sequences: &Sequences, cache: &PagedCache) -> (BatchBuffers, DeviceCache) {
        let batch = BatchBuffers::upload(&self.0, sequences, cache.layout(), cache.pages()).unwrap();
        (batch, DeviceCache::upload(&self.0, cache).unwrap())
    }
}

fn dense(buffer: &Buffer<bf16>, sizes: [usize; 3]) -> Tensor<'_, bf16> {
    Tensor::dense(buffer.view(), sizes).unwrap()
}

fn dense_mut(buffer: &mut Buffer<bf16>, sizes: [usize; 3]) -> TensorMut<'_, bf16> {
    TensorMut::dense(buffer.view_mut(), sizes).unwrap()
}

fn widened<T: Copy + Into<f64>>(values: Vec<T>) -> Vec<f64> {
    values.into_iter().map(Into::into).collect()
}

fn narrowed(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

/// Inputs are numbers of f32, of which `from_f64` would ignore the lowest bits (findings/half-bf16-from-f64-ties.sh).
fn rounded(value: f64) -> bf16 {
    bf16::from_f32(value as f32)
}

impl Backend for OnDevice {
    /// Few, as simulators are slow.
    fn cases(&self) -> u32 {
        if self.0.is_cpu() { 100 } else { 8 }
    }

    fn number(&self, value: f64) -> f64 {
        rounded(value).to_f64()
    }

    /// Two roundings to bf16, each of at most 2^-8; beside them, those to f32 do not count.
    fn error(&self, magnitudes: f64) -> f64 {
        magnitudes / 128.0
    }

    /// Some 16 roundings to f32, each of at most 2^-24.
    fn lse_error(&self, lse: f64) -> f64 {
        lse.abs().max(1.0) * 2f64.powi(-20)
    }

    fn absorb_query(&self, geometry: &Geometry, up_key: &[f32], q_nope: &[f64], tokens: usize) -> Vec<f64> {
        let g = geometry;
        let (up_key, q_nope) = (self.weights(up_key), self.bf16s(q_nope.iter().copied()));
        let mut q_latent = self.output(tokens * g.query_heads * g.latent_rank);
        let args = AbsorbQueryArgs {
            up_key: dense(&up_key, [g.kv_heads, g.nope_dim, g.latent_rank]),
            q_nope: dense(&q_nope, [tokens, g.query_heads, g.nope_dim]),
            q_latent: dense_mut(&mut q_latent, [tokens, g.query_heads, g.latent_rank]),
        };
        AbsorbQuery::new(&self.0, AbsorbConfig::new(*g)).unwrap().run(&self.0.stream().unwrap(), args).unwrap();
        widened(q_latent.to_vec().unwrap())
    }

    fn expand_output(&self, geometry: &Geometry, up_value: &[f32], bias: &[f32], o_latent: &[f64]) -> Vec<f64> {
        let g = geometry;
        let tokens = o_latent.len() / (g.query_heads * g.latent_rank);
        let (up_value, bias) = (self.weights(up_value), self.0.upload(bias).unwrap());
        let o_latent = self.bf16s(o_latent.iter().copied());
        let mut out = self.output(tokens * g.query_heads * g.value_dim);
        let args = ExpandOutputArgs {
            up_value: dense(&up_value, [g.kv_heads, g.value_dim, g.latent_rank]),
            value_bias: Some(bias.view()),
            o_latent: dense(&o_latent, [tokens, g.query_heads, g.latent_rank]),
            out: dense_mut(&mut out, [tokens, g.query_heads, g.value_dim]),
        };
        ExpandOutput::new(&self.0, AbsorbConfig::new(*g)).unwrap().run(&self.0.stream().unwrap(), args).unwrap();
        widened(out.to_vec().unwrap())
    }

    fn combine(&self, partials: &[Attended]) -> Attended {
        let (rows, splits) = (partials[0].lse.len(), partials.len());
        let rank = partials[0].o_latent.len() / rows;
        let all = |part: fn(&Attended) -> &Vec<f64>| -> Buffer<f32> {
            let values: Vec<f32> = partials.iter().flat_map(|partial| narrowed(part(partial))).collect();
            self.0.upload(&values).unwrap()
        };
        let (o_partial, lse_partial) = (all(|partial| &partial.o_latent), all(|partial| &partial.lse));
        let (mut o_latent, mut lse) = (self.output(rows * rank), self.0.upload(&vec![f32::NAN; rows]).unwrap());
        let args = CombineArgs {
            rows,
            splits,
            o_partial: o_partial.view(),
            lse_partial: lse_partial.view(),
            o_latent: o_latent.view_mut(),
            lse: lse.view_mut(),
        };
        let combine = Combine::new(&self.0, CombineConfig::new(rank, splits)).unwrap();
        combine.run(&self.0.stream().unwrap(), args).unwrap();
        Attended { o_latent: widened(o_latent.to_vec().unwrap()), lse: widened(lse.to_vec().unwrap()) }
    }

    fn copy_pages(&self, copies: &[[i32; 2]], cache: &mut PagedCache) {
        let operation = CopyPages::new(&self.0, CopyPagesConfig::new(*cache.layout())).unwrap();
        let mut on_device = DeviceCache::upload(&self.0, cache).unwrap();
        let copies = self.0.upload(copies.as_flattened()).unwrap();
        let mut counters = self.0.zeros(1).unwrap();
        let args =
            CopyPagesArgs { cache: on_device.view_mut(), copies: copies.view(), counters: Some(counters.view_mut()) };
        operation.run(&self.0.stream().unwrap(), args).unwrap();
        *cache = on_device.download().unwrap();
        assert_eq!(counters.to_vec().unwrap(), [0_u64]);
    }

    fn decodes(&self, geometry: &Geometry, layout: &CacheLayout) -> bool {
        match Decode::new(&self.0, self.decode_config(geometry, layout, 1.0, [1, 1])) {
            Ok(_) => true,
            Err(Error::Unsupported { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    fn decode(&self, inputs: &DecodeInputs, cache: &PagedCache) -> Attended {
        let (g, stream) = (inputs.geometry, self.0.stream().unwrap());
        let tokens = inputs.q_latent.len() / (g.query_heads * g.latent_rank);
        let longest = inputs.sequences.seq_lens.iter().max().copied().unwrap_or(0).max(1) as usize;
        let config = self.decode_config(g, cache.layout(), inputs.scale, [tokens.max(1), longest]);
        let decode = Decode::new(&self.0, config).unwrap();
        let (batch, cache) = self.batch(&inputs.sequences, cache);
        let mut workspace = self.0.allocate::<u8>(decode.workspace_bytes()).unwrap();
        let mut plan = decode.plan(&stream, &batch.batch(), tokens, workspace.view_mut()).unwrap();
        let [q_latent, q_rope] = [inputs.q_latent, inputs.q_rope].map(|values| self.bf16s(values.iter().copied()));
        let mut o_latent = self.output(tokens * g.query_heads * g.latent_rank);
        let mut lse = self.0.upload(&vec![f32::NAN; tokens * g.query_heads]).unwrap();
        let args = DecodeArgs {
            q_latent: dense(&q_latent, [tokens, g.query_heads, g.latent_rank]),
            q_rope: dense(&q_rope, [tokens, g.query_heads, g.rope_dim]),
            cache: cache.view(),
            o_latent: o_latent.view_mut(),
            lse: lse.view_mut(),
        };
        decode.run(&stream, &mut plan, args).unwrap();
        Attended { o_latent: widened(o_latent.to_vec().unwrap()), lse: widened(lse.to_vec().unwrap()) }
    }

    fn gather(&self, sequences: &Sequences, ranges: Option<&[Range<usize>]>, cache: &PagedCache) -> Vec<f64> {
        let width = cache.layout().latent_rank() + cache.layout().rope_width();
        let ranges = match ranges {
            Some(ranges) => ranges.to_vec(),
            None => sequences.seq_lens.iter().map(|&len| 0..len as usize).collect(),
        };
        let starts = prefix_sums(ranges.iter().map(|range| range.len() as i32));
        let rows = starts[ranges.len()] as usize;
        let operation = Gather::new(&self.0, GatherConfig::new(*cache.layout())).unwrap();
        let (batch, cache) = self.batch(sequences, cache);
        let starts = self.0.upload(&starts).unwrap();
        let first_tokens: Vec<i32> = ranges.iter().map(|range| range.start as i32).collect();
        let first_tokens = self.0.upload(&first_tokens).unwrap();
        let mut gathered = self.output(rows * width);
        let args = GatherArgs {
            cache: cache.view(),
            batch: &batch.batch(),
            token_starts: starts.view(),
            first_tokens: Some(first_tokens.view()),
            gathered: dense_mut(&mut gathered, [rows, 1, width]),
        };
        operation.run(&self.0.stream().unwrap(), args).unwrap();
        widened(gathered.to_vec().unwrap())
    }

    fn up_project(
        &self,
        geometry: &Geometry,
        [up_key, up_value, bias]: [&[f32]; 3],
        sequences: &Sequences,
        cache: &PagedCache,
    ) -> Projected {
        let (g, key_dim) = (geometry, geometry.nope_dim + geometry.rope_dim);
        let operation =
            UpProject::new(&self.0, UpProjectConfig::new(*g, *cache.layout()).with_kernels(self.1)).unwrap();
        let (batch, cache) = self.batch(sequences, cache);
        let starts = prefix_sums(sequences.seq_lens.iter().copied());
        let rows = starts[sequences.seq_lens.len()] as usize;
        let starts = self.0.upload(&starts).unwrap();
        let (up_key, up_value, bias) = (self.weights(up_key), self.weights(up_value), self.0.upload(bias).unwrap());
        let (mut keys, mut values) =
            (self.output(rows * g.kv_heads * key_dim), self.output(rows * g.kv_heads * g.value_dim));
        let args = UpProjectArgs {
            cache: cache.view(),
            batch: &batch.batch(),
            token_starts: starts.view(),
            up_key: dense(&up_key, [g.kv_heads, g.nope_dim, g.latent_rank]),
            up_value: dense(&up_value, [g.kv_heads, g.value_dim, g.latent_rank]),
            value_bias: Some(bias.view()),
            keys: dense_mut(&mut keys, [rows, g.kv_heads, key_dim]),
            values: dense_mut(&mut values, [rows, g.kv_heads, g.value_dim]),
        };
        operation.run(&self.0.stream().unwrap(), args).unwrap();
        Projected { keys: widened(keys.to_vec().unwrap()), values: widened(values.to_vec().unwrap()) }
    }

    fn rope_append(&self, params: &RopeAppendParams, inputs: &RopeAppendInputs, cache: &mut PagedCache) -> usize {
        let (g, tokens) = (params.geometry, inputs.slots.len());
        let rotation = params.rotation.as_ref().unwrap();
        let tables = RotationBuffers::upload(&self.0, rotation.tables, rotation.frequencies).unwrap();
        let (k_rope, c_kv) = (self.weights(inputs.k_rope), self.weights(inputs.c_kv));
        let positions = self.0.upload(inputs.positions.unwrap()).unwrap();
        let slots = self.0.upload(inputs.slots).unwrap();
        let gain = params.norm.map(|norm| (self.0.upload(&norm.gain).unwrap(), norm.epsilon));
        let bias = params.bias.map(|bias| self.0.upload(bias).unwrap());
        let mut counters = self.0.zeros(2).unwrap();
        let mut on_device = DeviceCache::upload(&self.0, cache).unwrap();
        let args = RopeAppendArgs {
            q_rope: None,
            q_rotated: None,
            k_rope: dense(&k_rope, [tokens, g.rope_heads, g.rope_dim]),
            c_kv: dense(&c_kv, [tokens, 1, g.latent_rank]),
            positions: Some(positions.view()),
            slots: slots.view(),
            rotation: Some(tables.rotation()),
            norm: gain.as_ref().map(|(gain, epsilon)| DeviceNorm { gain: gain.view(), epsilon: *epsilon }),
            bias: bias.as_ref().map(|bias| bias.view()),
            cache: on_device.view_mut(),
            counters: Some(counters.view_mut()),
            key_norm: None,
        };
        let config = RopeAppendConfig::new(*g, *cache.layout(), rotation.pairing);
        RopeAppend::new(&self.0, config).unwrap().run(&self.0.stream().unwrap(), args).unwrap();
        *cache = on_device.download().unwrap();
        let [saturated, refused] = counters.to_vec().unwrap().try_into().unwrap();
        assert_eq!(refused, 0_u64);
        saturated as usize
    }
}
