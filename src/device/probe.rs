//! Looking for the driver before anything else calls it.
//!
//! cudarc loads the driver when it is first needed and panics if it is not there. So the library is opened here first,
//! by the same names, and the three questions that can be answered without a context are asked.

use std::error::Error as _;
use std::ffi::c_int;

use libloading::Library;

use crate::error::{Error, Result};

/// The driver's library, by the names that the system may have it under.
const NAMES: &[&str] = if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };

/// The oldest CUDA version whose driver loads images made by nvcc 13.0, and the one whose functions cudarc binds
/// (Cargo.toml): `1000 * major + 10 * minor`.
const OLDEST: i32 = 13_000;

/// Number of devices.
///
/// # Errors
/// [`Error::NoDriver`], [`Error::DriverTooOld`], [`Error::NoDevice`] without any device, [`Error::Driver`] if the
/// driver cannot start.
pub fn devices() -> Result<usize> {
    let library = open()?;
    let found = ask(&library, "cuDriverGetVersion")?;
    if found < OLDEST {
        return Err(Error::DriverTooOld { found: version(found), needed: version(OLDEST) });
    }
    match call::<unsafe extern "C" fn(u32) -> c_int>(&library, "cuInit", |init| {
        // SAFETY: cuInit takes one number, which must be 0.
        unsafe { init(0) }
    })? {
        0 => {}
        NO_DEVICE => return Err(Error::NoDevice { ordinal: 0, count: 0 }),
        code => return Err(Error::Driver { call: "cuInit", why: format!("error {code}") }),
    }
    Ok(usize::try_from(ask(&library, "cuDeviceGetCount")?).unwrap_or(0))
}

/// `CUDA_ERROR_NO_DEVICE`.
const NO_DEVICE: c_int = 100;

fn open() -> Result<Library> {
    let mut reasons = Vec::new();
    for &name in NAMES {
        // SAFETY: loading a library runs its initialisers; this is NVIDIA's driver, which programs load in this way.
        match unsafe { Library::new(name) } {
            Ok(library) => return Ok(library),
            // What the system said is the error's source.
            Err(error) => reasons.push(error.source().map_or_else(|| error.to_string(), ToString::to_string)),
        }
    }
    // The first name is the usual one.
    Err(Error::NoDriver { why: reasons.swap_remove(0) })
}

/// A function that answers with one number behind a pointer.
fn ask(library: &Library, name: &'static str) -> Result<i32> {
    let mut answer = 0;
    let code = call::<unsafe extern "C" fn(*mut c_int) -> c_int>(library, name, |function| {
        // SAFETY: both functions asked in this way take one pointer to an int, which they fill.
        unsafe { function(&mut answer) }
    })?;
    match code {
        0 => Ok(answer),
        code => Err(Error::Driver { call: name, why: format!("error {code}") }),
    }
}

/// Calls a function of the driver; its result is an error code.
fn call<F: Copy>(library: &Library, name: &'static str, run: impl FnOnce(F) -> c_int) -> Result<c_int> {
    // SAFETY: `F` is the type that NVIDIA's cuda.h declares for the function.
    let symbol = unsafe { library.get::<F>(name.as_bytes()) };
    let symbol = symbol.map_err(|error| Error::NoDriver { why: format!("it lacks {name}: {error}") })?;
    Ok(run(*symbol))
}

fn version(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}
