//! `bindings/c/include/latent_attention.h` from `bindings/c/src`.

use anyhow::{Context, Result};
use cbindgen::{DocumentationStyle, EnumConfig, Language, RenameRule, Style};

use crate::generated::Generated;

pub const HEADER: Generated =
    Generated { path: "bindings/c/include/latent_attention.h", source: "bindings/c/src", make: generate };

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
    // In the order of reading. (What `lib.rs` declares would come in the order of names.)
    let files =
        ["version", "status", "device", "data", "rope_append", "absorb", "decode", "combine", "up_project", "gather"];
    let sources = files.iter().map(|name| crate::root().join(format!("bindings/c/src/{name}.rs")));
    let builder = sources.fold(cbindgen::Builder::new().with_config(config), cbindgen::Builder::with_src);
    let mut header = Vec::new();
    builder.generate().context("cbindgen failed")?.write(&mut header);
    Ok(String::from_utf8(header)?)
}
