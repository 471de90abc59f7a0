#!/bin/sh
# half 2.7.1 (Rust): `bf16::from_f64` and `f16::from_f64` do not round to nearest. They drop the low 32 bits of the f64
# before they round, so that a number just above the middle of two neighbours counts as the middle and goes to the even
# one. On the way through f32, `from_f32(x as f32)`, the same numbers lose the same bits to the conversion.
#
# Whoever makes bf16 expectations from an f64 reference this way finds correctly rounding kernels wrong by one unit in
# the last place, rarely enough to look like a race.
#
# Seen on Linux x86-64, rustc 1.95.0, x = middle + 2^-40 (the neighbour above is the nearest):
#     bf16 1.00390625 + 2^-40: from_f64 1, through f32 1, nearest 1.0078125
#     f16 1.00048828125 + 2^-40: from_f64 1, through f32 1, nearest 1.0009765625
#
# Prints what it sees, and exits with 1 if that has changed. Needs cargo and crates.io.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat > "$folder/Cargo.toml" <<'TOML'
[package]
name = "ties"
version = "0.1.0"
edition = "2021"

[dependencies]
half = "=2.7.1"
TOML
cat > "$folder/src/main.rs" <<'RUST'
use half::{bf16, f16};

/// The nearer of two neighbours, of which `x` has one below and one above.
fn nearest(x: f64, below: f64, above: f64) -> f64 {
    if x - below <= above - x { below } else { above }
}

fn main() {
    let above_middle = |step: f64| 1.0 + step / 2.0 + 2f64.powi(-40);
    let (bf16_step, f16_step) = (2f64.powi(-7), 2f64.powi(-10));
    let (x, y) = (above_middle(bf16_step), above_middle(f16_step));
    let seen = [
        (bf16::from_f64(x).to_f64(), bf16::from_f32(x as f32).to_f64(), nearest(x, 1.0, 1.0 + bf16_step)),
        (f16::from_f64(y).to_f64(), f16::from_f32(y as f32).to_f64(), nearest(y, 1.0, 1.0 + f16_step)),
    ];
    let names = ["bf16 1.00390625", "f16 1.00048828125"];
    for (name, (direct, single, nearest)) in names.iter().zip(seen) {
        println!("{name} + 2^-40: from_f64 {direct}, through f32 {single}, nearest {nearest}");
    }
    let expected = seen.iter().all(|&(direct, single, nearest)| direct == 1.0 && single == 1.0 && nearest > 1.0);
    if !expected {
        eprintln!("this has changed");
        std::process::exit(1);
    }
}
RUST
cd "$folder"
cargo run --quiet
