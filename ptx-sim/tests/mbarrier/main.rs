//! `mbarrier` objects: phases, who may go on when, and what goes wrong at them.

mod copies;
mod faults;
#[path = "../kernels/mod.rs"]
mod kernels;
mod phases;
mod random;
mod remote;

use kernels::{Kernel, Ran};
use ptx_sim::LaunchError;
use ptx_sim::fault::Fault;
use ptx_sim::meter::Event;

fn kernel(body: &str, threads: u32) -> Kernel<'_> {
    Kernel { body, threads, output: 512, ..Kernel::default() }
}

/// Thread 0 initialises the object at shared address 0 for `count` arrivals, and `rest` follows behind a barrier.
fn initialised(count: u32, rest: &str) -> String {
    format!("setp.eq.u32 %p7, %r0, 0;\n@%p7 mbarrier.init.shared.b64 [s], {count};\nbar.sync 0;\n{rest}")
}

fn mbarrier(fault: &Fault) -> &str {
    match fault {
        Fault::Mbarrier(why) => why,
        other => panic!("{other}"),
    }
}

/// Why nobody could go on, which must be found before any warp has issued 40,000 instructions: far less than a second.
fn deadlock(kernel: Kernel) -> String {
    deadlock_of(Kernel { steps: 40_000, ..kernel })
}

/// Why nobody could go on, found within the kernel's own number of steps.
fn deadlock_of(kernel: Kernel) -> String {
    match kernel.run().result {
        Err(LaunchError::Fault(finding)) => match finding.fault {
            Fault::Deadlock(why) => why,
            other => panic!("{other}"),
        },
        other => panic!("{other:?}"),
    }
}

fn waits(ran: &Ran) -> u64 {
    ran.report().meter.events.get(&Event::MbarrierWait).copied().unwrap_or(0)
}
