//! The control field of an instruction: what the compiler tells the scheduler.
//!
//! From Volta on an instruction is 128 bits wide, and its bits 105..126 are no operands. Bit by bit, from 105:
//!
//! | bits | |
//! |---|---|
//! | 4 | stall: cycles until the warp may issue its next instruction |
//! | 1 | yield: 0 if the scheduler should prefer another warp now |
//! | 3 | the scoreboard that is released when the result is written; 7 for none |
//! | 3 | the scoreboard that is released when the operands are read; 7 for none |
//! | 6 | the scoreboards that have to be free before it is issued |
//! | 4 | operands that stay in the register file's cache for the next instruction |
//!
//! NVIDIA documents none of this. The layout is that of public reverse engineering, and the tests hold it against words
//! that were decoded by hand.

/// Scoreboards of a warp.
pub const SCOREBOARDS: usize = 6;

/// The number that stands for no scoreboard.
const NONE: u64 = 7;

/// What the compiler tells the scheduler of an instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Cycles until the warp's next instruction may be issued.
    pub stall: u8,
    /// Whether another warp should be preferred after it.
    pub yields: bool,
    /// The scoreboard that its result releases.
    pub write: Option<u8>,
    /// The scoreboard that reading its operands releases.
    pub read: Option<u8>,
    /// Scoreboards that it waits for, one bit each.
    pub wait: u8,
    /// Operands that the register cache keeps, one bit each.
    pub reuse: u8,
}

impl Control {
    /// The control field in the upper 64 bits of an instruction.
    #[must_use]
    pub fn decode(upper: u64) -> Self {
        let field = |bit: u32, width: u32| upper >> (bit - 64) & ((1 << width) - 1);
        let scoreboard = |bit: u32| Some(field(bit, 3)).filter(|&number| number != NONE).map(|number| number as u8);
        Self {
            stall: field(105, 4) as u8,
            yields: field(109, 1) == 0,
            write: scoreboard(110),
            read: scoreboard(113),
            wait: field(116, 6) as u8,
            reuse: field(122, 4) as u8,
        }
    }

    /// The scoreboards that it waits for.
    pub fn waits(self) -> impl Iterator<Item = usize> {
        (0..SCOREBOARDS).filter(move |board| self.wait >> board & 1 == 1)
    }
}
