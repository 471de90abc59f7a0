//! `combine` equals the reference.

use half::bf16;
use latent_attention::device::{Buffer, Device, Element, Simulation};
use latent_attention::ops::{Combine, CombineArgs, CombineConfig};
use latent_attention::reference::{Attended, combine};
use latent_attention::sys::{COMBINE_MAX_SPLITS, CombineParams};
use proptest::prelude::*;
use ptx_sim::meter::Path;
use rand::RngExt;

use crate::common::{random, rng, widen};
use crate::{PTX, device, simulate, wide};

/// What a partial without tokens may hold: a NaN.
const POISON: u32 = 0x7FC0_DEAD;

/// Partials to merge, `[splits, rows, latents]` and `[splits, rows]`.
#[derive(Debug)]
struct Partials {
    rows: usize,
    splits: usize,
    rank: usize,
    o: Vec<f32>,
    lse: Vec<f32>,
}

impl Partials {
    /// Random ones, of which about every `1 / empty`-th row saw nothing, which it says in either way, and is poisoned.
    fn random(seed: u64, [splits, rows, rank]: [usize; 3], empty: f64) -> Self {
        let mut rng = rng(seed);
        let mut o = random(&mut rng, splits * rows * rank);
        let mut lse: Vec<f32> = random(&mut rng, splits * rows).iter().map(|x| 40.0 * x).collect();
        for (lse, o) in lse.iter_mut().zip(o.chunks_exact_mut(rank)) {
            if rng.random_bool(empty) {
                *lse = if rng.random_bool(0.5) { f32::NEG_INFINITY } else { f32::INFINITY };
                o.fill(f32::from_bits(POISON));
            }
        }
        Self { rows, splits, rank, o, lse }
    }

    fn reference(&self) -> Attended {
        let partials = self.o.chunks_exact(self.rows * self.rank).zip(self.lse.chunks_exact(self.rows));
        let partials: Vec<_> = partials.map(|(o, lse)| Attended { o_latent: widen(o), lse: widen(lse) }).collect();
        combine(&partials).unwrap()
    }
}

/// What a launch left.
#[derive(PartialEq)]
struct Ran {
    o_latent: Vec<f64>,
    lse: Vec<f64>,
}

/// Memory whose contents begin `shift` elements behind an aligned address.
fn shifted<T: Element>(device: &Device, values: &[T], shift: usize) -> Buffer<T> {
    device.upload(&[vec![T::default(); shift], values.to_vec()].concat()).unwrap()
}

/// Merges the partials. The tensors begin `shift` elements behind an aligned address.
fn run(device: &Device, partials: &Partials, shift: usize) -> Ran {
    run_expecting(device, partials, shift, partials.splits)
}

/// The same by the blocks for rows of about `expected` partials.
fn run_expecting(device: &Device, partials: &Partials, shift: usize, expected: usize) -> Ran {
    let combine = Combine::new(device, CombineConfig::new(partials.rank, partials.splits)).unwrap();
    let (o, lse) = (shifted(device, &partials.o, shift), shifted(device, &partials.lse, shift));
    let mut out_o = shifted(device, &vec![bf16::NAN; partials.rows * partials.rank], shift);
    let mut out_lse = device.upload(&vec![f32::NAN; partials.rows]).unwrap();
    let (stream, [splits, rows]) = (device.stream().unwrap(), [partials.splits, partials.rows]);
    let (o_partial, lse_partial) = (o.view().slice(shift..).unwrap(), lse.view().slice(shift..).unwrap());
    let (o_latent, lse) = (out_o.view_mut().slice(shift..).unwrap(), out_lse.view_mut());
    if expected == splits {
        combine.run(&stream, CombineArgs { rows, splits, o_partial, lse_partial, o_latent, lse }).unwrap();
    } else {
        let params = CombineParams {
            o_partial: o_partial.address(),
            lse_partial: lse_partial.address(),
            o_latent: o_latent.view().address(),
            lse: lse.view().address(),
            rows: rows as u32,
            splits: splits as u32,
            latent_rank: partials.rank as u32,
            ..Default::default()
        };
        // SAFETY: the buffers are as large as the parameters say.
        unsafe { combine.launch(&stream, expected, &params) }.unwrap();
    }
    Ran { o_latent: wide(&out_o.to_vec().unwrap()[shift..]), lse: widen(&out_lse.to_vec().unwrap()) }
}

#[track_caller]
fn check(partials: &Partials, ran: &Ran) {
    let want = partials.reference();
    for (row, (&got, &want)) in ran.lse.iter().zip(&want.lse).enumerate() {
        let same = got == want || got.is_nan() && want.is_nan();
        let close = same || (got - want).abs() <= 1e-6 * want.abs().max(1.0);
        assert!(close, "lse of row {row}: got {got}, want {want}");
    }
    for (i, (&got, &want)) in ran.o_latent.iter().zip(&want.o_latent).enumerate() {
        // Half a step of bf16's 8 significant bits is at most 2^-8 of the number; the sums were f32, of numbers up to 1.
        let close = got.is_nan() && want.is_nan() || (got - want).abs() <= want.abs() / 256.0 + 4e-6;
        assert!(close, "o_latent of row {}, latent {}: got {got}, want {want}", i / partials.rank, i % partials.rank);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_reference(
        seed: u64,
        splits in 1usize..=70,
        rows in 1usize..=5,
        rank in prop_oneof![1usize..=70, Just(128), Just(512), Just(516), Just(2560)],
        empty in prop_oneof![Just(0.0), Just(0.5), Just(0.97)],
        arch in 0usize..2,
    ) {
        let partials = Partials::random(seed, [splits, rows, rank], empty);
        check(&partials, &run(&simulate(Simulation::default().with_arch(PTX[arch])), &partials, 0));
    }

    #[test]
    fn needs_no_alignment(seed: u64, splits in 1usize..=9, rank in 1usize..=40, shift in 1usize..=3) {
        let partials = Partials::random(seed, [splits, 3, rank], 0.3);
        check(&partials, &run(&device(), &partials, shift));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn bits_do_not_depend_on_how_warps_divide_the_partials(
        seed: u64,
        splits in prop_oneof![1usize..=40, 120usize..=300],
        rank in prop_oneof![1usize..=40, Just(128), Just(132), Just(512)],
        shift in 0usize..2,
    ) {
        let partials = Partials::random(seed, [splits, 2, rank], 0.2);
        let device = device();
        let [own, shared] = [1, 17].map(|expected| {
            let tiles = CombineConfig::new(rank, splits).tiles(expected, 2, device.limits().multiprocessors);
            assert_eq!(tiles.shares_chunks, expected > 16, "{tiles:?}");
            run_expecting(&device, &partials, shift, expected)
        });
        check(&partials, &shared);
        prop_assert!(own == shared);
    }
}

/// Up to 16 in ascending order; of more, eight sums of every eighth partial in ascending order, then of neighbours. With
/// weights of 1, which are exact.
#[test]
fn sums_are_taken_in_the_order_that_is_stated() {
    for splits in [1, 7, 16, 17, 40, 129, 257] {
        let mut partials = Partials::random(8, [splits, 1, 128], 0.0);
        partials.lse.fill(0.0);
        // Numbers of very different sizes, so that hardly another order has the same sum.
        for (i, o) in partials.o.iter_mut().enumerate() {
            *o *= 2f32.powi((i * 7919 % 41) as i32 - 20);
        }
        let sum = |latent: usize| {
            let mut ways = [0f32; 8];
            for p in 0..splits {
                ways[if splits > 16 { p % 8 } else { 0 }] += partials.o[p * 128 + latent];
            }
            let [a, b, c, d, e, f, g, h] = ways;
            ((a + b) + (c + d)) + ((e + f) + (g + h))
        };
        let want: Vec<f64> = (0..128).map(|i| bf16::from_f32(sum(i) * (1.0 / splits as f32)).to_f64()).collect();
        for expected in [1, 17] {
            assert_eq!(run_expecting(&device(), &partials, 0, expected).o_latent, want, "{splits} partials");
        }
    }
}

#[test]
fn a_row_that_saw_nothing_is_zeros_and_minus_infinity() {
    for rank in [7, 8] {
        let partials = Partials::random(1, [3, 2, rank], 1.0);
        let ran = run(&device(), &partials, 0);
        check(&partials, &ran);
        assert_eq!((ran.o_latent, ran.lse), (vec![0.0; 2 * rank], vec![f64::NEG_INFINITY; 2]));
    }
}

#[test]
fn every_mixture_of_nothing_and_nan_is_as_the_reference_has_it() {
    let kinds = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN, 0.5, -90.0];
    // Every three of them, a row each; vectorised and not.
    for rank in [5, 8] {
        let rows = kinds.len().pow(3);
        let mut partials = Partials::random(7, [3, rows, rank], 0.0);
        for (i, lse) in partials.lse.iter_mut().enumerate() {
            let (partial, row) = (i / rows, i % rows);
            *lse = kinds[row / kinds.len().pow(partial as u32) % kinds.len()];
        }
        for (lse, o) in partials.lse.iter().zip(partials.o.chunks_exact_mut(rank)) {
            if !lse.is_finite() {
                o.fill(f32::from_bits(POISON));
            }
        }
        let ran = run(&device(), &partials, 0);
        check(&partials, &ran);
        for row in 0..rows {
            let any = |is: fn(&f32) -> bool| partials.lse.iter().skip(row).step_by(rows).any(is);
            let lse = ran.lse[row];
            assert_eq!(lse.is_nan(), any(|lse| lse.is_nan()), "row {row}: {lse}");
            assert_eq!(lse.is_finite(), !lse.is_nan() && any(|lse| lse.is_finite()), "row {row}: {lse}");
            let nan = ran.o_latent[row * rank..][..rank].iter().filter(|o| o.is_nan()).count();
            assert_eq!(nan, if lse.is_nan() { rank } else { 0 }, "row {row}");
        }
    }
}

#[test]
fn one_partial_is_rounded_and_nothing_else() {
    let partials = Partials::random(2, [1, 4, 96], 0.0);
    let ran = run(&device(), &partials, 0);
    let rounded: Vec<f64> = partials.o.iter().map(|&x| bf16::from_f32(x).to_f64()).collect();
    assert_eq!((ran.o_latent, ran.lse), (rounded, widen(&partials.lse)));
}

#[test]
fn rows_do_not_depend_on_their_neighbours() {
    let all = Partials::random(3, [5, 6, 64], 0.2);
    let together = run(&device(), &all, 0);
    for row in 0..all.rows {
        let each = all.o.chunks_exact(all.rank).skip(row).step_by(all.rows).flatten().copied();
        let lse = all.lse.iter().skip(row).step_by(all.rows).copied();
        let alone = Partials { rows: 1, o: each.collect(), lse: lse.collect(), ..all };
        let alone = run(&device(), &alone, 0);
        assert_eq!(alone.o_latent, together.o_latent[row * all.rank..][..all.rank]);
        assert_eq!(alone.lse, together.lse[row..=row]);
    }
}

#[test]
fn the_weights_of_as_many_parts_as_are_allowed_fit() {
    let partials = Partials::random(4, [8192, 1, 1], 0.1);
    check(&partials, &run(&device(), &partials, 0));
}

#[test]
fn repeated_runs_agree_to_the_bit() {
    let (device, partials) = (device(), Partials::random(6, [40, 3, 96], 0.2));
    let first = run(&device, &partials, 0);
    assert!((0..3).all(|_| run(&device, &partials, 0) == first));
}

#[test]
fn every_byte_that_counts_is_read_once() {
    // 33 partials of 4 rows, vectorised and not; in the middle row of each, nothing was seen.
    for (rank, shift, sectors) in [(512, 0, true), (512, 1, false), (509, 0, false), (24, 0, false)] {
        let mut partials = Partials::random(5, [33, 4, rank], 0.0);
        partials.lse.iter_mut().skip(1).step_by(4).for_each(|lse| *lse = f32::NEG_INFINITY);
        let device = device();
        run(&device, &partials, shift);
        let Some(counted) = device.take_counts().remove("combine") else { return };
        let traffic = |path| counted.meter.traffic.get(&path).copied().unwrap_or_default();
        let latents = 33 * 3 * rank as u64;
        // Every block of a row reads all its lse.
        let blocks = CombineConfig::new(rank, 33).tiles(33, 4, device.limits().multiprocessors).blocks as u64;
        assert_eq!(traffic(Path::GlobalRead).bytes, 4 * 33 * 4 * blocks + 4 * latents, "rank {rank}, shift {shift}");
        assert_eq!(traffic(Path::GlobalWrite).bytes, 4 * 4 + 2 * 4 * rank as u64, "rank {rank}, shift {shift}");
        if sectors {
            // A row's lse lie 16 bytes apart, two to a sector, the 33rd in a second warp; latents fill whole sectors.
            assert_eq!(traffic(Path::GlobalRead).sectors, 4 * (32 / 2 + 1) * blocks + 4 * latents / 32);
            assert_eq!(traffic(Path::GlobalWrite).sectors, 4 + 2 * 4 * 512 / 32);
        }
        assert_eq!(traffic(Path::LocalRead).bytes + traffic(Path::LocalWrite).bytes, 0);
        assert_eq!(traffic(Path::SharedRead).conflicts + traffic(Path::SharedWrite).conflicts, 0);
    }
}

#[test]
fn wrong_arguments_are_named() {
    let device = device();
    for max_splits in [0, COMBINE_MAX_SPLITS as usize + 1] {
        let message = Combine::new(&device, CombineConfig::new(8, max_splits)).unwrap_err().to_string();
        assert_eq!(message, format!("combine of {max_splits} partials: must be 1..=8192"));
    }
    let combine = Combine::new(&device, CombineConfig::new(8, 4)).unwrap();
    // Sizes of splits, o_partial, lse_partial, o_latent and lse; three rows.
    let check = |[splits, o, lse, out_o, out_lse]: [usize; 5], elsewhere: bool, expected: &str| {
        let (o, lse) = (device.zeros::<f32>(o).unwrap(), device.zeros::<f32>(lse).unwrap());
        let mut out_o = device.zeros::<bf16>(out_o).unwrap();
        let mut out_lse = if elsewhere { Device::simulated() } else { device.clone() }.zeros::<f32>(out_lse).unwrap();
        let args = CombineArgs {
            rows: 3,
            splits,
            o_partial: o.view(),
            lse_partial: lse.view(),
            o_latent: out_o.view_mut(),
            lse: out_lse.view_mut(),
        };
        let message = combine.run(&device.stream().unwrap(), args).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    };
    check([0, 0, 0, 24, 3], false, "combine of 0 partials: this operation was made for 1..=4");
    check([5, 120, 15, 24, 3], false, "combine of 5 partials: this operation was made for 1..=4");
    check([2, 47, 6, 24, 3], false, "o_partial: expected [splits 2, rows 3, latent 8] = 48 elements, got 47");
    check([2, 48, 5, 24, 3], false, "lse_partial: expected [splits 2, rows 3] = 6 elements, got 5");
    check([2, 48, 6, 23, 3], false, "o_latent: expected [rows 3, latent 8] = 24 elements, got 23");
    check([2, 48, 6, 24, 4], false, "lse: expected [rows 3] = 3 elements, got 4");
    check([2, 48, 6, 24, 3], true, "lse: is on device `ptx-sim`");
    let params = CombineParams { rows: 0, ..Default::default() };
    // SAFETY: without rows there is nothing to launch.
    unsafe { combine.launch(&device.stream().unwrap(), 1, &params) }.unwrap();
}
