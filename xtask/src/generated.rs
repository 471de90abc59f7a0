//! Files that are made of others and checked in all the same.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// One of them.
pub struct Generated {
    /// Where it lies in the repository.
    pub path: &'static str,
    /// What it is made of.
    pub source: &'static str,
    /// What it holds, made anew.
    pub make: fn() -> Result<String>,
}

impl Generated {
    pub fn path(&self) -> PathBuf {
        crate::root().join(self.path)
    }

    /// Writes the file.
    pub fn write(&self) -> Result<()> {
        let path = self.path();
        fs::write(&path, (self.make)()?).with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", path.display());
        Ok(())
    }

    /// Fails if the file is not what would be written.
    pub fn check(&self) -> Result<()> {
        let checked_in = fs::read_to_string(self.path()).with_context(|| format!("cannot read {}", self.path))?;
        let same = (self.make)()? == checked_in;
        ensure!(same, "{} does not match {}: run `cargo xtask bindings`", self.path, self.source);
        Ok(())
    }
}
