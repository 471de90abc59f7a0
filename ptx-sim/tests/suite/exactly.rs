//! Exact results as an f64 and the sign of what it lacks, and their rounding to any format.

use std::cmp::Ordering;

/// `value` rounded to nearest, and whether the exact number lies above, below or at it.
#[derive(Clone, Copy)]
pub struct Exactly {
    pub value: f64,
    pub rest: Ordering,
}

fn sign(x: f64) -> Ordering {
    x.partial_cmp(&0.0).unwrap_or(Ordering::Equal)
}

impl Exactly {
    /// The sum, with Knuth's error term: exact unless it overflows.
    pub fn sum(a: f64, b: f64) -> Self {
        let s = a + b;
        let t = s - a;
        Self { value: s, rest: sign((a - (s - t)) + (b - t)) }
    }

    /// The product: the fused error term is exact unless it underflows.
    pub fn product(a: f64, b: f64) -> Self {
        let p = a * b;
        Self { value: p, rest: sign(a.mul_add(b, -p)) }
    }

    pub fn quotient(a: f64, b: f64) -> Self {
        let q = a / b;
        // The exact quotient is q + r / b.
        let r = sign((-q).mul_add(b, a));
        Self { value: q, rest: if b < 0.0 { r.reverse() } else { r } }
    }

    pub fn root(a: f64) -> Self {
        let q = a.sqrt();
        Self { value: q, rest: sign((-q).mul_add(q, a)) }
    }

    /// Rounded to odd: a number that rounds to any narrower format as the exact one does.
    pub fn odd(self) -> f64 {
        if self.rest == Ordering::Equal || self.value.to_bits() & 1 == 1 || !self.value.is_finite() {
            return self.value;
        }
        if self.rest == Ordering::Greater { self.value.next_up() } else { self.value.next_down() }
    }

    /// As an f64 in a mode.
    pub fn double(self, mode: &str) -> f64 {
        let x = self.value;
        match (mode, self.rest) {
            ("rm", Ordering::Less) => x.next_down(),
            ("rp", Ordering::Greater) => x.next_up(),
            ("rz", Ordering::Less) if x > 0.0 => x.next_down(),
            ("rz", Ordering::Greater) if x < 0.0 => x.next_up(),
            _ => x,
        }
    }
}

/// An f64 as an f32 in a mode.
pub fn single(x: f64, mode: &str) -> f32 {
    let near = x as f32;
    let down = match mode {
        "rm" => true,
        "rp" => false,
        "rz" => x > 0.0,
        _ => return near,
    };
    if !x.is_finite() {
        near
    } else if down && f64::from(near) > x {
        near.next_down()
    } else if !down && f64::from(near) < x {
        near.next_up()
    } else {
        near
    }
}
