//! Logic, shifts and byte permutation, bit by bit.

mod common;

use common::{Snippet, rows};

fn register(width: u32) -> &'static str {
    match width {
        16 => "b16",
        32 => "b32",
        _ => "b64",
    }
}

type Function = fn(u64, u64) -> u64;

#[test]
fn logic_works_on_every_width() {
    let cases: [(&str, Function); 3] = [("and", |a, b| a & b), ("or", |a, b| a | b), ("xor", |a, b| a ^ b)];
    for width in [16, 32, 64] {
        let (ty, mask) = (register(width), u64::MAX >> (64 - width));
        let list = rows(&[0, 1, u64::MAX], 2, width, 200);
        for (opcode, f) in cases {
            let body = format!("{opcode}.b{width} %y0, %x0, %x1;");
            Snippet { inputs: &[ty, ty], outputs: &[ty], body: &body }.check(&list, |row| f(row[0], row[1]) & mask);
        }
        let body = format!("not.b{width} %y0, %x0;");
        Snippet { inputs: &[ty, ty], outputs: &[ty], body: &body }.check(&list, |row| !row[0] & mask);
        let body = format!("cnot.b{width} %y0, %x0;");
        Snippet { inputs: &[ty, ty], outputs: &[ty], body: &body }.check(&list, |row| u64::from(row[0] == 0));
        // A negative constant has 64 bits, of which the instruction takes its own.
        let body = format!("xor.b{width} %y0, %x0, -1;");
        Snippet { inputs: &[ty, ty], outputs: &[ty], body: &body }.check(&list, |row| !row[0] & mask);
    }
}

#[test]
fn logic_works_on_predicates() {
    let list: Vec<Vec<u64>> = (0..4).map(|i| vec![i & 1, i >> 1]).collect();
    let cases: [(&str, Function); 5] = [
        ("and.pred %y0, %x0, %x1;", |a, b| a & b),
        ("or.pred %y0, %x0, %x1;", |a, b| a | b),
        ("xor.pred %y0, %x0, %x1;", |a, b| a ^ b),
        ("not.pred %y0, %x0;", |a, _| 1 - a),
        ("and.pred %y0, %x0, !%x1;", |a, b| a & (1 - b)),
    ];
    for (body, f) in cases {
        Snippet { inputs: &["pred", "pred"], outputs: &["pred"], body }.check(&list, |row| f(row[0], row[1]));
    }
}

/// Bit `4a + 2b + c` of the table, for each bit.
fn look_up(table: u64, row: &[u64]) -> u64 {
    (0..32).map(|i| (table >> ((row[0] >> i & 1) << 2 | (row[1] >> i & 1) << 1 | row[2] >> i & 1) & 1) << i).sum()
}

#[test]
fn lop3_computes_every_table() {
    let list = rows(&[0, 0xFFFF_FFFF], 3, 32, 24);
    for table in 0..256 {
        let body = format!("lop3.b32 %y0, %x0, %x1, %x2, {table};");
        Snippet { inputs: &["b32"; 3], outputs: &["b32"], body: &body }.check(&list, |row| look_up(table, row));
    }
}

#[test]
fn lop3_also_tells_whether_the_result_is_not_zero() {
    let list: Vec<Vec<u64>> =
        [0u64, 1, 0x8000_0000].into_iter().flat_map(|a| [0, 1].map(|p| vec![a, 0xFFFF_FFFF, 0, p])).collect();
    for (opcode, and) in [("and", true), ("or", false)] {
        let body = format!(
            "lop3.{opcode}.b32 %y0|%y1, %x0, %x1, %x2, 0x80, !%x3;\nlop3.{opcode}.b32 _|%y2, %x0, %x1, %x2, 0xC0, %x3;"
        );
        let snippet =
            Snippet { inputs: &["b32", "b32", "b32", "pred"], outputs: &["b32", "pred", "pred"], body: &body };
        for (row, result) in list.iter().zip(snippet.run(&list)) {
            let combine = |bit: bool, p: bool| u64::from(if and { bit && p } else { bit || p });
            assert_eq!(
                result,
                [0, combine(false, row[3] == 0), combine(row[0] != 0, row[3] == 1)],
                "{opcode} {row:x?}"
            );
        }
    }
}

#[test]
fn shifts_beyond_the_width_leave_zeros_or_signs() {
    for width in [16u32, 32, 64] {
        let ty = register(width);
        let mask = u64::MAX >> (64 - width);
        let mut list = Vec::new();
        for value in rows(&[0, 1, u64::MAX, 1 << (width - 1)], 1, width, 12) {
            list.extend([0u64, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 0xFFFF_FFFF].map(|n| vec![value[0], n]));
        }
        let check = |opcode: &str, f: &dyn Fn(u64, u64) -> u64| {
            let body = format!("{opcode}{width} %y0, %x0, %x1;");
            Snippet { inputs: &[ty, "b32"], outputs: &[ty], body: &body }.check(&list, |row| f(row[0], row[1]));
        };
        let logical = |a: u64, n: u64| (u128::from(a) >> n.min(64)) as u64;
        check("shl.b", &|a, n| ((u128::from(a) << n.min(64)) as u64) & mask);
        check("shr.u", &logical);
        check("shr.b", &logical);
        check("shr.s", &|a, n| {
            let signed = if a >> (width - 1) == 1 { i128::from(a) - (1 << width) } else { a.into() };
            (signed >> n.min(64)) as u64 & mask
        });
    }
}

#[test]
fn funnel_shifts_move_across_two_words() {
    let mut list = Vec::new();
    for words in rows(&[0, 0xFFFF_FFFF, 1, 0x8000_0000], 2, 32, 8) {
        list.extend([0, 1, 16, 31, 32, 33, 63, 64, 0xFFFF_FFFF].map(|n| vec![words[0], words[1], n]));
    }
    for (mode, clamp) in [("clamp", true), ("wrap", false)] {
        for left in [true, false] {
            let body = format!("shf.{}.{mode}.b32 %y0, %x0, %x1, %x2;", if left { "l" } else { "r" });
            Snippet { inputs: &["b32"; 3], outputs: &["b32"], body: &body }.check(&list, |row| {
                let n = if clamp { row[2].min(32) } else { row[2] % 32 };
                let both = u128::from(row[1] << 32 | row[0]);
                (if left { both << n >> 32 } else { both >> n }) as u64 & 0xFFFF_FFFF
            });
        }
    }
}

/// Bytes and signs as the ISA describes the default mode.
fn permute(row: &[u64], selectors: [u64; 4]) -> u64 {
    let bytes = row[1] << 32 | row[0];
    (0..4)
        .map(|i| {
            let byte = bytes >> (8 * (selectors[i] & 7)) & 0xFF;
            let picked = if selectors[i] & 8 == 0 { byte } else { (byte >> 7) * 0xFF };
            picked << (8 * i)
        })
        .sum()
}

#[test]
fn prmt_picks_every_byte_or_its_sign_in_every_place() {
    let mut list = Vec::new();
    for place in 0..4 {
        for nibble in 0..16u64 {
            list.push(vec![0x8040_9F11, 0x7FFF_00C3, nibble << (4 * place)]);
            list.push(vec![0x8040_9F11, 0x7FFF_00C3, 0xFFFF_5A3C & !(0xF << (4 * place)) | nibble << (4 * place)]);
        }
    }
    list.extend(rows(&[], 3, 32, 300));
    Snippet { inputs: &["b32"; 3], outputs: &["b32"], body: "prmt.b32 %y0, %x0, %x1, %x2;" }
        .check(&list, |row| permute(row, [0, 1, 2, 3].map(|i| row[2] >> (4 * i) & 15)));
}

#[test]
fn prmt_modes_follow_the_tables() {
    // PTX ISA 9.7.9.7, from the most significant byte of the result down.
    let tables = [
        ("f4e", [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]),
        ("b4e", [[5, 6, 7, 0], [6, 7, 0, 1], [7, 0, 1, 2], [0, 1, 2, 3]]),
        ("rc8", [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecl", [[3, 2, 1, 0], [3, 2, 1, 1], [3, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecr", [[0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 1, 0], [3, 2, 1, 0]]),
        ("rc16", [[1, 0, 1, 0], [3, 2, 3, 2], [1, 0, 1, 0], [3, 2, 3, 2]]),
    ];
    let list: Vec<Vec<u64>> = (0..12).map(|c| vec![0x8081_8283, 0x0405_0607, c]).collect();
    for (mode, table) in tables {
        let body = format!("prmt.b32.{mode} %y0, %x0, %x1, %x2;");
        Snippet { inputs: &["b32"; 3], outputs: &["b32"], body: &body }.check(&list, |row| {
            let [b3, b2, b1, b0] = table[row[2] as usize % 4];
            permute(row, [b0, b1, b2, b3])
        });
    }
}

#[test]
fn unknown_forms_are_refused_with_line_and_instruction() {
    let cases = [
        ("and.u32 %y0, %x0, %x0;", "expected `.pred`, `.b16`, `.b32` or `.b64`"),
        ("lop3.b32 %y0, %x0, %x0, %x0, 256;", "expected a table"),
        ("lop3.and.b32 %y0, %x0, %x0, %x0, 1, %p0;", "expected destinations `d|p`"),
        ("shf.l.b32 %y0, %x0, %x0, %x0;", "and `.wrap` or `.clamp`"),
        ("prmt.b32.f5e %y0, %x0, %x0, %x0;", "unknown part `.f5e`"),
    ];
    for (body, why) in cases {
        let (message, line) = Snippet { inputs: &["b32"], outputs: &["b32"], body }.refusal();
        let instruction = body.split(' ').next().unwrap();
        assert!(message.starts_with(&format!("line {line}: `{instruction}`")) && message.contains(why), "{message}");
    }
}
