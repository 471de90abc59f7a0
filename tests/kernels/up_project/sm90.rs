//! `up_project` by Hopper's own instructions: that it equals the reference, and what it may cost, as the simulator counts it.

use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, Group, LatentFormat, RopeFormat};
use latent_attention::device::{Counted, Device, Simulation};
use latent_attention::ops::KernelFamily;
use latent_attention::sys::{UP_PROJECT_SM90_COLUMNS, UP_PROJECT_SM90_KEPT_STEPS};
use proptest::prelude::*;
use ptx_sim::meter::{Meter, Path, Traffic};

use super::{Case, whole_chunks};
use crate::common::{formats, page_size, ragged};
use crate::decode::as_hopper;
use crate::decode_budgets::traffic;
use crate::{device, hopper, simulate};

const KERNEL: &str = "up_project_sm90";

/// Latents of up to 11 k-steps, of which 8 are kept.
fn long_latents() -> impl Strategy<Value = Geometry> {
    (whole_chunks(), 1usize..=11, 0usize..8)
        .prop_map(|(geometry, steps, chunks)| geometry.with_latent_rank(64 * steps - 8 * chunks).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_reference(
        seed: u64,
        geometry in prop_oneof![whole_chunks().boxed(), long_latents().boxed()],
        format in prop::sample::select(formats()),
        (lens, _) in ragged(),
        page_size in page_size(),
        gaps in prop_oneof![Just([0, 0]), Just([16, 8])],
        spare in 0usize..=2,
        csr: bool,
        bias: bool,
    ) {
        let kernels = KernelFamily::Sm90;
        let mut case = Case { gaps, spare, csr, kernels, ..Case::new(seed, geometry, format, &lens, page_size) };
        case.bias = case.bias.filter(|_| bias);
        let device = hopper();
        case.check(&case.run(&device));
        let served = device.take_counts();
        prop_assert!(device.is_cuda() || case.tokens() + spare == 0 || served.contains_key(KERNEL));
    }
}

/// A simulated device that runs Hopper's instructions, of so many multiprocessors: of few, a block has many tiles of columns.
fn narrow(multiprocessors: usize) -> Device {
    Device::simulate(as_hopper(Simulation::default()).with_multiprocessors(multiprocessors))
}

/// Blocks with several tiles of columns, some of them of keys and of values, of latents that are kept and that are not.
#[test]
fn a_block_has_many_tiles_of_columns() {
    for (latent_rank, format) in [
        (64, CacheFormat::INT4),
        (136, CacheFormat::BF16),
        (512, CacheFormat::BF16),
        (512, CacheFormat::int4(Group::G32)),
        (576, CacheFormat::INT4),
    ] {
        let mut geometry = Geometry::mha2mla(10, 10, 64, 24, 1).unwrap();
        (geometry.latent_rank, geometry.value_dim) = (latent_rank, 72);
        let case = Case { kernels: KernelFamily::Sm90, ..Case::new(11, geometry, format, &[100, 60], 32) };
        // Two tiles of keys and three of values for two tiles of tokens: two blocks, or five.
        for multiprocessors in [1, 4] {
            case.check(&case.run(&narrow(multiprocessors)));
        }
    }
}

/// What the kernel does not take, the other one does.
#[test]
fn unaligned_layers_are_left_to_the_portable_kernel() {
    let aligned = Geometry::mha2mla(2, 2, 32, 8, 1).unwrap().with_latent_rank(64).unwrap();
    let by_kernel = |geometry, gaps, shift, name: &str| {
        let case = Case { gaps, shift, ..Case::new(12, geometry, CacheFormat::INT4, &[9], 8) };
        let (case, device) = (Case { kernels: KernelFamily::Sm90, ..case }, hopper());
        case.check(&case.run(&device));
        let served: Vec<String> = device.take_counts().into_keys().map(|name| name.to_string()).collect();
        assert!(device.is_cuda() || served == [name], "{geometry:?}, {gaps:?}, {shift}: {served:?}");
    };
    by_kernel(aligned, [0, 0], 0, KERNEL);
    by_kernel(aligned.with_latent_rank(63).unwrap(), [0, 0], 0, "up_project");
    let mut narrow = aligned;
    narrow.value_dim = 12;
    by_kernel(narrow, [0, 0], 0, "up_project");
    by_kernel(aligned, [0, 1], 0, "up_project");
    by_kernel(aligned, [1, 0], 0, "up_project");
    by_kernel(aligned, [0, 0], 1, "up_project");
}

#[test]
fn a_device_without_its_instructions_is_named() {
    let ampere = simulate(Simulation::default());
    if ampere.is_cuda() || ampere.is_cpu() {
        return;
    }
    let geometry = Geometry::mha2mla(2, 2, 32, 8, 1).unwrap();
    let case = Case { kernels: KernelFamily::Sm90, ..Case::new(13, geometry, CacheFormat::INT4, &[9], 8) };
    let layout = *case.cache.layout();
    let config = super::UpProjectConfig::new(geometry, layout).with_kernels(KernelFamily::Sm90);
    let message = super::UpProject::new(&ampere, config).unwrap_err().to_string();
    assert!(message.contains("up_project_sm90"), "{message}");
}

/// What one tile of 128 tokens costs with columns for four blocks, `tiles` tiles of columns each. None on a GPU.
fn meter(latent: LatentFormat, latent_rank: usize, tiles: usize) -> Option<Meter> {
    let mut geometry = Geometry::mha2mla(2 * tiles, 2 * tiles, UP_PROJECT_SM90_COLUMNS as usize, 0, 1).unwrap();
    (geometry.latent_rank, geometry.value_dim) = (latent_rank, UP_PROJECT_SM90_COLUMNS as usize);
    let format = CacheFormat::new(latent, RopeFormat::Bf16);
    let case = Case { kernels: KernelFamily::Sm90, bias: None, ..Case::new(8, geometry, format, &[128], 64) };
    let device = if device().is_cuda() { return None } else { narrow(1) };
    case.run(&device);
    device.take_counts().remove(KERNEL).map(|Counted { meter, .. }| meter)
}

/// Of the k-steps of a block's first tile of columns, and of a further tile of 8 whose latents are there: warp instructions of
/// a scheduler, a quarter of the multiprocessor's, with about 5 % to spare; cycles of the tensor cores, which do 4096
/// operations in each; and wavefronts of shared memory, those by which products read it included. Bytes are read and written
/// once, in whole sectors, without bank conflicts.
#[test]
fn a_tile_of_256_columns() {
    const BLOCKS: u64 = 4;
    const KEPT: u64 = UP_PROJECT_SM90_KEPT_STEPS as u64;
    let rank = 64 * KEPT as usize;
    // A k-step's bytes of weights, and of bf16 latents.
    let (weights, latents) = (256 * 128, 128 * 128);
    for (latent, first, wavefronts, copied) in [
        (LatentFormat::Bf16, 325, 1120, weights + latents),
        (LatentFormat::Int4 { group: Group::Whole }, 655, 1024, weights),
    ] {
        let meters = [(rank / 2, 1), (rank, 1), (rank, 2)].map(|(rank, tiles)| meter(latent, rank, tiles));
        let [Some(half), Some(one), Some(two)] = meters else { return };
        let of_block =
            |count: &dyn Fn(&Meter) -> u64, [short, long]: [&Meter; 2]| (count(long) - count(short)) / BLOCKS;
        let shared = |m: &Meter| {
            let paths = [Path::SharedRead, Path::SharedWrite, Path::CopySharedWrite, Path::DescriptorRead];
            paths.map(|path| traffic(m, path).wavefronts).iter().sum::<u64>()
        };
        // A further tile's biases are read by 8 warps, at 64 wavefronts each, and written in 8.
        for (what, meters, steps, most, wavefronts, copied) in [
            ("a first tile", [&half, &one], KEPT / 2, first * KEPT / 2, wavefronts * KEPT / 2, copied * KEPT / 2),
            ("a further tile", [&one, &two], KEPT, 2590, 896 * KEPT + 8 * 64 + 8, weights * KEPT),
        ] {
            let warp = of_block(&|m| m.total().warp, meters) / 4;
            assert!(warp <= most, "{latent:?}, {what}: {warp} instructions of a scheduler, of {most}");
            assert_eq!(of_block(&Meter::tensor_operations, meters), 1024 * 4096 * steps, "{latent:?}, {what}");
            assert_eq!(of_block(&shared, meters), wavefronts, "{latent:?}, {what}: wavefronts");
            let read = |count: fn(Traffic) -> u64| of_block(&|m| count(traffic(m, Path::CopyGlobalRead)), meters);
            assert_eq!((read(|t| t.bytes), read(|t| t.sectors)), (copied, copied / 32), "{latent:?}, {what}: copies");
        }
        let written = |count: fn(Traffic) -> u64| of_block(&|m| count(traffic(m, Path::GlobalWrite)), [&one, &two]);
        let bytes = 128 * 256 * 2;
        assert_eq!((written(|t| t.bytes), written(|t| t.sectors)), (bytes, bytes / 32), "{latent:?}");
        for path in [Path::SharedRead, Path::SharedWrite, Path::CopySharedWrite] {
            assert_eq!(traffic(&two, path).conflicts, 0, "{latent:?}, {path:?}");
        }
        for path in [Path::LocalRead, Path::LocalWrite] {
            assert_eq!(traffic(&two, path).bytes, 0, "{latent:?}, {path:?}");
        }
    }
}
