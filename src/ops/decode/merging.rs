//! Who merges the partials of query tokens that are split.

use super::candidate::Candidate;
use crate::device::Device;
use crate::error::Result;
use crate::ops::combine::{Combine, CombineConfig, weight_bytes};
use crate::sys;

/// Who merges the partials of query tokens that are split: the results are the same to the bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Merging {
    /// The blocks that wrote them, in the same launch. Where these have too little shared memory for it, as with thousands
    /// of splits, or are clusters, [`Combine`].
    #[default]
    Fused,
    /// [`Combine`], in a launch of its own.
    Separate,
}

/// What merges for one operation.
#[derive(Clone, Debug)]
pub(super) enum Merge {
    /// Nothing can be split.
    Nothing,
    Fused,
    Separate(Combine),
}

impl Merge {
    /// For query tokens of up to `splits` splits, attended to by the blocks of a candidate.
    ///
    /// # Errors
    /// As [`Combine::new`].
    pub fn new(
        device: &Device,
        merging: Merging,
        candidate: &Candidate,
        latent_rank: usize,
        splits: usize,
    ) -> Result<Self> {
        // Of few partials each warp has weights of its own.
        let few = (sys::COMBINE_THREADS / 32 * sys::COMBINE_FEW) as usize * size_of::<f32>();
        let weights = weight_bytes(splits).max(few);
        // Of a Hopper block what lies in front of its state: barriers stay barriers, as nobody invalidates them, and what the
        // warps that copy read of the state is behind no release of theirs.
        let room = match candidate.sm90.state {
            0 => candidate.shared_bytes,
            state => state as usize,
        };
        let fits = candidate.cluster == 1
            && splits <= sys::COMBINE_MAX_SPLITS as usize
            && sys::DECODE_MERGE_BYTES as usize + weights <= room;
        match merging {
            _ if splits <= 1 => Ok(Self::Nothing),
            Merging::Fused if fits => Ok(Self::Fused),
            _ => Ok(Self::Separate(Combine::new(device, CombineConfig::new(latent_rank, splits))?)),
        }
    }
}
