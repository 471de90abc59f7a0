//! The operations on a device: arguments checked, then one kernel launched.
//!
//! Each operation is made once for a device and a configuration, which loads its kernel, and then run any number of
//! times. Running checks every argument against the configuration first and returns an [`Error`](crate::Error) before
//! anything is launched; it allocates nothing, so outputs and workspace are the caller's. The raw tier beside it,
//! `launch`, takes the parameter block of `csrc/params.h` as it is.
//!
//! Letters in shapes are those of [`Geometry`](crate::Geometry); T counts the query tokens of a batch.

mod absorb;
mod batch;
mod cache;
pub(crate) mod check;
mod combine;
mod copy_pages;
mod decode;
mod gather;
mod head_norm;
mod prepare;
mod rope_append;
mod rotation;
mod schedule;
mod up_project;

pub use absorb::{AbsorbConfig, AbsorbQuery, AbsorbQueryArgs, ExpandOutput, ExpandOutputArgs};
pub use batch::{Batch, BatchBuffers, Pages};
pub use cache::{CacheView, CacheViewMut, DeviceCache};
pub use combine::{Combine, CombineArgs, CombineConfig, CombineTiles};
pub use copy_pages::{CopyPages, CopyPagesArgs, CopyPagesConfig};
pub use decode::{Decode, DecodeArgs, DecodeConfig, DecodeTiles, DecodeVariant, KernelFamily, Merging, Plan};
pub use gather::{Gather, GatherArgs, GatherConfig};
pub use head_norm::{HeadNorm, HeadNormArgs, HeadNormConfig, HeadNormQueryArgs};
pub use prepare::Prepare;
pub use rope_append::{DeviceKeyNorm, DeviceNorm, RopeAppend, RopeAppendArgs, RopeAppendConfig};
pub use rotation::{Rotation, RotationBuffers};
pub use schedule::{Schedule, ScheduleArgs, ScheduleConfig, SplitPolicy};
pub use up_project::{UpProject, UpProjectArgs, UpProjectConfig};
