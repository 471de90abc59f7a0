//! Checks by programs that are not part of a Rust toolchain.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::run;
use crate::setup;

/// Spelling, by typos; `_typos.toml` has the exceptions.
pub fn spelling() -> Result<()> {
    with_tools(|tools| run(&mut at_root(&tools.join("typos"))))
}

/// Licences and sources of all dependencies, by cargo-deny; `deny.toml` has the rules. Not its advisories: their
/// database is a Git repository of which no registry has a copy, and one that is checked in would soon be out of date.
pub fn dependencies() -> Result<()> {
    with_tools(|tools| {
        let mut command = at_root(&tools.join("cargo-deny"));
        run(command.args(["--workspace", "--locked", "check", "bans", "licenses", "sources"]))
    })
}

/// Runs a check with the folder of the installed programs, or says that it is left out.
fn with_tools(check: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if let Some(tools) = setup::tools()? {
        check(&tools)
    } else {
        println!("Left out: there is no program to download for this system.");
        Ok(())
    }
}

/// A program that works on the whole repository.
fn at_root(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(crate::root());
    command
}
