//! The tables.

use anyhow::{Result, ensure};
use latent_attention::cache::CacheFormat;
use latent_attention::convert::shared_key::Step;
use latent_attention::convert::{ConvertOptions, RopeChoice};
use latent_attention_lm::conversion::{ModelOptions, Sizes};
use latent_attention_lm::dense::DenseSteps;
use latent_attention_lm::recipe::{RECIPE_TOKENS, calibrate, convert_all};
use latent_attention_lm::text::{OWN_SHARE, begun_pieces, sequences};
use latent_attention_recover::lesson::{Texts, recover};
use latent_attention_recover::train::Options;

use crate::args::{Arguments, Table};
use crate::bench::{Bench, FORMATS, int4_mse};
use crate::{context, others};

/// What int4 rows show, where bf16 would say the same again.
const INT4: &[(&str, CacheFormat)] = &[("int4", CacheFormat::INT4)];

/// Measures and prints the table that the arguments name.
///
/// # Errors
/// Whatever is wrong with the arguments or the files they name.
pub fn print(arguments: &Arguments) -> Result<()> {
    let bench = Bench::new(arguments)?;
    match arguments.table {
        Table::Sizes => sizes(&bench),
        Table::Others => others(&bench),
        Table::Ablations => ablations(&bench),
        Table::Layers => layers(&bench),
        Table::Texts => texts(&bench),
        Table::Recovery => recovery(&bench, &arguments.steps),
        Table::Context => context::print(&bench),
    }
}

/// Both methods; ours at several sizes.
fn sizes(bench: &Bench) -> Result<()> {
    bench.print_head();
    let (config, main) = (bench.model.checkpoint.config(), bench.sizes);
    let cached = main.rope_dim + main.latent_rank;
    // MHA2MLA rotates an eighth of every head, and caches as many numbers.
    let rope_dim = config.head_dim / 8 / 2 * 2;
    ensure!(
        cached > config.kv_heads * rope_dim,
        "{cached} cached numbers leave no room for a latent of MHA2MLA's recipe"
    );
    let options = ConvertOptions::new(rope_dim, cached.saturating_sub(config.kv_heads * rope_dim))
        .with_rope(RopeChoice::TwoNorm)
        .with_whiten(true);
    let tokens = &bench.text[..RECIPE_TOKENS.min(bench.text.len())];
    let calibrations = calibrate(&bench.model, &bench.layers, &bench.tables, tokens)?;
    let recipe = convert_all(&bench.layers, &calibrations, &options, "MHA2MLA's recipe")?;
    bench.print_rows("MHA2MLA's recipe", &recipe, FORMATS)?;

    let (r, l) = (main.rope_dim, main.latent_rank);
    let even = |rope_dim: usize| rope_dim / 2 * 2;
    let sizes = [
        main,
        Sizes { rope_dim: even(r * 2 / 3), latent_rank: cached - even(r * 2 / 3) },
        Sizes { rope_dim: 2 * r, latent_rank: l },
        Sizes { rope_dim: 2 * r, latent_rank: (5 * l / 2).min(config.hidden) },
        Sizes { rope_dim: even(r * 2 / 3), latent_rank: (7 * l / 12).max(1) },
    ];
    let options = ModelOptions::default();
    let formats = [FORMATS, &[("int4, smallest error", int4_mse())]].concat();
    for layers in bench.convert(&bench.calibration(bench.length)?, &sizes, &options)? {
        bench.print_rows("shared key", &layers, &formats)?;
    }
    Ok(())
}

/// The original, its keys and values rounded as other programs do.
fn others(bench: &Bench) -> Result<()> {
    let head_dim = bench.model.checkpoint.config().head_dim;
    ensure!(head_dim.is_multiple_of(64), "the formats have groups of up to 64, and heads have {head_dim} dimensions");
    bench.print_head();
    for format in others::FORMATS {
        let mut attention = DenseSteps::with_rounding(&bench.layers, &bench.tables, format.rounding)?;
        bench.print_original(format.name, format.bits, &mut attention)?;
    }
    Ok(())
}

/// The method without one step at a time.
fn ablations(bench: &Bench) -> Result<()> {
    bench.print_head();
    let without = |step: Step| {
        let mut options = ModelOptions::default();
        options.sampling.without = Some(step);
        options
    };
    let variants = [
        ("all steps", ModelOptions::default()),
        ("attention instead of costs (1)", without(Step::Costs)),
        ("heads not mixed (2)", without(Step::Mixing)),
        ("largest components rotated (3)", without(Step::Ranking)),
        ("every direction alike (4)", without(Step::Sensitivity)),
        ("decoders not fitted (5)", without(Step::Decoders)),
        ("no refit (6)", ModelOptions { refit: None, ..ModelOptions::default() }),
        ("no balance (7)", without(Step::Balance)),
    ];
    let sequences = bench.calibration(bench.length)?;
    for (name, options) in variants {
        let converted = bench.convert(&sequences, &[bench.sizes], &options)?;
        bench.print_rows(name, &converted[0], FORMATS)?;
    }
    Ok(())
}

/// As many numbers in all (but for the rest where layers do not divide), a sixth of the latent moved from some layers to others, or
/// given to those where it is worth most.
fn layers(bench: &Bench) -> Result<()> {
    bench.print_head();
    let (count, Sizes { rope_dim, latent_rank }) = (bench.layers.len(), bench.sizes);
    let moved = latent_rank / 6;
    let plan = |share: &dyn Fn(usize) -> isize| -> Vec<Sizes> {
        let rank = |layer| latent_rank.saturating_add_signed(share(layer) * moved as isize);
        (0..count).map(|layer| Sizes { rope_dim, latent_rank: rank(layer) }).collect()
    };
    let third = |layer: usize| (3 * layer / count) as isize;
    let plans = [
        ("even", plan(&|_| 0)),
        ("more in the first third, less in the last", plan(&|layer| 1 - third(layer))),
        ("more in the last third, less in the first", plan(&|layer| third(layer) - 1)),
        ("more in every other layer", plan(&|layer| if layer % 2 == 0 { 1 } else { -1 })),
    ];
    let (options, sequences) = (ModelOptions::default(), bench.calibration(bench.length)?);
    let by_worth = bench.by_worth(&sequences, &options)?;
    let ranks: Vec<usize> = by_worth.iter().map(|sizes| sizes.latent_rank).collect();
    eprintln!("Ranks by worth: {ranks:?}");
    let (names, plans): (Vec<_>, Vec<_>) = plans.into_iter().chain([("by worth", by_worth)]).unzip();
    let converted = bench.convert_plans(&sequences, &plans, &options)?;
    for (name, layers) in names.into_iter().zip(converted) {
        bench.print_rows(name, &layers, FORMATS)?;
    }
    Ok(())
}

/// What the conversion is calibrated on, with as many tokens.
fn texts(bench: &Bench) -> Result<()> {
    bench.print_head();
    let (tokens, model, layers) = (bench.calibration_tokens, &bench.model, &bench.layers);
    let with_own = |share: f64| sequences(model, layers, &bench.text, tokens, bench.length, share);
    let quarter = begun_pieces(model, &bench.text[..(tokens / 4).min(bench.text.len())], bench.length)?;
    let mut variants: Vec<(String, Vec<Vec<u32>>)> =
        vec![("given text".into(), with_own(0.0)?), ("a quarter of it".into(), quarter)];
    if model.tokenizer.bos().is_some() {
        for share in [OWN_SHARE / 2.0, OWN_SHARE, 1.0] {
            let default = if share == OWN_SHARE { " (the default)" } else { "" };
            variants.push((format!("{:.0} % own text{default}", 100.0 * share), with_own(share)?));
        }
    }
    // The parts of the judged texts that do not judge, as much of each as of the given text.
    let share = tokens / bench.judged.len();
    let kin: Vec<&[u32]> = bench.judged.iter().map(|text| &text.rest[..share.min(text.rest.len())]).collect();
    if kin.iter().filter(|rest| rest.len() == share).count() > 0 {
        let texts = kin.into_iter().chain([&bench.text[..share.min(bench.text.len())]]);
        let pieces = texts.map(|tokens| begun_pieces(model, tokens, bench.length)).collect::<Result<Vec<_>>>()?;
        variants.push(("given text and more of each judged text".into(), pieces.concat()));
    }
    let options = ModelOptions::default();
    for (name, sequences) in variants {
        let counted: usize = sequences.iter().map(Vec::len).sum();
        let layers = bench.convert(&sequences, &[bench.sizes], &options)?;
        bench.print_rows(&format!("{name}, {counted} tokens"), &layers[0], INT4)?;
    }
    Ok(())
}

/// Recovery, longer and longer.
fn recovery(bench: &Bench, steps: &[u64]) -> Result<()> {
    ensure!(!steps.contains(&0), "a run of no steps is the closed form, which the table has anyway");
    bench.print_head();
    let layers = bench.convert_main()?;
    bench.print_rows("closed form", &layers, FORMATS)?;
    let begin = bench.model.tokenizer.bos();
    let essay = &bench.judged[0].tokens;
    let texts =
        Texts { training: &bench.text, evaluation: &essay[usize::from(begin.is_some())..], window: essay.len(), begin };
    for &steps in steps {
        let sequence = Options::default().sequence.min(bench.tables.positions());
        let options = Options { steps, sequence, ..Options::default() };
        let recovered = recover(&bench.model, &bench.layers, &layers, &bench.tables, texts, &options)?;
        let tokens = steps * (options.batch * options.sequence) as u64;
        bench.print_rows(&format!("{steps} steps, {tokens} tokens"), &recovered, FORMATS)?;
    }
    Ok(())
}
