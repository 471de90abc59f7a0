//! The registers of one level of calls, for all lanes of a warp.
//!
//! They lie in two files by width, so that an instruction on 32 bits touches half as much memory as one on 64, and works
//! on twice as many lanes at once. A register is named by a number; a bit of it says which file it lies in.

use std::hash::{Hash, Hasher};
use std::mem::MaybeUninit;
use std::ops::Shr;

use super::lanes::{LANES, Lanes, Words};
use super::vectors::{Kernel, Vectors};
use crate::fault::Fault;
use crate::memory::grow;

/// Set in the numbers of registers of 64 bits.
const WIDE: usize = 1 << 31;

/// The number of register `index` of those with up to 32 bits, or of those with 64. Consecutive registers of one width
/// have consecutive numbers.
pub(crate) fn register_number(index: usize, is_wide: bool) -> usize {
    if is_wide { index | WIDE } else { index }
}

/// Where a register lies.
#[derive(Clone, Copy, Debug)]
enum Place {
    Narrow(usize),
    Wide(usize),
}

#[inline(always)]
fn place(register: usize) -> Place {
    if register & WIDE == 0 { Place::Narrow(register) } else { Place::Wide(register & !WIDE) }
}

/// Values of one width, one for each lane.
pub(crate) trait Word: Copy + Default + Send + Sync + Into<u64> + Shr<usize, Output = Self> + 'static {
    /// The lowest bits of a value.
    fn cut(value: u64) -> Self;

    /// A register's values, which are copied to `room` if the register has another width.
    fn view<'a>(
        registers: &'a RegisterFile,
        register: usize,
        room: &'a mut MaybeUninit<[Self; LANES]>,
    ) -> &'a [Self; LANES];

    /// Writes a register of the lanes of `mask`. Values are cut to its width, or extended by zeros.
    fn write(registers: &mut RegisterFile, register: usize, mask: u32, values: &[Self; LANES]);
}

/// The registers of one level of calls.
#[derive(Debug, Default)]
pub(crate) struct RegisterFile {
    narrow: Vec<Words>,
    wide: Vec<Lanes>,
}

impl RegisterFile {
    /// Bytes by which the files have to grow for a call that needs so many registers.
    pub fn missing(&self, narrow: usize, wide: usize) -> usize {
        narrow.saturating_sub(self.narrow.len()) * size_of::<Words>()
            + wide.saturating_sub(self.wide.len()) * size_of::<Lanes>()
    }

    /// Forgets all registers; the room stays.
    pub fn clear(&mut self) {
        self.narrow.clear();
        self.wide.clear();
    }

    /// Makes room for a call, if earlier ones left less.
    pub fn reserve(&mut self, narrow: usize, wide: usize) -> Result<(), Fault> {
        grow(&mut self.narrow, narrow, [0; LANES])?;
        grow(&mut self.wide, wide, [0; LANES])
    }

    /// Clears a register of the lanes of `mask`.
    pub fn zero(&mut self, register: usize, mask: u32) {
        match place(register) {
            Place::Narrow(index) => assign(&mut self.narrow[index], mask, &[0; LANES]),
            Place::Wide(index) => assign(&mut self.wide[index], mask, &[0; LANES]),
        }
    }

    /// Hashes a register's values, if it is there.
    pub fn hash_register(&self, register: usize, hasher: &mut impl Hasher) {
        match place(register) {
            Place::Narrow(index) => self.narrow.get(index).hash(hasher),
            Place::Wide(index) => self.wide.get(index).hash(hasher),
        }
    }

    /// A register's values, extended by zeros.
    #[inline]
    pub fn lanes(&self, register: usize) -> Lanes {
        match place(register) {
            Place::Narrow(index) => self.narrow[index].map(u64::from),
            Place::Wide(index) => self.wide[index],
        }
    }
}

/// Writing a register, as a loop over lanes.
pub(super) struct Write<'a, W> {
    pub registers: &'a mut RegisterFile,
    pub register: usize,
    pub mask: u32,
    pub values: &'a [W; LANES],
}

impl<W: Word> Kernel for Write<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vectors>(self) {
        W::write(self.registers, self.register, self.mask, self.values);
    }
}

/// Copies the values of the lanes of `mask`.
#[inline(always)]
fn assign<T: Copy>(target: &mut [T; LANES], mask: u32, values: &[T; LANES]) {
    if mask == u32::MAX {
        *target = *values;
        return;
    }
    // Without branches, so that the compiler makes vector instructions of it.
    for lane in 0..LANES {
        target[lane] = if mask >> lane & 1 == 1 { values[lane] } else { target[lane] };
    }
}

impl Word for u32 {
    #[inline(always)]
    fn cut(value: u64) -> Self {
        value as Self
    }

    #[inline(always)]
    fn view<'a>(registers: &'a RegisterFile, register: usize, room: &'a mut MaybeUninit<Words>) -> &'a Words {
        match place(register) {
            Place::Narrow(index) => &registers.narrow[index],
            Place::Wide(index) => room.write(registers.wide[index].map(|value| value as Self)),
        }
    }

    #[inline(always)]
    fn write(registers: &mut RegisterFile, register: usize, mask: u32, values: &Words) {
        match place(register) {
            Place::Narrow(index) => assign(&mut registers.narrow[index], mask, values),
            Place::Wide(index) => assign(&mut registers.wide[index], mask, &values.map(u64::from)),
        }
    }
}

impl Word for u64 {
    #[inline(always)]
    fn cut(value: u64) -> Self {
        value
    }

    #[inline(always)]
    fn view<'a>(registers: &'a RegisterFile, register: usize, room: &'a mut MaybeUninit<Lanes>) -> &'a Lanes {
        match place(register) {
            Place::Narrow(index) => room.write(registers.narrow[index].map(Self::from)),
            Place::Wide(index) => &registers.wide[index],
        }
    }

    #[inline(always)]
    fn write(registers: &mut RegisterFile, register: usize, mask: u32, values: &Lanes) {
        match place(register) {
            Place::Narrow(index) => assign(&mut registers.narrow[index], mask, &values.map(|value| value as u32)),
            Place::Wide(index) => assign(&mut registers.wide[index], mask, values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_or_extended_to_the_width_of_the_register_and_idle_lanes_keep_theirs() {
        let mut registers = RegisterFile::default();
        registers.reserve(2, 2).unwrap();
        let (narrow, wide) = (register_number(1, false), register_number(1, true));
        let values: Lanes = std::array::from_fn(|lane| 0x1_0000_0000 * (lane as u64 + 1) + lane as u64);
        u64::write(&mut registers, narrow, u32::MAX, &values);
        u64::write(&mut registers, wide, u32::MAX, &values);
        assert_eq!(registers.lanes(narrow), std::array::from_fn(|lane| lane as u64));
        assert_eq!(registers.lanes(wide), values);
        u32::write(&mut registers, narrow, 1 << 3, &[7; LANES]);
        u32::write(&mut registers, wide, !1, &[9; LANES]);
        let mut room = MaybeUninit::uninit();
        assert_eq!(u32::view(&registers, narrow, &mut room)[2..5], [2, 7, 4]);
        assert_eq!(registers.lanes(wide)[..2], [0x1_0000_0000, 9]);
        assert_eq!(u32::view(&registers, wide, &mut room)[..2], [0, 9]);
        assert_eq!(u64::view(&registers, narrow, &mut MaybeUninit::uninit())[3..5], [7, 4]);
        // Nothing else was touched.
        assert_eq!(registers.lanes(register_number(0, false)), [0; LANES]);
        assert_eq!(registers.lanes(register_number(0, true)), [0; LANES]);
    }

    #[test]
    fn room_is_counted_in_bytes_of_both_widths() {
        let mut registers = RegisterFile::default();
        assert_eq!(registers.missing(3, 2), 3 * 128 + 2 * 256);
        registers.reserve(3, 2).unwrap();
        assert_eq!((registers.missing(3, 2), registers.missing(2, 3)), (0, 256));
    }
}
