//! A warp-specialised kernel of the suite, `decode_16` of `decode_90.cu`, with one instruction left out or changed at a
//! time: what the checker then says, and where. As it is, the suite holds that nothing is found.

use ptx_sim::fault::{Fault, Finding};
use ptx_sim::{Launch, LaunchError, Machine, Params};

/// Threads of the block, and words of a thread's results.
const THREADS: u32 = 384;
const RESULTS: usize = 72;

/// The kernel's file with `old`, at its `nth` place in the kernel, replaced by `new`.
fn changed(old: &str, nth: usize, new: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/suite/ptx/decode_90.ptx");
    let text = std::fs::read_to_string(path).expect("the suite's PTX");
    let begin = text.find(".entry decode_16(").expect("the kernel");
    let (at, _) = text[begin..].match_indices(old).nth(nth).unwrap_or_else(|| panic!("no `{old}` number {nth}"));
    let at = begin + at;
    format!("{}{new}{}", &text[..at], &text[at + old.len()..])
}

/// Runs it on zeros: weights are 1 and scales 0.
fn run(text: &str) -> Result<Vec<Finding>, LaunchError> {
    let mut machine = Machine::default();
    let module = machine.load(text).unwrap_or_else(|error| panic!("{error}"));
    let (from, to) = (1 << 20, 8 * RESULTS * THREADS as usize);
    let input = machine.memory.allocate(from).expect("memory");
    let output = machine.memory.allocate(to).expect("memory");
    machine.memory.write(input, &vec![0; from]).expect("a write");
    let launch = Launch::new([1, 1, 1], [THREADS, 1, 1]).with_dynamic_shared(120_000);
    let params = Params::new().pointer(input).pointer(output).u32(THREADS);
    machine.launch(&module, "decode_16", &launch, params.bytes()).map(|report| report.findings)
}

/// The findings at instructions that begin with `instruction`; each of them stands where it says.
fn at<'a>(findings: &'a [Finding], text: &str, instruction: &str) -> Vec<&'a Fault> {
    for finding in findings {
        let line = text.lines().nth(finding.ptx_line as usize - 1).unwrap_or_default();
        assert!(line.contains(&finding.instruction), "{finding}: `{line}`");
    }
    findings.iter().filter(|finding| finding.instruction.starts_with(instruction)).map(|found| &found.fault).collect()
}

fn findings(text: &str) -> Vec<Finding> {
    run(text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn as_it_is_nothing_is_found() {
    assert_eq!(findings(&changed("wgmma", 0, "wgmma")), []);
}

#[test]
fn ordinary_stores_need_a_proxy_fence_before_products_read_them() {
    // Of the query, and of the weights.
    for fence in ["fence.proxy.async;", "fence.proxy.async.shared::cta;"] {
        let text = changed(fence, 0, "//");
        let found = findings(&text);
        let products = at(&found, &text, "wgmma.mma_async");
        assert!(!products.is_empty() && products.len() == found.len(), "{found:?}");
        assert!(products.iter().all(|fault| matches!(fault, Fault::NoProxyFence { .. })), "{found:?}");
    }
}

#[test]
fn scores_that_are_read_before_the_wait_are_in_flight() {
    let text = changed("wgmma.wait_group.sync.aligned 0;", 0, "//");
    let found = findings(&text);
    let early = at(&found, &text, "");
    assert!(early.iter().any(|fault| matches!(fault, Fault::ProductInFlight { .. })), "{found:?}");
}

#[test]
fn registers_of_codes_need_a_fence_before_they_are_multiplied() {
    let text = changed("wgmma.fence.sync.aligned;", 0, "//");
    let found = findings(&text);
    let products = at(&found, &text, "wgmma.mma_async");
    assert!(!products.is_empty() && products.len() == found.len(), "{found:?}");
    assert!(matches!(products[0], Fault::Wgmma(_) | Fault::NoRegisterFence { .. }), "{found:?}");
}

#[test]
fn weights_of_other_warps_need_a_barrier() {
    // The barrier of a warpgroup behind `stmatrix`: its number is in a register.
    let text = changed("bar.sync %r", 0, "// %r");
    let found = findings(&text);
    let products = at(&found, &text, "wgmma.mma_async");
    assert!(products.iter().any(|fault| matches!(fault, Fault::Race { .. })), "{found:?}");
}

#[test]
fn a_stage_that_nobody_gives_back_is_a_deadlock() {
    let text = changed("mbarrier.arrive.shared::cta.b64 _, ", 0, "// ");
    match run(&text) {
        Err(LaunchError::Fault(finding)) => {
            assert!(matches!(finding.fault, Fault::Deadlock(_)), "{finding}");
            assert!(finding.to_string().contains("mbarrier.try_wait"), "{finding}");
        }
        other => panic!("{other:?}"),
    }
}
