//! The angular frequencies of a model's rotation, with the scaling rules that stretch its context.

use std::f64::consts::TAU;

use super::fields::Fields;
use crate::error::{Error, Result};
use crate::rope::theta_frequencies;

/// What a configuration says about rotation.
pub(crate) struct Rotation {
    pub theta: f32,
    pub inverse_frequencies: Vec<f32>,
    /// Factor on every cosine and sine.
    pub gain: f64,
    /// Factor on every score.
    pub score_factor: f64,
}

impl Rotation {
    /// Reads `rope_theta` and `rope_scaling` (or `rope_parameters`, which newer configurations have instead) for
    /// a rotation of `dim` dimensions. YaRN is for DeepSeek only, where it also changes the softmax scale.
    pub fn parse(config: Fields, dim: usize, allow_yarn: bool) -> Result<Self> {
        let scaling = match config.optional_object("rope_parameters")? {
            Some(parameters) => Some(parameters),
            None => config.optional_object("rope_scaling")?,
        };
        let nested_theta = scaling.map(|s| s.optional_positive("rope_theta")).transpose()?.flatten();
        let theta = nested_theta.or(config.optional_positive("rope_theta")?).unwrap_or(10_000.0) as f32;
        let plain = theta_frequencies(theta, dim);
        let mut rotation = Self { theta, inverse_frequencies: plain, gain: 1.0, score_factor: 1.0 };

        // What `save_mha2mla` writes for a model whose scaling has no name, such as a GGUF file's table of factors.
        if let Some(own) = config.optional_object("latent_attention")?
            && let Some(frequencies) = explicit_frequencies(own, dim)?
        {
            rotation.inverse_frequencies = frequencies;
            return Ok(rotation);
        }
        let Some(scaling) = scaling else { return Ok(rotation) };
        let kind = match scaling.optional_text("rope_type")? {
            Some(kind) => kind,
            None => scaling.optional_text("type")?.unwrap_or("default"),
        };
        match kind {
            "default" => {}
            "linear" => {
                let factor = scaling.positive("factor")?;
                rotation.scale_each(|f| f / factor);
            }
            "llama3" => {
                let rule = Llama3::parse(scaling)?;
                rotation.scale_each(|f| rule.scale(f));
            }
            "yarn" if allow_yarn => rotation.apply_yarn(scaling, config, dim)?,
            other => {
                let yarn = if allow_yarn { ", yarn" } else { "" };
                return Err(Error::Config {
                    what: format!("rope_scaling type `{other}` in {}", config.path.display()),
                    why: format!("the types known for this architecture are default, linear, llama3{yarn}"),
                });
            }
        }
        match rotation.inverse_frequencies.iter().find(|f| !f.is_finite()) {
            Some(bad) => Err(config.error(format!("rope_scaling `{kind}` yields the frequency {bad}"))),
            None => Ok(rotation),
        }
    }

    fn scale_each(&mut self, rule: impl Fn(f64) -> f64) {
        for frequency in &mut self.inverse_frequencies {
            *frequency = rule(f64::from(*frequency)) as f32;
        }
    }

    /// YaRN (arXiv 2309.00071) as DeepSeek uses it: frequencies that turn often within the original context stay,
    /// those that never complete a turn are slowed by `factor`, and a ramp lies between.
    fn apply_yarn(&mut self, scaling: Fields, config: Fields, dim: usize) -> Result<()> {
        let factor = scaling.positive("factor")?;
        let original = match scaling.optional_positive("original_max_position_embeddings")? {
            Some(original) => original,
            None => config.positive("max_position_embeddings")?,
        };
        let beta_fast = scaling.optional_positive("beta_fast")?.unwrap_or(32.0);
        let beta_slow = scaling.optional_positive("beta_slow")?.unwrap_or(1.0);
        let mscale = scaling.optional_number("mscale")?.unwrap_or(1.0);
        let mscale_all = scaling.optional_number("mscale_all_dim")?.unwrap_or(0.0);

        // The pair that completes `turns` turns within the original context.
        let pair_of = |turns: f64| dim as f64 * (original / (turns * TAU)).ln() / (2.0 * f64::from(self.theta).ln());
        let low = pair_of(beta_fast).floor().max(0.0);
        let high = pair_of(beta_slow).ceil().min(dim as f64 - 1.0);
        let width = if high == low { 0.001 } else { high - low };
        for (pair, frequency) in self.inverse_frequencies.iter_mut().enumerate() {
            let slowed = ((pair as f64 - low) / width).clamp(0.0, 1.0);
            let plain = f64::from(*frequency);
            *frequency = (plain / factor * slowed + plain * (1.0 - slowed)) as f32;
        }
        let attention = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
        self.gain = match scaling.optional_positive("attention_factor")? {
            Some(given) => given,
            None => attention(mscale) / attention(mscale_all),
        };
        self.score_factor = attention(mscale_all).powi(2);
        Ok(())
    }
}

/// Llama 3.1's rule: short wavelengths stay, long ones are stretched by `factor`, and a ramp lies between.
struct Llama3 {
    factor: f64,
    low: f64,
    high: f64,
    original: f64,
}

impl Llama3 {
    fn parse(scaling: Fields) -> Result<Self> {
        let rule = Self {
            factor: scaling.positive("factor")?,
            low: scaling.positive("low_freq_factor")?,
            high: scaling.positive("high_freq_factor")?,
            original: scaling.positive("original_max_position_embeddings")?,
        };
        if rule.high <= rule.low {
            return Err(scaling.error("`high_freq_factor` must exceed `low_freq_factor`".into()));
        }
        Ok(rule)
    }

    fn scale(&self, frequency: f64) -> f64 {
        let turns = self.original * frequency / TAU;
        let kept = ((turns - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        (1.0 - kept) * frequency / self.factor + kept * frequency
    }
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

    fn rotation(json: &str, dim: usize, allow_yarn: bool) -> Result<Rotation> {
        let value: serde_json::Value = serde_json::from_str(json).expect("test JSON");
        let map = value.as_object().expect("an object");
        Rotation::parse(Fields { path: Path::new("config.json"), map }, dim, allow_yarn)
    }

    #[test]
    fn llama3_keeps_fast_pairs_and_slows_slow_ones_by_the_factor() {
        let json = r#"{"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}"#;
        let scaled = rotation(json, 128, false).expect("valid").inverse_frequencies;
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
        let yarn = rotation(json, 64, true).expect("valid");
        let plain = theta_frequencies(10_000.0, 64);
        assert_eq!(yarn.inverse_frequencies[..11], plain[..11]);
        assert_eq!(yarn.inverse_frequencies[23], plain[23] / 40.0);
        assert!(yarn.inverse_frequencies[22] > plain[22] / 40.0);
        assert_eq!(yarn.gain, 1.0);
        let mscale = 0.1 * 0.707 * 40f64.ln() + 1.0;
        assert!((yarn.score_factor - mscale * mscale).abs() < 1e-12);
    }

    #[test]
    fn newer_configurations_keep_theta_among_the_rope_parameters() {
        let json = r#"{"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}}"#;
        let scaled = rotation(json, 4, false).expect("valid");
        assert_eq!(scaled.inverse_frequencies, [0.5, 0.05]);
    }

    #[test]
    fn an_unknown_scaling_type_is_named_in_the_error() {
        let json = r#"{"rope_scaling": {"rope_type": "longrope"}}"#;
        let error = rotation(json, 4, false).err().expect("an error").to_string();
        assert!(error.contains("longrope") && error.contains("llama3") && !error.contains("yarn"), "{error}");
    }
}
