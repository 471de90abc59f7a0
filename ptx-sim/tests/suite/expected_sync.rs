//! `mbarrier` and fences (PTX ISA 9.7.13.4 and 9.7.13.15): what counts as pending, whether phases have ended, and that
//! what was written before an arrival is read behind a wait.

use crate::cases::Case;
use crate::inputs::Element::{I32, I64};
use crate::inputs::random_rows;

const FILE: &str = "mbarrier_90";
/// Threads of a block.
const BLOCK: usize = 128;

type Rows = [Vec<u64>];

/// A case whose results depend on all rows of the thread's block.
fn blocks(
    kernel: &str,
    instruction: &str,
    width: usize,
    f: impl Fn(&Rows, usize) -> Vec<u64> + std::panic::RefUnwindSafe + 'static,
) -> Case {
    Case::all(FILE, kernel, instruction, width, random_rows(&vec![I64; width], 3 * BLOCK), move |rows| {
        rows.chunks(BLOCK).flat_map(|block| (0..BLOCK).map(|i| f(block, i)).collect::<Vec<_>>()).collect()
    })
}

/// Five rounds in which each thread adds the value that the thread 33 behind it had.
fn rounds(list: &mut Vec<Case>) {
    let kernels = [
        ("rounds_state", "mbarrier.test_wait.shared::cta.b64"),
        ("rounds_try_state", "mbarrier.try_wait.acquire.cta.shared::cta.b64"),
        ("rounds_parity", "mbarrier.test_wait.parity.shared::cta.b64"),
        ("rounds_try_parity", "mbarrier.arrive.release.cluster.shared::cluster.b64"),
        ("rounds_relaxed", "mbarrier.try_wait.relaxed.cta.shared::cta.b64"),
        ("rounds_expect_tx", "mbarrier.arrive.expect_tx.shared::cta.b64"),
    ];
    for (kernel, instruction) in kernels {
        list.push(blocks(kernel, instruction, 1, |block, i| {
            // The sum of the values at distances 0, 33, ..., as often as there are ways to choose the rounds: binomials.
            let ways = [1, 5, 10, 10, 5, 1];
            let terms = ways.iter().enumerate().map(|(k, ways)| block[(i + 33 * k) % BLOCK][0].wrapping_mul(*ways));
            vec![terms.fold(0, u64::wrapping_add)]
        }));
    }
}

/// Rows of a count and of a smaller one.
fn counts(greatest: u64) -> Vec<Vec<u64>> {
    let edges = [(2, 1), (3, 1), (3, 2), (greatest, 1), (greatest, greatest - 1), (greatest, greatest / 2)];
    let random = random_rows(&[I32, I32], 2 * BLOCK - edges.len()).into_iter().map(|row| {
        let count = 3 + row[0] % (greatest - 2);
        vec![count, 1 + row[1] % (count - 1)]
    });
    edges.into_iter().map(|(count, some)| vec![count, some]).chain(random).collect()
}

fn each(list: &mut Vec<Case>) {
    // The last arrival is of one thread at least.
    let rows: Vec<_> = counts((1 << 20) - 1).into_iter().filter(|row| row[0] - row[1] > 1).collect();
    list.push(Case::all(FILE, "pending_each", "mbarrier.pending_count.b64", 4, rows, |rows| {
        rows.iter().map(|row| vec![row[0], row[0] - row[1], 0, 1]).collect()
    }));
    // Those that are left arrive; as many arrivals end the next phase, of which one must not be the last.
    let rows: Vec<_> = counts((1 << 20) - 1).into_iter().filter(|row| row[0] - row[1] > 1).collect();
    list.push(Case::all(FILE, "drop_each", "mbarrier.arrive_drop.noComplete.shared::cta.b64", 3, rows, |rows| {
        rows.iter().map(|row| vec![row[0], 1, row[0] - row[1]]).collect()
    }));
    let drops = Case::of(FILE, "mbarrier.arrive_drop.expect_tx.shared::cta.b64", 4, random_rows(&[I32], 256), |row| {
        // Without bytes the third arrival ends the phase. One thread is left for the next.
        vec![0, u64::from(row[0] & 0xFFFFF == 0), 1, 1]
    });
    list.push(drops.named("drop_expect_tx_each"));
    let bytes =
        Case::of(FILE, "mbarrier.complete_tx.relaxed.cta.shared::cta.b64", 5, random_rows(&[I32; 2], 256), |_| {
            // One arrival is missing until the fourth step, whose bytes the fifth brings.
            vec![0, 0, 0, 0, 1]
        });
    list.push(bytes.named("bytes_each"));
    let gone = Case::of(FILE, "mbarrier.inval.b64", 3, random_rows(&[I64], 256), |row| vec![1, row[0], 2]);
    list.push(gone.named("inval_each"));
}

fn pipelines(list: &mut Vec<Case>) {
    list.push(blocks("pipeline", "mbarrier.try_wait.parity.shared::cta.b64", 1, |block, i| {
        let buffer = |k: usize| (block[(i + k) % 32][0] >> k) + k as u64;
        match i {
            0..32 => vec![0],
            _ => vec![(0..10).fold(block[i][0], |sum, k| sum.wrapping_add(buffer(k)))],
        }
    }));
    for (kernel, instruction) in [
        ("copies", "cp.async.mbarrier.arrive.shared::cta.b64"),
        ("copies_noinc", "cp.async.mbarrier.arrive.noinc.shared::cta.b64"),
    ] {
        list.push(blocks(kernel, instruction, 2, |block, i| block[(i + 65) % BLOCK].clone()));
    }
}

pub fn cases() -> Vec<Case> {
    let mut list = Vec::new();
    rounds(&mut list);
    each(&mut list);
    pipelines(&mut list);
    let fences =
        Case::of("fence_90", "fence.proxy.async", 1, random_rows(&[I64], 256), |row| vec![row[0].wrapping_add(15)]);
    list.push(fences.named("fences_90"));
    let three = random_rows(&[I64], 3 * 384);
    let registers = Case::all("registers_90", "setmaxnreg", "setmaxnreg.inc.sync.aligned.u32", 1, three, |rows| {
        let value = |block: &Rows, i: usize| if i < 128 { 0 } else { block[i][0] ^ block[(i + 5) % 128][0] };
        rows.chunks(384).flat_map(|block| (0..384).map(|i| vec![value(block, i)]).collect::<Vec<_>>()).collect()
    });
    list.push(Case { threads: 384, ..registers });
    let map = "fence.proxy.tensormap::generic.acquire.gpu";
    list.push(Case::of("fence_90", map, 1, random_rows(&[I64], 256), |row| vec![row[0]]).named("fence_tensormap"));
    list
}
