//! Who knows of whose accesses: the vector clocks of a cluster.
//!
//! An *actor* is a warp, numbered through all blocks of the cluster, or an *engine*: the asynchronous operations that
//! complete on one mechanism, for instance on one `mbarrier`, or the `wgmma` of one warpgroup. Every actor counts its
//! own time, and knows each other actor's up to some count; where actors meet, at a barrier or by an arrival that
//! another waits for, they join what they know. An access happened before another if the later actor knows the earlier
//! one's count.
//!
//! Order alone is not enough between the proxies through which memory is accessed (PTX ISA section 8.6): what a warp
//! has written by ordinary stores reaches asynchronous copies and `wgmma` only behind a `fence.proxy.async`. So an actor
//! keeps a second count of each other: up to where it knows the other's accesses *by a path with such a fence*.

use std::collections::HashMap;

use crate::fault::Other;

/// Lanes of a warp: threads are numbered through the actors.
pub(crate) const LANES: usize = 32;

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

/// What is known of the actors: counts up to which accesses happened before, by actor; 0 where there is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Knowledge {
    seen: Vec<u32>,
    /// The part of `seen` that a proxy fence has been passed with.
    fenced: Vec<u32>,
}

/// Takes the greater count of each actor.
fn join(counts: &mut Vec<u32>, others: &[u32]) {
    if counts.len() < others.len() {
        counts.resize(others.len(), 0);
    }
    counts.iter_mut().zip(others).for_each(|(count, other)| *count = (*count).max(*other));
}

fn of(counts: &[u32], actor: usize) -> u32 {
    counts.get(actor).copied().unwrap_or(0)
}

impl Knowledge {
    /// Knowledge of one actor, up to its time `count`.
    pub fn of(actor: usize, count: u32) -> Self {
        let mut seen = vec![0; actor + 1];
        seen[actor] = count;
        Self { seen, fenced: Vec::new() }
    }

    /// Learns what another knows.
    pub fn join(&mut self, other: &Self) {
        join(&mut self.seen, &other.seen);
        join(&mut self.fenced, &other.fenced);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.seen.clear();
        self.fenced.clear();
    }
}

/// The threads that a fence or an operation orders accesses for (PTX ISA section 8.5). Wider scopes are as the cluster's:
/// nobody else sees shared memory.
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
    /// What each actor knows; its own time is what it knows of itself.
    actors: Vec<Knowledge>,
    /// Synchronisations of each warp's lanes.
    epochs: Vec<u32>,
    /// Warps of a block.
    warps: usize,
    /// What fences of warps order.
    fences: HashMap<usize, Fences>,
    /// What single threads know behind proxy fences of their own, which the rest of the warp did not execute.
    proxy_fences: HashMap<u32, Vec<u32>>,
    /// The engines that are a warpgroup's `wgmma`.
    products: Vec<usize>,
}

impl Clocks {
    /// The clocks of so many blocks, of `warps` warps each.
    pub fn new(blocks: usize, warps: usize) -> Self {
        let epochs = vec![1; blocks * warps];
        let (fences, proxy_fences) = (HashMap::new(), HashMap::new());
        let mut clocks = Self { actors: Vec::new(), epochs, warps, fences, proxy_fences, products: Vec::new() };
        (0..blocks * warps).for_each(|_| _ = clocks.new_engine());
        clocks
    }

    /// A new engine: an actor behind those that are warps. One `mbarrier` may count bytes of either proxy.
    pub fn new_engine(&mut self) -> usize {
        let actor = self.actors.len();
        self.actors.push(Knowledge::of(actor, 1));
        actor
    }

    /// A new engine in whose name the `wgmma` of a warpgroup read.
    pub fn new_product_engine(&mut self) -> usize {
        let engine = self.new_engine();
        self.products.push(engine);
        engine
    }

    /// Whether the actor is no warp.
    fn is_engine(&self, actor: usize) -> bool {
        actor >= self.epochs.len()
    }

    /// Number of actors so far.
    pub fn actors(&self) -> usize {
        self.actors.len()
    }

    /// The actor's own time.
    pub fn now(&self, actor: usize) -> u32 {
        of(&self.actors[actor].seen, actor)
    }

    /// How often the actor's lanes have synchronised.
    pub fn epoch(&self, actor: usize) -> u32 {
        self.epochs.get(actor).copied().unwrap_or(0)
    }

    /// What the actor has done so far, and what it knows of others, becomes part of `joint`.
    pub fn release(&mut self, actor: usize, joint: &mut Knowledge) {
        joint.join(&self.actors[actor]);
        self.actors[actor].seen[actor] += 1;
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

    /// A fence that releases nothing but `part` of what the warp has done.
    pub fn fence_part(&mut self, actor: usize, part: &Knowledge) {
        let fences = self.fences.entry(actor).or_default();
        fences.in_block.join(part);
        fences.in_cluster.join(part);
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
        self.actors[actor].join(joint);
    }

    /// A synchronisation of the lanes of one warp.
    pub fn synchronise_lanes(&mut self, actor: usize) {
        self.epochs[actor] += 1;
    }

    /// Lanes of a warp execute a proxy fence: what they know passes it. If they are all lanes that live, the warp passes.
    pub fn fence_proxy(&mut self, actor: usize, lanes: u32, live: u32) {
        let knowledge = &mut self.actors[actor];
        if lanes & live == live {
            knowledge.fenced.clone_from(&knowledge.seen);
        } else {
            for lane in (0..LANES).filter(|lane| lanes >> lane & 1 == 1) {
                self.proxy_fences.insert(thread_of(actor) + lane as u32, knowledge.seen.clone());
            }
        }
        // What follows has another count than what has passed.
        knowledge.seen[actor] += 1;
    }

    /// Whether `actor` knows what another did at its time `clock`.
    #[inline]
    pub fn knows(&self, actor: usize, other: usize, clock: u32) -> bool {
        of(&self.actors[actor].seen, other) >= clock
    }

    /// Whether a thread's ordinary write at its actor's time `clock` reaches what `reader` does through the
    /// asynchronous proxy: a fence lies between, of the writer's or the reader's warp, or of either thread alone.
    pub fn passed_fence(&self, reader: u32, writer: u32, clock: u32) -> bool {
        let (actor, other) = (actor_of(reader), actor_of(writer));
        let alone = |thread: u32| self.proxy_fences.get(&thread).is_some_and(|seen| of(seen, other) >= clock);
        of(&self.actors[actor].fenced, other) >= clock || alone(reader) || alone(writer)
    }

    /// The thread as a message names it to `reader`.
    pub fn name(&self, reader: usize, thread: u32) -> Other {
        let actor = actor_of(thread);
        let (rank, own) = (actor / self.warps, reader / self.warps);
        let number = thread - thread_of(rank * self.warps);
        match rank {
            _ if self.products.contains(&actor) => Other::Product,
            _ if self.is_engine(actor) => Other::Copy,
            _ if rank == own => Other::Thread(number),
            _ => Other::Remote { rank: rank as u32, thread: number },
        }
    }
}
