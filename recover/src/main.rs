//! `cargo xtask recover`: trains a converted model to say what the original says.

use std::process::ExitCode;

use clap::Parser;
use latent_attention_recover::args::Arguments;
use latent_attention_recover::run::{run, stop_on_interrupt};
use latent_attention_recover::train::Ended;

/// What shells report of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// How many threads candle adds tensors with, which it does after every operation on the way back.
const CANDLE_THREADS: &str = "CANDLE_NUM_THREADS";

fn main() -> anyhow::Result<ExitCode> {
    if std::env::var_os(CANDLE_THREADS).is_none() {
        // Its threads wait for each other in loops that never sleep. Where other programs want the cores too, that cost a
        // third of all CPU time; products and our own operations have threads that sleep.
        // SAFETY: no other thread runs yet, so none reads the environment meanwhile.
        unsafe { std::env::set_var(CANDLE_THREADS, "1") };
    }
    let arguments = Arguments::parse();
    let stop = stop_on_interrupt()?;
    Ok(match run(&arguments, &stop)? {
        Ended::Finished => ExitCode::SUCCESS,
        Ended::Stopped(_) => ExitCode::from(INTERRUPTED),
    })
}
