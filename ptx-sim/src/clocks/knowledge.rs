//! What an actor knows of the others.

use super::FIRST_ENGINE;

/// Counts of actors, 0 where nothing is known. Warps are few and meet all the time. Engines may be many, and an actor
/// knows of few of them: theirs stand in a list.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// By warp.
    warps: Vec<u32>,
    /// Numbers of engines, ascending, with their counts.
    engines: Vec<(u32, u32)>,
}

/// Takes the greater count of each warp.
fn join(counts: &mut Vec<u32>, others: &[u32]) {
    if counts.len() < others.len() {
        counts.resize(others.len(), 0);
    }
    counts.iter_mut().zip(others).for_each(|(count, other)| *count = (*count).max(*other));
}

/// Takes the greater count of each engine, in time in proportion to the lengths of both lists.
fn join_lists(counts: &mut Vec<(u32, u32)>, others: &[(u32, u32)]) {
    let (mut at, mut missing) = (0, 0);
    for &(engine, count) in others {
        at += counts[at..].iter().take_while(|own| own.0 < engine).count();
        match counts.get_mut(at) {
            Some(own) if own.0 == engine => own.1 = own.1.max(count),
            _ => missing += 1,
        }
    }
    if missing == 0 {
        return;
    }
    // From the end on, so that nothing is overwritten that has yet to move.
    let mut left = counts.len();
    counts.resize(left + missing, (0, 0));
    let mut to = counts.len();
    for &(engine, count) in others.iter().rev() {
        while left > 0 && counts[left - 1].0 >= engine {
            (left, to) = (left - 1, to - 1);
            counts[to] = counts[left];
        }
        if counts.get(to).is_none_or(|own| own.0 != engine) {
            to -= 1;
            counts[to] = (engine, count);
        }
    }
}

impl Counts {
    #[inline]
    pub fn of(&self, actor: usize) -> u32 {
        if actor < FIRST_ENGINE {
            return self.warps.get(actor).copied().unwrap_or(0);
        }
        match self.engines.binary_search_by_key(&(actor as u32), |own| own.0) {
            Ok(at) => self.engines[at].1,
            Err(_) => 0,
        }
    }

    /// Takes the greater count of one actor.
    pub fn raise(&mut self, actor: usize, count: u32) {
        if actor < FIRST_ENGINE {
            if self.warps.len() <= actor {
                self.warps.resize(actor + 1, 0);
            }
            self.warps[actor] = self.warps[actor].max(count);
        } else {
            match self.engines.binary_search_by_key(&(actor as u32), |own| own.0) {
                Ok(at) => self.engines[at].1 = self.engines[at].1.max(count),
                Err(at) => self.engines.insert(at, (actor as u32, count)),
            }
        }
    }

    pub fn join(&mut self, other: &Self) {
        join(&mut self.warps, &other.warps);
        join_lists(&mut self.engines, &other.engines);
    }

    fn clear(&mut self) {
        self.warps.clear();
        self.engines.clear();
    }

    fn held_bytes(&self) -> usize {
        self.warps.capacity() * size_of::<u32>() + self.engines.capacity() * size_of::<(u32, u32)>()
    }
}

/// What is known of the actors: counts up to which accesses happened before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Knowledge {
    pub(super) seen: Counts,
    /// The part of `seen` that a proxy fence has been passed with.
    pub(super) fenced: Counts,
    /// How many of each warp's initialisations of objects happened before.
    pub(super) objects: Vec<u32>,
}

impl Knowledge {
    /// Learns what another knows.
    pub fn join(&mut self, other: &Self) {
        self.seen.join(&other.seen);
        self.fenced.join(&other.fenced);
        join(&mut self.objects, &other.objects);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.seen.clear();
        self.fenced.clear();
        self.objects.clear();
    }

    /// How many of a warp's initialisations are known.
    pub(super) fn objects_of(&self, warp: usize) -> u32 {
        self.objects.get(warp).copied().unwrap_or(0)
    }

    /// Learns of a warp's first `count` initialisations.
    pub(super) fn learn_objects(&mut self, warp: usize, count: u32) {
        if self.objects.len() <= warp {
            self.objects.resize(warp + 1, 0);
        }
        self.objects[warp] = self.objects[warp].max(count);
    }

    /// Bytes of this computer's memory that it takes.
    pub fn held_bytes(&self) -> usize {
        self.seen.held_bytes() + self.fenced.held_bytes() + self.objects.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of engines, from pairs in any order.
    fn counts(pairs: &[(usize, u32)]) -> Counts {
        let mut counts = Counts::default();
        pairs.iter().for_each(|&(engine, count)| counts.raise(FIRST_ENGINE + engine, count));
        counts
    }

    #[test]
    fn lists_join_like_maps() {
        // All lists of up to four engines, with a count that says which list it is of.
        for (own, other) in (0..16u32).flat_map(|own| (0..16u32).map(move |other| (own, other))) {
            let list = |members: u32, count: fn(usize) -> u32| -> Vec<(usize, u32)> {
                (0..4).rev().filter(|engine| members >> engine & 1 == 1).map(|engine| (engine, count(engine))).collect()
            };
            let (first, second) =
                (list(own, |engine| 2 + engine as u32 % 2), list(other, |engine| 3 - engine as u32 % 2));
            let mut joined = counts(&first);
            joined.join(&counts(&second));
            for engine in 0..5 {
                let both = first.iter().chain(&second).filter(|pair| pair.0 == engine);
                let wanted = both.map(|pair| pair.1).max().unwrap_or(0);
                assert_eq!(joined.of(FIRST_ENGINE + engine), wanted, "{first:?} and {second:?}: {joined:?}");
            }
            assert!(joined.engines.is_sorted_by(|a, b| a.0 < b.0), "{joined:?}");
            assert_eq!(joined.engines.len() as u32, (own | other).count_ones(), "{joined:?}");
        }
    }
}
