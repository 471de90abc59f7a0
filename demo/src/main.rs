//! `cargo xtask demo`: converts a model to latent attention and shows what that saves and costs.

use clap::Parser;
use latent_attention_demo::args::Arguments;
use latent_attention_demo::run::run;

fn main() -> anyhow::Result<()> {
    run(&Arguments::parse())
}
