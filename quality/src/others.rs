//! Number formats that other programs keep uncompressed keys and values in, from their definitions, and held against what
//! their own packages make.
//!
//! All of them are given what they were made for: whole heads of 64 numbers or more, and no recent tokens that stay
//! unrounded.

use half::{bf16, f16};

/// A format: its name, bits per number with scales, and how it rounds a head's key or value.
pub struct Format {
    /// What the table calls it.
    pub name: &'static str,
    /// Bits per cached number, scales included.
    pub bits: f64,
    /// What is read back of a head's numbers.
    pub rounding: fn(&mut [f32]),
}

/// The formats that are compared.
pub const FORMATS: [Format; 4] = [
    Format { name: "llama.cpp q4_0", bits: 4.5, rounding: |head| head.chunks_mut(32).for_each(q4_0) },
    Format { name: "quanto qint4, 64", bits: 4.5, rounding: |head| head.chunks_mut(64).for_each(affine::<15>) },
    Format { name: "HQQ 4 bits, 64", bits: 5.0, rounding: |head| head.chunks_mut(64).for_each(half_quadratic::<15>) },
    Format { name: "HQQ 2 bits, 64", bits: 3.0, rounding: |head| head.chunks_mut(64).for_each(half_quadratic::<3>) },
];

/// ggml's `q4_0`: the number that is largest in size becomes -8, in f16; codes 0 to 15 stand for -8 to 7.
fn q4_0(block: &mut [f32]) {
    // Of numbers of one size the first.
    let largest = block.iter().rev().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or_default();
    let scale = largest / -8.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let stored = f16::from_f32(scale).to_f32();
    for x in block {
        let code = (*x * inverse + 8.5).floor().clamp(0.0, 15.0);
        *x = (code - 8.0) * stored;
    }
}

/// Minimum to maximum in `LARGEST` steps, everything computed in bf16: quanto's weights and caches of a model in bf16, whose
/// group is along the numbers of a head (its axis 0).
fn affine<const LARGEST: u32>(group: &mut [f32]) {
    let through = |x: f32| bf16::from_f32(x).to_f32();
    group.iter_mut().for_each(|x| *x = through(*x));
    let (smallest, largest) = range(group);
    let (scale, shift) = (through(through(largest - smallest) / LARGEST as f32), -smallest);
    if scale == 0.0 {
        return group.fill(-shift);
    }
    for x in group {
        let code = through(through(*x + shift) / scale).round_ties_even().clamp(0.0, LARGEST as f32);
        *x = through(through(code * scale) - shift);
    }
}

/// Minimum to maximum in `LARGEST` steps in f32, the zero point moved by HQQ's solver (half-quadratic splitting of an l_0.7
/// norm of the errors, 20 rounds, ended where the mean error no longer falls); the group is along the numbers of a head
/// (HQQ's axis 1). HQQ ends all groups of a call together, which makes a number depend on what is stored beside it; here
/// every group is a call of its own.
fn half_quadratic<const LARGEST: u32>(group: &mut [f32]) {
    let (smallest, largest) = range(group);
    if largest - smallest <= f32::MIN_POSITIVE {
        return;
    }
    let inverse = LARGEST as f32 / (largest - smallest);
    let code = |x: f32, zero: f32| (x * inverse + zero).round_ties_even().clamp(0.0, LARGEST as f32);
    let (norm, strength) = (0.7, 10.0);
    let (mut zero, mut best) = (-smallest * inverse, f32::INFINITY);
    let count = group.len() as f32;
    for _ in 0..20 {
        let read = |x: f32| (code(x, zero) - zero) / inverse;
        let error = group.iter().map(|&x| (x - read(x)).abs()).sum::<f32>() / count;
        // The errors that the norm leaves where they are large; what remains is the zero point's to mend.
        let shrunk = |error: f32| {
            let size = error.abs();
            error.signum() * (size - size.powf(norm - 1.0) / strength).max(0.0)
        };
        let moved = |x: f32| code(x, zero) - (x - shrunk(x - read(x))) * inverse;
        zero = group.iter().map(|&x| moved(x)).sum::<f32>() / count;
        if error >= best {
            break;
        }
        best = error;
    }
    group.iter_mut().for_each(|x| *x = (code(*x, zero) - zero) / inverse);
}

fn range(group: &[f32]) -> (f32, f32) {
    group.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head of numbers as keys and values have them, of two different sizes.
    fn head() -> Vec<f32> {
        (0..64).map(|i| (i as f32 * 1.7).sin() * if i % 9 == 0 { 4.0 } else { 1.0 }).collect()
    }

    fn error(rounding: fn(&mut [f32])) -> f32 {
        let (exact, mut read) = (head(), head());
        rounding(&mut read);
        let square = |x: f32| x * x;
        let (wrong, all): (f32, f32) =
            exact.iter().zip(&read).fold((0.0, 0.0), |(wrong, all), (&e, &r)| (wrong + square(e - r), all + square(e)));
        (wrong / all).sqrt()
    }

    #[test]
    fn more_bits_leave_smaller_errors() {
        let errors = FORMATS.map(|format| error(format.rounding));
        assert!(errors[..3].iter().all(|&error| error > 0.01 && error < 0.15), "{errors:?}");
        assert!(errors[3] > 2.0 * errors[2] && errors[3] < 0.8, "{errors:?}");
    }

    #[test]
    fn q4_0_keeps_the_largest_number_and_the_zero() {
        let mut block = [0.0, 0.5, -1.0, 2.0, 3.9, -8.0];
        q4_0(&mut block);
        assert_eq!(block, [0.0, 1.0, -1.0, 2.0, 4.0, -8.0]);
        let mut tied = [-8.0, 8.0];
        q4_0(&mut tied);
        assert_eq!(tied, [-8.0, 7.0]);
        let mut zeros = [0.0; 32];
        q4_0(&mut zeros);
        assert_eq!(zeros, [0.0; 32]);
    }

    /// What `gguf.quants` of the Python package gguf 0.19.0 makes of the same numbers and back.
    #[test]
    fn q4_0_is_what_ggufs_python_package_makes() {
        let multiples = [
            0, 2, -1, -2, 1, 2, -1, -1, 2, 3, -2, 0, 2, 0, -2, 1, 2, -1, -6, 2, 1, -2, -1, 2, 0, -2, 0, 8, -1, -2, 1, 1,
        ];
        let mut block: Vec<f32> = head()[..32].to_vec();
        q4_0(&mut block);
        assert_eq!(block, multiples.map(|multiple| multiple as f32 * 0.470_214_84));
    }

    /// 64 numbers that f32 holds exactly, in 256ths.
    const NUMBERS: [i16; 64] = [
        0, 254, -65, -237, 126, 204, -179, -158, 220, 406, -246, -38, 256, -28, -249, 92, 225, -150, -746, 198, 135,
        -233, -75, 252, 10, -255, 55, 963, -117, -211, 172, 166, -214, -111, 243, 48, -1022, 17, 251, -82, -230, 141,
        193, -191, -144, 913, 85, -250, -21, 256, -45, -244, 108, 216, -655, -174, 209, 120, -240, -59, 255, -7, -253,
        289,
    ];

    fn numbers() -> [f32; 64] {
        NUMBERS.map(|x| f32::from(x) / 256.0)
    }

    /// What `quantize_weight` of the Python package optimum-quanto 0.2.7 makes of the same numbers in bf16, and back: qint4,
    /// axis 0, groups of 64, as transformers' quantised cache calls it.
    #[test]
    fn affine_is_what_quantos_python_package_makes() {
        let mut read = numbers();
        affine::<15>(&mut read);
        // In 64ths.
        let expected = [
            8, 74, -25, -58, 40, 40, -58, -25, 40, 108, -58, -25, 74, 8, -58, 8, 40, -25, -190, 40, 40, -58, -25, 74,
            8, -58, 8, 240, -25, -58, 40, 40, -58, -25, 74, 8, -256, 8, 74, -25, -58, 40, 40, -58, -25, 240, 8, -58, 8,
            74, -25, -58, 40, 40, -157, -58, 40, 40, -58, -25, 74, 8, -58, 74,
        ];
        assert_eq!(read, expected.map(|x| x as f32 / 64.0));
    }

    /// What `Quantizer` of the Python package hqq 0.2.8.post1 makes of the same numbers in f32 on the CPU, and back: axis 1,
    /// groups of 64, four of them alike in one call.
    #[test]
    fn half_quadratic_is_what_hqqs_python_package_makes() {
        let four_bits = [
            8, 10, 7, 6, 9, 9, 7, 7, 10, 11, 6, 8, 10, 8, 6, 9, 10, 7, 2, 9, 9, 6, 7, 10, 8, 6, 8, 15, 7, 6, 9, 9, 6,
            7, 10, 8, 0, 8, 10, 7, 6, 9, 9, 6, 7, 15, 9, 6, 8, 10, 8, 6, 9, 10, 3, 7, 10, 9, 6, 7, 10, 8, 6, 10,
        ];
        let two_bits = [
            2, 2, 2, 1, 2, 2, 1, 1, 2, 2, 1, 2, 2, 2, 1, 2, 2, 1, 0, 2, 2, 1, 2, 2, 2, 1, 2, 3, 1, 1, 2, 2, 1, 1, 2, 2,
            0, 2, 2, 2, 1, 2, 2, 1, 1, 3, 2, 1, 2, 2, 2, 1, 2, 2, 1, 1, 2, 2, 1, 2, 2, 2, 1, 2,
        ];
        let check = |rounding: fn(&mut [f32]), codes: [i32; 64], scale: f32, zero: f32| {
            let mut read = numbers();
            rounding(&mut read);
            for (read, code) in read.iter().zip(codes) {
                let expected = (code as f32 - zero) * scale;
                assert!((read - expected).abs() < 1e-5, "{read}, not {expected}");
            }
        };
        check(half_quadratic::<15>, four_bits, 0.516_927_06, 7.937_321);
        check(half_quadratic::<3>, two_bits, 2.584_635_5, 1.625_578_6);
    }

    #[test]
    fn numbers_that_are_all_alike_are_kept() {
        for format in FORMATS {
            let mut alike = [1.5; 64];
            (format.rounding)(&mut alike);
            assert!(alike.iter().all(|x| (x - 1.5).abs() < 1e-3), "{}: {alike:?}", format.name);
        }
    }
}
