//! What is written to the log when it leaves RAM, and what comes back from there.

use super::{
    entry::{Flags, Meta},
    ghost::Ghost,
};
use crate::{hash::KeyHash, options::Admission};

/// The chance of an entry that nothing speaks for, of `u32::MAX`.
const COIN: u32 = u32::MAX / 10;

/// A stripe's keeper of the log. Called under the stripe's lock.
///
/// An entry that was refused is remembered by its fingerprint. One that is evicted again while it
/// is remembered was wanted twice within the time that the log would have kept it: it would have
/// been a disk hit.
#[derive(Debug)]
pub(crate) struct Gate {
    admission: Admission,
    refused: Ghost,
    /// What `refused` is to be fit to before the next is put there.
    disk_entries: u64,
    /// xorshift64; never 0.
    random: u64,
}

impl Gate {
    pub(crate) fn new(admission: Admission, seed: u64) -> Gate {
        Gate { admission, refused: Ghost::new(), disk_entries: 0, random: seed | 1 }
    }

    /// Says how many entries this stripe's part of the log holds when it is full: as many refusals
    /// are remembered. Call it again when the mean size of a record has changed.
    pub(crate) fn set_disk_entries(&mut self, entries: u64) {
        self.disk_entries = entries;
    }

    /// Decides about an entry that leaves RAM without a clean copy in the log. `log_wrapped` says
    /// that the log has been full once, so that a write costs another entry its place.
    pub(crate) fn admits(&mut self, meta: &Meta, log_wrapped: bool) -> bool {
        if self.admission == Admission::All || !log_wrapped || earned(meta) {
            return true;
        }
        if self.refused.take(meta.hash).is_some() || self.toss() {
            return true;
        }
        self.refused.put(meta.hash, 0, self.disk_entries);
        false
    }

    pub(crate) fn clear(&mut self) {
        self.refused.clear();
    }

    pub(crate) fn overhead_bytes(&self) -> usize {
        self.refused.overhead_bytes()
    }

    fn toss(&mut self) -> bool {
        if self.admission == Admission::Frugal {
            return false;
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((self.random >> 32) as u32) < COIN
    }
}

/// A stripe's keeper of RAM. Called under the stripe's lock.
///
/// To bring a disk hit back costs more than to read it, as another entry has to leave for it. So where there
/// is no room, and the policy does not know it either, it comes back when it is hit again, before so many others
/// as RAM holds twice: what is hit more seldom would have left again by then.
#[derive(Debug)]
pub(crate) struct Readmission {
    hit: Ghost,
}

impl Readmission {
    pub(crate) fn new() -> Readmission {
        Readmission { hit: Ghost::new() }
    }

    /// Decides about a key that was hit on disk and the policy does not know, while so many entries are in RAM.
    pub(crate) fn admits(&mut self, hash: KeyHash, residents: u64) -> bool {
        if self.hit.take(hash).is_some() {
            return true;
        }
        self.hit.put(hash, 0, residents * 2);
        false
    }

    pub(crate) fn clear(&mut self) {
        self.hit.clear();
    }

    pub(crate) fn overhead_bytes(&self) -> usize {
        self.hit.overhead_bytes()
    }
}

/// Hit in RAM, or in the log before.
fn earned(meta: &Meta) -> bool {
    meta.was_hit() || meta.has(Flags::FROM_DISK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::entry::Usage;

    const WRAPPED: bool = true;

    fn meta(hash: u64) -> Meta {
        Meta::new(KeyHash(hash.wrapping_mul(0x2545_f491_4f6c_dd1d)), 1)
    }

    fn gate(admission: Admission) -> Gate {
        let mut gate = Gate::new(admission, 7);
        gate.set_disk_entries(1000);
        gate
    }

    #[test]
    fn what_was_hit_or_came_from_the_log_is_written() {
        let mut gate = gate(Admission::Frugal);
        assert!(!gate.admits(&meta(1), WRAPPED), "nothing speaks for it");
        let hit = meta(2);
        hit.hit();
        assert!(gate.admits(&hit, WRAPPED), "hit in RAM");
        let frequent = meta(3);
        frequent.set_usage(Usage { freq: 1, ..Usage::default() });
        assert!(gate.admits(&frequent, WRAPPED), "hit in RAM before");
        let promoted = meta(4);
        promoted.set(Flags::FROM_DISK);
        assert!(gate.admits(&promoted, WRAPPED), "came from the log");
    }

    #[test]
    fn a_refused_key_is_written_when_it_is_back() {
        let mut gate = gate(Admission::Frugal);
        assert!(!gate.admits(&meta(1), WRAPPED));
        assert!(gate.admits(&meta(1), WRAPPED), "back soon");
        assert!(!gate.admits(&meta(1), WRAPPED), "its refusal was forgotten with that");
        for other in 2..10_000 {
            gate.admits(&meta(other), WRAPPED);
        }
        assert!(!gate.admits(&meta(1), WRAPPED), "back after the log would have lost it");
    }

    #[test]
    fn a_second_hit_comes_back_unless_too_many_lie_between() {
        let hash = |key| meta(key).hash;
        let mut readmission = Readmission::new();
        assert!(!readmission.admits(hash(1), 1000), "its first hit");
        assert!(readmission.admits(hash(1), 1000), "its second");
        assert!(!readmission.admits(hash(1), 1000), "that was forgotten when it came back");
        let returned = (2..10_000).filter(|&key| readmission.admits(hash(key), 1000)).count();
        assert!(returned < 20, "{returned} keys were hit once and came back");
        assert!(!readmission.admits(hash(1), 1000), "too long ago");
    }

    #[test]
    fn one_in_ten_of_the_rest_is_written() {
        let count = |admission, wrapped| {
            let mut gate = gate(admission);
            (0..10_000).filter(|&key| gate.admits(&meta(key), wrapped)).count()
        };
        assert!((900..1100).contains(&count(Admission::Duet, WRAPPED)));
        // A key in some thousand is taken for another that was refused.
        assert!(count(Admission::Frugal, WRAPPED) < 20);
        assert_eq!(count(Admission::All, WRAPPED), 10_000);
        assert_eq!(count(Admission::Duet, !WRAPPED), 10_000, "an empty log costs nothing");
    }
}
