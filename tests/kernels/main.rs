//! The kernels, behind the safe API, held against the reference.
//!
//! All tests run on one kind of device: the simulator, with its checker on, or what `LATENT_ATTENTION_DEVICE` names: a GPU
//! (`cuda`, `cuda:1`) or the CPU (`cpu`). What only the simulator can count is tested there alone.

mod absorb;
mod absorb_budgets;
mod ceiling;
mod combine;
#[path = "../common/mod.rs"]
mod common;
mod copy_pages;
mod cpu;
mod decode;
mod decode_budgets;
mod decode_sm90_budgets;
mod device;
mod gather;
mod head_norm;
mod invariance;
mod layer;
#[path = "../properties/on_device.rs"]
mod on_device;
mod prepare;
#[path = "../properties/mod.rs"]
mod properties;
mod rope_append;
mod schedule;
mod strided;
mod up_project;

use std::sync::OnceLock;

use common::Batch;
use half::bf16;
use latent_attention::Geometry;
use latent_attention::cache::{PageTable, PagedCache};
use latent_attention::device::{CpuLevel, Device, Simulation};
use latent_attention::image::Arch;
use latent_attention::ops::{BatchBuffers, KernelFamily};
use proptest::prelude::*;

properties::hold!(properties_hold: on_device::OnDevice(device(), KernelFamily::Measured));
properties::hold!(decode properties_hold_on_hopper: on_device::OnDevice(hopper(), KernelFamily::Sm90));
properties::hold!(properties_hold_on_cpu_portable: cpu::at(CpuLevel::Portable));
#[cfg(target_arch = "x86_64")]
properties::hold!(properties_hold_on_cpu_avx2: cpu::at(CpuLevel::Avx2));
#[cfg(target_arch = "x86_64")]
properties::hold!(properties_hold_on_cpu_avx512vnni: cpu::at(CpuLevel::Avx512Vnni));
#[cfg(target_arch = "x86_64")]
properties::hold!(properties_hold_on_cpu_amx: cpu::at(CpuLevel::Amx));
#[cfg(target_arch = "aarch64")]
properties::hold!(properties_hold_on_cpu_neon: cpu::at(CpuLevel::Neon));
#[cfg(target_arch = "aarch64")]
properties::hold!(properties_hold_on_cpu_neon_dotprod: cpu::at(CpuLevel::NeonDotprod));

/// The device that the tests run on. Simulated ones are new each time, so that nothing else counts on them.
pub fn device() -> Device {
    simulate(Simulation::default())
}

/// A device that runs Hopper's own instructions: a simulated one if the tests' device does not.
pub fn hopper() -> Device {
    decode::hopper_like(&device()).unwrap_or_else(|| decode::hopper_like(&Device::simulated()).unwrap())
}

/// The same, where the simulation is to have certain properties. Others have their own.
pub fn simulate(simulation: Simulation) -> Device {
    static NAMED: OnceLock<Option<Device>> = OnceLock::new();
    let named = NAMED.get_or_init(|| {
        let name = std::env::var("LATENT_ATTENTION_DEVICE").unwrap_or_default();
        let (kind, ordinal) = name.split_once(':').unwrap_or((&name, "0"));
        match kind {
            "" | "simulated" => None,
            "cuda" => Some(Device::cuda(ordinal.parse().unwrap()).unwrap()),
            "cpu" => Some(Device::cpu().unwrap()),
            _ => panic!("LATENT_ATTENTION_DEVICE={name}: expected simulated, cpu, cuda or cuda:N"),
        }
    });
    named.clone().unwrap_or_else(|| Device::simulate(simulation))
}

/// Whether a device runs PTX: it counts what kernels do, and survives what they do wrong.
pub fn is_simulated(device: &Device) -> bool {
    !device.is_cuda() && !device.is_cpu()
}

/// Geometries with keys that are normalised wherever they can be, or not.
pub fn with_key_norm(geometries: impl Strategy<Value = Geometry>) -> impl Strategy<Value = Geometry> {
    (geometries, any::<bool>()).prop_map(|(g, normalised)| g.with_key_norm(normalised && g.rope_heads == g.kv_heads))
}

/// Both kinds of PTX that the simulator runs.
pub const PTX: [Arch; 2] = [Arch::Compute80, Arch::Compute90a];

/// A batch for a cache on a device, with a page table of either kind.
pub fn upload_batch(device: &Device, batch: &Batch, csr: bool, cache: &PagedCache) -> BatchBuffers {
    let (indptr, indices) = batch.csr();
    let mut sequences = batch.sequences();
    if csr {
        sequences.pages = PageTable::Csr { indptr: &indptr, indices: &indices };
    }
    BatchBuffers::upload(device, &sequences, cache.layout(), cache.pages()).unwrap()
}

/// f32 numbers rounded to bf16.
pub fn rounded(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|&value| bf16::from_f32(value)).collect()
}

/// bf16 numbers as f64.
pub fn wide(values: &[bf16]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}
