//! The demo from beginning to end.

use std::io::stdout;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use latent_attention::cache::CacheFormat;
use latent_attention::convert::{Basis, ConvertOptions};
use latent_attention::load::{save_mha2mla, save_shared_key};
use latent_attention::rope::RopeTables;
use latent_attention::weights::{DenseAttention, LatentAttention};
use latent_attention_lm::conversion::{ModelOptions, check_convertible, convert_model};
use latent_attention_lm::dense::DenseSteps;
use latent_attention_lm::evaluate::{Original, measure};
use latent_attention_lm::model::{Layers, Model};
use latent_attention_lm::progress::bar;
use latent_attention_lm::recipe::{CALIBRATION_TOKENS, RECIPE_TOKENS, calibrate, convert_all};
use latent_attention_lm::text::{SEQUENCE, Text, WRITING, length_warning, sequences, without_beginnings};
use latent_attention_lm::transformer::AttentionStep;
use latent_attention_recover::lesson::{Texts, recover};
use latent_attention_recover::train::Options;

use crate::args::Arguments;
use crate::engine::{Engines, SAMPLED_TOKENS};
use crate::generate::continue_text;
use crate::latent::LatentSteps;
use crate::llama::Llama;
use crate::phases::Phases;
use crate::plot;
use crate::speed::{Contestant, Ours, Speeds};
use crate::table::{Row, Table};
use crate::variants::{FORMATS, MAIN, Recipe, full_rank, mha2mla_sizes, sizes};

/// Names of the parts of a run that come again.
const EVALUATION: &str = "evaluation";
const CONVERSION: &str = "conversion";

/// Tokens that a conversion sees of which speed alone is wanted.
const SPEED_TOKENS: usize = 255;

/// Loads, converts, evaluates, prints, draws, saves and generates as the arguments say.
///
/// # Errors
/// Whatever is wrong with the arguments or the files they name.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut phases = Phases::default();
    phases.begin("reading the model");
    let mut model = Model::open(&arguments.model)?;
    model.read_codes()?;
    let (given, more) = (arguments.text.as_deref(), arguments.more_text.as_deref());
    let text = Text::prepare(given, more, &model, arguments.tokens)?;
    let prompt_tokens = model.begun(&model.tokenizer.encode(&arguments.prompt)?).len();
    ensure!(arguments.generate == 0 || prompt_tokens > 0, "the prompt is empty");
    // One table and one cache size serve everything that is run.
    let generated = if arguments.generate > 0 { prompt_tokens + arguments.generate } else { 0 };
    let longest = text.evaluation.len().max(generated);
    let positions = longest.max(prompt_tokens).max(CALIBRATION_TOKENS);
    let (engines, line) = Engines::detect(arguments.kernels)?;
    println!("{line}");
    let tables = model.rope_tables(positions);
    // What can be refused is refused before the long work begins.
    let llama = match &arguments.llama {
        Some(folder) => {
            let is_file = arguments.model.is_file();
            ensure!(is_file, "--llama: llama.cpp reads GGUF files, not {}", arguments.model.display());
            Some(Llama::open(folder, &arguments.model, positions, arguments.threads())?)
        }
        None => None,
    };
    let bench = Bench { model: &model, arguments, text: &text, tables, positions, longest, engines };
    match &model.attention {
        Layers::Dense(layers) if arguments.speed => bench.compare_speed_alone(layers, llama, &mut phases)?,
        Layers::Dense(layers) => bench.convert_and_compare(layers, llama, &mut phases)?,
        Layers::Latent(layers) => bench.compare_formats(layers, &mut phases)?,
    }
    phases.end();
    println!("{phases}");
    Ok(())
}

/// What every measurement needs.
struct Bench<'a> {
    model: &'a Model,
    arguments: &'a Arguments,
    text: &'a Text,
    tables: RopeTables,
    /// Tokens that caches have room for.
    positions: usize,
    /// Tokens of the longest text that is read or written.
    longest: usize,
    engines: Engines,
}

impl Bench<'_> {
    /// A model whose attention is dense: the original against its conversions.
    fn convert_and_compare(&self, layers: &[DenseAttention], llama: Option<Llama>, phases: &mut Phases) -> Result<()> {
        // What can be refused is refused before the long work begins.
        check_convertible(layers)?;
        let config = self.model.checkpoint.config();
        let sizes = sizes(config);
        let theirs = mha2mla_sizes(config, &sizes, self.arguments.rope_dim)?;
        if let Some(length) = self.arguments.calibration_length {
            let most = config.max_positions;
            ensure!(length <= most, "--calibration-length {length}: the model was made for {most} positions");
        }
        for directory in [&self.arguments.save, &self.arguments.save_mha2mla].into_iter().flatten() {
            ensure!(!directory.join("config.json").exists(), "{} already holds a model", directory.display());
        }
        phases.begin(EVALUATION);
        let mut attention = self.original(layers)?;
        let original = Original::new(&self.model.transformer, &mut attention, &self.text.evaluation)?;
        let original_bytes = (2 * 2 * config.kv_heads * config.head_dim) as f64;
        let mut table = Table { original_bytes, rows: Vec::new() };
        table.rows.push(Row {
            recipe: Recipe::Original,
            sizes: None,
            cache: "bf16",
            code_bytes: original_bytes,
            all_in_bytes: original_bytes,
            error: None,
            perplexity: original.perplexity,
            divergence: None,
            difference: None,
        });

        phases.begin(CONVERSION);
        let tokens = self.arguments.calibration_tokens;
        let length = self.arguments.calibration_length;
        let length = length.unwrap_or_else(|| self.text.evaluation.len().max(SEQUENCE).min(config.max_positions));
        let text = sequences(self.model, layers, &self.text.calibration, tokens, length, self.arguments.own_text)?;
        let calibrated = text.iter().map(Vec::len).max();
        self.warn_of_length(calibrated);
        let calibrations = {
            let tokens = without_beginnings(&text, self.model.tokenizer.bos());
            calibrate(self.model, layers, &self.tables, &tokens[..RECIPE_TOKENS.min(tokens.len())])?
        };
        let recipe = |rope_dim: usize, latent_rank: usize, name: &str| {
            let options = ConvertOptions::new(rope_dim, latent_rank)
                .with_rope(self.arguments.strategy.into())
                .with_whiten(self.arguments.whiten)
                .with_basis(Basis { centre: self.arguments.centre, ..Basis::default() });
            convert_all(layers, &calibrations, &options, name)
        };
        let whole = recipe(config.head_dim, full_rank(config, config.head_dim), Recipe::Whole.name())?;
        phases.begin(EVALUATION);
        self.add_rows(&mut table, Recipe::Whole, &whole, Some(&original))?;
        let mut main_mha2mla = None;
        for (index, sizes) in theirs.iter().enumerate() {
            phases.begin(CONVERSION);
            let converted = recipe(sizes.rope_dim, sizes.latent_rank, Recipe::Mha2mla.name())?;
            phases.begin(EVALUATION);
            self.add_rows(&mut table, Recipe::Mha2mla, &converted, Some(&original))?;
            if index == MAIN {
                main_mha2mla = Some(converted);
            }
        }
        phases.begin(CONVERSION);
        let progress = bar("Converting to a shared key", layers.len(), "layers");
        let options = ModelOptions::default();
        let plans: Vec<_> = sizes.iter().map(|sizes| sizes.everywhere(layers.len())).collect();
        let all = convert_model(self.model.source(layers), &text, &plans, &options, || progress.inc(1))?;
        progress.finish_and_clear();
        phases.begin(EVALUATION);
        for converted in &all {
            self.add_rows(&mut table, Recipe::SharedKey, converted, Some(&original))?;
        }
        let main_mha2mla = main_mha2mla.context("no size was converted")?;
        let main = all.get(MAIN).context("no size was converted")?;
        let recovered = match self.arguments.recover {
            0 => None,
            steps => {
                phases.begin("recovery");
                let begin = self.model.tokenizer.bos();
                // All of the text that was given, unless the model had to write some.
                let text = if self.text.calibration.len() >= tokens {
                    self.text.calibration.clone()
                } else {
                    without_beginnings(&text, begin)
                };
                let evaluation = &self.text.evaluation[usize::from(begin.is_some())..];
                let window = self.text.evaluation.len();
                let texts = Texts { training: &text, evaluation, window, begin };
                let options = self.recovery(steps);
                Some(recover(self.model, layers, main, &self.tables, texts, &options)?)
            }
        };
        if let Some(recovered) = &recovered {
            phases.begin(EVALUATION);
            self.add_rows(&mut table, Recipe::Recovered, recovered, Some(&original))?;
        }
        self.report(&table)?;
        phases.begin("writing");
        self.save(recovered.as_deref().unwrap_or(main), calibrated, &main_mha2mla)?;
        self.generate("original, bf16 cache", &mut attention)?;
        self.generate_latent(Recipe::Mha2mla, &main_mha2mla)?;
        self.generate_latent(Recipe::SharedKey, main)?;
        let (recipe, best) = match &recovered {
            Some(recovered) => {
                self.generate_latent(Recipe::Recovered, recovered)?;
                (Recipe::Recovered, recovered)
            }
            None => (Recipe::SharedKey, main),
        };
        self.compare_speed(&mut attention, recipe, best, llama, phases)
    }

    /// The original's attention.
    fn original(&self, layers: &[DenseAttention]) -> Result<DenseSteps<'_>> {
        let mut attention = DenseSteps::new(layers, &self.tables)?;
        attention.read_codes(self.model.checkpoint.source())?;
        Ok(attention)
    }

    /// The same comparison of speed as behind everything else, of a conversion that nobody should judge.
    fn compare_speed_alone(&self, layers: &[DenseAttention], llama: Option<Llama>, phases: &mut Phases) -> Result<()> {
        check_convertible(layers)?;
        phases.begin(CONVERSION);
        let sizes = *sizes(self.model.checkpoint.config()).get(MAIN).context("there is no such size")?;
        let tokens = &self.text.calibration[..SPEED_TOKENS.min(self.text.calibration.len())];
        let progress = bar("Converting to a shared key", layers.len(), "layers");
        let plans = [sizes.everywhere(layers.len())];
        let text = [self.model.begun(tokens)];
        let options = ModelOptions::default();
        let converted = convert_model(self.model.source(layers), &text, &plans, &options, || progress.inc(1))?;
        progress.finish_and_clear();
        let converted = converted.first().context("no size was converted")?;
        self.compare_speed(&mut self.original(layers)?, Recipe::SharedKey, converted, llama, phases)
    }

    /// How fast the original and a conversion with an int4 cache read the evaluation's text and continue the prompt, beside
    /// llama.cpp if there is one.
    fn compare_speed(
        &self,
        original: &mut DenseSteps<'_>,
        recipe: Recipe,
        converted: &[LatentAttention],
        mut llama: Option<Llama>,
        phases: &mut Phases,
    ) -> Result<()> {
        if self.arguments.generate == 0 {
            return Ok(());
        }
        phases.begin("speed");
        let transformer = &self.model.transformer;
        let mut latent = self.attention(converted, CacheFormat::INT4)?;
        let mut original = Ours { name: "original, bf16 cache".into(), transformer, attention: original };
        let geometry = converted.first().context("the model has no layers")?.geometry;
        let name = format!("{}, {} + {}, int4 cache", recipe.name(), geometry.rope_width(), geometry.latent_rank);
        let mut latent = Ours { name, transformer, attention: &mut latent };
        let mut contestants: Vec<&mut dyn Contestant> = vec![&mut original, &mut latent];
        if let Some(llama) = &mut llama {
            contestants.push(llama);
        }
        let prompt = self.model.begun(&self.model.tokenizer.encode(&self.arguments.prompt)?);
        let text = &self.text.evaluation;
        println!("{}", Speeds::measure(&mut contestants, text, &prompt, self.arguments.generate)?);
        if contestants.len() == 2 {
            println!("Without --llama DIR there is no row of llama.cpp.\n");
        }
        Ok(())
    }

    /// Options of a short run of recovery, in sequences of a length that its text has.
    fn recovery(&self, steps: u64) -> Options {
        Options {
            steps,
            sequence: WRITING.length.min(self.model.checkpoint.config().max_positions),
            ..Options::default()
        }
    }

    /// A model whose attention is latent already: the two number formats.
    fn compare_formats(&self, layers: &[LatentAttention], phases: &mut Phases) -> Result<()> {
        ensure!(!self.arguments.speed, "--speed compares with an original, and this model is latent already");
        let saves = self.arguments.save.is_some() || self.arguments.save_mha2mla.is_some();
        ensure!(!saves, "the model is latent already, there is no conversion to save");
        let config = self.model.checkpoint.config();
        self.warn_of_length(config.calibrated_positions);
        let geometry = layers.first().context("the model has no layers")?.geometry;
        let original_bytes = match config.deepseek {
            Some(_) => geometry.uncompressed_bytes_per_token(),
            None => 2 * 2 * config.kv_heads * config.head_dim,
        } as f64;
        let mut table = Table { original_bytes, rows: Vec::new() };
        phases.begin(EVALUATION);
        self.add_rows(&mut table, Recipe::Latent, layers, None)?;
        self.report(&table)?;
        phases.begin("writing");
        self.generate_latent(Recipe::Latent, layers)
    }

    /// Says so if what the model reads or writes is longer than what the conversion has looked at.
    fn warn_of_length(&self, calibrated: Option<usize>) {
        if let Some(warning) = length_warning(self.longest, calibrated) {
            eprintln!("{warning}");
        }
    }

    /// Evaluates one conversion with both formats.
    fn add_rows(
        &self,
        table: &mut Table,
        recipe: Recipe,
        layers: &[LatentAttention],
        original: Option<&Original>,
    ) -> Result<()> {
        let geometry = layers.first().context("the model has no layers")?.geometry;
        for (cache, format) in FORMATS {
            let label = format!("{}, {} + {}, {cache}", recipe.name(), geometry.rope_width(), geometry.latent_rank);
            let mut attention = self.attention(layers, format)?;
            let error = original.map(|original| original.error_of(&mut attention)).transpose()?;
            let text = &self.text.evaluation;
            let measured = measure(&label, &self.model.transformer, &mut attention, text, original)?;
            let difference = match original {
                Some(original) => self.difference(layers, format, original)?,
                None => None,
            };
            table.rows.push(Row {
                recipe,
                sizes: Some((geometry.rope_width(), geometry.latent_rank)),
                cache,
                code_bytes: format.code_bytes_per_token(&geometry),
                all_in_bytes: format.bytes_per_token(&geometry)? as f64,
                error,
                perplexity: measured.perplexity,
                divergence: measured.divergence,
                difference,
            });
        }
        Ok(())
    }

    /// The attention of all layers.
    fn attention<'s>(&'s self, layers: &[LatentAttention], format: CacheFormat) -> Result<LatentSteps<'s>> {
        LatentSteps::new(layers, &self.tables, format, self.positions, &self.engines.engine)
    }

    /// By how much the kernels differ from the reference in the first and the last layer, on the first tokens that the
    /// original reads; `None` where the kernels compute everything, or nothing.
    fn difference(&self, layers: &[LatentAttention], format: CacheFormat, original: &Original) -> Result<Option<f64>> {
        let Some(check) = &self.engines.check else { return Ok(None) };
        let mut largest = None;
        for (index, layer) in layers.iter().enumerate() {
            if index != 0 && index + 1 != layers.len() {
                continue;
            }
            let layer = std::slice::from_ref(layer);
            let mut steps = LatentSteps::new(layer, &self.tables, format, self.positions, check)?;
            let inputs = original.inputs(index, SAMPLED_TOKENS)?;
            steps.forward(0, inputs, 0..inputs.len() / layer[0].hidden())?;
            largest = [largest, steps.difference()].into_iter().flatten().reduce(f64::max);
        }
        Ok(largest)
    }

    fn report(&self, table: &Table) -> Result<()> {
        println!("\nCache per token and layer; {} tokens evaluated:\n\n{table}", self.text.evaluation.len());
        if let Some(path) = &self.arguments.plot {
            plot::draw(table, path)?;
            println!("Drawn into {}\n", path.display());
        }
        Ok(())
    }

    fn save(
        &self,
        shared_key: &[LatentAttention],
        calibrated: Option<usize>,
        mha2mla: &[LatentAttention],
    ) -> Result<()> {
        let checkpoint = &self.model.checkpoint;
        let done = |directory: &Path, recipe: Recipe| -> Result<()> {
            self.model.tokenizer.save(directory)?;
            println!("Saved the model ({}) into {}\n", recipe.name(), directory.display());
            Ok(())
        };
        if let Some(directory) = &self.arguments.save {
            save_shared_key(directory, checkpoint, checkpoint, shared_key, calibrated)?;
            let recovered = self.arguments.recover > 0;
            done(directory, if recovered { Recipe::Recovered } else { Recipe::SharedKey })?;
        }
        if let Some(directory) = &self.arguments.save_mha2mla {
            save_mha2mla(directory, checkpoint, checkpoint, mha2mla)?;
            done(directory, Recipe::Mha2mla)?;
        }
        Ok(())
    }

    fn generate_latent(&self, recipe: Recipe, layers: &[LatentAttention]) -> Result<()> {
        let geometry = layers.first().context("the model has no layers")?.geometry;
        let label = format!("{}, {} + {}, int4 cache", recipe.name(), geometry.rope_width(), geometry.latent_rank);
        self.generate(&label, &mut self.attention(layers, CacheFormat::INT4)?)
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
