//! The kernels' images: what the build script compiled `csrc/*.cu` to, embedded.
//!
//! A build without a CUDA compiler has none.

mod arch;

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
    let image = IMAGES.iter().find(|image| arch.is_virtual() && image.kernel_file == name && image.arch == arch)?;
    std::str::from_utf8(image.bytes).ok()
}
