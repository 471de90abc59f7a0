//! `src/sys.rs` from `csrc/params.h`.

use anyhow::{Context, Result};

use crate::generated::Generated;
use crate::{process, setup};

pub const BINDINGS: Generated = Generated { path: "src/sys.rs", source: "csrc/params.h", make: generate };

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
