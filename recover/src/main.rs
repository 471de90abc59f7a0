//! `cargo xtask recover`: trains a converted model to say what the original says.

use clap::Parser;
use latent_attention_recover::args::Arguments;
use latent_attention_recover::run::{run, stop_on_interrupt};

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let stop = stop_on_interrupt()?;
    run(&arguments, &stop)
}
