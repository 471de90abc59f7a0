//! `gather` equals the reference to the bit.

use half::bf16;
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, Group, PagedCache, RopeFormat};
use latent_attention::device::{Device, Simulation, TensorMut};
use latent_attention::ops::{BatchBuffers, DeviceCache, Gather, GatherArgs, GatherConfig};
use latent_attention::reference;
use latent_attention::sys::{GATHER_TOKENS, GatherParams};
use proptest::prelude::*;
use ptx_sim::meter::Path;
use rand::RngExt;

use crate::common::{Batch, formats, geometry, page_size, prefix_sums, ragged, rng};
use crate::strided::{Strided, is_untouched};
use crate::{PTX, device, simulate, upload_batch};

/// A batch of sequences in a cache of which nothing else may be read.
struct Case {
    geometry: Geometry,
    batch: Batch,
    cache: PagedCache,
    /// For each sequence, where its gathered tokens begin, and how many they are.
    tokens: Vec<[usize; 2]>,
    /// Of the output: elements behind a token, and before the first.
    gap: usize,
    shift: usize,
    /// Rows that the output has beyond those of the tokens.
    spare: isize,
    csr: bool,
}

impl Case {
    /// All tokens of sequences of these lengths.
    fn new(seed: u64, geometry: Geometry, format: CacheFormat, lens: &[usize], page_size: usize) -> Self {
        let mut rng = rng(seed);
        let batch = Batch::new(&mut rng, lens, &vec![0; lens.len()], page_size);
        let cache = batch.poisoned_cache(&mut rng, &geometry, format);
        let tokens = lens.iter().map(|&len| [0, len]).collect();
        Self { geometry, batch, cache, tokens, gap: 0, shift: 0, spare: 0, csr: false }
    }

    /// Some of each sequence's tokens, as a chunk of a prefix has them.
    fn in_chunks(mut self, seed: u64) -> Self {
        let mut rng = rng(seed);
        for tokens in &mut self.tokens {
            let first = rng.random_range(0..=tokens[1]);
            *tokens = [first, rng.random_range(0..=tokens[1] - first)];
        }
        self
    }

    fn width(&self) -> usize {
        self.geometry.latent_rank + self.geometry.rope_width()
    }

    fn token_starts(&self) -> Vec<i32> {
        prefix_sums(self.tokens.iter().map(|tokens| tokens[1] as i32))
    }

    fn run(&self, device: &Device) -> Vec<bf16> {
        let first_tokens: Vec<i32> = self.tokens.iter().map(|tokens| tokens[0] as i32).collect();
        let is_whole = first_tokens.iter().all(|&first| first == 0);
        self.run_from(device, &self.token_starts(), (!is_whole).then_some(&first_tokens))
    }

    fn run_from(&self, device: &Device, token_starts: &[i32], first_tokens: Option<&[i32]>) -> Vec<bf16> {
        let layout = *self.cache.layout();
        let operation = Gather::new(device, GatherConfig::new(layout)).unwrap();
        let cache = DeviceCache::upload(device, &self.cache).unwrap();
        let batch = upload_batch(device, &self.batch, self.csr, &self.cache);
        let starts = device.upload(token_starts).unwrap();
        let first_tokens = first_tokens.map(|first_tokens| device.upload(first_tokens).unwrap());
        let rows = self.token_starts().last().unwrap().cast_unsigned() as usize;
        let sizes = [rows.checked_add_signed(self.spare).unwrap(), 1, self.width()];
        let mut gathered = Strided::empty(device, sizes, [self.gap, 0], self.shift);
        let args = GatherArgs {
            cache: cache.view(),
            batch: &batch.batch(),
            token_starts: starts.view(),
            first_tokens: first_tokens.as_ref().map(|first_tokens| first_tokens.view()),
            gathered: gathered.tensor_mut(),
        };
        operation.run(&device.stream().unwrap(), args).unwrap();
        gathered.take()
    }

    /// What the reference has, rounded as the operation says.
    fn reference(&self) -> Vec<bf16> {
        let ranges: Vec<_> = self.tokens.iter().map(|&[first, count]| first..first + count).collect();
        let exact = reference::gather(&self.batch.sequences(), Some(&ranges), &self.cache).unwrap();
        exact.into_iter().map(|number| bf16::from_f32(number as f32)).collect()
    }

    #[track_caller]
    fn check(&self, gathered: &[bf16]) {
        let want = self.reference();
        for (i, (got, want)) in gathered.iter().zip(&want).enumerate() {
            let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
            assert!(same, "number {} of row {}: got {got}, want {want}", i % self.width(), i / self.width());
        }
        if let Some(rest) = gathered.get(want.len()..) {
            assert!(rest.iter().all(|&number| is_untouched(number)), "rows of no token are left alone");
        }
    }
}

/// Sizes of which rows can be written 16 bytes at a time.
fn whole_chunks() -> impl Strategy<Value = Geometry> {
    (1usize..=3, 1usize..=80, 0usize..=4).prop_map(|(rope_heads, latents, ropes)| {
        let mut geometry = Geometry::mha2mla(rope_heads, rope_heads, 8 * ropes.max(1), 8 * ropes, 1).unwrap();
        geometry.latent_rank = 8 * latents;
        geometry.validate().unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_reference(
        seed: u64,
        geometry in prop_oneof![geometry().boxed(), whole_chunks().boxed()],
        format in prop::sample::select(formats()),
        (lens, _) in ragged(),
        page_size in page_size(),
        (gap, shift) in prop_oneof![Just((0, 0)), Just((16, 8)), Just((3, 1))],
        spare in 0isize..=2,
        csr: bool,
        chunked: bool,
        arch in 0usize..2,
    ) {
        let mut case = Case { gap, shift, spare, csr, ..Case::new(seed, geometry, format, &lens, page_size) };
        if chunked {
            case = case.in_chunks(seed);
        }
        case.check(&case.run(&simulate(Simulation::default().with_arch(PTX[arch]))));
    }
}

#[test]
fn every_format_of_every_named_model() {
    for &(_, geometry) in Geometry::NAMED {
        for (i, format) in formats().into_iter().enumerate() {
            let case = Case::new(i as u64, geometry().unwrap(), format, &[3, 0, 1], [8, 16, 32, 64][i % 4]);
            case.check(&case.run(&device()));
        }
    }
}

/// Several tiles, a latent of two scales, sequences around the end of a page.
fn wide_case(format: CacheFormat) -> Case {
    let mut geometry = Geometry::mha2mla(4, 4, 64, 16, 1).unwrap();
    geometry.latent_rank = 576;
    Case::new(7, geometry, format, &[65, 0, 1, 40], 64)
}

/// Every code of every kind of row under scales and mins of all sizes, subnormal, infinite and NaN ones included: bytes
/// are random.
#[test]
fn any_bytes_are_decoded_as_the_codec_does() {
    for format in formats() {
        let mut case = wide_case(format);
        rng(11).fill(case.cache.bytes_mut());
        case.check(&case.run(&device()));
    }
}

#[test]
fn chunks_of_a_prefix_are_the_whole() {
    for format in [CacheFormat::BF16, CacheFormat::INT4] {
        let mut case = wide_case(format);
        let whole = case.run(&device());
        let (width, lens) = (case.width(), [65usize, 0, 1, 40]);
        // Chunks of 17 tokens of each sequence; those that have ended have no rows.
        let mut parts = vec![Vec::new(); lens.len()];
        for first in (0..65).step_by(17) {
            case.tokens = lens.iter().map(|&len| [first, 17.min(len.saturating_sub(first))]).collect();
            let (starts, firsts) = (case.token_starts(), [first as i32; 4]);
            let chunk = case.run_from(&device(), &starts, Some(&firsts));
            for (part, ends) in parts.iter_mut().zip(starts.windows(2)) {
                part.extend_from_slice(&chunk[ends[0] as usize * width..ends[1] as usize * width]);
            }
        }
        assert!(parts.concat() == whole, "{format:?}");
    }
}

#[test]
fn repeated_runs_agree_to_the_bit() {
    for format in [CacheFormat::BF16, CacheFormat::INT4] {
        let (device, case) = (device(), wide_case(format));
        assert!(case.run(&device) == case.run(&device), "{format:?}");
    }
}

#[test]
fn a_launch_may_be_larger_than_the_batch_and_a_batch_larger_than_the_output() {
    let mut case = wide_case(CacheFormat::INT4);
    let full = case.run(&device());
    // Three tiles of rows more, of which none is touched.
    case.spare = 3 * GATHER_TOKENS as isize;
    case.check(&case.run(&device()));
    // The output ends in the middle of a tile.
    case.spare = -5;
    let short = case.run(&device());
    assert!(short == full[..short.len()]);
    // The starts say more than there is room for.
    case.spare = 0;
    let ran = case.run_from(&device(), &[0, 65, 65, 66, 1 << 30], None);
    assert!(ran == full);
}

#[test]
fn whatever_starts_and_first_tokens_are_only_tokens_are_read() {
    let mut case = wide_case(CacheFormat::INT4);
    case.spare = 100;
    let wild = [[0; 5], [106; 5], [-1, -1, -1, -1, 206], [5, 300, -7, 2, 206], [i32::MAX, 0, i32::MIN, 9, -1]];
    for starts in wild {
        for firsts in [[0; 4], [-3; 4], [64, 1, 0, 50], [i32::MIN, i32::MAX, -1, 1 << 20]] {
            case.run_from(&device(), &starts, Some(&firsts));
        }
    }
    // Room between sequences, and tokens before the first and behind the last: those rows are zeros.
    let (packed, width) = (case.run(&device()), case.width());
    let spaced = case.run_from(&device(), &[0, 70, 75, 80, 125], Some(&[-2, 0, 0, 38]));
    let row = |row: usize| row * width..(row + 1) * width;
    let is_zero = |row: std::ops::Range<usize>| spaced[row].iter().all(|number| number.to_bits() == 0);
    assert!(is_zero(row(0)) && is_zero(row(1)) && spaced[row(2)] == packed[row(0)]);
    assert!(spaced[row(66)] == packed[row(64)] && is_zero(row(67)));
    assert!(spaced[row(75)] == packed[row(65)] && is_zero(row(76)));
    assert!(spaced[row(81)] == packed[row(66 + 39)] && is_zero(row(82)));
    assert!(spaced[row(125)].iter().all(|&number| is_untouched(number)));
}

#[test]
fn each_code_is_read_once_and_each_number_written_once_in_whole_sectors() {
    // Rows of 64 chunks of latents and 8 of keys, as DeepSeek has them.
    let geometry = Geometry::deepseek(1, 512, 64, 1, 1).unwrap();
    let tokens = 2 * GATHER_TOKENS as u64;
    for (format, latent, rope, pairs) in [
        (CacheFormat::BF16, 1024, 128, 0),
        (CacheFormat::INT4, 256, 32, 64 + 8),
        (CacheFormat::int4(Group::G64).with_rope(RopeFormat::Int8), 256, 64, 64 + 8),
    ] {
        let device = device();
        let case = Case::new(8, geometry, format, &[tokens as usize], 64);
        case.check(&case.run(&device));
        let Some(counted) = device.take_counts().remove("gather") else { return };
        let traffic = |path| counted.meter.traffic.get(&path).copied().unwrap_or_default();
        // Beside codes and a pair for each chunk: every thread reads the number of tokens, and a token's thread its
        // length, twice its start, for want of first tokens none, and its page.
        let places = 2 * 4 * 256 + tokens * 4 * 3;
        let read = traffic(Path::GlobalRead);
        assert_eq!(read.bytes, tokens * (latent + rope + 4 * pairs) + places, "{format:?}");
        let written = traffic(Path::GlobalWrite);
        assert_eq!(written.bytes, tokens * 2 * (512 + 64), "{format:?}");
        assert_eq!(written.sectors, written.bytes / 32, "{format:?}: whole sectors");
        for path in [Path::SharedRead, Path::SharedWrite] {
            assert_eq!(traffic(path).conflicts, 0, "{format:?} {path:?}");
        }
        assert_eq!(traffic(Path::LocalRead).bytes + traffic(Path::LocalWrite).bytes, 0);
    }
}

#[test]
fn wrong_arguments_are_named() {
    // L 8, R 4; one sequence of three tokens.
    let device = device();
    let geometry = Geometry::mha2mla(4, 2, 8, 4, 4).unwrap();
    let case = Case::new(9, geometry, CacheFormat::INT4, &[3], 8);
    let layout = *case.cache.layout();
    let operation = Gather::new(&device, GatherConfig::new(layout)).unwrap();
    let stream = device.stream().unwrap();
    let batch = BatchBuffers::upload(&device, &case.batch.sequences(), &layout, case.cache.pages()).unwrap();
    let cache = DeviceCache::upload(&device, &case.cache).unwrap();
    let elsewhere = Device::simulated();
    let run = |cache: &DeviceCache, batch: &BatchBuffers, sizes: [usize; 3], lens: [usize; 2], on: [&Device; 3]| {
        let mut gathered = on[0].zeros::<bf16>(sizes.iter().product()).unwrap();
        let (starts, firsts) = (on[1].zeros::<i32>(lens[0]).unwrap(), on[2].zeros::<i32>(lens[1]).unwrap());
        let args = GatherArgs {
            cache: cache.view(),
            batch: &batch.batch(),
            token_starts: starts.view(),
            first_tokens: Some(firsts.view()),
            gathered: TensorMut::dense(gathered.view_mut(), sizes).unwrap(),
        };
        operation.run(&stream, args)
    };
    let here = [&device; 3];
    run(&cache, &batch, [3, 1, 16], [2, 1], here).unwrap();
    run(&cache, &batch, [0, 1, 16], [2, 1], here).unwrap();
    let check = |sizes, lens, on, expected: &str| {
        let message = run(&cache, &batch, sizes, lens, on).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    };
    check([3, 1, 16], [3, 1], here, "token starts: expected [sequences + 1 2] = 2 elements, got 3");
    check([3, 1, 16], [2, 2], here, "first tokens: expected [sequences 1] = 1 elements, got 2");
    let wanted = "gathered: expected [tokens 3, one 1, latent + rotated keys 16], got [3, 1, 12]";
    check([3, 1, 12], [2, 1], here, wanted);
    let wanted = "gathered: expected [tokens 3, one 1, latent + rotated keys 16], got [3, 2, 16]";
    check([3, 2, 16], [2, 1], here, wanted);
    for (i, what) in ["gathered", "token starts", "first tokens"].into_iter().enumerate() {
        let mut on = here;
        on[i] = &elsewhere;
        check([3, 1, 16], [2, 1], on, &format!("{what}: is on device `ptx-sim`"));
    }

    // A cache that lacks the batch's pages, one of another format, and what lies on another device.
    let refused = |cache: &DeviceCache, batch: &BatchBuffers, expected: &str| {
        let message = run(cache, batch, [3, 1, 16], [2, 1], here).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    };
    let wanted = format!("cache: has 1 pages, the batch is for caches of {} or more", case.cache.pages());
    refused(&DeviceCache::new(&device, layout, 1).unwrap(), &batch, &wanted);
    let other = CacheLayout::new(&geometry, CacheFormat::BF16, 8).unwrap();
    let wanted = "cache: the operation was made for";
    refused(&DeviceCache::new(&device, other, case.cache.pages()).unwrap(), &batch, wanted);
    refused(&DeviceCache::upload(&elsewhere, &case.cache).unwrap(), &batch, "cache: is on device `ptx-sim`");
    let foreign = BatchBuffers::upload(&elsewhere, &case.batch.sequences(), &layout, case.cache.pages()).unwrap();
    refused(&cache, &foreign, "batch: is on device `ptx-sim`");

    let normed = Geometry::mha2mla(4, 2, 16, 8, 8).unwrap().with_key_norm(true);
    let layout = CacheLayout::new(&normed, CacheFormat::INT4, 8).unwrap();
    let message = Gather::new(&device, GatherConfig::new(layout)).unwrap_err().to_string();
    assert!(message.starts_with("gather of normalised keys: a gathered row has no place"), "{message}");

    let params = GatherParams { token_capacity: 5, ..Default::default() };
    // SAFETY: without sequences there is nothing to launch.
    unsafe { operation.launch(&stream, &params) }.unwrap();
}
