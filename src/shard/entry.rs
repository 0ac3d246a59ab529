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

/// An entry on its way into the slab, and its times if it has any.
#[derive(Debug)]
pub(crate) struct Arrival<K, V> {
    pub(crate) entry: Entry<K, V>,
    pub(crate) times: Option<Times>,
}

/// An entry in the slab, and its times if it has any.
#[derive(Debug)]
pub(crate) struct Resident<'g, K, V> {
    pub(crate) entry: &'g Entry<K, V>,
    pub(crate) times: Option<&'g Times>,
}

impl<K, V> Clone for Resident<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Resident<'_, K, V> {}

/// When an entry expires, in ticks of the cache's clock. Kept beside the slab, for entries that
/// can: most caches have none.
#[derive(Debug)]
pub(crate) struct Times {
    /// 0 is never.
    pub(crate) deadline: u32,
    /// When it was last hit; kept only with time-to-idle. Relaxed: it only rises, at last to what says that the
    /// entry has idled out.
    pub(crate) touched: AtomicU32,
    /// The last hit that its copy on disk knows of; kept only with time-to-idle. Relaxed: once the entry is linked,
    /// the maintenance thread alone reads and writes it.
    pub(crate) copied: AtomicU32,
}

/// Everything about an entry but its key, its value and its times: 16 bytes, which no look-up can
/// do without and each entry in RAM pays for.
///
/// All fields that change are atomics with Relaxed ordering, since readers look at the entry
/// without the stripe's lock. Only `usage` is written without it, and that is a hint: an update
/// that a hit and the policy make at once and one of them loses is a count more or less. The others are written
/// under the lock, which orders them. Readers without it look at one flag, `TIMED`, which is set before the entry
/// is linked and never again: the Release store of `Bucket::set_slot` publishes it.
#[derive(Debug)]
pub(crate) struct Meta {
    pub(crate) hash: KeyHash,
    /// Its place in one of the policy's rings; the top bit says in which.
    pub(crate) place: AtomicU32,
    weight: Weight,
    /// [`Usage`].
    usage: AtomicU8,
    /// [`Flags`].
    flags: AtomicU8,
}

const _: () = assert!(size_of::<Meta>() == 16);

/// How much an entry was used, in the eyes of the policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Hits since a hand last came by, 0..=3.
    pub(super) count: u8,
    /// It starts another round in S: its count is credit from the round before and outlives the
    /// border that clears bursts.
    pub(super) carries: bool,
    /// DUET's frequency, 0..=7.
    pub(super) freq: u8,
}

impl Usage {
    pub(super) const FREQ_MAX: u8 = 7;
    /// `freq 3 | carries 1 | count 2`, the count lowest, so that a hit adds 1.
    const COUNT_MASK: u8 = 3;
    const CARRIES: u8 = 1 << 2;
    const FREQ_SHIFT: u32 = 3;

    #[inline]
    fn of_bits(bits: u8) -> Usage {
        Usage {
            count: bits & Usage::COUNT_MASK,
            carries: bits & Usage::CARRIES != 0,
            freq: bits >> Usage::FREQ_SHIFT,
        }
    }

    #[inline]
    fn bits(self) -> u8 {
        debug_assert!(self.count <= Usage::COUNT_MASK && self.freq <= Usage::FREQ_MAX);
        let carries = if self.carries { Usage::CARRIES } else { 0 };
        self.freq << Usage::FREQ_SHIFT | carries | self.count
    }

    /// The same with a higher frequency.
    #[inline]
    pub(super) fn raised_by(self, more: u8) -> Usage {
        Usage { freq: Usage::FREQ_MAX.min(self.freq + more), ..self }
    }
}

/// What an entry costs the budget, rounded up to 11 significant bits: by a thousandth at the most,
/// and not at all below 2,048. `exponent 5 | mantissa 11`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Weight(u16);

impl Weight {
    const MANTISSA_BITS: u32 = 11;

    #[inline]
    fn rounded_up(weight: u32) -> Weight {
        if weight < 1 << Weight::MANTISSA_BITS {
            return Weight(weight as u16);
        }
        let exponent = (u32::BITS - weight.leading_zeros()).saturating_sub(Weight::MANTISSA_BITS);
        let mantissa = u64::from(weight).div_ceil(1 << exponent);
        // Rounding may carry into a twelfth bit.
        let carry = (mantissa >> Weight::MANTISSA_BITS) as u32;
        Weight(((exponent + carry) << Weight::MANTISSA_BITS) as u16 | (mantissa >> carry) as u16)
    }

    #[inline]
    fn get(self) -> u64 {
        let mantissa = self.0 & ((1 << Weight::MANTISSA_BITS) - 1);
        u64::from(mantissa) << (self.0 >> Weight::MANTISSA_BITS)
    }
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
    /// It has [`Times`]. Set before the entry is linked and never changed, so readers may look.
    pub(super) const TIMED: Flags = Flags(1 << 7);
}

impl Meta {
    #[inline]
    pub(crate) fn new(hash: KeyHash, weight: u32) -> Meta {
        Meta {
            hash,
            place: AtomicU32::new(u32::MAX),
            weight: Weight::rounded_up(weight),
            usage: AtomicU8::new(0),
            flags: AtomicU8::new(0),
        }
    }

    /// What the entry costs the budget, metadata included.
    #[inline]
    pub(crate) fn weight(&self) -> u64 {
        self.weight.get()
    }

    /// Counts a hit: the only write that a hit makes to the entry, and none at all once the count is
    /// at its maximum.
    #[inline]
    pub(crate) fn hit(&self) {
        let bits = self.usage.load(Relaxed);
        if bits & Usage::COUNT_MASK < Usage::COUNT_MASK {
            self.usage.store(bits + 1, Relaxed);
        }
    }

    #[inline]
    pub(super) fn usage(&self) -> Usage {
        Usage::of_bits(self.usage.load(Relaxed))
    }

    #[inline]
    pub(super) fn set_usage(&self, usage: Usage) {
        self.usage.store(usage.bits(), Relaxed);
    }

    /// Whether it was hit since a hand last came by.
    pub(crate) fn was_hit_lately(&self) -> bool {
        let usage = self.usage();
        usage.count > 0 || usage.carries
    }

    /// Whether it was ever hit, as far as the policy remembers.
    pub(crate) fn was_hit(&self) -> bool {
        self.usage() != Usage::default()
    }

    #[inline]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_rounded_up_and_by_little() {
        let around = |power: u32| [-1_i64, 0, 1].map(|by| (1_i64 << power) + by);
        let weights = (0..32).flat_map(around).chain([0, 1_000_003, u32::MAX.into()]);
        for weight in weights.filter_map(|weight| u32::try_from(weight).ok()) {
            let (exact, rounded) = (u64::from(weight), Weight::rounded_up(weight).get());
            assert!(rounded >= exact && rounded - exact <= exact / 1024, "{exact} became {rounded}");
            assert!(exact >= 2048 || rounded == exact);
        }
    }

    #[test]
    fn hits_are_counted_up_to_three_beside_the_frequency() {
        let meta = Meta::new(KeyHash(1), 1);
        assert!(!meta.was_hit());
        let usage = Usage { count: 1, carries: true, freq: 7 };
        meta.set_usage(usage);
        (0..9).for_each(|_| meta.hit());
        assert_eq!(meta.usage(), Usage { count: 3, ..usage });
        meta.set_usage(Usage { freq: 1, ..Usage::default() });
        assert!(meta.was_hit() && !meta.was_hit_lately());
    }
}
