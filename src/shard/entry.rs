//! One resident entry: a key, its value, and what the policy and the tiers know about it.

use crate::{
    hash::KeyHash,
    sync::{AtomicU8, AtomicU32, Ordering::Relaxed},
};

/// The number of a place in a stripe's slab. Stable while the entry is resident; used again only
/// after every reader that could have seen the old entry has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SlotId(pub(crate) u32);

/// An entry in the slab. Key and value never change while it is resident: an overwrite puts a new
/// entry in the old one's place, so a reader sees the one or the other.
#[derive(Debug)]
pub(crate) struct Entry<K, V> {
    pub(crate) meta: Meta,
    pub(crate) key: K,
    pub(crate) value: V,
}

/// The low two bits of [`Meta::refs`]: hits since a hand last came by.
pub(super) const COUNT: u8 = 3;

/// Everything about an entry but its key and value.
///
/// All fields that change are atomics with Relaxed ordering, since readers look at the entry
/// without the stripe's lock. Only `refs` and `touched` are written without it. `refs` is a hint: an
/// update that a hit and a hand make at once and one of them loses is a count more or less.
/// `touched` only rises. Everything else is written and read under the lock, which orders it.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) hash: KeyHash,
    /// What the entry costs the budget, metadata included.
    pub(crate) weight: u32,
    /// When it expires, in ticks of the cache's clock; 0 is never.
    pub(crate) deadline: u32,
    /// When it was last hit, in ticks; kept only with time-to-idle.
    pub(crate) touched: AtomicU32,
    /// Its place in one of the policy's rings; the top bit says in which.
    pub(crate) place: AtomicU32,
    /// CLOCK count 0..=3 and the CARRY bit.
    pub(crate) refs: AtomicU8,
    /// DUET's frequency 0..=7.
    pub(crate) freq: AtomicU8,
    /// [`Flags`].
    flags: AtomicU8,
}

/// What the tiers know about an entry, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags(u8);

impl Flags {
    /// The cold index names a copy of this very value.
    pub(crate) const ON_DISK: Flags = Flags(1);
    /// A copy is queued or in flight: the stripe's pending table has it.
    pub(crate) const PENDING: Flags = Flags(1 << 1);
    /// Evicted by the policy, resident until its copy is written.
    pub(crate) const LEAVING: Flags = Flags(1 << 2);
    /// Was promoted from disk.
    pub(crate) const FROM_DISK: Flags = Flags(1 << 3);
    /// Low bit of the two-bit age: write-behind's sweeps since it was stored.
    const AGE_SHIFT: u32 = 4;
    const AGE_MASK: u8 = 0b11 << Self::AGE_SHIFT;
    /// Its weight is borrowed from the other stripes.
    pub(crate) const BORROWED: Flags = Flags(1 << 6);
}

impl Meta {
    pub(crate) fn new(hash: KeyHash, weight: u32, deadline: u32, touched: u32) -> Meta {
        Meta {
            hash,
            weight,
            deadline,
            touched: AtomicU32::new(touched),
            place: AtomicU32::new(u32::MAX),
            refs: AtomicU8::new(0),
            freq: AtomicU8::new(0),
            flags: AtomicU8::new(0),
        }
    }

    /// Counts a hit: but for `touched`, the only write that a hit makes to the entry, and none at all
    /// once the count is at its maximum.
    #[inline]
    pub(crate) fn hit(&self) {
        let refs = self.refs.load(Relaxed);
        if refs & COUNT < COUNT {
            self.refs.store(refs + 1, Relaxed);
        }
    }

    pub(crate) fn has(&self, flag: Flags) -> bool {
        self.flags.load(Relaxed) & flag.0 != 0
    }

    pub(crate) fn set(&self, flag: Flags) {
        self.flags.store(self.flags.load(Relaxed) | flag.0, Relaxed);
    }

    pub(crate) fn clear(&self, flag: Flags) {
        self.flags.store(self.flags.load(Relaxed) & !flag.0, Relaxed);
    }

    /// The number of write-behind sweeps that have seen this entry, up to 3.
    pub(crate) fn age(&self) -> u8 {
        (self.flags.load(Relaxed) & Flags::AGE_MASK) >> Flags::AGE_SHIFT
    }

    pub(crate) fn set_age(&self, age: u8) {
        assert!(age <= 3, "an age has two bits");
        let rest = self.flags.load(Relaxed) & !Flags::AGE_MASK;
        self.flags.store(rest | age << Flags::AGE_SHIFT, Relaxed);
    }
}
