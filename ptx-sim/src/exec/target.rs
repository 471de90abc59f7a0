//! One lane's reads, writes and atomic updates, in every state space.

use super::context::Context;
use super::frame::{FRAME_LOCAL, FRAME_PARAMS};
use crate::ast::Space;
use crate::clocks::Access;
use crate::fault::{Fault, SpaceName};

/// A shared address names another block of the cluster by its rank plus 1 in the bits from here on; 0 is the own one.
const RANK_SHIFT: u32 = 24;

/// Most bytes of shared memory that a block can address.
pub(crate) const SHARED_SPAN: usize = 1 << RANK_SHIFT;

/// The rank of the block that a shared address names; `None` if it names none and so means the own block.
#[inline]
pub(crate) fn named_rank(address: u64) -> Option<usize> {
    usize::try_from(address >> RANK_SHIFT).unwrap_or(usize::MAX).checked_sub(1)
}

/// The shared address of the same place in the block of that rank.
pub(crate) fn address_in(rank: usize, address: u64) -> u64 {
    (rank as u64 + 1) << RANK_SHIFT | address & (SHARED_SPAN as u64 - 1)
}

/// The widest value that an atomic works on.
pub(super) type Wide = [u8; 16];

fn u32_of(bytes: Wide) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// A lane's access to memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub lane: usize,
    pub space: Space,
    pub address: u64,
    /// Whether it is ordered against other strong accesses (PTX ISA section 8.4).
    pub strong: bool,
}

impl Target {
    /// Who accesses, for the checker.
    pub fn access(self, context: &Context) -> Access {
        context.access(self.lane, self.strong)
    }

    /// Accesses are aligned to their size, vectors to that of the whole vector (PTX ISA section 6.4.1).
    pub fn aligned(self, action: &'static str, size: usize) -> Result<(), Fault> {
        if self.address.is_multiple_of(size as u64) {
            Ok(())
        } else {
            let (space, address) = (SpaceName(self.space), self.address);
            Err(Fault::Misaligned { action, space, address, size, alignment: size })
        }
    }

    /// Whether an access to global memory is of more than a word and must not tear.
    fn is_whole(self, size: usize) -> bool {
        self.strong && size > 4
    }

    /// Fills `out` from memory.
    pub fn read(self, context: &mut Context, out: &mut [u8]) -> Result<(), Fault> {
        context.lane = self.lane;
        self.aligned("read", out.len())?;
        match self.space {
            Space::Global => {
                let place = context.grid.memory.find("read", self.address, out.len())?;
                if self.is_whole(out.len()) {
                    place.read_whole(context.grid.memory, out);
                } else {
                    place.read(out);
                }
                if context.grid.checked && !place.is_written(out.len()) {
                    self.uninitialised(context, out.len());
                }
            }
            Space::Shared => {
                let access = self.access(context);
                let (rank, offset) = self.visit(context, "read", out.len())?;
                let (shared, clocks) = context.cluster.shared(rank);
                let found = shared.read(clocks, access, offset, out)?;
                self.find(context, found);
            }
            Space::Reg | Space::Const | Space::Param | Space::Local => {
                let (bytes, offset) = self.private(context);
                match bytes.get(offset..).and_then(|rest| rest.get(..out.len())) {
                    Some(bytes) => out.copy_from_slice(bytes),
                    None => return Err(self.outside("read", out.len(), bytes.len())),
                }
            }
        }
        Ok(())
    }

    /// Writes `bytes` to memory.
    pub fn write(self, context: &mut Context, bytes: &[u8]) -> Result<(), Fault> {
        context.lane = self.lane;
        self.aligned("write", bytes.len())?;
        match self.space {
            Space::Global => {
                let place = context.grid.memory.find("write", self.address, bytes.len())?;
                if context.cluster.is_watched() {
                    context.cluster.access(true, !place.holds(bytes));
                }
                if self.is_whole(bytes.len()) {
                    place.write_whole(context.grid.memory, bytes);
                } else {
                    place.write(bytes);
                }
            }
            Space::Shared => {
                let access = self.access(context);
                let (rank, offset) = self.visit(context, "write", bytes.len())?;
                self.note_change(context, rank, offset, bytes)?;
                let (shared, clocks) = context.cluster.shared(rank);
                let found = shared.write(clocks, access, offset, bytes)?;
                self.find(context, found);
            }
            Space::Reg | Space::Const => return Err(Fault::Trap("the constant bank cannot be written".into())),
            Space::Param if self.address < FRAME_PARAMS as u64 => {
                return Err(Fault::Trap("kernel parameters cannot be written".into()));
            }
            Space::Param | Space::Local => {
                let lane = self.lane;
                let (depth, offset) = self.frame();
                let memory = context.warp.frames.get_mut(depth).map(|frame| match self.space {
                    Space::Param => &mut frame.params[lane],
                    _ => &mut frame.local[lane],
                });
                let memory = memory.map_or(&mut [][..], |memory| memory.as_mut_slice());
                let len = memory.len();
                match memory.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len())) {
                    Some(target) => target.copy_from_slice(bytes),
                    None => return Err(self.outside("write", bytes.len(), len)),
                }
            }
        }
        Ok(())
    }

    /// Replaces `size` bytes by `f` of them, atomically; returns the old ones.
    pub fn update(self, context: &mut Context, size: usize, f: impl Fn(Wide) -> Wide) -> Result<Wide, Fault> {
        context.lane = self.lane;
        self.aligned("atomic", size)?;
        let mut old = [0; 16];
        match self.space {
            Space::Global => {
                let place = context.grid.memory.find("atomic", self.address, size)?;
                if context.grid.checked && !place.is_written(size) {
                    self.uninitialised(context, size);
                }
                if size <= 4 {
                    let word = place.update_word(size, |word| {
                        let mut wide = [0; 16];
                        wide[..4].copy_from_slice(&word.to_le_bytes());
                        u32_of(f(wide))
                    });
                    old[..4].copy_from_slice(&word.to_le_bytes());
                } else {
                    let _guard = context.grid.memory.hold(self.address);
                    place.read(&mut old[..size]);
                    place.write(&f(old)[..size]);
                }
                if context.cluster.is_watched() {
                    context.cluster.access(true, f(old)[..size] != old[..size]);
                }
            }
            Space::Shared => {
                let access = self.access(context);
                let (rank, offset) = self.visit(context, "atomic", size)?;
                let (shared, clocks) = context.cluster.shared(rank);
                let read = shared.read(clocks, access, offset, &mut old[..size])?;
                let new = f(old);
                let written = shared.write(clocks, access, offset, &new[..size])?;
                if context.cluster.is_watched() {
                    context.cluster.access(false, new[..size] != old[..size]);
                }
                self.find(context, read.or(written));
            }
            _ => return Err(Fault::Trap(format!("an atomic on {} memory", SpaceName(self.space)))),
        }
        Ok(old)
    }

    /// While the warps are watched, notes whether a write to shared memory changes it.
    fn note_change(self, context: &mut Context, rank: usize, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        if context.cluster.is_watched() {
            let mut old = [0; 32];
            let old = &mut old[..bytes.len()];
            context.cluster.blocks[rank].shared.peek(offset, old)?;
            context.cluster.access(false, old != bytes);
        }
        Ok(())
    }

    /// Notes what the checker said of this access.
    pub fn find(self, context: &mut Context, found: Option<Fault>) {
        if let Some(fault) = found {
            context.find(fault, self.lane);
        }
    }

    /// Notes a read of `size` bytes that nothing has written.
    pub fn uninitialised(self, context: &mut Context, size: usize) {
        context.find(Fault::Uninitialised { space: SpaceName(self.space), address: self.address, size }, self.lane);
    }

    /// The block that a shared address lies in, which must not have exited, and the offset in its memory.
    pub fn block(self, context: &Context, action: &'static str, size: usize) -> Result<(usize, u64), Fault> {
        let offset = self.address & (SHARED_SPAN as u64 - 1);
        match named_rank(self.address) {
            None => Ok((context.rank, offset)),
            Some(rank) if rank < context.cluster.blocks.len() => {
                context.cluster.only_open(rank, action)?;
                Ok((rank, offset))
            }
            _ => Err(self.outside(action, size, context.cluster.blocks[context.rank].shared.len())),
        }
    }

    /// The same for an access that is performed at once: another block must not exit before it.
    pub fn visit(self, context: &mut Context, action: &'static str, size: usize) -> Result<(usize, u64), Fault> {
        let (rank, offset) = self.block(context, action, size)?;
        if rank != context.rank && context.grid.checked {
            let access = self.access(context);
            context.cluster.remember_visit(rank, action, access.actor(), access);
        }
        Ok((rank, offset))
    }

    /// The read-only or private memory of the address, and the offset there.
    fn private<'a>(self, context: &'a Context) -> (&'a [u8], usize) {
        let (depth, offset) = self.frame();
        let frame = context.warp.frames.get(depth);
        match self.space {
            Space::Local => (frame.map_or(&[], |frame| frame.local[self.lane].as_slice()), offset),
            Space::Param if self.address < FRAME_PARAMS as u64 => (context.grid.params, self.address as usize),
            Space::Param => (frame.map_or(&[], |frame| frame.params[self.lane].as_slice()), offset),
            _ => (context.grid.constants, self.address as usize),
        }
    }

    /// The level of calls that a local or parameter address belongs to, and the offset in its memory.
    fn frame(self) -> (usize, usize) {
        let address = self.address as usize;
        match self.space {
            Space::Param => ((address / FRAME_PARAMS).wrapping_sub(1), address % FRAME_PARAMS),
            _ => (address / FRAME_LOCAL, address % FRAME_LOCAL),
        }
    }

    fn outside(self, action: &'static str, size: usize, len: usize) -> Fault {
        let why = match self.space {
            Space::Shared => format!("the block has {len} bytes of shared memory"),
            Space::Local => format!("the call has {len} bytes of local memory"),
            Space::Param => format!("there are {len} bytes of parameters"),
            _ => format!("the constant bank has {len} bytes"),
        };
        Fault::OutOfBounds { action, space: SpaceName(self.space), address: self.address, size, why }
    }
}
