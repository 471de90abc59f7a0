//! The `mbarrier` object (PTX ISA section 9.7.13.15): counts arrivals and bytes, and completes phase after phase.
//!
//! It lies in shared memory as 8 opaque bytes. What it counts is kept here, by its offset in the block's memory; the
//! bytes themselves say nothing.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::cluster::Cluster;
use crate::clocks::{Clocks, Knowledge, actor_of};
use crate::fault::Fault;

/// Greatest number of arrivals of a phase, and of bytes that may be pending in either direction: 2^20 - 1.
pub(crate) const GREATEST_COUNT: u32 = (1 << 20) - 1;

/// Bytes of an object, and their alignment.
pub(crate) const MBARRIER_BYTES: usize = 8;

/// An initialised object.
#[derive(Debug)]
pub(crate) struct Mbarrier {
    /// Completed phases: the number of the current one.
    pub phase: u64,
    /// Arrivals that complete a phase, from the next one on.
    pub expected: u32,
    /// Arrivals that the current phase still waits for.
    pub pending: u32,
    /// Bytes that were announced to the current phase.
    announced: i64,
    /// Bytes of the current phase that have come.
    received: i64,
    /// What those know that have arrived in the current phase.
    joint: Knowledge,
    /// What happened before the last completed phase's end.
    done: Knowledge,
    /// The actor on whose behalf copies that complete here write, if the checker has seen one.
    pub engine: Option<usize>,
    /// The thread that has initialised it, and where.
    pub thread: u32,
    /// How many objects that thread's warp has initialised with it, for the checker.
    born: u32,
    /// PTX line of the initialisation.
    pub line: u32,
    /// Actors with lanes that wait for the current phase, with the PTX line of the wait.
    pub blocked: BTreeMap<usize, u32>,
    /// What the threads that have used it have seen of it.
    users: HashMap<u32, User>,
    /// Bytes of this computer's memory that are known to be held by it.
    held: usize,
}

/// What a thread has seen of an object.
#[derive(Clone, Copy, Debug, Default)]
struct User {
    /// Completed phases when it last saw one end.
    seen: u64,
    /// The phase that it has arrived in after that, plus 1; 0 if none.
    arrived: u64,
}

/// A state as `mbarrier.arrive` returns it. The ISA leaves its bits open; these say of which object it is and of which
/// phase, so that a state used for something else is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State(pub u64);

/// Bits of a state, from the lowest: arrivals pending before the arrival, whether that was `.noComplete`, the object's
/// offset in units of its size, and the phase modulo 2^22.
const PENDING_BITS: u32 = 20;
const OFFSET_SHIFT: u32 = PENDING_BITS + 1;
const PHASE_SHIFT: u32 = OFFSET_SHIFT + 21;
const PHASES: u64 = 1 << (64 - PHASE_SHIFT);

impl State {
    /// Arrivals that were pending, if the state is of an arrival with `.noComplete`.
    pub fn pending_count(self) -> Option<u64> {
        (self.0 >> PENDING_BITS & 1 == 1).then_some(self.0 & ((1 << PENDING_BITS) - 1))
    }

    fn offset(self) -> u64 {
        (self.0 >> OFFSET_SHIFT & ((1 << (PHASE_SHIFT - OFFSET_SHIFT)) - 1)) * MBARRIER_BYTES as u64
    }
}

impl fmt::Display for Mbarrier {
    /// What the current phase lacks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} arrivals are missing", self.pending, self.expected.max(self.pending))?;
        if (self.announced, self.received) != (0, 0) {
            write!(f, ", and of {} expected bytes {} have come", self.announced, self.received)?;
        }
        Ok(())
    }
}

impl Mbarrier {
    /// An object whose phases take `count` arrivals, between 1 and [`GREATEST_COUNT`], initialised by a thread, as the
    /// object number `born` of its warp.
    pub fn new(count: u32, thread: u32, born: u32, line: u32) -> Result<Self, Fault> {
        if !(1..=GREATEST_COUNT).contains(&count) {
            return Err(Fault::Mbarrier(format!("a count of {count}, which is not between 1 and {GREATEST_COUNT}")));
        }
        Ok(Self {
            phase: 0,
            expected: count,
            pending: count,
            announced: 0,
            received: 0,
            joint: Knowledge::default(),
            done: Knowledge::default(),
            engine: None,
            thread,
            born,
            line,
            blocked: BTreeMap::new(),
            users: HashMap::new(),
            held: 0,
        })
    }

    /// Bytes of this computer's memory that it takes.
    fn held_bytes(&self) -> usize {
        let users = self.users.capacity() * (size_of::<(u32, User)>() + 1);
        size_of::<Self>() + users + self.joint.held_bytes() + self.done.held_bytes()
    }

    /// Bytes that the current phase still waits for; negative if more have come than were announced.
    pub fn pending_bytes(&self) -> i64 {
        self.announced - self.received
    }

    /// What `actor` has done so far is before the end of the current phase.
    pub fn release(&mut self, actor: usize, clocks: &mut Clocks) {
        clocks.release(actor, &mut self.joint);
    }

    /// What is part of `knowledge` is before the end of the current phase.
    pub fn learn(&mut self, knowledge: &Knowledge) {
        self.joint.join(knowledge);
    }

    /// `count` arrivals.
    pub fn arrive(&mut self, count: u32) -> Result<(), Fault> {
        let (pending, phase) = (self.pending, self.phase);
        if !(1..=GREATEST_COUNT).contains(&count) {
            return Err(Fault::Mbarrier(format!("a count of {count}, which is not between 1 and {GREATEST_COUNT}")));
        }
        if count > pending {
            let what = if count == 1 { "an arrival" } else { &format!("{count} arrivals") };
            return Err(Fault::Mbarrier(format!("{what} in phase {phase}, which waits for {pending} more")));
        }
        self.pending -= count;
        self.advance();
        Ok(())
    }

    /// Whether `count` arrivals end the current phase.
    pub fn would_end(&self, count: u32) -> bool {
        self.pending == count && self.pending_bytes() == 0
    }

    /// From the next phase on, `count` arrivals fewer complete one. One has to be left: an object expects at least one
    /// arrival (PTX ISA section 9.7.13.15.2).
    pub fn expect_fewer(&mut self, count: u32) -> Result<(), Fault> {
        match self.expected.checked_sub(count) {
            Some(left @ 1..) => self.expected = left,
            _ => {
                let (expected, what) = (self.expected, if count == 1 { "arrival drops" } else { "arrivals drop" });
                let why = format!("{count} {what} out of phases of {expected}, and none is left for the next phase");
                return Err(Fault::Mbarrier(why));
            }
        }
        Ok(())
    }

    /// One more arrival ends the current phase, and only it.
    pub fn expect_another(&mut self) -> Result<(), Fault> {
        if self.pending == GREATEST_COUNT {
            return Err(Fault::Mbarrier(format!("more than {GREATEST_COUNT} pending arrivals")));
        }
        self.pending += 1;
        Ok(())
    }

    /// Announces `bytes` more of the current phase. If they were all that it lacked, because they have come before, that
    /// ends it.
    pub fn expect(&mut self, bytes: u32) -> Result<(), Fault> {
        self.announced += i64::from(bytes);
        self.check_bytes()?;
        self.advance();
        Ok(())
    }

    /// A fault if its count of bytes gets out of range (PTX ISA section 9.7.13.15.2) when all those have come that are
    /// on their way: they may come before more are announced.
    pub fn check_coming(&self, bytes: u64) -> Result<(), Fault> {
        let pending = self.pending_bytes();
        let least = pending.saturating_sub_unsigned(bytes);
        if least < -i64::from(GREATEST_COUNT) {
            return Err(Fault::Mbarrier(format!(
                "{bytes} bytes are on their way to an object that waits for {pending}: when they have come, its \
                 tx-count is {least}, and it must not be less than -{GREATEST_COUNT}"
            )));
        }
        Ok(())
    }

    /// `bytes` have come, or count as if they had.
    pub fn complete(&mut self, bytes: u32) -> Result<(), Fault> {
        self.received += i64::from(bytes);
        self.check_bytes()?;
        self.advance();
        Ok(())
    }

    fn check_bytes(&self) -> Result<(), Fault> {
        let sum = self.pending_bytes();
        if sum.abs() > i64::from(GREATEST_COUNT) {
            return Err(Fault::Mbarrier(format!("{sum} pending bytes, more than {GREATEST_COUNT}")));
        }
        Ok(())
    }

    /// Ends the phase if nothing is missing.
    fn advance(&mut self) {
        if self.pending == 0 && self.pending_bytes() == 0 {
            self.phase += 1;
            self.pending = self.expected;
            (self.announced, self.received) = (0, 0);
            self.done = std::mem::take(&mut self.joint);
        }
    }

    /// Whether the last phase of the parity, the current one or the one before it, has ended.
    pub fn parity_has_ended(&self, parity: u64) -> bool {
        self.phase & 1 != parity & 1
    }

    /// The state of the object at `offset` before an arrival, of one with `.noComplete` or of another.
    pub fn state(&self, offset: u64, no_complete: bool) -> State {
        let (offset, phase) = (offset / MBARRIER_BYTES as u64, self.phase % PHASES);
        let count = u64::from(self.pending) | u64::from(no_complete) << PENDING_BITS;
        State(count | offset << OFFSET_SHIFT | phase << PHASE_SHIFT)
    }

    /// Whether the phase of a state has ended. It must be the current phase or the one before it, of this object.
    pub fn state_has_ended(&self, offset: u64, state: State) -> Result<bool, Fault> {
        let misused = |why: String| Err(Fault::Mbarrier(format!("the state {:#x} {why}", state.0)));
        if state.0 & ((1 << PENDING_BITS) - 1) == 0 {
            return misused("is none that an arrival has returned".into());
        }
        if state.offset() != offset {
            return misused(format!("is of the object at {:#x}, not of that at {offset:#x}", state.offset()));
        }
        match (self.phase % PHASES).wrapping_sub(state.0 >> PHASE_SHIFT) % PHASES {
            0 => Ok(false),
            1 => Ok(true),
            back if back <= PHASES / 2 => misused(format!(
                "is of phase {}, but the current one is {}",
                self.phase - back.min(self.phase),
                self.phase
            )),
            _ => misused(format!("is of a phase that has not begun: the current one is {}", self.phase)),
        }
    }

    /// What happened before the end of the last completed phase.
    pub fn done(&self) -> &Knowledge {
        &self.done
    }

    /// How many phases have ended since a thread last saw one end.
    pub fn unseen(&self, thread: u32) -> u64 {
        self.phase - self.users.get(&thread).map_or(0, |user| user.seen)
    }

    /// A thread arrives in the current phase.
    pub fn note_arrival(&mut self, thread: u32) {
        let user = self.users.entry(thread).or_default();
        if user.seen == self.phase {
            user.arrived = self.phase + 1;
        }
    }

    /// A thread finds by its parity that the phase before the current one has ended. The result is whether it has known
    /// that before it arrived in the current phase, so that it ought to wait for that one.
    pub fn note_wait(&mut self, thread: u32) -> bool {
        let user = self.users.entry(thread).or_default();
        let stale = user.seen == self.phase && user.arrived == self.phase + 1;
        user.seen = self.phase;
        stale
    }
}

impl Cluster {
    /// The object at a place is no more. Its engine may be another object's one day.
    pub fn remove_object(&mut self, (rank, offset): (usize, u64)) {
        let Some(object) = self.blocks[rank].mbarriers.remove(&offset) else { return };
        self.held.give_back(object.held);
        if let Some(engine) = object.engine {
            self.clocks.retire(engine);
        }
    }

    /// Looks what the object at a place takes of this computer's memory, if there is one.
    ///
    /// # Errors
    /// If it is too much.
    pub fn weigh(&mut self, (rank, offset): (usize, u64)) -> Result<(), Fault> {
        let Some(object) = self.blocks[rank].mbarriers.get_mut(&offset) else { return Ok(()) };
        let bytes = object.held_bytes();
        let before = std::mem::replace(&mut object.held, bytes);
        self.held.change(before, bytes)
    }

    /// What is wrong if a warp uses the object at a place without knowing of its initialisation.
    pub fn unordered_use(&self, actor: usize, rank: usize, offset: u64) -> Option<Fault> {
        let object = self.blocks[rank].mbarriers.get(&offset)?;
        if self.clocks.knows_objects(actor, actor_of(object.thread), object.born) {
            return None;
        }
        let (other, line) = (self.clocks.name(actor, object.thread), object.line);
        Some(Fault::Mbarrier(format!(
            "the object at {offset:#x} is used and initialised (by {other}, PTX line {line}) without a barrier between"
        )))
    }
}
