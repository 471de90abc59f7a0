//! What the checker and the meter write down while clusters run.

use std::collections::HashMap;

use crate::fault::Fault;
use crate::meter::{Class, Tally};
use crate::profile::Profile;

/// Most bytes that registers, local memory and call parameters of a cluster may take: far more than kernels need, and
/// little enough that an endless recursion ends before this computer's memory does.
const FRAME_BYTES: usize = 2 << 30;

/// Most bytes that clusters of one core may print in a launch. CUDA keeps the last MiB of a whole launch, unless it is told
/// otherwise (`cudaLimitPrintfFifoSize`).
const PRINTED_BYTES: usize = 64 << 20;

/// What the clusters of one core did.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub meter: Tally,
    /// How often each instruction was issued, if the launch asks for it.
    pub(super) profile: Option<Profile>,
    /// What the checker found, by function, step and kind.
    pub(super) found: HashMap<(usize, usize, &'static str), Found>,
    /// What `printf` printed in this cluster.
    printed: String,
    /// Bytes that it has printed in all of them.
    printed_bytes: usize,
    /// The cluster at work.
    cluster: u64,
    /// What earlier clusters printed.
    pub(super) pages: Vec<(u64, String)>,
    frame_bytes: usize,
}

/// The first fault of a kind at an instruction, and how often it was found there.
#[derive(Debug)]
pub(super) struct Found {
    pub fault: Fault,
    pub cluster: u64,
    pub block: [u32; 3],
    pub thread: usize,
    pub count: u64,
}

impl Ledger {
    /// An empty one.
    pub(super) fn new(profiled: bool) -> Self {
        Self { profile: profiled.then(Profile::default), ..Self::default() }
    }

    /// A warp issues an instruction for the lanes of `mask`.
    pub(super) fn issue(&mut self, class: Class, mask: u32, at: (usize, usize), warp: usize) {
        self.meter.issue(class, mask);
        if let Some(profile) = &mut self.profile {
            profile.issue(at, warp);
        }
    }

    /// Notes a fault; the first of a kind at an instruction is kept, the others are counted.
    pub fn find(&mut self, fault: Fault, block: [u32; 3], thread: usize, at: (usize, usize)) {
        let kind = match fault {
            Fault::Uninitialised { .. } => "uninitialised",
            Fault::Race { .. } => "race",
            Fault::CopyInFlight { .. } => "copy",
            Fault::ReadInFlight { .. } => "reading",
            Fault::NoProxyFence { .. } => "proxy",
            Fault::Exited { .. } => "exited",
            Fault::ProductInFlight { .. } => "product",
            Fault::NoRegisterFence { .. } => "register fence",
            Fault::Wgmma(_) => "wgmma",
            Fault::Mbarrier(_) => "mbarrier",
            Fault::DivergentBarrier(_) => "barrier",
            _ => "other",
        };
        let found = Found { fault, cluster: self.cluster, block, thread, count: 0 };
        self.found.entry((at.0, at.1, kind)).or_insert(found).count += 1;
    }

    /// Keeps what `printf` prints.
    ///
    /// # Errors
    /// [`Fault::OutOfMemory`] if it is too much.
    pub fn print(&mut self, text: &str) -> Result<(), Fault> {
        let bytes = self.printed_bytes + text.len();
        if bytes > PRINTED_BYTES {
            let why = format!("`printf` has printed {} of at most {PRINTED_BYTES} bytes", self.printed_bytes);
            return Err(Fault::OutOfMemory { bytes: text.len(), why });
        }
        self.printed_bytes = bytes;
        self.printed.push_str(text);
        Ok(())
    }

    /// Accounts for memory of the cluster's calls.
    pub fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        self.frame_bytes += bytes;
        if self.frame_bytes > FRAME_BYTES {
            return Err(Fault::Trap(format!("registers and local memory of the calls exceed {FRAME_BYTES} bytes")));
        }
        Ok(())
    }

    /// A cluster begins.
    pub(super) fn begin(&mut self, cluster: u64) {
        (self.cluster, self.frame_bytes) = (cluster, 0);
    }

    /// The cluster at work has ended.
    pub(super) fn end(&mut self) {
        if !self.printed.is_empty() {
            self.pages.push((self.cluster, std::mem::take(&mut self.printed)));
        }
    }
}
