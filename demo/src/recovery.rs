//! A short run of recovery: the converted model learns from the original.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use latent_attention::rope::RopeTables;
use latent_attention::weights::{DenseAttention, LatentAttention};
use latent_attention_lm::model::Model;
use latent_attention_lm::progress::bar;
use latent_attention_lm::text::WRITING;
use latent_attention_recover::balance::balance;
use latent_attention_recover::data::{Windows, refuse_overlap};
use latent_attention_recover::frame::Frame;
use latent_attention_recover::held_out::HeldOut;
use latent_attention_recover::log::Record;
use latent_attention_recover::original::Original;
use latent_attention_recover::student::Student;
use latent_attention_recover::train::{Ended, Options, Output, Parts, Run};

/// What recovery works with.
pub struct Recovery<'a> {
    /// The original.
    pub model: &'a Model,
    /// Its attention.
    pub dense: &'a [DenseAttention],
    /// Its frequencies.
    pub tables: &'a RopeTables,
    /// Text that must not be learnt from, with the token that begins it.
    pub evaluation: &'a [u32],
}

impl Recovery<'_> {
    /// The attention of `layers` after `steps` of training on `text` and the int4 cache.
    ///
    /// # Errors
    /// If the text is too short or overlaps the evaluation, the training diverges, or a temporary file cannot be written.
    pub fn run(&self, layers: &[LatentAttention], text: &[u32], steps: u64) -> Result<Vec<LatentAttention>> {
        let options = Options { steps, sequence: WRITING.length.min(self.tables.positions()), ..Options::default() };
        let begin = self.model.tokenizer.bos();
        let evaluation = &self.evaluation[usize::from(begin.is_some()).min(self.evaluation.len())..];
        refuse_overlap(text, evaluation)?;
        let windows = Windows::new(text, begin, options.sequence, options.seed)?;
        let tables = Arc::new(self.tables.clone());
        let original = Original::new(Frame::read(&self.model.checkpoint)?, self.dense, &tables)?;
        let layers: Vec<LatentAttention> = layers.iter().cloned().map(balance).collect();
        let student = Student::new(original.frame(), &layers, &tables, options.mode, options.seed)?;
        let held_out = HeldOut::new(&original, evaluation, begin, self.evaluation.len())?;

        let folder = tempfile::tempdir().context("cannot make a folder for the checkpoint")?;
        let output =
            Output { folder: folder.path().to_owned(), evaluate_every: 0, checkpoint_every: 0, recompute: false };
        let parts = Parts { original: &original, student: &student, windows, held_out };
        let mut run = Run::new(parts, options, output, &[text, evaluation], false)?;
        let progress = bar("Recovering", usize::try_from(steps).unwrap_or(usize::MAX), "steps");
        let ended = run.run(&AtomicBool::new(false), &mut |record| {
            if let Record::Step { .. } = record {
                progress.inc(1);
            }
        })?;
        progress.finish_and_clear();
        match ended {
            Ended::Finished => student.to_layers(),
            Ended::Stopped(step) => bail!("recovery ended after step {step}"),
        }
    }
}
