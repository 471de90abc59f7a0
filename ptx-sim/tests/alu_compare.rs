//! Comparisons and selections against the definitions of PTX ISA 9.3.1.

mod common;

use common::{Snippet, evaluate32, rows};

/// How two numbers compare: -1, 0 or 1; `None` with NaN.
fn holds(operator: &str, order: Option<i32>) -> bool {
    match (operator, order) {
        ("num", order) => order.is_some(),
        ("nan", order) => order.is_none(),
        ("equ" | "neu" | "ltu" | "leu" | "gtu" | "geu", None) => true,
        (_, None) => false,
        ("eq" | "equ", Some(order)) => order == 0,
        ("ne" | "neu", Some(order)) => order != 0,
        ("lt" | "ltu" | "lo", Some(order)) => order < 0,
        ("le" | "leu" | "ls", Some(order)) => order <= 0,
        ("gt" | "gtu" | "hi", Some(order)) => order > 0,
        ("ge" | "geu" | "hs", Some(order)) => order >= 0,
        _ => panic!("{operator}"),
    }
}

fn check(ty: &str, register: &str, list: &[Vec<u64>], operators: &[&str], order: impl Fn(u64, u64) -> Option<i32>) {
    for operator in operators {
        let body = format!(
            "setp.{operator}.{ty} %y0|%y1, %x0, %x1;\nsetp.{operator}.and.{ty} %y2|%y3, %x0, %x1, %x2;\n\
             setp.{operator}.xor.{ty} %y4, %x0, %x1, !%x2;\nsetp.{operator}.or.{ty} _|%y5, %x0, %x1, %x2;"
        );
        let snippet = Snippet { inputs: &[register, register, "pred"], outputs: &["pred"; 6], body: &body };
        let list: Vec<Vec<u64>> =
            list.iter().enumerate().map(|(i, row)| vec![row[0], row[1], i as u64 / 3 % 2]).collect();
        for (row, result) in list.iter().zip(snippet.run(&list)) {
            let (t, c) = (holds(operator, order(row[0], row[1])), row[2] == 1);
            let expected = [t, !t, t && c, !t && c, t == c, !t || c].map(u64::from);
            assert_eq!(result, expected, "{operator}.{ty} {row:x?}");
        }
    }
}

fn sign(order: std::cmp::Ordering) -> Option<i32> {
    Some(order as i32)
}

#[test]
fn integers_compare_by_their_signedness() {
    let signed = ["eq", "ne", "lt", "le", "gt", "ge"];
    let unsigned = ["eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs"];
    for (width, register) in [(16, "b16"), (32, "b32"), (64, "b64")] {
        let list = rows(&[0, 1, u64::MAX >> 1, u64::MAX, 0x7FFF, 0x8000, 0x7FFF_FFFF, 0x8000_0000], 2, width, 100);
        check(&format!("u{width}"), register, &list, &unsigned, |a, b| sign(a.cmp(&b)));
        let extend = |x: u64| (x << (64 - width)) as i64;
        check(&format!("s{width}"), register, &list, &signed, |a, b| sign(extend(a).cmp(&extend(b))));
        check(&format!("b{width}"), register, &list, &signed[..2], |a, b| sign(a.cmp(&b)));
    }
}

const FLOAT_OPERATORS: [&str; 14] =
    ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"];

#[test]
fn floats_compare_with_nan_as_unordered() {
    let order = |a: f64, b: f64| a.partial_cmp(&b).map(|order| order as i32);
    let single = |x: u64| f64::from(f32::from_bits(x as u32));
    let edges = [0, 0x8000_0000, 1, 0x8000_0001, 0x3F80_0000, 0x7F80_0000, 0xFF80_0000, 0x7FC0_0000];
    check("f32", "b32", &rows(&edges, 2, 32, 64), &FLOAT_OPERATORS, |a, b| order(single(a), single(b)));
    let flush = |x: u64| if single(x).abs() < f64::from(f32::MIN_POSITIVE) { 0.0 } else { single(x) };
    for operator in ["eq", "lt", "geu"] {
        let body = format!("setp.{operator}.ftz.f32 %y0, %x0, %x1;");
        Snippet { inputs: &["b32"; 2], outputs: &["pred"], body: &body }
            .check(&rows(&edges, 2, 32, 0), |row| holds(operator, order(flush(row[0]), flush(row[1]))).into());
    }
    let edges = [0, 1 << 63, 1, 0x3FF0 << 48, 0x7FF0 << 48, 0x7FF8 << 48];
    check("f64", "b64", &rows(&edges, 2, 64, 64), &FLOAT_OPERATORS, |a, b| order(f64::from_bits(a), f64::from_bits(b)));
    let edges = [0, 0x8000, 1, 0x3C00, 0x7C00, 0xFC00, 0x7E00];
    let half = |x: u64| half::f16::from_bits(x as u16).to_f64();
    check("f16", "b16", &rows(&edges, 2, 16, 64), &FLOAT_OPERATORS, |a, b| order(half(a), half(b)));
    let half = |x: u64| half::bf16::from_bits(x as u16).to_f64();
    check("bf16", "b16", &rows(&[0, 0x8000, 1, 0x3F80, 0x7F80, 0x7FC0], 2, 16, 64), &FLOAT_OPERATORS, |a, b| {
        order(half(a), half(b))
    });
}

#[test]
fn packed_comparisons_give_one_predicate_per_half() {
    let list = rows(&[0x3C00_4000, 0x4000_3C00, 0x7E00_3C00, 0xBC00_0001], 2, 32, 100);
    let half = |row: &[u64], i: u32| {
        let [a, b] = [0, 1].map(|k| half::f16::from_bits((row[k] >> (16 * i)) as u16).to_f64());
        a.partial_cmp(&b).map(|order| order as i32)
    };
    for operator in FLOAT_OPERATORS {
        let body = format!("setp.{operator}.f16x2 %y0|%y1, %x0, %x1; set.{operator}.f16x2.f16x2 %y2, %x0, %x1;");
        let snippet = Snippet { inputs: &["b32"; 2], outputs: &["pred", "pred", "b32"], body: &body };
        for (row, result) in list.iter().zip(snippet.run(&list)) {
            let [low, high] = [0, 1].map(|i| u64::from(holds(operator, half(row, i))));
            assert_eq!(result, [low, high, (low * 0x3C00) | (high * 0x3C00_0000)], "{operator} {row:x?}");
        }
    }
}

#[test]
fn set_writes_all_ones_or_one() {
    let list = [vec![3, 5], vec![5, 3], vec![4, 4]];
    assert_eq!(evaluate32("set.lt.u32.u32 %y0, %x0, %x1;", &list), [0xFFFF_FFFF, 0, 0]);
    assert_eq!(evaluate32("set.le.f32.s32 %y0, %x0, %x1;", &list), [0x3F80_0000, 0, 0x3F80_0000]);
    assert_eq!(
        evaluate32("setp.eq.s32 %p0, 1, 1; set.lt.xor.s32.u32 %y0, %x0, %x1, %p0;", &list),
        [0, 0xFFFF_FFFF, 0xFFFF_FFFF]
    );
}

#[test]
fn selections_follow_predicates_and_signs() {
    let list: Vec<Vec<u64>> = (0..64).map(|i| vec![i, !i, u64::from(i % 5 == 0)]).collect();
    for (ty, register, width) in
        [("b16", "b16", 16), ("u32", "b32", 32), ("f32", "b32", 32), ("s64", "b64", 64), ("f64", "b64", 64)]
    {
        let body = format!("selp.{ty} %y0, %x0, %x1, %x2;");
        let snippet = Snippet { inputs: &[register, register, "pred"], outputs: &[register], body: &body };
        snippet.check(&list, |row| if row[2] == 1 { row[0] } else { row[1] } & (u64::MAX >> (64 - width)));
    }
    assert_eq!(
        evaluate32("slct.u32.s32 %y0, 1, 2, %x0;", &[0, 5, 0x8000_0000, 0xFFFF_FFFF].map(|c| vec![c])),
        [1, 1, 2, 2]
    );
    let floats = [0u32, 0x8000_0000, 0x3F80_0000, 0xBF80_0000, 0x7FC0_0000, 0x8000_0001].map(|c| vec![c]);
    assert_eq!(evaluate32("slct.b32.f32 %y0, 1, 2, %x0;", &floats), [1, 1, 1, 2, 2, 2]);
    assert_eq!(evaluate32("slct.ftz.b32.f32 %y0, 1, 2, %x0;", &floats), [1, 1, 1, 2, 2, 1]);
}

#[test]
fn properties_of_floats_and_copied_signs() {
    let list = [0u32, 0x8000_0001, 0x3F80_0000, 0xFF80_0000, 0x7F80_0001].map(|x| vec![x.into()]).to_vec();
    for (property, expected) in [
        ("finite", [1, 1, 1, 0, 0]),
        ("infinite", [0, 0, 0, 1, 0]),
        ("number", [1, 1, 1, 1, 0]),
        ("notanumber", [0, 0, 0, 0, 1]),
        ("normal", [1, 0, 1, 0, 0]),
        ("subnormal", [0, 1, 0, 0, 0]),
    ] {
        let body = format!("testp.{property}.f32 %y0, %x0;");
        let result = Snippet { inputs: &["b32"], outputs: &["pred"], body: &body }.run(&list);
        assert_eq!(result.concat(), expected, "{property}");
    }
    let list = [vec![0x8000_0000, 0x3F80_0000], vec![0x3F80_0000, 0xFFC1_2345]];
    assert_eq!(evaluate32("copysign.f32 %y0, %x0, %x1;", &list), [0xBF80_0000, 0x7FC1_2345]);
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    let cases = [
        ("setp.lo.s32 %p0, %x0, %x0;", "unknown comparison `.lo`"),
        ("setp.lt.b32 %p0, %x0, %x0;", "unknown comparison `.lt`"),
        ("setp.equ.u32 %p0, %x0, %x0;", "unknown comparison `.equ`"),
        ("setp.eq.ftz.f64 %p0, %d0, %d0;", "`.ftz` does not exist"),
        ("setp.eq.and.u32 %p0, %x0, %x0;", "expected 4 to 4 operands"),
        ("selp.pred %p0, %p1, %p2, %p3;", "expected one type of 16 to 64 bits"),
    ];
    for (body, why) in cases {
        let (message, line) = Snippet { inputs: &["b32"], outputs: &["b32"], body }.refusal();
        let instruction = body.split(' ').next().unwrap();
        assert!(message.starts_with(&format!("line {line}: `{instruction}`")) && message.contains(why), "{message}");
    }
}
