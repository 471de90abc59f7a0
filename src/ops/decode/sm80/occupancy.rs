//! Blocks share a multiprocessor as the host plans: what each image of this build takes of registers and shared memory
//! leaves room for them.

use std::collections::BTreeMap;

use super::{FILE, Latents, Variant, candidates};
use crate::cache::{CacheFormat, CacheLayout, Group, RopeFormat};
use crate::device::Limits;
use crate::geometry::Geometry;
use crate::image::{Arch, Image, images};
use crate::sys;

/// Registers of a multiprocessor, and of those that a warp gets at a time. Each of its four schedulers has a quarter.
const REGISTERS: usize = 65536;
const REGISTER_UNIT: usize = 256;
const SCHEDULERS: usize = 4;

/// Threads that a multiprocessor holds, and KiB of its shared memory (CUDA C++ Programming Guide, "Technical
/// Specifications per Compute Capability"); a block can have all of it but one.
fn multiprocessor(arch: Arch) -> (usize, usize) {
    match arch.capability() {
        (8, 0) => (2048, 164),
        (8, _) | (12, _) => (1536, 100),
        (9 | 10, _) => (2048, 228),
        other => panic!("what has a multiprocessor of compute capability {other:?}?"),
    }
}

/// What a kernel takes: registers per thread, and bytes of static shared memory.
struct Usage {
    registers: usize,
    static_bytes: usize,
}

impl Usage {
    /// Blocks that a multiprocessor has registers and threads for.
    fn blocks(&self, arch: Arch) -> usize {
        let of_warp = (32 * self.registers).next_multiple_of(REGISTER_UNIT);
        let warps = REGISTERS / SCHEDULERS / of_warp * SCHEDULERS;
        let threads = sys::DECODE_THREADS as usize;
        (warps / (threads / 32)).min(multiprocessor(arch).0 / threads)
    }
}

fn variants(arch: Arch) -> impl Iterator<Item = Variant> {
    [Latents::Whole, Latents::Groups, Latents::Bf16].into_iter().flat_map(move |latents| Variant::all(latents, arch))
}

/// The images of machine code for these kernels.
fn machine_code() -> impl Iterator<Item = &'static Image> {
    images().iter().filter(|image| image.kernel_file == FILE && !image.arch.is_virtual())
}

#[test]
fn every_kernel_of_the_list_is_offered() {
    assert_eq!(variants(Arch::Sm80).count(), sys::DECODE_SM80_KERNELS.len());
    for variant in variants(Arch::Sm100) {
        assert_eq!(variant.blocks == 1, variant.slices > 2 || variant.n_tiles == 4, "{variant:?}");
    }
}

/// As many blocks as planned have registers, and where several are, no more. (Some of those that have a multiprocessor
/// for themselves leave registers for another block. Their plan is as it was measured: one.)
#[test]
fn registers_allow_the_planned_blocks() {
    for image in machine_code() {
        let usages = usages(image.bytes);
        for variant in variants(image.arch) {
            let usage = &usages[variant.name];
            let (planned, allowed) = (variant.blocks, usage.blocks(image.arch));
            let context = format!("{} for {}: {} registers", variant.name, image.arch.name(), usage.registers);
            assert!(planned == allowed || planned == 1 && allowed > 1, "{context}, {planned} of {allowed} blocks");
        }
    }
}

#[test]
fn shared_memory_allows_the_planned_blocks() {
    for image in machine_code() {
        let (usages, kib) = (usages(image.bytes), multiprocessor(image.arch).1);
        for variant in variants(image.arch) {
            let static_bytes = usages[variant.name].static_bytes;
            let planned = sys::DECODE_SM80_STATIC_BYTES as usize;
            assert!(static_bytes <= planned, "{} has {static_bytes} bytes", variant.name);
        }
        let limits = Limits {
            shared_bytes: (kib - 1) * 1024,
            shared_bytes_per_multiprocessor: kib * 1024,
            multiprocessors: 100,
        };
        for (heads, rope) in [(32, (32, 16)), (32, (8, 16)), (128, (1, 64)), (16, (1, 64)), (9, (3, 8)), (1, (1, 0))] {
            for rank in (1..=2048).step_by(101).chain([512, 1024, 2048]) {
                let mut geometry = Geometry::mha2mla(heads, rope.0, rope.1 + 8, rope.1, 1).unwrap();
                geometry.latent_rank = rank;
                let groups = CacheFormat::int4(Group::G32);
                for format in [CacheFormat::INT4, groups.with_rope(RopeFormat::Bf16), groups, CacheFormat::BF16] {
                    let layout = CacheLayout::new(&geometry, format, 64).unwrap();
                    for candidate in candidates(&geometry, &layout, &limits, image.arch).unwrap_or_default() {
                        let block = candidate.shared_bytes + usages[candidate.kernel].static_bytes;
                        assert!(block <= limits.shared_bytes, "{candidate:?}");
                        let together = candidate.blocks_per_multiprocessor * (block + Limits::RESERVED_SHARED_BYTES);
                        assert!(together <= limits.shared_bytes_per_multiprocessor, "{candidate:?}");
                    }
                }
            }
        }
    }
}

/// PTX says how many blocks the driver is to leave registers for.
#[test]
fn ptx_asks_for_the_planned_blocks() {
    for image in images().iter().filter(|image| image.kernel_file == FILE && image.arch.is_virtual()) {
        let ptx = std::str::from_utf8(image.bytes).unwrap();
        for variant in variants(image.arch) {
            let (_, kernel) = ptx.split_once(&format!(".entry {}(", variant.name)).unwrap();
            let (directives, _) = kernel.split_once('{').unwrap();
            for wanted in
                [format!(".maxntid {}, 1, 1\n", sys::DECODE_THREADS), format!(".minnctapersm {}\n", variant.blocks)]
            {
                assert!(directives.contains(&wanted), "{}: {directives} lacks {wanted}", variant.name);
            }
        }
    }
}

/// What the kernels in an image of machine code take, an ELF file of 64 bits.
fn usages(elf: &[u8]) -> BTreeMap<String, Usage> {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes(elf[at..at + 2].try_into().unwrap()));
    let u32_at = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().unwrap()) as usize;
    let u64_at = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().unwrap()) as usize;
    let text_at = |at: usize| std::ffi::CStr::from_bytes_until_nul(&elf[at..]).unwrap().to_str().unwrap();
    // The table of sections: where it begins, bytes of an entry, how many there are, and which has their names.
    let (table, entry, count, names) = (u64_at(0x28), u16_at(0x3A), u16_at(0x3C), u16_at(0x3E));
    // Of a section where it begins in the file, and its size.
    let place = |section: usize| (u64_at(table + section * entry + 24), u64_at(table + section * entry + 32));
    let sections: BTreeMap<&str, usize> =
        (0..count).map(|section| (text_at(place(names).0 + u32_at(table + section * entry)), section)).collect();
    let ((symbols, _), (strings, _)) = (place(sections[".symtab"]), place(sections[".strtab"]));

    // Attributes of the kernels: format, attribute, and a value of 2 bytes or, in format 4, its length and as many bytes.
    let (mut at, size) = place(sections[".nv.info"]);
    let (end, mut usages) = (at + size, BTreeMap::new());
    while at < end {
        const REGISTER_COUNT: u8 = 0x2F;
        if elf[at..at + 2] == [4, REGISTER_COUNT] {
            let (symbol, registers) = (u32_at(at + 4), u32_at(at + 8));
            let name = text_at(strings + u32_at(symbols + 24 * symbol));
            let shared = sections.get(format!(".nv.shared.{name}").as_str()).map_or(0, |&section| place(section).1);
            // From Hopper on what the driver keeps for itself is counted with it.
            let reserved = sections.get(".nv.shared.reserved.0").map_or(0, |_| Limits::RESERVED_SHARED_BYTES);
            usages.insert(name.to_owned(), Usage { registers, static_bytes: shared - reserved.min(shared) });
        }
        at += 4 + if elf[at] == 4 { u16_at(at + 2) } else { 0 };
    }
    usages
}
