//! Which shapes are measured.

use anyhow::{Result, ensure};
use clap::ValueEnum;

use super::shape::{Format, Kind, Operation, Shape, models};

/// How much is measured on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sweep {
    /// Three models, one shape of each operation: seconds
    Smoke,
    /// All models, a few batches and contexts: minutes
    Quick,
    /// Batches of 1 to 256, contexts of 1k to 256k
    Full,
    /// One small shape of each operation: what the simulator counts
    Counted,
}

/// What takes the simulator more than a few seconds is not counted: the larger models' up-projection.
const MOST_COUNTED_FLOPS: u64 = 3_000_000_000;

/// One row to be measured.
#[derive(Clone, Copy)]
pub struct Case {
    pub operation: &'static Operation,
    pub shape: Shape,
}

impl Case {
    /// What `--filter` looks at, and what rows of two files are matched by.
    pub fn id(&self) -> String {
        let shape = &self.shape;
        id(self.operation.name, shape.model.0, shape.format.name(), shape.batch, shape.context)
    }
}

/// The name of a row.
pub fn id(operation: &str, model: &str, format: &str, batch: usize, context: usize) -> String {
    format!("{operation}/{model}/{format}/{batch}x{context}")
}

/// The cases of a sweep whose name contains every one of `filters`.
///
/// # Errors
/// If there are none.
pub fn cases(sweep: Sweep, operations: &[&'static Operation], filters: &[String]) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for &operation in operations {
        for model in models()? {
            for &format in operation.formats {
                let shape = |(batch, context)| Shape { model, format, batch, context };
                let shapes = points(sweep, operation.kind).into_iter().map(shape);
                let measured = |case: &Case| is_measured(sweep, case);
                cases.extend(shapes.map(|shape| Case { operation, shape }).filter(measured));
            }
        }
    }
    let example = cases.first().map(Case::id).unwrap_or_default();
    cases.retain(|case| filters.iter().all(|filter| case.id().contains(filter)));
    ensure!(!cases.is_empty(), "no row of this sweep contains all of {filters:?}; rows are named like {example}");
    Ok(cases)
}

/// Batches and contexts. Work on tokens does not depend on the context, which then only places them.
fn points(sweep: Sweep, kind: Kind) -> Vec<(usize, usize)> {
    let (k, mut points) = (1024, Vec::new());
    let mut grid = |batches: &[usize], contexts: &[usize]| {
        points.extend(batches.iter().flat_map(|&batch| contexts.iter().map(move |&context| (batch, context))));
    };
    match (sweep, kind) {
        (Sweep::Smoke, Kind::Attention | Kind::Step) => grid(&[16], &[16 * k]),
        (Sweep::Smoke, Kind::Prefill) => grid(&[16], &[k]),
        (Sweep::Smoke, Kind::Tokens) => grid(&[16], &[8 * k]),
        (Sweep::Quick, Kind::Attention) => {
            grid(&[1, 16, 128], &[k, 4 * k, 16 * k, 64 * k, 128 * k]);
            grid(&[1, 4, 16, 64, 256], &[8 * k]);
        }
        // A layer's weights take long to prepare.
        (Sweep::Quick, Kind::Step) => grid(&[1, 16, 64], &[8 * k]),
        (Sweep::Quick, Kind::Prefill) => grid(&[16], &[k]),
        (Sweep::Quick, Kind::Tokens) => grid(&[1, 16, 128], &[8 * k]),
        (Sweep::Full, Kind::Attention | Kind::Step) => {
            grid(&[1, 16, 128], &[1, 2, 4, 16, 32, 64, 128, 256].map(|context| context * k));
            grid(&[1, 2, 4, 8, 16, 32, 64, 128, 256], &[8 * k]);
        }
        (Sweep::Full, Kind::Prefill) => grid(&[1, 4, 16], &[k, 4 * k]),
        (Sweep::Full, Kind::Tokens) => grid(&[1, 2, 4, 8, 16, 32, 64, 128, 256], &[8 * k]),
        (Sweep::Counted, Kind::Attention) => grid(&[1], &[k]),
        // Neither four sequences nor half of them are split on the simulated device.
        (Sweep::Counted, Kind::Step) => grid(&[4], &[k / 4]),
        (Sweep::Counted, Kind::Prefill) => grid(&[1], &[256]),
        (Sweep::Counted, Kind::Tokens) => grid(&[16], &[k]),
    }
    points
}

/// What a smaller sweep leaves out besides batches and contexts.
fn is_measured(sweep: Sweep, case: &Case) -> bool {
    let (shape, model) = (&case.shape, case.shape.model.0);
    match sweep {
        Sweep::Full => true,
        Sweep::Smoke => ["llama2-7b-d64", "llama3-8b-d64", "deepseek-v3"].contains(&model),
        // Groups cost nearly what one scale does: one batch will show it.
        Sweep::Quick => shape.format != Format::Int4Group64 || shape.batch == 16,
        Sweep::Counted => {
            let is_int4 = matches!(shape.format, Format::Int4 | Format::Int4Mse);
            let stands_for_others = is_int4 || case.operation.formats.len() == 1;
            let is_quick = (case.operation.work)(shape).is_ok_and(|work| work.flops < MOST_COUNTED_FLOPS);
            is_quick && (stands_for_others || case.operation.name == "decode")
        }
    }
}
