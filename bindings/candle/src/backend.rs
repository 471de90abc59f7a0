//! What computes.

use crate::kernels::Kernels;

/// What an [`Mla`](crate::Mla) does its work with.
#[derive(Debug)]
pub(crate) enum Backend {
    Reference,
    Kernels(Box<Kernels>),
}
