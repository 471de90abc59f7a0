//! The reference against what it stands for: formulas written down naively, tables of published sizes, and the properties
//! that hold for every backend (`tests/properties`).

mod absorb;
mod cache;
mod combine;
#[path = "../common/mod.rs"]
mod common;
mod copy_pages;
mod decode;
mod gather;
mod geometry;
mod head_norm;
mod layer;
mod on_host;
#[path = "../properties/mod.rs"]
mod properties;
mod range;
mod rope;
mod rope_append;
mod schedule;
mod up_project;
mod weights;

use proptest::prelude::*;

// What the properties are held against: here the reference, in tests/kernels the device that it runs on. Another device is
// another such line.
properties::hold!(properties_hold: on_host::Reference);

/// Finite numbers of every size that does not saturate, with subnormals and signed zeros.
fn storable() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -4.0f32..4.0,
        1 => -65504.0f32..65504.0,
        1 => -1e-6f32..1e-6,
        1 => prop_oneof![Just(0.0f32), Just(-0.0), Just(65504.0), Just(-65504.0), Just(f32::MIN_POSITIVE), Just(1e-45)],
    ]
}
