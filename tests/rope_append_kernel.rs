//! The kernel `rope_append`, run on the simulator and held against the reference: the cache byte for byte.

mod common;

use common::{formats, geometry, page_size, random, rng};
use half::bf16;
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, Group, LatentFormat, PagedCache, RopeFormat};
use latent_attention::image::{self, Arch};
use latent_attention::reference::{AppendInputs, AppendParams, rope_append};
use latent_attention::rope::{FrequencyIndex, Pairing, RopeTables};
use latent_attention::weights::RmsNorm;
use proptest::prelude::*;
use ptx_sim::meter::{Class, Path};
use ptx_sim::{Launch, Machine, Report};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

/// As in `csrc/params.h`.
const THREADS: u32 = 128;
const RUN: usize = 512;

const FREQUENCIES: usize = 70;
const POSITIONS: usize = 20;

/// What no launch may change.
const POISON: u8 = 0xA5;

/// How the tensors lie in memory.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    /// Elements that the tensors' heads are apart beyond their size, and tokens beyond their heads.
    gaps: [usize; 2],
    /// Elements that every tensor begins behind an aligned address.
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
    cache: Vec<u8>,
    counters: [u64; 2],
    report: Report,
}

fn bf16s(rng: &mut ChaCha8Rng, len: usize) -> Vec<bf16> {
    random(rng, len).into_iter().map(bf16::from_f32).collect()
}

/// Rows of which many hold what is easily mistreated: numbers that are not finite, of both zeros, tiny, too large for
/// f16 or for the norm's squares, all alike.
fn awkward(rng: &mut ChaCha8Rng, len: usize) -> Vec<bf16> {
    const SPECIAL: [f32; 16] = [
        f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-40, -1e-40, 6e-8, -6e-8, 1e30, -1e30, 3e38, 65504.0,
        -65504.0, 66000.0, 1.0,
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
    fn reference(&self, mut q_rope: Vec<bf16>) -> (Vec<bf16>, Vec<u8>, [u64; 2]) {
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
        (q_rope, cache.bytes().to_vec(), [appended.saturated as u64, refused as u64])
    }

    /// Warps that a token's work is divided among.
    fn parts(&self) -> usize {
        let runs = |width: usize| width.div_ceil(RUN);
        let g = &self.geometry;
        let latent = if self.norm.is_some() { 1 } else { runs(g.latent_rank) };
        latent + runs(g.rope_width()) + runs(g.query_heads * g.rope_dim)
    }

    fn run(&self, arch: Arch, memory: Memory) -> Ran {
        self.launch(arch, memory, true)
    }

    fn launch(&self, arch: Arch, memory: Memory, counting: bool) -> Ran {
        let mut device = Sim { machine: Machine::default(), memory };
        let g = &self.geometry;
        let (tokens, heads) = (self.tokens(), [g.query_heads, g.rope_heads]);
        let module = device.machine.load(ptx(arch)).unwrap();
        let q_strides = device.strides(g.query_heads, g.rope_dim);
        let k_strides = device.strides(heads[1], g.rope_dim);
        let c_strides = device.strides(1, g.latent_rank);
        let q = device.tensor(&self.q_rope, [tokens, g.query_heads, g.rope_dim], q_strides, memory.in_place);
        let rotated = match memory.in_place {
            true => q,
            false => device.dense(&vec![POISON; 2 * tokens * q_strides[0]]),
        };
        let k = device.tensor(&self.k_rope, [tokens, g.rope_heads, g.rope_dim], k_strides, false);
        let c = device.tensor(&self.c_kv, [tokens, 1, g.latent_rank], c_strides, false);
        let positions = device.dense(&bytes(&self.positions, |v| v.to_le_bytes()));
        let slots = device.dense(&bytes(&self.slots, |v| v.to_le_bytes()));
        let table = |which: fn((f32, f32)) -> f32| -> Vec<u8> {
            let at = |i: usize| which(self.tables.at(i / FREQUENCIES, i % FREQUENCIES));
            (0..POSITIONS * FREQUENCIES).flat_map(|i| at(i).to_le_bytes()).collect()
        };
        let (cos, sin) = (device.dense(&table(|(cos, _)| cos)), device.dense(&table(|(_, sin)| sin)));
        let index = device.dense(&bytes(self.frequencies.as_slice(), |v| v.to_le_bytes()));
        let mut optional = |values: Option<&[f32]>| values.map_or(0, |v| device.dense(&bytes(v, |v| v.to_le_bytes())));
        let gain = optional(self.norm.as_ref().map(|norm| norm.gain.as_slice()));
        let bias = optional(self.bias.as_deref());
        let pages = device.machine.memory.allocate(self.cache.bytes().len());
        device.machine.memory.write(pages, self.cache.bytes()).unwrap();
        let counters = device.machine.memory.allocate(16);
        device.machine.memory.write(counters, &[7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]).unwrap();

        let mut params = Block::default();
        params.u32s(&[g.query_heads, g.kv_heads, g.latent_rank, g.rope_heads, g.rope_dim, g.nope_dim, g.value_dim, 0]);
        params.cache(&self.cache, pages);
        params.u64s(&[q, rotated, k, c, positions, slots, cos, sin, index, gain, bias]);
        params.u64s(&[if counting { counters } else { 0 }]);
        params.u32s(&[tokens, POSITIONS, FREQUENCIES, usize::from(self.pairing == Pairing::Interleaved)]);
        params.u32s(&[q_strides, q_strides, k_strides].concat());
        params.u32s(&c_strides[..1]);
        params.0.extend(self.norm.as_ref().map_or(0.0, |norm| norm.epsilon).to_le_bytes());

        let grid = [tokens.div_ceil(4) as u32, self.parts() as u32, 1];
        let launch = Launch::new(grid, [THREADS, 1, 1]);
        let report = device.machine.launch(&module, "rope_append", &launch, &params.0).unwrap();
        let mut cache = vec![0; self.cache.bytes().len()];
        device.machine.memory.read(pages, &mut cache).unwrap();
        let mut counted = [0; 16];
        device.machine.memory.read(counters, &mut counted).unwrap();
        let counters = [0, 8].map(|i| u64::from_le_bytes(counted[i..i + 8].try_into().unwrap()));
        let q_rope = device.gather(rotated, [tokens, g.query_heads, g.rope_dim], q_strides);
        Ran { q_rope, cache, counters: [counters[0] - 7, counters[1] - 9], report }
    }
}

fn bytes<T: Copy, const N: usize>(values: &[T], to: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| to(value)).collect()
}

/// A parameter block in the making.
#[derive(Default)]
struct Block(Vec<u8>);

impl Block {
    fn u32s(&mut self, values: &[usize]) {
        values.iter().for_each(|&value| self.0.extend(u32::try_from(value).unwrap().to_le_bytes()));
    }

    fn u64s(&mut self, values: &[u64]) {
        values.iter().for_each(|value| self.0.extend(value.to_le_bytes()));
    }

    fn cache(&mut self, cache: &PagedCache, pages: u64) {
        let layout = cache.layout();
        let format = layout.format();
        let (latent, rope, affine) = (layout.latent_tile(), layout.rope_tile(), layout.affine_tile());
        self.u64s(&[pages, layout.page_bytes() as u64]);
        self.u32s(&[cache.pages(), layout.page_size(), latent.row_bytes, rope.offset, rope.row_bytes]);
        self.u32s(&[affine.offset, affine.row_bytes, layout.latent_groups()]);
        self.u32s(&match format.latent {
            LatentFormat::Bf16 => [0, 0],
            LatentFormat::Int4 { group } => [1, group.size()],
        });
        self.u32s(&match format.rope {
            RopeFormat::Bf16 => [0, 0],
            RopeFormat::Int4 { group } => [1, group.size()],
            RopeFormat::Int8 => [2, Group::Whole.size()],
        });
    }
}

/// The simulator with tensors laid out as `Memory` says.
struct Sim {
    machine: Machine,
    memory: Memory,
}

impl Sim {
    fn strides(&self, heads: usize, width: usize) -> [usize; 2] {
        let head = width + self.memory.gaps[0];
        [heads * head + self.memory.gaps[1], head]
    }

    /// Allocated and written, behind an aligned address by as many 4-byte elements as `shift` says.
    fn dense(&mut self, bytes: &[u8]) -> u64 {
        // Of elements of 8 bytes too, an even number of them.
        let shift = 8 * self.memory.shift as u64;
        let address = self.machine.memory.allocate(bytes.len() + shift as usize) + shift;
        self.machine.memory.write(address, bytes).unwrap();
        address
    }

    /// A strided tensor of bf16; between its rows is memory that was never written, or poison where it will be read
    /// back.
    fn tensor(&mut self, values: &[bf16], shape: [usize; 3], strides: [usize; 2], poisoned: bool) -> u64 {
        let shift = 2 * self.memory.shift as u64;
        let len = 2 * shape[0] * strides[0];
        let address = self.machine.memory.allocate(len + shift as usize) + shift;
        if poisoned {
            self.machine.memory.write(address, &vec![POISON; len]).unwrap();
        }
        for (i, row) in values.chunks_exact(shape[2].max(1)).enumerate() {
            let offset = i / shape[1] * strides[0] + i % shape[1] * strides[1];
            self.machine.memory.write(address + 2 * offset as u64, &bytes(row, |v| v.to_le_bytes())).unwrap();
        }
        address
    }

    /// Reads a strided tensor back and checks that nothing else was written.
    #[track_caller]
    fn gather(&self, address: u64, shape: [usize; 3], strides: [usize; 2]) -> Vec<bf16> {
        let mut all = vec![0; 2 * shape[0] * strides[0]];
        self.machine.memory.read(address, &mut all).unwrap();
        let mut values = Vec::new();
        for (i, pair) in all.chunks_exact(2).enumerate() {
            let in_token = i % strides[0];
            let is_value = in_token / strides[1].max(1) < shape[1] && in_token % strides[1].max(1) < shape[2];
            match is_value {
                true => values.push(bf16::from_le_bytes([pair[0], pair[1]])),
                false => assert_eq!(pair, [POISON; 2], "element {i} was overwritten"),
            }
        }
        values
    }
}

fn ptx(arch: Arch) -> &'static str {
    image::ptx("rope_append", arch).expect(
        "this build has no kernels, because there was no nvcc: run `cargo xtask setup`, which installs one, and build \
         again",
    )
}

#[track_caller]
fn check(step: &Step, memory: Memory, ran: &Ran) {
    assert!(ran.report.findings.is_empty(), "{:#?}", ran.report.findings);
    let before = match memory.in_place {
        true => step.q_rope.clone(),
        false => vec![bf16::from_le_bytes([POISON; 2]); step.q_rope.len()],
    };
    let (q_rope, cache, counters) = step.reference(before);
    for (i, (got, want)) in ran.q_rope.iter().zip(&q_rope).enumerate() {
        let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
        assert!(same, "rotated query, element {i}: got {got:?}, want {want:?}");
    }
    let layout = step.cache.layout();
    let different = ran.cache.iter().zip(&cache).position(|(got, want)| got != want);
    if let Some(i) = different {
        let in_page = i % layout.page_bytes();
        panic!(
            "cache byte {in_page} of page {}: got {:#x}, want {:#x}\n{layout:#?}",
            i / layout.page_bytes(),
            ran.cache[i],
            cache[i]
        );
    }
    assert_eq!(ran.counters, counters, "saturated values, refused tokens");
}

#[track_caller]
fn run_and_check(step: &Step, memory: Memory) -> Ran {
    let ran = step.run(Arch::Compute80, memory);
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
        arch in prop_oneof![Just(Arch::Compute80), Just(Arch::Compute90a)],
    ) {
        let mut step = Step::new(seed, geometry, format, page_size, tokens);
        if awkward {
            step = step.awkward(seed);
        }
        check(&step, memory, &step.run(arch, memory));
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
    for &(name, geometry) in Geometry::NAMED {
        println!("{name}");
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
fn nothing_is_counted_where_nobody_asks() {
    let mut step = Step::new(7, Geometry::smollm_135m(32).unwrap(), CacheFormat::INT4, 8, 3).awkward(7);
    step.positions[1] = -1;
    let ran = step.launch(Arch::Compute80, Memory::default(), false);
    assert!(ran.report.findings.is_empty(), "{:#?}", ran.report.findings);
    assert_eq!(ran.counters, [0, 0]);
    assert_eq!(ran.cache, step.run(Arch::Compute80, Memory::default()).cache);
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
            cache: cache.clone(),
            ..all.clone()
        };
        cache.bytes_mut().copy_from_slice(&one.run(Arch::Compute80, Memory::default()).cache);
    }
    assert!(all.run(Arch::Compute80, Memory::default()).cache == cache.bytes());
}

/// Bytes read of tables: frequency, cosine and sine of each pair and its use.
const PER_PAIR: u64 = 12;

#[test]
fn inputs_are_read_once_and_the_record_is_written_once() {
    let check = |name: &str, norm: bool, format: CacheFormat, memory: Memory, expected: [u64; 2]| {
        let mut step = Step::new(9, Geometry::named(name).unwrap(), format, 16, 8);
        step.pairing = Pairing::Half;
        step.slots = (0..8).collect();
        step.bias = None;
        step.norm = norm.then(|| RmsNorm { gain: vec![1.0; step.geometry.latent_rank], epsilon: 0.0 });
        let parts = step.parts() as u64;
        let Ran { report, .. } = run_and_check(&step, memory);
        let bytes = |path| report.meter.traffic.get(&path).copied().unwrap_or_default();
        // Each warp's lanes read the same position and slot.
        let place = 32 * 12 * parts;
        let (read, written) = (bytes(Path::GlobalRead), bytes(Path::GlobalWrite));
        assert_eq!([read.bytes / 8, written.bytes / 8], [place + expected[0], expected[1]], "{name}");
        assert_eq!(bytes(Path::LocalRead).bytes + bytes(Path::LocalWrite).bytes, 0);
        assert_eq!(bytes(Path::SharedRead).bytes + bytes(Path::SharedWrite).bytes, 0);
        let instructions: u64 = Class::ALL.iter().map(|&class| report.meter.instructions(class).warp).sum();
        let values = 8 * (step.geometry.latent_rank + step.geometry.rope_width() + step.geometry.query_heads * step.geometry.rope_dim);
        println!("{name}: {:.1} instructions per value, {} sectors read per token, {} written", 32.0 * instructions as f64 / values as f64, read.sectors / 8, written.sectors / 8);
    };
    let llama = Geometry::llama2_7b(64).unwrap();
    let per_token = |format: CacheFormat, geometry: &Geometry| format.bytes_per_token(geometry).unwrap() as u64;
    // Of each pair of a query or key of Llama, two lanes want the factors.
    let (latent, rope) = (2 * 2048, 2 * 512);
    check("llama2-7b-d64", false, CacheFormat::INT4, Memory::default(), [latent + 2 * rope + 2 * 2 * 256 * PER_PAIR, per_token(CacheFormat::INT4, &llama) + rope]);
}
