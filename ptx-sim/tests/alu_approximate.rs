//! Approximations: the ISA's tables of special values, and errors within what it allows.

mod common;

use common::{Random, Snippet, evaluate32};

const NAN: u32 = 0x7FFF_FFFF;
const INF: u32 = 0x7F80_0000;
const SIGN: u32 = 0x8000_0000;
const ONE: u32 = 0x3F80_0000;

/// -inf, a negative subnormal, -0, +0, a positive subnormal, +inf, NaN.
const SPECIAL: [u32; 7] = [INF | SIGN, SIGN | 1 << 22, SIGN, 0, 1 << 22, INF, 0xFFC0_0001];

#[test]
fn special_values_follow_the_tables() {
    let cases = [
        ("rcp.approx.ftz.f32", [SIGN, INF | SIGN, INF | SIGN, INF, INF, 0, NAN]),
        ("sqrt.approx.ftz.f32", [NAN, SIGN, SIGN, 0, 0, INF, NAN]),
        ("rsqrt.approx.ftz.f32", [NAN, INF | SIGN, INF | SIGN, INF, INF, 0, NAN]),
        ("sin.approx.ftz.f32", [NAN, SIGN, SIGN, 0, 0, NAN, NAN]),
        ("cos.approx.ftz.f32", [NAN, ONE, ONE, ONE, ONE, NAN, NAN]),
        ("lg2.approx.ftz.f32", [NAN, INF | SIGN, INF | SIGN, INF | SIGN, INF | SIGN, INF, NAN]),
        ("ex2.approx.ftz.f32", [0, ONE, ONE, ONE, ONE, INF, NAN]),
        ("ex2.approx.f32", [0, ONE, ONE, ONE, ONE, INF, NAN]),
        ("tanh.approx.f32", [ONE | SIGN, SIGN | 1 << 22, SIGN, 0, 1 << 22, ONE, NAN]),
    ];
    let list = SPECIAL.map(|x| vec![x]);
    for (opcode, expected) in cases {
        assert_eq!(evaluate32(&format!("{opcode} %y0, %x0;"), &list), expected, "{opcode}");
    }
    // Without `.ftz` subnormal numbers count.
    assert_eq!(evaluate32("lg2.approx.f32 %y0, %x0;", &[vec![1 << 22], vec![SIGN | 1]]), [(-127f32).to_bits(), NAN]);
    assert_eq!(evaluate32("rcp.approx.f32 %y0, %x0;", &[vec![1 << 22]]), [2f32.powi(127).to_bits()]);
    assert_eq!(evaluate32("ex2.approx.f32 %y0, %x0;", &[vec![(-149f32).to_bits()]]), [1]);
    assert_eq!(
        evaluate32("ex2.approx.ftz.f32 %y0, %x0;", &[vec![(-149f32).to_bits()], vec![(-126f32).to_bits()]]),
        [0, 1 << 23]
    );
    assert_eq!(
        evaluate32("ex2.approx.f32 %y0, %x0;", &[vec![1e30f32.to_bits()], vec![(-1e30f32).to_bits()]]),
        [INF, 0]
    );
}

/// How the ISA states an error.
#[derive(Clone, Copy)]
enum Error {
    /// Units in the last place of the exact result.
    Ulp(f64),
    Relative(f64),
    Absolute(f64),
}

impl Error {
    /// The largest allowed distance from an exact result.
    fn most(self, exact: f64) -> f64 {
        match self {
            // The last place of f32 lies 23 places behind the first, and at 2^-149 for subnormals.
            Self::Ulp(units) => units * 2f64.powi((exact.abs().log2().floor() as i32 - 23).max(-149)),
            Self::Relative(error) => error * exact.abs(),
            Self::Absolute(error) => error,
        }
    }
}

/// Operands, and how they lie there.
#[derive(Clone, Copy)]
enum Range {
    /// Every part as often as its length says.
    Even(f64, f64),
    /// Every power of two as often as the others.
    Spread(f64, f64),
}

impl Range {
    fn number(self, random: &mut Random) -> f32 {
        let unit = (random.next() >> 11) as f64 / 2f64.powi(53);
        match self {
            Self::Even(low, high) => (low + (high - low) * unit) as f32,
            Self::Spread(low, high) => (low.log2() + (high.log2() - low.log2()) * unit).exp2() as f32,
        }
    }
}

#[test]
fn errors_are_within_what_the_isa_allows() {
    use Error::{Absolute, Relative, Ulp};
    use Range::{Even, Spread};
    let mut random = Random(17);
    let mut check = |opcode: &str, range: Range, f: &dyn Fn(f64) -> f64, error: Error| {
        let list: Vec<Vec<u32>> = (0..20_000).map(|_| vec![range.number(&mut random).to_bits()]).collect();
        for (row, result) in list.iter().zip(evaluate32(&format!("{opcode} %y0, %x0;"), &list)) {
            let (x, y) = (f64::from(f32::from_bits(row[0])), f64::from(f32::from_bits(result)));
            let wanted = f(x);
            assert!((y - wanted).abs() <= error.most(wanted), "{opcode} {x:e}: {y:e}, {wanted:e}");
        }
    };
    let power = |exponent: f64| 2f64.powf(exponent);
    let (least, most) = (power(-149.0), power(127.99));
    // 9.7.3.21 counts from the correctly rounded result, which is half a unit from the exact one.
    check("ex2.approx.f32", Even(-149.0, 127.9), &f64::exp2, Ulp(2.5));
    check("ex2.approx.f32", Even(-1.0, 1.0), &f64::exp2, Ulp(2.5));
    check("ex2.approx.f32", Spread(least, 127.9), &f64::exp2, Ulp(2.5));
    check("ex2.approx.ftz.f32", Even(-126.0, 127.9), &f64::exp2, Ulp(2.5));
    // 9.7.3.20: absolute between 0.5 and 2, relative elsewhere.
    check("lg2.approx.f32", Even(0.51, 1.99), &f64::log2, Absolute(power(-22.0)));
    check("lg2.approx.f32", Spread(2.0, most), &f64::log2, Relative(power(-22.0)));
    check("lg2.approx.f32", Spread(least, 0.5), &f64::log2, Relative(power(-22.0)));
    check("lg2.approx.ftz.f32", Spread(power(-125.9), 0.5), &f64::log2, Relative(power(-22.0)));
    // 9.7.3.13, 15 and 16. Reciprocals of numbers below 2^-128 are infinite.
    check("rcp.approx.f32", Spread(power(-127.9), most), &|x| 1.0 / x, Ulp(1.0));
    check("rcp.approx.f32", Even(-1e3, 1e3), &|x| 1.0 / x, Ulp(1.0));
    check("rcp.approx.ftz.f32", Spread(power(-125.9), power(125.9)), &|x| 1.0 / x, Ulp(1.0));
    check("sqrt.approx.f32", Spread(least, most), &f64::sqrt, Relative(power(-23.0)));
    check("rsqrt.approx.f32", Spread(least, most), &|x| 1.0 / x.sqrt(), Relative(power(-22.9)));
    // 9.7.3.18 and 19: one turn to both sides, and fifty.
    let turn = std::f64::consts::TAU;
    for (range, error) in [(turn, power(-20.5)), (50.0 * turn, power(-14.7))] {
        for ftz in ["", ".ftz"] {
            check(&format!("sin.approx{ftz}.f32"), Even(-range, range), &f64::sin, Absolute(error));
            check(&format!("cos.approx{ftz}.f32"), Even(-range, range), &f64::cos, Absolute(error));
        }
    }
    // 9.7.3.22.
    check("tanh.approx.f32", Spread(least, most), &f64::tanh, Relative(power(-11.0)));
    check("tanh.approx.f32", Even(-5.0, 5.0), &f64::tanh, Relative(power(-11.0)));
}

#[test]
fn approximate_quotients_are_close_and_lose_large_divisors() {
    let mut random = Random(23);
    let mut number = || (random.next() as u32 & 0x807F_FFFF) | (100 + (random.next() % 54) as u32) << 23;
    let list: Vec<Vec<u32>> = (0..20_000).map(|_| vec![number(), number()]).collect();
    for opcode in ["div.approx.f32", "div.full.f32", "div.approx.ftz.f32", "div.full.ftz.f32"] {
        for (row, result) in list.iter().zip(evaluate32(&format!("{opcode} %y0, %x0, %x1;"), &list)) {
            let [a, b, y] = [row[0], row[1], result].map(|bits| f64::from(f32::from_bits(bits)));
            // 9.7.3.8.
            assert!((y - a / b).abs() <= Error::Ulp(2.0).most(a / b), "{opcode} {a:e} / {b:e}: {y:e}");
        }
    }
    let huge = 0x7E80_0001; // Just above 2^126.
    let list = [
        vec![ONE, huge],
        vec![ONE, huge | SIGN],
        vec![INF, huge],
        vec![0x7F00_0000, 0x7E80_0000],
        vec![ONE, INF],
        vec![ONE, 0],
    ];
    assert_eq!(evaluate32("div.approx.f32 %y0, %x0, %x1;", &list), [0, SIGN, NAN, 0x4000_0000, 0, INF]);
    assert_eq!(evaluate32("div.full.f32 %y0, %x0, %x1;", &[vec![huge, huge], vec![INF, huge]]), [ONE, INF]);
    assert_eq!(evaluate32("div.approx.ftz.f32 %y0, %x0, %x1;", &[vec![1, ONE], vec![ONE, SIGN | 1]]), [0, INF | SIGN]);
}

#[test]
fn coarse_double_approximations_have_the_upper_word_only() {
    let bits = [1.0f64, 3.0, -7.5e300, 1e-310, -0.0, f64::INFINITY, -4.0, 0.3].map(f64::to_bits);
    let mut list: Vec<Vec<u64>> = bits.iter().map(|x| vec![*x]).collect();
    list.push(vec![0x7FF0_0000_0000_0001 | 1 << 51]);
    for (opcode, f) in [("rcp", (|x| 1.0 / x) as fn(f64) -> f64), ("rsqrt", |x| 1.0 / x.sqrt())] {
        let body = format!("{opcode}.approx.ftz.f64 %y0, %x0;");
        for (row, result) in list.iter().zip(Snippet { inputs: &["b64"], outputs: &["b64"], body: &body }.run(&list)) {
            let x = f64::from_bits(row[0]);
            let wanted = f(if x.is_subnormal() { 0.0 } else { x });
            let got = f64::from_bits(result[0]);
            assert_eq!(result[0] & 0xFFFF_FFFF, 0);
            let close = (got - wanted).abs() <= 2f64.powi(-19) * wanted.abs() || got == wanted;
            assert!(close || wanted.is_nan() && result[0] == 0x7FFF_FFFF << 32, "{body} {x:e}: {got:e}");
        }
    }
}
