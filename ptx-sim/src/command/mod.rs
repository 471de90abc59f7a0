//! What the command does: one file per subcommand.

mod argument;
mod files;
mod options;
mod report;
mod run;
mod value;

use std::path::PathBuf;

use options::Run;

/// Runs PTX on the CPU, with a checker and a meter.
///
/// Exit status: 0 if all is well, 1 if the checker or the file has something wrong, 2 if the command has.
#[derive(clap::Parser)]
#[command(version, verbatim_doc_comment)]
pub enum Command {
    /// Lists the kernels of a file with their parameters and shared memory.
    List {
        /// The PTX file.
        file: PathBuf,
    },
    /// Names everything in a file that the simulator does not know.
    Check {
        /// The PTX file.
        file: PathBuf,
    },
    /// Runs a kernel.
    Run(Box<Run>),
}

/// Carries a subcommand out. Returns whether nothing was found wrong.
pub fn execute(command: Command) -> Result<bool, String> {
    match command {
        Command::List { file } => files::list(&file),
        Command::Check { file } => files::check(&file),
        Command::Run(run) => run::run(&run),
    }
}
