//! The two loops that the reference spends its time in, and a way to spread rows over cores.

/// Sums are kept in this many interleaved lanes, which the compiler puts into vector registers.
const LANES: usize = 8;

/// `a . b`.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_lanes, b_lanes) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail = a_lanes.remainder().iter().zip(b_lanes.remainder()).map(|(x, y)| x * y);
    let mut sums = [0.0; LANES];
    for (a, b) in a_lanes.clone().zip(b_lanes.clone()) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    tail.chain(sums).sum()
}

/// `y += a * x`.
pub(super) fn add_scaled(y: &mut [f64], a: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// f32 weights as f64.
pub(super) fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// `[f(0), f(1), ..]`, computed on all cores. Rows are independent of each other, so the result does not depend on
/// the number of cores.
pub(crate) fn map_rows<T: Send>(rows: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(rows);
    if cores <= 1 {
        return (0..rows).map(f).collect();
    }
    // Dealt out like cards: causal rows grow longer, so contiguous ranges would be uneven.
    let mut hands: Vec<Vec<(usize, &mut Option<T>)>> = (0..cores).map(|_| Vec::new()).collect();
    let mut results: Vec<Option<T>> = (0..rows).map(|_| None).collect();
    for (row, result) in results.iter_mut().enumerate() {
        hands[row % cores].push((row, result));
    }
    std::thread::scope(|scope| {
        for hand in hands {
            scope.spawn(|| hand.into_iter().for_each(|(row, result)| *result = Some(f(row))));
        }
    });
    results.into_iter().flatten().collect()
}
