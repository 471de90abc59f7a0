//! What `decode` may cost, as the simulator counts it: PTX instructions, which a GPU's compiler still thins out (moves,
//! parameters and 64-bit addresses of shared memory cost nothing there).

use latent_attention::Geometry;
use latent_attention::cache::{CacheFormat, CacheLayout, Group};
use latent_attention::image::{self, Arch};
use ptx_sim::meter::{Meter, Path, Traffic};

use crate::decode::{geometry, one_split};
use crate::device;

/// Runs of a step on one device, which `Step::run` does.
pub const RUNS: u64 = 2;

pub fn traffic(meter: &Meter, path: Path) -> Traffic {
    meter.traffic.get(&path).copied().unwrap_or_default()
}

/// Meters of sequences of 512 and 1024 tokens in one split; the difference is what 512 tokens cost, without what a
/// block costs. None on a GPU.
fn meters(geometry: Geometry, format: CacheFormat) -> Option<[Meter; 2]> {
    let [short, long] = [512, 1024].map(|tokens| {
        let device = device();
        one_split(geometry, format, tokens).run(&device);
        device.take_counts().into_iter().find(|(name, _)| name.starts_with("decode_")).map(|(_, c)| c.meter)
    });
    Some([short?, long?])
}

/// Operations of a product of m16n8k16.
const OPERATIONS: f64 = 4096.0;

/// Warp instructions per cached token, with about 5 % to spare, and tensor-core products of m16n8k16, or as much work:
/// H L / 1024 for the latents (bf16: half as many more, for the weights' second half), those of the rotated key, and
/// those of mins: half a one for each 16 tokens, 8 heads, and run of the latents or k-step of the rotated key; with groups
/// of latents H / 128 for up to 16 of them, twice in scores and once in the output.
#[test]
fn instructions_per_token() {
    for (name, geometry, format, most, products) in [
        ("llama2-7b-d16", geometry(32, 32, 512, 16), CacheFormat::INT4, 182, 18.75),
        ("llama3-8b-d64", geometry(32, 8, 512, 16), CacheFormat::INT4, 138, 16.75),
        ("deepseek-v2-lite", geometry(16, 1, 512, 64), CacheFormat::INT4, 114, 8.75),
        ("llama3-8b-d64, groups", geometry(32, 8, 512, 16), CacheFormat::int4(Group::G64), 246, 17.5),
        ("llama3-8b-d64, bf16", geometry(32, 8, 512, 16), CacheFormat::BF16, 161, 24.5),
    ] {
        let Some([short, long]) = meters(geometry, format) else { return };
        let per_token = |count: fn(&Meter) -> u64| (count(&long) - count(&short)) as f64 / (512 * RUNS) as f64;
        let warp = per_token(|m| m.total().warp);
        let mma = per_token(Meter::tensor_operations) / OPERATIONS;
        println!("{name}: {warp} instructions per token");
        assert!(warp <= f64::from(most), "{name}: {warp} instructions per token, of {most}");
        assert!(mma <= products, "{name}: {mma} products per token, of {products}");

        let bytes = CacheLayout::new(&geometry, format, 64).unwrap().bytes_per_token();
        let copied = per_token(|m| traffic(m, Path::CopyGlobalRead).bytes);
        assert_eq!(copied, bytes as f64, "{name}");
        for path in [Path::LocalRead, Path::LocalWrite] {
            assert_eq!(traffic(&long, path).bytes, 0, "{name}");
        }
        for path in [Path::SharedRead, Path::SharedWrite] {
            assert_eq!(traffic(&long, path).conflicts, traffic(&short, path).conflicts, "{name}: {path:?}");
        }
    }
}

/// Of normalised keys each token and KV head has a factor, which scores of the latents are multiplied with: 2 bytes each, and
/// with 32 heads at most 12 % more instructions.
#[test]
fn factors_of_normalised_keys_cost_little() {
    let plain = geometry(32, 8, 512, 16);
    let per_token = |geometry, count: fn(&Meter) -> u64| {
        let [short, long] = meters(geometry, CacheFormat::INT4)?;
        Some((count(&long) - count(&short)) as f64 / (512 * RUNS) as f64)
    };
    let both = |count| Some([per_token(plain, count)?, per_token(plain.with_key_norm(true), count)?]);
    let Some([without, with]) = both(|m| m.total().warp) else { return };
    println!("{without} instructions per token, {with} with factors");
    assert!(with <= 1.12 * without, "{without} instructions per token, {with} with factors");
    let Some([without, with]) = both(|m| traffic(m, Path::CopyGlobalRead).bytes) else { return };
    assert_eq!(with, without + 2.0 * 8.0);
}

/// The loop of scores handles 32 values per lane and round, that of the output twice as many. Counted is what is done to
/// them between loading and multiplying: 11/8 instructions per value for both together, and 12/8 in groups, whose words
/// take other ways to the lanes. Nothing is done to a value after that: scales and mins meet sums and weights.
#[test]
fn unpacking_a_value_takes_at_most_one_and_a_half_instructions() {
    let Some(ptx) = image::ptx("decode_sm80", Arch::Compute80) else { return };
    for name in ["decode_whole_1x4_64", "decode_groups_1x4_64"] {
        let (_, kernel) = ptx.split_once(&format!(".entry {name}(")).unwrap();
        let kernel = kernel.split(".entry ").next().unwrap();
        let count = |block: &str, is: &dyn Fn(&str) -> bool| block.lines().filter(|line| is(line)).count();
        let opcode = |name: &'static str| move |line: &str| line.trim_start().starts_with(name);
        // Of the other products, those of the rotated key are fewer per block, those of mins have no `ldmatrix`. The
        // loop over scores of groups is in two blocks, since what is between them depends on the group.
        let loops = kernel.split("\n$L__").filter(|block| match count(block, &opcode("mma.sync")) {
            // The output's loop has one m-tile of tokens in a round, or two, or all four where the distance between rows is
            // known.
            16 | 32 | 64 => true,
            8 => count(block, &opcode("ldmatrix")) > 0,
            _ => false,
        });
        let (mut masks, mut others) = (0, 0);
        for block in loops {
            // The masks of subnormal_pair in cache/int4.cuh, and what brings codes below them.
            masks += count(block, &|line| ["983055", "15728880"].iter().any(|mask| line.contains(mask)));
            others += count(block, &|line| ["prmt", "selp"].iter().any(|&name| opcode(name)(line)));
            others += count(block, &|line| opcode("shr")(line) && line.trim_end().ends_with(", 8;"));
        }
        // Two values each, of one operand of scores, and of one of the output and of four; with groups of two.
        let expected = if name == "decode_whole_1x4_64" { 16 + 16 + 64 } else { 16 + 32 };
        assert_eq!(masks, expected, "{name}");
        assert!((masks + others) as f64 / masks as f64 <= 1.5, "{name}: {masks} masks, {others} others");
    }
}

#[test]
fn every_cached_byte_is_read_once_per_tile_of_heads() {
    for (geometry, format, head_tiles) in [
        (geometry(32, 8, 512, 16), CacheFormat::INT4, 1),
        (geometry(16, 1, 512, 64), CacheFormat::INT4, 1),
        (geometry(32, 8, 512, 16), CacheFormat::int4(Group::G32), 1),
        (geometry(32, 8, 512, 16), CacheFormat::BF16, 1),
        (geometry(32, 32, 2048, 16), CacheFormat::INT4, 2),
    ] {
        // Twice as many tokens, to tell what each costs from what a block costs.
        let meters = [128, 256].map(|tokens| {
            let device = device();
            one_split(geometry, format, tokens).run(&device);
            device.take_counts().into_iter().find(|(name, _)| name.starts_with("decode_")).map(|(_, c)| c.meter)
        });
        let [Some(short), Some(long)] = meters else { return };
        // The test runs everything twice.
        let layout = CacheLayout::new(&geometry, format, 64).unwrap();
        let bytes = (2 * 256 * layout.bytes_per_token() * head_tiles) as u64;
        assert_eq!(traffic(&long, Path::CopyGlobalRead).bytes, bytes, "{geometry:?} {format:?}");
        for path in [Path::LocalRead, Path::LocalWrite] {
            assert_eq!(traffic(&long, path).bytes, 0);
        }
        let more = |path| {
            let (short, long) = (traffic(&short, path), traffic(&long, path));
            [long.conflicts - short.conflicts, long.wavefronts - short.wavefronts]
        };
        let [reads, writes, copies] = [Path::SharedRead, Path::SharedWrite, Path::CopySharedWrite].map(more);
        // Reads: 8 bytes of running sums per lane. Copies: rows of a rotated key of fewer than 128 bytes lie where 8 of
        // them can be read at once, and so 2 or 4 of them cannot always be written at once.
        assert_eq!((reads[0], writes[0]), (0, 0), "{format:?}");
        assert!(copies[0] * 5 <= copies[1], "{format:?}: {copies:?}");
    }
}
