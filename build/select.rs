//! What is compiled for what.

use crate::arch::Arch;

/// The part of an architecture's name that is its compute capability: `90a` of `sm_90a`.
pub fn capability(arch: Arch) -> &'static str {
    arch.name().rsplit('_').next().unwrap_or_default()
}

/// The architectures to build for, given `CUDA_COMPUTE_CAP`: all if it is unset or empty, else the real ones that it
/// lists. Virtual ones are always built: they are quick, as no machine code is made, and the simulator runs them.
pub fn architectures(list: &str) -> Result<Vec<Arch>, String> {
    if list.trim().is_empty() {
        return Ok(Arch::ALL.into());
    }
    let wanted: Vec<&str> = list.split(',').map(|entry| full_name(entry.trim())).collect();
    let known = || Arch::ALL.into_iter().filter(|arch| !arch.is_virtual()).map(capability);
    match wanted.iter().find(|&&entry| !known().any(|name| name == entry)) {
        None => Ok(Arch::ALL.into_iter().filter(|&a| a.is_virtual() || wanted.contains(&capability(a))).collect()),
        Some(entry) => Err(format!(
            "CUDA_COMPUTE_CAP={list}: `{entry}` is not known; the kernels are built for {}",
            known().collect::<Vec<_>>().join(", ")
        )),
    }
}

/// Other crates that read `CUDA_COMPUTE_CAP` want 90 and 100 where the machine code here is that of 90a and 100a; both
/// run on the same GPUs, so one value can serve a build of all.
fn full_name(capability: &str) -> &str {
    match capability {
        "90" => "90a",
        "100" => "100a",
        other => other,
    }
}

/// Whether a kernel file is compiled for an architecture: one with Hopper's own instructions (`decode_sm90`) assembles
/// for no other.
pub fn suits(kernel_file: &str, arch: Arch) -> bool {
    !kernel_file.ends_with("_sm90") || capability(arch) == "90a"
}
