//! This build's kernels, disassembled and simulated. Without the CUDA toolkit's programs there is nothing to look at, which
//! `LATENT_ATTENTION_STRICT=1` (`cargo xtask test`) does not let pass.

use std::path::Path;

use latent_attention::image::Arch;
use latent_attention::ops::DecodeVariant;
use latent_attention_cost::calibrate::Calibration;
use latent_attention_cost::counts::Evidence;
use latent_attention_cost::machine::H200;
use latent_attention_cost::models;
use latent_attention_cost::sass::parse::Instruction;
use latent_attention_cost::survey::Surveyor;
use latent_attention_cost::tools::Tools;
use latent_attention_cost::work::{SCHEDULERS, Shares, Work};

/// Whether nothing may be left out.
fn strict() -> bool {
    std::env::var_os("LATENT_ATTENTION_STRICT").is_some_and(|value| value == "1")
}

/// The programs, and an architecture whose machine code they make.
fn tools() -> Option<Tools> {
    let found = Tools::find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"));
    match found {
        Ok(tools) if !latent_attention::image::images().is_empty() => Some(tools),
        found => {
            assert!(!strict(), "no kernels, or no programs: {found:?}");
            eprintln!("left out: no kernels, or no programs: {found:?}");
            None
        }
    }
}

#[test]
fn a_layers_kernel_is_matched_and_costs_what_its_cache_demands() {
    let Some(tools) = tools() else { return };
    let mut surveyor = Surveyor::new(tools, Arch::Sm90a, &H200);
    let (layer, merge) = surveyor.layer("llama3-8b-d64", "int4").unwrap();
    let (_, layout) = models::layer("llama3-8b-d64", "int4").unwrap();
    let work = layer.per_64_tokens();
    // The survey fails if tensor-core instructions do not add up to those that the simulator executed. Scores of 32 heads
    // are 4 n-tiles of 512 latents, output the same, and there is a rotated key.
    assert!(work.mma >= 2.0 * (4 * 4 * 32) as f64, "{work:?}");
    let bytes = (64 * layout.bytes_per_token()) as f64;
    assert!((work.bytes / bytes - 1.0).abs() < 0.01, "{} {bytes}", work.bytes);
    let unmatched = |shares: &Shares| shares.get(&Evidence::Unmatched).copied().unwrap_or(0.0);
    assert!(unmatched(&layer.tile_evidence) < 0.01, "{:?}", layer.tile_evidence);
    assert!(unmatched(&layer.rest_evidence) < 0.2, "{:?}", layer.rest_evidence);
    let anywhere = layer.gaps.iter().map(|gap| gap.slots).sum::<f64>();
    assert!(anywhere > 0.0 && layer.gaps.iter().all(|gap| gap.lines.is_some()), "{:?}", layer.gaps);
    // A lone warp issues no two instructions at once: its share of a scheduler's slots takes at least as long.
    assert!(work.lone >= work.issue * 4.0 / 8.0, "{work:?}");
    // Each split of a merge is 4 bytes for each latent, and in each block one of lse.
    assert_eq!(merge.others.len(), 3);
    for merge in merge.others.iter().chain([merge]) {
        let (bytes, blocks) = (merge.split.bytes / merge.batch as f64, merge.blocks as f64);
        assert!((bytes * blocks - 4.0 * (512.0 + blocks)).abs() < 4.0, "{merge:?}");
        assert!(unmatched(&merge.evidence) < 0.05, "{:?}", merge.evidence);
    }
}

#[test]
fn machine_code_with_line_information_is_that_of_the_build() {
    let Some(tools) = tools() else { return };
    let image = |file: &str| {
        let found = |image: &&latent_attention::image::Image| (image.kernel_file, image.arch) == (file, Arch::Sm90a);
        latent_attention::image::images().iter().find(found)
    };
    let mut surveyor = Surveyor::new(tools.clone(), Arch::Sm90a, &H200);
    // Labels are numbered through all kernels of a module: the address that a jump leads to stands for them.
    let plain = |instruction: &Instruction| {
        let Instruction { opcode, operands, guard, control, target, .. } = instruction.clone();
        let operands = operands.split_once("`(").map_or(operands.clone(), |(front, _)| front.to_owned());
        (opcode, operands, guard, control, target)
    };
    for (file, name) in [("combine", "combine"), ("decode_sm80", "decode_whole_1x4_64")] {
        let Some(built) = image(file) else {
            assert!(!strict(), "this build has no machine code of csrc/{file}.cu for sm_90a");
            eprintln!("left out: this build has no machine code for sm_90a");
            return;
        };
        let kernel = surveyor.kernel(file, name).unwrap();
        let disassembled = tools.disassemble(built.bytes).unwrap();
        let embedded = disassembled.iter().find(|function| function.name == name).unwrap();
        assert!(!kernel.instructions.is_empty());
        assert_eq!(kernel.instructions.len(), embedded.instructions.len(), "{name}");
        let mut pairs = kernel.instructions.iter().zip(&embedded.instructions);
        let other = pairs.find(|(kernel, embedded)| plain(kernel) != plain(embedded));
        assert!(other.is_none(), "{name}: {other:?}");
    }
}

#[test]
fn ways_to_serve_a_layer_cost_what_they_do_alone_and_those_of_hoppers_products_are_refused() {
    let Some(tools) = tools() else { return };
    let (model, format) = ("smollm-135m-d32", "int4");
    let new = || Surveyor::new(tools.clone(), Arch::Sm90a, &H200);
    let mut surveyor = new();
    let variants = surveyor.variants(model, format).unwrap();
    let block = |variant: &DecodeVariant| (variant.kernel, variant.tile_tokens, variant.stages);
    let (first, second) = variants
        .iter()
        .enumerate()
        .find_map(|(i, first)| Some((first, variants[i + 1..].iter().find(|second| block(first) == block(second))?)))
        .expect("two variants that differ in the blocks that share a multiprocessor");
    let counted = [first, second].map(|&variant| surveyor.variant(model, format, variant).unwrap().0);
    assert_eq!(counted.each_ref().map(|layer| layer.blocks), [first, second].map(|v| v.blocks_per_multiprocessor));
    assert_eq!(new().variant(model, format, *second).unwrap().0, counted[1]);
    let hopper = variants.iter().find(|variant| variant.kernel.starts_with("decode_sm90")).unwrap();
    let refused = format!("{:#}", surveyor.variant(model, format, *hopper).unwrap_err());
    assert!(refused.ends_with(": what wgmma and setmaxnreg cost is not measured yet"), "{refused}");
}

/// What `schedule` chooses splits by: 1 is a tile.
#[test]
fn split_costs_are_about_those_of_the_law() {
    let Some(tools) = tools() else { return };
    let mut surveyor = Surveyor::new(tools, Arch::Sm90a, &H200);
    let (layer, merge) = surveyor.layer("llama3-8b-d64", "int4").unwrap();
    let law = Calibration::committed().unwrap().constants;
    let us = |batch, context| law.predict(&H200, layer, merge, batch, context);
    // Blocks fill the machine; nothing is cut.
    let (batch, tile) = (layer.target_splits, layer.tile_tokens);
    let tile_us = us(batch, 2 * tile) - us(batch, tile);
    let block_us = us(batch, tile) - tile_us - law.launch_us;
    // One sequence of a tile for each split.
    let merge_us = |splits: usize| law.merge_us(&H200, layer, merge, 1, splits * tile);
    let partial_us = (merge_us(128) - merge_us(64)) / 64.0;
    let first_us = merge_us(64) - 64.0 * partial_us;
    let [block, fixed, partial, batch] = layer.split_costs.unwrap().map(|cost| f64::from(cost) / 65536.0 * tile_us);
    let pairs = [(block, block_us), (partial + batch / 64.0, partial_us), (fixed, first_us)];
    assert!(pairs.iter().all(|(cost, law)| (0.5..=2.0).contains(&(cost / law))), "{pairs:?}, a tile {tile_us} us");
}

/// Issue slots of a token where tokens are many, with 2 % to spare; and at least 80 % of a copy's rate for what is read
/// and written: a multiprocessor's share of that rate against its busiest pipe.
#[test]
fn taking_in_many_tokens_is_bound_by_memory() {
    let Some(tools) = tools() else { return };
    let mut surveyor = Surveyor::new(tools, Arch::Sm90a, &H200);
    let budgets = [
        ("llama3-8b-d64", "int4", 953.0),
        ("llama3-8b-d64", "bf16", 828.0),
        ("llama2-7b-d64", "int4", 2507.0),
        ("deepseek-v2-lite", "int4", 1313.0),
        ("deepseek-v3", "int4", 6425.0),
        ("minicpm3-4b", "int4", 1630.0),
    ];
    for (model, format, budget) in budgets {
        let measured = surveyor.rope_append(model, format).unwrap();
        let (geometry, layout) = models::layer(model, format).unwrap();
        let numbers = 2 * geometry.query_heads * geometry.rope_dim + geometry.rope_width() + geometry.latent_rank;
        let place = size_of::<i32>() + size_of::<i64>();
        let copied = (2 * numbers + place + layout.bytes_per_token()) as f64 / H200.bytes_per_cycle();
        let Work { issue, alu, fma, mufu, .. } = measured.work;
        let (slots, busiest) = (SCHEDULERS * issue, [issue, alu, fma, mufu].into_iter().fold(0.0, f64::max));
        let rate = (copied / busiest).min(1.0);
        println!(
            "{model} {format}: {slots:.0} slots; cycles: copy {copied:.0}, issue {issue:.0}, alu {alu:.0}, \
             fma {fma:.0}, mufu {mufu:.0}; {:.0} % of a copy's rate",
            100.0 * rate
        );
        assert!(slots <= budget, "{model} {format}: {slots} issue slots");
        assert!(rate >= 0.8, "{model} {format}: {rate} of a copy's rate");
        let unmatched = measured.slots.get(&Evidence::Unmatched).copied().unwrap_or(0.0);
        assert!(unmatched < 0.01 * slots, "{model} {format}: {unmatched} slots of unknown count");
    }
}
