//! `rope_append` leaves the reference's cache, byte for byte.

use half::bf16;
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, PagedCache};
use latent_attention::device::{Buffer, Device, Element, Shape, Simulation, Tensor, TensorMut};
use latent_attention::ops::{
    DeviceCache, DeviceNorm, RopeAppend, RopeAppendArgs, RopeAppendConfig, Rotation, RotationBuffers,
};
use latent_attention::reference::{AppendInputs, AppendParams, rms_norm, rope_append};
use latent_attention::rope::{FrequencyIndex, Pairing, RopeTables};
use latent_attention::weights::RmsNorm;
use proptest::prelude::*;
use ptx_sim::meter::{Meter, Path};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

use crate::common::{formats, geometry, page_size, random, rng};
use crate::{PTX, device, simulate};

const FREQUENCIES: usize = 70;
const POSITIONS: usize = 20;

/// What no launch may change.
const POISON: bf16 = bf16::from_bits(0xA5A5);

/// How the tensors lie in memory.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    /// Elements that the tensors' heads are apart beyond their size, and tokens beyond their heads.
    gaps: [usize; 2],
    /// Elements that everything but the cache begins behind an aligned address.
    shift: usize,
    /// The rotated queries replace the queries.
    in_place: bool,
}

/// One step: what is appended, and to what.
#[derive(Clone)]
struct Step {
    geometry: Geometry,
    pairing: Pairing,
    tables: RopeTables,
    frequencies: FrequencyIndex,
    norm: Option<RmsNorm>,
    bias: Option<Vec<f32>>,
    q_rope: Vec<bf16>,
    k_rope: Vec<bf16>,
    c_kv: Vec<bf16>,
    positions: Vec<i32>,
    slots: Vec<i64>,
    cache: PagedCache,
}

/// What a step left.
struct Ran {
    q_rope: Vec<bf16>,
    cache: PagedCache,
    counters: Vec<u64>,
}

fn bf16s(rng: &mut ChaCha8Rng, len: usize) -> Vec<bf16> {
    random(rng, len).into_iter().map(bf16::from_f32).collect()
}

/// Rows of which many hold what is easily mistreated: numbers that are not finite, of both zeros, tiny, too large for
/// f16 or for the norm's squares, all alike.
fn awkward(rng: &mut ChaCha8Rng, len: usize) -> Vec<bf16> {
    const SPECIAL: [f32; 16] = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        1e-40,
        -1e-40,
        6e-8,
        -6e-8,
        1e30,
        -1e30,
        3e38,
        65504.0,
        -65504.0,
        66000.0,
        1.0,
    ];
    let mut values = bf16s(rng, len);
    for stretch in values.chunks_mut(48) {
        match rng.random_range(0..6) {
            0 => stretch.fill(bf16::from_f32(SPECIAL[rng.random_range(0..SPECIAL.len())])),
            1 => stretch.iter_mut().for_each(|v| *v = bf16::from_f32(SPECIAL[rng.random_range(0..SPECIAL.len())])),
            2 => stretch.iter_mut().for_each(|v| *v = bf16::from_bits(rng.random())),
            3 => stretch[0] = bf16::from_f32(SPECIAL[rng.random_range(0..SPECIAL.len())]),
            4 => {
                let size = 2f32.powi(rng.random_range(-40..20));
                stretch.iter_mut().for_each(|v| *v = bf16::from_f32(v.to_f32() * size));
            }
            _ => {}
        }
    }
    values
}

impl Step {
    /// `tokens` tokens for distinct random slots of a cache of random bytes, about a quarter of them skipped.
    fn new(seed: u64, geometry: Geometry, format: CacheFormat, page_size: usize, tokens: usize) -> Self {
        let mut rng = rng(seed);
        let layout = CacheLayout::new(&geometry, format, page_size).unwrap();
        let mut cache = PagedCache::new(layout, tokens.div_ceil(page_size) + 1).unwrap();
        rng.fill(cache.bytes_mut());
        let mut free: Vec<i64> = (0..cache.slots() as i64).collect();
        free.shuffle(&mut rng);
        let pairs = geometry.rope_heads * geometry.rope_dim / 2;
        let indices = (0..pairs).map(|_| rng.random_range(0..FREQUENCIES as u32)).collect();
        Self {
            geometry,
            pairing: if rng.random() { Pairing::Half } else { Pairing::Interleaved },
            tables: RopeTables::from_theta(1e4, 2 * FREQUENCIES, POSITIONS),
            frequencies: FrequencyIndex::new(geometry.rope_heads, indices).unwrap(),
            norm: rng.random::<bool>().then(|| RmsNorm { gain: random(&mut rng, geometry.latent_rank), epsilon: 1e-6 }),
            bias: rng.random::<bool>().then(|| random(&mut rng, geometry.latent_rank)),
            q_rope: bf16s(&mut rng, tokens * geometry.query_heads * geometry.rope_dim),
            k_rope: bf16s(&mut rng, tokens * geometry.rope_width()),
            c_kv: bf16s(&mut rng, tokens * geometry.latent_rank),
            positions: (0..tokens).map(|_| rng.random_range(0..POSITIONS as i32)).collect(),
            slots: (0..tokens).map(|_| if rng.random_range(0..4) == 0 { -1 } else { free.pop().unwrap() }).collect(),
            cache,
        }
    }

    fn awkward(mut self, seed: u64) -> Self {
        let mut rng = rng(seed);
        for values in [&mut self.q_rope, &mut self.k_rope, &mut self.c_kv] {
            *values = awkward(&mut rng, values.len());
        }
        self
    }

    fn tokens(&self) -> usize {
        self.slots.len()
    }

    fn is_refused(&self, token: usize) -> bool {
        let (position, slot) = (self.positions[token], self.slots[token]);
        !(0..POSITIONS as i32).contains(&position) || !(-1..self.cache.slots() as i64).contains(&slot)
    }

    /// The reference's result: of a refused token it sees nothing, and the query of one stays as it was.
    fn reference(&self, mut q_rope: Vec<bf16>) -> (Vec<bf16>, PagedCache, [u64; 2]) {
        let accepted: Vec<usize> = (0..self.tokens()).filter(|&t| !self.is_refused(t)).collect();
        let rows = |values: &[bf16]| -> Vec<f32> {
            let width = values.len() / self.tokens();
            accepted.iter().flat_map(|t| values[t * width..][..width].iter().map(|v| v.to_f32())).collect()
        };
        let params = AppendParams {
            geometry: &self.geometry,
            pairing: self.pairing,
            tables: &self.tables,
            frequencies: &self.frequencies,
            norm: self.norm.as_ref(),
            bias: self.bias.as_deref(),
        };
        let inputs = AppendInputs {
            q_rope: &rows(&self.q_rope),
            k_rope: &rows(&self.k_rope),
            c_kv: &rows(&self.c_kv),
            positions: &accepted.iter().map(|&t| self.positions[t]).collect::<Vec<_>>(),
            slots: &accepted.iter().map(|&t| self.slots[t]).collect::<Vec<_>>(),
        };
        let mut cache = self.cache.clone();
        let appended = rope_append(&params, &inputs, &mut cache).unwrap();
        let width = self.geometry.query_heads * self.geometry.rope_dim;
        for (row, &t) in accepted.iter().enumerate() {
            for (i, got) in q_rope[t * width..][..width].iter_mut().enumerate() {
                *got = bf16::from_f32(appended.q_rope[row * width + i]);
            }
        }
        let refused = self.tokens() - accepted.len();
        (q_rope, cache, [appended.saturated as u64, refused as u64])
    }

    fn run(&self, device: &Device, memory: Memory) -> Ran {
        self.launch(device, memory, true)
    }

    fn launch(&self, device: &Device, memory: Memory, counting: bool) -> Ran {
        let (g, tokens, shift) = (&self.geometry, self.tokens(), memory.shift);
        let dense = |values: &[f32]| memory.dense(device, values);
        let q_shape = memory.shape([tokens, g.query_heads, g.rope_dim]);
        let k_shape = memory.shape([tokens, g.rope_heads, g.rope_dim]);
        let c_shape = memory.shape([tokens, 1, g.latent_rank]);
        let q_rope = memory.tensor(device, &self.q_rope, q_shape);
        let mut rotated = memory.dense(device, &vec![POISON; tokens * q_shape.strides[0]]);
        if memory.in_place {
            memory.scatter(&mut rotated, &self.q_rope, q_shape);
        }
        let k_rope = memory.tensor(device, &self.k_rope, k_shape);
        let c_kv = memory.tensor(device, &self.c_kv, c_shape);
        let positions = memory.dense(device, &self.positions);
        let slots = memory.dense(device, &self.slots);
        let (cos, sin) = (dense(self.tables.cos()), dense(self.tables.sin()));
        let index = memory.dense(device, self.frequencies.as_slice());
        let (cos, sin) = (cos.view().slice(shift..).unwrap(), sin.view().slice(shift..).unwrap());
        // SAFETY: the indices are below FREQUENCIES.
        let rotation = unsafe { Rotation::from_device(cos, sin, FREQUENCIES, index.view().slice(shift..).unwrap()) };
        let gain = self.norm.as_ref().map(|norm| (dense(&norm.gain), norm.epsilon));
        let bias = self.bias.as_deref().map(dense);
        let mut cache = DeviceCache::upload(device, &self.cache).unwrap();
        let mut counters = device.upload(&[7, 9]).unwrap();

        let config = RopeAppendConfig::new(self.geometry, *self.cache.layout(), self.pairing);
        let append = RopeAppend::new(device, config).unwrap();
        let q_view = q_rope.view().slice(shift..).unwrap();
        let args = RopeAppendArgs {
            q_rope: (!memory.in_place).then(|| Tensor::new(q_view, q_shape).unwrap()),
            q_rotated: TensorMut::new(rotated.view_mut().slice(shift..).unwrap(), q_shape).unwrap(),
            k_rope: Tensor::new(k_rope.view().slice(shift..).unwrap(), k_shape).unwrap(),
            c_kv: Tensor::new(c_kv.view().slice(shift..).unwrap(), c_shape).unwrap(),
            positions: positions.view().slice(shift..).unwrap(),
            slots: slots.view().slice(shift..).unwrap(),
            rotation: rotation.unwrap(),
            norm: gain
                .as_ref()
                .map(|(gain, epsilon)| DeviceNorm { gain: gain.view().slice(shift..).unwrap(), epsilon: *epsilon }),
            bias: bias.as_ref().map(|bias| bias.view().slice(shift..).unwrap()),
            cache: cache.view_mut(),
            counters: counting.then(|| counters.view_mut()),
        };
        append.run(&device.stream().unwrap(), args).unwrap();
        let q_rope = memory.gather(&rotated.to_vec().unwrap()[shift..], q_shape);
        let counters = counters.to_vec().unwrap();
        Ran { q_rope, cache: cache.download().unwrap(), counters: vec![counters[0] - 7, counters[1] - 9] }
    }
}

impl Memory {
    fn shape(&self, sizes: [usize; 3]) -> Shape {
        let head = sizes[2] + self.gaps[0];
        Shape { sizes, strides: [sizes[1] * head + self.gaps[1], head] }
    }

    fn dense<T: Element>(&self, device: &Device, values: &[T]) -> Buffer<T> {
        let mut buffer = device.allocate(self.shift + values.len()).unwrap();
        buffer.view_mut().slice(self.shift..).unwrap().write(values).unwrap();
        buffer
    }

    /// Between the rows is memory that was never written.
    fn tensor(&self, device: &Device, values: &[bf16], shape: Shape) -> Buffer<bf16> {
        let mut buffer = device.allocate(self.shift + shape.sizes[0] * shape.strides[0]).unwrap();
        self.scatter(&mut buffer, values, shape);
        buffer
    }

    fn scatter(&self, buffer: &mut Buffer<bf16>, values: &[bf16], Shape { sizes, strides }: Shape) {
        for (i, row) in values.chunks_exact(sizes[2].max(1)).enumerate() {
            let start = self.shift + i / sizes[1] * strides[0] + i % sizes[1] * strides[1];
            buffer.view_mut().slice(start..start + row.len()).unwrap().write(row).unwrap();
        }
    }

    /// The values of a tensor between whose rows everything is still poison.
    #[track_caller]
    fn gather(&self, all: &[bf16], Shape { sizes, strides }: Shape) -> Vec<bf16> {
        let mut values = Vec::new();
        for (i, &value) in all.iter().enumerate() {
            let (head, dim) = (i % strides[0] / strides[1].max(1), i % strides[0] % strides[1].max(1));
            match head < sizes[1] && dim < sizes[2] {
                true => values.push(value),
                false => assert_eq!(value.to_bits(), POISON.to_bits(), "element {i} was overwritten"),
            }
        }
        values
    }
}

#[track_caller]
fn check(step: &Step, memory: Memory, ran: &Ran) {
    let before = match memory.in_place {
        true => step.q_rope.clone(),
        false => vec![POISON; step.q_rope.len()],
    };
    let (q_rope, cache, counters) = step.reference(before);
    for (i, (got, want)) in ran.q_rope.iter().zip(&q_rope).enumerate() {
        let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
        assert!(same, "rotated query, element {i}: got {got:?}, want {want:?}");
    }
    let layout = step.cache.layout();
    for (i, (got, want)) in ran.cache.bytes().iter().zip(cache.bytes()).enumerate() {
        let (page, byte) = (i / layout.page_bytes(), i % layout.page_bytes());
        assert_eq!(got, want, "byte {byte} of page {page}; {layout:#?}");
    }
    assert_eq!(ran.counters, counters, "saturated values, refused tokens");
}

#[track_caller]
fn run_and_check(step: &Step, memory: Memory) -> Ran {
    let ran = step.run(&device(), memory);
    check(step, memory, &ran);
    ran
}

/// Layers of all sizes: every way of turning heads, latents of one run and of several, odd ones.
fn any_geometry() -> impl Strategy<Value = Geometry> {
    let rank = prop_oneof![
        1usize..=80,
        prop::sample::select(vec![96, 160, 256, 257, 505, 512, 513, 520, 640, 1024, 1030, 1544])
    ];
    let dim = prop::sample::select(vec![2usize, 4, 6, 8, 8, 16, 16, 20, 32, 48, 64, 64, 96, 128, 256, 264, 512]);
    let large = (1usize..=3, 1usize..=5, rank, dim).prop_map(|(per_rope, rope_heads, latent_rank, rope_dim)| {
        let mut geometry = Geometry::mha2mla(per_rope * rope_heads, rope_heads, rope_dim, rope_dim, 1).unwrap();
        geometry.latent_rank = latent_rank;
        geometry.validate().unwrap()
    });
    prop_oneof![1 => geometry(), 3 => large]
}

fn any_memory() -> impl Strategy<Value = Memory> {
    let gaps = prop_oneof![Just([0, 0]), Just([8, 16]), Just([8, 8]), [0usize..5, 0usize..5]];
    let shift = prop_oneof![3 => Just(0usize), 1 => 1usize..=7];
    (gaps, shift, any::<bool>()).prop_map(|(gaps, shift, in_place)| Memory { gaps, shift, in_place })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_reference(
        seed: u64,
        geometry in any_geometry(),
        format in prop::sample::select(formats()),
        page_size in page_size(),
        tokens in 1usize..=7,
        memory in any_memory(),
        awkward: bool,
        arch in 0usize..2,
    ) {
        let mut step = Step::new(seed, geometry, format, page_size, tokens);
        if awkward {
            step = step.awkward(seed);
        }
        check(&step, memory, &step.run(&simulate(Simulation::default().with_arch(PTX[arch])), memory));
    }

    #[test]
    fn refused_tokens_are_counted_and_leave_no_trace(
        seed: u64,
        geometry in any_geometry(),
        format in prop::sample::select(formats()),
        memory in any_memory(),
        bad in prop::collection::vec((0usize..9, 0usize..6), 1..4),
    ) {
        let mut step = Step::new(seed, geometry, format, 8, 9);
        let slots = step.cache.slots() as i64;
        for (token, what) in bad {
            match what {
                0 => step.positions[token] = -1,
                1 => step.positions[token] = POSITIONS as i32,
                2 => step.positions[token] = i32::MIN,
                3 => step.slots[token] = slots,
                4 => step.slots[token] = -2,
                _ => step.slots[token] = [i64::MIN, i64::MAX, 1 << 32][token % 3],
            }
        }
        run_and_check(&step, memory);
    }
}

#[test]
fn every_format_of_every_named_model() {
    for &(_, geometry) in Geometry::NAMED {
        for (i, format) in formats().into_iter().enumerate() {
            let step = Step::new(i as u64, geometry().unwrap(), format, [8, 16, 32, 64][i % 4], 2);
            let step = if i % 3 == 0 { step.awkward(1) } else { step };
            run_and_check(&step, Memory::default());
        }
    }
}

#[test]
fn few_tokens_and_many() {
    for (tokens, page_size) in [(1, 8), (2, 16), (33, 32), (257, 64)] {
        for geometry in [Geometry::smollm_135m(8), Geometry::minicpm3_4b()] {
            run_and_check(&Step::new(6, geometry.unwrap(), CacheFormat::INT4, page_size, tokens), Memory::default());
        }
    }
}

#[test]
fn the_norm_is_the_references_to_the_last_bit() {
    // The bias takes the reference's normed latent away again: 0 is left of each number only if its f32 is the same,
    // which neither bf16 nor int4 would show. Sums in another order would differ in about every second case.
    for seed in 0..8 {
        for rank in [7, 96, 512, 1544] {
            let geometry = Geometry::smollm_135m(32).unwrap().with_latent_rank(rank).unwrap();
            let mut step = Step::new(seed, geometry, CacheFormat::BF16, 8, 1);
            let norm = RmsNorm { gain: random(&mut rng(seed), rank), epsilon: 1e-5 };
            let mut normed: Vec<f32> = step.c_kv.iter().map(|v| v.to_f32()).collect();
            rms_norm(&mut normed, &norm);
            (step.norm, step.slots) = (Some(norm), vec![3]);
            step.bias = Some(normed.iter().map(|v| -v).collect());
            let cache = run_and_check(&step, Memory::default()).cache;
            assert_eq!(cache.latent(3).unwrap(), vec![0.0; rank], "seed {seed}");
        }
    }
}

#[test]
fn nothing_is_counted_where_nobody_asks() {
    let mut step = Step::new(7, Geometry::smollm_135m(32).unwrap(), CacheFormat::INT4, 8, 3).awkward(7);
    step.positions[1] = -1;
    let ran = step.launch(&device(), Memory::default(), false);
    assert_eq!(ran.counters, [0, 0]);
    assert!(ran.cache == step.run(&device(), Memory::default()).cache);
}

#[test]
fn tokens_do_not_depend_on_their_neighbours() {
    let all = Step::new(8, Geometry::llama3_8b(64).unwrap(), CacheFormat::INT4, 16, 6);
    let mut cache = all.cache.clone();
    for t in 0..6 {
        let row = |values: &[bf16]| values[t * values.len() / 6..][..values.len() / 6].to_vec();
        let one = Step {
            q_rope: row(&all.q_rope),
            k_rope: row(&all.k_rope),
            c_kv: row(&all.c_kv),
            positions: vec![all.positions[t]],
            slots: vec![all.slots[t]],
            cache,
            ..all.clone()
        };
        cache = one.run(&device(), Memory::default()).cache;
    }
    assert!(all.run(&device(), Memory::default()).cache == cache);
}

#[test]
fn layers_share_tables_and_have_their_own_frequencies() {
    let device = device();
    let step = Step::new(10, Geometry::smollm_135m(32).unwrap(), CacheFormat::BF16, 8, 1);
    let first = RotationBuffers::upload(&device, &step.tables, &FrequencyIndex::all(3, 8)).unwrap();
    let second = first.with_index(&step.frequencies).unwrap();
    let message = first.with_index(&FrequencyIndex::new(1, vec![0, 70]).unwrap()).unwrap_err().to_string();
    assert_eq!(message, "frequency index [1] = 70 is outside of 0..70 frequencies");
    let mut q_rope = device.upload(&step.q_rope).unwrap();
    let (k_rope, c_kv) = (device.upload(&step.k_rope).unwrap(), device.upload(&step.c_kv).unwrap());
    let (positions, slots) = (device.upload(&step.positions).unwrap(), device.upload(&[-1]).unwrap());
    let mut cache = DeviceCache::upload(&device, &step.cache).unwrap();
    let config = RopeAppendConfig::new(step.geometry, *step.cache.layout(), step.pairing);
    let args = RopeAppendArgs {
        q_rope: None,
        q_rotated: TensorMut::dense(q_rope.view_mut(), [1, 9, 8]).unwrap(),
        k_rope: Tensor::dense(k_rope.view(), [1, 3, 8]).unwrap(),
        c_kv: Tensor::dense(c_kv.view(), [1, 1, 96]).unwrap(),
        positions: positions.view(),
        slots: slots.view(),
        rotation: second.rotation(),
        norm: None,
        bias: None,
        cache: cache.view_mut(),
        counters: None,
    };
    RopeAppend::new(&device, config).unwrap().run(&device.stream().unwrap(), args).unwrap();
    assert_eq!(q_rope.to_vec().unwrap(), step.reference(step.q_rope.clone()).0);
    assert!(cache.download().unwrap() == step.cache);
}

/// What a launch counted, of 8 tokens that are all stored. Pairing `Half`, no bias.
fn counted(name: &str, norm: bool, format: CacheFormat, memory: Memory) -> Meter {
    let mut step = Step::new(9, Geometry::named(name).unwrap(), format, 16, 8);
    (step.pairing, step.bias, step.slots) = (Pairing::Half, None, (0..8).collect());
    step.norm = norm.then(|| RmsNorm { gain: vec![1.0; step.geometry.latent_rank], epsilon: 1e-6 });
    let device = Device::simulated();
    check(&step, memory, &step.run(&device, memory));
    device.take_counts()["rope_append"].meter.clone()
}

#[test]
fn inputs_are_read_once_and_the_record_is_written_once() {
    let check = |name: &str, norm: bool, format: CacheFormat, memory: Memory, expected: [usize; 2]| {
        let meter = counted(name, norm, format, memory);
        let bytes = |path| meter.traffic.get(&path).map_or(0, |traffic| traffic.bytes as usize);
        assert_eq!([bytes(Path::GlobalRead), bytes(Path::GlobalWrite)], expected.map(|n| 8 * n), "{name}");
        assert_eq!(bytes(Path::LocalRead) + bytes(Path::LocalWrite), 0, "{name}");
        assert_eq!(bytes(Path::SharedRead) + bytes(Path::SharedWrite), 0, "{name}");
    };
    let record = |name, format: CacheFormat| format.bytes_per_token(&Geometry::named(name).unwrap()).unwrap();
    // Position and slot of each lane; 4 bytes each of index, cosine and sine for each dimension of a unit.
    let (place, factors) = (32 * 12, 12);
    let aligned = Memory::default();
    let odd = Memory { shift: 1, ..aligned };
    for format in [CacheFormat::INT4, CacheFormat::BF16] {
        // 4 runs of the latent, one of keys and one of queries.
        let (latent, rope, name) = (2 * 2048, 2 * 512, "llama2-7b-d64");
        let expected = [6 * place + latent + 2 * rope + 2 * 512 * factors, record(name, format) + rope];
        check(name, false, format, aligned, expected);
        // Pair by pair, a query's factors are read once a pair; a key's dimensions are read with their partners.
        let expected = [6 * place + latent + 3 * rope + (256 + 512) * factors, record(name, format) + rope];
        check(name, false, format, odd, expected);
        // The latents behind the first 512 are read twice, the gain once.
        let expected =
            [3 * place + 2 * latent - 1024 + 4 * 2048 + 2 * rope + 2 * 512 * factors, record(name, format) + rope];
        check(name, true, format, aligned, expected);
    }
    // Here both halves of a run have the same rope head, and a key fills 8 lanes of the first.
    let (latent, key, query, name) = (2 * 512, 2 * 64, 2 * 128 * 64, "deepseek-v3");
    let expected = [
        18 * place + latent + 4 * 512 + key + query + (64 + 16 * 256) * factors,
        record(name, CacheFormat::INT4) + query,
    ];
    check(name, true, CacheFormat::INT4, aligned, expected);
}
