//! One step of `rope_append`, run on a device and by the reference.

use half::bf16;
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, PagedCache};
use latent_attention::device::{Buffer, Device, Element, Shape, Tensor, TensorMut};
use latent_attention::ops::{
    DeviceCache, DeviceKeyNorm, DeviceNorm, RopeAppend, RopeAppendArgs, RopeAppendConfig, Rotation,
};
use latent_attention::reference::{KeyNorm, RopeAppendInputs, RopeAppendParams, RopeAppendRotation, rope_append};
use latent_attention::rope::{FrequencyIndex, Pairing, RopeTables};
use latent_attention::weights::RmsNorm;
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

use crate::common::{random, rng};
use crate::device;

pub const FREQUENCIES: usize = 70;
pub const POSITIONS: usize = 20;

/// What no launch may change.
pub const POISON: bf16 = bf16::from_bits(0xA5A5);

/// How the tensors lie in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Elements that the tensors' heads are apart beyond their size, and tokens beyond their heads.
    pub gaps: [usize; 2],
    /// Elements that everything but the cache begins behind an aligned address.
    pub shift: usize,
    /// The rotated queries replace the queries.
    pub in_place: bool,
}

/// One step: what is appended, and to what.
#[derive(Clone)]
pub struct Step {
    pub geometry: Geometry,
    pub pairing: Pairing,
    pub tables: RopeTables,
    pub frequencies: FrequencyIndex,
    pub norm: Option<RmsNorm>,
    pub bias: Option<Vec<f32>>,
    /// Of normalised keys: the gain, and the tokens' factors.
    pub key_norm: Option<[Vec<f32>; 2]>,
    pub q_rope: Vec<bf16>,
    pub k_rope: Vec<bf16>,
    pub c_kv: Vec<bf16>,
    pub positions: Vec<i32>,
    pub slots: Vec<i64>,
    pub cache: PagedCache,
    pub left_out: LeftOut,
}

/// What engines may do themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    Nothing,
    Queries,
    /// Keys come rotated.
    Rotation,
}

/// What a step left.
pub struct Ran {
    pub q_rope: Vec<bf16>,
    pub cache: PagedCache,
    pub counters: Vec<u64>,
}

pub fn bf16s(rng: &mut ChaCha8Rng, len: usize) -> Vec<bf16> {
    random(rng, len).into_iter().map(bf16::from_f32).collect()
}

/// Rows of which many hold what is easily mistreated: numbers that are not finite, of both zeros, tiny, too large for
/// f16 or for the norm's squares, all alike.
pub fn awkward(rng: &mut ChaCha8Rng, len: usize) -> Vec<bf16> {
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
    pub fn new(seed: u64, geometry: Geometry, format: CacheFormat, page_size: usize, tokens: usize) -> Self {
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
            key_norm: geometry.key_norm.then(|| {
                let factors = random(&mut rng, tokens * geometry.kv_heads).into_iter().map(|x| (10.0 * x).exp());
                [random(&mut rng, geometry.rope_width()), factors.collect()]
            }),
            q_rope: bf16s(&mut rng, tokens * geometry.query_heads * geometry.rope_dim),
            k_rope: bf16s(&mut rng, tokens * geometry.rope_width()),
            c_kv: bf16s(&mut rng, tokens * geometry.latent_rank),
            positions: (0..tokens).map(|_| rng.random_range(0..POSITIONS as i32)).collect(),
            slots: (0..tokens).map(|_| if rng.random_range(0..4) == 0 { -1 } else { free.pop().unwrap() }).collect(),
            cache,
            left_out: LeftOut::Nothing,
        }
    }

    pub fn without(self, left_out: LeftOut) -> Self {
        Self { left_out, ..self }
    }

    fn rotates(&self) -> bool {
        self.left_out != LeftOut::Rotation
    }

    fn has_queries(&self) -> bool {
        self.left_out == LeftOut::Nothing
    }

    pub fn awkward(mut self, seed: u64) -> Self {
        let mut rng = rng(seed);
        for values in [&mut self.q_rope, &mut self.k_rope, &mut self.c_kv] {
            *values = awkward(&mut rng, values.len());
        }
        if let Some([_, factors]) = &mut self.key_norm {
            *factors = awkward(&mut rng, factors.len()).into_iter().map(bf16::to_f32).collect();
        }
        self
    }

    pub fn tokens(&self) -> usize {
        self.slots.len()
    }

    pub fn is_refused(&self, token: usize) -> bool {
        let (position, slot) = (self.positions[token], self.slots[token]);
        let is_outside = self.rotates() && !(0..POSITIONS as i32).contains(&position);
        is_outside || !(-1..self.cache.slots() as i64).contains(&slot)
    }

    /// The reference's result: of a refused token it sees nothing, and the query of one stays as it was.
    pub fn reference(&self, mut q_rope: Vec<bf16>) -> (Vec<bf16>, PagedCache, [u64; 2]) {
        let accepted: Vec<usize> = (0..self.tokens()).filter(|&t| !self.is_refused(t)).collect();
        let rows = |values: &[bf16]| -> Vec<f32> {
            let width = values.len() / self.tokens();
            accepted.iter().flat_map(|t| values[t * width..][..width].iter().map(|v| v.to_f32())).collect()
        };
        let factors: Vec<f32> =
            self.key_norm.iter().flat_map(|[_, factors]| rows_of(factors, &accepted, self)).collect();
        let rotation =
            RopeAppendRotation { pairing: self.pairing, tables: &self.tables, frequencies: &self.frequencies };
        let params = RopeAppendParams {
            geometry: &self.geometry,
            rotation: self.rotates().then_some(rotation),
            norm: self.norm.as_ref(),
            bias: self.bias.as_deref(),
        };
        let (queries, positions) =
            (rows(&self.q_rope), accepted.iter().map(|&t| self.positions[t]).collect::<Vec<_>>());
        let inputs = RopeAppendInputs {
            q_rope: self.has_queries().then_some(&queries),
            k_rope: &rows(&self.k_rope),
            c_kv: &rows(&self.c_kv),
            positions: self.rotates().then_some(&positions),
            slots: &accepted.iter().map(|&t| self.slots[t]).collect::<Vec<_>>(),
            key_norm: self.key_norm.as_ref().map(|[gain, _]| KeyNorm { gain, factors: &factors }),
        };
        let mut cache = self.cache.clone();
        let appended = rope_append(&params, &inputs, &mut cache).unwrap();
        let width = if self.has_queries() { self.geometry.query_heads * self.geometry.rope_dim } else { 0 };
        for (row, &t) in accepted.iter().enumerate() {
            for (i, got) in q_rope[t * width..][..width].iter_mut().enumerate() {
                *got = bf16::from_f32(appended.q_rope[row * width + i]);
            }
        }
        let refused = self.tokens() - accepted.len();
        (q_rope, cache, [appended.saturated as u64, refused as u64])
    }

    pub fn run(&self, device: &Device, memory: Memory) -> Ran {
        self.launch(device, memory, true)
    }

    pub fn launch(&self, device: &Device, memory: Memory, counting: bool) -> Ran {
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
        let key_norm = self.key_norm.as_ref().map(|numbers| numbers.each_ref().map(|numbers| dense(numbers)));
        let mut cache = DeviceCache::upload(device, &self.cache).unwrap();
        let mut counters = device.upload(&[7, 9]).unwrap();

        let config = RopeAppendConfig::new(self.geometry, *self.cache.layout(), self.pairing);
        let append = RopeAppend::new(device, config).unwrap();
        let q_view = q_rope.view().slice(shift..).unwrap();
        let args = RopeAppendArgs {
            q_rope: (self.has_queries() && !memory.in_place).then(|| Tensor::new(q_view, q_shape).unwrap()),
            q_rotated: self
                .has_queries()
                .then(|| TensorMut::new(rotated.view_mut().slice(shift..).unwrap(), q_shape).unwrap()),
            k_rope: Tensor::new(k_rope.view().slice(shift..).unwrap(), k_shape).unwrap(),
            c_kv: Tensor::new(c_kv.view().slice(shift..).unwrap(), c_shape).unwrap(),
            positions: self.rotates().then(|| positions.view().slice(shift..).unwrap()),
            slots: slots.view().slice(shift..).unwrap(),
            rotation: self.rotates().then(|| rotation.unwrap()),
            norm: gain
                .as_ref()
                .map(|(gain, epsilon)| DeviceNorm { gain: gain.view().slice(shift..).unwrap(), epsilon: *epsilon }),
            bias: bias.as_ref().map(|bias| bias.view().slice(shift..).unwrap()),
            cache: cache.view_mut(),
            counters: counting.then(|| counters.view_mut()),
            key_norm: key_norm.as_ref().map(|numbers| {
                let [gain, factors] = numbers.each_ref().map(|numbers| numbers.view().slice(shift..).unwrap());
                DeviceKeyNorm { gain, factors }
            }),
        };
        append.run(&device.stream().unwrap(), args).unwrap();
        let q_rope = memory.gather(&rotated.to_vec().unwrap()[shift..], q_shape);
        let counters = counters.to_vec().unwrap();
        Ran { q_rope, cache: cache.download().unwrap(), counters: vec![counters[0] - 7, counters[1] - 9] }
    }
}

/// The factors of some of a step's tokens.
fn rows_of(factors: &[f32], tokens: &[usize], step: &Step) -> Vec<f32> {
    let heads = step.geometry.kv_heads;
    tokens.iter().flat_map(|t| factors[t * heads..][..heads].iter().copied()).collect()
}

impl Memory {
    pub fn shape(&self, sizes: [usize; 3]) -> Shape {
        let head = sizes[2] + self.gaps[0];
        Shape { sizes, strides: [sizes[1] * head + self.gaps[1], head] }
    }

    pub fn dense<T: Element>(&self, device: &Device, values: &[T]) -> Buffer<T> {
        let mut buffer = device.allocate(self.shift + values.len()).unwrap();
        buffer.view_mut().slice(self.shift..).unwrap().write(values).unwrap();
        buffer
    }

    /// Between the rows is memory that was never written.
    pub fn tensor(&self, device: &Device, values: &[bf16], shape: Shape) -> Buffer<bf16> {
        let mut buffer = device.allocate(self.shift + shape.sizes[0] * shape.strides[0]).unwrap();
        self.scatter(&mut buffer, values, shape);
        buffer
    }

    pub fn scatter(&self, buffer: &mut Buffer<bf16>, values: &[bf16], Shape { sizes, strides }: Shape) {
        for (i, row) in values.chunks_exact(sizes[2].max(1)).enumerate() {
            let start = self.shift + i / sizes[1] * strides[0] + i % sizes[1] * strides[1];
            buffer.view_mut().slice(start..start + row.len()).unwrap().write(row).unwrap();
        }
    }

    /// The values of a tensor between whose rows everything is still poison.
    #[track_caller]
    pub fn gather(&self, all: &[bf16], Shape { sizes, strides }: Shape) -> Vec<bf16> {
        let mut values = Vec::new();
        for (i, &value) in all.iter().enumerate() {
            let (head, dim) = (i % strides[0] / strides[1].max(1), i % strides[0] % strides[1].max(1));
            if head < sizes[1] && dim < sizes[2] {
                values.push(value)
            } else {
                assert_eq!(value.to_bits(), POISON.to_bits(), "element {i} was overwritten")
            }
        }
        values
    }
}

#[track_caller]
pub fn check(step: &Step, memory: Memory, ran: &Ran) {
    let before = if memory.in_place { step.q_rope.clone() } else { vec![POISON; step.q_rope.len()] };
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
pub fn run_and_check(step: &Step, memory: Memory) -> Ran {
    let ran = step.run(&device(), memory);
    check(step, memory, &ran);
    ran
}
