//! The table by which `ops::decode` chooses its kernels, made of what `gpu-check tune` measured.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::process::{self, output};

/// Where the table is.
const PATH: &str = "src/ops/decode/choices.rs";

/// Makes the table anew, of these files or, without any, of those that are committed.
pub fn write(files: &[PathBuf]) -> Result<()> {
    let files: Vec<PathBuf> = files.iter().map(std::path::absolute).collect::<Result<_, _>>()?;
    let program = ["bench", "--quiet", "--profile", "dev", "--bench", "benchmarks", "--", "--choices"];
    // It reads and writes, and runs no kernel.
    let table = output(process::cargo(program).args(files).env("DOCS_RS", "1"))?;
    let path = crate::root().join(PATH);
    fs::write(&path, table).with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {PATH}");
    Ok(())
}
