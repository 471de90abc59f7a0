//! Instructions that reach memory: loads, stores, atomics, and copies that run beside the kernel.
//!
//! `access` reads address operands, `traffic` counts for the meter what an access costs, and `lanes` reads and writes for
//! all lanes at once; they serve the others, as `bulk_operand` serves bulk and tensor copies, `tensor_operand` and
//! `tensor_box` the latter, `policy` everything that takes a cache hint, and `reduction` everything that changes memory
//! by an operand. A family that moves bytes between state spaces belongs here, whoever computes the addresses.

pub(crate) mod access;
pub(crate) mod async_store;
pub(crate) mod atomic;
pub(crate) mod bulk;
pub(crate) mod bulk_group;
pub(crate) mod bulk_operand;
pub(crate) mod cluster_address;
pub(crate) mod cp_async;
pub(crate) mod hint;
pub(crate) mod lanes;
#[expect(clippy::module_inception, reason = "loads and stores are what the ISA calls memory instructions")]
pub(crate) mod memory;
pub(crate) mod policy;
pub(crate) mod reduction;
pub(crate) mod tensor_box;
pub(crate) mod tensor_copy;
pub(crate) mod tensor_operand;
pub(crate) mod traffic;
