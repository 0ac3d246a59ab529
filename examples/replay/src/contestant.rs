//! Everything that can play a trace, by name.

use anyhow::Result;
use clap::ValueEnum;
use embercache::Admission;
use serde::Serialize;

use crate::{
    ember::{Ember, TwoTiers},
    player::Player,
    policies::{Fifo, Lru, S3Fifo},
    rivals::{Foyer, Moka, QuickCache},
    trace::Trace,
};

/// Who plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Contestant {
    Embercache,
    /// So many stripes, where each has room for 256 entries.
    Embercache16,
    Embercache64,
    /// Both tiers: the log has room for ten times the RAM tier's entries.
    TwoTiers,
    TwoTiersFrugal,
    TwoTiersAll,
    /// Reference simulators.
    Fifo,
    Lru,
    S3Fifo,
    QuickCache,
    Moka,
    MokaLru,
    Foyer,
    FoyerLru,
    FoyerS3Fifo,
    FoyerSieve,
    FoyerFifo,
}

/// Those that a single trace is played by, unless others are named.
pub const OF_EACH_KIND: [Contestant; 7] = [
    Contestant::Embercache,
    Contestant::Fifo,
    Contestant::Lru,
    Contestant::S3Fifo,
    Contestant::QuickCache,
    Contestant::Moka,
    Contestant::Foyer,
];

/// Those of RAM alone, which the recipe compares; FIFO is what all are measured by.
pub const OF_RAM: &[Contestant] = &[
    Contestant::Embercache,
    Contestant::Lru,
    Contestant::S3Fifo,
    Contestant::QuickCache,
    Contestant::Moka,
    Contestant::MokaLru,
    Contestant::Foyer,
    Contestant::FoyerLru,
    Contestant::FoyerS3Fifo,
    Contestant::FoyerSieve,
    Contestant::FoyerFifo,
];

pub const OF_STRIPES: [Contestant; 2] = [Contestant::Embercache16, Contestant::Embercache64];

pub const OF_BOTH_TIERS: [Contestant; 3] =
    [Contestant::TwoTiers, Contestant::TwoTiersFrugal, Contestant::TwoTiersAll];

/// The other crates, in each of their configurations: all of those but ourselves and the simulations.
pub const CRATES: &[Contestant] = OF_RAM.split_at(3).1;

impl Contestant {
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub fn has_disk(self) -> bool {
        OF_BOTH_TIERS.contains(&self)
    }

    /// A player with room for `capacity`: entries, or bytes where the trace has weights.
    pub fn player(self, capacity: u64, trace: &Trace) -> Result<Box<dyn Player>> {
        let distinct = trace.distinct();
        let entries = || (capacity as u128 * distinct as u128 / u128::from(trace.footprint())) as usize;
        Ok(match self {
            Contestant::Embercache if trace.is_weighted() => Box::new(Ember::of_bytes(capacity)?),
            Contestant::Embercache => Box::new(Ember::of_entries(capacity, 1)?),
            Contestant::Embercache16 => Box::new(Ember::of_entries(capacity, 16)?),
            Contestant::Embercache64 => Box::new(Ember::of_entries(capacity, 64)?),
            Contestant::TwoTiers => Box::new(TwoTiers::of_entries(capacity, Admission::Duet)?),
            Contestant::TwoTiersFrugal => Box::new(TwoTiers::of_entries(capacity, Admission::Frugal)?),
            Contestant::TwoTiersAll => Box::new(TwoTiers::of_entries(capacity, Admission::All)?),
            Contestant::Fifo => Box::new(Fifo::new(capacity, distinct)),
            Contestant::Lru => Box::new(Lru::new(capacity, distinct)),
            Contestant::S3Fifo => Box::new(S3Fifo::new(capacity, distinct)),
            Contestant::QuickCache => Box::new(QuickCache::new(capacity, entries())?),
            Contestant::Moka => Box::new(Moka::tiny_lfu(capacity)),
            Contestant::MokaLru => Box::new(Moka::lru(capacity)),
            Contestant::Foyer => Box::new(Foyer::lfu(capacity)),
            Contestant::FoyerLru => Box::new(Foyer::lru(capacity)),
            Contestant::FoyerS3Fifo => Box::new(Foyer::s3_fifo(capacity)),
            Contestant::FoyerSieve => Box::new(Foyer::sieve(capacity)),
            Contestant::FoyerFifo => Box::new(Foyer::fifo(capacity)),
        })
    }
}
