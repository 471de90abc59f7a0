use std::cell::Cell;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use latent_attention::Geometry;
use latent_attention::cache::RangeSetting;
use latent_attention::rope::{Pairing, RopeTables};

use super::gradient_check::random;
use super::{
    Rotation, Stored, StoredPart, causal_attention, compare, divergence, fake_quantise, hidden_error, inner,
    latent_attention, linear, rms_norm, rotate, swiglu,
};

thread_local! {
    /// Whether this thread computes by candle's operations in host memory too.
    pub static FORCED: Cell<bool> = const { Cell::new(false) };
}

/// Calls `f` where all operations are candle's, as they are on a GPU.
pub fn by_candle<R>(f: impl FnOnce() -> R) -> R {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            FORCED.set(false);
        }
    }
    let _reset = Reset;
    FORCED.set(true);
    f()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

fn assert_near(what: &str, got: &[f64], expected: &[f64], bound: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1.0, |scale: f64, x| scale.max(x.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= bound * scale, "{what}, element {i}: {got}, by hand {expected}");
    }
}

/// Holds values and gradients by candle's operations against those by hand, all arguments variables.
fn same(what: &str, arguments: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let run = || {
        let variables: Vec<Var> = arguments.iter().map(|a| Var::from_tensor(a).unwrap()).collect();
        let tensors: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
        let value = f(&tensors).unwrap();
        let loss = inner(&value, &random(99, value.dims())).unwrap();
        let gradients = loss.backward().unwrap();
        let gradients: Vec<_> = tensors.iter().map(|tensor| numbers(gradients.get(tensor).unwrap())).collect();
        (numbers(&value), gradients)
    };
    let (by_hand, by_candle) = (run(), by_candle(run));
    assert_near(what, &by_candle.0, &by_hand.0, 1e-12);
    for (i, (got, expected)) in by_candle.1.iter().zip(&by_hand.1).enumerate() {
        assert_near(&format!("{what}, gradient {i}"), got, expected, 1e-12);
    }
}

#[test]
fn maps_norms_and_activations_are_those_by_hand() {
    let (x, weight, bias) = (random(1, &[6, 4]), random(2, &[8, 4]), random(3, &[8]));
    same("linear", &[x.clone(), weight.clone()], |a| linear(&a[0], &a[1], None));
    same("linear with bias", &[x.clone(), weight, bias], |a| linear(&a[0], &a[1], Some(&a[2])));
    same("norm", &[x.clone(), random(4, &[4])], |a| rms_norm(&a[0], &a[1], 1e-3));
    same("swiglu", &[(&x * 3.0).unwrap()], |a| swiglu(&a[0]));
}

#[test]
fn rotations_are_those_by_hand() {
    let tables = Arc::new(RopeTables::from_theta(100.0, 8, 5));
    for pairing in [Pairing::Half, Pairing::Interleaved] {
        let heads: [(usize, &[u32]); 2] = [(1, &[3, 0]), (6, &[1, 2])];
        let rotation = Rotation::new(tables.clone(), heads, 4, pairing).unwrap();
        same("rotation", &[random(1, &[10, 12])], |a| rotate(&a[0], &rotation, 5));
        same("rotation of what is not contiguous", &[random(1, &[12, 10])], |a| rotate(&a[0].t()?, &rotation, 5));
    }
}

#[test]
fn the_cache_is_the_same() {
    let codes = Stored::Codes { max_code: 15, group: 4, range: RangeSetting::MinMax };
    let parts: Arc<[StoredPart]> =
        [StoredPart { columns: 6..9, stored: Stored::Bf16 }, StoredPart { columns: 1..6, stored: codes }].into();
    same("quantisation", &[random(1, &[3, 11])], |a| fake_quantise(&a[0], &parts));
    let x = random(1, &[3, 11]).to_dtype(DType::F32).unwrap();
    let (by_hand, by_candle) = (fake_quantise(&x, &parts), by_candle(|| fake_quantise(&x, &parts)));
    assert_eq!(numbers(&by_candle.unwrap()), numbers(&by_hand.unwrap()), "to the bit");
}

#[test]
fn losses_are_those_by_hand() {
    let target = Tensor::cat(&[&random(2, &[5, 5]), &Tensor::zeros((1, 5), DType::F64, &Device::Cpu).unwrap()], 0);
    let target = target.unwrap();
    same("hidden error", &[random(1, &[6, 5])], |a| hidden_error(&a[0], &target, 3));

    let original = (random(3, &[67, 3]), random(4, &[11, 3]));
    let (x, head) = ((random(1, &[67, 2]) * 9.0).unwrap(), random(2, &[11, 2]));
    same("divergence", &[x.clone(), head.clone()], |a| divergence((&a[0], &a[1]), (&original.0, &original.1)));
    let targets: Vec<u32> = (0..67).map(|i| i % 11).collect();
    let run = || compare((&x, &head), (&original.0, &original.1), &targets).unwrap();
    let (by_hand, by_candle) = (run(), by_candle(run));
    let parts = |c: super::Compared| [c.divergence, c.loss, c.original_loss];
    assert_near("comparison", &parts(by_candle), &parts(by_hand), 1e-12);
}

#[test]
fn attention_is_that_by_hand() {
    // Heads that share KV heads and a rotated key, everything rotated, nothing rotated.
    let geometries = [
        Geometry::mha2mla(4, 2, 6, 2, 3),
        Geometry::deepseek(3, 5, 4, 3, 2),
        Geometry::mha2mla(2, 1, 4, 4, 3),
        Geometry::deepseek(2, 5, 0, 3, 2),
    ];
    for g in geometries.map(|geometry| geometry.unwrap()) {
        let width = g.query_heads * (g.rope_dim + g.nope_dim) + g.rope_width() + g.latent_rank;
        let up = random(2, &[g.kv_heads * (g.nope_dim + g.value_dim), g.latent_rank]);
        same(&format!("{g:?}"), &[random(1, &[8, width]), up], |a| latent_attention(&a[0], &a[1], &g, 0.7, 4));
    }
    let projected = random(3, &[6, (4 + 2 + 2) * 6]);
    let run = || numbers(&causal_attention(&projected, 4, 2, 6, 3).unwrap());
    assert_near("dense attention", &by_candle(run), &run(), 1e-12);
}
