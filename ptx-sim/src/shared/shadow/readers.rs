//! Reads of several actors of one byte since its last write, one mark for each.

use super::Mark;
use crate::clocks::is_engine;

/// The last reads of a byte.
#[derive(Clone, Debug, Default)]
struct Row {
    /// By warp; none where the clock is 0.
    warps: Vec<Mark>,
    /// Those of engines, of which there may be many that have not read it: ascending.
    engines: Vec<Mark>,
}

impl Row {
    /// Remembers an actor's last read, among those of so many warps. The result is whether an engine is new here.
    #[inline]
    fn set(&mut self, mark: Mark, warps: usize) -> bool {
        let actor = mark.actor();
        if is_engine(actor) {
            let found = self.engines.binary_search_by_key(&actor, Mark::actor);
            match found {
                Ok(at) => self.engines[at] = mark,
                Err(at) => self.engines.insert(at, mark),
            }
            return found.is_err();
        }
        if self.warps.len() <= actor {
            self.warps.resize(warps, Mark::default());
        }
        self.warps[actor] = mark;
        false
    }
}

/// The rows of all bytes that several actors have read. They have numbers from 1 on.
#[derive(Debug, Default)]
pub(super) struct Readers {
    rows: Vec<Row>,
    /// Numbers of rows that no byte uses. They have no marks of engines.
    spare: Vec<u32>,
    /// Marks of engines in all rows together.
    engines: usize,
}

impl Readers {
    /// No byte uses a row.
    pub fn renew(&mut self) {
        if self.engines > 0 {
            self.rows.iter_mut().for_each(|row| row.engines = Vec::new());
            self.engines = 0;
        }
        self.spare.clear();
        self.spare.extend(1..=self.rows.len() as u32);
    }

    /// A row that is free, empty.
    pub fn take(&mut self) -> u32 {
        let row = self.spare.pop().unwrap_or_else(|| {
            self.rows.push(Row::default());
            self.rows.len() as u32
        });
        self.rows[row as usize - 1].warps.clear();
        row
    }

    pub fn give_back(&mut self, row: u32) {
        if row != 0 {
            // Its room is as long as there were engines, so that it is no room to keep.
            let engines = std::mem::take(&mut self.rows[row as usize - 1].engines);
            self.engines -= engines.len();
            self.spare.push(row);
        }
    }

    /// Remembers an actor's last read, among those of so many warps, in a row.
    #[inline]
    pub fn set(&mut self, row: u32, mark: Mark, warps: usize) {
        let new = self.rows[row as usize - 1].set(mark, warps);
        self.engines += usize::from(new);
    }

    /// The reads of warps and those of engines.
    #[inline]
    pub fn row(&self, row: u32) -> (&[Mark], &[Mark]) {
        row.checked_sub(1).map_or((&[], &[]), |index| {
            let Row { warps, engines } = &self.rows[index as usize];
            (warps, engines)
        })
    }

    /// A row like another one.
    pub fn copy(&mut self, row: u32) -> u32 {
        if row == 0 {
            return 0;
        }
        let copy = self.take();
        let marks = self.rows[row as usize - 1].clone();
        self.engines += marks.engines.len();
        self.rows[copy as usize - 1] = marks;
        copy
    }

    /// Bytes of this computer's memory that marks of engines take.
    pub fn held_bytes(&self) -> usize {
        self.engines * size_of::<Mark>()
    }
}
