//! The model, the texts, and how a conversion of the model is measured on them.

use std::fs;

use anyhow::{Context, Result, ensure};
use latent_attention::cache::{CacheFormat, RangeSetting};
use latent_attention::rope::RopeTables;
use latent_attention::weights::{DenseAttention, LatentAttention};
use latent_attention_lm::conversion::{ModelOptions, Sizes, check_convertible, convert_model};
use latent_attention_lm::dense::DenseSteps;
use latent_attention_lm::evaluate::{Original, measure};
use latent_attention_lm::latent::LatentProducts;
use latent_attention_lm::model::Model;
use latent_attention_lm::progress::bar;
use latent_attention_lm::text::{OWN_SHARE, SEQUENCE, Text, sequences};
use latent_attention_lm::transformer::AttentionStep;
use latent_attention_lm::worth::{by_worth, worths};
use latent_attention_recover::data::refuse_overlap;

use crate::args::Arguments;

/// Number formats of a cache, by name.
pub type Formats<'a> = &'a [(&'a str, CacheFormat)];

/// The formats of most rows.
pub const FORMATS: Formats = &[("bf16", CacheFormat::BF16), ("int4", CacheFormat::INT4)];

/// Calibration sequences are not made longer than this unless that is asked for.
const LONGEST: usize = 768;

/// A text that conversions are judged by.
pub struct Judged {
    /// What the table calls it.
    pub name: String,
    /// The token that begins texts, and the text's first ones.
    pub tokens: Vec<u32>,
    /// The text's other tokens.
    pub rest: Vec<u32>,
    /// What the original makes of the first ones.
    pub original: Original,
}

/// Everything that a table needs.
pub struct Bench {
    /// The original.
    pub model: Model,
    /// Its attention.
    pub layers: Vec<DenseAttention>,
    /// Its frequencies.
    pub tables: RopeTables,
    /// Tokens to calibrate on and to learn from.
    pub text: Vec<u32>,
    /// Tokens of it that calibrate.
    pub calibration_tokens: usize,
    /// Tokens of each sequence of them.
    pub length: usize,
    /// Texts that nothing else has seen.
    pub judged: Vec<Judged>,
    /// The sizes that most rows have.
    pub sizes: Sizes,
}

impl Bench {
    /// Reads the model and the texts, and runs the original over those that judge.
    ///
    /// # Errors
    /// If a file cannot be read, the model's attention is not dense, or it was made for fewer positions.
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let mut model = Model::open(&arguments.model)?;
        let layers = model.take_dense().with_context(|| arguments.model.display().to_string())?;
        check_convertible(&layers).with_context(|| arguments.model.display().to_string())?;
        let config = model.checkpoint.config();
        let tokens = arguments.tokens as usize;
        let length = arguments
            .calibration_length
            .map_or(tokens.clamp(SEQUENCE.min(config.max_positions), LONGEST), |length| length as usize);
        let longest = tokens.max(length);
        ensure!(longest <= config.max_positions, "the model was made for {} positions", config.max_positions);
        let sizes = Sizes::usual(config, arguments.rope_dim, arguments.latent_rank);
        let Text { calibration, evaluation } = Text::prepare(None, arguments.more_text.as_deref(), &model, tokens)?;
        let mut texts = vec![("essay".to_owned(), evaluation)];
        for (name, path) in &arguments.evaluate {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            texts.push((name.clone(), model.begun(&model.tokenizer.encode(&text)?)));
        }
        let tables = model.rope_tables(longest);
        let begun = usize::from(model.tokenizer.bos().is_some());
        let judged = texts.into_iter().map(|(name, mut text)| {
            ensure!(text.len() > begun + 1, "the text {name} is too short to be judged by");
            refuse_overlap(&calibration, &text[begun..]).with_context(|| format!("the text {name}"))?;
            let rest = text.split_off(tokens.min(text.len()));
            let original = Original::new(&model.transformer, &mut DenseSteps::new(&layers, &tables)?, &text)?;
            Ok(Judged { name, tokens: text, rest, original })
        });
        let judged = judged.collect::<Result<Vec<_>>>()?;
        let calibration_tokens = arguments.calibration_tokens as usize;
        Ok(Self { model, layers, tables, text: calibration, calibration_tokens, length, judged, sizes })
    }

    /// What calibrates unless a table is about that, in sequences of `length`.
    ///
    /// # Errors
    /// As for [`sequences`].
    pub fn calibration(&self, length: usize) -> Result<Vec<Vec<u32>>> {
        sequences(&self.model, &self.layers, &self.text, self.calibration_tokens, length, OWN_SHARE)
    }

    /// The layers converted to a shared key of all of the `sizes`, each everywhere.
    ///
    /// # Errors
    /// As for [`convert_model`].
    pub fn convert(
        &self,
        sequences: &[Vec<u32>],
        sizes: &[Sizes],
        options: &ModelOptions,
    ) -> Result<Vec<Vec<LatentAttention>>> {
        let plans: Vec<_> = sizes.iter().map(|sizes| sizes.everywhere(self.layers.len())).collect();
        self.convert_plans(sequences, &plans, options)
    }

    /// The layers converted by every one of the `plans`.
    ///
    /// # Errors
    /// As for [`convert_model`].
    pub fn convert_plans(
        &self,
        sequences: &[Vec<u32>],
        plans: &[Vec<Sizes>],
        options: &ModelOptions,
    ) -> Result<Vec<Vec<LatentAttention>>> {
        let progress = bar("Converting", self.layers.len(), "layers");
        let converted = convert_model(self.model.source(&self.layers), sequences, plans, options, || progress.inc(1));
        progress.finish_and_clear();
        converted
    }

    /// The usual sizes, the latent's directions given to the layers where they are worth most.
    ///
    /// # Errors
    /// As for [`worths`].
    pub fn by_worth(&self, sequences: &[Vec<u32>], options: &ModelOptions) -> Result<Vec<Sizes>> {
        let Sizes { rope_dim, latent_rank } = self.sizes;
        let progress = bar("Looking at", self.layers.len(), "layers");
        let (source, most) = (self.model.source(&self.layers), Sizes { rope_dim, latent_rank: 2 * latent_rank });
        let worths = worths(source, sequences, most, &options.sampling, || progress.inc(1));
        progress.finish_and_clear();
        Ok(by_worth(&worths?, rope_dim, latent_rank))
    }

    /// The layers converted with the sizes, the text and the options of most rows.
    ///
    /// # Errors
    /// As for [`convert_model`].
    pub fn convert_main(&self) -> Result<Vec<LatentAttention>> {
        let options = ModelOptions::default();
        Ok(self.convert(&self.calibration(self.length)?, &[self.sizes], &options)?.into_iter().flatten().collect())
    }

    /// Prints the table's head and the original's row.
    pub fn print_head(&self) {
        let titles: String = self.judged.iter().map(|text| format!(" {} | KL |", text.name)).collect();
        println!("| attention | rotated + latent | cache | bytes |{titles}");
        println!("|---|---:|---|---:|{}", "---:|---:|".repeat(self.judged.len()));
        let cells: String = self.judged.iter().map(|text| format!(" {:.2} | - |", text.original.perplexity)).collect();
        println!("| original | - | bf16 | {} |{cells}", self.original_bits(16.0));
    }

    /// Bytes per token and layer of the original's keys and values, with so many bits per number.
    fn original_bits(&self, bits: f64) -> f64 {
        let config = self.model.checkpoint.config();
        (2 * config.kv_heads * config.head_dim) as f64 * bits / 8.0
    }

    /// Measures a conversion on every text, reading from caches of the given formats, and prints a row for each.
    ///
    /// # Errors
    /// If the layers do not fit the model.
    pub fn print_rows(&self, name: &str, layers: &[LatentAttention], formats: Formats) -> Result<()> {
        let mean = |of: &dyn Fn(&LatentAttention) -> f64| layers.iter().map(of).sum::<f64>() / layers.len() as f64;
        let rotated = mean(&|layer| layer.geometry.rope_width() as f64);
        let latent = mean(&|layer| layer.geometry.latent_rank as f64);
        for (cache, format) in formats {
            let mut attention = LatentProducts::new(layers, &self.tables, Some(*format))?;
            let cells = self.measured(name, &mut attention)?;
            let bytes = mean(&|layer| format.code_bytes_per_token(&layer.geometry));
            println!("| {name} | {rotated} + {latent} | {cache} | {bytes} |{cells}");
        }
        Ok(())
    }

    /// The same for the original with a cache of `bits` per number, scales included.
    ///
    /// # Errors
    /// If the attention does not fit the model.
    pub fn print_original(&self, cache: &str, bits: f64, attention: &mut dyn AttentionStep) -> Result<()> {
        let cells = self.measured(cache, attention)?;
        println!("| original | - | {cache} | {} |{cells}", self.original_bits(bits));
        Ok(())
    }

    fn measured(&self, name: &str, attention: &mut dyn AttentionStep) -> Result<String> {
        let mut cells = String::new();
        for text in &self.judged {
            let (model, original) = (&self.model.transformer, Some(&text.original));
            let measured = measure(name, model, attention, &text.tokens, original)?;
            let divergence = measured.divergence.map_or("-".to_owned(), |divergence| format!("{divergence:.3}"));
            cells += &format!(" {:.2} | {divergence} |", measured.perplexity);
        }
        Ok(cells)
    }
}

/// Int4 with the range of smallest squared error.
#[must_use]
pub fn int4_mse() -> CacheFormat {
    CacheFormat::INT4.with_range(RangeSetting::Mse)
}
