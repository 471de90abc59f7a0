//! `list` and `check`.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::Path;

use ptx_sim::Machine;
use ptx_sim::ast::{Type, Variable};

/// The text of a file.
pub fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// Prints an error of a file as compilers do.
pub fn complain(file: &Path, error: &dyn Display) {
    eprintln!("{}: {error}", file.display());
}

/// Prints text; a reader that has read enough, such as `head`, is no error.
pub fn print(text: &str) -> Result<(), String> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("standard output: {error}")),
        _ => Ok(()),
    }
}

pub fn list(file: &Path) -> Result<bool, String> {
    let text = read(file)?;
    let syntax = match ptx_sim::parse::parse(&text) {
        Ok(syntax) => syntax,
        Err(error) => {
            complain(file, &error);
            return Ok(false);
        }
    };
    let module = Machine::default().load(&text);
    let mut out = String::new();
    for function in syntax.functions.iter().filter(|function| function.entry && function.body.is_some()) {
        let params = function.params.iter().map(parameter).collect::<Vec<_>>().join(", ");
        out += &format!("{}({params})\n", function.name);
        for (name, numbers) in &function.directives {
            let numbers = numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            out += format!("  .{name} {numbers}").trim_end();
            out += "\n";
        }
        if let Some(bytes) = module.as_ref().ok().and_then(|module| module.shared_bytes(&function.name)) {
            out += &format!("  {bytes} bytes of static shared memory\n");
        }
    }
    print(&out)?;
    if let Err(error) = &module {
        complain(file, error);
    }
    Ok(module.is_ok())
}

fn parameter(variable: &Variable) -> String {
    let ty = format!("{:?}", variable.ty).to_lowercase();
    match variable.count {
        None | Some(1) => ty,
        Some(count) if variable.ty == Type::B8 => format!("{count} bytes aligned to {}", variable.align),
        Some(count) => format!("{ty}[{count}]"),
    }
}

pub fn check(file: &Path) -> Result<bool, String> {
    let errors = ptx_sim::check(&read(file)?);
    errors.iter().for_each(|error| complain(file, error));
    if errors.is_empty() {
        print(&format!("{}: all instructions are known\n", file.display()))?;
    }
    Ok(errors.is_empty())
}
