//! Control flow, calls, parameters, local memory, and a softmax in f64 (PTX ISA 7.1, 9.7.12).

use crate::cases::{Case, Format, Tolerance};
use crate::inputs::Element::{I32, I64, Range};
use crate::inputs::{random_rows, rows};
use crate::run::Simulator;

fn branches(list: &mut Vec<Case>) {
    let collatz = Case::of("control", "bra", 1, rows(&[I32]), |row| {
        let (mut x, mut steps) = (row[0] & 0xFFFF, 0);
        while x > 1 && steps < 100 {
            x = if x % 2 == 1 { 3 * x + 1 } else { x / 2 };
            steps += 1;
        }
        vec![steps]
    });
    list.push(collatz.named("divergent_loop"));
    let table = Case::of("control", "brx.idx", 1, rows(&[I32]), |row| {
        let x = row[0] as u32;
        let results = [100, x.wrapping_add(1), !x, x.wrapping_mul(3)];
        vec![results[x as usize & 3].into()]
    });
    list.push(table.named("jump_table"));
    let exit = Case::of("control", "exit", 1, rows(&[I32]), |row| vec![if row[0] % 4 == 0 { row[0] + 1 } else { 0 }]);
    list.push(exit.named("early_exit"));
    for (file, name, instruction) in
        [("control", "pause", "nanosleep.u32"), ("control_90", "griddepcontrol", "griddepcontrol.wait")]
    {
        list.push(Case::of(file, instruction, 1, rows(&[I32]), <[u64]>::to_vec).named(name));
    }
}

fn calls(list: &mut Vec<Case>) {
    let pointers = Case::of("control", "call", 2, rows(&[I32]), |row| {
        let x = row[0] as u32;
        let results = [x.wrapping_mul(2), x.wrapping_mul(x), !x];
        vec![results[0].into(), results[(row[0] % 3) as usize].into()]
    });
    list.push(pointers.named("function_pointers"));
    let recursion = Case::of("control", "call.uni", 1, rows(&[I32]), |row| {
        let number = row[0] as u32 % 12;
        vec![(0..number).fold((0, 1), |(a, b), _| (b, a + b)).0]
    });
    list.push(recursion.named("recursion"));
    let many = Case::of("control", "ret", 1, random_rows(&[I64; 4], 128), |row| {
        let mut v: Vec<u64> =
            (0..96).map(|k| row[k & 3].wrapping_mul(k as u64 + 1) ^ row[(k + 1) & 3] >> (k & 31)).collect();
        for k in 0..96 {
            v[k] = v[k].wrapping_add(v[(k * 37 + 11) % 96]);
        }
        vec![(0..96).fold(0u64, |d, k| d.wrapping_mul(3).wrapping_add(v[(k * 29 + 5) % 96]))]
    });
    list.push(many.named("many_values"));
}

/// Two structures behind the usual parameters, laid out as C does: `Mixed` of 32 bytes at offset 24, and `Wide` of 64
/// bytes, aligned to 16, at offset 64.
fn structures(list: &mut Vec<Case>) {
    let (tag, weight, shorts, word) = (b'x', -2.75f64, [-7i16, 300, -32768], 0xC0FF_EE00u32);
    let array = [1u32, 20, 300, 4000, 0xFFFF_FFFF];
    let mut extra = vec![0; 108];
    let mut put = |offset: usize, bytes: &[u8]| extra[offset - 20..][..bytes.len()].copy_from_slice(bytes);
    put(24, &[tag]);
    put(32, &weight.to_le_bytes());
    shorts.iter().zip(0..).for_each(|(x, i)| put(40 + 2 * i, &x.to_le_bytes()));
    put(48, &word.to_le_bytes());
    array.iter().zip(0..).for_each(|(x, i)| put(64 + 4 * i, &x.to_le_bytes()));
    let case = Case::of("control", "ld.param", 6, rows(&[I32]), move |row| {
        let (k, changed) = ((row[0] % 5) as usize, word ^ row[0] as u32);
        let mut a = array;
        a[k] = a[k].wrapping_add(changed);
        let mut list = shorts;
        list[k % 3] = shorts[0] + k as i16;
        let sum = a.iter().fold(0u64, |sum, x| sum.wrapping_mul(7).wrapping_add(u64::from(*x)));
        let short = list[(row[0] % 3) as usize] as u16;
        vec![sum, tag.into(), weight.to_bits(), short.into(), changed.into(), 32 << 8 | 64]
    });
    list.push(Case { extra, ..case.named("structs_by_value") });
}

fn softmax(list: &mut Vec<Case>) {
    let mut rows = random_rows(&[Range(-12.0, 12.0); 8], 256);
    // One warp whose numbers would overflow without the maximum being taken off.
    for row in &mut rows[32..64] {
        row.iter_mut().for_each(|x| *x = (f32::from_bits(*x as u32) + 300.0).to_bits().into());
    }
    let case = Case::all("control", "softmax", "ex2.approx.ftz.f32", 8, rows, |rows| {
        let warp = |warp: &[Vec<u64>]| {
            let value = |x: &u64| f64::from(f32::from_bits(*x as u32));
            let most = warp.iter().flatten().map(value).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = warp.iter().flatten().map(|x| (value(x) - most).exp()).sum();
            let bits = |x: &u64| u64::from((((value(x) - most).exp() / sum) as f32).to_bits());
            warp.iter().map(|row| row.iter().map(bits).collect()).collect::<Vec<Vec<u64>>>()
        };
        rows.chunks(32).flat_map(warp).collect()
    });
    // Arguments up to 450 are multiplied in f32, which moves an exponent by up to 450 * 2^-24 * 2.
    let tolerance = Tolerance::Within { format: Format::F32, relative: 2f64.powi(-13), absolute: 1e-37 };
    list.push(case.within(tolerance));
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    branches(&mut list);
    calls(&mut list);
    structures(&mut list);
    softmax(&mut list);
    list.push(Case::of("control", "call", 1, vec![vec![2], vec![6], vec![9]], <[u64]>::to_vec).named("print"));
    for name in ["trap", "brkpt"] {
        list.push(Case::of("control", name, 1, vec![vec![1], vec![2]], <[u64]>::to_vec));
    }
    list
}

#[test]
fn printf_prints_as_c_does() {
    let case = cases().into_iter().find(|case| case.kernel == "print").unwrap();
    let report = Simulator::default().launch(&case, &[2, 6, 9], 3).unwrap().0;
    assert_eq!(report.printed, "-6  0.75 text|6|c|6597069766656\n");
}

#[test]
fn traps_end_the_launch() {
    for name in ["trap", "brkpt"] {
        let case = cases().into_iter().find(|case| case.kernel == name).unwrap();
        let error = Simulator::default().launch(&case, &[1, 7], 2).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}
