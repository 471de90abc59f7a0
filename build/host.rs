//! The host compiler, which nvcc runs to read its input.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Variables through which a user hands options to nvcc, `-ccbin` possibly among them.
pub const FLAGS: [&str; 2] = ["NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"];

/// The host compiler that nvcc is given.
pub struct Host {
    /// The program, or the folder that it is in; none where nvcc's own options name one already.
    program: Option<PathBuf>,
    /// What it needs in its environment (Visual Studio's compiler needs much).
    environment: Vec<(OsString, OsString)>,
    /// The program for messages, with what it says of its version.
    pub name: String,
}

impl Host {
    /// The one that `NVCC_CCBIN` names; else the C++ compiler for programs of this machine that the crate `cc` finds,
    /// as in all build scripts (`CXX` names it). `machine` is rustc's name of the machine that builds: the images are
    /// the same whatever the library is compiled for.
    pub fn find(variable: impl Fn(&str) -> Option<OsString>, machine: &str) -> Result<Self, String> {
        let given = |program: Option<PathBuf>, name| Self { program, environment: Vec::new(), name };
        if let Some(ccbin) = variable("NVCC_CCBIN").filter(|value| !value.is_empty()) {
            let name = format!("{} (NVCC_CCBIN)", ccbin.to_string_lossy());
            return Ok(given(Some(ccbin.into()), name));
        }
        // nvcc takes the option only once.
        let names_one = |flags: OsString| {
            let flags = flags.to_string_lossy();
            flags.contains("-ccbin") || flags.contains("-compiler-bindir")
        };
        if let Some(flags) = FLAGS.into_iter().find(|name| variable(name).is_some_and(names_one)) {
            return Ok(given(None, format!("of {flags}")));
        }
        let mut compiler = cc::Build::new();
        compiler.cpp(true).host(machine).target(machine).opt_level(0);
        let tool = compiler.cargo_warnings(false).try_get_compiler(); // What it would warn of is our error.
        let tool = tool.map_err(|error| missing(&error.to_string()))?;
        Self::of(tool.path(), tool.get_envs().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// A program that is there.
    pub fn of(program: &Path, environment: Vec<(OsString, OsString)>) -> Result<Self, String> {
        let said = Command::new(program).envs(environment.iter().cloned()).arg("--version").output();
        let said = said.map_err(|error| missing(&format!("{}: {error}", program.display())))?;
        let version = String::from_utf8_lossy(&said.stdout).lines().next().unwrap_or_default().trim().to_owned();
        Ok(Self { program: Some(program.into()), environment, name: format!("{} ({version})", program.display()) })
    }

    /// Makes a run of nvcc use it.
    pub fn hand_to(&self, nvcc: &mut Command) {
        nvcc.envs(self.environment.iter().cloned());
        if let Some(program) = &self.program {
            nvcc.arg("-ccbin").arg(program);
        }
    }
}

fn missing(why: &str) -> String {
    format!(
        "nvcc needs a C++ compiler, and there is none: {why}. Install g++ or clang, or let NVCC_CCBIN name one that \
         is not in PATH"
    )
}
