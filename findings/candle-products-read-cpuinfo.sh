#!/bin/sh
# candle-core 0.11.1 (Rust): every product of matrices on the CPU opens and reads /proc/cpuinfo.
#
# A product asks how many threads it may use, and unless RAYON_NUM_THREADS is set (and no preferred cores are known) the
# answer is the number of physical cores, which is counted anew each time: the system writes its list of processors, of
# which each takes some 1.5 kB, and candle parses it. Models that write one token at a time make hundreds of small products
# for each, and the list grows with the machine. Whoever sets RAYON_NUM_THREADS is spared it.
#
# Seen on Linux x86-64, rustc 1.95.0, on 2 cores; 1000 products of [1, 64] and [64, 64]:
#     /proc/cpuinfo was opened 1000 times
#     with RAYON_NUM_THREADS=1: 0 times
#
# Prints what it sees, and exits with 1 if that has changed. Needs Linux, strace, cargo and crates.io.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat > "$folder/Cargo.toml" <<'TOML'
[package]
name = "products"
version = "0.1.0"
edition = "2021"

[dependencies]
candle-core = { version = "=0.11.1", default-features = false }
TOML
cat > "$folder/src/main.rs" <<'RUST'
use candle_core::{DType, Device, Result, Tensor};

fn main() -> Result<()> {
    let vector = Tensor::ones((1, 64), DType::F32, &Device::Cpu)?;
    let matrix = Tensor::ones((64, 64), DType::F32, &Device::Cpu)?;
    for _ in 0..1000 {
        vector.matmul(&matrix)?;
    }
    Ok(())
}
RUST
cargo build --quiet --release --manifest-path "$folder/Cargo.toml" --target-dir "$folder/target"
opened() {
    strace -f -e trace=open,openat -o "$folder/trace" "$folder/target/release/products"
    grep -c /proc/cpuinfo "$folder/trace" || true
}
unset RAYON_NUM_THREADS
without=$(opened)
with=$(RAYON_NUM_THREADS=1; export RAYON_NUM_THREADS; opened)
echo "/proc/cpuinfo was opened $without times"
echo "with RAYON_NUM_THREADS=1: $with times"
if [ "$without" -lt 1000 ] || [ "$with" -ne 0 ]; then
    echo "this has changed" >&2
    exit 1
fi
