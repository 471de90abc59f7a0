//! The angular frequencies of a model's rotation, with the scaling rules that stretch its context.

use std::f64::consts::TAU;

use super::config::OWN_KEYS;
use super::fields::Fields;
use super::rope_object::{RopeObject, RopeRules, RotatedPart, refuse_partial_rotation, theta};
use crate::error::{Error, Result};
use crate::rope::theta_frequencies;

/// What a configuration says about rotation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rotation {
    pub theta: f32,
    pub inverse_frequencies: Vec<f32>,
    /// Factor on every cosine and sine.
    pub gain: f64,
    /// Factor on every score.
    pub score_factor: f64,
    /// How far these frequencies hold, if longer contexts have others.
    pub rescaling: Option<Rescaling>,
}

/// Where a model begins to rotate by other frequencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rescaling {
    /// Tokens of the longest context that has these frequencies.
    pub beyond: usize,
    /// What longer ones have, and the key that holds the length, to be read behind "this model rotates by".
    pub how: &'static str,
}

impl Rotation {
    /// Reads `rope_theta` and `rope_scaling` (or `rope_parameters`, which newer configurations have instead) for
    /// a rotation of that part of each head, by the rules of the model's family.
    pub fn parse(config: Fields, part: RotatedPart, rules: &'static RopeRules) -> Result<Self> {
        let dim = part.dim;
        if rules.types.is_empty() {
            // No key about rotation means anything to such a family. Dimensions turned by no angle stay as they are.
            let inverse_frequencies = vec![0.0; dim / 2];
            return Ok(Self { inverse_frequencies, ..Self::plain(rules.theta, 0) });
        }
        refuse_partial_rotation(config, part)?;
        let parameters = RopeObject::find(config, "rope_parameters", rules)?;
        let mut rotation = match (parameters, RopeObject::find(config, "rope_scaling", rules)?) {
            (Some(parameters), Some(scaling)) => agreed(parameters, scaling, part)?,
            (Some(object), None) | (None, Some(object)) => object.rotation(part)?,
            (None, None) => Self::plain(theta(config, None, rules)?, dim),
        };

        // What `save_mha2mla` writes for a model whose scaling has no name, such as a GGUF file's table of factors.
        if let Some(own) = config.optional_object(OWN_KEYS)?
            && let Some(frequencies) = explicit_frequencies(own, dim)?
        {
            if rotation != Self::plain(f64::from(rotation.theta), dim) {
                return Err(Error::Config {
                    what: format!("scaling of the rotation in {}", config.path.display()),
                    why: "`latent_attention.inverse_frequencies` are the frequencies of all pairs, scaling included; \
                          no object may scale them again"
                        .into(),
                });
            }
            rotation.inverse_frequencies = frequencies;
        }
        Ok(rotation)
    }

    /// A rotation without scaling.
    pub fn plain(theta: f64, dim: usize) -> Self {
        let theta = theta as f32;
        Self {
            theta,
            inverse_frequencies: theta_frequencies(theta, dim),
            gain: 1.0,
            score_factor: 1.0,
            rescaling: None,
        }
    }

    /// The first number that overflowed or is none, if there is one.
    pub fn not_finite(&self) -> Option<f64> {
        let frequencies = self.inverse_frequencies.iter().map(|&f| f64::from(f));
        frequencies.chain([self.gain, self.score_factor]).find(|x| !x.is_finite())
    }

    fn scale_each(&mut self, rule: impl Fn(f64) -> f64) {
        for frequency in &mut self.inverse_frequencies {
            *frequency = rule(f64::from(*frequency)) as f32;
        }
    }

    /// Every frequency is divided by `factor`.
    pub fn apply_linear(&mut self, object: &RopeObject, _: usize) -> Result<()> {
        let factor = object.own.positive("factor")?;
        self.scale_each(|f| f / factor);
        Ok(())
    }

    /// Llama 3.1's rule: short wavelengths stay, long ones are stretched by `factor`, and a ramp lies between.
    pub fn apply_llama3(&mut self, object: &RopeObject, _: usize) -> Result<()> {
        let factor = object.own.positive("factor")?;
        let low = object.own.positive("low_freq_factor")?;
        let high = object.own.positive("high_freq_factor")?;
        let original = object.original_positions()?;
        if high <= low {
            let why = format!("`high_freq_factor` {high} must exceed `low_freq_factor` {low}");
            return Err(object.own.error(why));
        }
        self.scale_each(|f| {
            let turns = original * f / TAU;
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            (1.0 - kept) * f / factor + kept * f
        });
        Ok(())
    }

    /// YaRN (arXiv 2309.00071) as DeepSeek uses it: frequencies that turn often within the original context stay,
    /// those that never complete a turn are slowed by `factor`, and a ramp lies between. It runs from one whole pair
    /// to another unless `truncate` is off.
    ///
    /// The gain of DeepSeek's families is that of their published code, where `mscale` defaults to 1 and `mscale_all_dim`
    /// to 0. Where exactly one of the two is there, transformers differs: its gain is then that of both missing. For the
    /// other families, which have no code but transformers', it is so here too.
    pub fn apply_yarn(&mut self, object: &RopeObject, dim: usize) -> Result<()> {
        let own = object.own;
        let factor = own.positive("factor")?;
        let original = object.original_positions()?;
        let beta_fast = own.optional_positive("beta_fast")?.unwrap_or(32.0);
        let beta_slow = own.optional_positive("beta_slow")?.unwrap_or(1.0);
        let truncate = own.switch("truncate", true)?;

        // The pair that completes `turns` turns within the original context.
        let pair_of = |turns: f64| dim as f64 * (original / (turns * TAU)).ln() / (2.0 * f64::from(self.theta).ln());
        let (first, last) = (pair_of(beta_fast), pair_of(beta_slow));
        let (first, last) = if truncate { (first.floor(), last.ceil()) } else { (first, last) };
        let (low, high) = (first.max(0.0), last.min(dim as f64 - 1.0));
        let width = if high == low { 0.001 } else { high - low };
        for (pair, frequency) in self.inverse_frequencies.iter_mut().enumerate() {
            let slowed = ((pair as f64 - low) / width).clamp(0.0, 1.0);
            let plain = f64::from(*frequency);
            *frequency = (plain / factor * slowed + plain * (1.0 - slowed)) as f32;
        }
        self.gain = match own.optional_positive("attention_factor")? {
            Some(given) => given,
            None => {
                let (mscale, all_dim) = (own.optional_number("mscale")?, mscale_all_dim(object)?);
                let both = mscale.is_some_and(|mscale| mscale != 0.0) && all_dim != 0.0;
                let (mscale, all_dim) = match mscale {
                    Some(mscale) if both || object.rules.scales_softmax => (mscale, all_dim),
                    None if object.rules.scales_softmax => (1.0, all_dim),
                    _ => (1.0, 0.0),
                };
                yarn_attention(factor, mscale) / yarn_attention(factor, all_dim)
            }
        };
        Ok(())
    }

    /// LongRoPE (arXiv 2402.13753) as Phi-3 uses it: each frequency has a divisor of its own, from one list in contexts of up
    /// to the original length and from another in longer ones. It is the first that is read.
    pub fn apply_longrope(&mut self, object: &RopeObject, dim: usize) -> Result<()> {
        let own = object.own;
        let original = object.original_positions()?;
        let positions = object.config.positive("max_position_embeddings")?;
        let (short, long) = (divisors(own, "short_factor", dim / 2)?, divisors(own, "long_factor", dim / 2)?);
        if original <= 1.0 {
            let why =
                format!("`original_max_position_embeddings` must be more than 1 for `{}`, got {original}", object.name);
            return Err(own.error(why));
        }
        let theta = f64::from(self.theta);
        for (pair, (frequency, divisor)) in self.inverse_frequencies.iter_mut().zip(&short).enumerate() {
            // In f32 from step to step, as transformers has it: a frequency that differs in its last bit turns a pair
            // by 2e-4 radians more in 3000 tokens.
            let power = theta.powf(2.0 * pair as f64 / dim as f64) as f32;
            *frequency = 1.0 / (*divisor as f32 * power);
        }
        let factor = own.optional_positive("factor")?.unwrap_or(positions / original);
        let gain = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() };
        self.gain = own.optional_positive("attention_factor")?.unwrap_or(gain);
        self.rescaling = (short != long && positions > original).then_some(Rescaling {
            beyond: original as usize,
            how: "`long_factor` beyond `original_max_position_embeddings`",
        });
        Ok(())
    }

    /// The base of the frequencies grows with the context ("NTK-aware" scaling) once that is longer than
    /// `max_position_embeddings`; in contexts of up to so many tokens nothing is scaled.
    pub fn apply_dynamic(&mut self, object: &RopeObject, _: usize) -> Result<()> {
        // It counts in longer contexts only; a model without it is malformed all the same.
        object.own.positive("factor")?;
        self.rescaling = Some(Rescaling {
            beyond: object.config.size("max_position_embeddings")?,
            how: "a base that grows with the context (`dynamic`) beyond `max_position_embeddings`",
        });
        Ok(())
    }

    /// DeepSeek's factor on the softmax scale, which models with `mscale_all_dim` have.
    pub fn apply_softmax_factor(&mut self, object: &RopeObject) -> Result<()> {
        let mscale = mscale_all_dim(object)?;
        if mscale != 0.0 {
            self.score_factor = yarn_attention(object.own.positive("factor")?, mscale).powi(2);
        }
        Ok(())
    }
}

fn mscale_all_dim(object: &RopeObject) -> Result<f64> {
    Ok(object.own.optional_number("mscale_all_dim")?.unwrap_or(0.0))
}

/// YaRN's factor on queries and keys for a context that is `factor` times as long.
fn yarn_attention(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

/// The rotation that both objects mean. Programs differ in which of the two they take, and what they lose with it.
fn agreed(parameters: RopeObject, scaling: RopeObject, part: RotatedPart) -> Result<Rotation> {
    match (parameters.rotation(part), scaling.rotation(part)) {
        (Ok(first), Ok(second)) if first == second => Ok(first),
        (Err(error), _) if parameters.own.map == scaling.own.map => Err(error),
        _ => Err(Error::Config {
            what: format!("`rope_parameters` and `rope_scaling` in {}", parameters.own.path.display()),
            why: format!("are both there and differ: {}; {}; keep one", parameters.describe()?, scaling.describe()?),
        }),
    }
}

/// One divisor for each of `pairs` frequencies.
fn divisors(own: Fields, key: &str, pairs: usize) -> Result<Vec<f64>> {
    let wrong = || own.error(format!("`{key}` must be {pairs} positive numbers"));
    let listed = own.optional_array(key)?.ok_or_else(wrong)?;
    let positive = |x: &f64| (*x as f32) > 0.0 && (*x as f32).is_finite();
    let divisors: Option<Vec<f64>> = listed.iter().map(|value| value.as_f64().filter(positive)).collect();
    divisors.filter(|divisors| divisors.len() == pairs).ok_or_else(wrong)
}

fn explicit_frequencies(own: Fields, dim: usize) -> Result<Option<Vec<f32>>> {
    let Some(array) = own.optional_array("inverse_frequencies")? else { return Ok(None) };
    let numbers: Option<Vec<f32>> =
        array.iter().map(|v| v.as_f64().map(|x| x as f32).filter(|x| x.is_finite() && *x > 0.0)).collect();
    match numbers {
        Some(numbers) if numbers.len() == dim / 2 => Ok(Some(numbers)),
        _ => Err(own.error(format!("`latent_attention.inverse_frequencies` must be {} positive numbers", dim / 2))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn rotation(json: &str, dim: usize, rules: &'static RopeRules) -> Result<Rotation> {
        let value: serde_json::Value = serde_json::from_str(json).expect("test JSON");
        let map = value.as_object().expect("an object");
        Rotation::parse(Fields { path: Path::new("config.json"), map }, RotatedPart { dim, of: dim }, rules)
    }

    #[test]
    fn llama3_keeps_fast_pairs_and_slows_slow_ones_by_the_factor() {
        let json = r#"{"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}"#;
        let scaled = rotation(json, 128, &RopeRules::DENSE).expect("valid").inverse_frequencies;
        let plain = theta_frequencies(500_000.0, 128);
        assert_eq!(scaled[..20], plain[..20]);
        for pair in 40..64 {
            assert_eq!(scaled[pair], plain[pair] / 8.0);
        }
        assert!((20..40).all(|pair| scaled[pair] <= plain[pair] && scaled[pair] >= plain[pair] / 8.0));
    }

    #[test]
    fn yarn_with_equal_mscales_moves_its_factor_into_the_score() {
        // DeepSeek-V2-Lite's values. The ramp runs from pair 10 to pair 23.
        let json = r#"{"rope_theta": 10000, "max_position_embeddings": 163840, "rope_scaling": {"type": "yarn",
            "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1,
            "mscale": 0.707, "mscale_all_dim": 0.707}}"#;
        let yarn = rotation(json, 64, &RopeRules::LATENT).expect("valid");
        let plain = theta_frequencies(10_000.0, 64);
        assert_eq!(yarn.inverse_frequencies[..11], plain[..11]);
        assert_eq!(yarn.inverse_frequencies[23], plain[23] / 40.0);
        assert!(yarn.inverse_frequencies[22] > plain[22] / 40.0);
        assert_eq!(yarn.gain, 1.0);
        let mscale = 0.1 * 0.707 * 40f64.ln() + 1.0;
        assert!((yarn.score_factor - mscale * mscale).abs() < 1e-12);
    }

    #[test]
    fn yarn_counts_mscales_only_together_where_the_softmax_has_its_usual_scale() {
        let gain = |keys: &str| {
            let json = format!(
                r#"{{"max_position_embeddings": 131072, "rope_scaling": {{"rope_type": "yarn", "factor": 4.0,
                "original_max_position_embeddings": 32768{keys}}}}}"#
            );
            let rotation = rotation(&json, 64, &RopeRules::DENSE).expect("valid");
            assert_eq!(rotation.score_factor, 1.0);
            rotation.gain
        };
        let m = |mscale: f64| 0.1 * mscale * 4f64.ln() + 1.0;
        for one in ["", r#", "mscale": 2.0"#, r#", "mscale_all_dim": 2.0"#, r#", "mscale": 0, "mscale_all_dim": 2.0"#] {
            assert_eq!(gain(one), m(1.0), "{one}");
        }
        assert_eq!(gain(r#", "mscale": 2.0, "mscale_all_dim": 0.5"#), m(2.0) / m(0.5));
        assert_eq!(gain(r#", "mscale": 2.0, "mscale_all_dim": 0.5, "attention_factor": 3.0"#), 3.0);
    }

    #[test]
    fn newer_configurations_keep_theta_among_the_rope_parameters() {
        let json = r#"{"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}}"#;
        let scaled = rotation(json, 4, &RopeRules::DENSE).expect("valid");
        assert_eq!(scaled.inverse_frequencies, [0.5, 0.05]);
    }

    #[test]
    fn an_unknown_scaling_type_is_named_in_the_error() {
        let json = r#"{"rope_scaling": {"rope_type": "proportional"}}"#;
        let error = rotation(json, 4, &RopeRules::LATENT).expect_err("an error").to_string();
        assert!(error.contains("proportional") && error.contains("llama3") && !error.contains("dynamic"), "{error}");
    }
}
