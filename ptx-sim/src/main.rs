//! The command `ptx-sim`: lists, checks and runs PTX files.

mod command;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match command::execute(command::Command::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ptx-sim: {error}");
            ExitCode::from(2)
        }
    }
}
