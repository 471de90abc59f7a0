//! How often basic blocks run, found from the simulator's counts of PTX.

use std::collections::BTreeMap;

use latent_attention_cost::counts::{Evidence, Gap, Matcher, gaps, slots_by_evidence};
use latent_attention_cost::sass::blocks::Graph;
use latent_attention_cost::sass::parse::{Function, parse};
use ptx_sim::{Launch, Machine};

/// How often each line was issued when `copy_pages` copies two pages of 300 units of 16 bytes and refuses a third copy.
fn copied() -> BTreeMap<u32, u64> {
    let mut machine = Machine::default();
    let module = machine.load(include_str!("data/copy_pages.ptx")).unwrap();
    let page = 300 * 16;
    let cache = machine.memory.allocate(4 * page).unwrap();
    machine.memory.write(cache, &vec![7; 4 * page]).unwrap();
    let copies = machine.memory.allocate(24).unwrap();
    let ids: Vec<u8> = [0u32, 1, 2, 3, 99, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    machine.memory.write(copies, &ids).unwrap();
    let counters = machine.memory.allocate_zeros(8).unwrap();
    // struct CopyPagesParams: the cache's address, bytes and number of pages; copies and counters at 64 and 72.
    let mut params = vec![0; 88];
    params[..8].copy_from_slice(&cache.to_le_bytes());
    params[8..16].copy_from_slice(&(page as u64).to_le_bytes());
    params[16..20].copy_from_slice(&4u32.to_le_bytes());
    params[64..72].copy_from_slice(&copies.to_le_bytes());
    params[72..80].copy_from_slice(&counters.to_le_bytes());
    let launch = Launch::new([3, 1, 1], [256, 1, 1]).with_profile(true);
    let report = machine.launch(&module, "copy_pages", &launch, &params).unwrap();
    report.profile.iter().map(|executed| (executed.ptx_line, executed.warps())).collect()
}

#[test]
fn blocks_of_a_kernel_run_as_often_as_its_threads_take_them() {
    let function = parse(include_str!("data/copy_pages.sass")).unwrap().remove(0);
    let graph = Graph::new(&function);
    let found = Matcher::new(&function, &graph).runs(&copied());
    // Eight warps of each block; two blocks copy and no unit is the fourth of its thread; of the third block one warp
    // counts the refusal. The block of copies has guarded loads whose branches most warps jump over in PTX.
    let counts: Vec<f64> = found.iter().map(|runs| runs.count).collect();
    assert_eq!(counts, [24.0, 16.0, 0.0, 8.0, 1.0, 0.0, 0.0]);
    let evidence: Vec<Evidence> = found.iter().map(|runs| runs.evidence).collect();
    assert_eq!(evidence[..5], [Evidence::Lines; 5]);
    assert_eq!(evidence[5..], [Evidence::Unreachable; 2]);
}

/// Machine code of `(label, guard and opcode, target, line)`.
fn code(lines: &[(&str, &str, &str, u32)]) -> Function {
    let mut text = String::from(".text.k:\n");
    for (i, (label, opcode, target, line)) in lines.iter().enumerate() {
        if !label.is_empty() {
            text += &format!("{label}:\n");
        }
        let target = if target.is_empty() { String::new() } else { format!("`({target})") };
        text += &format!("//## File \".nv_debug_ptx_txt\", line {line}\n");
        text += &format!("/*{:04x}*/ {opcode} {target} ; /* 0x1 */\n/* 0x000fe20000000000 */\n", 16 * i);
    }
    parse(&text).unwrap().remove(0)
}

fn found(function: &Function, issued: &[(u32, u64)]) -> Vec<(f64, Evidence)> {
    let graph = Graph::new(function);
    let runs = Matcher::new(function, &graph).runs(&issued.iter().copied().collect());
    runs.iter().map(|runs| (runs.count, runs.evidence)).collect()
}

#[test]
fn of_an_unrolled_loop_each_copy_runs_its_share() {
    // Four copies of the load of line 2 in one body.
    let function = code(&[
        ("", "MOV", "", 1),
        (".L", "LDS R0", "", 2),
        ("", "LDS R1", "", 2),
        ("", "LDS R2", "", 2),
        ("", "LDS R3", "", 2),
        ("", "@P0 BRA", ".L", 3),
        ("", "EXIT", "", 4),
    ]);
    let found = found(&function, &[(1, 5), (2, 400), (3, 400), (4, 5)]);
    // The line of the loop's branch says 400, and has less of a say than the loads.
    assert_eq!(found, [(5.0, Evidence::Lines), (100.0, Evidence::Lines), (5.0, Evidence::Lines)]);
}

#[test]
fn blocks_that_share_a_line_run_as_often_as_it_was_issued() {
    // The body of a loop and what is left over from unrolling it: line 2 stands in both, line 3 in the first alone.
    let function = code(&[
        (".L", "LDS R0", "", 2),
        ("", "STS R0", "", 3),
        ("", "@P0 BRA", ".L", 9),
        ("", "LDS R0", "", 2),
        ("", "EXIT", "", 9),
    ]);
    let found = found(&function, &[(2, 70), (3, 60), (9, 1)]);
    assert_eq!(found, [(60.0, Evidence::Lines), (10.0, Evidence::Sums)]);
}

#[test]
fn a_loop_whose_first_round_was_taken_out_runs_the_others() {
    // The product of line 2 stands in front of the loop and in it, the counter of line 3 in the loop alone.
    let function = code(&[
        ("", "LDS R0", "", 1),
        ("", "@P1 BRA", ".E", 1),
        ("", "HMMA.16816.F32 R0", "", 2),
        (".L", "HMMA.16816.F32 R0", "", 2),
        ("", "IADD R1", "", 3),
        ("", "@P0 BRA", ".L", 3),
        ("", "BRA", ".J", 4),
        (".E", "LDS R2", "", 5),
        (".J", "EXIT", "", 6),
    ]);
    let found = found(&function, &[(1, 8), (2, 12), (3, 12), (4, 6), (5, 2), (6, 8)]);
    let counts: Vec<f64> = found.iter().map(|(count, _)| *count).collect();
    assert_eq!(counts, [8.0, 6.0, 6.0, 6.0, 2.0, 8.0]);
}

#[test]
fn a_block_without_lines_of_its_own_runs_as_often_as_it_is_entered() {
    // Line 5 stands on one way of the branch and behind both, and neither is known before the flow is seen.
    let function = code(&[
        ("", "LDS R0", "", 1),
        ("", "@P0 BRA", ".E", 1),
        ("", "MOV", "", 5),
        ("", "BRA", ".J", 5),
        (".E", "LDS R2", "", 3),
        (".J", "EXIT", "", 5),
    ]);
    let found = found(&function, &[(1, 50), (3, 20), (5, 80)]);
    let expected = [Evidence::Lines, Evidence::Flow, Evidence::Lines, Evidence::Sums];
    assert_eq!(found, [50.0, 30.0, 20.0, 50.0].into_iter().zip(expected).collect::<Vec<_>>());
}

#[test]
fn code_for_diverged_lanes_does_not_run() {
    let function =
        code(&[("", "SHFL R0", "", 1), ("", "BRA.DIV", ".D", 1), ("", "EXIT", "", 2), (".D", "EXIT", "", 1)]);
    assert_eq!(
        found(&function, &[(1, 8), (2, 8)]),
        [(8.0, Evidence::Lines), (8.0, Evidence::Lines), (0.0, Evidence::Unreachable)]
    );
}

#[test]
fn what_cannot_be_matched_is_said_with_the_slots_that_it_may_have() {
    // Both ways of the branch have the same line and nothing else.
    let function = code(&[
        ("", "LDS R0", "", 1),
        ("", "@P0 BRA", ".E", 1),
        ("", "MOV", "", 2),
        ("", "BRA", ".J", 2),
        (".E", "MOV", "", 2),
        (".J", "LDS R1", "", 3),
        ("", "EXIT", "", 3),
    ]);
    let graph = Graph::new(&function);
    let runs = Matcher::new(&function, &graph).runs(&BTreeMap::from([(1, 10), (2, 10), (3, 10)]));
    assert_eq!(runs[1].evidence, Evidence::Unmatched);
    assert_eq!(runs[2].evidence, Evidence::Unmatched);
    let slots = slots_by_evidence(&graph, &runs);
    // At most ten times two and one instructions; the four that are known ten times each.
    assert_eq!(slots[&Evidence::Unmatched], 30.0);
    assert_eq!(slots[&Evidence::Lines], 40.0);
    let gap = |address, instructions, slots| Gap { address, instructions, lines: Some((2, 2)), slots };
    assert_eq!(gaps(&function, &graph, &runs), [gap(0x20, 2, 20.0), gap(0x40, 1, 10.0)]);
}
