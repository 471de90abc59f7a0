//! The interface's version.

/// The version of this interface. It grows with every change that a program compiled against an older header would not
/// survive; compare it with what la_abi_version() returns.
pub const LA_ABI_VERSION: u32 = 3;

/// The LA_ABI_VERSION that the library was built with.
#[unsafe(no_mangle)]
pub extern "C" fn la_abi_version() -> u32 {
    LA_ABI_VERSION
}
