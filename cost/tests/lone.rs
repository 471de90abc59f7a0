//! A lone warp's path through small programs, against cycles that were counted by hand from the latencies of
//! `sass::pipes`: 30 of shared memory, 20 of special functions, 33 of tensor-core products, 450 of global memory.

use latent_attention_cost::counts::{Evidence, Runs};
use latent_attention_cost::lone::block_cycles;
use latent_attention_cost::sass::blocks::Graph;
use latent_attention_cost::sass::parse::parse;

/// The upper word of an instruction: stall, the scoreboard that its result and that its operands release, and the mask of
/// those that it waits for.
fn word(stall: u64, write: u64, read: u64, wait: u64) -> u64 {
    (stall | 1 << 4 | write << 5 | read << 8 | wait << 11) << 41
}

/// No scoreboard.
const NONE: u64 = 7;

/// Cycles of each block, each of which runs as often as `counts` says.
fn cycles(lines: &[(&str, u64)], counts: &[f64]) -> Vec<f64> {
    let mut text = String::from(".text.k:\n");
    for (i, (line, word)) in lines.iter().enumerate() {
        let (label, instruction) = line.split_once(": ").unwrap_or(("", line));
        if !label.is_empty() {
            text += &format!("{label}:\n");
        }
        text += &format!("/*{:04x}*/ {instruction} ; /* 0x1 */\n/* 0x{word:016x} */\n", 16 * i);
    }
    let function = parse(&text).unwrap().remove(0);
    let graph = Graph::new(&function);
    assert_eq!(graph.blocks.len(), counts.len());
    let runs: Vec<Runs> = counts.iter().map(|&count| Runs { count, evidence: Evidence::Lines }).collect();
    block_cycles(&function, &graph, &runs)
}

#[test]
fn what_waits_for_a_scoreboard_is_issued_when_it_is_free() {
    let code = [
        ("LDS R0, [R1]", word(2, 0, NONE, 0)),
        ("FADD R2, R0, R0", word(4, NONE, NONE, 0b1)),
        ("EXIT", word(5, NONE, NONE, 0)),
    ];
    // The load at 0; the sum at 30; the end at 34, and 5 behind it.
    assert_eq!(cycles(&code, &[1.0]), [39.0]);
}

#[test]
fn what_waits_for_nothing_hides_a_latency() {
    let code = [
        ("LDS R0, [R1]", word(2, 0, NONE, 0)),
        ("MOV R3, R4", word(15, NONE, NONE, 0)),
        ("MOV R5, R4", word(15, NONE, NONE, 0)),
        ("FADD R2, R0, R0", word(4, NONE, NONE, 0b1)),
        ("EXIT", word(1, NONE, NONE, 0)),
    ];
    // 2 + 15 + 15 are more than 30.
    assert_eq!(cycles(&code, &[1.0]), [2.0 + 15.0 + 15.0 + 4.0 + 1.0]);
}

#[test]
fn tensor_core_products_are_waited_for_without_a_scoreboard() {
    let code = [
        ("HMMA.16816.F32 R4, R8, R12, R4", word(1, NONE, NONE, 0)),
        ("FADD R2, R3, R3", word(4, NONE, NONE, 0)),
        ("FADD R2, R7, R3", word(4, NONE, NONE, 0)),
        ("EXIT", word(1, NONE, NONE, 0)),
    ];
    // R3 is none of its four registers, R7 the last of them.
    assert_eq!(cycles(&code, &[1.0]), [33.0 + 4.0 + 1.0]);
}

#[test]
fn copies_are_waited_for_where_their_groups_are() {
    let code = [
        ("LDGSTS.E.BYPASS.128 [R1], desc[UR4][R2.64]", word(4, NONE, 1, 0)),
        ("LDGDEPBAR", word(2, NONE, NONE, 0)),
        ("DEPBAR.LE SB0, 0x0", word(3, NONE, NONE, 0)),
        ("EXIT", word(1, NONE, NONE, 0)),
    ];
    assert_eq!(cycles(&code, &[1.0]), [450.0 + 3.0 + 1.0]);
}

#[test]
fn a_block_is_entered_with_what_the_blocks_before_it_left_as_often_as_they_come_before() {
    let code = [
        ("MUFU.EX2 R0, R1", word(1, 0, NONE, 0)),
        ("@P0 BRA `(.E)", word(3, NONE, NONE, 0)),
        ("MOV R2, R3", word(15, NONE, NONE, 0)),
        (".E: FADD R2, R0, R0", word(4, NONE, NONE, 0b1)),
        ("EXIT", word(1, NONE, NONE, 0)),
    ];
    // The first block leaves 20 - 4 to wait for, and one of four warps goes on through 15 cycles, which leave 1.
    let waits = 0.75 * 16.0 + 0.25 * 1.0;
    let found = cycles(&code, &[4.0, 1.0, 4.0]);
    assert_eq!(found[..2], [4.0, 15.0]);
    assert!((found[2] - (waits + 5.0)).abs() < 1e-6, "{found:?}");
}
