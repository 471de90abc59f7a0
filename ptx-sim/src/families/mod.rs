//! The instructions, one file per family.
//!
//! A family offers `decode`: it returns `None` if the instruction is not its own, and otherwise the instruction's
//! class and closure, or an error that says what about it is unknown. Everything is checked at decoding: a closure
//! meets only what was understood.
//!
//! A new family is a file and a line in [`ALL`]. What it needs of the executor is there: `Context::cluster` has all
//! blocks of the cluster with their shared memory, for distributed shared memory and `barrier.cluster`;
//! `Outcome::Wait` and `Outcome::Part` execute an instruction again after other warps have run, for the waits of
//! `mbarrier` and of `wgmma`; a warp's pending work lives beside `Warp::copies`, a block's (the `mbarrier`s, by
//! address) beside `Block::barriers`; and `SharedMemory::begin_copy`/`finish_copy` tell the checker of bulk and tensor
//! copies in flight. Several families may share a root such as `cp`: each returns `None` for what is not its own.

mod access;
mod approximate;
mod atomic;
pub(crate) mod barrier;
mod bits;
pub(crate) mod builtin;
mod carry;
mod compare;
mod control;
mod converge;
mod convert;
pub(crate) mod cp_async;
mod data;
mod float;
mod fragments;
mod half;
mod integer;
mod logic;
mod matrix;
mod memory;
mod mma;
mod mma_formats;
mod numeric;
mod redux;
mod rounding;
mod traffic;
mod warp;

pub(crate) use access::SHARED_SPAN;

use crate::decode::{DecodeError, Operands};
use crate::meter::Class;
use crate::program::Run;

/// What a family makes of an instruction.
pub(crate) type Decoded = Result<Option<(Class, Run)>, DecodeError>;

/// All families; an instruction belongs to the first that takes it.
pub(crate) const ALL: &[fn(&Operands) -> Decoded] = &[
    data::decode,
    integer::decode,
    carry::decode,
    bits::decode,
    logic::decode,
    compare::decode,
    float::decode,
    half::decode,
    convert::decode,
    approximate::decode,
    memory::decode,
    barrier::decode,
    atomic::decode,
    control::decode,
    cp_async::decode,
    warp::decode,
    matrix::decode,
    mma::decode,
];
