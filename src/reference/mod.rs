//! The f64 reference: what every operation means, one short file each, written to be read.
//!
//! Kernels are held against these functions. [`rope_append`] is specified to the bit in f32, because its output is
//! the cache, which must agree byte for byte; the others take and return f64 and say what the exact result is.
//! They use the cache as it decodes, so quantisation error is not part of the comparison.
//!
//! Letters in shapes are those of [`Geometry`](crate::Geometry); T counts the query tokens of a batch.

mod absorb;
mod combine;
mod copy_pages;
mod decode;
mod gather;
mod head_norm;
mod layer;
mod rope_append;
mod schedule;
mod up_project;
pub(crate) mod vector;

pub use absorb::{absorb_query, expand_output};
pub use combine::combine;
pub use copy_pages::copy_pages;
pub use decode::{Attended, DecodeInputs, decode, decode_split};
pub use gather::gather;
pub use head_norm::{HeadNormInputs, HeadNormQueries, HeadNormed, head_norm};
pub use layer::{ReferenceInputs, ReferenceLayer, ReferenceOutput};
pub use rope_append::{
    KeyNorm, RopeAppendInputs, RopeAppendParams, RopeAppendRotation, RopeAppended, rms_norm, rope_append,
};
pub use schedule::{Split, schedule};
pub use up_project::{Projected, up_project};

pub use crate::splits::{balanced_split_tokens, predicted};
