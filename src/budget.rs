//! The RAM budget: one number for the whole cache, lent to stripes.

use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicU64, Ordering::Relaxed};

/// What the index takes for an entry at the most, a table that has just grown included.
const INDEX_ENTRY_BYTES_MAX: u64 = 24;

/// The longest that an insert holds back: longer than it takes to spill an entry, shorter than to wake a thread.
const HOLD_BACK_MAX_NS: u64 = 10_000;

/// For how long inserts hold back in all before the thread that spills is taken for one that has no core to
/// run on: as long as it is out of sight when it writes a batch.
const PATIENCE_NS: u64 = 300_000;

/// How the budget is divided. Made once, at open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// What entries and the index of the disk tier may take together: bytes, or entries.
    pub(crate) pool: u64,
    pub(crate) stripe_bits: u32,
    /// The most that may wait to be written to disk, beside the pool.
    pub(crate) leaving_max: u64,
    /// The most bytes that the index may take.
    pub(crate) index_max: u64,
    /// Whether what leaves RAM is forgotten where the disk is behind.
    pub(crate) sheds: bool,
    /// Whether an insert holds back before it has to wait.
    pub(crate) holds_back: bool,
    /// Whether weights are bytes, so that the index takes from the pool.
    pub(crate) in_bytes: bool,
}

/// What is taken of the RAM budget, and how much of it each stripe may take.
///
/// A stripe may fill an equal share of the pool. An entry that is large beside a share borrows its
/// weight from all stripes, so that its stripe need not evict everything else for it; at most half
/// of the pool is lent.
///
/// Every counter is Relaxed: each is a sum that only budgets depend on, and a stripe that sees one
/// late evicts a moment later.
#[derive(Debug)]
pub(crate) struct Budget {
    plan: Plan,
    index: AtomicU64,
    borrowed: AtomicU64,
    /// Apart from the rest, which every insert reads: inserts raise it while the thread that spills lowers it.
    leaving: CachePadded<AtomicU64>,
    /// How long inserts have held back since the thread that spills was last seen at work.
    held_back_ns: AtomicU64,
}

impl Budget {
    pub(crate) fn new(plan: Plan) -> Budget {
        let none = || AtomicU64::new(0);
        let leaving = CachePadded::new(none());
        Budget { plan, index: none(), borrowed: none(), leaving, held_back_ns: none() }
    }

    /// What a stripe that has borrowed so much may hold.
    #[inline]
    pub(crate) fn capacity(&self, borrowed_here: u64) -> u64 {
        let index = if self.plan.in_bytes { self.index.load(Relaxed) } else { 0 };
        let taken = index + self.borrowed.load(Relaxed);
        (self.plan.pool.saturating_sub(taken) >> self.plan.stripe_bits) + borrowed_here
    }

    /// Whether weights are bytes; else each entry weighs 1.
    #[inline]
    pub(crate) fn is_in_bytes(&self) -> bool {
        self.plan.in_bytes
    }

    /// The largest weight that an entry may have.
    #[inline]
    pub(crate) fn weight_max(&self) -> u64 {
        let largest = if self.plan.in_bytes { self.plan.pool / 2 } else { self.plan.pool };
        largest.min(u64::from(u32::MAX))
    }

    /// Lends to a stripe for an entry that is large: an eighth of a stripe's share, or where entries are counted all of it.
    /// `false` if it is not, or if half of the pool is lent already, or all that the index leaves; then the stripe's own
    /// share must do.
    #[inline]
    pub(crate) fn lend(&self, weight: u64) -> bool {
        let Plan { in_bytes, pool, stripe_bits, .. } = self.plan;
        let share = pool >> stripe_bits;
        let is_large = stripe_bits > 0 && weight > if in_bytes { share / 8 } else { share };
        let index = if in_bytes { self.index.load(Relaxed) } else { 0 };
        let lent_max = (pool / 2).min(pool.saturating_sub(index));
        let lend = |borrowed: u64| (borrowed + weight <= lent_max).then(|| borrowed + weight);
        is_large && self.borrowed.fetch_update(Relaxed, Relaxed, lend).is_ok()
    }

    pub(crate) fn give_back(&self, weight: u64) {
        self.borrowed.fetch_sub(weight, Relaxed);
    }

    /// An entry waits to be written and leaves RAM then.
    pub(crate) fn add_leaving(&self, weight: u64) {
        self.leaving.fetch_add(weight, Relaxed);
    }

    pub(crate) fn sub_leaving(&self, weight: u64) {
        self.leaving.fetch_sub(weight, Relaxed);
    }

    pub(crate) fn leaving(&self) -> u64 {
        self.leaving.load(Relaxed)
    }

    /// Whether as much waits to be written as may.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.leaving() > self.plan.leaving_max
    }

    /// For how long an insert is to hold back so that none has to wait: not up to half of what may wait to
    /// be written, from there on the longer the more does. Not for a thread that is not seen to work.
    pub(crate) fn hold_back(&self) -> Duration {
        let half = self.plan.leaving_max / 2;
        let above = self.leaving().saturating_sub(half).min(half);
        if above == 0 || !self.plan.holds_back || self.held_back_ns.load(Relaxed) > PATIENCE_NS {
            return Duration::ZERO;
        }
        Duration::from_nanos(HOLD_BACK_MAX_NS * above / half)
    }

    pub(crate) fn add_held_back(&self, pause: Duration) {
        self.held_back_ns.fetch_add(pause.as_nanos() as u64, Relaxed);
    }

    /// The thread that spills is at work.
    pub(crate) fn note_spilling(&self) {
        self.held_back_ns.store(0, Relaxed);
    }

    /// Whether an entry that leaves RAM now is to be forgotten.
    pub(crate) fn must_shed(&self) -> bool {
        self.sheds() && self.is_overloaded()
    }

    pub(crate) fn sheds(&self) -> bool {
        self.plan.sheds
    }

    /// Whether enough waits to be written to be worth a write.
    pub(crate) fn is_batch_waiting(&self) -> bool {
        self.leaving() > self.plan.leaving_max / 4
    }

    /// The index of one stripe has another size.
    pub(crate) fn resize_index(&self, old_bytes: usize, new_bytes: usize) {
        self.index.fetch_add(new_bytes as u64, Relaxed);
        self.index.fetch_sub(old_bytes as u64, Relaxed);
    }

    pub(crate) fn index_bytes(&self) -> u64 {
        self.index.load(Relaxed)
    }

    /// Whether the index takes more than its share: the log must forget before its time.
    pub(crate) fn is_index_full(&self) -> bool {
        self.index_bytes() > self.plan.index_max
    }

    pub(crate) fn index_max(&self) -> u64 {
        self.plan.index_max
    }

    /// How many entries on disk the index's share can name.
    pub(crate) fn indexable_entries(&self) -> u64 {
        self.plan.index_max / INDEX_ENTRY_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            pool: 800,
            stripe_bits: 2,
            leaving_max: 80,
            index_max: 400,
            sheds: true,
            holds_back: true,
            in_bytes: true,
        }
    }

    fn budget() -> Budget {
        Budget::new(plan())
    }

    #[test]
    fn the_index_takes_from_every_share() {
        let budget = budget();
        assert_eq!(budget.capacity(0), 200);
        budget.resize_index(0, 400);
        assert_eq!(budget.capacity(0), 100);
        assert!(!budget.is_index_full());
        budget.resize_index(400, 401);
        assert!(budget.is_index_full());
    }

    #[test]
    fn inserts_hold_back_the_longer_the_more_waits() {
        let holds_back_ns = |holds_back, leaving| {
            let budget = Budget::new(Plan { holds_back, ..plan() });
            budget.add_leaving(leaving);
            budget.hold_back().as_nanos() as u64
        };
        let pauses = [0, 40, 60, 80, 1000].map(|leaving| holds_back_ns(true, leaving));
        assert_eq!(pauses, [0, 0, HOLD_BACK_MAX_NS / 2, HOLD_BACK_MAX_NS, HOLD_BACK_MAX_NS]);
        assert_eq!(holds_back_ns(false, 80), 0);
    }

    #[test]
    fn inserts_do_not_hold_back_for_a_thread_that_does_not_run() {
        let budget = budget();
        budget.add_leaving(80);
        budget.add_held_back(Duration::from_nanos(PATIENCE_NS + 1));
        assert!(budget.hold_back().is_zero());
        budget.note_spilling();
        assert!(!budget.hold_back().is_zero());
    }

    #[test]
    fn shares_and_loans_add_up_to_the_pool() {
        let budget = budget();
        assert!(!budget.lend(25), "an eighth of a share is not large");
        assert!(budget.lend(200));
        assert_eq!(budget.capacity(200) + 3 * budget.capacity(0), 800);
        assert!(budget.lend(200));
        assert!(!budget.lend(26), "half of the pool is lent");
        budget.give_back(200);
        assert!(budget.lend(26));
        budget.give_back(226);
        budget.resize_index(0, 701);
        assert!(!budget.lend(100), "the index leaves 99");
        assert!(budget.lend(99));
        let counted = |pool| Budget::new(Plan { in_bytes: false, pool, stripe_bits: 6, ..budget.plan });
        assert!(!counted(400).lend(1), "a stripe has room for six");
        assert!(counted(40).lend(1), "or for none");
    }
}
