//! `cargo xtask demo`: converts a model to latent attention and shows what that saves and costs.

use clap::Parser;
use latent_attention_demo::args::Arguments;
use latent_attention_demo::run::run;

/// A stack as large as the main thread has on most systems.
const STACK_BYTES: usize = 8 << 20;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(arguments.threads()).stack_size(STACK_BYTES).build()?;
    // On a thread of the pool: work that is handed to it hundreds of times for each token would else wait for a thread to
    // wake up every time.
    pool.install(|| run(&arguments))
}
