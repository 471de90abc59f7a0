//! `src/sys.rs` from `csrc/params.h`.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use bindgen::callbacks::ParseCallbacks;

use crate::generated::Generated;
use crate::{process, setup};

pub const BINDINGS: Generated = Generated { path: "src/sys.rs", source: "csrc/params.h", make: generate };

fn generate() -> Result<String> {
    if let Some(folder) = setup::libclang()? {
        // SAFETY: nothing else runs in this process yet, so nobody reads the environment at the same time.
        unsafe { std::env::set_var("LIBCLANG_PATH", folder) };
    }
    let lists = Lists::default();
    let bindings = bindgen::Builder::default()
        .header(crate::root().join("csrc/params.h").to_string_lossy())
        .allowlist_file(".*/csrc/params(/.*)?\\.h")
        .clang_args(["-x", "c", "-std=c11"])
        .use_core()
        .derive_default(true)
        .explicit_padding(true)
        .generate_comments(false)
        .disable_header_comment()
        .formatter(bindgen::Formatter::None)
        .parse_callbacks(Box::new(lists.clone()))
        .generate()
        .context("bindgen failed")?;
    let bindings = bindings.to_string();
    // Launches read all bytes of a parameter block, and those of padding may not be initialised.
    ensure!(!bindings.contains("__bindgen_padding"), "a struct of csrc/params.h has padding: fill it by `reserved`");
    let mut source = format!(
        "//! Parameter blocks and constants of the kernels. Made from `csrc/params.h`, which explains each field, by\n\
         //! `cargo xtask bindings`; do not edit.\n\
         #![allow(missing_docs, non_upper_case_globals)]\n\n{bindings}"
    );
    for (name, rows) in lists.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        source.push_str(&table(name, rows)?);
    }
    process::format(&source)
}

/// A list's name, and the arguments in each row.
type List = (String, Vec<Vec<String>>);

/// The macros of one argument that is called `KERNEL`: lists of kernels, which C++ expands to the kernels themselves.
#[derive(Clone, Debug, Default)]
struct Lists(Arc<Mutex<Vec<List>>>);

impl ParseCallbacks for Lists {
    fn func_macro(&self, signature: &str, tokens: &[&[u8]]) {
        let Some(name) = signature.strip_suffix("(KERNEL)") else { return };
        let tokens = tokens.iter().map(|token| String::from_utf8_lossy(token).into_owned());
        let mut rows = Vec::new();
        for token in tokens.filter(|token| !["(", ")", ","].contains(&token.as_str())) {
            match rows.last_mut() {
                _ if token == "KERNEL" => rows.push(Vec::new()),
                Some(row) => row.push(token),
                None => {}
            }
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((name.into(), rows));
    }
}

/// A list as an array of tuples, words as strings.
fn table(name: &str, rows: &[Vec<String>]) -> Result<String> {
    let is_number = |cell: &String| cell.parse::<u32>().is_ok();
    let types = |row: &Vec<String>| {
        let types = row.iter().map(|cell| if is_number(cell) { "u32, " } else { "&str, " });
        types.collect::<String>()
    };
    let first = rows.first().map(types).with_context(|| format!("{name} has no rows"))?;
    ensure!(rows.iter().all(|row| types(row) == first), "the rows of {name} differ in their types");
    let mut source = format!("pub const {name}: [({first}); {}] = [\n", rows.len());
    for row in rows {
        let cells = row.iter().map(|cell| if is_number(cell) { cell.clone() } else { format!("{cell:?}") });
        writeln!(source, "({}),", cells.collect::<Vec<_>>().join(", "))?;
    }
    source.push_str("];\n");
    Ok(source)
}
