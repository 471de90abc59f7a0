//! Loads, stores, atomics and asynchronous copies (PTX ISA 9.7.9, 9.7.13.5-6): bytes in little-endian order.

use crate::cases::{Case, Format, Tolerance};
use crate::expected_float::{bits32, f32_of};
use crate::expected_half::Small;
use crate::inputs::Element::{self, Bf16, Bf16x2, F16, F16x2, F32, F64, I16, I32, I64};
use crate::inputs::{random_rows, rows};

/// Element `i` of `size` bytes of a row, extended to `register` bytes with its sign or zeros.
fn element(row: &[u64], i: usize, size: usize, signed: bool, register: usize) -> u64 {
    let bytes: Vec<u8> = row.iter().flat_map(|word| word.to_le_bytes()).collect();
    let value = bytes[i * size..][..size].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    let unused = 64 - 8 * size as u32;
    let extended = if signed { ((value << unused) as i64 >> unused) as u64 } else { value };
    extended & u64::MAX >> (64 - 8 * register)
}

fn loads(list: &mut Vec<Case>) {
    // Name, elements, bytes, sign, bytes of the register: a narrower load extends to it (9.4.1).
    let forms = [
        ("ld.global.u8", 1, 1, false, 4),
        ("ld.global.s8", 1, 1, true, 4),
        ("ld.global.u16", 1, 2, false, 2),
        ("ld.global.s16", 1, 2, true, 4),
        ("ld.global.b32", 1, 4, false, 4),
        ("ld.global.f32", 1, 4, false, 4),
        ("ld.global.b64", 1, 8, false, 8),
        ("ld.global.s32", 1, 4, true, 8),
        ("ld.u32", 1, 4, false, 8),
        ("ld.global.nc.u32", 1, 4, false, 4),
        ("ld.global.ca.u32", 1, 4, false, 4),
        ("ld.global.cg.u32", 1, 4, false, 4),
        ("ld.global.cs.u32", 1, 4, false, 4),
        ("ld.global.lu.u32", 1, 4, false, 4),
        ("ld.global.cv.u32", 1, 4, false, 4),
        ("ld.volatile.global.u32", 1, 4, false, 4),
        ("ld.relaxed.gpu.global.u32", 1, 4, false, 4),
        ("ld.acquire.sys.global.u64", 1, 8, false, 8),
        ("ldu.global.u32", 1, 4, false, 4),
        ("ld.global.nc.L1::no_allocate.L2::128B.b64", 1, 8, false, 8),
        ("ld.global.v2.u8", 2, 1, false, 4),
        ("ld.global.v2.s16", 2, 2, true, 4),
        ("ld.global.v2.b32", 2, 4, false, 4),
        ("ld.global.v2.u64", 2, 8, false, 8),
        ("ld.global.v4.u8", 4, 1, false, 4),
        ("ld.global.v4.u16", 4, 2, false, 2),
        ("ld.global.v4.f32", 4, 4, false, 4),
        ("ld.global.nc.v4.u32", 4, 4, false, 4),
    ];
    for (name, count, size, signed, register) in forms {
        list.push(Case::of("memory", name, count, rows(&[I64, I64]), move |row| {
            (0..count).map(|i| element(row, i, size, signed, register)).collect()
        }));
    }
}

fn stores(list: &mut Vec<Case>) {
    let forms = [
        ("st.global.u8", 1),
        ("st.global.b16", 2),
        ("st.global.f32", 4),
        ("st.global.b64", 8),
        ("st.u32", 4),
        ("st.global.wb.u32", 4),
        ("st.global.cg.u32", 4),
        ("st.global.cs.u32", 4),
        ("st.global.wt.u32", 4),
        ("st.volatile.global.u32", 4),
        ("st.release.gpu.global.u32", 4),
        ("st.relaxed.sys.global.u64", 8),
    ];
    for (name, size) in forms {
        list.push(Case::of("memory", name, 2, rows(&[I64, I64]), move |row| {
            let mask = u64::MAX >> (64 - 8 * size);
            vec![row[0] & mask | !mask, u64::MAX]
        }));
    }
    let mut vector =
        |name: &str, f: fn(&[u64]) -> Vec<u64>| list.push(Case::of("memory", name, 2, rows(&[I64, I64]), f));
    vector("st.global.v2.b64", |row| vec![row[1], row[0]]);
    vector("st.global.v4.b32", |row| vec![row[1], row[0]]);
    vector("st.global.v4.u8", |row| {
        let byte = |x: u64, shift: u32| x & 0xFF << shift;
        vec![byte(row[0], 0) | byte(row[1], 0) << 8 | (row[0] >> 8 & 0xFF) << 16 | (row[1] >> 8 & 0xFF) << 24, 0]
    });
}

fn spaces(list: &mut Vec<Case>) {
    let shared = Case::all("memory", "shared_static_and_dynamic", "bar.sync", 1, random_rows(&[I64], 512), |rows| {
        let block = |block: &[Vec<u64>]| (0..128).map(|i| block[127 - (i + 1) % 128].clone()).collect::<Vec<_>>();
        rows.chunks(128).flat_map(block).collect()
    });
    list.push(Case { dynamic_shared: 1024, ..shared });
    list.push(Case::of("memory", "ld.shared.v2.u32", 1, rows(&[I64]), |row| vec![row[0].rotate_left(32)]));
    let tables = Case::of("memory", "ld.const.u32", 4, rows(&[I64]), |row| {
        let reals = [0.5f64, -0.0, 1e300, -3.0];
        let shorts = [-1i16, 2, -32768, 0, 0];
        let short = i32::from(shorts[(row[0] % 5) as usize]) as u32;
        vec![(row[0] & 7).pow(2), reals[row[0] as usize & 3].to_bits(), short.into(), 9]
    });
    list.push(tables.named("constant_tables"));
    let local = Case::of("memory", "st.local", 2, random_rows(&[I64; 4], 256), |row| {
        let mut list: Vec<u32> = (0..32).map(|k| (row[k & 3] >> k) as u32).collect();
        for k in 0..16u64 {
            let (at, to) = (row[0].wrapping_add(k.wrapping_mul(row[1])) % 32, (row[2] ^ k) % 32);
            list.swap(at as usize, to as usize);
            list[to as usize] = list[to as usize].wrapping_add(k as u32);
        }
        let low = list.iter().fold(0u64, |low, x| low.wrapping_mul(31).wrapping_add(u64::from(*x)));
        vec![low, list.iter().zip(0..).fold(0, |high, (x, k)| high ^ u64::from(*x) << k)]
    });
    list.push(local.named("local_array"));
    list.push(Case::of("memory", "cvta.to.shared.u64", 1, rows(&[I32]), |_| vec![0b1111_0111]).named("cvta"));
    list.push(Case::of("memory", "prefetch.global.L1", 1, rows(&[I64]), |row| vec![row[0]]).named("hints"));
}

/// What an atomic operation makes of the old value and its operand (9.7.13.5).
pub fn operate(name: &str, ty: &str, old: u64, x: u64) -> u64 {
    let mask = u64::MAX >> (64 - ty[1..].parse::<u32>().unwrap());
    let signed = |x: u64| if ty == "s32" { i64::from(x as i32) } else { x as i64 };
    let less = if ty.starts_with('s') { signed(x) < signed(old) } else { x < old };
    mask & match (name, ty) {
        ("add", "f32") => bits32(f32_of(old) + f32_of(x)),
        ("add", "f64") => (f64::from_bits(old) + f64::from_bits(x)).to_bits(),
        ("add", _) => old.wrapping_add(x),
        ("min", _) => {
            if less {
                x
            } else {
                old
            }
        }
        ("max", _) => {
            if less {
                old
            } else {
                x
            }
        }
        ("inc", _) => {
            if old >= x {
                0
            } else {
                old + 1
            }
        }
        ("dec", _) => {
            if old == 0 || old > x {
                x
            } else {
                old - 1
            }
        }
        ("and", _) => old & x,
        ("or", _) => old | x,
        _ => old ^ x,
    }
}

/// The old value and the new one.
fn atom(
    list: &mut Vec<Case>,
    file: &'static str,
    name: &str,
    operand: Element,
    f: impl Fn(u64, u64) -> u64 + std::panic::RefUnwindSafe + 'static,
) {
    let case = Case::of(file, name, 2, rows(&[operand; 2]), move |row| vec![row[0], f(row[0], row[1])]);
    list.push(case.within(if operand == F64 { Tolerance::Number(Format::F64) } else { Tolerance::Exact }));
}

fn atomics(list: &mut Vec<Case>) {
    let forms: [(&str, &[&str]); 8] = [
        ("add", &["u32", "s32", "u64", "f32", "f64"]),
        ("min", &["u32", "s32", "u64", "s64"]),
        ("max", &["u32", "s32", "u64", "s64"]),
        ("inc", &["u32"]),
        ("dec", &["u32"]),
        ("and", &["b32", "b64"]),
        ("or", &["b32", "b64"]),
        ("xor", &["b32", "b64"]),
    ];
    for (name, types) in forms {
        for ty in types {
            let operand = match *ty {
                "f32" => F32,
                "f64" => F64,
                _ if ty.ends_with("64") => I64,
                _ => I32,
            };
            let f = move |old, x| operate(name, ty, old, x);
            // Subnormals are left out: of atomic sums of f32 the ISA says that current hardware flushes them in global
            // memory (9.7.13.5), and the simulator keeps them.
            let kept = move |row: &Vec<u64>| {
                let sum = f32_of(operate(name, ty, row[0], row[1]));
                *ty != "f32" || !(f32_of(row[0]).is_subnormal() || f32_of(row[1]).is_subnormal() || sum.is_subnormal())
            };
            atom(list, "atomic", &format!("atom.global.{name}.{ty}"), operand, f);
            let red =
                Case::new("atomic", &format!("red.global.{name}.{ty}"), &[operand; 2], move |row| f(row[0], row[1]));
            list.push(red.within(if operand == F64 { Tolerance::Number(Format::F64) } else { Tolerance::Exact }));
            let first = list.len() - 2;
            list[first..].iter_mut().for_each(|case| case.rows.retain(kept));
        }
    }
    atom(list, "atomic", "atom.global.exch.b32", I32, |_, x| x);
    atom(list, "atomic", "atom.global.exch.b64", I64, |_, x| x);
    for name in ["atom.add.u32", "atom.relaxed.gpu.global.add.u32"] {
        atom(list, "atomic", name, I32, |old, x| operate("add", "u32", old, x));
    }
    atom(list, "atomic", "atom.acq_rel.sys.global.max.s32", I32, |old, x| operate("max", "s32", old, x));
    list.push(Case::new("atomic", "red.release.gpu.global.add.u32", &[I32; 2], |row| {
        operate("add", "u32", row[0], row[1])
    }));
    let half = |small: Small, a: u64, b: u64| small.round(small.value(a & 0xFFFF) + small.value(b & 0xFFFF), "rn");
    let pair = move |small, a: u64, b: u64| half(small, a, b) | half(small, a >> 16, b >> 16) << 16;
    atom(list, "atomic", "atom.global.add.noftz.f16", F16, move |old, x| half(Small::F16, old, x));
    atom(list, "atomic", "atom.global.add.noftz.f16x2", F16x2, move |old, x| pair(Small::F16, old, x));
    atom(list, "atomic_90", "atom.global.add.noftz.bf16", Bf16, move |old, x| half(Small::Bf16, old, x));
    atom(list, "atomic_90", "atom.global.add.noftz.bf16x2", Bf16x2, move |old, x| pair(Small::Bf16, old, x));
    list.push(Case::new("atomic", "red.global.add.noftz.f16x2", &[F16x2; 2], move |row| {
        pair(Small::F16, row[0], row[1])
    }));
    for (bits, operand) in [(16, I16), (32, I32), (64, I64)] {
        list.push(Case::of("atomic", &format!("atom.global.cas.b{bits}"), 2, rows(&[operand; 3]), |row| {
            vec![row[0], if row[0] == row[1] { row[2] } else { row[0] }]
        }));
    }
    // Ordinary numbers: two f32 in a word.
    let numbers = |count| {
        let words = random_rows(&[Element::Range(-9.0, 9.0); 4], count);
        words.into_iter().map(|w| vec![w[0] | w[1] << 32, w[2] | w[3] << 32]).collect::<Vec<_>>()
    };
    let sums = |row: &[u64]| {
        let sum = |shift: u32| operate("add", "f32", row[0] >> shift, row[1] >> shift);
        sum(0) | sum(32) << 32
    };
    list.push(Case::of("atomic_90", "atom.global.v2.f32.add", 2, numbers(200), move |row| vec![row[0], sums(row)]));
    list.push(Case::of("atomic_90", "red.global.v2.f32.add", 1, numbers(200), move |row| vec![sums(row)]));
    list.push(Case::of("atomic_90", "atom.global.exch.b128", 4, random_rows(&[I64; 4], 200), <[u64]>::to_vec));
    list.push(Case::of("atomic_90", "atom.global.cas.b128", 4, random_rows(&[I64; 4], 200), |row| {
        let new = if row[3] & 1 == 0 { &row[2..] } else { &row[..2] };
        [&row[..2], new].concat()
    }));
}

fn shared_atomics(list: &mut Vec<Case>) {
    let totals = |block: &[Vec<u64>]| {
        let low = || block.iter().map(|row| row[0] as u32);
        let sum = low().fold(0, u32::wrapping_add);
        let bits = block.iter().fold(0, |bits, row| bits ^ row[0]);
        let row = vec![sum.into(), low().min().unwrap_or(0).into(), low().max().unwrap_or(0).into(), 128, bits, 1];
        vec![row; block.len()]
    };
    list.push(Case::all("atomic", "atom_shared", "atom.shared.add.u32", 6, random_rows(&[I64], 512), move |rows| {
        rows.chunks(128).flat_map(totals).collect()
    }));
    list.push(Case::all("atomic", "atom_shared_lock", "atom.shared.cas.b32", 1, random_rows(&[I32], 256), |rows| {
        let sum = |block: &[Vec<u64>]| block.iter().map(|row| row[0]).sum::<u64>() & 0xFFFF_FFFF;
        rows.chunks(128).flat_map(|block| vec![vec![sum(block)]; block.len()]).collect()
    }));
}

fn copies(list: &mut Vec<Case>) {
    let mut copy = |kernel: &str, instruction: &str, size: fn(&[u64]) -> (u64, u64)| {
        let case = Case::of("cp_async", instruction, 2, random_rows(&[I64, I64], 256), move |row| {
            let (copied, written) = size(row);
            // Bytes beyond what is copied are zeros, and beyond what is written the ones from before.
            let byte = |i: u64| match i {
                _ if i < copied => row[i as usize / 8].to_le_bytes()[i as usize % 8],
                _ if i < written => 0,
                _ => 0xFF,
            };
            (0..2).map(|word| (0..8).rev().fold(0, |x, i| x << 8 | u64::from(byte(8 * word + i)))).collect()
        });
        list.push(case.named(kernel));
    };
    copy("cp_async_ca_4", "cp.async.ca.shared.global", |_| (4, 4));
    copy("cp_async_ca_8", "cp.async.ca.shared.global", |_| (8, 8));
    copy("cp_async_ca_16", "cp.async.wait_all", |_| (16, 16));
    copy("cp_async_cg_16", "cp.async.cg.shared.global", |_| (16, 16));
    copy("cp_async_cg_L2", "cp.async.cg.shared.global.L2::256B", |_| (16, 16));
    copy("cp_async_zfill", "cp.async.ca.shared.global", |row| (row[0] % 17, 16));
    copy("cp_async_ignore", "cp.async.cg.shared.global", |row| (if row[1] & 1 == 1 { 0 } else { 16 }, 16));
    let groups = Case::of("cp_async", "cp.async.wait_group", 3, random_rows(&[I64; 3], 256), <[u64]>::to_vec);
    list.push(groups.named("cp_async_groups"));
}

/// What a load and a store with a cache policy bring is what they bring without one.
fn policies(list: &mut Vec<Case>) {
    for name in [
        "createpolicy.fractional.L2::evict_last.b64",
        "createpolicy.fractional.L2::evict_first.L2::evict_unchanged.b64",
        "createpolicy.range.L2::evict_normal.b64",
        "createpolicy.range.global.L2::evict_last.L2::evict_first.b64",
        "createpolicy.cvt.L2.b64",
    ] {
        list.push(Case::of("policy", name, 1, rows(&[I64, I64]), |row| vec![row[0]]));
    }
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    loads(&mut list);
    stores(&mut list);
    spaces(&mut list);
    atomics(&mut list);
    shared_atomics(&mut list);
    copies(&mut list);
    policies(&mut list);
    list
}
