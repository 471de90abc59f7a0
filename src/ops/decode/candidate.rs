//! Which kernel serves a layer on a device: every architecture's kernels offer candidates, and the one is taken that was
//! fastest where it was timed, or else that is predicted to cost least.

use super::choices::CHOICES;
use super::tuned::{self, Choice};
use super::{cpu, sm80, sm90};
use crate::cache::CacheLayout;
use crate::device::{Device, Kernel, Limits};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::image::Arch;
use crate::sys;

/// A kernel with its tiles, for a layer on a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// The kernel's file in `csrc`, without its ending.
    pub file: &'static str,
    pub kernel: &'static str,
    /// Threads of a block.
    pub threads: u32,
    /// Blocks that share each tile of tokens: a cluster, if there are several.
    pub cluster: usize,
    /// Heads of a block.
    pub heads: usize,
    pub tile_tokens: usize,
    /// k-steps of the latent and of the rotated key.
    pub latent_steps: usize,
    pub rope_steps: usize,
    /// k-steps of the rotated key that the query of 8 heads spans.
    pub rope_span: usize,
    pub shared: sys::DecodeShared,
    /// Of the kernels that have a division of shared memory of their own.
    pub sm90: sys::DecodeSm90Shared,
    /// Dynamic shared memory of a block.
    pub shared_bytes: usize,
    /// Blocks that a multiprocessor holds.
    pub blocks_per_multiprocessor: usize,
    /// About what a tile takes a block on a full machine, and what a block does beside its tiles, in nanoseconds on an H200:
    /// what splits are chosen by, whatever the device.
    pub tile_ns: u32,
    pub block_ns: u32,
    /// Predicted time per cached token and head, in hundredths of that of sm80's best pipeline on the same device.
    pub cost: u32,
}

/// One way to serve a layer: a kernel, how it takes tokens, and what its splits are chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct DecodeVariant {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Tokens that a block takes at a time.
    pub tile_tokens: usize,
    /// Tiles in shared memory.
    pub stages: usize,
    /// Blocks that share a multiprocessor.
    pub blocks_per_multiprocessor: usize,
    /// What a tile is taken to last on a full machine, in nanoseconds.
    pub tile_ns: u32,
    /// What a block is taken to last beside its tiles: the longer, the fewer splits.
    pub block_ns: u32,
}

impl DecodeVariant {
    /// The same with splits chosen as if a block took so long beside its tiles.
    #[must_use]
    pub fn with_block_ns(self, block_ns: u32) -> Self {
        Self { block_ns, ..self }
    }
}

impl Candidate {
    pub fn variant(&self) -> DecodeVariant {
        let &Self { kernel, tile_tokens, blocks_per_multiprocessor, tile_ns, block_ns, .. } = self;
        let stages = self.shared.stage_count as usize;
        DecodeVariant { kernel, tile_tokens, stages, blocks_per_multiprocessor, tile_ns, block_ns }
    }

    /// Whether it takes tokens as a variant does, whatever its splits.
    pub fn is(&self, variant: &DecodeVariant) -> bool {
        self.variant() == DecodeVariant { tile_ns: self.tile_ns, block_ns: self.block_ns, ..*variant }
    }
}

/// Which kernels may serve a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KernelFamily {
    /// Those whose times have been measured: the choice rests on them.
    #[default]
    Measured,
    /// Those of `csrc/decode_sm80.cu`, which every GPU from Ampere on runs.
    Sm80,
    /// Those of `csrc/decode_sm90.cu`, with Hopper's own instructions, and for latents of more than 512 numbers of
    /// `csrc/decode_cluster_sm90.cu`, by clusters of blocks: no GPU has timed them yet. Latents are int4, those of more than
    /// 512 numbers with one scale for each 512, or bf16 of up to 512 numbers, of which two tiles of 64 tokens have room in
    /// shared memory.
    Sm90,
}

/// The kernels of one file.
struct Family {
    name: KernelFamily,
    measured: bool,
    file: &'static str,
    /// What of it can serve a layer, in code for an architecture; an error if nothing can.
    candidates: fn(&Geometry, &CacheLayout, &Limits, Arch) -> Result<Vec<Candidate>>,
}

/// All of them; the last one runs on every device, and its error says why nothing serves a layer.
const FAMILIES: [Family; 2] = [
    Family { name: KernelFamily::Sm90, measured: false, file: sm90::FILE, candidates: sm90::candidates },
    Family { name: KernelFamily::Sm80, measured: true, file: sm80::FILE, candidates: sm80::candidates },
];

/// What may serve a layer on a device, best first, and why families do not.
struct Offer {
    candidates: Vec<Candidate>,
    refused: Vec<Error>,
}

impl Offer {
    /// Of the families that are asked for.
    fn of(device: &Device, geometry: &Geometry, layout: &CacheLayout, asked: impl Fn(&Family) -> bool) -> Self {
        if device.is_cpu() {
            return Self { candidates: vec![cpu::candidate(geometry)], refused: Vec::new() };
        }
        let limits = device.limits();
        let (mut candidates, mut refused) = (Vec::new(), Vec::new());
        for family in FAMILIES.iter().filter(|family| asked(family)) {
            let found = device.image_arch(family.file);
            match found.and_then(|arch| (family.candidates)(geometry, layout, &limits, arch)) {
                Ok(found) => candidates.extend(found),
                Err(error) => refused.push(error),
            }
        }
        // Of equal ones the first, so that the choice is the same everywhere.
        candidates.sort_by_key(|candidate| candidate.cost);
        Self { candidates, refused }
    }

    /// What a setting asks for: those of a family by predicted cost; if it asks for what was measured, first of all
    /// families the one that was fastest on a layer like this one.
    fn asked(
        device: &Device,
        geometry: &Geometry,
        layout: &CacheLayout,
        kernels: KernelFamily,
        choices: &[Choice],
    ) -> Self {
        if kernels != KernelFamily::Measured {
            return Self::of(device, geometry, layout, |family| family.name == kernels);
        }
        let mut offer = Self::of(device, geometry, layout, |family| family.measured);
        // A choice is of times, and so of the code that was timed.
        let timed: Vec<&Choice> = match device.image_arch(sm80::FILE) {
            Ok(arch) => choices.iter().filter(|choice| choice.capability == arch.capability()).collect(),
            Err(_) => Vec::new(),
        };
        if !timed.is_empty() {
            let all = Self::of(device, geometry, layout, |_| true);
            offer.candidates.splice(0..0, tuned::nearest(&timed, geometry, layout, &all.candidates));
        }
        offer
    }

    /// Those of which as many blocks share a multiprocessor as they were planned to, with their kernels.
    fn loaded(&self, device: &Device) -> impl Iterator<Item = Result<(Candidate, Kernel)>> {
        self.candidates.iter().filter_map(|candidate| {
            let loaded = || {
                let kernel = device.kernel(candidate.file, candidate.kernel, candidate.shared_bytes)?;
                let blocks = kernel.blocks_per_multiprocessor(candidate.threads)?;
                Ok((blocks >= candidate.blocks_per_multiprocessor).then_some((*candidate, kernel)))
            };
            loaded().transpose()
        })
    }
}

/// The candidate that serves a layer, and its kernel: the `variant`, if one is named, or the best of the families asked for
/// of those whose blocks share a multiprocessor as they were planned to.
///
/// # Errors
/// [`Error::Unsupported`] if no kernel serves the layer on the device, or the variant does not; as [`Device::kernel`].
pub(super) fn choose(
    device: &Device,
    geometry: &Geometry,
    layout: &CacheLayout,
    kernels: KernelFamily,
    variant: Option<&DecodeVariant>,
) -> Result<(Candidate, Kernel)> {
    let mut offer = match variant {
        None => Offer::asked(device, geometry, layout, kernels, &CHOICES),
        Some(variant) => {
            let mut offer = Offer::of(device, geometry, layout, |_| true);
            offer.candidates.retain(|candidate| candidate.is(variant));
            offer
        }
    };
    if let Some(found) = offer.loaded(device).next() {
        let (mut candidate, kernel) = found?;
        if let Some(&DecodeVariant { tile_ns, block_ns, .. }) = variant {
            (candidate.tile_ns, candidate.block_ns) = (tile_ns, block_ns);
        }
        return Ok((candidate, kernel));
    }
    let unsupported = |why| Error::Unsupported {
        what: format!("decode of latents of {} numbers, {:?}", geometry.latent_rank, layout.format()),
        why,
    };
    match (variant, offer.refused.pop()) {
        (Some(variant), _) => Err(unsupported(format!("{variant:?} does not serve the layer on {device:?}"))),
        (None, Some(error)) if offer.candidates.is_empty() => Err(error),
        _ => Err(unsupported(format!(
            "{device:?} holds fewer blocks of every kernel than its registers and shared memory allow"
        ))),
    }
}

/// Everything that serves a layer on a device, whether its times were measured or not: first what [`choose`] takes, then by
/// predicted cost, family after family.
///
/// # Errors
/// As [`choose`].
pub(super) fn variants(
    device: &Device,
    geometry: &Geometry,
    layout: &CacheLayout,
    kernels: KernelFamily,
) -> Result<Vec<DecodeVariant>> {
    let mut variants = vec![choose(device, geometry, layout, kernels, None)?.0.variant()];
    for family in &FAMILIES {
        let offer = Offer::of(device, geometry, layout, |other| other.name == family.name);
        for found in offer.loaded(device) {
            let variant = found?.0.variant();
            if !variants.contains(&variant) {
                variants.push(variant);
            }
        }
    }
    Ok(variants)
}

#[cfg(all(test, feature = "simulator"))]
mod tests;
