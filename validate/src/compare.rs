//! One output against the reference.

use serde::Serialize;

use crate::tolerance::Rule;

/// An output's numbers and, once it is known, what they should be, as f64.
pub(crate) struct Output {
    pub case: &'static str,
    pub name: &'static str,
    pub shape: Vec<usize>,
    pub got: Vec<f64>,
    pub want: Vec<f64>,
}

/// How far an output is from the reference.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// The case, as [`Kind::name`](crate::Kind::name).
    pub case: &'static str,
    /// The output's name.
    pub output: &'static str,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Largest |got - want|.
    pub max_abs: f64,
    /// Largest |got - want| / |want| where `want` is not 0.
    pub max_rel: f64,
    /// `sum (got - want)^2 / sum (got^2 + want^2)`: 1 minus the cosine, for vectors of about the same length.
    pub cosine: f64,
    /// Of a log-sum-exp: largest |got - want| / max(1, |want|).
    pub lse_error: Option<f64>,
    /// Where the operation is specified to the bit: whether all bits are equal.
    pub bit_equal: Option<bool>,
    /// The element that is worst by the rule; `None` if none differs.
    pub worst: Option<Worst>,
    /// By which rule it passes.
    pub rule: Rule,
    /// Whether it does.
    pub passed: bool,
}

/// One element.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Worst {
    /// Where it stands.
    pub index: Vec<usize>,
    /// What it is.
    pub got: f64,
    /// What the reference says.
    pub want: f64,
    /// By how much it may differ; `None` where the rule is about all elements together.
    pub allowed: Option<f64>,
    /// Of a byte of a cache: what it belongs to.
    pub place: Option<String>,
}

impl Output {
    /// The same with what the reference says.
    pub fn against(self, want: Vec<f64>) -> Self {
        debug_assert_eq!(self.got.len(), want.len(), "{} of {}", self.name, self.case);
        Self { want, ..self }
    }

    /// Passes if all bits are equal, of numbers that f64 holds exactly.
    pub fn exact(self) -> Comparison {
        let differs = |got: f64, want: f64| {
            if got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan() {
                0.0
            } else {
                // Zeros of both signs differ too.
                error(got, want).max(f64::MIN_POSITIVE)
            }
        };
        let mut comparison = self.measure(Rule::Exact, differs, |_, _| f64::INFINITY);
        if let Some(worst) = &mut comparison.worst {
            worst.allowed = Some(0.0);
            comparison.passed = false;
        }
        comparison.bit_equal = Some(comparison.passed);
        comparison
    }

    /// Passes if each element differs by no more than `allowed(index, want)`.
    pub fn elementwise(self, rule: Rule, allowed: impl Fn(usize, f64) -> f64) -> Comparison {
        // An infinite error is beyond every bound, even that of an infinite number.
        let part = |i: usize, error: f64| if error.is_finite() { error / allowed(i, self.want[i]) } else { error };
        let mut comparison = self.measure(rule, error, part);
        if let Some(worst) = &mut comparison.worst {
            let i = flat(&self.shape, &worst.index);
            worst.allowed = Some(allowed(i, worst.want));
            comparison.passed = part(i, error(worst.got, worst.want)) <= 1.0;
        }
        comparison
    }

    /// [`Output::elementwise`] of a log-sum-exp.
    pub fn log_sum_exp(self, rule: Rule, allowed: impl Fn(f64) -> f64) -> Comparison {
        let errors = self.got.iter().zip(&self.want).map(|(&got, &want)| match error(got, want) {
            // Minus infinity that was missed is not divided by its own size.
            error if error.is_infinite() => error,
            error => error / want.abs().max(1.0),
        });
        let lse_error = Some(errors.fold(0.0, f64::max));
        Comparison { lse_error, ..self.elementwise(rule, |_, want| allowed(want)) }
    }

    /// Passes if the root mean square of the error is at most so much of the root mean square of what is wanted and of
    /// the terms that it is a sum of, whose squares have the sum `terms`.
    pub fn together(self, rule: Rule, most: f64, terms: f64) -> Comparison {
        let mut comparison = self.measure(rule, error, |_, error| error);
        let square = |sum: f64, x: f64| sum + x * x;
        let size = self.want.iter().copied().fold(terms, square);
        let errors = self.got.iter().zip(&self.want).map(|(&got, &want)| error(got, want)).fold(0.0, square);
        comparison.passed = errors.is_finite() && errors.sqrt() <= most * size.sqrt();
        comparison
    }

    /// What does not depend on the rule, and the first of the elements that are worst by `badness(index, error)`.
    fn measure(&self, rule: Rule, error: impl Fn(f64, f64) -> f64, badness: impl Fn(usize, f64) -> f64) -> Comparison {
        let (mut max_abs, mut max_rel, mut squares, mut sizes) = (0f64, 0f64, 0.0, 0.0);
        let mut worst: Option<(usize, f64)> = None;
        for (i, (&got, &want)) in self.got.iter().zip(&self.want).enumerate() {
            let error = error(got, want);
            if error == 0.0 {
                // Equal infinities and NaNs have no size.
                sizes += if want.is_finite() { 2.0 * want * want } else { 0.0 };
                continue;
            }
            max_abs = max_abs.max(error);
            max_rel = max_rel.max(if want == 0.0 { 0.0 } else { error / want.abs() });
            squares += error * error;
            sizes += got * got + want * want;
            let badness = badness(i, error);
            if worst.is_none_or(|(_, most)| badness > most) {
                worst = Some((i, badness));
            }
        }
        let cosine = match squares / sizes {
            distance if distance.is_finite() => distance,
            _ if squares == 0.0 => 0.0,
            _ => f64::INFINITY,
        };
        let worst = worst.map(|(i, _)| Worst {
            index: index(&self.shape, i),
            got: self.got[i],
            want: self.want[i],
            allowed: None,
            place: None,
        });
        Comparison {
            case: self.case,
            output: self.name,
            shape: self.shape.clone(),
            max_abs,
            max_rel,
            cosine,
            lse_error: None,
            bit_equal: None,
            worst,
            rule,
            passed: true,
        }
    }
}

impl Comparison {
    /// Moreover the cosine distance must not be larger.
    pub(crate) fn with_cosine(mut self, most: f64) -> Self {
        self.passed &= self.cosine <= most;
        self
    }
}

/// |got - want|: nothing where both are the same infinity or both no number, infinite where only one is.
fn error(got: f64, want: f64) -> f64 {
    if got == want || got.is_nan() && want.is_nan() {
        return 0.0;
    }
    let error = (got - want).abs();
    if error.is_nan() { f64::INFINITY } else { error }
}

/// The index of element `i`.
fn index(shape: &[usize], mut i: usize) -> Vec<usize> {
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&size| {
            let at = i % size;
            i /= size;
            at
        })
        .collect();
    index.reverse();
    index
}

/// The inverse of [`index`].
fn flat(shape: &[usize], index: &[usize]) -> usize {
    shape.iter().zip(index).fold(0, |flat, (size, at)| flat * size + at)
}
