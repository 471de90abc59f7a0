//! `absorb` equals the reference.

use half::bf16;
use latent_attention::Geometry;
use latent_attention::device::{Device, Shape, Simulation, Tensor, TensorMut, ViewMut};
use latent_attention::ops::{AbsorbConfig, AbsorbQuery, AbsorbQueryArgs, ExpandOutput, ExpandOutputArgs};
use latent_attention::reference::{absorb_query, expand_output};
use latent_attention::sys::{
    ABSORB_FEW_ROWS, ABSORB_MEDIUM_TILE, ABSORB_ORDERED_OUTPUTS, ABSORB_QUERY_FEW_OUTPUTS, AbsorbParams,
    EXPAND_OUTPUT_FEW_OUTPUTS, GEMM_TILE,
};
use proptest::prelude::*;
use ptx_sim::meter::Path;

use crate::common::{random, rng};
use crate::strided::Strided;
use crate::{PTX, device, rounded, simulate, wide};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    Query,
    Output,
}

use Operation::{Output, Query};

/// Query heads, KV heads, contracted, outputs.
pub type Sizes = [usize; 4];

/// A product and its operands.
#[derive(Debug)]
pub struct Case {
    operation: Operation,
    geometry: Geometry,
    tokens: usize,
    weights: Vec<f32>,
    input: Vec<f32>,
    bias: Option<Vec<f32>>,
    batch_invariant: bool,
    /// Elements between rows and tokens, and before the first.
    gaps: [usize; 2],
    shift: usize,
}

impl Case {
    pub fn new(seed: u64, operation: Operation, tokens: usize, sizes: Sizes) -> Self {
        let mut rng = rng(seed);
        let [query_heads, kv_heads, contracted, outputs] = sizes;
        let (latent, rows) = match operation {
            Query => (outputs, contracted),
            Output => (contracted, outputs),
        };
        let mut geometry = Geometry::mha2mla(query_heads, kv_heads, rows + 2, 2, 1).unwrap();
        geometry.latent_rank = latent;
        geometry.value_dim = rows.max(1);
        let mut bf16s = |len| rounded(&random(&mut rng, len)).into_iter().map(bf16::to_f32).collect::<Vec<_>>();
        let weights = bf16s(kv_heads * rows * latent);
        let input = bf16s(tokens * query_heads * contracted);
        let geometry = geometry.validate().unwrap();
        Self { operation, geometry, tokens, weights, input, bias: None, batch_invariant: false, gaps: [0, 0], shift: 0 }
    }

    /// The same with a bias, if the operation has one.
    fn with_bias(mut self, seed: u64) -> Self {
        let len = self.geometry.kv_heads * self.geometry.value_dim;
        self.bias = Some(random(&mut rng(seed), len)).filter(|_| self.operation == Output);
        self
    }

    pub fn batch_invariant(self, batch_invariant: bool) -> Self {
        Self { batch_invariant, ..self }
    }

    /// The tokens of a range, with the same weights.
    fn part(&self, tokens: std::ops::Range<usize>) -> Self {
        let width = self.geometry.query_heads * self.widths()[0];
        let input = self.input[tokens.start * width..tokens.end * width].to_vec();
        Self { tokens: tokens.len(), input, weights: self.weights.clone(), bias: self.bias.clone(), ..*self }
    }

    fn placed(self, gaps: [usize; 2], shift: usize) -> Self {
        Self { gaps, shift, ..self }
    }

    /// Contracted, outputs.
    fn widths(&self) -> [usize; 2] {
        let g = &self.geometry;
        match self.operation {
            Query => [g.nope_dim, g.latent_rank],
            Output => [g.latent_rank, g.value_dim],
        }
    }

    fn outputs(&self) -> usize {
        self.widths()[1]
    }

    pub fn run(&self, device: &Device) -> Vec<bf16> {
        let (g, stream, config) = (&self.geometry, device.stream().unwrap(), AbsorbConfig::new(self.geometry));
        let config = if self.batch_invariant { config.batch_invariant() } else { config };
        let [contracted, outputs] = self.widths();
        let place = |values: &[f32], sizes| Strided::new(device, values, sizes, self.gaps, self.shift);
        let rows = if self.operation == Query { g.nope_dim } else { g.value_dim };
        let weights = place(&self.weights, [g.kv_heads, rows, g.latent_rank]);
        let input = place(&self.input, [self.tokens, g.query_heads, contracted]);
        let bias = self.bias.as_ref().map(|bias| device.upload(bias).unwrap());
        let mut output = Strided::empty(device, [self.tokens, g.query_heads, outputs], self.gaps, self.shift);
        match self.operation {
            Query => {
                let args =
                    AbsorbQueryArgs { up_key: weights.tensor(), q_nope: input.tensor(), q_latent: output.tensor_mut() };
                AbsorbQuery::new(device, config).unwrap().run(&stream, args)
            }
            Output => {
                let args = ExpandOutputArgs {
                    up_value: weights.tensor(),
                    value_bias: bias.as_ref().map(|bias| bias.view()),
                    o_latent: input.tensor(),
                    out: output.tensor_mut(),
                };
                ExpandOutput::new(device, config).unwrap().run(&stream, args)
            }
        }
        .unwrap();
        output.take()
    }

    /// The reference of the operands, each mapped.
    fn reference(&self, map: impl Fn(f32) -> f32) -> Vec<f64> {
        let mapped = |values: &[f32]| values.iter().map(|&x| map(x)).collect::<Vec<_>>();
        let (weights, bias) = (mapped(&self.weights), self.bias.as_deref().map(mapped));
        let input: Vec<f64> = self.input.iter().map(|&x| map(x).into()).collect();
        match self.operation {
            Query => absorb_query(&self.geometry, &weights, &input, self.tokens),
            Output => expand_output(&self.geometry, &weights, bias.as_deref(), &input, self.tokens),
        }
        .unwrap()
    }

    /// Each output is within the rounding to bf16 (half a step of 8 significant bits, at most 2^-8 of it) and of sums
    /// in f32 (2^-24 of what they have reached, once for each MMA of 16 terms; 2^-20 of the sum of magnitudes is as much
    /// as 16 of them all at their worst).
    #[track_caller]
    fn check(&self, device: &Device) {
        let (got, want, sums) = (wide(&self.run(device)), self.reference(|x| x), self.reference(f32::abs));
        for (i, ((got, want), sum)) in got.into_iter().zip(want).zip(sums).enumerate() {
            let close = (got - want).abs() <= want.abs() / 256.0 + sum / f64::from(1 << 20);
            let (row, column) = (i / self.outputs(), i % self.outputs());
            assert!(close, "{:?}, row {row}, output {column}: got {got}, want {want}", self.operation);
        }
    }
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![Just(Query), Just(Output)]
}

/// On both sides of what the kernel for few takes, and of a tile.
fn tokens() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..=5, Just(15), Just(16), Just(17), Just(65), Just(130)]
}

/// Per KV head, KV heads.
fn heads() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![Just((1, 3)), Just((4, 2)), Just((3, 1)), Just((20, 1))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_reference(
        seed: u64,
        operation in operation(),
        tokens in tokens(),
        (per_kv, kv_heads) in heads(),
        contracted in prop_oneof![1usize..=70, Just(112), Just(128), Just(264)],
        outputs in prop_oneof![1usize..=70, Just(128), Just(136), Just(300)],
        gaps in prop_oneof![Just([0, 0]), Just([3, 1])],
        shift in 0usize..=3,
        bias: bool,
        batch_invariant: bool,
        arch in 0usize..2,
    ) {
        let case = Case::new(seed, operation, tokens, [kv_heads * per_kv, kv_heads, contracted, outputs]);
        let case = case.placed(gaps, shift).batch_invariant(batch_invariant);
        let case = if bias { case.with_bias(seed) } else { case };
        case.check(&simulate(Simulation::default().with_arch(PTX[arch])));
    }

    #[test]
    fn equals_the_reference_in_whole_chunks(
        seed: u64,
        operation in operation(),
        tokens in tokens(),
        (per_kv, kv_heads) in heads(),
        contracted in 1usize..=24,
        outputs in 1usize..=24,
        gaps in prop_oneof![Just([0, 0]), Just([16, 8])],
        bias: bool,
        batch_invariant: bool,
    ) {
        let case = Case::new(seed, operation, tokens, [kv_heads * per_kv, kv_heads, 8 * contracted, 8 * outputs]);
        let case = case.placed(gaps, 0).batch_invariant(batch_invariant);
        let case = if bias { case.with_bias(seed) } else { case };
        case.check(&device());
    }

    /// Tokens alone, a few and many at a time, in buffers of any alignment.
    #[test]
    fn batch_invariant_rows_have_the_same_bits_in_any_batch(
        seed: u64,
        operation in operation(),
        (per_kv, kv_heads) in heads(),
        contracted in prop_oneof![1usize..=300, Just(512)],
        outputs in prop_oneof![1usize..=70, Just(128), Just(136)],
        tokens in 2usize..=150,
        first in 0usize..=149,
        count in 1usize..=40,
        shift in 0usize..=1,
        bias: bool,
    ) {
        let case = Case::new(seed, operation, tokens, [kv_heads * per_kv, kv_heads, contracted, outputs]);
        let case = case.batch_invariant(true);
        let case = if bias { case.with_bias(seed) } else { case };
        let together = case.run(&device());
        let range = first % tokens..tokens.min(first % tokens + count);
        let width = kv_heads * per_kv * outputs;
        let expected = &together[range.start * width..range.end * width];
        prop_assert_eq!(&case.part(range).placed([0, 0], shift).run(&device()), expected);
    }
}

#[test]
fn a_contraction_over_nothing_is_zero() {
    for (tokens, batch_invariant) in [(3, false), (3, true), (30, false)] {
        let case = Case::new(1, Query, tokens, [4, 2, 0, 40]).placed([0, 8], 0).batch_invariant(batch_invariant);
        assert_eq!(case.run(&device()), vec![bf16::ZERO; tokens * 4 * 40]);
    }
}

/// Long contractions, as of Llama2-7B with d_kv = 64.
#[test]
fn long_contractions_lose_nothing() {
    for (operation, contracted, outputs) in [(Output, 2048, 32), (Query, 1024, 64)] {
        for (tokens, batch_invariant) in [(5, false), (5, true), (20, false)] {
            let case = Case::new(2, operation, tokens, [2, 2, contracted, outputs]);
            case.batch_invariant(batch_invariant).check(&device());
        }
    }
}

#[test]
fn repeated_runs_agree_to_the_bit() {
    for operation in [Query, Output] {
        for (tokens, batch_invariant) in [(4, false), (4, true), (17, false)] {
            for shift in [0, 1] {
                let case = Case::new(3, operation, tokens, [8, 2, 200, 136]).placed([0, 0], shift);
                let (device, case) = (device(), case.batch_invariant(batch_invariant));
                let first = case.run(&device);
                assert!((0..2).all(|_| case.run(&device) == first), "{operation:?}, {tokens} tokens, shift {shift}");
            }
        }
    }
}

/// A device of which so many small blocks fill all multiprocessors.
fn with_multiprocessors(multiprocessors: usize) -> Device {
    simulate(Simulation::default().with_multiprocessors(multiprocessors))
}

#[test]
fn rows_do_not_depend_on_their_neighbours() {
    // Of few, of medium tiles and of large ones.
    for (multiprocessors, tokens, part) in [(4, 11, 1), (4, 150, 100), (1, 150, 20)] {
        for operation in [Query, Output] {
            let all = Case::new(4, operation, tokens, [2, 2, 96, 80]);
            let together = all.run(&with_multiprocessors(multiprocessors));
            for first in [0, 7, tokens - part] {
                let alone = all.part(first..first + part).run(&with_multiprocessors(multiprocessors));
                let expected = &together[first * 2 * 80..(first + part) * 2 * 80];
                assert_eq!(alone, expected, "{operation:?}, {part} tokens from {first}");
            }
        }
    }
}

#[test]
fn small_blocks_are_taken_until_they_fill_the_device() {
    // Llama3-8B's heads, on as many multiprocessors as an H200 has.
    for (tokens, kernel, ordered) in [
        (1, "few", "few_ordered"),
        (4, "few", "few_ordered"),
        (16, "few", "medium"),
        (64, "medium", "medium"),
        (128, "medium", "medium"),
        (512, "many", "many"),
    ] {
        for (operation, name, outputs) in [(Query, "absorb_query", 256), (Output, "expand_output", 128)] {
            for (batch_invariant, kernel) in [(false, kernel), (true, ordered)] {
                let device = with_multiprocessors(132);
                let case = Case::new(7, operation, tokens, [32, 8, 8, outputs]);
                case.batch_invariant(batch_invariant).run(&device);
                let counts = device.take_counts();
                if counts.is_empty() {
                    return; // A GPU counts nothing.
                }
                assert_eq!(counts.into_keys().collect::<Vec<_>>(), [format!("{name}_{kernel}")], "{tokens} tokens");
            }
        }
    }
}

#[test]
fn few_reads_each_weight_once() {
    // 16 rows per KV head, so that every lane has its own.
    assert_eq!(ABSORB_FEW_ROWS, 16);
    for (operation, name, width) in [
        (Query, "absorb_query_few", ABSORB_QUERY_FEW_OUTPUTS as usize),
        (Output, "expand_output_few", EXPAND_OUTPUT_FEW_OUTPUTS as usize),
    ] {
        for (contracted, outputs) in [(128, 256), (512, 64), (96, 80), (112, 24)] {
            for shift in [0, 1] {
                let device = device();
                Case::new(5, operation, 4, [8, 2, contracted, outputs]).placed([0, 0], shift).run(&device);
                let Some(counted) = device.take_counts().remove(name) else { return };
                let traffic = |path| counted.meter.traffic.get(&path).copied().unwrap_or_default();
                let weights = 2 * 2 * (contracted * outputs) as u64;
                let inputs = 2 * 2 * (16 * contracted * outputs.div_ceil(width)) as u64;
                let read = traffic(Path::GlobalRead);
                assert_eq!(read.bytes, weights + inputs, "{name} {contracted} {outputs} {shift}");
                if shift == 0 && contracted % 32 == 0 {
                    assert_eq!(read.sectors, (weights + inputs) / 32, "whole sectors");
                }
                if shift == 0 && contracted % 32 == 0 && outputs % width == 0 {
                    assert_eq!(read.accesses, (weights + inputs) / (32 * 16), "16 bytes a lane");
                }
                assert_eq!(traffic(Path::GlobalWrite).bytes, 2 * (4 * 8 * outputs) as u64);
                assert_eq!(traffic(Path::LocalRead).bytes + traffic(Path::LocalWrite).bytes, 0);
                assert_eq!(traffic(Path::SharedRead).conflicts + traffic(Path::SharedWrite).conflicts, 0);
            }
        }
    }
}

#[test]
fn tiles_read_each_operand_once_and_without_bank_conflicts() {
    // Tiles of rows, and of outputs.
    assert_eq!([GEMM_TILE, ABSORB_MEDIUM_TILE, ABSORB_FEW_ROWS, ABSORB_ORDERED_OUTPUTS], [128, 64, 16, 64]);
    for (operation, name, rows, multiprocessors, tiles) in [
        (Query, "absorb_query_many", 150, 1, [2, 2]),
        (Output, "expand_output_many", 150, 1, [2, 2]),
        (Query, "absorb_query_medium", 150, 4, [3, 4]),
        (Output, "expand_output_medium", 150, 4, [3, 4]),
        (Query, "absorb_query_few_ordered", 13, 1, [1, 4]),
        (Output, "expand_output_few_ordered", 13, 1, [1, 4]),
    ] {
        for shift in [0, 1] {
            let device = with_multiprocessors(multiprocessors);
            let case = Case::new(6, operation, rows, [1, 1, 128, 256]).placed([0, 0], shift);
            case.batch_invariant(rows == 13).run(&device);
            let mut counts = device.take_counts();
            if counts.is_empty() {
                return; // A GPU counts nothing.
            }
            let counted = counts.remove(name).unwrap();
            let traffic = |path| counted.meter.traffic.get(&path).copied().unwrap_or_default();
            let path = if shift == 0 { Path::CopyGlobalRead } else { Path::GlobalRead };
            let (inputs, weights) = (rows * 128 * tiles[1], 128 * 256 * tiles[0]);
            assert_eq!(traffic(path).bytes, 2 * (inputs + weights) as u64, "{name}, shift {shift}");
            if shift == 0 {
                assert_eq!(traffic(path).sectors, traffic(path).bytes / 32, "{name}: whole sectors");
                assert_eq!(traffic(Path::GlobalWrite).sectors, 2 * rows as u64 * 256 / 32, "{name}: whole sectors");
            }
            for path in [Path::SharedRead, Path::SharedWrite, Path::CopySharedWrite] {
                // Unaligned outputs are read from shared memory one by one.
                let conflicts = traffic(path).conflicts;
                assert!(conflicts == 0 || (shift == 1 && path == Path::SharedRead), "{name} {path:?}: {conflicts}");
            }
            assert_eq!(traffic(Path::LocalRead).bytes + traffic(Path::LocalWrite).bytes, 0);
        }
    }
}

#[test]
fn wrong_sizes_are_named() {
    let device = device();
    let huge = Geometry::deepseek(65536, 8, 0, 8, 8).unwrap();
    let message = AbsorbQuery::new(&device, AbsorbConfig::new(huge)).unwrap_err().to_string();
    let expected = "absorb for 65536 kv heads: must be at most 65535";
    assert!(message.starts_with(expected), "{message}");
    let message = ExpandOutput::new(&device, AbsorbConfig::new(huge)).unwrap_err().to_string();
    assert!(message.starts_with(expected), "{message}");
    let mut odd = Geometry::deepseek(3, 8, 0, 8, 8).unwrap();
    odd.kv_heads = 2;
    let message = AbsorbQuery::new(&device, AbsorbConfig::new(odd)).unwrap_err().to_string();
    assert!(message.starts_with("geometry: kv_heads must be"), "{message}");
}

#[test]
fn wrong_arguments_are_named() {
    // H 4, G 2, L 8, Dn 6, Dv 5.
    let device = device();
    let mut geometry = Geometry::mha2mla(4, 2, 6, 0, 4).unwrap();
    geometry.value_dim = 5;
    let config = AbsorbConfig::new(geometry);
    let stream = device.stream().unwrap();
    let (query, output) = (AbsorbQuery::new(&device, config).unwrap(), ExpandOutput::new(&device, config).unwrap());
    let elsewhere = Device::simulated();
    let (memory, foreign) = (device.zeros::<bf16>(1000).unwrap(), elsewhere.zeros::<bf16>(1000).unwrap());
    let tensor = |sizes| Tensor::dense(memory.view(), sizes).unwrap();

    let check_query = |weights: [usize; 3], input: [usize; 3], result: [usize; 3], expected: &str| {
        let mut out = device.zeros::<bf16>(1000).unwrap();
        let q_latent = TensorMut::dense(out.view_mut(), result).unwrap();
        let args = AbsorbQueryArgs { up_key: tensor(weights), q_nope: tensor(input), q_latent };
        let message = query.run(&stream, args).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    };
    let (weights, input, result) = ([2, 6, 8], [3, 4, 6], [3, 4, 8]);
    check_query([4, 6, 8], input, result, "key up-projection: expected [kv heads 2, nope 6, latent 8], got [4, 6, 8]");
    check_query(weights, [3, 4, 5], result, "q_nope: expected [tokens 3, query heads 4, nope 6], got [3, 4, 5]");
    check_query(weights, input, [2, 4, 8], "q_latent: expected [tokens 3, query heads 4, latent 8], got [2, 4, 8]");

    let check_output =
        |weights: [usize; 3], bias: Option<usize>, input: [usize; 3], result: [usize; 3], expected: &str| {
            let (mut out, bias) = (device.zeros::<bf16>(1000).unwrap(), bias.map(|n| device.zeros::<f32>(n).unwrap()));
            let out = TensorMut::dense(out.view_mut(), result).unwrap();
            let value_bias = bias.as_ref().map(|bias| bias.view());
            let args = ExpandOutputArgs { up_value: tensor(weights), value_bias, o_latent: tensor(input), out };
            let message = output.run(&stream, args).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        };
    let (weights, input, result) = ([2, 5, 8], [3, 4, 8], [3, 4, 5]);
    let expected = "value up-projection: expected [kv heads 2, value 5, latent 8], got [2, 6, 8]";
    check_output([2, 6, 8], None, input, result, expected);
    check_output(weights, Some(9), input, result, "value bias: expected [kv heads 2, value 5] = 10 elements, got 9");
    let expected = "o_latent: expected [tokens 3, query heads 4, latent 8], got [3, 2, 8]";
    check_output(weights, Some(10), [3, 2, 8], result, expected);
    check_output(weights, None, input, [3, 4, 6], "out: expected [tokens 3, query heads 4, value 5], got [3, 4, 6]");

    // Another device's memory.
    let mut out = device.zeros::<bf16>(1000).unwrap();
    let up_key = Tensor::dense(foreign.view(), [2, 6, 8]).unwrap();
    let q_latent = TensorMut::dense(out.view_mut(), [3, 4, 8]).unwrap();
    let args = AbsorbQueryArgs { up_key, q_nope: tensor([3, 4, 6]), q_latent };
    let message = query.run(&stream, args).unwrap_err().to_string();
    assert!(message.starts_with("key up-projection: is on device `ptx-sim`"), "{message}");

    // More tokens than there can be rows, in memory that nobody has.
    let most = i32::MAX as usize / 2;
    let mut owner = ();
    // SAFETY: the call is refused before anything is read or written.
    let vast = unsafe { ViewMut::<bf16>::borrow(&device, 1 << 40, (most + 1) * 32, &mut owner) };
    let q_latent = TensorMut::dense(vast, [most + 1, 4, 8]).unwrap();
    let q_nope = Tensor::new(memory.view(), Shape { sizes: [most + 1, 4, 6], strides: [0, 6] }).unwrap();
    let args = AbsorbQueryArgs { up_key: tensor([2, 6, 8]), q_nope, q_latent };
    let message = query.run(&stream, args).unwrap_err().to_string();
    assert_eq!(message, format!("absorb for {} tokens: at most {most}", most + 1));

    let params = AbsorbParams { tokens: 0, ..Default::default() };
    // SAFETY: without tokens there is nothing to launch.
    unsafe { query.launch(&stream, &params).and(output.launch(&stream, &params)) }.unwrap();
}
