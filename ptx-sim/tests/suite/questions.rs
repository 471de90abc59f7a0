//! Questions that only a GPU answers: what the ISA leaves open of `wgmma`'s sums, and rates of Hopper's new ways.
//!
//! `suite/questions/hopper_90.cu` asks them. On a GPU, `gpu-check` runs this and writes the answers down; on the
//! simulator the same kernels have to run without a finding, and its own sums have to be what it says of them.

use crate::cases::Case;
use crate::run::{self, Backend, Simulator};

/// An answer.
struct Answer {
    name: String,
    value: f64,
    unit: &'static str,
}

/// How much of each question is asked.
struct Extent {
    /// Blocks of kernels that are to fill the machine: as many as an H100 or H200 has multiprocessors.
    blocks: usize,
    /// Rounds of a rate, and loads of a chase or of shared memory.
    rounds: u32,
    loads: u32,
    /// Launches of what a clock under load is read from: the last of them counts, when half a second has passed.
    launches: u32,
    /// Words of memory that are read.
    words: usize,
}

const GPU: Extent = Extent { blocks: 132, rounds: 1000, loads: 4096, launches: 200, words: 1 << 27 };
const SIMULATED: Extent = Extent { blocks: 2, rounds: 1, loads: 8, launches: 1, words: 1 << 14 };

/// Runs `kernel` with `threads` of a block, so many times; the result is `words` words.
fn launch(
    backend: &mut dyn Backend,
    kernel: &str,
    (blocks, threads, launches): (usize, u32, u32),
    input: &[u64],
    words: usize,
    rounds: u32,
) -> Option<Vec<u64>> {
    let rows = vec![Vec::new(); blocks * threads as usize];
    let mut case = Case::all("questions/hopper_90", kernel, kernel, 0, rows, <[Vec<u64>]>::to_vec);
    (case.threads, case.extra, case.launches) = (threads, rounds.to_le_bytes().to_vec(), launches);
    backend.run(&case, input, words)
}

/// Numbers without a pattern: data of zeros draw less power than others, and clocks rise with it.
fn noise(words: usize) -> Vec<u64> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..words).map(next).collect()
}

/// A format of multiplicands, as far as the questions need it: 32 bytes of elements are one instruction's k.
struct Format {
    name: &'static str,
    bytes: usize,
    /// Bits of the fraction, and the exponent's bias.
    fraction: u32,
    bias: i32,
    /// Greatest exponent that is used, and the least one.
    exponents: [i32; 2],
}

const FORMATS: [Format; 3] = [
    Format { name: "f16", bytes: 2, fraction: 10, bias: 15, exponents: [14, -14] },
    Format { name: "bf16", bytes: 2, fraction: 7, bias: 127, exponents: [14, -60] },
    Format { name: "e4m3", bytes: 1, fraction: 3, bias: 7, exponents: [8, -6] },
];

/// One sum: elements of A and B, 32 bytes each, and the accumulator.
#[derive(Clone)]
struct Probe {
    a: [u8; 32],
    b: [u8; 32],
    accumulator: f32,
}

impl Format {
    /// Elements of an instruction's k.
    fn k(&self) -> usize {
        32 / self.bytes
    }

    /// The exponent of the greatest product in use.
    fn top(&self) -> i32 {
        2 * self.exponents[0]
    }

    /// Least exponent of a product in use.
    fn bottom(&self) -> i32 {
        2 * self.exponents[1]
    }

    fn put(&self, to: &mut [u8; 32], index: usize, bits: u32) {
        to[index * self.bytes..][..self.bytes].copy_from_slice(&bits.to_le_bytes()[..self.bytes]);
    }

    /// A sum of products 2^exponent, or one and a half times that, at the given positions.
    fn probe(&self, products: &[(usize, i32, bool)], accumulator: f32) -> Probe {
        let mut probe = Probe { a: [0; 32], b: [0; 32], accumulator };
        for &(position, exponent, half_more) in products {
            let first = exponent.div_euclid(2).clamp(self.exponents[1], self.exponents[0]);
            let bits = |exponent: i32| ((exponent + self.bias) as u32) << self.fraction;
            self.put(&mut probe.a, position, bits(first) | u32::from(half_more) << (self.fraction - 1));
            self.put(&mut probe.b, position, bits(exponent - first));
        }
        probe
    }

    fn sums(&self, backend: &mut dyn Backend, probes: &[Probe]) -> Option<Vec<f32>> {
        let row = |probe: &Probe| {
            let halves = [probe.a, probe.b].concat();
            let words = halves.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
            words.chain([u64::from(probe.accumulator.to_bits())]).collect::<Vec<_>>()
        };
        let input: Vec<u64> = probes.iter().flat_map(row).collect();
        let kernel = format!("sum_{}", self.name);
        let bits = launch(backend, &kernel, (probes.len(), 128, 1), &input, probes.len(), 1)?;
        Some(bits.into_iter().map(|bits| f32::from_bits(bits as u32)).collect())
    }

    /// How far below 2^top an addend is still seen, if one for each distance is made by `make`.
    fn seen(&self, backend: &mut dyn Backend, make: impl Fn(i32) -> Probe) -> Option<i32> {
        let deepest = (self.top() - self.bottom()).min(40);
        let probes: Vec<Probe> = (1..=deepest).map(make).collect();
        let whole = 2f32.powi(self.top());
        let lost = self.sums(backend, &probes)?.iter().position(|sum| *sum == whole);
        Some(lost.map_or(deepest, |index| index as i32))
    }

    /// How the format's products are summed.
    fn answers(&self, backend: &mut dyn Backend) -> Option<Vec<Answer>> {
        let (top, last) = (self.top(), self.k() - 1);
        let whole = 2f32.powi(top);
        let among = self.seen(backend, |down| self.probe(&[(0, top, false), (last, top - down, false)], 0.0))?;
        let beside = self.seen(backend, |down| self.probe(&[(0, top - down, false)], whole))?;
        // Three quarters of the last bit that is seen.
        let part = self.probe(&[(0, top, false), (last, top - among - 1, true)], 0.0);
        let rounds = self.sums(backend, &[part])?[0] > whole;
        // One great product among halves of the last bit that is seen, at every position.
        let orders: Vec<Probe> = (0..=last)
            .map(|great| {
                let products = (0..=last).map(|k| (k, if k == great { top } else { top - among - 1 }, false));
                self.probe(&products.collect::<Vec<_>>(), 0.0)
            })
            .collect();
        let mut sums: Vec<u32> = self.sums(backend, &orders)?.into_iter().map(f32::to_bits).collect();
        sums.sort_unstable();
        sums.dedup();
        let answer = |what: &str, value: f64, unit| Answer { name: format!("wgmma {} {what}", self.name), value, unit };
        Some(vec![
            answer("bits seen below the greatest product", among.into(), "bits"),
            answer("bits seen below the accumulator", beside.into(), "bits"),
            answer("sum is rounded, not cut", f64::from(u8::from(rounds)), "0 or 1"),
            answer("distinct sums of one set in all orders", sums.len() as f64, "sums"),
        ])
    }
}

/// Whether products with f16 subnormals, which is what 4-bit codes are to the tensor cores, are exact.
fn subnormals(backend: &mut dyn Backend) -> Option<Answer> {
    let format = &FORMATS[0];
    let mut probes = Vec::new();
    let mut expected = Vec::new();
    for swapped in [false, true] {
        for row in 0..64 {
            let mut probe = Probe { a: [0; 32], b: [0; 32], accumulator: 0.0 };
            let mut sum = 0.0;
            for k in 0..16 {
                let (code, factor) = ((row * 7 + k * 5) % 16, ((row * 13 + k * 11) % 64) as f32 - 31.0);
                let [codes, factors] =
                    if swapped { [&mut probe.b, &mut probe.a] } else { [&mut probe.a, &mut probe.b] };
                format.put(codes, k, code as u32);
                format.put(factors, k, half::f16::from_f32(factor).to_bits().into());
                sum += code as f32 * factor;
            }
            probes.push(probe);
            expected.push(sum * 2f32.powi(-24));
        }
    }
    let exact = format.sums(backend, &probes)? == expected;
    let name = "wgmma f16 subnormals are exact".into();
    Some(Answer { name, value: f64::from(u8::from(exact)), unit: "0 or 1" })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Products of a round of `rate_N`.
const PRODUCTS: f64 = 64.0;

/// Cycles that a multiprocessor takes for a product of 64 x N x 16 with A in registers, and its clock meanwhile.
fn rates(backend: &mut dyn Backend, extent: &Extent) -> Option<Vec<Answer>> {
    let mut answers = Vec::new();
    let input = noise(1 << 12);
    let mut measure = |n: u32, warpgroups: u32, launches: u32| {
        let shape = (extent.blocks, 128 * warpgroups, launches);
        launch(backend, &format!("rate_{n}"), shape, &input, 3 * extent.blocks, extent.rounds)
    };
    for n in [8, 16, 32, 64, 128] {
        for warpgroups in [1, 2] {
            let products = f64::from(extent.rounds) * PRODUCTS * f64::from(warpgroups);
            let result = measure(n, warpgroups, 2)?;
            let value = median(result.chunks_exact(3).map(|block| block[0] as f64 / products).collect());
            let name = format!("wgmma m64n{n}k16 f16, A in registers, {warpgroups} warpgroups");
            answers.push(Answer { name, value, unit: "cycles" });
        }
    }
    let result = measure(128, 2, extent.launches)?;
    let clock = result.chunks_exact(3).map(|block| block[0] as f64 / block[1].max(1) as f64).collect();
    answers.push(Answer { name: "clock under wgmma m64n128k16".into(), value: median(clock), unit: "GHz" });
    Some(answers)
}

/// Bandwidth of reads alone, and the clock meanwhile.
fn reading(backend: &mut dyn Backend, extent: &Extent) -> Option<Vec<Answer>> {
    let (blocks, threads) = (extent.blocks * 8, 256);
    let rounds = extent.words / 2 / (blocks * threads as usize);
    let input = noise(extent.words);
    // The first launch finds the pages cold.
    let shape = (blocks, threads, extent.launches);
    let result = launch(backend, "read_only", shape, &input, 4 * blocks, rounds as u32)?;
    let blocks: Vec<&[u64]> = result.chunks_exact(4).collect();
    let begin = blocks.iter().map(|block| block[0]).min().unwrap();
    let end = blocks.iter().map(|block| block[1]).max().unwrap();
    let bytes = (16 * rounds * blocks.len() * threads as usize) as f64;
    let clock = median(blocks.iter().map(|b| b[2] as f64 / b[1].saturating_sub(b[0]).max(1) as f64).collect());
    let bandwidth = bytes / end.saturating_sub(begin).max(1) as f64;
    Some(vec![
        Answer { name: "read-only bandwidth".into(), value: bandwidth, unit: "GB/s" },
        Answer { name: "clock under reads".into(), value: clock, unit: "GHz" },
    ])
}

/// Latency and bandwidth of shared memory, the own block's and another's of the cluster.
fn distributed(backend: &mut dyn Backend, extent: &Extent) -> Option<Vec<Answer>> {
    let chased = launch(backend, "chase", (2, 32, 2), &[0], 2, extent.loads)?;
    let shared = launch(backend, "share", (2, 256, 2), &[0], 4, extent.loads)?;
    let bytes = 16.0 * 256.0 * f64::from(extent.loads);
    let mut answers = Vec::new();
    for (index, of) in ["the own block's", "another block's"].into_iter().enumerate() {
        let (latency, cycles) = (chased[index] as f64 / f64::from(extent.loads), shared[index] as f64);
        answers.push(Answer { name: format!("latency of {of} shared memory"), value: latency, unit: "cycles" });
        let name = format!("loads of {of} shared memory");
        answers.push(Answer { name, value: bytes / cycles.max(1.0), unit: "bytes per cycle and block" });
    }
    Some(answers)
}

/// All answers; `None` if the GPU is no Hopper.
fn ask(backend: &mut dyn Backend, extent: &Extent) -> Option<Vec<Answer>> {
    let mut answers = vec![subnormals(backend)?];
    for format in &FORMATS {
        answers.extend(format.answers(backend)?);
    }
    answers.extend(rates(backend, extent)?);
    answers.extend(reading(backend, extent)?);
    answers.extend(distributed(backend, extent)?);
    Some(answers)
}

/// On a GPU, prints a line for each answer, which `gpu-check` reads.
#[test]
fn hopper() {
    let on_gpu = run::gpu().is_some();
    let answers = ask(run::backend().as_mut(), if on_gpu { &GPU } else { &SIMULATED });
    for Answer { name, value, unit } in answers.iter().flatten() {
        // A kernel that has not done its work writes zeros.
        assert!(value.is_finite() && (*value > 0.0 || *unit == "0 or 1"), "{name}: {value}");
        println!("question\t{name}\t{value}\t{unit}");
    }
}

/// Where the ISA leaves sums open, the simulator's are exact and rounded once, whatever the order.
#[test]
fn the_simulators_sums_are_rounded_once() {
    let mut simulator = Simulator::default();
    assert_eq!(subnormals(&mut simulator).unwrap().value, 1.0);
    for format in &FORMATS {
        let values: Vec<f64> = format.answers(&mut simulator).unwrap().iter().map(|answer| answer.value).collect();
        // A f32 has 23 bits behind the first; half of the next one is a tie, three quarters are not.
        assert_eq!(values, [23.0, 23.0, 1.0, 1.0], "{}", format.name);
    }
}
