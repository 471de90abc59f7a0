//! f16 and bf16 arithmetic: exact in f64 but for a rest, rounded to the narrow format by search (PTX ISA 9.7.4).

use crate::cases::Case;
use crate::exact::Narrow;
use crate::exactly::Exactly;
use crate::expected_float::extreme;
use crate::inputs::Element::{self, Bf16, Bf16x2, F16, F16x2};

/// A 16-bit format.
#[derive(Clone, Copy, PartialEq)]
pub enum Small {
    F16,
    Bf16,
}

thread_local! {
    static TABLES: [Narrow; 2] = [Narrow::new(5, 10, 0x7BFF), Narrow::new(8, 7, 0x7F7F)];
}

impl Small {
    pub fn value(self, bits: u64) -> f64 {
        match self {
            Self::F16 => half::f16::from_bits(bits as u16).to_f64(),
            Self::Bf16 => half::bf16::from_bits(bits as u16).to_f64(),
        }
    }

    /// The encoding of a number in a mode; NaN is canonical (9.7.4).
    pub fn round(self, x: f64, mode: &str) -> u64 {
        let negative = x.is_sign_negative();
        if x.is_nan() {
            return 0x7FFF;
        }
        TABLES.with(|tables| tables[self as usize].round(mode, x, negative) as u64) | u64::from(negative) << 15
    }

    fn least_normal(self) -> f64 {
        if self == Self::F16 { 2f64.powi(-14) } else { 2f64.powi(-126) }
    }

    fn flush(self, x: f64) -> f64 {
        if x.abs() < self.least_normal() { 0f64.copysign(x) } else { x }
    }

    fn name(self) -> &'static str {
        if self == Self::F16 { "f16" } else { "bf16" }
    }

    fn element(self, packed: bool) -> Element {
        match (self, packed) {
            (Self::F16, false) => F16,
            (Self::F16, true) => F16x2,
            (Self::Bf16, false) => Bf16,
            (Self::Bf16, true) => Bf16x2,
        }
    }
}

/// A case of a scalar form, or of the packed one, made of a function of scalars.
fn lifted(
    file: &'static str,
    name: &str,
    width: usize,
    (small, packed): (Small, bool),
    f: impl Fn(&[u64]) -> u64 + std::panic::RefUnwindSafe + 'static,
) -> Case {
    let instruction = format!("{name}.{}{}", small.name(), if packed { "x2" } else { "" });
    Case::new(file, &instruction, &vec![small.element(packed); width], move |row| {
        let half = |i: usize| f(&row.iter().map(|x| x >> (16 * i) & 0xFFFF).collect::<Vec<_>>());
        if packed { half(0) | half(1) << 16 } else { half(0) }
    })
}

/// What modifiers do to the exact result before it is rounded.
fn modified(x: f64, name: &str) -> f64 {
    if name.contains("sat") {
        return if x > 0.0 { x.min(1.0) } else { 0.0 };
    }
    if name.contains("relu") && x <= 0.0 { 0.0 } else { x }
}

fn arithmetic(list: &mut Vec<Case>, file: &'static str, name: &'static str, forms: &[(Small, bool)]) {
    for &(small, packed) in forms {
        let width = if name.starts_with("fma") { 3 } else { 2 };
        list.push(lifted(file, name, width, (small, packed), move |row| {
            let ftz = name.contains("ftz");
            let operand = |i: usize| match small.value(row[i]) {
                x if ftz => small.flush(x),
                x => x,
            };
            let exact = match &name[..3] {
                "add" => Exactly::sum(operand(0), operand(1)).odd(),
                "sub" => Exactly::sum(operand(0), -operand(1)).odd(),
                "mul" => operand(0) * operand(1),
                // The product is exact: 22 bits.
                _ => Exactly::sum(operand(0) * operand(1), operand(2)).odd(),
            };
            let bits = small.round(modified(exact, name), "rn");
            if ftz { small.round(small.flush(small.value(bits)), "rn") } else { bits }
        }));
    }
}

fn extremes(list: &mut Vec<Case>) {
    let forms = [(Small::F16, false), (Small::F16, true), (Small::Bf16, false), (Small::Bf16, true)];
    let mut add = |file, name: &'static str, form: (Small, bool)| {
        let (max, nan) = (name.starts_with("max"), name.contains("NaN"));
        list.push(lifted(file, name, 2, form, move |row| {
            let [a, b] = [0, 1].map(|i| form.0.value(row[i]));
            if !name.contains("xorsign") {
                return form.0.round(extreme(a, b, max, nan), "rn");
            }
            let best = extreme(a.abs(), b.abs(), max, nan);
            form.0.round(if (row[0] ^ row[1]) >> 15 == 1 { -best } else { best }, "rn")
        }));
    };
    for form in forms {
        add("half", "min", form);
        add("half", "max", form);
        if form == forms[0] || form == forms[3] {
            add("half", "min.NaN", form);
            add("half", "max.NaN", form);
        }
    }
    add("half_90", "min.xorsign.abs", forms[0]);
    add("half_90", "max.xorsign.abs", forms[3]);
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    let f16 = [(Small::F16, false), (Small::F16, true)];
    let bf16 = [(Small::Bf16, false), (Small::Bf16, true)];
    for name in ["add", "sub", "mul", "add.rn", "add.sat", "mul.sat", "add.ftz", "mul.ftz", "fma.rn"] {
        arithmetic(&mut list, "half", name, &f16);
    }
    arithmetic(&mut list, "half", "fma.rn", &bf16);
    arithmetic(&mut list, "half", "fma.rn.sat", &f16[..1]);
    arithmetic(&mut list, "half", "fma.rn.ftz", &f16[..1]);
    arithmetic(&mut list, "half", "fma.rn.relu", &f16[1..]);
    arithmetic(&mut list, "half", "fma.rn.relu", &bf16[..1]);
    for name in ["add", "sub", "mul", "sub.rn"] {
        arithmetic(&mut list, "half_90", name, &bf16);
    }
    for form in f16.into_iter().chain(bf16) {
        // Signs of NaN are unspecified.
        let mut sign = |name: &str, f: fn(u64) -> u64| {
            let mut case = lifted("half", name, 1, form, move |row| f(row[0]));
            case.rows.retain(|row| ![0, 16].iter().any(|shift| form.0.value(row[0] >> shift & 0xFFFF).is_nan()));
            list.push(case);
        };
        sign("abs", |x| x & 0x7FFF);
        sign("neg", |x| x ^ 0x8000);
    }
    extremes(&mut list);
    list
}
