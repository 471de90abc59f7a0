//! The host as a device: memory of the process, and operations that run at once in the caller's thread and in a pool's.

use std::alloc::Layout;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rayon::ThreadPool;

use super::Limits;
use crate::cpu::{Level, Operation, TASKS_AT_ONCE};
use crate::error::{Error, Result};

/// How a device on the host is made.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CpuConfig {
    /// The instructions that it uses; `None`: those that the environment variable `LATENT_ATTENTION_CPU` names, or the
    /// best that the machine has.
    pub level: Option<Level>,
    /// The threads that it works with; `None`: rayon's global pool. Results are the same to the bit whatever the pool.
    pub pool: Option<Arc<ThreadPool>>,
}

impl CpuConfig {
    /// The same with these instructions.
    #[must_use]
    pub fn with_level(self, level: Level) -> Self {
        Self { level: Some(level), ..self }
    }

    /// The same with these threads.
    #[must_use]
    pub fn with_pool(self, pool: Arc<ThreadPool>) -> Self {
        Self { pool: Some(pool), ..self }
    }
}

pub(super) struct Cpu {
    name: String,
    level: Level,
    pool: Option<Arc<ThreadPool>>,
}

/// Every buffer begins on a multiple of it.
const ALIGNMENT: usize = 256;

/// What lies in front of a buffer: the address and the bytes of the allocation that it is in.
type Header = [usize; 2];

impl Cpu {
    pub(super) fn new(config: CpuConfig) -> Result<Self> {
        let level = config.level.map_or_else(Level::from_environment, Level::checked)?;
        Ok(Self { name: format!("cpu ({level})"), level, pool: config.pool })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// Operations divide their work by these; nothing is limited.
    pub(super) fn limits(&self) -> Limits {
        Limits { shared_bytes: usize::MAX, shared_bytes_per_multiprocessor: usize::MAX, multiprocessors: TASKS_AT_ONCE }
    }

    /// Zeros, which cost nothing until they are written.
    pub(super) fn allocate(&self, bytes: usize) -> Result<u64> {
        let refused = || Error::OutOfMemory {
            what: format!("{bytes} bytes"),
            why: "more than this computer's memory holds".into(),
        };
        let layout = bytes.checked_add(ALIGNMENT).and_then(layout).ok_or_else(refused)?;
        // SAFETY: the layout is not empty.
        let start = unsafe { std::alloc::alloc_zeroed(layout) };
        if start.is_null() {
            return Err(refused());
        }
        // The allocation begins on a multiple of a header's size, so that there is room for one in front.
        let offset = ALIGNMENT - start.addr() % ALIGNMENT;
        // SAFETY: the allocation has that many bytes more than were asked for, and `offset` is at least a header's size.
        let address = unsafe {
            let address = start.add(offset);
            address.cast::<Header>().sub(1).write([start.expose_provenance(), layout.size()]);
            address
        };
        Ok(address.expose_provenance() as u64)
    }

    pub(super) fn free(&self, address: u64) {
        let address = std::ptr::with_exposed_provenance_mut::<u8>(address as usize);
        // SAFETY: buffers free what they allocated, once, and nothing writes in front of them.
        unsafe {
            let [start, bytes] = address.cast::<Header>().sub(1).read();
            if let Some(layout) = layout(bytes) {
                std::alloc::dealloc(std::ptr::with_exposed_provenance_mut(start), layout);
            }
        }
    }

    pub(super) fn write(&self, address: u64, bytes: &[u8]) {
        let to = std::ptr::with_exposed_provenance_mut::<u8>(address as usize);
        // SAFETY: views reach over memory of the process only, which nothing else uses while they are written through.
        unsafe { std::ptr::copy(bytes.as_ptr(), to, bytes.len()) };
    }

    pub(super) fn read(&self, address: u64, bytes: &mut [u8]) {
        let from = std::ptr::with_exposed_provenance::<u8>(address as usize);
        // SAFETY: views reach over memory of the process only, which nothing writes while they are read through.
        unsafe { std::ptr::copy(from, bytes.as_mut_ptr(), bytes.len()) };
    }

    /// Runs an operation to its end. A panic, of whichever thread, is an error.
    ///
    /// # Safety
    /// As [`Operation`].
    pub(super) unsafe fn launch<P>(&self, name: &str, operation: Operation, params: &P) -> Result<()> {
        let address = std::ptr::from_ref(params).expose_provenance();
        // SAFETY: promised by the caller.
        self.work(name, || unsafe { operation(std::ptr::with_exposed_provenance(address), self.level) })
    }

    /// Runs what makes tasks, in the pool.
    fn work(&self, name: &str, work: impl FnOnce() + Send) -> Result<()> {
        let run = AssertUnwindSafe(|| match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        });
        catch_unwind(run)
            .map_err(|panic| Error::Kernel { name: name.into(), why: format!("panicked: {}", said(&*panic)) })
    }
}

/// That of an allocation of so many bytes.
fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes, size_of::<Header>()).ok()
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("for a reason that it did not say")
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[test]
    fn a_panic_of_a_worker_is_an_error() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for config in [CpuConfig::default(), CpuConfig::default().with_pool(Arc::new(pool))] {
            let cpu = Cpu::new(config).unwrap();
            let work = || (0..100).into_par_iter().for_each(|task| assert!(task != 57, "task {task} went wrong"));
            let message = cpu.work("combine", work).unwrap_err().to_string();
            assert_eq!(message, "kernel `combine`: panicked: task 57 went wrong");
            // The threads are still there.
            cpu.work("combine", || (0..100).into_par_iter().for_each(|_| {})).unwrap();
        }
    }
}
