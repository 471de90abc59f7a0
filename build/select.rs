//! What is compiled for what.

use crate::arch::Arch;

/// The part of an architecture's name that is its compute capability: `90a` of `sm_90a`.
pub fn capability(arch: Arch) -> &'static str {
    arch.name().rsplit('_').next().unwrap_or_default()
}

/// nvcc's option to compile for an architecture.
pub fn gencode(arch: Arch) -> String {
    format!("-gencode=arch=compute_{},code={}", capability(arch), arch.name())
}

/// The architectures to build for, given `CUDA_COMPUTE_CAP`, and a line on those that it lists and that the kernels are
/// not built for, if there are any: their GPUs run the nearest machine code or PTX.
///
/// All are built if it is unset or empty, else the real ones that GPUs of the listed compute capabilities run best.
/// Virtual ones are always built: they are quick, as no machine code is made, and the simulator runs them.
pub fn architectures(list: &str) -> Result<(Vec<Arch>, Option<String>), String> {
    if list.trim().is_empty() {
        return Ok((Arch::ALL.into(), None));
    }
    let (mut wanted, mut notes) = (Vec::new(), Vec::new());
    for entry in list.split(',').map(str::trim) {
        let number = number(entry).ok_or_else(|| {
            format!(
                "CUDA_COMPUTE_CAP={list}: `{entry}` is no compute capability of 8.0 (Ampere) or newer, written as in \
                 `80,90a`"
            )
        })?;
        let serving = Arch::running_on((number / 10, number % 10));
        let best = serving.first().copied().unwrap_or(Arch::Compute80);
        if best.capability() != (number / 10, number % 10) {
            let [what, how] =
                if best.is_virtual() { ["PTX", ", which the driver compiles"] } else { ["machine code", ""] };
            notes.push(format!("{entry} is served by the {what} of {}{how}", best.name()));
        }
        wanted.push(best);
    }
    let built = Arch::ALL.into_iter().filter(|arch| arch.is_virtual() || wanted.contains(arch)).collect();
    Ok((built, (!notes.is_empty()).then(|| format!("CUDA_COMPUTE_CAP={list}: {}", notes.join("; ")))))
}

/// The compute capability of an entry, 103 for 10.3. The `a` or `f` of nvcc's names may stand behind it or not: other
/// crates that read `CUDA_COMPUTE_CAP` want 90 where the machine code here is that of 90a, which runs on the same GPUs.
fn number(entry: &str) -> Option<i32> {
    let digits = entry.strip_suffix(['a', 'f']).unwrap_or(entry);
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|&number| is_plain && (80..1000).contains(&number))
}

/// Whether a kernel file is compiled for an architecture: one with Hopper's own instructions (`decode_sm90`) assembles
/// for no other.
pub fn suits(kernel_file: &str, arch: Arch) -> bool {
    !kernel_file.ends_with("_sm90") || capability(arch) == "90a"
}
