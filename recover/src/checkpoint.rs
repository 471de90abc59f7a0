//! Checkpoints: one file that holds everything a run needs to go on, to the bit.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Tensor, Var};
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::adamw::AdamW;
use crate::files::replace;
use crate::train::Options;

/// What a checkpoint says beside its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of the layout.
    pub version: u32,
    /// Steps that were made.
    pub step: u64,
    /// How the run was started.
    pub options: Options,
    /// What it was started with: a fingerprint of the model and the texts.
    pub fingerprint: String,
}

/// The only version there is.
pub const VERSION: u32 = 1;

/// Under which key of the file's metadata the state stands.
const KEY: &str = "latent-attention-recover";

/// Writes variables, moments and state into one safetensors file, under its name only when it is whole.
///
/// # Errors
/// If it cannot be written; an earlier checkpoint is untouched then.
pub fn save(path: &Path, state: &State, variables: &[(String, Tensor)], optimiser: &AdamW) -> Result<()> {
    let mut tensors: Vec<(String, &Tensor)> = Vec::new();
    for ((name, variable), [first, second]) in variables.iter().zip(optimiser.moments()) {
        tensors.push((name.clone(), variable));
        tensors.push((format!("{name}.first_moment"), first));
        tensors.push((format!("{name}.second_moment"), second));
    }
    let metadata = HashMap::from([(KEY.to_owned(), serde_json::to_string(state)?)]);
    // Written here and not by the library, which would want all bytes in memory or a path that cannot be synced.
    replace(path, |file| write(file, &tensors, &metadata))
}

/// The safetensors format: the length of a JSON header, the header, and the tensors' bytes in its order.
fn write(file: &mut fs::File, tensors: &[(String, &Tensor)], metadata: &HashMap<String, String>) -> Result<()> {
    use std::io::{BufWriter, Write};
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), serde_json::to_value(metadata)?);
    let mut offset = 0;
    for (name, tensor) in tensors {
        let end = offset + 4 * tensor.elem_count();
        let entry = serde_json::json!({ "dtype": "F32", "shape": tensor.dims(), "data_offsets": [offset, end] });
        header.insert(name.clone(), entry);
        offset = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for (_, tensor) in tensors {
        let numbers: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
        for number in numbers {
            out.write_all(&number.to_le_bytes())?;
        }
    }
    Ok(out.flush()?)
}

/// The state that a checkpoint holds, without its tensors.
///
/// # Errors
/// If the file cannot be read or is no checkpoint.
pub fn read_state(path: &Path) -> Result<State> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    state_of(&bytes).with_context(|| format!("{} is no checkpoint", path.display()))
}

fn state_of(bytes: &[u8]) -> Result<State> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    let state = metadata.metadata().as_ref().and_then(|entries| entries.get(KEY));
    let state: State = serde_json::from_str(state.context("it says nothing of a run")?)?;
    ensure!(state.version == VERSION, "it has version {}, this program reads {VERSION}", state.version);
    Ok(state)
}

/// Restores variables and moments; returns the number of steps made.
///
/// # Errors
/// If the file cannot be read, or belongs to a run with other options, another model or other texts; nothing is changed
/// then.
pub fn restore(path: &Path, expected: &State, variables: &[(String, Tensor)], optimiser: &mut AdamW) -> Result<u64> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let named = || format!("{} is no checkpoint to go on from", path.display());
    let state = state_of(&bytes).with_context(named)?;
    if state.options != expected.options {
        let (was, is) = (serde_json::to_string(&state.options)?, serde_json::to_string(&expected.options)?);
        bail!("{}: it was started with other options:\n  {was}, not\n  {is}", named());
    }
    ensure!(
        state.fingerprint == expected.fingerprint,
        "{}: it belongs to another model, conversion or text ({}, not {})",
        named(),
        state.fingerprint,
        expected.fingerprint
    );
    let tensors = SafeTensors::deserialize(&bytes).with_context(named)?;
    let read = |name: &str, like: &Tensor| -> Result<Tensor> {
        let view = tensors.tensor(name).with_context(|| format!("{}: `{name}`", named()))?;
        ensure!(
            view.dtype() == Dtype::F32 && view.shape() == like.dims(),
            "{}: `{name}` is {:?} of {:?}, not of {:?}",
            named(),
            view.dtype(),
            view.shape(),
            like.dims()
        );
        let numbers = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Ok(Tensor::from_vec(numbers.collect::<Vec<f32>>(), like.shape(), like.device())?)
    };
    let mut values = Vec::with_capacity(variables.len());
    let mut moments = Vec::with_capacity(variables.len());
    for (name, variable) in variables {
        values.push(read(name, variable)?);
        let moment = |which: &str| read(&format!("{name}.{which}_moment"), variable);
        moments.push([moment("first")?, moment("second")?]);
    }
    optimiser.restore(moments)?;
    for ((_, variable), value) in variables.iter().zip(&values) {
        Var::from_tensor(variable)?.set(value)?;
    }
    Ok(state.step)
}

/// A short text that differs, all but certainly, for other numbers: FNV-1a over 64 bits.
#[derive(Clone, Copy)]
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    /// Takes more numbers in.
    pub fn add(&mut self, numbers: impl IntoIterator<Item = u32>) {
        for number in numbers {
            self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// In hexadecimal digits.
    #[must_use]
    pub fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}
