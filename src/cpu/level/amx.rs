//! AMX's tiles: whether there are any, which the operating system has to allow to a process, and a thread's own.
//!
//! Rust has no stable intrinsics of AMX yet.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::marker::PhantomData;
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

/// Configuration of the tiles: eight of 16 rows with 64 bytes (palette 1).
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The tiles of a thread, configured as long as this lives.
pub(in crate::cpu) struct Tiles {
    /// A thread's own.
    not_send: PhantomData<*const ()>,
}

impl Tiles {
    /// # Safety
    /// The machine has AMX, and the process may use it.
    pub unsafe fn new() -> Self {
        // SAFETY: promised by the caller; the instruction reads the 64 bytes of the configuration.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(nostack, preserves_flags, readonly));
        }
        Self { not_send: PhantomData }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: there are tiles.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}
