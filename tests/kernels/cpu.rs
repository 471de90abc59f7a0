//! The operations on the CPU: the properties at every level that this machine has, and what only this device promises.
//!
//! All other tests run on it, too, with `LATENT_ATTENTION_DEVICE=cpu`.

mod memory;
mod pools;

use latent_attention::device::{CpuConfig, CpuLevel, Device};
use latent_attention::ops::KernelFamily;

use crate::on_device::OnDevice;

/// The operations at a level; at the portable one if the machine lacks it.
pub fn at(level: CpuLevel) -> OnDevice {
    let level = if level.is_available() { level } else { CpuLevel::Portable };
    OnDevice(Device::cpu_with(CpuConfig::default().with_level(level)).unwrap(), KernelFamily::Measured)
}
