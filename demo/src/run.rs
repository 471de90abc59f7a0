//! The demo from beginning to end.

use std::io::stdout;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use latent_attention::cache::CacheFormat;
use latent_attention::convert::{Basis, Calibration, ConvertOptions};
use latent_attention::load::save_mha2mla;
use latent_attention::rope::RopeTables;
use latent_attention::weights::{DenseAttention, LatentAttention};

use crate::args::Arguments;
use crate::conversion::{CALIBRATION_TOKENS, calibrate, convert_all};
use crate::engine::Engine;
use crate::evaluate::{Recording, measure};
use crate::generate::continue_text;
use crate::latent::LatentSteps;
use crate::plot;
use crate::table::{Row, Table};
use crate::text::Text;
use latent_attention_lm::dense::DenseSteps;
use latent_attention_lm::model::{Layers, Model};
use latent_attention_lm::transformer::AttentionStep;

const BF16: (&str, CacheFormat) = ("bf16", CacheFormat::BF16);
const INT4: (&str, CacheFormat) = ("int4", CacheFormat::INT4);

/// Loads, converts, evaluates, prints, draws, saves and generates as the arguments say.
///
/// # Errors
/// Whatever is wrong with the arguments or the files they name.
pub fn run(arguments: &Arguments) -> Result<()> {
    let model = Model::open(&arguments.model)?;
    let text = Text::prepare(arguments, &model)?;
    let prompt_tokens = model.begun(&model.tokenizer.encode(&arguments.prompt)?).len();
    ensure!(arguments.generate == 0 || prompt_tokens > 0, "the prompt is empty");
    // One table and one cache size serve everything that is run.
    let positions = text.evaluation.len().max(prompt_tokens + arguments.generate).max(CALIBRATION_TOKENS);
    let (engine, line) = Engine::detect();
    println!("{line}");
    let tables = model.rope_tables(positions);
    let bench = Bench { model: &model, arguments, text: &text, tables, positions, engine };
    match &model.attention {
        Layers::Dense(layers) => bench.convert_and_compare(layers),
        Layers::Latent(layers) => bench.compare_formats(layers),
    }
}

/// A conversion to compare.
struct Variant {
    name: String,
    /// Latent dimensions per KV head, in the series that compresses.
    d_kv: Option<usize>,
    rope_dim: usize,
    latent_rank: usize,
    caches: &'static [(&'static str, CacheFormat)],
}

/// What every measurement needs.
struct Bench<'a> {
    model: &'a Model,
    arguments: &'a Arguments,
    text: &'a Text,
    tables: RopeTables,
    /// Tokens that caches have room for.
    positions: usize,
    engine: Engine,
}

impl Bench<'_> {
    /// A model whose attention is dense: the original against its conversions.
    fn convert_and_compare(&self, layers: &[DenseAttention]) -> Result<()> {
        // What can be refused is refused before the long work begins.
        let variants = self.variants()?;
        if let Some(directory) = &self.arguments.save {
            ensure!(!directory.join("config.json").exists(), "{} already holds a model", directory.display());
        }
        let calibrations = calibrate(self.model, layers, &self.tables, &self.text.calibration)?;
        let mut original = DenseSteps::new(layers, &self.tables)?;
        let recording = Recording::new(&self.model.transformer, &mut original, &self.text.evaluation)?;
        let measured = measure("original", &self.model.transformer, &mut original, &self.text.evaluation)?;
        let config = self.model.checkpoint.config();
        let original_bytes = (2 * 2 * config.kv_heads * config.head_dim) as f64;
        let mut table = Table { original_bytes, rows: Vec::new() };
        table.rows.push(Row {
            attention: "original".into(),
            d_kv: None,
            cache: BF16.0,
            code_bytes: original_bytes,
            all_in_bytes: original_bytes,
            error: None,
            perplexity: measured.perplexity,
            tokens_per_second: measured.tokens_per_second,
            difference: None,
        });
        let mut kept = Vec::new();
        for variant in variants {
            let converted = self.convert(layers, &calibrations, &variant)?;
            for &cache in variant.caches {
                table.rows.push(self.row(&variant, &converted, cache, Some(&recording))?);
            }
            // The exact conversion and the largest compressed rank are the ones to go on with.
            let compressed = kept.iter().any(|(variant, _): &(Variant, _)| variant.d_kv.is_some());
            if variant.caches.contains(&INT4) && !compressed {
                kept.push((variant, converted));
            }
        }
        self.report(&table)?;
        if let Some(directory) = &self.arguments.save {
            let largest = kept.iter().find(|(variant, _)| variant.d_kv.is_some());
            let (variant, converted) = largest.context("the heads are too small to be compressed")?;
            self.save(directory, &variant.name, converted)?;
        }
        self.generate("original, bf16 cache", &mut original)?;
        kept.iter().try_for_each(|(variant, converted)| self.generate_latent(&variant.name, converted))
    }

    /// A model whose attention is latent already: the two number formats.
    fn compare_formats(&self, layers: &[LatentAttention]) -> Result<()> {
        ensure!(self.arguments.save.is_none(), "the model is latent already, there is no conversion to save");
        let geometry = layers.first().context("the model has no layers")?.geometry;
        let variant = Variant {
            name: format!("latent, rank {}", geometry.latent_rank),
            d_kv: None,
            rope_dim: geometry.rope_dim,
            latent_rank: geometry.latent_rank,
            caches: &[BF16, INT4],
        };
        let original_bytes = geometry.uncompressed_bytes_per_token() as f64;
        let mut table = Table { original_bytes, rows: Vec::new() };
        for &cache in variant.caches {
            table.rows.push(self.row(&variant, layers, cache, None)?);
        }
        self.report(&table)?;
        self.generate_latent(&variant.name, layers)
    }

    /// The paper's sizes, in heads: a half, a quarter and an eighth of a head for each KV head's latent.
    fn variants(&self) -> Result<Vec<Variant>> {
        let config = self.model.checkpoint.config();
        let head = config.head_dim;
        let rope_dim = self.arguments.rope_dim.unwrap_or(head / 8 / 2 * 2);
        ensure!(
            rope_dim <= head && rope_dim.is_multiple_of(2),
            "--rope-dim must be even and at most {head}, not {rope_dim}"
        );
        let full_rank = |rope_dim: usize| config.hidden.min(config.kv_heads * (2 * head - rope_dim));
        let full = |name: String, rope_dim: usize, caches| Variant {
            name,
            d_kv: None,
            rope_dim,
            latent_rank: full_rank(rope_dim),
            caches,
        };
        let mut variants = vec![full("full rank, full RoPE".into(), head, &[BF16, INT4])];
        if rope_dim < head {
            variants.push(full(format!("full rank, {rope_dim} of {head} rotated"), rope_dim, &[BF16]));
        }
        for d_kv in [head / 2, head / 4, head / 8].into_iter().filter(|&d_kv| d_kv > 0) {
            let (name, latent_rank) = (format!("d_kv {d_kv}"), config.kv_heads * d_kv);
            if latent_rank <= full_rank(rope_dim) {
                variants.push(Variant { name, d_kv: Some(d_kv), rope_dim, latent_rank, caches: &[BF16, INT4] });
            }
        }
        Ok(variants)
    }

    fn convert(
        &self,
        layers: &[DenseAttention],
        calibrations: &[Calibration],
        variant: &Variant,
    ) -> Result<Vec<LatentAttention>> {
        let options = ConvertOptions::new(variant.rope_dim, variant.latent_rank)
            .with_rope(self.arguments.strategy.into())
            .with_whiten(self.arguments.whiten)
            .with_basis(Basis { centre: self.arguments.centre, ..Basis::default() });
        convert_all(layers, calibrations, &options, &variant.name)
    }

    fn row(
        &self,
        variant: &Variant,
        layers: &[LatentAttention],
        (cache, format): (&'static str, CacheFormat),
        recording: Option<&Recording>,
    ) -> Result<Row> {
        let geometry = layers.first().context("the model has no layers")?.geometry;
        let mut attention = self.steps(layers, format)?;
        let error = recording.map(|recording| recording.error_of(&mut attention)).transpose()?;
        let label = format!("{}, {cache}", variant.name);
        let measured = measure(&label, &self.model.transformer, &mut attention, &self.text.evaluation)?;
        ensure!(attention.saturated() == 0, "{label}: {} cached values were out of range", attention.saturated());
        Ok(Row {
            attention: variant.name.clone(),
            d_kv: variant.d_kv,
            cache,
            code_bytes: format.code_bytes_per_token(&geometry),
            all_in_bytes: format.bytes_per_token(&geometry)? as f64,
            error,
            perplexity: measured.perplexity,
            tokens_per_second: measured.tokens_per_second,
            difference: attention.difference(),
        })
    }

    fn steps(&self, layers: &[LatentAttention], format: CacheFormat) -> Result<LatentSteps<'_>> {
        LatentSteps::new(layers, &self.tables, format, self.positions, &self.engine)
    }

    fn report(&self, table: &Table) -> Result<()> {
        println!("\nCache per token and layer; {} tokens evaluated:\n\n{table}", self.text.evaluation.len());
        if let Some(path) = &self.arguments.plot {
            plot::draw(table, path)?;
            println!("Drawn into {}\n", path.display());
        }
        Ok(())
    }

    fn save(&self, directory: &Path, name: &str, layers: &[LatentAttention]) -> Result<()> {
        save_mha2mla(directory, &self.model.checkpoint, layers)?;
        self.model.tokenizer.save(directory)?;
        println!("Saved {name} into {}\n", directory.display());
        Ok(())
    }

    fn generate_latent(&self, name: &str, layers: &[LatentAttention]) -> Result<()> {
        self.generate(&format!("{name}, int4 cache"), &mut self.steps(layers, CacheFormat::INT4)?)
    }

    fn generate(&self, label: &str, attention: &mut dyn AttentionStep) -> Result<()> {
        if self.arguments.generate == 0 {
            return Ok(());
        }
        println!("{label}:");
        continue_text(self.model, attention, &self.arguments.prompt, self.arguments.generate, &mut stdout())?;
        println!();
        Ok(())
    }
}
