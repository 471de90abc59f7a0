//! How latents are stored, as kernels and choices distinguish it.

use crate::cache::{CacheLayout, Group, LatentFormat};

/// The enum `Latents` of `csrc/decode/latents.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Latents {
    Whole,
    Groups,
    Bf16,
}

impl Latents {
    pub(super) fn of(layout: &CacheLayout) -> Self {
        match layout.format().latent {
            LatentFormat::Int4 { group: Group::Whole } => Self::Whole,
            LatentFormat::Int4 { .. } => Self::Groups,
            LatentFormat::Bf16 => Self::Bf16,
        }
    }

    /// As the list of kernels has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Whole => "Whole",
            Self::Groups => "Groups",
            Self::Bf16 => "Bf16",
        }
    }
}
