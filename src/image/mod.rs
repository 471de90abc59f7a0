//! The kernels' images: what the build script compiled `csrc/*.cu` to, embedded.
//!
//! A build without a CUDA compiler has none.

mod arch;

use crate::error::Error;

pub use arch::Arch;

/// One kernel file, compiled for one architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Image {
    /// The file's name without its ending: `combine` for `csrc/combine.cu`.
    pub kernel_file: &'static str,
    /// What it was compiled for.
    pub arch: Arch,
    /// PTX text for virtual architectures, an ELF file for real ones.
    pub bytes: &'static [u8],
}

// Defines IMAGES.
include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// Every image of this build, by file and then by architecture. Files that need an architecture's own instructions
/// are compiled for that one only.
#[must_use]
pub fn images() -> &'static [Image] {
    IMAGES
}

/// The PTX of the kernel file `name` for a virtual architecture, if this build has it.
#[must_use]
pub fn ptx(name: &str, arch: Arch) -> Option<&'static str> {
    let image = find(name, arch).filter(|_| arch.is_virtual())?;
    std::str::from_utf8(image.bytes).ok()
}

/// The image of the kernel file `name` for an architecture, if this build has it.
pub(crate) fn find(name: &str, arch: Arch) -> Option<&'static Image> {
    IMAGES.iter().find(|image| image.kernel_file == name && image.arch == arch)
}

/// The best image of a kernel file for a compute capability, if this build has one that its GPUs run.
pub(crate) fn choose(name: &str, capability: (i32, i32)) -> Option<&'static Image> {
    Arch::running_on(capability).into_iter().find_map(|arch| find(name, arch))
}

/// The error of a device for which [`choose`] or [`find`] found nothing.
pub(crate) fn missing(name: &'static str, device: String) -> Error {
    let built = IMAGES.iter().filter(|image| image.kernel_file == name).map(|image| image.arch.name());
    Error::NoKernelImage { kernel_file: name, device, built: built.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every compute capability that NVIDIA ships from Ampere on, two that nvcc knows and no product has (8.8, 10.7),
    /// and one of a generation to come. Code for 10.0 runs on all of 10.x, and code for 12.0 on all of 12.x.
    #[test]
    fn a_gpu_gets_machine_code_that_it_runs_or_ptx() {
        use Arch::*;
        #[rustfmt::skip]
        let table: &[((i32, i32), &str, &[Arch])] = &[
            ((8, 0),  "A100",                  &[Sm80, Compute80]),
            ((8, 6),  "A10, A40, RTX 30",      &[Sm86, Sm80, Compute80]),
            ((8, 7),  "Jetson Orin",           &[Compute80]), // It is not promised to run code of other Ampere GPUs.
            ((8, 8),  "-",                     &[Compute80]),
            ((8, 9),  "L4, L40, RTX 40",       &[Sm89, Sm86, Sm80, Compute80]),
            ((9, 0),  "H100, H200, GH200",     &[Sm90a, Compute90a, Compute80]),
            ((10, 0), "B200, GB200",           &[Sm100, Compute80]),
            ((10, 3), "B300, GB300",           &[Sm100, Compute80]),
            ((10, 7), "-",                     &[Sm100, Compute80]),
            ((11, 0), "Jetson Thor",           &[Compute80]),
            ((12, 0), "RTX 50, RTX PRO",       &[Sm120, Compute80]),
            ((12, 1), "GB10",                  &[Sm120, Compute80]),
            ((13, 0), "-",                     &[Compute80]),
        ];
        for &(capability, gpus, expected) in table {
            assert_eq!(Arch::running_on(capability), expected, "{capability:?} ({gpus})");
            // The build may have left some of them out, but never PTX.
            let built = expected.iter().copied().find(|&arch| find("combine", arch).is_some());
            assert_eq!(choose("combine", capability).map(|image| image.arch), built, "{capability:?} ({gpus})");
        }
        assert_eq!(Arch::running_on((7, 5)), []);
        assert_eq!(choose("no such file", (9, 0)), None);
    }
}
