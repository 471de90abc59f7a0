//! `include/latent_attention.h` from `src/capi`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use cbindgen::{DocumentationStyle, EnumConfig, Language, RenameRule, Style};

/// Writes the file.
pub fn write() -> Result<()> {
    let path = target();
    fs::create_dir_all(path.with_file_name(""))?;
    fs::write(&path, generate()?).with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

/// Fails if the file is not what would be written.
pub fn check() -> Result<()> {
    let checked_in = fs::read_to_string(target())?;
    ensure!(generate()? == checked_in, "{} does not match src/capi: run `cargo xtask bindings`", target().display());
    Ok(())
}

pub fn target() -> PathBuf {
    crate::root().join("include/latent_attention.h")
}

fn generate() -> Result<String> {
    let config = cbindgen::Config {
        language: Language::C,
        cpp_compat: true,
        header: Some(include_str!("header.txt").trim_end().into()),
        include_guard: Some("LATENT_ATTENTION_H".into()),
        no_includes: true,
        sys_includes: vec!["stddef.h".into(), "stdint.h".into()],
        usize_is_size_t: true,
        documentation_style: DocumentationStyle::C99,
        style: Style::Type,
        line_length: 120,
        tab_width: 4,
        enumeration: EnumConfig { rename_variants: RenameRule::QualifiedScreamingSnakeCase, ..Default::default() },
        ..Default::default()
    };
    // In the order of reading. (What `mod.rs` declares would come in the order of names.)
    let files = ["version", "status", "device", "data", "rope_append", "absorb", "decode", "combine", "up_project"];
    let sources = files.iter().map(|name| crate::root().join(format!("src/capi/{name}.rs")));
    let builder = sources.fold(cbindgen::Builder::new().with_config(config), cbindgen::Builder::with_src);
    let mut header = Vec::new();
    builder.generate().context("cbindgen failed")?.write(&mut header);
    Ok(String::from_utf8(header)?)
}
