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

/// The error of a device for which [`find`] found nothing.
pub(crate) fn missing(name: &'static str, device: String) -> Error {
    let built = IMAGES.iter().filter(|image| image.kernel_file == name).map(|image| image.arch.name());
    Error::NoKernelImage { kernel_file: name, device, built: built.collect() }
}
