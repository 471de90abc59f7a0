//! What `run` is told.

use std::path::PathBuf;

use super::argument::Argument;

/// Options of `run`.
#[derive(clap::Args)]
pub struct Run {
    /// The PTX file.
    pub file: PathBuf,
    /// The kernel's name.
    pub kernel: String,
    /// Blocks: X[,Y[,Z]].
    #[arg(long, value_parser = dimensions)]
    pub grid: [u32; 3],
    /// Threads per block: X[,Y[,Z]].
    #[arg(long, value_parser = dimensions)]
    pub block: [u32; 3],
    /// Blocks per cluster: X[,Y[,Z]].
    #[arg(long, value_parser = dimensions)]
    pub cluster: Option<[u32; 3]>,
    /// Most blocks of a cluster: more than 8, up to 16, as the driver allows by an attribute of the kernel.
    #[arg(long, default_value_t = ptx_sim::Limits::default().cluster_blocks)]
    pub cluster_blocks: u32,
    /// Bytes of dynamic shared memory.
    #[arg(long, default_value_t = 0)]
    pub shared: usize,
    /// Most instructions of a warp.
    #[arg(long, default_value_t = ptx_sim::Limits::default().steps)]
    pub steps: u64,
    /// Cores of this computer to use; 0 for all.
    #[arg(long, default_value_t = 0)]
    pub cores: usize,
    /// Leaves out the checks of shared memory and of reads before writes.
    #[arg(long)]
    pub unchecked: bool,
    /// Prints one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Writes the bytes of all `out:` arguments to a file, one after the other.
    #[arg(long, value_name = "FILE")]
    pub dump: Option<PathBuf>,
    /// The kernel's parameters in order: a value `u32:5`, `f32:-1.5`, `bytes:0x00ff`, or a buffer whose address is
    /// passed: `in:f32x8=1,2,3` (the rest is zero), `in:f32x1024=random(7)` (by seed; floats lie between -1 and 1),
    /// `out:f32x1024` (unwritten, and printed at the end), `out:f32x4=1,2,3,4` (both).
    #[arg(value_parser = Argument::parse)]
    pub arguments: Vec<Argument>,
}

fn dimensions(text: &str) -> Result<[u32; 3], String> {
    let numbers: Vec<u32> = text
        .split(',')
        .map(|part| part.trim().parse().map_err(|_| format!("`{part}` is no number of 32 bits")))
        .collect::<Result<_, _>>()?;
    match numbers.len() {
        1..=3 => Ok(std::array::from_fn(|axis| numbers.get(axis).copied().unwrap_or(1))),
        count => Err(format!("expected one to three numbers, got {count}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_left_out_are_one() {
        assert_eq!(dimensions("7"), Ok([7, 1, 1]));
        assert_eq!(dimensions("7, 8"), Ok([7, 8, 1]));
        assert_eq!(dimensions("7,8,9"), Ok([7, 8, 9]));
        for wrong in ["", "x", "1,,2", "-1", "4294967296", "1,2,3,4"] {
            assert!(dimensions(wrong).is_err(), "{wrong}");
        }
    }
}
