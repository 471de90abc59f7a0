//! A run put together: what is learnt from, what learns, and the texts.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use latent_attention::rope::RopeTables;
use latent_attention::weights::{DenseAttention, LatentAttention};
use latent_attention_lm::model::Model;
use latent_attention_lm::progress::bar;

use crate::balance::balance;
use crate::data::{Windows, refuse_overlap};
use crate::frame::Frame;
use crate::held_out::HeldOut;
use crate::log::Record;
use crate::original::Original;
use crate::student::Student;
use crate::train::{Ended, Options, Output, Parts, Run};

/// The texts of a run, without the token that begins texts.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    /// What is learnt from.
    pub training: &'a [u32],
    /// What is judged by.
    pub evaluation: &'a [u32],
    /// Tokens of the evaluation that are read at a time, the one that begins them included.
    pub window: usize,
    /// The token that begins texts, if the model has one.
    pub begin: Option<u32>,
}

/// What a run needs beside its options.
pub struct Lesson<'a> {
    original: Original,
    student: Student,
    texts: Texts<'a>,
    windows: Windows,
    held_out: HeldOut,
}

impl<'a> Lesson<'a> {
    /// A student with the attention of `layers`, which are balanced first.
    ///
    /// # Errors
    /// If the texts overlap or are too short, or the layers do not fit the original or cannot be trained.
    pub fn new(
        original: Original,
        layers: Vec<LatentAttention>,
        tables: &Arc<RopeTables>,
        texts: Texts<'a>,
        options: &Options,
    ) -> Result<Self> {
        refuse_overlap(texts.training, texts.evaluation)?;
        let windows = Windows::new(texts.training, texts.begin, options.sequence, options.seed)?;
        let layers: Vec<LatentAttention> = layers.into_iter().map(balance).collect();
        let student = Student::new(original.frame(), &layers, tables, options.mode, options.seed)?;
        let held_out = HeldOut::new(&original, texts.evaluation, texts.begin, texts.window)?;
        Ok(Self { original, student, texts, windows, held_out })
    }

    /// What learns.
    #[must_use]
    pub fn student(&self) -> &Student {
        &self.student
    }

    /// Sequences in the training text.
    #[must_use]
    pub fn windows(&self) -> usize {
        self.windows.count()
    }

    /// The run from its beginning, or from the checkpoint in `output`.
    ///
    /// # Errors
    /// As for [`Run::new`].
    pub fn run(&self, options: Options, output: Output, resume: bool) -> Result<Run<'_>> {
        let parts = Parts {
            original: &self.original,
            student: &self.student,
            windows: &self.windows,
            held_out: &self.held_out,
        };
        Run::new(parts, options, output, &[self.texts.training, self.texts.evaluation], resume)
    }
}

/// A whole run from beginning to end: the attention of `layers`, converted of `dense`, the attention of `model`, after the
/// steps of `options`. It leaves no files.
///
/// # Errors
/// As for [`Lesson::new`], or if the training diverges, or a temporary file cannot be written.
pub fn recover(
    model: &Model,
    dense: &[DenseAttention],
    layers: &[LatentAttention],
    tables: &RopeTables,
    texts: Texts<'_>,
    options: &Options,
) -> Result<Vec<LatentAttention>> {
    let tables = Arc::new(tables.clone());
    let original = Original::new(Frame::read(&model.checkpoint)?, dense, &tables)?;
    let lesson = Lesson::new(original, layers.to_vec(), &tables, texts, options)?;
    let folder = tempfile::tempdir().context("cannot make a folder for the checkpoint")?;
    let output = Output { folder: folder.path().to_owned(), evaluate_every: 0, checkpoint_every: 0, recompute: false };
    let progress = bar("Recovering", usize::try_from(options.steps).unwrap_or(usize::MAX), "steps");
    let ended = lesson.run(*options, output, false)?.run(&AtomicBool::new(false), &mut |record| {
        if let Record::Step { .. } = record {
            progress.inc(1);
        }
    })?;
    progress.finish_and_clear();
    match ended {
        Ended::Finished => lesson.student.to_layers(),
        Ended::Stopped(step) => bail!("recovery ended after step {step}"),
    }
}
