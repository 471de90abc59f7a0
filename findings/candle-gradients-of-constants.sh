#!/bin/sh
# candle-core 0.11.1 (Rust): `backward` computes the gradients of constants too, and keeps them.
#
# A product of an input with a frozen weight, which no variable stands behind, still costs the second product of the way
# back, and the `GradStore` that `backward` returns holds a tensor as large as the weight. The same goes for sums and the
# other operations of two operands. `detach` does not help: the operand is a leaf already. For LoRA, or a distillation in
# which most weights are frozen, that is half of all products of the way back, and memory for a gradient of every frozen
# weight until the store is dropped. Whoever wants neither needs an operation of their own (`CustomOp2`, whose `bwd` may
# return `None`).
#
# Seen on Linux x86-64, rustc 1.95.0; a variable [2, 1000] times a constant [1000, 3000]:
#     gradient of the variable: [2, 1000]
#     gradient of the constant that is a product's operand: [1000, 3000]
#     gradient of the constant that is a sum's operand: [2, 3000]
#
# Prints what it sees, and exits with 1 if that has changed. Needs cargo and crates.io.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat > "$folder/Cargo.toml" <<'TOML'
[package]
name = "constants"
version = "0.1.0"
edition = "2021"

[dependencies]
candle-core = { version = "=0.11.1", default-features = false }
TOML
cat > "$folder/src/main.rs" <<'RUST'
use candle_core::{DType, Device, Result, Tensor, Var};

fn main() -> Result<()> {
    let cpu = Device::Cpu;
    let variable = Var::ones((2, 1000), DType::F32, &cpu)?;
    let weight = Tensor::ones((1000, 3000), DType::F32, &cpu)?;
    let shift = Tensor::ones((2, 3000), DType::F32, &cpu)?;
    let loss = (variable.matmul(&weight)? + &shift)?.sum_all()?;
    let gradients = loss.backward()?;
    let shape = |tensor: &Tensor| gradients.get(tensor).map(|gradient| gradient.dims().to_vec());
    let seen = [
        ("variable", shape(&variable), vec![2, 1000]),
        ("constant that is a product's operand", shape(&weight), vec![1000, 3000]),
        ("constant that is a sum's operand", shape(&shift), vec![2, 3000]),
    ];
    assert!(!weight.is_variable() && !weight.track_op());
    for (name, shape, _) in &seen {
        println!("gradient of the {name}: {}", shape.as_ref().map_or("none".into(), |shape| format!("{shape:?}")));
    }
    if seen.iter().any(|(_, shape, expected)| shape.as_ref() != Some(expected)) {
        eprintln!("this has changed");
        std::process::exit(1);
    }
    Ok(())
}
RUST
cargo run --quiet --release --manifest-path "$folder/Cargo.toml"
