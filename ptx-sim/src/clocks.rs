//! Who knows of whose accesses: the vector clocks of a cluster.
//!
//! An *actor* is a warp, numbered through all blocks of the cluster, or an *engine*: the asynchronous operations that
//! complete on one mechanism, for instance on one `mbarrier`, or the `wgmma` of one warpgroup. Every actor counts its
//! own time, and knows each other actor's up to some count; where actors meet, at a barrier or by an arrival that
//! another waits for, they join what they know. An access happened before another if the later actor knows the earlier
//! one's count.
//!
//! Order alone is not enough between the proxies through which memory is accessed (PTX ISA section 8.6): what a warp
//! has written by ordinary stores reaches asynchronous copies and `wgmma` only behind a `fence.proxy.async`. So an
//! actor keeps a second count of each other: up to where it knows the other's accesses *by a path with such a fence*.
//!
//! Initialisations of `mbarrier`s have counts of their own, by warp: a `fence.mbarrier_init` releases them and no
//! access. A warp makes one after the other, so that who knows of one knows of those before it.

mod engines;
mod knowledge;

use std::collections::HashMap;

use crate::fault::Other;
use engines::Engines;
use knowledge::Counts;
pub(crate) use knowledge::Knowledge;

/// Lanes of a warp: threads are numbered through the actors.
pub(crate) const LANES: usize = 32;

/// The number of the first engine: greater than that of any warp, of which a cluster has 512 at most.
pub(crate) const FIRST_ENGINE: usize = 1 << 16;

/// Whether the actor is no warp.
pub(crate) fn is_engine(actor: usize) -> bool {
    actor >= FIRST_ENGINE
}

/// The actor that a thread belongs to.
pub(crate) fn actor_of(thread: u32) -> usize {
    thread as usize / LANES
}

/// The first thread of an actor, which stands for all of an engine.
pub(crate) fn thread_of(actor: usize) -> u32 {
    (actor * LANES) as u32
}

/// Who accesses, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// The actor's number times 32, plus the lane.
    pub thread: u32,
    /// PTX line.
    pub line: u32,
    /// Atomics, and `.volatile`, `.relaxed`, `.acquire`, `.release` accesses: they do not race with each other.
    pub strong: bool,
    /// Whether it goes through the asynchronous proxy.
    pub asynchronous: bool,
}

impl Access {
    /// Who accesses.
    pub fn actor(self) -> usize {
        actor_of(self.thread)
    }
}

/// The threads that a fence or an operation orders accesses for (PTX ISA section 8.5). Wider scopes are as the
/// cluster's: nobody else sees shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Block,
    Cluster,
}

/// What a warp's fences order. An operation that is `.relaxed` orders nothing by itself; with a fence before it it
/// releases what the fence has seen, and with a fence behind it it acquires (PTX ISA section 8.8).
#[derive(Debug, Default)]
struct Fences {
    /// What was known at the last releasing fence of any scope.
    in_block: Knowledge,
    /// The same of a fence of the cluster's scope.
    in_cluster: Knowledge,
    /// What relaxed operations have read, for the next acquiring fence.
    read: Knowledge,
}

/// The clocks of all actors of a cluster.
#[derive(Debug)]
pub(crate) struct Clocks {
    /// What each warp knows; its own time is what it knows of itself.
    knowledge: Vec<Knowledge>,
    /// Engines know of nothing but themselves.
    engines: Engines,
    /// Synchronisations of each warp's lanes.
    epochs: Vec<u32>,
    /// Warps of a block.
    warps: usize,
    /// What fences of warps order.
    fences: HashMap<usize, Fences>,
    /// What single threads know behind proxy fences of their own, which the rest of the warp did not execute.
    proxy_fences: HashMap<u32, Counts>,
    /// The engines that are a warpgroup's `wgmma`.
    products: Vec<usize>,
}

impl Clocks {
    /// The clocks of so many blocks, of `warps` warps each.
    pub fn new(blocks: usize, warps: usize) -> Self {
        let count = blocks * warps;
        let knowing_itself = |warp| {
            let mut knowledge = Knowledge::default();
            knowledge.seen.raise(warp, 1);
            knowledge
        };
        Self {
            knowledge: (0..count).map(knowing_itself).collect(),
            engines: Engines::default(),
            epochs: vec![1; count],
            warps,
            fences: HashMap::new(),
            proxy_fences: HashMap::new(),
            products: Vec::new(),
        }
    }

    /// An engine that nobody uses. One `mbarrier` may count bytes of either proxy.
    pub fn new_engine(&mut self) -> usize {
        self.engines.take()
    }

    /// The same, in whose name the `wgmma` of a warpgroup read.
    pub fn new_product_engine(&mut self) -> usize {
        let engine = self.new_engine();
        self.products.push(engine);
        engine
    }

    /// Nobody accesses in the name of an engine any more.
    pub fn retire(&mut self, engine: usize) {
        self.products.retain(|product| *product != engine);
        self.engines.retire(engine);
    }

    /// Whether it is time for [`Self::recycle`].
    pub fn engines_are_worn(&self) -> bool {
        self.engines.are_worn()
    }

    /// Retired engines can be used again unless they are `remembered`: by number from [`FIRST_ENGINE`] on, whether
    /// there is an access in the engine's name that somebody may yet race with.
    pub fn recycle(&mut self, remembered: &[bool]) {
        self.engines.recycle(remembered);
    }

    /// Number of engines that there are, or were.
    pub fn engines(&self) -> usize {
        self.engines.len()
    }

    /// Number of warps, which are the first actors.
    pub fn warps(&self) -> usize {
        self.knowledge.len()
    }

    /// The actor's own time.
    #[inline]
    pub fn now(&self, actor: usize) -> u32 {
        if is_engine(actor) { self.engines.time(actor) } else { self.knowledge[actor].seen.of(actor) }
    }

    /// How often the actor's lanes have synchronised.
    pub fn epoch(&self, actor: usize) -> u32 {
        self.epochs.get(actor).copied().unwrap_or(0)
    }

    /// What the actor has done so far, and what it knows of others, becomes part of `joint`.
    pub fn release(&mut self, actor: usize, joint: &mut Knowledge) {
        let now = self.now(actor);
        if is_engine(actor) {
            joint.seen.raise(actor, now);
            self.engines.advance(actor);
        } else {
            joint.join(&self.knowledge[actor]);
            self.knowledge[actor].seen.raise(actor, now + 1);
        }
    }

    /// A warp initialises an object. The result is how many it has initialised with it.
    pub fn initialise(&mut self, warp: usize) -> u32 {
        let knowledge = &mut self.knowledge[warp];
        let count = knowledge.objects_of(warp).saturating_add(1);
        knowledge.learn_objects(warp, count);
        count
    }

    /// Whether a warp knows of the first `count` objects that another has initialised.
    pub fn knows_objects(&self, warp: usize, other: usize, count: u32) -> bool {
        self.knowledge[warp].objects_of(other) >= count
    }

    /// A fence of a warp that releases: a relaxed arrival behind it releases what lies before it.
    pub fn fence_release(&mut self, actor: usize, scope: Scope) {
        let mut joint = Knowledge::default();
        self.release(actor, &mut joint);
        let fences = self.fences.entry(actor).or_default();
        if scope == Scope::Cluster {
            fences.in_cluster.clone_from(&joint);
        }
        fences.in_block = joint;
    }

    /// A fence of a warp that releases nothing but its initialisations of objects.
    pub fn fence_objects(&mut self, warp: usize) {
        let count = self.knowledge[warp].objects_of(warp);
        let fences = self.fences.entry(warp).or_default();
        fences.in_block.learn_objects(warp, count);
        fences.in_cluster.learn_objects(warp, count);
    }

    /// A fence of a warp that acquires what its relaxed operations have read.
    pub fn fence_acquire(&mut self, actor: usize) {
        if let Some(fences) = self.fences.get_mut(&actor) {
            let read = std::mem::take(&mut fences.read);
            self.acquire(actor, &read);
        }
    }

    /// What the actor had done and knew at its last fence of the scope becomes part of `joint`.
    pub fn release_fenced(&self, actor: usize, scope: Scope, joint: &mut Knowledge) {
        if let Some(fences) = self.fences.get(&actor) {
            joint.join(if scope == Scope::Cluster { &fences.in_cluster } else { &fences.in_block });
        }
    }

    /// What is part of `joint` happened before what the actor does from its next acquiring fence on.
    pub fn acquire_relaxed(&mut self, actor: usize, joint: &Knowledge) {
        self.fences.entry(actor).or_default().read.join(joint);
    }

    /// What is part of `joint` happened before what the actor does from here on.
    pub fn acquire(&mut self, actor: usize, joint: &Knowledge) {
        self.knowledge[actor].join(joint);
    }

    /// A synchronisation of the lanes of one warp.
    pub fn synchronise_lanes(&mut self, actor: usize) {
        self.epochs[actor] += 1;
    }

    /// Lanes of a warp execute a proxy fence: what they know passes it. If they are all lanes that live, the warp
    /// passes.
    pub fn fence_proxy(&mut self, actor: usize, lanes: u32, live: u32) {
        let knowledge = &mut self.knowledge[actor];
        if lanes & live == live {
            knowledge.fenced.clone_from(&knowledge.seen);
        } else {
            for lane in (0..LANES).filter(|lane| lanes >> lane & 1 == 1) {
                self.proxy_fences.insert(thread_of(actor) + lane as u32, knowledge.seen.clone());
            }
        }
        // What follows has another count than what has passed.
        knowledge.seen.raise(actor, knowledge.seen.of(actor) + 1);
    }

    /// Whether a warp knows what another actor did at its time `clock`.
    #[inline]
    pub fn knows(&self, warp: usize, other: usize, clock: u32) -> bool {
        self.knowledge[warp].seen.of(other) >= clock
    }

    /// Whether a thread's ordinary write at its actor's time `clock` reaches what `reader` does through the
    /// asynchronous proxy: a fence lies between, of the writer's or the reader's warp, or of either thread alone.
    pub fn passed_fence(&self, reader: u32, writer: u32, clock: u32) -> bool {
        let (actor, other) = (actor_of(reader), actor_of(writer));
        let alone = |thread: u32| self.proxy_fences.get(&thread).is_some_and(|seen| seen.of(other) >= clock);
        self.knowledge[actor].fenced.of(other) >= clock || alone(reader) || alone(writer)
    }

    /// The thread as a message names it to `reader`.
    pub fn name(&self, reader: usize, thread: u32) -> Other {
        let actor = actor_of(thread);
        let (rank, own) = (actor / self.warps, reader / self.warps);
        let number = thread - thread_of(rank * self.warps);
        match rank {
            _ if self.products.contains(&actor) => Other::Product,
            _ if is_engine(actor) => Other::Copy,
            _ if rank == own => Other::Thread(number),
            _ => Other::Remote { rank: rank as u32, thread: number },
        }
    }
}
