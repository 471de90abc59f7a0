//! Which kernel serves a layer on a device: every architecture's kernels offer candidates, and the one that is predicted
//! to cost least is taken.

use super::{sm80, sm90};
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

/// Which kernels may serve a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KernelFamily {
    /// Those whose times have been measured: the choice rests on them.
    #[default]
    Measured,
    /// Those of `csrc/decode_sm80.cu`, which every GPU from Ampere on runs.
    Sm80,
    /// Those of `csrc/decode_sm90.cu`, with Hopper's own instructions: no GPU has timed them yet. Latents are int4, of up to
    /// 512 numbers.
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

/// The candidate of the families asked for that costs least, of those whose blocks share a multiprocessor as they were planned to, and its kernel.
///
/// # Errors
/// [`Error::Unsupported`] if no kernel serves the layer on the device; as [`Device::kernel`].
pub(super) fn choose(
    device: &Device,
    geometry: &Geometry,
    layout: &CacheLayout,
    kernels: KernelFamily,
) -> Result<(Candidate, Kernel)> {
    let limits = device.limits();
    let (mut offered, mut refused) = (Vec::new(), Vec::new());
    let asked = |family: &&Family| family.name == kernels || kernels == KernelFamily::Measured && family.measured;
    for family in FAMILIES.iter().filter(asked) {
        let found = device.image_arch(family.file);
        match found.and_then(|arch| (family.candidates)(geometry, layout, &limits, arch)) {
            Ok(candidates) => offered.extend(candidates),
            Err(error) => refused.push(error),
        }
    }
    // Of equal ones the first, so that the choice is the same everywhere.
    offered.sort_by_key(|candidate| candidate.cost);
    for candidate in &offered {
        let kernel = device.kernel(candidate.file, candidate.kernel, candidate.shared_bytes)?;
        if kernel.blocks_per_multiprocessor(candidate.threads)? >= candidate.blocks_per_multiprocessor {
            return Ok((*candidate, kernel));
        }
    }
    match refused.pop() {
        Some(error) if offered.is_empty() => Err(error),
        _ => Err(Error::Unsupported {
            what: format!("decode of latents of {} numbers, {:?}", geometry.latent_rank, layout.format()),
            why: format!("{device:?} holds fewer blocks of every kernel than its registers and shared memory allow"),
        }),
    }
}
