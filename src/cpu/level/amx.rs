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

/// Configuration of the tiles, as instructions read and write it. Ours: eight of 16 rows with 64 bytes (palette 1).
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Of a thread that uses no tiles.
const NONE: Configuration =
    Configuration { palette: 0, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };

static CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// The tiles of a thread, configured as long as this lives. Then they are configured as they were before: other libraries,
/// ggml for one, configure a thread's tiles once and rely on it ever after.
pub(in crate::cpu) struct Tiles {
    before: Configuration,
    /// A thread's own.
    not_send: PhantomData<*const ()>,
}

impl Tiles {
    /// # Safety
    /// The machine has AMX, and the process may use it.
    pub unsafe fn new() -> Self {
        let mut before = NONE;
        // SAFETY: promised by the caller; the instructions write and read the 64 bytes of a configuration.
        unsafe {
            asm!("sttilecfg [{}]", in(reg) &raw mut before, options(nostack, preserves_flags));
            load(&CONFIGURATION);
        }
        Self { before, not_send: PhantomData }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: there are tiles, and the configuration was one of this thread's.
        unsafe { load(&self.before) };
    }
}

/// Configures this thread's tiles, whose contents are lost.
///
/// # Safety
/// There are tiles, and the configuration is a valid one.
unsafe fn load(configuration: &Configuration) {
    // SAFETY: promised by the caller; the instruction reads the 64 bytes of the configuration.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &raw const *configuration, options(nostack, preserves_flags, readonly));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This thread's.
    fn configured() -> ([u16; 16], [u8; 16]) {
        let mut now = NONE;
        // SAFETY: there are tiles; the instruction writes the 64 bytes of a configuration.
        unsafe { asm!("sttilecfg [{}]", in(reg) &raw mut now, options(nostack, preserves_flags)) };
        (now.row_bytes, now.rows)
    }

    #[test]
    fn tiles_are_configured_as_before_when_they_are_given_back() {
        if !is_available() {
            return;
        }
        let nothing = configured();
        // SAFETY: there are tiles.
        let others = unsafe {
            drop(Tiles::new());
            assert_eq!(configured(), nothing);
            let mut others = NONE;
            (others.palette, others.row_bytes[0], others.rows[0]) = (1, 32, 7);
            load(&others);
            others
        };
        {
            // SAFETY: as above.
            let _ours = unsafe { Tiles::new() };
            assert_eq!(configured(), (CONFIGURATION.row_bytes, CONFIGURATION.rows));
        }
        assert_eq!(configured(), (others.row_bytes, others.rows));
        // SAFETY: as above.
        unsafe { load(&NONE) };
    }
}
