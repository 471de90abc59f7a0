use super::*;
use crate::cache::{CacheFormat, Group};
use crate::device::Simulation;
use crate::ops::decode::tuned::{Latents, Layer};

fn hopper() -> Device {
    let simulation = Simulation::default().with_arch(Arch::Compute90a).with_shared_bytes(227 * 1024);
    Device::simulate(simulation.with_multiprocessors(132))
}

fn layers() -> impl Iterator<Item = (Geometry, CacheLayout)> {
    let names =
        ["llama3-8b-d64", "llama2-7b-d16", "llama2-7b-d64", "deepseek-v2-lite", "deepseek-v3", "smollm-135m-d32"];
    let formats = [CacheFormat::INT4, CacheFormat::int4(Group::G64), CacheFormat::BF16];
    names.into_iter().flat_map(move |name| {
        let geometry = Geometry::named(name).unwrap();
        formats.map(|format| (geometry, CacheLayout::new(&geometry, format, 64).unwrap()))
    })
}

/// As long as nothing was timed, layers get what they got before there was a table.
#[test]
fn without_timed_layers_the_measured_family_is_chosen_by_its_costs() {
    if !CHOICES.is_empty() {
        return;
    }
    for device in [hopper(), Device::simulated()] {
        for (geometry, layout) in layers() {
            let arch = device.image_arch(sm80::FILE).unwrap();
            let mut candidates = sm80::candidates(&geometry, &layout, &device.limits(), arch).unwrap();
            candidates.sort_by_key(|candidate| candidate.cost);
            let chosen = choose(&device, &geometry, &layout, KernelFamily::Measured, None).unwrap().0;
            assert_eq!(chosen.variant(), candidates[0].variant());
        }
    }
}

/// A choice of another family than the measured one is taken where its code was timed, and there alone.
#[test]
fn choices_hold_for_the_code_that_was_timed() {
    let (geometry, layout) = layers().next().unwrap();
    let choice = Choice {
        capability: (9, 0),
        layer: Layer {
            latents: Latents::Whole,
            query_heads: geometry.query_heads,
            latent_rank: geometry.latent_rank,
            rope_bytes: layout.rope_tile().row_bytes,
        },
        kernel: "decode_sm90_whole_8x4",
        tile_tokens: 64,
        stages: 2,
        blocks: 1,
        tile_ns: 1000,
        block_ns: 5000,
    };
    let first = |device: &Device, kernels, choices: &[Choice]| {
        let offer = Offer::asked(device, &geometry, &layout, kernels, choices);
        offer.loaded(device).next().unwrap().unwrap().0
    };
    let (measured, device) = (KernelFamily::Measured, hopper());
    let chosen = first(&device, measured, &[choice]);
    assert_eq!((chosen.kernel, chosen.shared.stage_count, chosen.block_ns), (choice.kernel, 2, 5000));
    // Another family that is asked for by name, code of another architecture, and choices of another.
    let others = [
        first(&device, KernelFamily::Sm80, &[choice]),
        first(&Device::simulated(), measured, &[choice]),
        first(&device, measured, &[Choice { capability: (8, 0), ..choice }]),
    ];
    for other in others {
        assert_eq!(other.file, sm80::FILE);
    }
}

/// Each way to serve a layer is offered once, the chosen one first, and is served when it is asked for.
#[test]
fn every_variant_is_served_as_it_is_asked_for() {
    let device = hopper();
    for (geometry, layout) in layers() {
        let all = variants(&device, &geometry, &layout, KernelFamily::Measured).unwrap();
        let chosen = choose(&device, &geometry, &layout, KernelFamily::Measured, None).unwrap().0;
        assert_eq!(all[0], chosen.variant());
        for (i, variant) in all.iter().enumerate() {
            assert!(!all[..i].contains(variant), "{variant:?} twice");
            let asked = variant.with_block_ns(1234);
            let served = choose(&device, &geometry, &layout, KernelFamily::Measured, Some(&asked)).unwrap().0;
            assert_eq!(served.variant(), asked);
        }
        let has_hopper = all.iter().any(|variant| variant.kernel.contains("_sm90_"));
        assert_eq!(has_hopper, sm90::candidates(&geometry, &layout, &device.limits(), Arch::Sm90a).is_ok());
    }
}

#[test]
fn a_variant_that_does_not_serve_a_layer_is_refused_by_name() {
    let (geometry, layout) = layers().next().unwrap();
    let mut variant = variants(&hopper(), &geometry, &layout, KernelFamily::Measured).unwrap()[0];
    variant.tile_tokens = 7;
    let refused = choose(&hopper(), &geometry, &layout, KernelFamily::Measured, Some(&variant)).unwrap_err();
    let message = refused.to_string();
    assert!(message.contains("tile_tokens: 7") && message.contains("does not serve the layer"), "{message}");
}
