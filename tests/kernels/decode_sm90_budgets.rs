//! What `decode` may cost by Hopper's own instructions, as the simulator counts it: PTX instructions, which a GPU's compiler
//! still thins out (descriptors, moves and addresses that all lanes share take uniform registers there).

use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout};
use latent_attention::image::{self, Arch};
use latent_attention::ops::KernelFamily;
use ptx_sim::meter::{Meter, Path};

use crate::decode::{geometry, one_split};
use crate::decode_budgets::{RUNS, traffic};
use crate::device;

/// Tokens of a tile.
const TILE: u64 = 64;

/// Tiles by which the sequences of a [`TileCost`] differ.
const TILES: u64 = 8;

/// What a tile costs: the difference of sequences of 512 and 1024 tokens in one split, without what a block costs.
struct TileCost {
    name: &'static str,
    short: Meter,
    long: Meter,
    /// Blocks of a cluster, which share each tile.
    blocks: f64,
    /// Bytes of the tile in the cache.
    bytes: u64,
}

/// By which wavefronts go to shared memory: those of products that read the query and weights, too.
const PATHS: [Path; 4] = [Path::SharedRead, Path::SharedWrite, Path::CopySharedWrite, Path::DescriptorRead];

impl TileCost {
    /// None on a GPU.
    fn of(name: &'static str, geometry: Geometry, format: CacheFormat) -> Option<Self> {
        let [short, long] = [TILES, 2 * TILES].map(|tiles| {
            let tokens = (TILE * tiles) as usize;
            let device = device();
            let mut steps = one_split(geometry, format, tokens).by_every_family(&device);
            let (step, device) = steps.find(|(step, _)| step.kernels() == KernelFamily::Sm90)?;
            step.run(&device);
            device.take_counts().into_iter().find(|(name, _)| name.contains("_sm90_")).map(|(_, c)| c.meter)
        });
        let bytes = TILE * CacheLayout::new(&geometry, format, 64).unwrap().bytes_per_token() as u64;
        let blocks = geometry.latent_rank.div_ceil(512) as f64;
        Some(Self { name, short: short?, long: long?, blocks, bytes })
    }

    /// Of a block.
    fn of_block(&self, count: impl Fn(&Meter) -> u64) -> f64 {
        (count(&self.long) - count(&self.short)) as f64 / (TILES * RUNS) as f64 / self.blocks
    }

    fn conflicts(&self, path: Path) -> f64 {
        self.of_block(|m| traffic(m, path).conflicts)
    }

    /// Of a block, at most so many instructions of a scheduler, a quarter of the multiprocessor's, and wavefronts; and so many
    /// products of a warpgroup. What is in the cache is read once by all blocks together, and nothing is spilled.
    fn check(&self, most: u32, products: u32, wavefronts: u32) {
        let name = self.name;
        let warp = self.of_block(|m| m.total().warp) / 4.0;
        assert!(warp <= f64::from(most), "{name}: {warp} instructions of a scheduler, of {most}");
        // Each of the four warps counts its quarter of a product.
        let wgmma = self.of_block(|m| m.mma.values().sum()) / 4.0;
        assert_eq!(wgmma, f64::from(products), "{name}: products");
        let shared = PATHS.map(|path| self.of_block(|m| traffic(m, path).wavefronts)).iter().sum::<f64>();
        assert!(shared <= f64::from(wavefronts), "{name}: {shared} wavefronts, of {wavefronts}");
        let read = self.of_block(|m| traffic(m, Path::CopyGlobalRead).bytes) * self.blocks;
        assert_eq!(read, self.bytes as f64, "{name}: bytes");
        for path in [Path::LocalRead, Path::LocalWrite] {
            assert_eq!(traffic(&self.long, path).bytes, 0, "{name}");
        }
    }
}

/// Of a tile of 64 tokens: warp instructions of a scheduler, with about 5 % to spare; products, those of 16 numbers in k for
/// scores and of 64 latents and 16 tokens for the output; and wavefronts of shared memory. Bytes are read once, without
/// conflicts, but where neighbouring heads have groups of their own: four pairs of (scale, min) of eight tokens, 17 pairs
/// each, do not lie in different banks.
#[test]
fn a_tile_of_64_tokens() {
    for (name, geometry, most, products, wavefronts, read_conflicts) in [
        ("llama2-7b-d16", geometry(32, 32, 512, 16), 1690, 100, 1790, 32),
        ("llama3-8b-d64", geometry(32, 8, 512, 16), 1210, 73, 1285, 0),
        ("deepseek-v2-lite", geometry(16, 1, 512, 64), 1130, 69, 850, 0),
        ("smollm-135m-d32", geometry(9, 3, 96, 8), 790, 35, 470, 0),
    ] {
        let Some(tile) = TileCost::of(name, geometry, CacheFormat::INT4) else { return };
        tile.check(most, products, wavefronts);
        for (path, conflicts) in [(Path::SharedRead, read_conflicts), (Path::SharedWrite, 0)] {
            assert_eq!(tile.conflicts(path), f64::from(conflicts), "{name}: {path:?}");
        }
        // Rows of a rotated key are shorter than what 8 lanes of a copy write at once.
        let copies = Path::CopySharedWrite;
        let (conflicts, writes) = (tile.conflicts(copies), tile.of_block(|m| traffic(m, copies).wavefronts));
        assert!(5.0 * conflicts <= writes || name.starts_with("smollm"), "{name}: {conflicts} of {writes} wavefronts");
    }
}

/// The same of latents of bf16: products of both warpgroups, which read A as well as B by descriptors, one pass over the
/// banks for each 128 bytes.
#[test]
fn a_tile_of_64_tokens_of_bf16() {
    for (name, geometry, most, products, wavefronts) in [
        ("deepseek-v3", geometry(64, 1, 512, 64), 1510, 136, 4810),
        ("llama3-8b-d64", geometry(32, 8, 512, 16), 1410, 144, 4100),
        ("deepseek-v2-lite", geometry(16, 1, 512, 64), 1280, 136, 3400),
        ("smollm-135m-d32", geometry(9, 3, 96, 8), 810, 72, 1720),
    ] {
        let Some(tile) = TileCost::of(name, geometry, CacheFormat::BF16) else { return };
        tile.check(most, products, wavefronts);
        for path in PATHS {
            assert_eq!(tile.conflicts(path), 0.0, "{name}: {path:?}");
        }
    }
}

/// The same of each block of a cluster, 32 heads at a time; and the bytes that it stores in other blocks: partial scores of 64
/// tokens with their pairs of (scale, min), and its share of the weights with their references. Nine pairs of each of eight
/// tokens do not lie in different banks.
#[test]
fn a_tile_of_64_tokens_of_a_cluster() {
    for (name, geometry, most, products, wavefronts, read_conflicts) in [
        ("llama2-7b-d32", geometry(32, 32, 1024, 16), 2540, 82, 1710, 32),
        ("llama2-7b-d64", geometry(32, 32, 2048, 16), 1950, 73, 1450, 0),
    ] {
        let Some(tile) = TileCost::of(name, geometry, CacheFormat::INT4) else { return };
        tile.check(most, products, wavefronts);
        // A score is 4 bytes, a pair of (scale, min) too, and a weight 2; a block has weights of 64 tokens in all.
        let (blocks, heads) = (tile.blocks, 32.0);
        let (scores, pairs, weights) = (64.0 * heads * 4.0, 64.0 * 4.0, 64.0 * heads * 2.0);
        let references = 4.0 * (heads * 4.0 + heads / 8.0 * 4.0);
        assert_eq!(
            tile.of_block(|m| traffic(m, Path::RemoteWrite).bytes),
            (scores + pairs + weights + references) * (blocks - 1.0) / blocks,
            "{name}: to other blocks"
        );
        for (path, conflicts) in [(Path::SharedRead, read_conflicts), (Path::SharedWrite, 0)] {
            assert_eq!(tile.conflicts(path), f64::from(conflicts), "{name}: {path:?}");
        }
    }
}

/// The warpgroups get the registers that they ask for: ptxas drops `setmaxnreg` where a kernel does not fix its threads.
#[test]
fn threads_are_fixed() {
    for (file, threads, warpgroups) in [("decode_sm90", 384, 2), ("decode_cluster_sm90", 512, 3)] {
        let Some(ptx) = image::ptx(file, Arch::Compute90a) else { return };
        for kernel in ptx.split(".entry ").skip(1) {
            let (directives, body) = kernel.split_once('{').unwrap();
            let bounds = [format!(".maxntid {threads}"), ".minnctapersm 1\n".into()];
            assert!(bounds.iter().all(|bound| directives.contains(bound)), "{directives}");
            assert_eq!(body.matches("\tsetmaxnreg.").count(), warpgroups);
        }
    }
}
