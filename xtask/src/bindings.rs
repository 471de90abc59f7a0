//! `src/sys.rs` from `csrc/params.h`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::{process, setup};

/// Writes the file.
pub fn write() -> Result<()> {
    let path = target();
    fs::write(&path, generate()?).with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

/// Fails if the file is not what would be written.
pub fn check() -> Result<()> {
    let checked_in = fs::read_to_string(target())?;
    ensure!(generate()? == checked_in, "src/sys.rs does not match csrc/params.h: run `cargo xtask bindings`");
    Ok(())
}

fn target() -> PathBuf {
    crate::root().join("src/sys.rs")
}

fn generate() -> Result<String> {
    if let Some(folder) = setup::libclang()? {
        // SAFETY: nothing else runs in this process yet, so nobody reads the environment at the same time.
        unsafe { std::env::set_var("LIBCLANG_PATH", folder) };
    }
    let bindings = bindgen::Builder::default()
        .header(crate::root().join("csrc/params.h").to_string_lossy())
        .allowlist_file(".*/csrc/params.h")
        .clang_args(["-x", "c", "-std=c11"])
        .use_core()
        .derive_default(true)
        .generate_comments(false)
        .disable_header_comment()
        .formatter(bindgen::Formatter::None)
        .generate()
        .context("bindgen failed")?;
    let source = format!(
        "//! Parameter blocks and constants of the kernels. Made from `csrc/params.h`, which explains each field, by\n\
         //! `cargo xtask bindings`; do not edit.\n\
         #![allow(missing_docs, non_upper_case_globals)]\n\n{bindings}"
    );
    process::format(&source)
}
