//! Which entries stay in RAM: DUET, two CLOCK rings and a duel of frequencies between them.
//!
//! Both rings turn by taking the oldest out and pushing the spared again: the front is CLOCK's hand.
//! New entries go through the small ring S; those that are hit there beyond a first burst, or that
//! return soon after they left, ask for a place in the main ring M. They get it if the entry at
//! M's hand was used less often: the **duel**. So a scan or a loop passes through S and costs each
//! entry of M one point of frequency at most, where CLOCK or LRU would lose them all.
//!
//! What has left is remembered by two ghosts. A key that returns soon after it left S says that S
//! was too small, one that returns soon after it left M says that M was, and S's share follows.

use super::{
    entry::{Meta, SlotId, Usage},
    ghost::Ghost,
    ring::{MAIN, Ring},
};
use crate::{hash::KeyHash, sync::Ordering::Relaxed};

/// After so many entries that were spared, the next one leaves whatever its count: no eviction
/// sweeps a ring while others wait for the stripe.
const SWEEP_STEPS_MAX: u64 = 64;

/// So many warm entries at M's hand in a row, and the newcomer has lost its duel.
const DUEL_STEPS_MAX: u64 = 4;

/// The youngest of S, whose hits do not count: one part in so many.
const YOUNG_DIVISOR: usize = 3;

/// S's share of the capacity.
const SHARE_START: f64 = 0.10;
const SHARE_MIN: f64 = 0.01;
const SHARE_MAX: f64 = 0.90;

/// By how many mean entries one near return from a ghost moves the border.
const SHARE_STEP_ENTRIES: f64 = 3.0;

/// The ghosts' lives in percent of the residents: at four bytes each, and rebuilt at a tenth of drift,
/// 16 bytes a resident is their limit together.
const SMALL_GHOST_LIFE_PERCENT: u64 = 260;
const MAIN_GHOST_LIFE_PERCENT: u64 = 100;

/// A return is near if fewer entries left since than this share of the residents.
const NEAR_SHARE: f64 = 0.15;

/// How the policy sees the entries, whose table is not its business.
pub(crate) trait Residents {
    fn meta(&self, slot: SlotId) -> &Meta;

    /// Has an entry that the next operations look at brought near.
    fn prefetch(&self, _slot: SlotId) {}
}

/// The eviction policy of one stripe. Everything is called under the stripe's lock; readers only
/// write `Meta::usage`.
///
/// # Invariants
///
/// 1. Every entry that was inserted and is neither removed nor a victim stands in one of the rings, at the place that
///    its `Meta::place` names.
/// 2. After an insert, a replace or a shrink, `weight() <= capacity`, unless one entry alone is
///    larger than that.
/// 3. An entry's weight does not change while it is resident.
#[derive(Debug)]
pub(crate) struct Duet {
    capacity: u64,
    /// The largest capacity that was ever found full. Above it the stripe is warming up.
    full_capacity: u64,
    /// S's target, as a share of the capacity, so that it keeps its meaning when that changes.
    small_share: f64,
    /// The same in the unit of the weights; [`Duet::aim`] keeps the two together.
    small_target: u64,
    small: Ring,
    main: Ring,
    small_ghost: Ghost,
    main_ghost: Ghost,
    steps: u64,
    /// The count of `steps` at which the sweep that is under way has to end.
    sweep_end: u64,
}

/// Who asks for a place in M.
#[derive(Clone, Copy)]
struct Rival {
    freq: u8,
    weight: u64,
}

impl Rival {
    fn of(meta: &Meta) -> Rival {
        Rival { freq: meta.usage().freq, weight: meta.weight() }
    }

    /// Whether the rival is used more often than `held`, size by size. A tie is no reason to move.
    fn beats(self, held: &Meta) -> bool {
        let score = |freq: u8, other_weight: u64| (u64::from(freq) + 1) * other_weight;
        score(self.freq, held.weight()) > score(held.usage().freq, self.weight)
    }
}

impl Duet {
    /// `capacity` is in the unit of the weights: bytes, or entries if each weighs 1.
    pub(crate) fn new(capacity: u64) -> Duet {
        Duet {
            capacity,
            full_capacity: 0,
            small_share: SHARE_START,
            small_target: target(SHARE_START, capacity),
            small: Ring::new(0),
            main: Ring::new(MAIN),
            small_ghost: Ghost::new(),
            main_ghost: Ghost::new(),
            steps: 0,
            sweep_end: 0,
        }
    }

    /// Has what an insert of this hash looks at brought near.
    #[inline]
    pub(crate) fn prefetch(&self, hash: KeyHash) {
        self.small_ghost.prefetch(hash);
        self.main_ghost.prefetch(hash);
    }

    /// The entry that leaves S next, if nothing happens to it. Its ghost, the entry after it and the
    /// one that the border comes by next are brought near.
    #[inline]
    pub(crate) fn prefetch_next<'r, R: Residents>(&self, residents: &'r R) -> Option<&'r Meta> {
        if let Some(later) = self.small.at(1) {
            residents.prefetch(later);
        }
        if let Some(at_border) = self.small.at_border() {
            residents.prefetch(at_border);
        }
        let next = residents.meta(self.small.at(0)?);
        self.small_ghost.prefetch(next.hash);
        Some(next)
    }

    /// Takes effect at the next insert or [`shrink`](Duet::shrink).
    #[inline]
    pub(crate) fn set_capacity(&mut self, capacity: u64) {
        if capacity != self.capacity {
            self.aim(capacity, self.small_share);
        }
    }

    /// Places an entry that was not resident, and evicts others until it fits. One that is larger
    /// than the capacity evicts everything and is placed all the same: what is refused is for the
    /// caller to decide.
    pub(crate) fn insert<R: Residents>(&mut self, residents: &R, slot: SlotId, victims: &mut Vec<SlotId>) {
        let meta = residents.meta(slot);
        let weight = meta.weight();
        let to_main = self.recall(meta);
        let to_main = self.make_room(residents, weight, to_main.then(|| Rival::of(meta)), victims);
        let warming_up = self.capacity > self.full_capacity;
        if to_main || (warming_up && self.small.weight() + weight > self.small_target) {
            self.main.push(slot, meta);
        } else {
            self.push_small(residents, slot, meta);
        }
        self.compact(residents);
    }

    /// An overwrite: `new` takes over the place, count and frequency of the entry that `from` is of,
    /// which is no longer resident; others are evicted until it fits.
    pub(crate) fn replace<R: Residents>(
        &mut self,
        residents: &R,
        from: &Meta,
        new: SlotId,
        victims: &mut Vec<SlotId>,
    ) {
        let to = residents.meta(new);
        to.place.store(from.place.load(Relaxed), Relaxed);
        to.set_usage(from.usage());
        self.ring(from).vacate(from);
        // Nobody stands in the place meanwhile, so the hands cannot evict what is being stored.
        self.make_room(residents, to.weight(), None, victims);
        self.ring(to).put_back(new, to);
        self.compact(residents);
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
        self.compact(residents);
    }

    /// Forgets every entry and all that was learnt from them.
    pub(crate) fn clear(&mut self) {
        *self = Duet { steps: self.steps, ..Duet::new(self.capacity) };
    }

    /// The weight of all residents.
    pub(crate) fn weight(&self) -> u64 {
        self.small.weight() + self.main.weight()
    }

    pub(crate) fn len(&self) -> usize {
        self.small.len() + self.main.len()
    }

    /// How many entries there will be when the capacity is used, if they go on weighing what they do.
    pub(crate) fn expected_len(&self) -> usize {
        (self.len() as f64 * self.capacity as f64 / self.weight().max(1) as f64) as usize
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Entries that a hand looked at and spared so far: what the evictions cost.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Whether an entry of this hash left so lately that it would count as returned.
    pub(crate) fn knows(&self, hash: KeyHash) -> bool {
        self.small_ghost.knows(hash) || self.main_ghost.knows(hash)
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
        assert_eq!(self.small_target, target(self.small_share, self.capacity), "target of S");
        assert!(self.weight() <= self.capacity || self.len() <= 1, "over capacity");
    }

    /// Looks an entry up in the ghosts, moves the border if it returns soon, and tells whether it
    /// may ask for a place in M.
    #[inline]
    fn recall(&mut self, meta: &Meta) -> bool {
        let (returned, direction) = if let Some(returned) = self.small_ghost.take(meta.hash) {
            (returned, 1.0)
        } else if let Some(returned) = self.main_ghost.take(meta.hash) {
            (returned, -1.0)
        } else {
            meta.set_usage(Usage::default());
            return false;
        };
        meta.set_usage(Usage { freq: returned.freq, ..Usage::default() }.raised_by(1));
        let residents = self.len().max(1) as f64;
        if (returned.age as f64) < NEAR_SHARE * residents {
            let step = direction * SHARE_STEP_ENTRIES / residents;
            self.aim(self.capacity, (self.small_share + step).clamp(SHARE_MIN, SHARE_MAX));
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
        while self.weight() + weight > self.capacity {
            self.full_capacity = self.full_capacity.max(self.capacity);
            self.sweep_end = self.steps + SWEEP_STEPS_MAX;
            if rival.is_some() && self.main.weight() >= self.main_target() {
                if !self.evict_main(residents, rival, victims) {
                    rival = None;
                }
            } else {
                let by_small = self.small_is_due(weight, rival) && self.evict_small(residents, victims);
                if !by_small && !self.evict_main(residents, None, victims) {
                    break;
                }
            }
            debug_assert!(self.steps <= self.sweep_end, "a sweep is bounded");
        }
        rival.is_some()
    }

    fn small_is_due(&self, weight: u64, rival: Option<Rival>) -> bool {
        self.main.is_empty() || rival.is_some() || self.small.weight() + weight > self.small_target
    }

    /// Evicts one entry by way of S: its oldest that was not hit, or the one in M that a hit one
    /// displaces. False if S ran empty, all of it being in M now.
    fn evict_small<R: Residents>(&mut self, residents: &R, victims: &mut Vec<SlotId>) -> bool {
        while let Some((slot, meta)) = self.small.pop_oldest(residents) {
            let usage = meta.usage();
            let must_leave = self.steps + DUEL_STEPS_MAX >= self.sweep_end;
            if usage.count == 0 || must_leave {
                let life = self.len() as u64 * SMALL_GHOST_LIFE_PERCENT / 100 + 1;
                self.small_ghost.put(meta.hash, usage.freq, life);
                victims.push(slot);
                return true;
            }
            self.steps += 1;
            let usage = usage.raised_by(usage.count);
            meta.set_usage(usage);
            let fits = self.main.weight() + meta.weight() <= self.main_target();
            if fits || self.evict_main(residents, Some(Rival::of(meta)), victims) {
                meta.set_usage(Usage { freq: usage.freq, ..Usage::default() });
                self.main.push(slot, meta);
                if !fits {
                    return true;
                }
            } else {
                meta.set_usage(Usage { count: usage.count - 1, carries: true, ..usage });
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
            let usage = meta.usage();
            if usage.count > 0 && self.steps < self.sweep_end {
                let spared = Usage { count: usage.count - 1, carries: false, ..usage };
                meta.set_usage(spared.raised_by(1));
                self.main.push(slot, meta);
                steps += 1;
                self.steps += 1;
                if rival.is_some() && steps >= DUEL_STEPS_MAX {
                    return false;
                }
                continue;
            }
            if rival.is_some_and(|rival| !rival.beats(meta)) {
                meta.set_usage(Usage { freq: usage.freq.saturating_sub(1), ..usage });
                self.main.push(slot, meta);
                self.steps += 1;
                return false;
            }
            let life = self.len() as u64 * MAIN_GHOST_LIFE_PERCENT / 100 + 1;
            self.main_ghost.put(meta.hash, usage.freq, life);
            victims.push(slot);
            return true;
        }
        false
    }

    /// Hits on the youngest third of S are the burst that brought the entry in, and do not count:
    /// the border that follows them clears their counts.
    fn push_small<R: Residents>(&mut self, residents: &R, slot: SlotId, meta: &Meta) {
        self.small.push(slot, meta);
        while self.small.young() > self.small.len() / YOUNG_DIVISOR + 1 {
            let Some(slot) = self.small.advance_border() else {
                continue;
            };
            let meta = residents.meta(slot);
            let usage = meta.usage();
            let count = if usage.carries { usage.count } else { 0 };
            meta.set_usage(Usage { count, carries: false, ..usage });
        }
    }

    fn aim(&mut self, capacity: u64, small_share: f64) {
        self.capacity = capacity;
        self.small_share = small_share;
        self.small_target = target(small_share, capacity);
    }

    #[inline]
    fn main_target(&self) -> u64 {
        self.capacity - self.small_target
    }

    /// What left may have stood between holes, which are too many now.
    #[inline]
    fn compact<R: Residents>(&mut self, residents: &R) {
        self.small.compact(residents);
        self.main.compact(residents);
    }

    fn ring(&mut self, meta: &Meta) -> &mut Ring {
        if self.main.holds(meta) { &mut self.main } else { &mut self.small }
    }
}

fn target(share: f64, capacity: u64) -> u64 {
    (share * capacity as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Slots(Vec<Meta>);

    impl Residents for Slots {
        fn meta(&self, slot: SlotId) -> &Meta {
            &self.0[slot.0 as usize]
        }
    }

    impl Slots {
        /// Slot `i` belongs to key `i`, and `weight(i)` is its weight.
        fn new(slots: u32, weight: impl Fn(u32) -> u32) -> Slots {
            let hash = |slot: u32| KeyHash::of(&slot.to_le_bytes(), 0);
            Slots((0..slots).map(|slot| Meta::new(hash(slot), weight(slot))).collect())
        }

        fn units() -> Slots {
            Slots::new(20_000, |_| 1)
        }

        fn hit(&self, slot: u32, times: usize) {
            (0..times).for_each(|_| self.meta(SlotId(slot)).hit());
        }

        fn set_freq(&self, slot: u32, freq: u8) {
            let meta = self.meta(SlotId(slot));
            meta.set_usage(Usage { freq, ..meta.usage() });
        }

        fn freq(&self, slot: u32) -> u8 {
            self.meta(SlotId(slot)).usage().freq
        }
    }

    fn insert(policy: &mut Duet, slots: &Slots, keys: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let mut victims = Vec::new();
        for key in keys {
            policy.insert(slots, SlotId(key), &mut victims);
            policy.check(slots);
        }
        victims.iter().map(|victim| victim.0).collect()
    }

    /// Full of the keys below 100, of which 0..10 stand in S and the rest in M.
    fn full(slots: &Slots) -> Duet {
        let mut policy = Duet::new(100);
        assert_eq!(insert(&mut policy, slots, 0..100), []);
        assert_eq!((policy.small.len(), policy.main.len()), (10, 90));
        policy
    }

    fn in_main(policy: &Duet, slots: &Slots, slot: u32) -> bool {
        policy.main.holds(slots.meta(SlotId(slot)))
    }

    #[test]
    fn warm_up_fills_the_main_ring() {
        let slots = Slots::units();
        let policy = full(&slots);
        assert!(!in_main(&policy, &slots, 9) && in_main(&policy, &slots, 10));
    }

    #[test]
    fn a_burst_does_not_promote_and_a_later_hit_does() {
        let slots = Slots::units();
        let mut policy = full(&slots);
        let mut left = Vec::new();
        for key in 1000..1030 {
            left.extend(insert(&mut policy, &slots, [key]));
            if key == 1000 {
                slots.hit(1000, 3);
            }
            if key == 1008 {
                slots.hit(1001, 1);
            }
        }
        assert!(left.contains(&1000), "hit in its youth only");
        assert!(!left.contains(&1001) && in_main(&policy, &slots, 1001), "hit later");
    }

    #[test]
    fn a_scan_does_not_flush_the_main_ring() {
        let slots = Slots::units();
        let mut policy = full(&slots);
        let victims = insert(&mut policy, &slots, 1000..6000);
        assert!(victims.iter().all(|&victim| !(10..100).contains(&victim)));
    }

    #[test]
    fn a_loop_larger_than_the_ram_keeps_a_part_of_itself() {
        let slots = Slots::units();
        let mut policy = Duet::new(100);
        let mut resident = [false; 600];
        let mut hits = 0;
        for key in (0..600).cycle().take(12_000) {
            if resident[key as usize] {
                slots.hit(key, 1);
                hits += 1;
                continue;
            }
            resident[key as usize] = true;
            for victim in insert(&mut policy, &slots, [key]) {
                resident[victim as usize] = false;
            }
        }
        assert!(hits > 12_000 / 10, "{hits} hits, where FIFO and LRU have none");
    }

    #[test]
    fn a_lost_duel_costs_one_point_and_a_won_one_a_place() {
        let slots = Slots::units();
        let mut policy = full(&slots);
        slots.set_freq(10, 4);
        let mut victims = Vec::new();
        let rival = |freq| Some(Rival { freq, weight: 1 });
        policy.sweep_end = u64::MAX;
        assert!(!policy.evict_main(&slots, rival(4), &mut victims), "a tie is lost");
        assert_eq!(slots.freq(10), 3);
        assert!(policy.evict_main(&slots, rival(4), &mut victims));
        assert_eq!(victims, [SlotId(11)]);
        // Four warm ones in a row end the duel, each a count poorer and a point richer.
        (12..16).for_each(|key| slots.hit(key, 2));
        assert!(!policy.evict_main(&slots, rival(7), &mut victims));
        assert_eq!(slots.meta(SlotId(15)).usage().count, 1);
        assert_eq!((slots.freq(15), slots.freq(16)), (1, 0));
    }

    #[test]
    fn a_duel_weighs_sizes() {
        let slots = Slots::new(1, |_| 10);
        let held = slots.meta(SlotId(0));
        slots.set_freq(0, 1);
        assert!(Rival { freq: 0, weight: 4 }.beats(held), "a third of the size, half as often");
        assert!(!Rival { freq: 0, weight: 5 }.beats(held));
        assert!(!Rival { freq: 2, weight: 15 }.beats(held));
    }

    #[test]
    fn near_returns_move_the_border() {
        let slots = Slots::units();
        let mut policy = full(&slots);
        let victims = insert(&mut policy, &slots, [1000]);
        assert!((0..10).contains(&victims[0]), "S gives first");
        insert(&mut policy, &slots, [victims[0]]);
        assert!((policy.small_share - 0.13).abs() < 1e-9, "S was too small");
        assert_eq!(slots.freq(victims[0]), 1);
        assert!(in_main(&policy, &slots, victims[0]));
        // Its return displaced one of M, whose return moves the border back.
        let Some(lost) = (10..100).find(|&key| policy.main_ghost.take(hash(&slots, key)).is_some()) else {
            panic!("nobody left M")
        };
        policy.main_ghost.put(hash(&slots, lost), 0, 100);
        insert(&mut policy, &slots, [lost]);
        assert!((policy.small_share - 0.10).abs() < 1e-9, "M was too small");
    }

    #[test]
    fn far_returns_do_not_move_the_border() {
        let slots = Slots::units();
        let mut policy = full(&slots);
        let first = insert(&mut policy, &slots, [1000])[0];
        insert(&mut policy, &slots, 1001..1030);
        insert(&mut policy, &slots, [first]);
        assert_eq!(policy.small_share, SHARE_START);
        assert!(in_main(&policy, &slots, first), "though it is known");
    }

    #[test]
    fn holes_go_when_what_lay_between_them_is_evicted() {
        let slots = Slots::units();
        let filled = |removed: std::ops::Range<u32>| {
            let mut policy = Duet::new(200);
            insert(&mut policy, &slots, 0..200);
            removed.for_each(|key| policy.remove(&slots, SlotId(key)));
            policy.check(&slots);
            policy
        };
        let mut shrunk = filled(110..200);
        shrunk.set_capacity(60);
        shrunk.shrink(&slots, &mut Vec::new());
        shrunk.check(&slots);
        let mut refilled = filled(110..200);
        refilled.set_capacity(60);
        insert(&mut refilled, &slots, [1000]);
        let mut replaced = filled(110..200);
        replaced.set_capacity(60);
        replaced.replace(&slots, slots.meta(SlotId(100)), SlotId(1001), &mut Vec::new());
        replaced.check(&slots);
    }

    #[test]
    fn a_removed_entry_leaves_a_hole_that_the_hands_skip() {
        let slots = Slots::units();
        let mut policy = full(&slots);
        for key in [0, 1, 3, 10, 50] {
            policy.remove(&slots, SlotId(key));
            policy.check(&slots);
        }
        assert_eq!((policy.len(), policy.weight()), (95, 95));
        assert_eq!(insert(&mut policy, &slots, 1000..1005), [], "there is room");
        assert_eq!(insert(&mut policy, &slots, [1005]), [2]);
    }

    #[test]
    fn holes_do_not_pile_up() {
        let slots = Slots::units();
        let mut policy = Duet::new(20_000);
        insert(&mut policy, &slots, 0..4_000);
        (0..4_000).filter(|key| key % 50 != 0).for_each(|key| {
            policy.remove(&slots, SlotId(key));
        });
        policy.check(&slots);
        assert_eq!(policy.len(), 80);
        assert!(policy.overhead_bytes() < 4 * 1000, "{} bytes", policy.overhead_bytes());
    }

    #[test]
    fn an_overwrite_keeps_place_and_history() {
        let slots = Slots::new(2_000, |slot| if slot < 1_000 { 1 } else { 30 });
        let mut policy = full(&slots);
        slots.hit(20, 2);
        slots.set_freq(20, 5);
        let mut victims = Vec::new();
        policy.replace(&slots, slots.meta(SlotId(20)), SlotId(500), &mut victims);
        policy.check(&slots);
        let (old, new) = (slots.meta(SlotId(20)), slots.meta(SlotId(500)));
        assert_eq!(victims, []);
        assert_eq!(old.place.load(Relaxed), new.place.load(Relaxed));
        assert_eq!(new.usage(), Usage { count: 2, carries: false, freq: 5 });
        policy.replace(&slots, slots.meta(SlotId(500)), SlotId(1500), &mut victims);
        policy.check(&slots);
        assert_eq!(victims.len(), 29, "room for 30 in the place of 1");
        assert!(!victims.contains(&SlotId(1500)), "nobody evicts what is being stored");
    }

    #[test]
    fn a_giant_evicts_everything_and_is_placed() {
        let slots = Slots::new(200, |slot| if slot < 100 { 1 } else { 150 });
        let mut policy = full(&slots);
        (0..100).for_each(|key| slots.hit(key, 3));
        assert_eq!(insert(&mut policy, &slots, [100]).len(), 100);
        assert_eq!((policy.len(), policy.weight()), (1, 150));
        assert_eq!(insert(&mut policy, &slots, [1]), [100]);
    }

    #[test]
    fn capacity_changes_while_the_cache_runs() {
        let slots = Slots::units();
        let mut policy = full(&slots);
        let mut victims = Vec::new();
        policy.set_capacity(40);
        policy.shrink(&slots, &mut victims);
        policy.check(&slots);
        assert_eq!((victims.len(), policy.len()), (60, 40));
        policy.set_capacity(200);
        assert_eq!(insert(&mut policy, &slots, 1000..1160), [], "grown room is used");
        assert!(policy.small.len() <= 20, "and warms up the main ring");
    }

    #[test]
    fn a_sweep_is_bounded_when_everything_is_hot() {
        let slots = Slots::units();
        let mut policy = Duet::new(10_000);
        insert_unchecked(&mut policy, &slots, 0..10_000);
        (0..10_000).for_each(|key| slots.hit(key, 3));
        for key in 10_000..10_100 {
            let before = policy.steps();
            insert_unchecked(&mut policy, &slots, [key]);
            assert!(policy.steps() - before <= SWEEP_STEPS_MAX + DUEL_STEPS_MAX);
        }
        policy.check(&slots);
    }

    /// A few entries wide, so that every operation meets holes, full rings and giants.
    #[test]
    fn counters_hold_under_any_sequence() {
        for seed in 1..24_u64 {
            let slots = Slots::new(400, |slot| 1 + slot.wrapping_mul(2_654_435_761) % 30);
            let mut policy = Duet::new(40 + seed * 20);
            let mut resident = vec![false; 400];
            let mut random = seed;
            let mut draw = |below: u64| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed);
                (random >> 33) % below
            };
            let mut victims = Vec::new();
            for _ in 0..3_000 {
                let key = draw(200).min(draw(400)) as u32;
                let is_resident = resident[key as usize];
                match draw(10) {
                    0 if is_resident => {
                        policy.remove(&slots, SlotId(key));
                        resident[key as usize] = false;
                    }
                    1 if is_resident => {
                        let new = (0..400).find(|&slot| !resident[slot as usize]);
                        let Some(new) = new else { continue };
                        policy.replace(&slots, slots.meta(SlotId(key)), SlotId(new), &mut victims);
                        resident[key as usize] = false;
                        resident[new as usize] = true;
                    }
                    2 => {
                        policy.set_capacity(draw(60) * 30);
                        policy.shrink(&slots, &mut victims);
                    }
                    _ if is_resident => slots.hit(key, 1),
                    _ => {
                        policy.insert(&slots, SlotId(key), &mut victims);
                        resident[key as usize] = true;
                    }
                }
                for victim in victims.drain(..) {
                    assert!(resident[victim.0 as usize], "evicted twice");
                    resident[victim.0 as usize] = false;
                }
                policy.check(&slots);
                assert_eq!(policy.len(), resident.iter().filter(|&&is| is).count());
            }
        }
    }

    fn insert_unchecked(policy: &mut Duet, slots: &Slots, keys: impl IntoIterator<Item = u32>) {
        for key in keys {
            policy.insert(slots, SlotId(key), &mut Vec::new());
        }
    }

    fn hash(slots: &Slots, slot: u32) -> KeyHash {
        slots.meta(SlotId(slot)).hash
    }
}
