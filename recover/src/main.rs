//! `cargo xtask recover`: trains a converted model to say what the original says.

use std::process::ExitCode;

use clap::Parser;
use latent_attention_recover::args::Arguments;
use latent_attention_recover::run::{run, stop_on_interrupt};
use latent_attention_recover::train::Ended;

/// What shells report of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let stop = stop_on_interrupt()?;
    Ok(match run(&arguments, &stop)? {
        Ended::Finished => ExitCode::SUCCESS,
        Ended::Stopped(_) => ExitCode::from(INTERRUPTED),
    })
}
