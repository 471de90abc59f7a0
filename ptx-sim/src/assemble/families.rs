//! The instruction families.

use crate::decode::Operands;
use crate::isa::{Decoded, arithmetic, memory, sync, tensor};

/// All families; an instruction belongs to the first that takes it.
pub(super) const ALL: &[fn(&Operands) -> Decoded] = &[
    arithmetic::data::decode,
    arithmetic::integer::decode,
    arithmetic::carry::decode,
    arithmetic::bits::decode,
    arithmetic::logic::decode,
    arithmetic::compare::decode,
    arithmetic::float::decode,
    arithmetic::half::decode,
    arithmetic::convert::decode,
    arithmetic::approximate::decode,
    arithmetic::video::decode,
    memory::memory::decode,
    memory::hint::decode,
    memory::policy::decode,
    memory::cluster_address::decode,
    memory::async_store::decode,
    sync::barrier::decode,
    sync::cluster_barrier::decode,
    memory::atomic::decode,
    sync::control::decode,
    sync::fence::decode,
    sync::registers::decode,
    sync::mbarrier::decode,
    memory::cp_async::decode,
    memory::bulk_group::decode,
    memory::bulk::decode,
    memory::tensor_copy::decode,
    sync::warp::decode,
    tensor::matrix::decode,
    tensor::mma::decode,
    tensor::wgmma::decode,
];
