//! The program from beginning to end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use latent_attention::load::{Checkpoint, save_mha2mla, save_shared_key};
use latent_attention::weights::LatentAttention;
use latent_attention_lm::conversion::Sizes;
use latent_attention_lm::model::{Layers, Model};
use latent_attention_lm::text::{SEQUENCE, built_in, sequences, without_beginnings};
use latent_attention_lm::tokenizer::Tokenizer;

use crate::args::Arguments;
use crate::balance::balance;
use crate::conversion::{convert_layers, read_layers};
use crate::data::{Windows, refuse_overlap};
use crate::frame::Frame;
use crate::held_out::HeldOut;
use crate::log::Record;
use crate::original::Original;
use crate::student::Student;
use crate::train::{Ended, Parts, Run};

/// Converts, trains, evaluates and writes as the arguments say. `stop` is looked at after each step; the result says
/// whether it ended the run.
///
/// # Errors
/// Whatever is wrong with the arguments, the files they name, or the training.
pub fn run(arguments: &Arguments, stop: &AtomicBool) -> Result<Ended> {
    let options = arguments.options()?;
    if let Some(directory) = &arguments.save {
        ensure!(!directory.join("config.json").exists(), "{} already holds a model", directory.display());
    }
    let model = Model::open(&arguments.model)?;
    let Layers::Dense(dense) = &model.attention else {
        bail!("{} has latent attention already; --model names the original, to learn from", arguments.model.display())
    };
    let (config, tokenizer) = (model.checkpoint.config(), &model.tokenizer);
    let mut evaluation = match &arguments.evaluation {
        Some(path) => read_text(path, tokenizer, "evaluation")?,
        None => tokenizer.encode(built_in().1)?,
    };
    evaluation.truncate(arguments.evaluation_tokens.saturating_sub(usize::from(tokenizer.bos().is_some())));
    let window = arguments.evaluation_tokens.min(config.max_positions);
    ensure!(options.sequence <= config.max_positions, "the model was made for {} positions", config.max_positions);
    let positions = options.sequence.max(window).max(SEQUENCE);
    let tables = Arc::new(model.rope_tables(positions));
    let given = match &arguments.text {
        Some(path) => read_text(path, tokenizer, "training")?,
        None => Vec::new(),
    };
    let sequences = match given.is_empty() {
        true => {
            ensure!(tokenizer.bos().is_some(), "the model cannot begin a text of its own; give one with --text");
            sequences(&model, dense, &tables, &[], arguments.calibration_tokens)?
        }
        false => sequences(&model, dense, &tables, &given, arguments.calibration_tokens.min(given.len()))?,
    };
    let training = if given.is_empty() { without_beginnings(&sequences, tokenizer.bos()) } else { given };
    refuse_overlap(&training, &evaluation)?;
    let windows = Windows::new(&training, tokenizer.bos(), options.sequence, options.seed)?;
    let layers: Vec<LatentAttention> = match &arguments.layers {
        Some(directory) => read_layers(directory, config.layers)?,
        None => {
            let numbers = 2 * config.kv_heads * config.head_dim;
            let sizes = Sizes {
                rope_dim: arguments.rope_dim.unwrap_or(numbers / 16 / 2 * 2),
                latent_rank: arguments.latent_rank.unwrap_or(numbers / 4),
            };
            convert_layers(&model, dense, &tables, &sequences, sizes)?
        }
    };
    drop(sequences);
    // The frame that trains has numbers of its own; those of the conversion are not needed any more.
    let Model { checkpoint, tokenizer, attention, transformer } = model;
    drop(transformer);
    let Layers::Dense(dense) = attention else { bail!("the original's attention is dense") };
    let original = Original::new(Frame::read(&checkpoint)?, &dense, &tables)?;
    drop(dense);
    let layers: Vec<LatentAttention> = layers.into_iter().map(balance).collect();
    let student = Student::new(original.frame(), &layers, &tables, options.mode, options.seed)?;
    drop(layers);
    let trained: usize = student.variables().iter().map(|(_, variable)| variable.elem_count()).sum();
    println!(
        "Training {trained} numbers on {} of {} sequences of {} tokens",
        options.steps * options.batch as u64,
        windows.count(),
        options.sequence
    );
    let held_out = HeldOut::new(&original, &evaluation, tokenizer.bos(), window)?;
    let parts = Parts { original: &original, student: &student, windows, held_out };
    let mut run = Run::new(parts, options, arguments.output(), &[&training, &evaluation], arguments.resume)?;
    if arguments.resume {
        println!("Going on after step {}", run.step());
    }
    let ended = run.run(stop, &mut |record| println!("{}", line(record, options.steps)))?;
    match ended {
        Ended::Stopped(step) => {
            println!(
                "Stopped after step {step} of {}. The same command with --resume goes on from there.",
                options.steps
            );
        }
        Ended::Finished => {
            if let Some(directory) = &arguments.save {
                save(directory, &checkpoint, &student)?;
                tokenizer.save(directory)?;
                println!("Saved the trained model into {}", directory.display());
            }
        }
    }
    Ok(ended)
}

/// Writes the student in the layout that its attention fits.
fn save(directory: &Path, checkpoint: &Checkpoint, student: &Student) -> Result<()> {
    let layers = student.to_layers()?;
    match layers.iter().all(|layer| layer.geometry.rope_heads == 1) {
        true => save_shared_key(directory, checkpoint, student.frame(), &layers)?,
        false => save_mha2mla(directory, checkpoint, student.frame(), &layers)?,
    }
    Ok(())
}

/// The tokens of a file.
fn read_text(path: &Path, tokenizer: &Tokenizer, what: &str) -> Result<Vec<u32>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the {what} text {}", path.display()))?;
    tokenizer.encode(&text).with_context(|| format!("the {what} text {}", path.display()))
}

/// A record as a line to read.
fn line(record: &Record, steps: u64) -> String {
    match record {
        Record::Step { step, divergence, hidden, gradient_norm, rate, tokens, seconds } => format!(
            "step {step}/{steps}: divergence {divergence:.3}, hidden-state error {hidden:.3}, gradient {gradient_norm:.2}, \
             rate {rate:.1e}, {tokens} tokens, {seconds:.1} s"
        ),
        Record::Evaluation { step, measured } => format!(
            "after step {step}: held-out perplexity {:.2} (original {:.2}), divergence {:.4} nats, over {} tokens",
            measured.perplexity, measured.original_perplexity, measured.divergence, measured.tokens
        ),
    }
}

/// A flag that Ctrl-C sets; a second Ctrl-C ends the program at once.
///
/// # Errors
/// If the handler cannot be installed.
pub fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("Finishing this step; Ctrl-C again ends at once, back to the last checkpoint.");
    })
    .context("cannot catch Ctrl-C")?;
    Ok(stop)
}
