//! Operands of instructions that reach memory or synchronise, and of what type they have to be (PTX ISA section 9.4):
//! what ptxas refuses is refused when a module is loaded, and what it takes is taken.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// Templates with a question mark in the place of an operand, and what it may and may not be.
const TABLE: &str = include_str!("table.txt");

/// The kernel that the instructions stand in. A letter is a register: a predicate, 16, 32 or 64 bits, f32, f64, 128
/// bits, u32, s64; `p2`, `r2`, `d2` are others of their kind, and `s` is shared memory.
const HEAD: &str = ".version 9.0
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 a) .maxntid 384 .minnctapersm 1 {
.reg .pred p, p2; .reg .b16 h; .reg .b32 r, r2; .reg .b64 d, d2; .reg .f32 f; .reg .f64 e; .reg .b128 q;
.reg .u32 u; .reg .s64 l; .shared .align 128 .b8 s[1024];
ld.param.u64 d, [a];
mov.u32 r, %tid.x;
cvt.u16.u32 h, r;
mov.b32 f, r;
mov.b64 e, d;
mov.b32 u, r;
mov.b64 l, d;
mov.b32 r2, r;
mov.b64 d2, d;
mov.b128 q, {d, d};
setp.ne.u32 p, r, 3;
setp.ne.u32 p2, r, 4;
";

/// The instructions of the table whose operand is good, or those whose operand is not.
fn instructions(good: bool) -> Vec<String> {
    let (mut template, mut found) = ("", Vec::new());
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        match (line.strip_prefix("  + "), line.strip_prefix("  - ")) {
            (None, None) => template = line,
            (values, others) => {
                let values = if good { values } else { others }.unwrap_or_default();
                found.extend(values.split_whitespace().map(|value| template.replacen('?', value, 1) + ";"));
            }
        }
    }
    assert!(found.len() > 1000, "{}", found.len());
    found
}

/// A module of these instructions, one a line.
fn module<'a>(instructions: impl IntoIterator<Item = &'a String>) -> String {
    instructions.into_iter().fold(HEAD.to_string(), |text, instruction| text + instruction + "\n") + "ret;\n}\n"
}

/// The number of the first instruction's line.
fn first_line() -> usize {
    HEAD.lines().count() + 1
}

#[test]
fn operands_that_ptxas_takes_are_taken() {
    let errors: Vec<String> = ptx_sim::check(&module(&instructions(true))).iter().map(ToString::to_string).collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

#[test]
fn operands_that_ptxas_refuses_are_refused_by_line_and_instruction() {
    let instructions = instructions(false);
    // What is no operand of any instruction ends the parsing, and is asked about alone.
    let (alone, together): (Vec<_>, Vec<_>) = instructions.iter().partition(|text| {
        let error = ptx_sim::check(&module([*text])).first().map(ToString::to_string);
        error.is_some_and(|error| error.contains(", column "))
    });
    assert!(alone.len() < 200, "{} of {}", alone.len(), instructions.len());
    let errors: Vec<String> =
        ptx_sim::check(&module(together.iter().copied())).iter().map(ToString::to_string).collect();
    for (i, text) in together.iter().enumerate() {
        let opcode = text.split(' ').next().unwrap_or_default();
        let begin = format!("line {}: `{opcode}`: ", first_line() + i);
        assert!(errors.iter().any(|error| error.starts_with(&begin)), "accepted: {text}");
    }
    assert_eq!(errors.len(), together.len());
}

#[test]
fn an_error_says_what_is_wrong_with_the_operand() {
    for (text, wanted) in [
        ("mbarrier.test_wait.shared.b64 p, [s], r;", "`r` is a register of 32 bits, where `.u64` has 64"),
        ("mbarrier.test_wait.parity.shared.b64 p, [s], d;", "`d` is a register of 64 bits, where `.u32` has 32"),
        ("mbarrier.arrive.shared.b64 _, [s], 0;", "0 arrivals, which are not between 1 and 1048575"),
        // ptxas takes what is too much for an object, and the ISA does not.
        ("mbarrier.arrive.shared.b64 _, [s], 1048576;", "1048576 arrivals, which are not between 1 and 1048575"),
        ("elect.sync r|p, f;", "`f` is a `.f32` register, where a `.u32` is expected"),
        ("elect.sync r|p, p2;", "`p2` is a predicate, where a `.u32` is expected"),
        ("bar.sync 16;", "barrier 16, where there are 16"),
        ("bar.sync 0, 100;", "100 threads, which are no multiple of a warp's 32"),
        ("cp.async.ca.shared.global [r], [d], 4, 5;", "5 bytes of a source of 4"),
        ("cp.async.bulk.global.shared::cta.bulk_group [d], [s], 17;", "17 bytes, which are no multiple of 16 up to"),
        ("ld.global.f32 u, [d];", "`u` is a `.u32` register, where a `.f32` is expected"),
        ("ld.global.u32 r, [f];", "the `.f32` register `f` holds no address"),
        ("st.global.f32 [d], 1;", "expected a constant that is a `.f32`"),
        ("ld.global.v2.u32 {r, d}, [d];", "the vector's registers differ in size"),
        ("activemask.b32 _;", "expected a register in place of `_`"),
        ("createpolicy.fractional.L2::evict_last.b64 d, 1.5;", "a fraction of 1.5, which is not more than 0 and at"),
        ("createpolicy.range.L2::evict_last.b64 d, [d], 2, 1;", "a primary range of 2 bytes in one of 1"),
        ("createpolicy.fractional.L2::evict_last.L2::evict_normal.b64 d;", "expected a primary priority"),
        ("createpolicy.cvt.L2.b64 d;", "expected 2 to 2 operands, got 1"),
        ("createpolicy.fractional.L1::evict_last.b64 d;", "expected a primary priority"),
        ("createpolicy.L2.b64 d;", "expected `.fractional`, `.range` or `.cvt.L2`"),
    ] {
        let errors = ptx_sim::check(&module([&text.to_string()]));
        let [error] = errors.as_slice() else { panic!("{text}: {errors:?}") };
        let (error, opcode) = (error.to_string(), text.split(' ').next().unwrap_or_default());
        let begin = format!("line {}: `{opcode}`: ", first_line());
        assert!(error.starts_with(&begin) && error.contains(wanted), "{text}: {error}");
    }
}

/// The assembler that `PTXAS` names, or the one that the workspace's set-up downloads, if it is of the table's release.
fn ptxas() -> Option<PathBuf> {
    let downloaded = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/cuda/nvidia/cu13/bin/ptxas");
    let path = std::env::var_os("PTXAS").map_or_else(|| PathBuf::from(downloaded), PathBuf::from);
    let version = Command::new(&path).arg("--version").output().ok()?;
    String::from_utf8_lossy(&version.stdout).contains("V13.0.88").then_some(path)
}

/// The instructions that it refuses: it says so of all that fail at one stage, and goes on to the next without them.
fn refused(ptxas: &PathBuf, instructions: &[String]) -> BTreeSet<String> {
    let file = std::env::temp_dir().join(format!("ptx-sim-operands-{}.ptx", std::process::id()));
    let mut refused = BTreeSet::new();
    loop {
        let left: Vec<&String> = instructions.iter().filter(|text| !refused.contains(*text)).collect();
        std::fs::write(&file, module(left.iter().copied())).unwrap();
        let mut run = Command::new(ptxas);
        run.args(["-arch=sm_90a", "-O0", "-o"]).arg(file.with_extension("cubin")).arg(&file);
        let said = run.output().unwrap();
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        let lines = said.lines().filter(|line| !line.contains("; warning")).filter_map(|line| {
            let number: usize = line.split_once(", line ")?.1.split(';').next()?.trim().parse().ok()?;
            left.get(number.checked_sub(first_line())?)
        });
        let before = refused.len();
        refused.extend(lines.map(|text| (*text).clone()));
        if refused.len() == before {
            for ending in ["ptx", "cubin"] {
                let _ = std::fs::remove_file(file.with_extension(ending));
            }
            return refused;
        }
    }
}

#[test]
fn ptxas_says_what_the_table_says() {
    let Some(ptxas) = ptxas() else {
        println!("skipped: no ptxas V13.0.88; set PTXAS to its path");
        return;
    };
    let (good, bad) = (instructions(true), instructions(false));
    let all: Vec<String> = good.iter().chain(&bad).cloned().collect();
    let (refused, bad) = (refused(&ptxas, &all), bad.into_iter().collect::<BTreeSet<_>>());
    let wrong: Vec<_> = refused.symmetric_difference(&bad).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
