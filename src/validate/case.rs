//! One operation's inputs and outputs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::compare::{Comparison, Output};
use super::draw::Draw;
use super::settings::Settings;
use super::tensors::{Number, Tensors, wide};
use super::{Validation, absorb, append, combine, decode, gather, layer, schedule, up_project};
use crate::cache::PagedCache;
use crate::device::{Buffer, Device};
use crate::error::Result;
use crate::geometry::Geometry;
use crate::ops::AbsorbConfig;
use crate::sys;

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
    /// `schedule` into balanced pieces.
    ScheduleBalanced,
    /// `schedule` into pieces of fixed length.
    ScheduleFixed,
    /// `decode`, its work balanced over the device.
    DecodeBalanced,
    /// `decode` in pieces of fixed length.
    DecodeFixed,
    /// `combine` of parts of which some saw nothing.
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
}

impl Kind {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 16] = [
        Self::RopeAppend,
        Self::RopeAppendNorm,
        Self::AbsorbQueryFew,
        Self::AbsorbQueryMany,
        Self::ExpandOutputFew,
        Self::ExpandOutputMany,
        Self::ScheduleBalanced,
        Self::ScheduleFixed,
        Self::DecodeBalanced,
        Self::DecodeFixed,
        Self::Combine,
        Self::UpProject,
        Self::Layer,
        Self::Gather,
        Self::AbsorbQueryInvariant,
        Self::ExpandOutputInvariant,
    ];

    /// Its name in the report, and of its file in a dump.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RopeAppend => "rope-append",
            Self::RopeAppendNorm => "rope-append-norm",
            Self::AbsorbQueryFew => "absorb-query-few",
            Self::AbsorbQueryMany => "absorb-query-many",
            Self::ExpandOutputFew => "expand-output-few",
            Self::ExpandOutputMany => "expand-output-many",
            Self::ScheduleBalanced => "schedule-balanced",
            Self::ScheduleFixed => "schedule-fixed",
            Self::DecodeBalanced => "decode-balanced",
            Self::DecodeFixed => "decode-fixed",
            Self::Combine => "combine",
            Self::UpProject => "up-project",
            Self::Layer => "layer",
            Self::Gather => "gather",
            Self::AbsorbQueryInvariant => "absorb-query-invariant",
            Self::ExpandOutputInvariant => "expand-output-invariant",
        }
    }

    /// Whether the latent has a norm and a bias.
    pub(super) fn has_norm(self) -> bool {
        matches!(self, Self::RopeAppendNorm | Self::Layer)
    }

    /// The up-projections of this case.
    pub(super) fn absorb_config(self, geometry: Geometry) -> AbsorbConfig {
        let config = AbsorbConfig::new(geometry);
        match self {
            Self::AbsorbQueryInvariant | Self::ExpandOutputInvariant => config.batch_invariant(),
            _ => config,
        }
    }

    /// Query tokens of a product with the up-projections: on both sides of where one kernel takes over from the other.
    fn product_tokens(self, geometry: &Geometry) -> usize {
        let few = sys::ABSORB_FEW_ROWS as usize / (geometry.query_heads / geometry.kv_heads);
        match self {
            Self::AbsorbQueryMany | Self::ExpandOutputMany => few + 1,
            _ => few.max(1),
        }
    }
}

/// One operation's inputs and, once it has run, its outputs.
#[derive(Clone, Debug)]
pub struct Case {
    pub(super) settings: Settings,
    pub(super) tensors: Tensors,
}

impl Case {
    /// The inputs of one case.
    pub(super) fn new(kind: Kind, validation: &Validation) -> Result<Self> {
        let settings = Settings::new(kind, validation);
        let source = PathBuf::from(kind.name()).with_extension("safetensors");
        let mut case = Self { settings, tensors: Tensors::new(source, Default::default()) };
        let draw = &mut Draw::new(validation.seed, kind as u64);
        match kind {
            Kind::RopeAppend | Kind::RopeAppendNorm => append::inputs(&mut case, validation, draw)?,
            Kind::AbsorbQueryFew
            | Kind::AbsorbQueryMany
            | Kind::AbsorbQueryInvariant
            | Kind::ExpandOutputFew
            | Kind::ExpandOutputMany
            | Kind::ExpandOutputInvariant => {
                absorb::inputs(&mut case, kind.product_tokens(&validation.geometry), draw);
            }
            Kind::ScheduleBalanced | Kind::ScheduleFixed => schedule::inputs(&mut case, validation, draw),
            Kind::DecodeBalanced | Kind::DecodeFixed => decode::inputs(&mut case, validation, draw)?,
            Kind::Combine => combine::inputs(&mut case, draw),
            Kind::UpProject => up_project::inputs(&mut case, validation, draw)?,
            Kind::Layer => layer::inputs(&mut case, validation, draw)?,
            Kind::Gather => gather::inputs(&mut case, validation, draw)?,
        }
        Ok(case)
    }

    /// Which one it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.settings.case
    }

    /// The same with the outputs of a device.
    ///
    /// # Errors
    /// What the operation says.
    pub fn run(mut self, device: &Device) -> Result<Self> {
        match self.kind() {
            Kind::RopeAppend | Kind::RopeAppendNorm => append::run(&mut self, device)?,
            Kind::AbsorbQueryFew | Kind::AbsorbQueryMany | Kind::AbsorbQueryInvariant => {
                absorb::run_query(&mut self, device)?
            }
            Kind::ExpandOutputFew | Kind::ExpandOutputMany | Kind::ExpandOutputInvariant => {
                absorb::run_output(&mut self, device)?
            }
            Kind::ScheduleBalanced | Kind::ScheduleFixed => schedule::run(&mut self, device)?,
            Kind::DecodeBalanced | Kind::DecodeFixed => decode::run(&mut self, device)?,
            Kind::Combine => combine::run(&mut self, device)?,
            Kind::UpProject => up_project::run(&mut self, device)?,
            Kind::Layer => layer::run(&mut self, device)?,
            Kind::Gather => gather::run(&mut self, device)?,
        }
        Ok(self)
    }

    /// Holds the outputs against the f64 reference of the inputs.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) for a tensor that is missing or of another shape or type; what the
    /// reference says of inputs that do not belong together.
    pub fn check(&self) -> Result<Vec<Comparison>> {
        match self.kind() {
            Kind::RopeAppend | Kind::RopeAppendNorm => append::check(self),
            Kind::AbsorbQueryFew | Kind::AbsorbQueryMany | Kind::AbsorbQueryInvariant => absorb::check_query(self),
            Kind::ExpandOutputFew | Kind::ExpandOutputMany | Kind::ExpandOutputInvariant => absorb::check_output(self),
            Kind::ScheduleBalanced | Kind::ScheduleFixed => schedule::check(self),
            Kind::DecodeBalanced | Kind::DecodeFixed => decode::check(self),
            Kind::Combine => combine::check(self),
            Kind::UpProject => up_project::check(self),
            Kind::Layer => layer::check(self),
            Kind::Gather => gather::check(self),
        }
    }

    pub(super) fn geometry(&self) -> &Geometry {
        &self.settings.geometry
    }

    /// An output. Checks read it first: its shape bounds what the reference computes, whatever a file says otherwise.
    pub(super) fn output<T: Number>(&self, name: &'static str, shape: &[usize]) -> Result<Output> {
        let got = wide(&self.tensors.get::<T>(name, shape)?);
        Ok(Output { case: self.kind().name(), name, shape: shape.to_vec(), got, want: Vec::new() })
    }

    /// Keeps what is in device memory as an output.
    pub(super) fn keep<T: Number>(&mut self, name: &str, shape: &[usize], buffer: &Buffer<T>) -> Result<()> {
        self.tensors.put(name, shape, &buffer.to_vec()?);
        Ok(())
    }

    /// The cache of that name, `[pages, bytes of a page]`.
    pub(super) fn cache(&self, name: &str) -> Result<PagedCache> {
        let layout = self.settings.layout()?;
        let [pages, _] = self.tensors.sizes(name)?;
        PagedCache::from_bytes(layout, self.tensors.get(name, &[pages, layout.page_bytes()])?)
    }

    pub(super) fn put_cache(&mut self, name: &str, cache: &PagedCache) {
        self.tensors.put(name, &[cache.pages(), cache.layout().page_bytes()], cache.bytes());
    }
}
