//! Exchange between lanes and barriers (PTX ISA 9.7.9.6, 9.7.13): results of whole warps and blocks.

use crate::cases::Case;
use crate::inputs::Element::{Bool, I32, I64};
use crate::inputs::{Element, Random, random_rows};

type Rows = [Vec<u64>];

/// A case of which each warp's results depend on the warp alone. `f` has the warp's rows and a lane.
fn warps(
    file: &'static str,
    instruction: &str,
    outputs: usize,
    rows: Vec<Vec<u64>>,
    f: impl Fn(&Rows, usize) -> Vec<u64> + std::panic::RefUnwindSafe + 'static,
) -> Case {
    groups(file, instruction, outputs, rows, 32, f)
}

fn groups(
    file: &'static str,
    instruction: &str,
    outputs: usize,
    rows: Vec<Vec<u64>>,
    size: usize,
    f: impl Fn(&Rows, usize) -> Vec<u64> + std::panic::RefUnwindSafe + 'static,
) -> Case {
    let kernel = instruction.replace('.', "_");
    Case::all(file, &kernel, instruction, outputs, rows, move |rows| {
        rows.chunks(size).flat_map(|group| (0..group.len()).map(|i| f(group, i)).collect::<Vec<_>>()).collect()
    })
}

fn random(operands: &[Element]) -> Vec<Vec<u64>> {
    random_rows(operands, 512)
}

/// The source lane and whether it is in range, by the ISA's pseudo-code (9.7.9.6).
fn source(mode: &str, lane: i64, b: u64, c: u64) -> (usize, u64) {
    let (b, clamp, segments) = ((b & 31) as i64, (c & 31) as i64, (c >> 8 & 31) as i64);
    let (low, high) = (lane & segments, lane & segments | clamp & !segments);
    let (from, valid) = match mode {
        "up" => (lane - b, lane - b >= (low | clamp & !segments)),
        "down" => (lane + b, lane + b <= high),
        "bfly" => (lane ^ b, lane ^ b <= high),
        _ => (low | b & !segments, low | b & !segments <= high),
    };
    if valid { (from as usize, 1) } else { (lane as usize, 0) }
}

fn shuffles(list: &mut Vec<Case>) {
    for mode in ["up", "down", "bfly", "idx"] {
        let mut rows = random(&[I32, I32, I32]);
        let mut numbers = Random(3);
        // A warp's lanes have one clamp and segment mask; distances differ from lane to lane where the mode allows.
        for warp in rows.chunks_mut(32) {
            let width = 1u64 << (numbers.next() % 6);
            let (clamp, distance) = (if mode == "up" { 0 } else { 31 }, numbers.next() % 40);
            for row in warp {
                row[1] = if mode == "idx" { row[1] } else { distance };
                row[2] = (32 - width) << 8 | clamp;
            }
        }
        list.push(warps("warp", &format!("shfl.sync.{mode}.b32"), 2, rows, move |warp, lane| {
            let (from, valid) = source(mode, lane as i64, warp[lane][1], warp[lane][2]);
            vec![warp[from][0], valid]
        }));
    }
}

fn votes(list: &mut Vec<Case>) {
    let mut rows = random(&[Bool]);
    rows[..32].fill(vec![0]);
    rows[32..64].fill(vec![1]);
    rows[64..95].fill(vec![0]);
    let holds = |warp: &Rows, bit: u64| warp.iter().filter(|row| row[0] == bit).count();
    list.push(warps("warp", "vote.sync.all.pred", 1, rows.clone(), move |w, _| vec![(holds(w, 1) == 32).into()]));
    list.push(warps("warp", "vote.sync.any.pred", 1, rows.clone(), move |w, _| vec![(holds(w, 1) > 0).into()]));
    list.push(warps("warp", "vote.sync.uni.pred", 1, rows.clone(), move |w, _| vec![(holds(w, 1) % 32 == 0).into()]));
    list.push(warps("warp", "vote.sync.ballot.b32", 1, rows, |warp, _| {
        vec![warp.iter().enumerate().map(|(i, row)| (1 - row[0]) << i).sum()]
    }));
    let equal = |warp: &Rows, lane: usize| {
        warp.iter().enumerate().map(|(i, row)| u64::from(row[0] == warp[lane][0]) << i).sum::<u64>()
    };
    let few = |shift: u32| random(&[I32]).into_iter().map(|row| vec![(row[0] % 5) << shift]).collect::<Vec<_>>();
    list.push(warps("warp", "match.any.sync.b32", 1, few(0), move |warp, lane| vec![equal(warp, lane)]));
    list.push(warps("warp", "match.any.sync.b64", 1, few(40), move |warp, lane| vec![equal(warp, lane)]));
    let mut rows = few(0);
    rows[32..64].fill(vec![0xDEAD_BEEF]);
    list.push(warps("warp", "match.all.sync.b32", 2, rows, move |warp, lane| match equal(warp, lane) {
        0xFFFF_FFFF => vec![0xFFFF_FFFF, 1],
        _ => vec![0, 0],
    }));
}

fn reductions(list: &mut Vec<Case>) {
    type Fold = fn(u32, u32) -> u32;
    let folds: [(&str, Fold); 9] = [
        ("add.u32", u32::wrapping_add),
        ("add.s32", u32::wrapping_add),
        ("min.u32", std::cmp::min),
        ("max.u32", std::cmp::max),
        ("min.s32", |a, b| (a as i32).min(b as i32) as u32),
        ("max.s32", |a, b| (a as i32).max(b as i32) as u32),
        ("and.b32", |a, b| a & b),
        ("or.b32", |a, b| a | b),
        ("xor.b32", |a, b| a ^ b),
    ];
    for (name, fold) in folds {
        list.push(warps("warp", &format!("redux.sync.{name}"), 1, random(&[I32]), move |warp, _| {
            vec![warp.iter().map(|row| row[0] as u32).reduce(fold).unwrap_or(0).into()]
        }));
    }
    let partial = warps("warp", "activemask.b32", 2, random(&[I32]), |warp, lane| {
        let odd = |row: &&Vec<u64>| row[0] & 1 == 1;
        let sum: u64 = warp.iter().filter(odd).map(|row| row[0]).sum();
        let mask = warp.iter().enumerate().map(|(i, row)| (row[0] & 1) << i).sum();
        if odd(&&warp[lane]) { vec![sum & 0xFFFF_FFFF, mask] } else { vec![0, 0] }
    });
    list.push(partial.named("redux_partial"));
    list.push(warps("warp_90", "elect.sync", 2, random(&[I32]), |_, _| vec![1, 1]));
}

fn registers(list: &mut Vec<Case>) {
    let rows = random(&[I32]);
    list.push(Case::all("warp", "special_registers", "mov.u32", 10, rows, |rows| {
        (0..rows.len() as u64)
            .map(|i| {
                let (thread, lane) = (i % 128, i % 32);
                let blocks = rows.len() as u64 / 128;
                vec![thread, i / 128, 128, blocks, lane, 1 << lane, (1 << lane) - 1, (1 << 32) - (1 << lane), 1, 1]
            })
            .collect()
    }));
}

fn barriers(list: &mut Vec<Case>) {
    let blocks = |instruction: &str, f: fn(&Rows, usize) -> u64| {
        groups("barrier", instruction, 1, random(&[I64]), 128, move |block, i| vec![f(block, i)])
    };
    for name in ["bar.sync", "bar.cta.sync", "barrier.sync", "barrier.cta.sync.aligned"] {
        list.push(blocks(name, |block, i| block[(i + 33) % 128][0]));
    }
    list.push(blocks("bar.warp.sync", |block, i| block[i ^ 17][0]));
    list.push(blocks("bar.arrive", |block, i| if i < 64 { 0 } else { block[i - 64][0] }));
    let mut predicates = random(&[Bool]);
    predicates[..128].fill(vec![0]);
    predicates[128..256].fill(vec![1]);
    let mut reduce = |instruction: &str, f: fn(u64) -> u64| {
        let case = groups("barrier", instruction, 1, predicates.clone(), 128, move |block, _| {
            vec![f(block.iter().map(|row| row[0]).sum())]
        });
        list.push(case);
    };
    reduce("bar.red.popc.u32", |count| count);
    reduce("bar.red.and.pred", |count| (count == 128).into());
    reduce("bar.red.or.pred", |count| (count > 0).into());
    reduce("barrier.red.popc.u32", |count| 128 - count);
    list.push(blocks("fence.sc.gpu", |block, i| block[i][0].wrapping_add(1)).named("fences"));
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    shuffles(&mut list);
    votes(&mut list);
    reductions(&mut list);
    registers(&mut list);
    barriers(&mut list);
    list
}
