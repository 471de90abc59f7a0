//! Warp-wide exchange: every mode against the pseudo-code of the PTX ISA (9.7.9.6, 9.7.13), and what happens to lanes
//! that are not there.

mod common;

use common::{Random, Snippet};
use ptx_sim::fault::Fault;
use ptx_sim::meter::Class;
use ptx_sim::{Launch, LaunchError, Machine, Report};

/// Runs a snippet without inputs on `threads` threads, whatever comes of it. Returns the threads' first outputs.
fn launch(outputs: &[&str], body: &str, threads: u32) -> (Vec<u64>, Result<Report, LaunchError>) {
    let snippet = Snippet { inputs: &[], outputs, body };
    let ptx = snippet.ptx();
    let mut machine = Machine::default();
    let module = machine.load(&ptx).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
    let len = 8 * outputs.len() * threads as usize;
    let output = machine.memory.allocate(len).unwrap();
    machine.memory.write(output, &vec![0; len]).unwrap();
    let params: Vec<u8> = [0, output].iter().flat_map(|pointer: &u64| pointer.to_le_bytes()).collect();
    let result = machine.launch(&module, "k", &Launch::new([1; 3], [threads, 1, 1]), &params);
    let mut bytes = vec![0; len];
    machine.memory.read(output, &mut bytes).unwrap();
    let rows = bytes.chunks_exact(8 * outputs.len());
    (rows.map(|row| u64::from_le_bytes(row[..8].try_into().unwrap())).collect(), result)
}

fn trap(result: &Result<Report, LaunchError>) -> &str {
    match Machine::fault(result) {
        Some(Fault::Trap(why)) => why,
        other => panic!("expected a trap, got {other:?}"),
    }
}

/// The ISA's pseudo-code, as printed.
fn shfl(mode: &str, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (bval, cval, segmask) = (b & 0x1f, c & 0x1f, c >> 8 & 0x1f);
    let max_lane = (lane & segmask) | (cval & !segmask);
    let min_lane = lane & segmask;
    let (j, pval) = match mode {
        "up" => (lane.wrapping_sub(bval), lane as i32 - bval as i32 >= max_lane as i32),
        "down" => (lane + bval, lane + bval <= max_lane),
        "bfly" => (lane ^ bval, lane ^ bval <= max_lane),
        "idx" => {
            let j = min_lane | (bval & !segmask);
            (j, j <= max_lane)
        }
        _ => unreachable!(),
    };
    (if pval { j } else { lane }, pval)
}

#[test]
fn shuffles_follow_the_pseudo_code_for_every_mode_offset_and_segment() {
    let mut random = Random(7);
    for mode in ["up", "down", "bfly", "idx"] {
        let mut rows = Vec::new();
        for warp in 0..64 * 8 {
            let (width, offset) = ([32, 16, 8, 4, 2, 1][warp % 6], warp as u64 / 8);
            let clamp = if mode == "up" { 0 } else { 31 };
            for _ in 0..32 {
                let (b, c) = match warp % 8 {
                    // As CUDA's intrinsics write it, with offsets beyond 31 too.
                    0..6 => (offset, (32 - width) << 8 | clamp),
                    // Any offset and any clamp and segment mask, lane by lane.
                    _ => (random.next() & 0xffff_ffff, random.next() & 0xffff_ffff),
                };
                rows.push(vec![random.next() & 0xffff_ffff, b, c]);
            }
        }
        for (form, mask) in [("shfl.sync", ", -1"), ("shfl", "")] {
            let body = format!("{form}.{mode}.b32 %y0|%y1, %x0, %x1, %x2{mask};");
            let snippet = Snippet { inputs: &["b32"; 3], outputs: &["b32", "pred"], body: &body };
            let results = snippet.run(&rows);
            for (index, (row, result)) in rows.iter().zip(&results).enumerate() {
                let lane = index % 32;
                let (from, valid) = shfl(mode, lane as u32, row[1] as u32, row[2] as u32);
                let value = rows[index - lane + from as usize][0];
                assert_eq!(*result, [value, valid.into()], "{body} lane {lane} of {row:x?}");
            }
        }
    }
}

#[test]
fn shuffle_results_can_be_discarded_or_replace_the_operand() {
    let rows: Vec<_> = (0..32).map(|lane| vec![100 + lane]).collect();
    let body = "mov.b32 %y0, %x0;\nshfl.sync.down.b32 %y0|_, %y0, 1, 31, -1;";
    let results = Snippet { inputs: &["b32"], outputs: &["b32"], body }.run(&rows);
    let expected: Vec<_> = (0..32).map(|lane| vec![100 + (lane + 1).min(31)]).collect();
    assert_eq!(results, expected);
}

#[test]
fn votes_count_exactly_the_members() {
    let patterns = [0, u32::MAX, 1, 1 << 31, 0x0f0f_0f0f, 0xffff_0000];
    let masks = [u32::MAX, 0xffff, 0x5555_5555, 1 << 7];
    for mask in masks {
        let rows: Vec<_> =
            patterns.iter().flat_map(|bits| (0..32).map(move |lane| vec![u64::from(bits >> lane & 1)])).collect();
        let body = format!(
            "mov.u32 %t0, %laneid;\nmov.b32 %t1, 1;\nshl.b32 %t1, %t1, %t0;\nand.b32 %t1, %t1, {mask};\n\
             setp.ne.u32 %p0, %t1, 0;\nmov.b32 %y3, 0;\nmov.b32 %t2, 0;\nsetp.ne.u32 %y0, %t2, 0;\n\
             setp.ne.u32 %y1, %t2, 0;\nsetp.ne.u32 %y2, %t2, 0;\nsetp.ne.u32 %y4, %t2, 0;\n\
             @%p0 vote.sync.all.pred %y0, %x0, {mask};\n@%p0 vote.sync.any.pred %y1, %x0, {mask};\n\
             @%p0 vote.sync.uni.pred %y2, %x0, {mask};\n@%p0 vote.sync.ballot.b32 %y3, %x0, {mask};\n\
             @%p0 vote.sync.all.pred %y4, !%x0, {mask};"
        );
        let outputs = ["pred", "pred", "pred", "b32", "pred"];
        let results = Snippet { inputs: &["pred"], outputs: &outputs, body: &body }.run(&rows);
        for (index, result) in results.iter().enumerate() {
            let bits = patterns[index / 32] & mask;
            let (all, none) = (bits == mask, bits == 0);
            let expected = [all.into(), (!none).into(), (all || none).into(), bits.into(), none.into()];
            let expected = if mask >> (index % 32) & 1 == 1 { expected } else { [0; 5] };
            assert_eq!(*result, expected, "mask {mask:#x} row {index}");
        }
    }
}

#[test]
fn votes_without_sync_are_among_the_active_lanes() {
    let body = "mov.u32 %t0, %laneid;\nsetp.lt.u32 %p0, %t0, 5;\nmov.b32 %y0, 0;\n@%p0 vote.ballot.b32 %y0, %p0;";
    let results = Snippet { inputs: &["b32"], outputs: &["b32"], body }.run(&vec![vec![0]; 32]);
    assert!(results.iter().enumerate().all(|(lane, row)| row[0] == if lane < 5 { 31 } else { 0 }));
}

#[test]
fn matches_find_equal_values_in_full_width() {
    let mut random = Random(3);
    let rows: Vec<_> = (0..320).map(|_| vec![(random.next() & 3) << 33 | random.next() & 1]).collect();
    let equal: Vec<_> = rows.iter().map(|_| vec![5 << 40]).collect();
    let body =
        "match.any.sync.b64 %y0, %x0, -1;\nmatch.all.sync.b64 %y1|%y2, %x0, -1;\nmatch.any.sync.b32 %y3, %t0, -1;\n";
    let body = format!("mov.b64 {{%t0, %t1}}, %x0;\n{body}");
    let snippet = Snippet { inputs: &["b64"], outputs: &["b32", "b32", "pred", "b32"], body: &body };
    for rows in [rows, equal] {
        for (index, result) in snippet.run(&rows).iter().enumerate() {
            let warp = &rows[index / 32 * 32..][..32];
            let mask = |same: &dyn Fn(u64) -> bool| {
                (0..32).filter(|&lane| same(warp[lane][0])).fold(0u64, |mask, lane| mask | 1 << lane)
            };
            let own = rows[index][0];
            let any = mask(&|value| value == own);
            let all = any == 0xffff_ffff;
            let narrow = mask(&|value| value as u32 == own as u32);
            assert_eq!(*result, [any, if all { any } else { 0 }, all.into(), narrow], "lane {index}");
        }
    }
}

#[test]
fn lanes_that_match_can_go_on_among_themselves() {
    // Five groups of lanes reduce and shuffle at the same instruction, each with its own mask.
    let rows: Vec<_> = (0..32).map(|lane| vec![lane % 5, lane * lane]).collect();
    let body = "match.any.sync.b32 %y0, %x0, -1;\nredux.sync.add.u32 %y1, %x1, %y0;\n\
                shfl.sync.idx.b32 %y2, %x1, %x0, 31, %y0;";
    let results = Snippet { inputs: &["b32"; 2], outputs: &["b32"; 3], body }.run(&rows);
    for (lane, result) in results.iter().enumerate() {
        let sum: u64 = (lane as u64 % 5..32).step_by(5).map(|other| other * other).sum();
        assert_eq!(result[1..], [sum, (lane as u64 % 5).pow(2)]);
    }
}

#[test]
fn reductions_equal_folds() {
    let mut random = Random(11);
    let rows: Vec<_> = (0..640).map(|i| vec![random.next() >> (i / 32) & 0xffff_ffff]).collect();
    type Fold = fn(u32, u32) -> u32;
    let operations: [(&str, Fold); 9] = [
        ("add.u32", u32::wrapping_add),
        ("add.s32", u32::wrapping_add),
        ("min.u32", |a, b| a.min(b)),
        ("max.u32", |a, b| a.max(b)),
        ("min.s32", |a, b| (a as i32).min(b as i32) as u32),
        ("max.s32", |a, b| (a as i32).max(b as i32) as u32),
        ("and.b32", |a, b| a & b),
        ("or.b32", |a, b| a | b),
        ("xor.b32", |a, b| a ^ b),
    ];
    for (name, fold) in operations {
        let body = format!("redux.sync.{name} %y0, %x0, -1;");
        let results = Snippet { inputs: &["b32"], outputs: &["b32"], body: &body }.run(&rows);
        for (rows, results) in rows.chunks(32).zip(results.chunks(32)) {
            let expected = rows.iter().map(|row| row[0] as u32).reduce(fold).unwrap();
            assert!(results.iter().all(|row| row[0] == u64::from(expected)), "{name}");
        }
    }
}

#[test]
fn float_reductions_know_nan_and_the_sign_of_zero() {
    let run = |op: &str, values: [f32; 3]| {
        let rows: Vec<_> = (0..32).map(|lane| vec![u64::from(values[lane % 3].to_bits())]).collect();
        let body = format!("redux.sync.{op}.f32 %y0, %x0, -1;");
        Snippet { inputs: &["b32"], outputs: &["b32"], body: &body }.run(&rows)[9][0] as u32
    };
    assert_eq!(run("min", [1.5, -2.0, 3.0]), (-2.0f32).to_bits());
    assert_eq!(run("max.abs", [1.5, -4.0, 3.0]), 4.0f32.to_bits());
    assert_eq!(run("max", [-0.0, 0.0, -0.0]), 0.0f32.to_bits());
    assert_eq!(run("min", [0.0, -0.0, 0.0]), (-0.0f32).to_bits());
    assert_eq!(run("max", [f32::NAN, 1.0, f32::NEG_INFINITY]), 1.0f32.to_bits());
    assert_eq!(run("max.NaN", [f32::NAN, 1.0, 2.0]), 0x7fff_ffff);
    assert_eq!(run("min", [-f32::NAN; 3]), 0x7fff_ffff);
}

#[test]
fn one_lane_of_the_mask_is_elected() {
    let body = "mov.u32 %t0, %laneid;\nand.b32 %t1, %t0, 4;\nsetp.ne.u32 %p0, %t1, 0;\nmov.b32 %y0, 99;\n\
                setp.ne.u32 %y1, 0, 0;\n@%p0 elect.sync %y0|%y1, 0xf0f0f0f0;\nactivemask.b32 %y2;\n\
                @%p0 elect.sync _|%p1, 0xf0f0f0f0;";
    let results = Snippet { inputs: &["b32"], outputs: &["b32", "pred", "b32"], body }.run(&vec![vec![0]; 32]);
    for (lane, result) in results.iter().enumerate() {
        let member = lane & 4 != 0;
        assert_eq!(*result, [if member { 4 } else { 99 }, (lane == 4).into(), 0xffff_ffff]);
    }
}

#[test]
fn lanes_wait_for_members_that_come_later() {
    // The join stands in front of one of its branches: half of the lanes are there before the others.
    let body = "mov.u32 %t0, %laneid;\nmov.b32 %t1, 0;\nsetp.ge.u32 %p0, %t0, 16;\n@%p0 bra LATE;\n\
                JOIN:\nshfl.sync.bfly.b32 %y0, %t0, 16, 31, -1;\nadd.u32 %y0, %y0, %t1;\nbra DONE;\n\
                LATE:\nmov.b32 %t1, 1000;\nbra JOIN;\nDONE:";
    let (values, result) = launch(&["b32"], body, 32);
    assert!(result.unwrap().findings.is_empty());
    let expected: Vec<_> = (0..32).map(|lane| (lane ^ 16) + if lane < 16 { 0 } else { 1000 }).collect();
    assert_eq!(values, expected);
}

#[test]
fn members_that_never_come_are_a_deadlock_at_the_instruction() {
    // Both halves of the warp wait for the other one at their own instruction.
    let body = "mov.u32 %t0, %laneid;\nsetp.lt.u32 %p0, %t0, 16;\n@%p0 shfl.sync.idx.b32 %y0, %t0, 0, 31, -1;\n\
                @!%p0 shfl.sync.idx.b32 %y0, %t0, 1, 31, -1;";
    let (_, result) = launch(&["b32"], body, 32);
    match Machine::fault(&result) {
        Some(Fault::Deadlock(why)) => assert!(why.contains("shfl.sync.idx.b32"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn members_that_have_exited_are_not_waited_for() {
    let body = "mov.u32 %t0, %laneid;\nsetp.ge.u32 %p0, %t0, 20;\n@%p0 exit;\nmov.b32 %t1, 1;\n\
                redux.sync.add.u32 %y0, %t1, -1;";
    let (values, result) = launch(&["b32"], body, 32);
    assert!(result.is_ok());
    assert!(values[..20].iter().all(|&value| value == 20));
    // Nor are threads that the block does not have.
    let (values, result) = launch(&["b32"], "mov.b32 %t1, 1;\nredux.sync.add.u32 %y0, %t1, -1;", 7);
    assert!(result.is_ok());
    assert_eq!(values, [7; 7]);
}

#[test]
fn a_lane_outside_of_its_own_mask_is_a_fault() {
    let (_, result) = launch(&["b32"], "vote.sync.ballot.b32 %y0, %p0, 0xfffffff7;", 32);
    let why = trap(&result);
    assert!(why.contains("vote.sync.ballot.b32") && why.contains("0xfffffff7") && why.contains("lane 3"), "{why}");
}

#[test]
fn overlapping_masks_are_a_fault() {
    let body = "mov.u32 %t0, %laneid;\nmov.b32 %t1, 0x3;\nsetp.lt.u32 %p0, %t0, 1;\n@!%p0 mov.b32 %t1, 0xffffffff;\n\
                redux.sync.or.b32 %y0, %t0, %t1;";
    let (_, result) = launch(&["b32"], body, 32);
    let why = trap(&result);
    assert!(why.contains("0x00000003") && why.contains("0xffffffff"), "{why}");
}

#[test]
fn reading_a_lane_that_does_not_take_part_is_found() {
    let (values, result) = launch(&["b32"], "mov.u32 %t0, %laneid;\nshfl.sync.down.b32 %y0, %t0, 4, 31, -1;", 16);
    let report = result.unwrap();
    assert_eq!(values[..12], [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    let [finding] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!((finding.count, finding.thread), (4, [12, 0, 0]));
    assert!(finding.to_string().contains("lane 12 reads lane 16"), "{finding}");
}

#[test]
fn they_are_counted_as_warp_instructions() {
    let (_, result) =
        launch(&["b32"], "activemask.b32 %t0;\nelect.sync _|%p0, -1;\nmatch.any.sync.b32 %y0, %t0, -1;", 32);
    assert_eq!(result.unwrap().meter.instructions(Class::Warp).warp, 3);
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    let forms = [
        "shfl.sync.left.b32 %y0, %x0, 1, 31, -1;",
        "shfl.sync.up.b64 %y0, %x0, 1, 31, -1;",
        "shfl.sync.up.b32 %y0, %x0, 1, 31;",
        "shfl.up.b32 %y0, %x0, 1, 31, -1;",
        "vote.sync.none.pred %p0, %p1, -1;",
        "vote.sync.ballot.b32 %y0, %x0, -1;",
        "vote.sync.all.pred %y0, %p0, -1;",
        "match.any.b32 %y0, %x0, -1;",
        "match.any.sync.b32 %y0|%p0, %x0, -1;",
        "match.any.sync.b16 %y0, %x0, -1;",
        "redux.sync.add.b32 %y0, %x0, -1;",
        "redux.sync.and.u32 %y0, %x0, -1;",
        "redux.sync.min.ftz.f32 %y0, %x0, -1;",
        "activemask.u32 %y0;",
        "elect.sync %y0, -1;",
        "elect.sync.aligned %y0|%p0, -1;",
    ];
    for body in forms {
        let (error, line) = Snippet { inputs: &["b32"], outputs: &["b32"], body }.refusal();
        let name = body.split(' ').next().unwrap().trim_end_matches(';');
        assert!(error.contains(&format!("line {line}:")) && error.contains(&format!("`{name}`")), "{body}: {error}");
    }
}
