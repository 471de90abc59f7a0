//! The operations on the host: what the kernels of `csrc` compute, as functions over the same parameter blocks.
//!
//! One file an operation, under its name in `ops`, `csrc` and `reference`. Work is cut into tasks by rows, by tiles of
//! columns and by the splits of a plan, never by the number of threads, and every number is one task's: results are the
//! same to the bit whatever the pool. What is hot is written once, over an [`Arithmetic`](level::Arithmetic), and compiled
//! for every [`Level`]. Tasks run on the pool of threads that the caller is in.
//!
//! Addresses are the process's own. Functions are unsafe, since their parameter blocks hold them: every address must point
//! to memory as `csrc/params.h` says, which nothing else writes meanwhile.

mod absorb;
mod cache;
mod ceiling;
mod combine;
mod copy_pages;
mod decode;
mod gather;
mod head_norm;
mod level;
mod memory;
mod product;
mod rope_append;
mod schedule;
mod sequences;
mod up_project;

use crate::cache::RangeSetting;
use crate::sys;

pub use self::level::Level;

/// Parts into which work of few query tokens is cut, and so the most threads that it keeps busy. The number of threads that
/// there are must not decide it: results would depend on them.
pub(crate) const TASKS_AT_ONCE: usize = 32;

/// What balanced splits of `decode` are multiples of, in tokens.
pub(crate) const DECODE_TOKENS: usize = decode::BLOCK;

/// An operation over its parameter block.
///
/// # Safety
/// `params` must point to the operation's parameter block, whose addresses are as the module says.
pub(crate) type Operation = unsafe fn(params: *const (), level: Level);

/// An [`Operation`] of a function over a parameter block.
macro_rules! operation {
    ($params:ty, |$name:ident, $level:ident| $run:expr) => {{
        unsafe fn run(params: *const (), $level: Level) {
            // SAFETY: promised by the caller.
            let $name = unsafe { &*params.cast::<$params>() };
            // SAFETY: promised by the caller.
            unsafe { $run }
        }
        run
    }};
}

/// The operation that does what a kernel of this name does. Kernels that differ in how they divide work, or in the order
/// of sums, are one here.
pub(crate) fn operation(kernel: &str) -> Option<Operation> {
    use RangeSetting::{MinMax, Mse};
    Some(match kernel {
        "rope_append" => operation!(sys::RopeAppendParams, |params, _level| rope_append::rope_append(params, MinMax)),
        "rope_append_mse" => operation!(sys::RopeAppendParams, |params, _level| rope_append::rope_append(params, Mse)),
        "head_norm" => operation!(sys::HeadNormParams, |params, _level| head_norm::head_norm(params)),
        "absorb_query_few" | "absorb_query_few_ordered" | "absorb_query_medium" | "absorb_query_many" => {
            operation!(sys::AbsorbParams, |params, level| absorb::absorb_query(params, level))
        }
        "expand_output_few" | "expand_output_few_ordered" | "expand_output_medium" | "expand_output_many" => {
            operation!(sys::AbsorbParams, |params, level| absorb::expand_output(params, level))
        }
        "prepare" | "prepare_ordered" => operation!(sys::PrepareParams, |params, level| {
            absorb::absorb_query(&params.absorb, level);
            rope_append::rope_append(&params.append, MinMax);
        }),
        "prepare_mse" | "prepare_ordered_mse" => operation!(sys::PrepareParams, |params, level| {
            absorb::absorb_query(&params.absorb, level);
            rope_append::rope_append(&params.append, Mse);
        }),
        "schedule" => operation!(sys::ScheduleParams, |params, _level| schedule::schedule(params)),
        "decode" => operation!(sys::DecodeParams, |params, level| decode::decode(params, level)),
        "combine" => operation!(sys::CombineParams, |params, level| combine::combine(params, level)),
        "up_project" | "up_project_sm90" => {
            operation!(sys::UpProjectParams, |params, level| up_project::up_project(params, level))
        }
        "gather" => operation!(sys::GatherParams, |params, level| gather::gather(params, level)),
        "ceiling_copy" => operation!(sys::CeilingCopyParams, |params, _level| ceiling::ceiling_copy(params)),
        "ceiling_read" => operation!(sys::CeilingCopyParams, |params, level| ceiling::ceiling_read(params, level)),
        "ceiling_mma" => operation!(sys::CeilingMmaParams, |params, level| ceiling::ceiling_mma(params, level)),
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        "ceiling_int8" => operation!(sys::CeilingMmaParams, |params, level| ceiling::ceiling_int8(params, level)),
        "copy_pages" => operation!(sys::CopyPagesParams, |params, _level| copy_pages::copy_pages(params)),
        _ => return None,
    })
}
