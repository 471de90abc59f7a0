//! Counts of what a launch did: deterministic, so that tests can hold budgets on them.

use std::collections::BTreeMap;
use std::fmt;

/// Classes of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Integer arithmetic, logic, shifts, comparisons and selections.
    Integer,
    /// f32 and f64 arithmetic and comparisons.
    Float,
    /// f16 and bf16 arithmetic and comparisons, packed or not.
    Half,
    /// Approximations on the special function unit.
    Special,
    /// Conversions between types.
    Convert,
    /// Moves between registers.
    Move,
    /// Loads and stores of every space, `cvta`, `mapa`, `getctarank`, prefetches.
    Memory,
    /// Atomics and reductions in memory.
    Atomic,
    /// Asynchronous copies and their groups and barriers.
    Copy,
    /// `ldmatrix`, `stmatrix`, `movmatrix`.
    Matrix,
    /// Tensor-core products.
    Mma,
    /// Shuffles, votes, matches, warp reductions.
    Warp,
    /// Barriers and fences.
    Barrier,
    /// Branches, calls, returns.
    Control,
}

impl Class {
    /// Every class, in the order of reports.
    pub const ALL: [Self; 14] = [
        Self::Integer,
        Self::Float,
        Self::Half,
        Self::Special,
        Self::Convert,
        Self::Move,
        Self::Memory,
        Self::Atomic,
        Self::Copy,
        Self::Matrix,
        Self::Mma,
        Self::Warp,
        Self::Barrier,
        Self::Control,
    ];

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Half => "half",
            Self::Special => "special",
            Self::Convert => "convert",
            Self::Move => "move",
            Self::Memory => "memory",
            Self::Atomic => "atomic",
            Self::Copy => "copy",
            Self::Matrix => "matrix",
            Self::Mma => "mma",
            Self::Warp => "warp",
            Self::Barrier => "barrier",
            Self::Control => "control",
        }
    }
}

/// Instructions of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instructions {
    /// Issued, once per warp.
    pub warp: u64,
    /// Executed, once per active lane.
    pub lane: u64,
}

/// Traffic of one state space in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Warp-wide accesses.
    pub accesses: u64,
    /// Bytes that lanes asked for.
    pub bytes: u64,
    /// Distinct 32-byte sectors per access, summed (global and local memory).
    pub sectors: u64,
    /// Passes over shared memory's banks, summed: 1 per access of up to 128 bytes without conflicts.
    pub wavefronts: u64,
    /// Wavefronts beyond those that the bytes need: bank conflicts.
    pub conflicts: u64,
}

/// Memory traffic by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Path {
    /// Loads from global memory.
    GlobalRead,
    /// Stores to global memory.
    GlobalWrite,
    /// Loads from shared memory, `ldmatrix` included.
    SharedRead,
    /// Stores to shared memory, `stmatrix` included.
    SharedWrite,
    /// Loads from local memory (spills).
    LocalRead,
    /// Stores to local memory (spills).
    LocalWrite,
    /// Loads from the constant bank.
    ConstRead,
    /// Global memory read by asynchronous copies into shared memory.
    CopyGlobalRead,
    /// Shared memory written by asynchronous copies.
    CopySharedWrite,
    /// Shared memory read by asynchronous copies to global memory.
    CopySharedRead,
    /// Global memory written by asynchronous copies.
    CopyGlobalWrite,
    /// Atomics on global memory.
    GlobalAtomic,
    /// Atomics on shared memory.
    SharedAtomic,
    /// Loads from the shared memory of other blocks of the cluster.
    RemoteRead,
    /// Stores to the shared memory of other blocks of the cluster, asynchronous ones included.
    RemoteWrite,
    /// Atomics on the shared memory of other blocks of the cluster, asynchronous ones included.
    RemoteAtomic,
    /// Global memory read by bulk and tensor copies.
    BulkGlobalRead,
    /// Global memory written by bulk and tensor copies and reductions.
    BulkGlobalWrite,
    /// Shared memory read by bulk and tensor copies.
    BulkSharedRead,
    /// Shared memory written by bulk and tensor copies, of every block that one is multicast to.
    BulkSharedWrite,
    /// Shared memory read by `wgmma` through descriptors.
    DescriptorRead,
}

impl Path {
    /// Every path, in the order of reports.
    pub const ALL: [Self; 21] = [
        Self::GlobalRead,
        Self::GlobalWrite,
        Self::SharedRead,
        Self::SharedWrite,
        Self::LocalRead,
        Self::LocalWrite,
        Self::ConstRead,
        Self::CopyGlobalRead,
        Self::CopySharedWrite,
        Self::CopySharedRead,
        Self::CopyGlobalWrite,
        Self::GlobalAtomic,
        Self::SharedAtomic,
        Self::RemoteRead,
        Self::RemoteWrite,
        Self::RemoteAtomic,
        Self::BulkGlobalRead,
        Self::BulkGlobalWrite,
        Self::BulkSharedRead,
        Self::BulkSharedWrite,
        Self::DescriptorRead,
    ];

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GlobalRead => "global read",
            Self::GlobalWrite => "global write",
            Self::SharedRead => "shared read",
            Self::SharedWrite => "shared write",
            Self::LocalRead => "local read",
            Self::LocalWrite => "local write",
            Self::ConstRead => "const read",
            Self::CopyGlobalRead => "copy: global read",
            Self::CopySharedWrite => "copy: shared write",
            Self::CopySharedRead => "copy: shared read",
            Self::CopyGlobalWrite => "copy: global write",
            Self::GlobalAtomic => "global atomic",
            Self::SharedAtomic => "shared atomic",
            Self::RemoteRead => "remote read",
            Self::RemoteWrite => "remote write",
            Self::RemoteAtomic => "remote atomic",
            Self::BulkGlobalRead => "bulk: global read",
            Self::BulkGlobalWrite => "bulk: global write",
            Self::BulkSharedRead => "bulk: shared read",
            Self::BulkSharedWrite => "bulk: shared write",
            Self::DescriptorRead => "descriptor read",
        }
    }
}

/// Events that neither their class nor their traffic tells apart, once per warp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Event {
    /// Waits for a phase of an `mbarrier`: `test_wait` and `try_wait`, however often they looked.
    MbarrierWait,
    /// Fences between ordinary and asynchronous accesses, `fence.proxy.async`.
    ProxyFence,
}

impl Event {
    /// Every event, in the order of reports.
    pub const ALL: [Self; 2] = [Self::MbarrierWait, Self::ProxyFence];

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MbarrierWait => "mbarrier wait",
            Self::ProxyFence => "proxy fence",
        }
    }
}

/// What a launch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    instructions: [Instructions; Class::ALL.len()],
    /// Memory traffic.
    pub traffic: BTreeMap<Path, Traffic>,
    /// Tensor-core instructions by shape and types, once per warp: `m16n8k16.f32.bf16.bf16.f32` of `mma.sync`, or of
    /// `wgmma`, where four warps share a product and each does a quarter of it, `wgmma.m64n32k16.f32.f16.f16 A in
    /// registers`.
    pub mma: BTreeMap<String, u64>,
    /// Events that happened.
    pub events: BTreeMap<Event, u64>,
}

/// Counts while a launch runs: each count has a fixed place.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    instructions: [Instructions; Class::ALL.len()],
    traffic: [Traffic; Path::ALL.len()],
    mma: Vec<(String, u64)>,
    /// Index of the shape that was counted last.
    last_mma: usize,
    events: [u64; Event::ALL.len()],
}

impl Tally {
    pub fn issue(&mut self, class: Class, mask: u32) {
        let count = &mut self.instructions[class as usize];
        count.warp += 1;
        // Most processors' least common denominator has no instruction that counts bits.
        count.lane += if mask == u32::MAX { 32 } else { u64::from(mask.count_ones()) };
    }

    pub fn traffic(&mut self, path: Path) -> &mut Traffic {
        &mut self.traffic[path as usize]
    }

    pub fn event(&mut self, event: Event) {
        self.events[event as usize] += 1;
    }

    pub fn mma(&mut self, shape: &str) {
        let is_this = |(known, _): &(String, u64)| known == shape;
        // Kernels have few shapes, and mostly use one of them many times in a row.
        if !self.mma.get(self.last_mma).is_some_and(is_this) {
            self.last_mma = self.mma.iter().position(is_this).unwrap_or_else(|| {
                self.mma.push((shape.into(), 0));
                self.mma.len() - 1
            });
        }
        if let Some((_, count)) = self.mma.get_mut(self.last_mma) {
            *count += 1;
        }
    }

    pub fn meter(self) -> Meter {
        let traffic = Path::ALL.into_iter().zip(self.traffic).filter(|(_, traffic)| traffic.accesses > 0);
        let events = Event::ALL.into_iter().zip(self.events).filter(|(_, count)| *count > 0);
        Meter {
            instructions: self.instructions,
            traffic: traffic.collect(),
            mma: self.mma.into_iter().collect(),
            events: events.collect(),
        }
    }
}

/// Operations of one warp in a tensor-core instruction, by its name in [`Meter::mma`].
fn operations(name: &str) -> u64 {
    let (shape, warps) = name.strip_prefix("wgmma.").map_or((name, 1), |rest| (rest, 4));
    let shape = shape.split('.').next().unwrap_or_default();
    // `m16n8k16`: the sizes are what is no letter.
    let sizes = shape.split(|c: char| !c.is_ascii_digit()).filter_map(|size| size.parse::<u64>().ok());
    2 * sizes.product::<u64>() / warps
}

impl Meter {
    /// Instructions of one class.
    #[must_use]
    pub fn instructions(&self, class: Class) -> Instructions {
        self.instructions[class as usize]
    }

    /// Instructions of all classes.
    #[must_use]
    pub fn total(&self) -> Instructions {
        self.instructions.iter().fold(Instructions::default(), |sum, count| Instructions {
            warp: sum.warp + count.warp,
            lane: sum.lane + count.lane,
        })
    }

    /// Operations of all tensor-core instructions: a multiplication and an addition for each element of D and each value
    /// of k, floating-point or not.
    #[must_use]
    pub fn tensor_operations(&self) -> u64 {
        self.mma.iter().map(|(name, count)| count * operations(name)).sum()
    }

    /// Adds another meter's counts.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.instructions.iter_mut().zip(&other.instructions) {
            sum.warp += count.warp;
            sum.lane += count.lane;
        }
        for (path, traffic) in &other.traffic {
            let sum = self.traffic.entry(*path).or_default();
            sum.accesses += traffic.accesses;
            sum.bytes += traffic.bytes;
            sum.sectors += traffic.sectors;
            sum.wavefronts += traffic.wavefronts;
            sum.conflicts += traffic.conflicts;
        }
        for (shape, count) in &other.mma {
            *self.mma.entry(shape.clone()).or_default() += count;
        }
        for (event, count) in &other.events {
            *self.events.entry(*event).or_default() += count;
        }
    }

    /// One JSON object, keys sorted.
    #[must_use]
    pub fn to_json(&self) -> String {
        let instructions = Class::ALL.iter().map(|class| {
            let count = self.instructions(*class);
            format!("\"{}\":{{\"warp\":{},\"lane\":{}}}", class.name(), count.warp, count.lane)
        });
        let traffic = self.traffic.iter().map(|(path, t)| {
            format!(
                "\"{}\":{{\"accesses\":{},\"bytes\":{},\"sectors\":{},\"wavefronts\":{},\"conflicts\":{}}}",
                path.name(),
                t.accesses,
                t.bytes,
                t.sectors,
                t.wavefronts,
                t.conflicts
            )
        });
        let mma = self.mma.iter().map(|(shape, count)| format!("\"{shape}\":{count}"));
        let events = self.events.iter().map(|(event, count)| format!("\"{}\":{count}", event.name()));
        let join = |parts: &mut dyn Iterator<Item = String>| parts.collect::<Vec<_>>().join(",");
        format!(
            "{{\"instructions\":{{{}}},\"traffic\":{{{}}},\"mma\":{{{}}},\"events\":{{{}}}}}",
            join(&mut instructions.into_iter()),
            join(&mut traffic.into_iter()),
            join(&mut mma.into_iter()),
            join(&mut events.into_iter())
        )
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<20} {:>14} {:>16}", "instructions", "per warp", "per lane")?;
        for class in Class::ALL {
            let count = self.instructions(class);
            if count.warp > 0 {
                writeln!(f, "{:<20} {:>14} {:>16}", class.name(), count.warp, count.lane)?;
            }
        }
        let total = self.total();
        writeln!(f, "{:<20} {:>14} {:>16}", "total", total.warp, total.lane)?;
        if !self.traffic.is_empty() {
            let heads = ["accesses", "bytes", "sectors", "wavefronts", "conflicts"];
            write!(f, "\n{:<20}", "traffic")?;
            heads.iter().try_for_each(|head| write!(f, " {head:>12}"))?;
            writeln!(f)?;
        }
        for (path, t) in &self.traffic {
            write!(f, "{:<20}", path.name())?;
            let counts = [t.accesses, t.bytes, t.sectors, t.wavefronts, t.conflicts];
            counts.iter().try_for_each(|count| write!(f, " {count:>12}"))?;
            writeln!(f)?;
        }
        if !self.mma.is_empty() {
            writeln!(f, "\n{:<40} {:>10}", "tensor-core product", "per warp")?;
        }
        self.mma.iter().try_for_each(|(shape, count)| writeln!(f, "{shape:<40} {count:>10}"))?;
        if !self.events.is_empty() {
            writeln!(f, "\n{:<40} {:>10}", "event", "per warp")?;
        }
        self.events.iter().try_for_each(|(event, count)| writeln!(f, "{:<40} {count:>10}", event.name()))
    }
}
