//! Rows as lines of a Markdown table that also reads well in a terminal, printed one by one as they are made.

use super::ceilings::Ceilings;
use super::report::{Kind, Outcome, Row};

/// What all rows begin with: titles and widths; the last two are numbers.
const SHAPE: [(&str, usize); 5] = [("operation", 13), ("model", 17), ("format", 8), ("batch", 5), ("context", 7)];

/// Number of columns of `SHAPE` that hold text, which stands to the left.
const TEXTS: usize = 3;

const TIMED: [(&str, usize); 8] = [
    ("median us", 10),
    ("p10 us", 10),
    ("p90 us", 10),
    ("MB", 9),
    ("GFLOP", 9),
    ("TB/s", 6),
    ("TFLOP/s", 7),
    ("of its roofline", 15),
];

const COUNTED: [(&str, usize); 6] =
    [("needed B", 10), ("read B", 10), ("written B", 10), ("warp instr.", 11), ("mma", 8), ("conflicts", 9)];

/// The title of what the cost model says.
const PREDICTED: &str = "predicted us";

/// A rate with so many digits, on a CPU with three more.
fn rate(value: f64, digits: usize, ceilings: &[Ceilings]) -> String {
    let is_cpu = ceilings.first().is_some_and(Ceilings::is_cpu);
    format!("{value:.*}", if is_cpu { digits + 3 } else { digits })
}

/// Title, rule and the explanation above them.
pub fn header(kind: Kind, ceilings: &[Ceilings]) -> String {
    let what = match (kind, ceilings.first()) {
        (Kind::Timed, Some(measured)) => format!(
            "Timed: microseconds per run. A row's roofline is the larger of its bytes at {} TB/s ({}) and its\n\
             arithmetic at {} TFLOP/s ({}), both measured in this run.",
            rate(measured.tb_per_s, 2, ceilings),
            if measured.is_by_reads() { "reads" } else { "copy" },
            rate(measured.tflop_per_s, 0, ceilings),
            measured.products(),
        ),
        (Kind::Timed, None) => "Timed: microseconds per run.".into(),
        (Kind::Counted, _) => {
            let machine = |c: &Ceilings| format!("{} TB/s and {} TFLOP/s ({})", c.tb_per_s, c.tflop_per_s, c.name);
            format!(
                "Counted on the simulator, not timed: per cached token (decode, gather, up_project), page (copy_pages) \
                 or new token (the rest).\n\
                 The columns of machines are what rooflines allow at least, assuming\n{}.\n\
                 Predicted: the whole row on an H200, from the machine code (docs/cost.md).",
                ceilings.iter().map(machine).collect::<Vec<_>>().join(", ")
            )
        }
    };
    let columns = columns(kind, ceilings);
    let titles: Vec<String> = columns.iter().map(|(title, _)| title.clone()).collect();
    let rule: String = columns
        .iter()
        .enumerate()
        .map(
            |(i, (_, width))| {
                if i < TEXTS { format!("|{}", "-".repeat(width + 2)) } else { format!("|{}:", "-".repeat(width + 1)) }
            },
        )
        .collect();
    format!("{what}\n\n{}\n{rule}|", line(&columns, &titles))
}

/// One row.
pub fn row(row: &Row, ceilings: &[Ceilings]) -> String {
    let mut cells = vec![
        row.operation.clone(),
        row.model.clone(),
        row.format.clone(),
        row.batch.to_string(),
        row.context.to_string(),
    ];
    let kind = match &row.outcome {
        Outcome::Timed(timed) => {
            cells.extend([timed.times.median_us, timed.times.p10_us, timed.times.p90_us].map(|us| format!("{us:.2}")));
            cells.push(format!("{:.3}", row.bytes as f64 / 1e6));
            cells.push(format!("{:.3}", row.flops as f64 / 1e9));
            cells.push(rate(timed.tb_per_s, 2, ceilings));
            cells.push(rate(timed.tflop_per_s, 1, ceilings));
            let bound =
                if ceilings.first().is_some_and(|c| c.is_bound_by_bytes(&row.work())) { "bytes" } else { "flops" };
            cells.push(format!("{:.1} % ({bound})", 100.0 * timed.fraction));
            Kind::Timed
        }
        Outcome::Counted(counts) => {
            cells.extend(
                [
                    counts.needed_bytes,
                    counts.read_bytes,
                    counts.written_bytes,
                    counts.warp_instructions,
                    counts.mma_instructions,
                    counts.bank_conflicts,
                ]
                .map(|count| format!("{count:.1}")),
            );
            cells.extend(counts.least_ns.iter().map(|(_, ns)| format!("{ns:.3}")));
            cells.push(counts.predicted_us.map_or("-".into(), |us| format!("{us:.1}")));
            Kind::Counted
        }
    };
    line(&columns(kind, ceilings), &cells)
}

fn columns(kind: Kind, ceilings: &[Ceilings]) -> Vec<(String, usize)> {
    let owned = |columns: &[(&str, usize)]| columns.iter().map(|&(title, width)| (title.to_owned(), width)).collect();
    let mut all: Vec<(String, usize)> = owned(&SHAPE);
    match kind {
        Kind::Timed => all.extend::<Vec<_>>(owned(&TIMED)),
        Kind::Counted => {
            all.extend::<Vec<_>>(owned(&COUNTED));
            all.extend(ceilings.iter().map(|machine| (format!("{} ns", machine.name), 9)));
            all.push((PREDICTED.into(), 12));
        }
    }
    all
}

fn line(columns: &[(String, usize)], cells: &[String]) -> String {
    let cell = |(i, ((_, width), cell)): (usize, (&(String, usize), &String))| {
        if i < TEXTS { format!("| {cell:<width$} ") } else { format!("| {cell:>width$} ") }
    };
    columns.iter().zip(cells).enumerate().map(cell).chain(["|".to_owned()]).collect()
}
