//! Which entries stay in RAM: DUET, two CLOCK rings and a duel of frequencies between them.
//!
//! New entries go through the small ring S; those that are hit there beyond a first burst, or that
//! return soon after they left, ask for a place in the main ring M. They get it if the entry at
//! M's hand was used less often: the **duel**. So a scan or a loop passes through S and costs each
//! entry of M one point of frequency at most, where CLOCK or LRU would lose them all.
//!
//! What has left is remembered by two ghosts. A key that returns soon after it left S says that S
//! was too small, one that returns soon after it left M says that M was, and S's share follows.

use std::sync::atomic::Ordering::Relaxed;

use super::entry::{Meta, SlotId};
use super::ghost::Ghost;
use super::ring::{MAIN, Ring};

/// The low two bits of `Meta::refs`: hits since a hand last came by.
const COUNT: u8 = 3;

/// The bit of `Meta::refs` of an entry that starts another round in S: its count is credit from
/// the round before and outlives the hand that clears bursts.
const CARRY: u8 = 1 << 2;

const FREQ_MAX: u8 = 7;

/// After so many entries that were spared, the next is evicted whatever its count: no insert sweeps
/// the rings while others wait for the stripe.
const SWEEP_STEPS_MAX: u64 = 64;

/// So many warm entries at M's hand in a row, and the newcomer has lost its duel.
const DUEL_STEPS_MAX: u64 = 4;

/// S's share of the capacity.
const SHARE_START: f64 = 0.10;
const SHARE_MIN: f64 = 0.01;
const SHARE_MAX: f64 = 0.90;

/// By how many mean entries one near return from a ghost moves the border.
const SHARE_STEP_ENTRIES: f64 = 3.0;

/// A return is near if fewer entries left since than this share of the residents.
const NEAR_SHARE: f64 = 0.15;

/// How the policy sees the entries, whose table is not its business.
pub(crate) trait Residents {
    fn meta(&self, slot: SlotId) -> &Meta;
}

/// The eviction policy of one stripe. Everything is called under the stripe's lock; readers only
/// write `Meta::refs`.
///
/// # Invariants
///
/// 1. Every resident entry stands in one of the rings, at the place that its `Meta::place` names.
/// 2. After an insert, a replace or a shrink, `bytes() <= capacity`, unless one entry alone is
///    larger than that.
/// 3. An entry's weight does not change while it is resident.
#[derive(Debug)]
pub(crate) struct Clock {
    capacity: u64,
    /// The largest capacity that was ever found full. Above it the stripe is warming up.
    full_capacity: u64,
    /// S's target, as a share of the capacity, so that it keeps its meaning when that changes.
    small_share: f64,
    small: Ring,
    main: Ring,
    small_ghost: Ghost,
    main_ghost: Ghost,
    inserts: u64,
    steps: u64,
    sweep_steps_max: u64,
}

/// Who asks for a place in M.
#[derive(Clone, Copy)]
struct Rival {
    freq: u8,
    weight: u32,
}

impl Rival {
    fn of(meta: &Meta) -> Rival {
        Rival { freq: meta.freq.load(Relaxed), weight: meta.weight }
    }

    /// Whether the rival is used more often than `held`, size by size. A tie is no reason to move.
    fn beats(self, held: &Meta) -> bool {
        let score = |freq: u8, other_weight: u32| (u64::from(freq) + 1) * u64::from(other_weight);
        score(self.freq, held.weight) > score(held.freq.load(Relaxed), self.weight)
    }
}

impl Clock {
    /// `capacity` is in the unit of the weights: bytes, or entries if each weighs 1.
    pub(crate) fn new(capacity: u64) -> Clock {
        Clock {
            capacity,
            full_capacity: 0,
            small_share: SHARE_START,
            small: Ring::new(0),
            main: Ring::new(MAIN),
            small_ghost: Ghost::new(),
            main_ghost: Ghost::new(),
            inserts: 0,
            steps: 0,
            sweep_steps_max: 0,
        }
    }

    /// Takes effect at the next insert or [`shrink`](Clock::shrink).
    pub(crate) fn set_capacity(&mut self, capacity: u64) {
        self.capacity = capacity;
    }

    /// Places an entry that was not resident, and evicts others until it fits. One that is larger
    /// than the capacity evicts everything and is placed all the same: what is refused is for the
    /// caller to decide.
    pub(crate) fn insert<R: Residents>(&mut self, residents: &R, slot: SlotId, victims: &mut Vec<SlotId>) {
        let meta = residents.meta(slot);
        let weight = u64::from(meta.weight);
        self.inserts += 1;
        meta.refs.store(0, Relaxed);
        let to_main = self.recall(meta);
        let to_main = self.make_room(residents, weight, to_main.then(|| Rival::of(meta)), victims);
        let warming_up = self.capacity > self.full_capacity;
        if to_main || (warming_up && self.small.bytes() + weight > self.small_target()) {
            self.main.push(slot, meta);
        } else {
            self.push_small(residents, slot, meta);
        }
    }

    /// An overwrite: `new` takes over the place, count and frequency of `old`, which is no longer
    /// resident; others are evicted until it fits.
    pub(crate) fn replace<R: Residents>(
        &mut self,
        residents: &R,
        old: SlotId,
        new: SlotId,
        victims: &mut Vec<SlotId>,
    ) {
        let (from, to) = (residents.meta(old), residents.meta(new));
        to.place.store(from.place.load(Relaxed), Relaxed);
        to.refs.store(from.refs.load(Relaxed), Relaxed);
        to.freq.store(from.freq.load(Relaxed), Relaxed);
        self.ring(from).vacate(from);
        // Nobody stands in the place meanwhile, so the hands cannot evict what is being stored.
        self.make_room(residents, u64::from(to.weight), None, victims);
        self.ring(to).put_back(new, to);
    }

    /// Takes an entry out that goes for another reason than room, and remembers nothing of it.
    pub(crate) fn remove<R: Residents>(&mut self, residents: &R, slot: SlotId) {
        let meta = residents.meta(slot);
        let ring = self.ring(meta);
        ring.vacate(meta);
        ring.compact(residents);
    }

    /// Evicts until the stripe is within its capacity.
    pub(crate) fn shrink<R: Residents>(&mut self, residents: &R, victims: &mut Vec<SlotId>) {
        self.make_room(residents, 0, None, victims);
    }

    /// Forgets every entry and all that was learnt from them.
    pub(crate) fn clear(&mut self) {
        let (inserts, steps) = (self.inserts, self.steps);
        *self = Clock { inserts, steps, ..Clock::new(self.capacity) };
    }

    /// The weight of all residents.
    pub(crate) fn bytes(&self) -> u64 {
        self.small.bytes() + self.main.bytes()
    }

    pub(crate) fn len(&self) -> usize {
        self.small.len() + self.main.len()
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Inserts so far.
    pub(crate) fn inserts(&self) -> u64 {
        self.inserts
    }

    /// Entries that a hand looked at and spared so far: what the evictions cost.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// The most steps that one eviction took.
    #[cfg(test)]
    pub(super) fn sweep_steps_max(&self) -> u64 {
        self.sweep_steps_max
    }

    /// What the rings and the ghosts take, entries not included.
    pub(crate) fn overhead_bytes(&self) -> usize {
        self.small.overhead_bytes()
            + self.main.overhead_bytes()
            + self.small_ghost.overhead_bytes()
            + self.main_ghost.overhead_bytes()
    }

    /// Re-derives every counter and place; panics where one is wrong.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check<R: Residents>(&self, residents: &R) {
        self.small.check(residents);
        self.main.check(residents);
        assert!((SHARE_MIN..=SHARE_MAX).contains(&self.small_share), "share of S");
        assert!(self.bytes() <= self.capacity || self.len() <= 1, "over capacity");
    }

    /// Looks an entry up in the ghosts, moves the border if it returns soon, and tells whether it
    /// may ask for a place in M.
    fn recall(&mut self, meta: &Meta) -> bool {
        let (returned, direction) = if let Some(returned) = self.small_ghost.take(meta.hash) {
            (returned, 1.0)
        } else if let Some(returned) = self.main_ghost.take(meta.hash) {
            (returned, -1.0)
        } else {
            meta.freq.store(0, Relaxed);
            return false;
        };
        meta.freq.store(FREQ_MAX.min(returned.freq + 1), Relaxed);
        let residents = self.len().max(1) as f64;
        if (returned.age as f64) < NEAR_SHARE * residents {
            let step = direction * SHARE_STEP_ENTRIES / residents;
            self.small_share = (self.small_share + step).clamp(SHARE_MIN, SHARE_MAX);
        }
        true
    }

    /// Evicts until `weight` more fits, and tells whether the newcomer has a place in M. It asks
    /// for one if it is given as a `rival`.
    fn make_room<R: Residents>(
        &mut self,
        residents: &R,
        weight: u64,
        mut rival: Option<Rival>,
        victims: &mut Vec<SlotId>,
    ) -> bool {
        while self.bytes() + weight > self.capacity {
            self.full_capacity = self.full_capacity.max(self.capacity);
            let sweep_start = self.steps;
            if rival.is_some() && self.main.bytes() >= self.main_target() {
                if !self.evict_main(residents, rival, victims) {
                    rival = None;
                }
            } else if !(self.small_is_due(weight, rival) && self.evict_small(residents, victims))
                && !self.evict_main(residents, None, victims)
            {
                break;
            }
            self.sweep_steps_max = self.sweep_steps_max.max(self.steps - sweep_start);
        }
        rival.is_some()
    }

    fn small_is_due(&self, weight: u64, rival: Option<Rival>) -> bool {
        self.main.is_empty() || rival.is_some() || self.small.bytes() + weight > self.small_target()
    }

    /// Evicts one entry by way of S: its oldest that was not hit, or the one in M that a hit one
    /// displaces. False if S ran empty, all of it being in M now.
    fn evict_small<R: Residents>(&mut self, residents: &R, victims: &mut Vec<SlotId>) -> bool {
        while let Some((slot, meta)) = self.small.pop_oldest(residents) {
            let count = meta.refs.load(Relaxed) & COUNT;
            if count == 0 {
                self.small_ghost.fit(2 * self.len() as u64 + 2);
                self.small_ghost.put(meta.hash, meta.freq.load(Relaxed));
                victims.push(slot);
                return true;
            }
            self.steps += 1;
            add_freq(meta, count);
            let fits = self.main.bytes() + u64::from(meta.weight) <= self.main_target();
            if fits || self.evict_main(residents, Some(Rival::of(meta)), victims) {
                meta.refs.store(0, Relaxed);
                self.main.push(slot, meta);
                if !fits {
                    return true;
                }
            } else {
                meta.refs.store((count - 1) | CARRY, Relaxed);
                self.push_small(residents, slot, meta);
            }
        }
        false
    }

    /// Evicts one entry of M. Without a rival someone must go; with one, nobody does unless the
    /// rival wins its duel against the first cold entry at the hand. False if nobody went.
    fn evict_main<R: Residents>(
        &mut self,
        residents: &R,
        rival: Option<Rival>,
        victims: &mut Vec<SlotId>,
    ) -> bool {
        let mut steps = 0;
        while let Some((slot, meta)) = self.main.pop_oldest(residents) {
            let count = meta.refs.load(Relaxed) & COUNT;
            if count > 0 && (rival.is_some() || steps < SWEEP_STEPS_MAX) {
                meta.refs.store(count - 1, Relaxed);
                add_freq(meta, 1);
                self.main.push(slot, meta);
                steps += 1;
                self.steps += 1;
                if rival.is_some() && steps >= DUEL_STEPS_MAX {
                    return false;
                }
                continue;
            }
            let freq = meta.freq.load(Relaxed);
            if rival.is_some_and(|rival| !rival.beats(meta)) {
                meta.freq.store(freq.saturating_sub(1), Relaxed);
                self.main.push(slot, meta);
                self.steps += 1;
                return false;
            }
            self.main_ghost.fit(self.len() as u64 + 1);
            self.main_ghost.put(meta.hash, freq);
            victims.push(slot);
            return true;
        }
        false
    }

    /// Hits on the youngest quarter of S are the burst that brought the entry in, and do not count:
    /// the hand that leaves the quarter clears them.
    fn push_small<R: Residents>(&mut self, residents: &R, slot: SlotId, meta: &Meta) {
        self.small.push(slot, meta);
        while self.small.young() > self.small.len() / 4 {
            let Some(slot) = self.small.advance_hand() else {
                continue;
            };
            let meta = residents.meta(slot);
            let refs = meta.refs.load(Relaxed);
            let kept = if refs & CARRY != 0 { refs & COUNT } else { 0 };
            meta.refs.store(kept, Relaxed);
        }
    }

    fn small_target(&self) -> u64 {
        (self.small_share * self.capacity as f64) as u64
    }

    fn main_target(&self) -> u64 {
        self.capacity - self.small_target()
    }

    fn ring(&mut self, meta: &Meta) -> &mut Ring {
        if self.main.holds(meta) { &mut self.main } else { &mut self.small }
    }
}

fn add_freq(meta: &Meta, more: u8) {
    let freq = meta.freq.load(Relaxed);
    meta.freq.store(FREQ_MAX.min(freq + more), Relaxed);
}
