//! What is made once a step, for all layers.

use latent_attention::ops::DecodeConfig;

use crate::batch::HostBatch;
use crate::kernels::Division;

/// A step's batch, checked, and divided among the device's blocks: made by [`Mla::plan`](crate::Mla::plan), good for all
/// layers of the same shape until a length changes.
#[derive(Debug)]
pub struct MlaPlan {
    pub(crate) config: DecodeConfig,
    pub(crate) batch: HostBatch,
    /// Of operations that run kernels.
    pub(crate) division: Option<Division>,
}

impl MlaPlan {
    /// T: rows of the queries that it is for.
    #[must_use]
    pub fn query_tokens(&self) -> usize {
        self.batch.sequences().query_tokens()
    }
}
