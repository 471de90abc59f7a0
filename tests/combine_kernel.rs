//! The kernel `combine`, run on the simulator and held against the reference.

mod common;

use common::{random, rng, widen};
use half::bf16;
use latent_attention::image::{self, Arch};
use latent_attention::reference::{Attended, combine};
use proptest::prelude::*;
use ptx_sim::meter::Path;
use ptx_sim::{Launch, Machine, Report};
use rand::RngExt;

/// As in `csrc/params.h`.
const MAX_THREADS: usize = 512;

/// What a part without tokens may hold: a NaN.
const POISON: u32 = 0x7FC0_DEAD;

/// Parts to merge, `[splits, rows, latents]` and `[splits, rows]`.
#[derive(Debug)]
struct Parts {
    rows: usize,
    splits: usize,
    rank: usize,
    o: Vec<f32>,
    lse: Vec<f32>,
}

impl Parts {
    /// Random ones, of which about every `1 / empty`-th row saw nothing and is poisoned.
    fn random(seed: u64, [splits, rows, rank]: [usize; 3], empty: f64) -> Self {
        let mut rng = rng(seed);
        let mut o = random(&mut rng, splits * rows * rank);
        let mut lse: Vec<f32> = random(&mut rng, splits * rows).iter().map(|x| 40.0 * x).collect();
        for (lse, o) in lse.iter_mut().zip(o.chunks_exact_mut(rank)) {
            if rng.random_bool(empty) {
                *lse = f32::NEG_INFINITY;
                o.fill(f32::from_bits(POISON));
            }
        }
        Self { rows, splits, rank, o, lse }
    }

    fn reference(&self) -> Attended {
        let parts = self.o.chunks_exact(self.rows * self.rank).zip(self.lse.chunks_exact(self.rows));
        let parts: Vec<_> = parts.map(|(o, lse)| Attended { o_latent: widen(o), lse: widen(lse) }).collect();
        combine(&parts).unwrap()
    }
}

/// What a launch left.
struct Ran {
    o_latent: Vec<f64>,
    lse: Vec<f64>,
    report: Report,
}

/// The PTX that the build script made of `csrc/combine.cu`.
fn ptx(arch: Arch) -> &'static str {
    image::ptx("combine", arch).expect(
        "this build has no kernels, because there was no nvcc: run `cargo xtask setup`, which installs one, and build \
         again",
    )
}

/// Merges the parts with `threads` threads per row. The tensors begin `shift` elements behind an aligned address.
fn run(arch: Arch, parts: &Parts, threads: usize, shift: usize) -> Ran {
    let mut machine = Machine::default();
    let module = machine.load(ptx(arch)).unwrap();
    let [o, lse] = [&parts.o, &parts.lse].map(|values| {
        let address = machine.memory.allocate(4 * (shift + values.len())) + 4 * shift as u64;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        machine.memory.write(address, &bytes).unwrap();
        address
    });
    let mut out_o = vec![0; 2 * parts.rows * parts.rank];
    let mut out_lse = vec![0; 4 * parts.rows];
    let out_o_address = machine.memory.allocate(2 * shift + out_o.len()) + 2 * shift as u64;
    let out_lse_address = machine.memory.allocate(out_lse.len());
    let words = [parts.rows, parts.splits, parts.rank, 0].map(|n| u32::try_from(n).unwrap());
    let params: Vec<u8> = [o, lse, out_o_address, out_lse_address]
        .iter()
        .flat_map(|address| address.to_le_bytes())
        .chain(words.iter().flat_map(|word| word.to_le_bytes()))
        .collect();
    let launch =
        Launch::new([words[0], 1, 1], [u32::try_from(threads).unwrap(), 1, 1]).with_dynamic_shared(4 * parts.splits);
    let report = machine.launch(&module, "combine", &launch, &params).unwrap();
    machine.memory.read(out_o_address, &mut out_o).unwrap();
    machine.memory.read(out_lse_address, &mut out_lse).unwrap();
    let bf16s = out_o.chunks_exact(2).map(|pair| bf16::from_le_bytes([pair[0], pair[1]]).to_f64());
    let f32s = out_lse.chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap()));
    Ran { o_latent: bf16s.collect(), lse: f32s.map(f64::from).collect(), report }
}

/// As many threads as the vectorised path has work for.
fn usual_threads(rank: usize) -> usize {
    rank.div_ceil(4).next_multiple_of(32).min(MAX_THREADS)
}

#[track_caller]
fn check(parts: &Parts, ran: &Ran) {
    assert!(ran.report.findings.is_empty(), "{:#?}", ran.report.findings);
    let want = parts.reference();
    for (row, (&got, &want)) in ran.lse.iter().zip(&want.lse).enumerate() {
        let close = got == want || (got - want).abs() <= 1e-6 * want.abs().max(1.0);
        assert!(close, "lse of row {row}: got {got}, want {want}");
    }
    for (i, (&got, &want)) in ran.o_latent.iter().zip(&want.o_latent).enumerate() {
        // Half a step of bf16's 8 significant bits is at most 2^-8 of the number; the sums were f32, of numbers up to 1.
        let close = (got - want).abs() <= want.abs() / 256.0 + 4e-6;
        assert!(close, "o_latent of row {}, latent {}: got {got}, want {want}", i / parts.rank, i % parts.rank);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_reference(
        seed: u64,
        splits in 1usize..=70,
        rows in 1usize..=5,
        rank in prop_oneof![1usize..=70, Just(128), Just(512), Just(516)],
        warps in 1usize..=16,
        empty in prop_oneof![Just(0.0), Just(0.5), Just(0.97)],
        arch in prop_oneof![Just(Arch::Compute80), Just(Arch::Compute90a)],
    ) {
        let parts = Parts::random(seed, [splits, rows, rank], empty);
        check(&parts, &run(arch, &parts, 32 * warps, 0));
    }

    #[test]
    fn needs_no_alignment(seed: u64, splits in 1usize..=9, rank in 1usize..=40, shift in 1usize..=3) {
        let parts = Parts::random(seed, [splits, 3, rank], 0.3);
        check(&parts, &run(Arch::Compute80, &parts, usual_threads(rank), shift));
    }
}

#[test]
fn a_row_that_saw_nothing_is_zeros_and_minus_infinity() {
    for rank in [7, 8] {
        let parts = Parts::random(1, [3, 2, rank], 1.0);
        let ran = run(Arch::Compute80, &parts, 32, 0);
        check(&parts, &ran);
        assert_eq!((ran.o_latent, ran.lse), (vec![0.0; 2 * rank], vec![f64::NEG_INFINITY; 2]));
    }
}

#[test]
fn one_part_is_rounded_and_nothing_else() {
    let parts = Parts::random(2, [1, 4, 96], 0.0);
    let ran = run(Arch::Compute80, &parts, 32, 0);
    let rounded: Vec<f64> = parts.o.iter().map(|&x| bf16::from_f32(x).to_f64()).collect();
    assert_eq!((ran.o_latent, ran.lse), (rounded, widen(&parts.lse)));
}

#[test]
fn rows_do_not_depend_on_their_neighbours() {
    let all = Parts::random(3, [5, 6, 64], 0.2);
    let together = run(Arch::Compute80, &all, 32, 0);
    for row in 0..all.rows {
        let each = all.o.chunks_exact(all.rank).skip(row).step_by(all.rows).flatten().copied();
        let lse = all.lse.iter().skip(row).step_by(all.rows).copied();
        let alone = Parts { rows: 1, o: each.collect(), lse: lse.collect(), ..all };
        let alone = run(Arch::Compute80, &alone, 32, 0);
        assert_eq!(alone.o_latent, together.o_latent[row * all.rank..][..all.rank]);
        assert_eq!(alone.lse, together.lse[row..=row]);
    }
}

#[test]
fn the_weights_of_as_many_parts_as_are_allowed_fit() {
    let parts = Parts::random(4, [8192, 1, 1], 0.1);
    let ran = run(Arch::Compute80, &parts, 32, 0);
    check(&parts, &ran);
}

#[test]
fn every_byte_that_counts_is_read_once() {
    // 33 parts of 4 rows, vectorised and not; in the middle row of each part, nothing was seen.
    for (rank, shift, sectors) in [(512, 0, true), (512, 1, false), (509, 0, false), (24, 0, false)] {
        let mut parts = Parts::random(5, [33, 4, rank], 0.0);
        parts.lse.iter_mut().skip(1).step_by(4).for_each(|lse| *lse = f32::NEG_INFINITY);
        let Ran { report, .. } = run(Arch::Compute80, &parts, usual_threads(rank), shift);
        let traffic = |path| report.meter.traffic.get(&path).copied().unwrap_or_default();
        let counted = 33 * 3 * rank as u64;
        assert_eq!(traffic(Path::GlobalRead).bytes, 4 * 33 * 4 + 4 * counted, "rank {rank}, shift {shift}");
        assert_eq!(traffic(Path::GlobalWrite).bytes, 4 * 4 + 2 * 4 * rank as u64, "rank {rank}, shift {shift}");
        if sectors {
            // A row's lse lie 16 bytes apart, two to a sector, the 33rd in a second warp; latents fill whole sectors.
            assert_eq!(traffic(Path::GlobalRead).sectors, 4 * (32 / 2 + 1) + 4 * counted / 32);
            assert_eq!(traffic(Path::GlobalWrite).sectors, 4 + 2 * 4 * 512 / 32);
        }
        assert_eq!(traffic(Path::LocalRead).bytes + traffic(Path::LocalWrite).bytes, 0);
        assert_eq!(traffic(Path::SharedRead).conflicts + traffic(Path::SharedWrite).conflicts, 0);
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
    }
}
