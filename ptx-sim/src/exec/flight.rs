//! Asynchronous operations of a cluster that have been issued and not yet performed: bulk and tensor copies,
//! reductions, `st.async`, `red.async`.
//!
//! Hardware may perform them at any time. Here they are performed as late as possible, when a thread waits for what
//! they complete on: a kernel that does not wait finds old bytes, and the checker tells it. Their source is read when
//! they are issued; the checker sees to it that nobody changes it until then.

use std::sync::Arc;

use super::cluster::Cluster;
use crate::clocks::{Access, thread_of};
use crate::fault::Fault;
use crate::memory::Memory;

/// Changes old elements by as many new ones.
type Change = dyn Fn(&mut [u8], &[u8]) + Send + Sync;

/// Changes the old bytes of a place by the bytes that come: a reduction.
#[derive(Clone)]
pub(crate) struct Merge {
    /// Bytes of an element, a power of two up to 8: each changes atomically.
    pub element: usize,
    pub apply: Arc<Change>,
}

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Shared { rank: usize, offset: u64 },
    Global { address: u64 },
}

/// An `mbarrier` that is told of bytes that have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signal {
    pub rank: usize,
    pub offset: u64,
    pub bytes: u32,
}

/// Bytes on their way to one place.
pub(crate) struct Delivery {
    pub place: Place,
    pub bytes: Vec<u8>,
    /// How they change what is there; `None` if they replace it.
    pub merge: Option<Merge>,
}

/// An operation in flight.
pub(crate) struct Flight {
    /// The thread that has issued it.
    pub access: Access,
    /// Shared memory that it reads: rank, offset, bytes. Given back by [`Cluster::release_sources`].
    pub sources: Vec<(usize, u64, usize)>,
    pub deliveries: Vec<Delivery>,
    /// Who is told when it has been performed; `None` if it completes in a bulk group.
    pub signal: Option<Signal>,
}

/// What is on its way to one `mbarrier`.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// The numbers of the operations, ascending.
    numbers: Vec<u64>,
    /// Bytes that they will count there.
    bytes: u64,
}

/// Bytes of this computer's memory that an operation takes beside its own: in the lists that it stands in.
const LISTED_BYTES: usize = 64;

impl std::fmt::Debug for Flight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Flight of PTX line {}", self.access.line)
    }
}

impl Flight {
    /// Bytes that it takes of this computer's memory.
    fn held_bytes(&self) -> usize {
        let delivered = self.deliveries.iter().map(|delivery| size_of::<Delivery>() + delivery.bytes.len());
        size_of::<Self>() + LISTED_BYTES + delivered.sum::<usize>()
    }
}

impl Cluster {
    /// Puts an operation on its way, and returns its number.
    ///
    /// # Errors
    /// If more is in flight than can be held, or than the `mbarrier` that is told can count.
    pub fn depart(&mut self, flight: Flight) -> Result<u64, Fault> {
        self.held.take(flight.held_bytes())?;
        let number = self.departed;
        self.departed += 1;
        if let Some(Signal { rank, offset, bytes }) = flight.signal {
            let bound = self.bound.entry((rank, offset)).or_default();
            bound.numbers.push(number);
            bound.bytes += u64::from(bytes);
            if let Some(object) = self.blocks[rank].mbarriers.get(&offset) {
                object.check_coming(bound.bytes)?;
            }
        }
        self.flights.insert(number, flight);
        Ok(number)
    }

    /// Performs the operations that an `mbarrier` is told of, and the copies of `cp.async` that arrivals there follow.
    pub fn land_for(&mut self, memory: &Memory, rank: usize, offset: u64) -> Result<(), Fault> {
        self.land_copies_for(rank, offset)?;
        let Some(bound) = self.bound.remove(&(rank, offset)) else { return Ok(()) };
        bound.numbers.into_iter().try_for_each(|number| self.land(memory, number))
    }

    /// Performs everything that is still in flight, when all threads have exited.
    pub fn land_all(&mut self, memory: &Memory) -> Result<(), Fault> {
        self.bound.clear();
        let all: Vec<u64> = self.flights.keys().copied().collect();
        all.into_iter().try_for_each(|number| self.land(memory, number))
    }

    /// An operation has read its source, which may be written from here on by those who know of it: the thread that
    /// waits for its bulk group, or who has seen the phase end of the `mbarrier` that is told.
    pub fn release_sources(&mut self, number: u64) -> Result<(), Fault> {
        let Some(flight) = self.flights.get_mut(&number) else { return Ok(()) };
        let (access, signal, sources) = (flight.access, flight.signal, std::mem::take(&mut flight.sources));
        let engine = self.engine(signal, access.line)?;
        let access = Access { thread: engine.map_or(access.thread, thread_of), ..access };
        for (rank, offset, len) in sources {
            let (shared, clocks) = self.shared(rank);
            shared.finish_reading(clocks, access, offset, len)?;
            let remembered = shared.engine_bytes();
            let before = std::mem::replace(&mut self.blocks[rank].remembered, remembered);
            self.held.change(before, remembered)?;
        }
        Ok(())
    }

    /// Performs an operation, if it is still in flight. It is in no list any more of what its `mbarrier` is told of.
    pub fn land(&mut self, memory: &Memory, number: u64) -> Result<(), Fault> {
        self.release_sources(number)?;
        let Some(flight) = self.flights.remove(&number) else { return Ok(()) };
        self.noticed.stirred = true;
        self.held.give_back(flight.held_bytes());
        let engine = self.engine(flight.signal, flight.access.line)?;
        for delivery in &flight.deliveries {
            self.deliver(memory, &flight.access, engine, delivery)?;
        }
        if let Some(signal) = flight.signal {
            let (block, clocks) = self.block(signal.rank);
            if let Some(mbarrier) = block.mbarriers.get_mut(&signal.offset) {
                if let Some(engine) = engine {
                    mbarrier.release(engine, clocks);
                }
                mbarrier.complete(signal.bytes)?;
            }
            self.weigh((signal.rank, signal.offset))?;
        }
        Ok(())
    }

    /// The engine of the `mbarrier` that an operation of a PTX line completes on, if it completes on one and the
    /// checker asks for it.
    fn engine(&mut self, signal: Option<Signal>, line: u32) -> Result<Option<usize>, Fault> {
        let Some(Signal { rank, offset, .. }) = signal else { return Ok(None) };
        match self.blocks[rank].mbarriers.get(&offset) {
            Some(mbarrier) if mbarrier.engine.is_some() || !self.checked => return Ok(mbarrier.engine),
            Some(_) => {}
            None => {
                let why = format!("the copy of PTX line {line} completes on {offset:#x}, where there is none");
                return Err(Fault::Mbarrier(why));
            }
        }
        let engine = Some(self.new_engine()?);
        if let Some(mbarrier) = self.blocks[rank].mbarriers.get_mut(&offset) {
            mbarrier.engine = engine;
        }
        Ok(engine)
    }

    fn deliver(
        &mut self,
        memory: &Memory,
        access: &Access,
        engine: Option<usize>,
        delivery: &Delivery,
    ) -> Result<(), Fault> {
        match delivery.place {
            Place::Shared { rank, offset } => {
                // What the engine has written is known to those who have seen its `mbarrier`'s phase end.
                let issuer = access.thread;
                let thread = engine.map_or(issuer, thread_of);
                let access = Access { thread, ..*access };
                if let Some(engine) = engine {
                    self.remember_visit(rank, "asynchronous operation", engine, Access { thread: issuer, ..access });
                }
                let (shared, clocks) = self.shared(rank);
                match &delivery.merge {
                    None => shared.finish_copy(clocks, access, offset, &delivery.bytes),
                    Some(merge) => {
                        let mut bytes = vec![0; delivery.bytes.len()];
                        shared.peek(offset, &mut bytes)?;
                        (merge.apply)(&mut bytes, &delivery.bytes);
                        shared.finish_reduction(clocks, access, offset, &bytes)
                    }
                }
            }
            Place::Global { address } => match &delivery.merge {
                None => memory.write(address, &delivery.bytes),
                Some(merge) => memory.merge(address, &delivery.bytes, merge.element, &*merge.apply),
            },
        }
    }
}
