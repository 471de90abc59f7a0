//! Registers that kernels would take if `__launch_bounds__` asked for threads alone, and not for blocks on a multiprocessor
//! too: a bound far below makes the compiler spill or compute again, one above leaves registers unused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};

use crate::process::output;
use crate::setup;

/// Included before everything else.
const THREADS_ALONE: &str = "\
#include <cuda_runtime.h>
#undef __launch_bounds__
#define __launch_bounds__(threads, ...) __attribute__((launch_bounds(threads)))
";

/// A kernel file for an architecture, as the build has compiled it.
pub struct Bounded {
    pub file: String,
    pub architecture: &'static str,
    pub image: PathBuf,
}

/// Compiles each of them without bounds. Returns the images, in the same order. What an image was made for lies beside
/// it, so that nothing is compiled twice.
pub fn images(toolkit: &Path, all: &[Bounded]) -> Result<Vec<PathBuf>> {
    let folder = setup::target()?.join("unbounded");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let header = folder.join("threads_alone.h");
    fs::write(&header, THREADS_ALONE)?;
    let waiting = Mutex::new(all.iter());
    let next = || waiting.lock().ok()?.next();
    let work = || {
        while let Some(bounded) = next() {
            compile(toolkit, &header, bounded, &path(&folder, bounded))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let at_a_time = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..at_a_time).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")))
    })?;
    Ok(all.iter().map(|bounded| path(&folder, bounded)).collect())
}

fn path(folder: &Path, bounded: &Bounded) -> PathBuf {
    folder.join(format!("{}.{}.cubin", bounded.file, bounded.architecture))
}

fn compile(toolkit: &Path, header: &Path, bounded: &Bounded, image: &Path) -> Result<()> {
    let (known, now) = (image.with_extension("bounded"), fs::read(&bounded.image)?);
    if image.exists() && fs::read(&known).is_ok_and(|known| known == now) {
        return Ok(());
    }
    let capability = bounded.architecture.strip_prefix("sm_").ok_or_else(|| anyhow!("{}", bounded.architecture))?;
    let mut nvcc = Command::new(toolkit.join("bin/nvcc"));
    nvcc.args(["-std=c++17", "-O3", "-cubin"]).arg("-include").arg(header);
    nvcc.arg(format!("-gencode=arch=compute_{capability},code=sm_{capability}")).arg("-o").arg(image);
    output(nvcc.arg(crate::root().join("csrc").join(format!("{}.cu", bounded.file))))?;
    fs::write(known, now).with_context(|| format!("cannot write beside {}", image.display()))
}
