//! How calls end: a status, and a message per thread.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use latent_attention::error::Error;

/// How a call ended. Other values may be added; whatever is not LA_STATUS_OK is a failure.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaStatus {
    /// Done.
    Ok = 0,
    /// A pointer, or the address of memory that is not empty, is null.
    NullPointer = 1,
    /// A model's sizes contradict each other.
    Geometry = 2,
    /// A tensor or array has the wrong number of elements, or elements of the wrong type.
    Shape = 3,
    /// An index lies outside of what it points into.
    Index = 4,
    /// Two arguments do not belong together, or an option's value is not one of those known.
    Config = 5,
    /// Memory does not begin where it needs to.
    Alignment = 6,
    /// The workspace is smaller than la_decode_workspace_bytes() says.
    WorkspaceTooSmall = 7,
    /// There is no NVIDIA driver on this machine.
    NoDriver = 8,
    /// The driver is older than the kernels' compiler.
    DriverTooOld = 9,
    /// There is no such GPU.
    NoDevice = 10,
    /// The GPU is older than Ampere.
    UnsupportedArch = 11,
    /// This build has no kernels that the device can run.
    NoKernelImage = 12,
    /// The driver refused a call, or a device has not enough memory.
    Driver = 13,
    /// A kernel could not be loaded, or the simulator found it doing something wrong.
    Kernel = 14,
    /// A bug in this library.
    Internal = 15,
}

/// Why a call failed.
pub(crate) enum Failure {
    Null(&'static str),
    Refused(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

pub(crate) type Outcome<T> = std::result::Result<T, Failure>;

impl Failure {
    fn status(&self) -> LaStatus {
        let Self::Refused(error) = self else { return LaStatus::NullPointer };
        match error {
            Error::Geometry { .. } => LaStatus::Geometry,
            Error::Shape { .. } => LaStatus::Shape,
            Error::Index { .. } => LaStatus::Index,
            // Callers in C tell these apart by their messages: the numbers of `LaStatus` stay as they are.
            Error::Config { .. }
            | Error::Unsupported { .. }
            | Error::Capacity { .. }
            | Error::OtherDevice { .. }
            | Error::NotFinite { .. }
            | Error::OutOfMemory { .. } => LaStatus::Config,
            Error::Alignment { .. } => LaStatus::Alignment,
            Error::WorkspaceTooSmall { .. } => LaStatus::WorkspaceTooSmall,
            Error::NoDriver { .. } => LaStatus::NoDriver,
            Error::DriverTooOld { .. } => LaStatus::DriverTooOld,
            Error::NoDevice { .. } => LaStatus::NoDevice,
            Error::UnsupportedArch { .. } => LaStatus::UnsupportedArch,
            Error::NoKernelImage { .. } => LaStatus::NoKernelImage,
            Error::Driver { .. } => LaStatus::Driver,
            Error::Kernel { .. } => LaStatus::Kernel,
            // Of files and factorisations, which no function here touches.
            Error::Numeric { .. } | Error::Io { .. } | Error::File { .. } | Error::Tensor { .. } => LaStatus::Internal,
            // The crate may come to have more errors, each of which needs a status.
            _ => LaStatus::Internal,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Null(what) => format!("{what}: is a null pointer"),
            Self::Refused(error) => error.to_string(),
        }
    }
}

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
}

/// What went wrong in the last call of this thread that failed, in one line; empty if none has. The text stays where it
/// is until another call of the same thread fails.
#[unsafe(no_mangle)]
pub extern "C" fn la_last_error() -> *const c_char {
    // A thread that is ending may have lost its message already.
    MESSAGE.try_with(|message| message.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// Runs what a function does, and keeps the message of its failure.
pub(crate) fn report(work: impl FnOnce() -> Outcome<()>) -> LaStatus {
    // What a panic may leave half done is only ever destroyed.
    let (status, message) = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return LaStatus::Ok,
        Ok(Err(failure)) => (failure.status(), failure.message()),
        Err(panic) => (LaStatus::Internal, format!("a bug in latent_attention: {}", panic_text(&*panic))),
    };
    let text = CString::new(one_line(&message)).unwrap_or_default();
    let _ = MESSAGE.try_with(|message| message.replace(text));
    status
}

/// A message without line breaks and other control characters, which the driver, the simulator and the names that
/// callers hand in may bring.
fn one_line(message: &str) -> String {
    let is_break = |c: char| c.is_control() || ['\u{2028}', '\u{2029}'].contains(&c);
    let lines = message.split(is_break).map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked")
}

/// What a pointer to read points to.
///
/// # Safety
/// It is null, or points to a `T` that nothing writes meanwhile.
pub(crate) unsafe fn read<'a, T>(what: &'static str, pointer: *const T) -> Outcome<&'a T> {
    // SAFETY: promised by the caller.
    unsafe { pointer.as_ref() }.ok_or(Failure::Null(what))
}

/// A text.
///
/// # Safety
/// The pointer is null, or points to a text that ends with a zero and that nothing writes meanwhile.
pub(crate) unsafe fn text<'a>(what: &'static str, pointer: *const c_char) -> Outcome<&'a CStr> {
    if pointer.is_null() {
        return Err(Failure::Null(what));
    }
    // SAFETY: promised by the caller.
    Ok(unsafe { CStr::from_ptr(pointer) })
}

/// Writes what `make` makes to where the caller wants it; if it fails, nothing.
///
/// # Safety
/// `out` is null, or a `T` can be written there.
pub(crate) unsafe fn give<T>(out: *mut T, make: impl FnOnce() -> Outcome<T>) -> LaStatus {
    report(|| {
        if out.is_null() {
            return Err(Failure::Null("out"));
        }
        let value = make()?;
        // SAFETY: promised by the caller.
        unsafe { out.write(value) };
        Ok(())
    })
}

/// [`give`], of a handle.
///
/// # Safety
/// As [`give`].
pub(crate) unsafe fn create<T>(out: *mut *mut T, make: impl FnOnce() -> Outcome<T>) -> LaStatus {
    // SAFETY: promised by the caller.
    unsafe { give(out, || Ok(Box::into_raw(Box::new(make()?)))) }
}

/// Ends a handle; null is none.
///
/// # Safety
/// The handle is one that [`create`] gave, and not ended yet.
pub(crate) unsafe fn destroy<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: promised by the caller.
        let owned = unsafe { Box::from_raw(handle) };
        report(|| {
            drop(owned);
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_status_and_its_message_that_of_the_thread() {
        let status = report(|| panic!("no such thing as {}", 5));
        assert_eq!(status, LaStatus::Internal);
        // SAFETY: it is a text, and nothing fails meanwhile in this thread.
        let message = unsafe { CStr::from_ptr(la_last_error()) };
        assert_eq!(message, c"a bug in latent_attention: no such thing as 5");
        let elsewhere = std::thread::spawn(|| {
            // SAFETY: as above.
            unsafe { CStr::from_ptr(la_last_error()) }.to_owned()
        });
        assert_eq!(elsewhere.join().unwrap(), c"".to_owned());
    }

    #[test]
    fn every_message_is_one_line() {
        let why = "ptxas fatal:\r\n\n  line 2\tof\0it\u{85}3\u{2028}4\n".to_owned();
        let folded = "ptxas fatal: line 2 of it 3 4";
        let message = || {
            // SAFETY: it is a text, and nothing fails meanwhile in this thread.
            unsafe { CStr::from_ptr(la_last_error()) }.to_str().unwrap().to_owned()
        };
        report(|| Err(Error::Driver { call: "cuModuleLoadData", why: why.clone() }.into()));
        assert_eq!(message(), format!("cuModuleLoadData: {folded}"));
        report(|| panic!("{why}"));
        assert_eq!(message(), format!("a bug in latent_attention: {folded}"));
    }
}
