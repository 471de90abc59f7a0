//! `cargo xtask quality`: measures what conversion and recovery cost a model.

use clap::Parser;
use latent_attention_quality::args::Arguments;
use latent_attention_quality::tables::print;

fn main() -> anyhow::Result<()> {
    print(&Arguments::parse())
}
