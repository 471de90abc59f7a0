//! What `rope_append` refuses, and that it says why.

use half::bf16;
use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout};
use latent_attention::device::{Buffer, Device, Tensor, TensorMut};
use latent_attention::ops::{
    DeviceCache, DeviceKeyNorm, DeviceNorm, RopeAppend, RopeAppendArgs, RopeAppendConfig, Rotation, RotationBuffers,
};
use latent_attention::rope::{FrequencyIndex, Pairing, RopeTables};
use latent_attention::sys::RopeAppendParams;

/// Sizes of one call's arguments, which of them is on another device, and which are left out.
struct Call {
    q_rope: [usize; 3],
    q_rotated: [usize; 3],
    k_rope: [usize; 3],
    c_kv: [usize; 3],
    /// Of positions, slots, the norm's gain, the bias and the counters.
    lens: [usize; 5],
    /// Rope heads and pairs of the frequency index.
    index: [usize; 2],
    cache: CacheFormat,
    epsilon: f32,
    elsewhere: &'static str,
    left_out: &'static [&'static str],
}

impl Call {
    /// Two tokens of SmolLM-135M.
    fn new() -> Self {
        Self {
            q_rope: [2, 9, 8],
            q_rotated: [2, 9, 8],
            k_rope: [2, 3, 8],
            c_kv: [2, 1, 96],
            lens: [2, 2, 96, 96, 2],
            index: [3, 4],
            cache: CacheFormat::INT4,
            epsilon: 1e-6,
            elsewhere: "",
            left_out: &[],
        }
    }

    fn run(&self) -> latent_attention::Result<()> {
        let (device, other) = (Device::simulated(), Device::simulated());
        let on = |what: &str| if self.elsewhere == what { &other } else { &device };
        let geometry = Geometry::smollm_135m(32).unwrap();
        let layout = |format| CacheLayout::new(&geometry, format, 8).unwrap();
        let append =
            RopeAppend::new(&device, RopeAppendConfig::new(geometry, layout(CacheFormat::INT4), Pairing::Half))
                .unwrap();
        let zeros = |what: &str, sizes: [usize; 3]| on(what).zeros::<bf16>(sizes.iter().product()).unwrap();
        let (q_rope, mut q_rotated) = (zeros("q_rope", self.q_rope), zeros("q_rotated", self.q_rotated));
        let (k_rope, c_kv) = (zeros("k_rope", self.k_rope), zeros("c_kv", self.c_kv));
        let positions = on("positions").zeros::<i32>(self.lens[0]).unwrap();
        let slots = on("slots").upload(&vec![-1i64; self.lens[1]]).unwrap();
        let gain = on("latent norm").zeros::<f32>(self.lens[2]).unwrap();
        let bias = on("latent bias").zeros::<f32>(self.lens[3]).unwrap();
        let mut counters = on("counters").zeros::<u64>(self.lens[4]).unwrap();
        let tables = RopeTables::from_theta(1e4, 64, 4);
        let index = FrequencyIndex::all(self.index[0], 2 * self.index[1]);
        let rotation = RotationBuffers::upload(on("frequency index"), &tables, &index).unwrap();
        let mut cache = DeviceCache::new(on("cache"), layout(self.cache), 1).unwrap();
        let given = |what: &str| !self.left_out.contains(&what);
        let args = RopeAppendArgs {
            q_rope: given("q_rope").then(|| Tensor::dense(q_rope.view(), self.q_rope).unwrap()),
            q_rotated: given("q_rotated").then(|| TensorMut::dense(q_rotated.view_mut(), self.q_rotated).unwrap()),
            k_rope: Tensor::dense(k_rope.view(), self.k_rope).unwrap(),
            c_kv: Tensor::dense(c_kv.view(), self.c_kv).unwrap(),
            positions: given("positions").then(|| positions.view()),
            slots: slots.view(),
            rotation: given("rotation").then(|| rotation.rotation()),
            norm: Some(DeviceNorm { gain: gain.view(), epsilon: self.epsilon }),
            bias: Some(bias.view()),
            cache: cache.view_mut(),
            counters: Some(counters.view_mut()),
            key_norm: None,
        };
        append.run(&on("stream").stream().unwrap(), args)
    }
}

#[test]
fn wrong_arguments_are_named() {
    let check = |change: &dyn Fn(&mut Call), expected: &str| {
        let mut call = Call::new();
        change(&mut call);
        let message = call.run().unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    };
    Call::new().run().unwrap();
    check(&|c| c.q_rope[1] = 8, "q_rope: expected [tokens 2, query heads 9, rope 8], got [2, 8, 8]");
    check(&|c| c.q_rotated[2] = 6, "q_rotated: expected [tokens 2, query heads 9, rope 8], got [2, 9, 6]");
    check(&|c| c.k_rope[0] = 1, "k_rope: expected [tokens 2, rope heads 3, rope 8], got [1, 3, 8]");
    check(&|c| c.c_kv = [1, 2, 96], "c_kv: expected [tokens 2, one 1, latent 96], got [1, 2, 96]");
    check(&|c| c.lens[0] = 3, "positions: expected [tokens 2] = 2 elements, got 3");
    check(&|c| c.lens[1] = 3, "q_rotated: expected [tokens 3, query heads 9, rope 8], got [2, 9, 8]");
    check(&|c| c.lens[2] = 95, "latent norm: expected [latent 96] = 96 elements, got 95");
    for epsilon in [f32::NAN, f32::INFINITY, -1e-6] {
        let expected = format!("epsilon {epsilon} of the latent norm: must be finite and not negative");
        check(&|c| c.epsilon = epsilon, &expected);
    }
    check(&|c| c.lens[3] = 97, "latent bias: expected [latent 96] = 96 elements, got 97");
    check(&|c| c.lens[4] = 1, "counters: expected [saturated and refused 2] = 2 elements, got 1");
    check(&|c| c.index[1] = 5, "frequency index: expected [rope heads 3, pairs 4] = 12 elements, got 15");
    check(&|c| c.cache = CacheFormat::BF16, "cache: the operation was made for CacheLayout { format: CacheFormat");
    for what in [
        "q_rope",
        "q_rotated",
        "k_rope",
        "c_kv",
        "positions",
        "slots",
        "latent norm",
        "latent bias",
        "counters",
        "frequency index",
        "cache",
        "stream",
    ] {
        check(&|c| c.elsewhere = what, &format!("{what}: is on device `ptx-sim`"));
    }
}

#[test]
fn arguments_without_those_that_they_need_are_refused() {
    let run = |left_out: &'static [&'static str]| {
        let mut call = Call::new();
        call.left_out = left_out;
        call.run().map_err(|error| error.to_string())
    };
    for (left_out, message) in [
        (&["q_rotated"][..], "q_rope: is given without q_rotated, where it is rotated to"),
        (&["rotation", "positions", "q_rope"], "q_rotated: is given without a rotation"),
        (&["rotation", "positions"], "q_rotated: is given without a rotation"),
        (&["rotation", "q_rope", "q_rotated"], "positions: is given without a rotation"),
        (&["positions"], "rotation: is given without positions"),
    ] {
        assert_eq!(run(left_out), Err(message.into()));
    }
    for left_out in [&["q_rope"][..], &["q_rope", "q_rotated"], &["q_rope", "q_rotated", "rotation", "positions"]] {
        assert_eq!(run(left_out), Ok(()));
    }
}

/// Factors of keys are given where the geometry says that keys are normalised, and only there.
#[test]
fn a_norm_over_keys_is_refused_where_it_does_not_belong() {
    let device = Device::simulated();
    let run = |geometry: Geometry, gain: usize, factors: usize, is_given: bool| {
        let layout = CacheLayout::new(&geometry, CacheFormat::INT4, 8).unwrap();
        let append = RopeAppend::new(&device, RopeAppendConfig::new(geometry, layout, Pairing::Half)).unwrap();
        let (k_rope, c_kv) = (device.zeros(2 * 3 * 8).unwrap(), device.zeros(2 * 96).unwrap());
        let slots = device.upload(&[-1i64; 2]).unwrap();
        let (gain, factors) = (device.zeros(gain).unwrap(), device.zeros(factors).unwrap());
        let mut cache = DeviceCache::new(&device, layout, 1).unwrap();
        let args = RopeAppendArgs {
            q_rope: None,
            q_rotated: None,
            k_rope: Tensor::dense(k_rope.view(), [2, 3, 8]).unwrap(),
            c_kv: Tensor::dense(c_kv.view(), [2, 1, 96]).unwrap(),
            positions: None,
            slots: slots.view(),
            rotation: None,
            norm: None,
            bias: None,
            key_norm: is_given.then(|| DeviceKeyNorm { gain: gain.view(), factors: factors.view() }),
            cache: cache.view_mut(),
            counters: None,
        };
        append.run(&device.stream().unwrap(), args).map_err(|error| error.to_string())
    };
    let plain = Geometry::smollm_135m(32).unwrap();
    let normed = plain.with_key_norm(true);
    let refused = |result: Result<(), String>, expected: &str| {
        let message = result.unwrap_err();
        assert!(message.starts_with(expected), "{message}");
    };
    run(normed, 24, 6, true).unwrap();
    refused(run(normed, 24, 6, false), "key norm: is missing");
    refused(run(plain, 24, 6, true), "key norm: is given, but");
    refused(run(normed, 23, 6, true), "gain of keys: expected [kv heads 3, rope 8]");
    refused(run(normed, 24, 5, true), "factors of keys: expected [tokens 2, kv heads 3]");
}

#[test]
fn operations_that_cannot_be_are_refused() {
    let device = Device::simulated();
    let geometry = Geometry::smollm_135m(32).unwrap();
    let layout = |geometry: &Geometry| CacheLayout::new(geometry, CacheFormat::INT4, 8).unwrap();
    let check = |geometry, layout, expected: &str| {
        let config = RopeAppendConfig::new(geometry, layout, Pairing::Half);
        let message = RopeAppend::new(&device, config).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    };
    let mut odd = geometry;
    odd.rope_dim = 7;
    check(odd, layout(&geometry), "geometry: rope_dim must be even, got 7");
    let smaller = geometry.with_latent_rank(48).unwrap();
    check(geometry, layout(&smaller), "cache layout: latent rank: expected 96 from the geometry, got 48");
    let mut huge = geometry;
    (huge.query_heads, huge.rope_heads, huge.rope_dim) = (3 << 17, 1, 256);
    check(huge, layout(&huge), "rope_append: a token of 196610 runs of 512 numbers, more than 65535");
}

#[test]
fn rope_tables_that_do_not_fit_are_refused() {
    let (device, other) = (Device::simulated(), Device::simulated());
    let floats = |device: &Device, len: usize| device.zeros::<f32>(len).unwrap();
    let check = |cos: Buffer<f32>, sin: Buffer<f32>, frequencies: usize, index: Buffer<u32>, expected: &str| {
        // SAFETY: no kernel runs on them.
        let rotation = unsafe { Rotation::from_device(cos.view(), sin.view(), frequencies, index.view()) };
        let message = rotation.unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    };
    let index = |device: &Device| device.zeros::<u32>(4).unwrap();
    let two =
        |frequencies: usize| format!("rope tables: expected two tables of [positions, frequencies {frequencies}]");
    check(floats(&device, 6), floats(&device, 5), 3, index(&device), &format!("{}, got 6 cosines and 5 sines", two(3)));
    check(floats(&device, 6), floats(&device, 6), 4, index(&device), &two(4));
    check(floats(&device, 6), floats(&device, 6), 0, index(&device), &two(0));
    check(floats(&device, 6), floats(&other, 6), 3, index(&device), "sines: is on device `ptx-sim`");
    check(floats(&device, 6), floats(&device, 6), 3, index(&other), "frequency index: is on device `ptx-sim`");
    // The tables of a checked rotation have what is indexed.
    let tables = RopeTables::from_theta(1e4, 6, 2);
    let nowhere = RopeTables::from_theta(f32::NAN, 64, 4);
    let message = RotationBuffers::upload(&device, &nowhere, &FrequencyIndex::all(1, 8)).unwrap_err().to_string();
    assert_eq!(message, "cosine of position 0 and frequency 1: NaN: must be finite");
    let message = RotationBuffers::upload(&device, &tables, &FrequencyIndex::all(1, 8)).unwrap_err().to_string();
    assert_eq!(message, "frequency index [3] = 3 is outside of 0..3 frequencies");
}

#[test]
fn a_step_without_tokens_launches_nothing() {
    let mut call = Call::new();
    (call.q_rope[0], call.q_rotated[0], call.k_rope[0], call.c_kv[0]) = (0, 0, 0, 0);
    (call.lens[0], call.lens[1]) = (0, 0);
    call.run().unwrap();
    let geometry = Geometry::smollm_135m(32).unwrap();
    let layout = CacheLayout::new(&geometry, CacheFormat::INT4, 8).unwrap();
    let device = Device::simulated();
    let append = RopeAppend::new(&device, RopeAppendConfig::new(geometry, layout, Pairing::Half)).unwrap();
    // SAFETY: without tokens there is nothing to launch.
    unsafe { append.launch(&device.stream().unwrap(), &RopeAppendParams::default()) }.unwrap();
    assert!(device.take_counts().is_empty());
}
