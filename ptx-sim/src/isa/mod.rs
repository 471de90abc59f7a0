//! The instructions, one file per family, in rooms by what they work on.
//!
//! - [`arithmetic`]: values of one lane, from registers to registers.
//! - [`memory`]: state spaces: loads, stores, atomics, copies.
//! - [`sync`]: lanes, warps and blocks that wait for each other or exchange values.
//! - [`tensor`]: matrices spread over the registers of a warp.
//! - [`builtin`]: functions that the driver provides.
//!
//! A family offers `decode`: it returns `None` if the instruction is not its own, and otherwise the instruction's
//! class and closure, or an error that says what about it is unknown. Everything is checked at decoding: a closure
//! meets only what was understood.
//!
//! Section numbers, in all of the crate, are those of PTX ISA 9.0, the version that nvcc 13.0 writes. They are the same
//! in 9.2; 9.1 alone counts what follows `cp.async.bulk.prefetch` (9.7.9.25.5 to 9.7.9.26) otherwise.
//!
//! A new family is a file in one of the rooms and a line in `assemble/families.rs`; `docs/adding-an-instruction.md` goes
//! through it. What it needs of the executor is there: `Context::cluster` has all blocks of the cluster with their
//! shared memory, for distributed shared memory and `barrier.cluster`; `Outcome::Wait` and `Outcome::Part` execute an
//! instruction again after other warps have run, for the waits of `mbarrier` and of `wgmma`; a warp's pending work lives
//! beside `Warp::bulk`, a block's (the `mbarrier`s, by address) beside `Block::barriers`, each in a file of its own in
//! `exec`; and `SharedMemory::begin_copy`/`finish_copy` tell the checker of bulk and tensor copies in flight. Several
//! families may share a root such as `cp`: each returns `None` for what is not its own.

pub(crate) mod arithmetic;
pub(crate) mod builtin;
pub(crate) mod memory;
pub(crate) mod sync;
pub(crate) mod tensor;

use crate::decode::DecodeError;
use crate::exec::Run;
use crate::meter::Class;

/// What a family makes of an instruction.
pub(crate) type Decoded = Result<Option<(Class, Run)>, DecodeError>;
