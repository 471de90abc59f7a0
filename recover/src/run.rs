//! The program from beginning to end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use latent_attention::load::{Checkpoint, save_mha2mla, save_shared_key};

use crate::args::Arguments;
use crate::frame::Frame;
use crate::lesson::{Lesson, Texts};
use crate::log::Record;
use crate::original::Original;
use crate::start::Start;
use crate::student::Student;
use crate::train::Ended;

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
    let device = arguments.device.open()?;
    arguments.output().check(arguments.resume)?;
    let start = Start::read(arguments)?;
    let window = arguments.evaluation_tokens.min(start.checkpoint.config().max_positions);
    let tables = Arc::new(start.rope_tables(options.sequence.max(window)));
    let Start { checkpoint, tokenizer, dense, layers, calibrated_positions, texts } = start;
    let original = Original::new(Frame::read(&checkpoint)?.to_device(&device)?, &dense, &tables)?;
    drop(dense);
    let texts = Texts { training: &texts.0, evaluation: &texts.1, window, begin: tokenizer.bos() };
    let lesson = Lesson::new(original, layers, &tables, texts, &options)?;
    let student = lesson.student();
    let trained: usize = student.variables().iter().map(|(_, variable)| variable.elem_count()).sum();
    println!(
        "Training {trained} numbers on {} of {} sequences of {} tokens",
        options.steps * options.batch as u64,
        lesson.windows(),
        options.sequence
    );
    let mut run = lesson.run(options, arguments.output(), arguments.resume)?;
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
                save(directory, &checkpoint, student, calibrated_positions)?;
                tokenizer.save(directory)?;
                println!("Saved the trained model into {}", directory.display());
            }
        }
    }
    Ok(ended)
}

/// Writes the student in the layout that its attention fits.
fn save(directory: &Path, checkpoint: &Checkpoint, student: &Student, calibrated: Option<usize>) -> Result<()> {
    let layers = student.to_layers()?;
    if layers.iter().all(|layer| layer.geometry.rope_heads == 1) {
        save_shared_key(directory, checkpoint, student.frame(), &layers, calibrated)?
    } else {
        save_mha2mla(directory, checkpoint, student.frame(), &layers)?
    }
    Ok(())
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
