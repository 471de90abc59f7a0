//! Whether there are AMX's tiles, which the operating system has to allow to a process.

use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::sync::LazyLock;

/// Bits of leaf 7's EDX: tiles, and their products of bf16 and of 8-bit integers.
const AMX: u32 = 1 << 22 | 1 << 24 | 1 << 25;

/// Bits of the register state that the operating system saves: the tiles' configuration and their data.
const TILE_STATE: u64 = 1 << 17 | 1 << 18;

/// Whether the processor has AMX's tiles, with products of bf16 and of 8-bit integers, and this process may use them. The first call
/// asks the operating system to allow it, for all threads (Linux 5.16: `Documentation/arch/x86/xstate.rst`).
pub(super) fn is_available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| is_there() && is_allowed());
    *AVAILABLE
}

fn is_there() -> bool {
    // SAFETY: where AVX is enabled, programs may read which state the operating system saves.
    let saves_tiles = || is_x86_feature_detected!("avx") && unsafe { saved_state() } & TILE_STATE == TILE_STATE;
    __cpuid_count(7, 0).edx & AMX == AMX && saves_tiles()
}

/// The parts of the registers that the operating system saves.
///
/// # Safety
/// There is XSAVE.
#[target_feature(enable = "xsave")]
unsafe fn saved_state() -> u64 {
    // SAFETY: promised by the caller.
    unsafe { _xgetbv(0) }
}

#[cfg(target_os = "linux")]
fn is_allowed() -> bool {
    /// `ARCH_REQ_XCOMP_PERM`, and the number of the tiles' data among the parts of the state.
    const REQUEST_PERMISSION: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: it takes two numbers, and changes nothing but what the process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn is_allowed() -> bool {
    false
}
