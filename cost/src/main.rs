//! `cargo xtask cost`: what attention costs, counted in machine code, and the time that follows.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use latent_attention::image::Arch;
use latent_attention_cost::calibrate::{Calibration, calibrate};
use latent_attention_cost::layer::{Layer, Merge};
use latent_attention_cost::machine::{H200, Machine};
use latent_attention_cost::report::{self, Context, Prediction};
use latent_attention_cost::step::Step;
use latent_attention_cost::survey::Surveyor;
use latent_attention_cost::tools::Tools;
use latent_attention_cost::{models, rows};

/// The workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Counts what decode's kernels cost in their machine code, and predicts their times. docs/cost.md explains the numbers
#[derive(Parser)]
#[command(name = "cargo xtask cost")]
struct Arguments {
    /// Kernels whose name contains one of these
    #[arg(long, num_args = 1..)]
    kernel: Vec<String>,
    /// Models whose name contains one of these
    #[arg(long, num_args = 1..)]
    model: Vec<String>,
    /// Cache formats: bf16, int4-g64, int4
    #[arg(long, num_args = 1..)]
    format: Vec<String>,
    /// Sequences
    #[arg(long, num_args = 1.., default_values_t = [1, 16, 128])]
    batch: Vec<usize>,
    /// Cached tokens of each sequence
    #[arg(long, num_args = 1.., default_values_t = [1024, 16384])]
    context: Vec<usize>,
    /// The machine code's architecture; times are predicted for sm_90a only
    #[arg(long, default_value = "sm_90a")]
    arch: String,
    /// Write the rows as JSON into a file, or to the standard output instead of the tables
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
    /// Measured rows to print beside predictions and to calibrate with
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../benches/results/h200/benchmarks.json"))]
    rows: PathBuf,
    /// Predict every way to serve each layer, not only the chosen one, and leave out what cannot be counted
    #[arg(long, requires = "json")]
    variants: bool,
    /// Predict a layer's whole step too: with what comes before attention and behind it
    #[arg(long, conflicts_with = "variants")]
    step: bool,
    /// List the addresses and lines of PTX of machine code that runs an unknown number of times
    #[arg(long)]
    unmatched: bool,
    /// Fit the law's constants to the measured rows, by the committed counts, and write cost/calibration/h200.json
    #[arg(long, conflicts_with_all = ["kernel", "model", "format", "batch", "context", "arch", "json", "unmatched", "variants", "step"])]
    calibrate: bool,
    /// With --calibrate: the rows were measured with this build's kernels. Count these, and keep what their counts are
    /// held against
    #[arg(long, requires = "calibrate")]
    recount: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.batch.iter().chain(&arguments.context).all(|&number| number > 0),
        "batches and contexts have at least one sequence and one token"
    );
    if let Some(format) = arguments.format.iter().find(|format| !models::FORMATS.contains(&format.as_str())) {
        anyhow::bail!("there is no format {format}; there are {:?}", models::FORMATS);
    }
    let (arch, machine) = machine(&arguments.arch)?;
    let surveyor =
        || Ok::<_, anyhow::Error>(Surveyor::new(Tools::find(&Path::new(ROOT).join("target"))?, arch, &machine));
    if arguments.calibrate {
        let recounting = arguments.recount.then(surveyor).transpose()?;
        return write_calibration(recounting, &machine, &arguments.rows);
    }
    predict(&arguments, surveyor()?, arch, &machine)
}

/// An architecture, and a machine of it. Of others than the H200 neither clock nor rates are known: what depends on them is
/// not printed.
fn machine(name: &str) -> Result<(Arch, Machine)> {
    let real = || Arch::ALL.into_iter().filter(|arch| !arch.is_virtual());
    let arch = real().find(|arch| arch.name() == name).with_context(|| {
        format!("there is no machine code for {name}; there is for {:?}", real().map(Arch::name).collect::<Vec<_>>())
    })?;
    // Multiprocessors and KiB of shared memory of an A100, an RTX 3090, an L40, an H200, a B200, an RTX 5090.
    let (multiprocessors, kib) = match arch {
        Arch::Sm80 => (108, 163),
        Arch::Sm86 => (82, 99),
        Arch::Sm89 => (142, 99),
        Arch::Sm100 => (148, 227),
        Arch::Sm120 => (170, 99),
        _ => return Ok((arch, H200)),
    };
    Ok((arch, Machine { multiprocessors, shared_bytes: kib * 1024, ..H200 }))
}

/// Whether a name contains one of the parts, or none is asked for.
fn passes(parts: &[String], name: &str) -> bool {
    parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()))
}

fn predict(arguments: &Arguments, mut surveyor: Surveyor, arch: Arch, machine: &Machine) -> Result<()> {
    let is_measured = arch == Arch::Sm90a;
    let known = is_measured.then(|| rows::read(&arguments.rows)?.of_h200()).transpose()?;
    let (measured, measured_steps) = known.map_or_else(Default::default, |known| (known.rows, known.steps));
    let calibrated = is_measured.then(Calibration::committed).transpose()?;
    ensure!(is_measured || !arguments.step, "times of steps are predicted for sm_90a only");
    let mut file = arguments.json.as_deref().filter(|path| path.as_os_str() != "-").map(writable).transpose()?;
    let context = || Context {
        arch: arch.name(),
        machine,
        calibrated: calibrated.as_ref(),
        measured: &measured,
        measured_steps: &measured_steps,
    };
    if arguments.variants {
        let context = context();
        return put(file.as_mut(), &variants(arguments, &mut surveyor, &context)?);
    }
    let mut left_out = 0;
    for model in models::MODELS.into_iter().filter(|model| passes(&arguments.model, model)) {
        let wanted = |format: &&str| arguments.format.is_empty() || arguments.format.iter().any(|f| f == format);
        for format in models::FORMATS.into_iter().filter(wanted) {
            // Assembling and simulating take long: kernels that nobody asks for do without.
            if !passes(&arguments.kernel, surveyor.chosen(model, format)?) {
                continue;
            }
            if let Err(why) = surveyor.layer(model, format) {
                eprintln!("left out: {why:#}");
                left_out += 1;
            }
        }
    }
    let context = context();
    let steps = if arguments.step { steps(arguments, &mut surveyor)? } else { Vec::new() };
    let found = surveyor.into_survey();
    let layers = found.layers.iter().filter_map(|layer| found.find(&layer.model, &layer.format));
    let layers: Vec<_> = layers.collect();
    ensure!(!layers.is_empty() || left_out > 0, "no layer has such a model, format and kernel");
    let mut predictions = Vec::new();
    for (layer, merge) in &layers {
        for &batch in &arguments.batch {
            let is_it = |(of, step): &&(String, Step)| *of == name(&layer.model, &layer.format) && step.tokens == batch;
            let step = steps.iter().find(is_it).map(|(_, step)| step);
            let row = |&tokens: &usize| context.predict_step(layer, merge, step, batch, tokens);
            predictions.extend(arguments.context.iter().map(row));
        }
    }
    if arguments.json.is_some() {
        put(file.as_mut(), &predictions)?;
    }
    if arguments.json.is_none() || file.is_some() {
        print_tables(arguments, &context, &layers, &predictions);
    }
    ensure!(left_out == 0, "{left_out} layers could not be counted");
    Ok(())
}

/// A layer in words.
fn name(model: &str, format: &str) -> String {
    format!("{model} with {format}")
}

/// The launches beside attention of the layers that were counted, for each batch whose tokens are few.
fn steps(arguments: &Arguments, surveyor: &mut Surveyor) -> Result<Vec<(String, Step)>> {
    let mut found = Vec::new();
    for (model, format) in surveyor.counted() {
        for &batch in &arguments.batch {
            match surveyor.step(&model, &format, batch) {
                Ok(step) => found.push((name(&model, &format), step)),
                Err(why) => eprintln!("no step of {}: {why:#}", name(&model, &format)),
            }
        }
    }
    Ok(found)
}

/// Predictions of every way to serve the layers that are asked for.
fn variants(arguments: &Arguments, surveyor: &mut Surveyor, context: &Context) -> Result<Vec<Prediction>> {
    let mut predictions = Vec::new();
    for model in models::MODELS.into_iter().filter(|model| passes(&arguments.model, model)) {
        for format in models::FORMATS.into_iter().filter(|format| passes(&arguments.format, format)) {
            for variant in surveyor.variants(model, format)? {
                if !passes(&arguments.kernel, variant.kernel) {
                    continue;
                }
                match surveyor.variant(model, format, variant) {
                    Ok((layer, merge)) => {
                        let batches = arguments
                            .batch
                            .iter()
                            .flat_map(|&batch| arguments.context.iter().map(move |&tokens| (batch, tokens)));
                        predictions
                            .extend(batches.map(|(batch, tokens)| context.predict(&layer, merge, batch, tokens)));
                    }
                    Err(why) => eprintln!("left out: {why:#}"),
                }
            }
        }
    }
    ensure!(!predictions.is_empty(), "nothing could be predicted");
    Ok(predictions)
}

/// Writes rows into a file, or prints them.
fn put(file: Option<&mut File>, predictions: &[Prediction]) -> Result<()> {
    let json = serde_json::to_string_pretty(predictions)?;
    match file {
        Some(file) => file.set_len(0).and_then(|()| writeln!(file, "{json}")).context("cannot write the rows"),
        None => {
            println!("{json}");
            Ok(())
        }
    }
}

/// A file that can be written to, as it was before until it is written to: so that it is known before the long work.
fn writable(path: &Path) -> Result<File> {
    let options = File::options().create(true).write(true).truncate(false).open(path);
    options.with_context(|| format!("cannot write {}", path.display()))
}

fn print_tables(arguments: &Arguments, context: &Context, layers: &[(&Layer, &Merge)], predictions: &[Prediction]) {
    println!("Cycles of a block for 64 cached tokens, {}:\n", context.arch);
    println!("{}", report::layers(context, layers.iter().copied()));
    if arguments.unmatched {
        println!("{}", report::gaps(layers.iter().copied()));
    }
    println!("{}", report::times(predictions));
    if arguments.step {
        println!("{}", report::steps(context, predictions));
    }
    if context.calibrated.is_some() {
        println!("Behind the double line: of the kernels that were measured.");
    }
    if let Some(calibration) = context.calibrated {
        println!("{}", report::errors("each kernel held out in turn", &calibration.held_out));
        println!("{}", report::errors("each format held out in turn", &calibration.formats_held_out));
    }
    if let Some(path) = &arguments.json {
        println!("wrote {}", path.display());
    }
}

/// Makes the calibration anew: from the committed counts, or from those of this build's kernels.
fn write_calibration(recounting: Option<Surveyor>, machine: &Machine, path: &Path) -> Result<()> {
    let measured = rows::read(path)?.of_h200()?;
    let folder = Path::new(ROOT).join("cost/calibration");
    let survey = match recounting {
        None => Calibration::committed()?.survey,
        Some(mut surveyor) => {
            for row in &measured.rows {
                surveyor.layer(&row.model, &row.format)?;
            }
            for kept in surveyor.keep()? {
                kept.write(&folder)?;
            }
            surveyor.into_survey()
        }
    };
    let made = calibrate(machine, survey, &measured.device, &measured.commit, &measured.rows)?;
    print_calibration(&made);
    let file = folder.join("h200.json");
    fs::write(&file, serde_json::to_string_pretty(&made)? + "\n")
        .with_context(|| format!("cannot write {}", file.display()))?;
    println!("wrote {}", file.display());
    Ok(())
}

fn print_calibration(made: &Calibration) {
    println!("{:#?}", made.constants);
    println!("{}", report::errors("fitted", &made.fitted));
    println!("{}", report::errors("each kernel held out in turn", &made.held_out));
    println!("{}", report::errors("each format held out in turn", &made.formats_held_out));
    for (name, errors) in made.held_out_kernels.iter().chain(&made.held_out_formats) {
        println!("{}", report::errors(&format!("  {name} held out"), errors));
    }
}
