//! What the simulator's meter says of an operation, per token.

use std::sync::Once;

use anyhow::{Result, bail};
use ptx_sim::meter::{Class, Meter, Path};
use serde::{Deserialize, Serialize};

use super::ceilings::Ceilings;
use super::lab::{Lab, Sample};
use super::shape::{Operation, Shape, Work};

/// Counts per token: the difference between a shape and one of half as many tokens, so without what a launch costs
/// whatever it does. Instructions are PTX's, which a GPU's compiler still thins out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Tokens that lie between the two shapes.
    pub tokens: usize,
    /// Bytes that have to be moved, and arithmetic that has to be done.
    pub needed_bytes: f64,
    pub needed_flops: f64,
    /// Bytes that lanes read from and wrote to global memory, caches not considered.
    pub read_bytes: f64,
    pub written_bytes: f64,
    /// Instructions, counted once per warp.
    pub warp_instructions: f64,
    /// Of these, tensor-core products.
    pub mma_instructions: f64,
    /// Passes over shared memory's banks that conflicts added.
    pub bank_conflicts: f64,
    /// Nanoseconds that needed bytes and arithmetic take at least, by machine.
    pub least_ns: Vec<(String, f64)>,
    /// Microseconds of the whole row on an H200, as `cargo xtask cost` predicts them, of operations that it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_us: Option<f64>,
}

impl Counts {
    /// Counts an operation.
    ///
    /// # Errors
    /// What the operation returns.
    pub fn count(lab: &mut Lab, operation: &Operation, shape: &Shape, machines: &[Ceilings]) -> Result<Self> {
        let half = operation.half(shape);
        let tokens = operation.tokens(shape) - operation.tokens(&half);
        let [most, least] = [(operation.work)(shape)?, (operation.work)(&half)?];
        let [full, part] = [meter(lab, operation, shape)?, meter(lab, operation, &half)?];
        let per_token = |full: u64, part: u64| (full as f64 - part as f64) / tokens as f64;
        let difference = |count: &dyn Fn(&Meter) -> u64| per_token(count(&full), count(&part));
        let bytes = |paths: &[Path]| difference(&|meter| paths.iter().map(|&path| traffic(meter, path).0).sum());
        let conflicts = |meter: &Meter| Path::ALL.iter().map(|&path| traffic(meter, path).1).sum();
        let needed = Work { bytes: most.bytes - least.bytes, flops: most.flops - least.flops };
        let least_ns = |machine: &Ceilings| 1000.0 * machine.least_us(&needed) / tokens as f64;
        Ok(Self {
            tokens,
            needed_bytes: needed.bytes as f64 / tokens as f64,
            needed_flops: needed.flops as f64 / tokens as f64,
            read_bytes: bytes(&[Path::GlobalRead, Path::CopyGlobalRead]),
            written_bytes: bytes(&[Path::GlobalWrite, Path::CopyGlobalWrite]),
            warp_instructions: difference(&|meter| meter.total().warp),
            mma_instructions: difference(&|meter| meter.instructions(Class::Mma).warp),
            bank_conflicts: difference(&conflicts),
            least_ns: machines.iter().map(|machine| (machine.name.clone(), least_ns(machine))).collect(),
            predicted_us: predicted_us(lab, operation, shape),
        })
    }
}

/// What the cost model says. A kernel that it cannot count costs the row no more than this number, and one note.
fn predicted_us(lab: &mut Lab, operation: &Operation, shape: &Shape) -> Option<f64> {
    static NOTE: Once = Once::new();
    let predicted = lab.predictions.as_mut()?.predict(operation, shape);
    predicted.unwrap_or_else(|why| {
        NOTE.call_once(|| eprintln!("some rows have no predicted time, the first of them because of this: {why:#}"));
        None
    })
}

fn meter(lab: &mut Lab, operation: &Operation, shape: &Shape) -> Result<Meter> {
    match (operation.run)(lab, shape)? {
        Sample::Counts(meter) => Ok(*meter),
        Sample::Times(_) => bail!("a GPU counts nothing"),
    }
}

/// Bytes and bank conflicts.
fn traffic(meter: &Meter, path: Path) -> (u64, u64) {
    meter.traffic.get(&path).map_or((0, 0), |traffic| (traffic.bytes, traffic.conflicts))
}
