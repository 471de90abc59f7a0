//! What kernels make the simulator remember, and that it is no more than they need: asynchronous operations, their
//! groups, the objects that they complete on, what the checker knows of it all, and what warps print.

mod engines;
mod flights;
mod groups;
#[path = "../kernels/mod.rs"]
mod kernels;
mod records;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use kernels::{Kernel, Ran};

/// The system's allocator, which counts the bytes of each thread.
struct Counting;

thread_local! {
    /// Bytes that the thread has allocated more than it has freed, and the most that they were.
    static COUNTS: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: isize) {
    // A thread that ends frees memory when its counts are gone already.
    let _ = COUNTS.try_with(|counts| {
        let (now, most) = counts.get();
        counts.set((now + bytes, most.max(now + bytes)));
    });
}

// SAFETY: every call is handed on to the system's allocator as it is, and counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above; `at` came from it.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs a kernel with a loop of so many rounds: the body has `ROUNDS` where their number is. The second result is the
/// most bytes that it has taken at any time.
fn run(kernel: &Kernel, rounds: u32) -> (Ran, isize) {
    let body = kernel.body.replace("ROUNDS", &rounds.to_string());
    let kernel = Kernel { body: &body, steps: 100_000_000, ..kernel.clone() };
    let before = COUNTS.with(|counts| {
        let (now, _) = counts.get();
        counts.set((now, now));
        now
    });
    let ran = kernel.run();
    (ran, COUNTS.get().1 - before)
}

/// A loop takes as much memory in many rounds as in a few: 4 KiB more at most, less than one byte of each round.
fn takes_no_memory(kernel: &Kernel) {
    takes_no_memory_in(kernel, 2500);
}

/// The same, where few rounds are so many, and many are four times as many.
fn takes_no_memory_in(kernel: &Kernel, rounds: u32) {
    let [few, many] = [rounds, 4 * rounds].map(|rounds| {
        let (ran, bytes) = run(kernel, rounds);
        let report = ran.report();
        assert!(report.findings.is_empty(), "{}: {}", report.findings[0], kernel.body);
        bytes
    });
    assert!(many < few + 4096, "{few} bytes and {many} bytes: {}", kernel.body);
}

/// `body` in a loop of `ROUNDS` rounds, which count in `%r31`.
fn rounds(body: &str) -> String {
    format!(
        "mov.u32 %r31, 0;
        ROUND: {body}
        add.u32 %r31, %r31, 1;
        setp.lt.u32 %p6, %r31, ROUNDS;
        @%p6 bra ROUND;"
    )
}
