//! The run: step after step, with evaluations and checkpoints in between.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use clap::ValueEnum;
use latent_attention::cache::{CacheFormat, Group, LatentFormat, RopeFormat};
use serde::{Deserialize, Serialize};

use crate::adamw::{AdamW, AdamWOptions, norm, schedule};
use crate::checkpoint::{self, Fingerprint, State, VERSION};
use crate::data::Windows;
use crate::held_out::HeldOut;
use crate::log::{Log, Record};
use crate::original::Original;
use crate::plot;
use crate::step::step;
use crate::student::{Mode, Student};

/// The cache in the loop, by the names that it has on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// Int4, one scale for each run of up to 512 latents and for 32 rotated numbers
    Int4,
    /// Int4 with a scale for every 32 numbers
    Int4Groups,
    /// Int4 latents, int8 rotated keys
    Int4Int8,
    /// Bf16
    Bf16,
    /// No rounding at all
    None,
}

impl Cache {
    /// The format of the cache.
    #[must_use]
    pub fn format(self) -> Option<CacheFormat> {
        let latent = LatentFormat::Int4 { group: Group::Whole };
        match self {
            Self::Int4 => Some(CacheFormat::INT4),
            Self::Int4Groups => Some(CacheFormat::int4(Group::G32)),
            Self::Int4Int8 => Some(CacheFormat::new(latent, RopeFormat::Int8)),
            Self::Bf16 => Some(CacheFormat::BF16),
            Self::None => None,
        }
    }
}

/// What decides the outcome of a run, on the CPU to the bit, and so must be the same when it is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Which weights are trained.
    pub mode: Mode,
    /// Steps in all.
    pub steps: u64,
    /// Sequences per step.
    pub batch: usize,
    /// Tokens per sequence.
    pub sequence: usize,
    /// Tokens of a sequence whose predictions are compared.
    pub positions: usize,
    /// Peak of the learning rate.
    pub rate: f64,
    /// Steps until it is reached.
    pub warmup: u64,
    /// What is left of it in the end, as a share.
    pub floor: f64,
    /// The optimiser.
    pub optimiser: AdamWOptions,
    /// The cache in the loop, in training and evaluation.
    pub cache: Cache,
    /// Order of the text, compared positions, first values of low-rank additions.
    pub seed: u64,
}

impl Default for Options {
    /// 16 thousand tokens, as 16 steps of 4 sequences of 256, 64 predictions of each compared.
    fn default() -> Self {
        Self {
            mode: Mode::Attention,
            steps: 16,
            batch: 4,
            sequence: 256,
            positions: 64,
            rate: 2e-4,
            warmup: 4,
            floor: 0.05,
            optimiser: AdamWOptions::default(),
            cache: Cache::Int4,
            seed: 0,
        }
    }
}

impl Options {
    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// Says what.
    pub fn check(&self) -> Result<()> {
        ensure!(self.steps > 0 && self.batch > 0, "there must be at least one step of one sequence");
        ensure!(self.positions > 0, "at least one prediction of a sequence must be compared");
        ensure!(self.rate.is_finite() && self.rate > 0.0, "the learning rate must be positive, not {}", self.rate);
        ensure!((0.0..=1.0).contains(&self.floor), "the floor of the learning rate is a share, not {}", self.floor);
        let o = self.optimiser;
        let fits = [o.beta1, o.beta2].iter().all(|beta| (0.0..1.0).contains(beta))
            && [o.epsilon, o.clip].iter().all(|x| x.is_finite() && *x > 0.0)
            && o.weight_decay.is_finite()
            && o.weight_decay >= 0.0;
        ensure!(fits, "the optimiser cannot work with {o:?}");
        Ok(())
    }
}

/// What does not change the outcome: where files go and when they are written.
#[derive(Clone, Debug)]
pub struct Output {
    /// Folder of the checkpoint, the log and the plot.
    pub folder: PathBuf,
    /// Steps between evaluations; 0 evaluates before and after only.
    pub evaluate_every: u64,
    /// Steps between checkpoints; 0 writes one at the end, or when stopped, only.
    pub checkpoint_every: u64,
    /// Keep the blocks' inputs only, and compute the rest once more (gradient checkpointing).
    pub recompute: bool,
}

impl Output {
    /// The file of the checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.folder.join("checkpoint.safetensors")
    }

    /// Refuses a folder with a checkpoint that is not to be resumed, and would be replaced.
    ///
    /// # Errors
    /// If there is one.
    pub fn check(&self, resume: bool) -> Result<()> {
        let path = self.checkpoint();
        ensure!(resume || !path.exists(), "{} is there already: resume it, or choose another folder", path.display());
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log.jsonl")
    }

    fn plot(&self) -> PathBuf {
        self.folder.join("loss.svg")
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All steps are made.
    Finished,
    /// It was stopped after so many steps, and can be resumed.
    Stopped(u64),
}

/// A run, ready to go on.
pub struct Run<'a> {
    original: &'a Original,
    student: &'a Student,
    variables: Vec<(String, Tensor)>,
    optimiser: AdamW,
    windows: &'a Windows,
    held_out: &'a HeldOut,
    state: State,
    output: Output,
    log: Log,
}

/// What a run is made of.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// What is learnt from.
    pub original: &'a Original,
    /// What learns.
    pub student: &'a Student,
    /// What is read.
    pub windows: &'a Windows,
    /// What is judged by.
    pub held_out: &'a HeldOut,
}

impl<'a> Run<'a> {
    /// A run from its beginning, or from its checkpoint. `text` is what beside the student's tensors makes it this run:
    /// the tokens of its texts.
    ///
    /// # Errors
    /// If an option makes no sense, files cannot be written, there is a checkpoint already and it is not to be resumed,
    /// or there is none, or it belongs to another run.
    pub fn new(parts: Parts<'a>, options: Options, output: Output, text: &[&[u32]], resume: bool) -> Result<Self> {
        options.check()?;
        output.check(resume)?;
        let Parts { original, student, windows, held_out } = parts;
        let variables = student.variables();
        let mut optimiser = AdamW::new(options.optimiser, &variables)?;
        let fingerprint = fingerprint(student, text)?;
        let mut state = State { version: VERSION, step: 0, options, fingerprint };
        std::fs::create_dir_all(&output.folder)
            .with_context(|| format!("cannot create {}", output.folder.display()))?;
        let path = output.checkpoint();
        let log = if resume {
            state.step = checkpoint::restore(&path, &state, &variables, &mut optimiser)?;
            Log::resume(&output.log(), state.step)?
        } else {
            Log::create(&output.log())?
        };
        Ok(Self { original, student, variables, optimiser, windows, held_out, state, output, log })
    }

    /// Steps that are made.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// All that was logged.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        self.log.records()
    }

    /// Makes the steps that are left, until all are made or `stop` is set, which is looked at after each step. `progress`
    /// is shown each line of the log. However it ends, a checkpoint of the last step is on the disk, unless there is an
    /// error.
    ///
    /// # Errors
    /// If a loss or gradient is not finite (the step is not made, and the last checkpoint stays), or a file cannot be
    /// written.
    pub fn run(&mut self, stop: &AtomicBool, progress: &mut dyn FnMut(&Record)) -> Result<Ended> {
        let steps = self.state.options.steps;
        if self.log.records().is_empty() {
            self.evaluate(progress)?;
        }
        while self.state.step < steps {
            if stop.load(Ordering::Relaxed) {
                self.save()?;
                return Ok(Ended::Stopped(self.state.step));
            }
            let record = self.make_step()?;
            self.log.push(record)?;
            progress(&record);
            let made = self.state.step;
            let due = |every: u64| made < steps && every > 0 && made.is_multiple_of(every);
            if due(self.output.evaluate_every) || made == steps {
                self.evaluate(progress)?;
            }
            if due(self.output.checkpoint_every) || made == steps {
                self.save()?;
            }
        }
        Ok(Ended::Finished)
    }

    fn make_step(&mut self) -> Result<Record> {
        let (clock, o, number) = (Instant::now(), self.state.options, self.state.step);
        let batch = self.windows.batch(number, o.batch, o.positions);
        let (loss, gradients) = step(self.original, self.student, &batch, o.cache.format(), self.output.recompute)
            .with_context(|| format!("step {}", number + 1))?;
        let gradient_norm = norm(&self.variables, &gradients)?;
        ensure!(
            loss.divergence.is_finite() && loss.hidden.is_finite() && gradient_norm.is_finite(),
            "step {}: the divergence is {}, the hidden-state error {}, the norm of gradients {gradient_norm}: training has \
             diverged. Try a lower learning rate (now {}){}",
            number + 1,
            loss.divergence,
            loss.hidden,
            o.rate,
            if self.output.checkpoint().exists() {
                format!("; the last good state is in {}", self.output.checkpoint().display())
            } else {
                String::new()
            }
        );
        let rate = o.rate * schedule(number, o.steps, o.warmup, o.floor);
        self.optimiser.step(&self.variables, &gradients, gradient_norm, rate, number)?;
        self.state.step += 1;
        Ok(Record::Step {
            step: self.state.step,
            divergence: loss.divergence,
            hidden: loss.hidden,
            gradient_norm,
            rate,
            tokens: self.state.step * (o.batch * o.sequence) as u64,
            seconds: clock.elapsed().as_secs_f64(),
        })
    }

    fn evaluate(&mut self, progress: &mut dyn FnMut(&Record)) -> Result<()> {
        let cache = self.state.options.cache.format();
        let measured = self.held_out.measure(self.original, self.student, cache)?;
        let record = Record::Evaluation { step: self.state.step, measured };
        self.log.push(record)?;
        progress(&record);
        plot::draw(self.log.records(), &self.output.plot())
    }

    fn save(&self) -> Result<()> {
        checkpoint::save(&self.output.checkpoint(), &self.state, &self.variables, &self.optimiser)
    }
}

/// What a run began with: the student's tensors before the first step, and its texts. Of a student that has made steps
/// already it would differ, so it is taken before a checkpoint is read.
fn fingerprint(student: &Student, text: &[&[u32]]) -> Result<String> {
    let (mut fingerprint, mut tensors) = (Fingerprint::default(), Vec::new());
    student.visit(&mut |name, tensor| {
        fingerprint.add(name.bytes().map(u32::from));
        tensors.push(tensor.clone());
    });
    for tensor in tensors {
        let numbers: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
        fingerprint.add(numbers.into_iter().map(f32::to_bits));
    }
    for tokens in text {
        fingerprint.add([tokens.len() as u32]);
        fingerprint.add(tokens.iter().copied());
    }
    Ok(fingerprint.text())
}

/// Reads the options of a checkpoint in `folder`, to resume it.
///
/// # Errors
/// If there is none.
pub fn options_of(folder: &Path) -> Result<Options> {
    Ok(checkpoint::read_state(&folder.join("checkpoint.safetensors"))?.options)
}

#[cfg(test)]
#[path = "train_tests.rs"]
mod tests;
