//! One operation's inputs and outputs.

use std::path::PathBuf;

use latent_attention::cache::PagedCache;
use latent_attention::device::{Buffer, Device};
use latent_attention::{Geometry, Result};
use serde::{Deserialize, Serialize};

use crate::Validation;
use crate::compare::{Comparison, Output};
use crate::draw::Draw;
use crate::settings::Settings;
use crate::tensors::{Number, Tensors, wide};

/// What is validated: every operation, in each of the ways that it can go. The order is that of the random streams:
/// another one is another set of inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `rope_append` of tokens of which some are not finite.
    RopeAppend,
    /// `rope_append` with a norm and a bias on the latent.
    RopeAppendNorm,
    /// `absorb_query` of few rows, whose kernel reads each weight once.
    AbsorbQueryFew,
    /// `absorb_query` of as many rows as take the kernel that multiplies in tiles.
    AbsorbQueryMany,
    /// `expand_output` of few rows.
    ExpandOutputFew,
    /// `expand_output` of many.
    ExpandOutputMany,
    /// `schedule` into balanced splits.
    ScheduleBalanced,
    /// `schedule` into splits of fixed length.
    ScheduleFixed,
    /// `decode`, its work balanced over the device.
    DecodeBalanced,
    /// `decode` in splits of fixed length.
    DecodeFixed,
    /// `combine` of partials of which some saw nothing.
    Combine,
    /// `up_project` of every cached token.
    UpProject,
    /// A layer's whole step.
    Layer,
    /// `gather` of a chunk of each sequence.
    Gather,
    /// `absorb_query` of few rows that sums in the order of many.
    AbsorbQueryInvariant,
    /// `expand_output` likewise.
    ExpandOutputInvariant,
    /// `copy_pages`, one of them to a page that is not there.
    CopyPages,
    /// `head_norm` of queries and keys.
    HeadNorm,
}

impl Kind {
    /// Whether the latent has a norm and a bias.
    pub(crate) fn has_norm(self) -> bool {
        matches!(self, Self::RopeAppendNorm | Self::Layer)
    }
}

/// How one kind is validated, as the file of its operation describes it.
#[derive(Debug)]
pub(crate) struct Operation {
    pub kind: Kind,
    /// Its name in the report, and of its file in a dump: as serde writes the kind.
    pub name: &'static str,
    /// Draws the inputs.
    pub inputs: fn(&mut Case, &Validation, &mut Draw) -> Result<()>,
    /// Adds a device's outputs.
    pub run: fn(&mut Case, &Device) -> Result<()>,
    /// Holds the outputs against the reference of the inputs.
    pub check: fn(&Case) -> Result<Vec<Comparison>>,
}

/// One operation's inputs and, once it has run, its outputs.
#[derive(Clone, Debug)]
pub struct Case {
    pub(crate) operation: &'static Operation,
    pub(crate) settings: Settings,
    pub(crate) tensors: Tensors,
}

impl Case {
    /// The inputs of one case.
    pub(crate) fn new(operation: &'static Operation, validation: &Validation) -> Result<Self> {
        let settings = Settings::new(operation.kind, validation);
        let source = PathBuf::from(operation.name).with_extension("safetensors");
        let mut case = Self { operation, settings, tensors: Tensors::new(source, Default::default()) };
        (operation.inputs)(&mut case, validation, &mut Draw::new(validation.seed, operation.kind as u64))?;
        Ok(case)
    }

    /// Which one it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.operation.kind
    }

    /// The same with the outputs of a device.
    ///
    /// # Errors
    /// What the operation says.
    pub fn run(mut self, device: &Device) -> Result<Self> {
        (self.operation.run)(&mut self, device)?;
        Ok(self)
    }

    /// Holds the outputs against the f64 reference of the inputs.
    ///
    /// # Errors
    /// [`Error::Tensor`](latent_attention::Error::Tensor) for a tensor that is missing or of another shape or type; what
    /// the reference says of inputs that do not belong together.
    pub fn check(&self) -> Result<Vec<Comparison>> {
        (self.operation.check)(self)
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.settings.geometry
    }

    /// An output. Checks read it first: its shape bounds what the reference computes, whatever a file says otherwise.
    pub(crate) fn output<T: Number>(&self, name: &'static str, shape: &[usize]) -> Result<Output> {
        let got = wide(&self.tensors.get::<T>(name, shape)?);
        Ok(Output { case: self.operation.name, name, shape: shape.to_vec(), got, want: Vec::new() })
    }

    /// Keeps what is in device memory as an output.
    pub(crate) fn keep<T: Number>(&mut self, name: &str, shape: &[usize], buffer: &Buffer<T>) -> Result<()> {
        self.tensors.put(name, shape, &buffer.to_vec()?);
        Ok(())
    }

    /// The cache of that name, `[pages, bytes of a page]`.
    pub(crate) fn cache(&self, name: &str) -> Result<PagedCache> {
        let layout = self.settings.layout()?;
        let [pages, _] = self.tensors.sizes(name)?;
        PagedCache::from_bytes(layout, self.tensors.get(name, &[pages, layout.page_bytes()])?)
    }

    pub(crate) fn put_cache(&mut self, name: &str, cache: &PagedCache) {
        self.tensors.put(name, &[cache.pages(), cache.layout().page_bytes()], cache.bytes());
    }
}
