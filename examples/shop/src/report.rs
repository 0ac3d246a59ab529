//! What a serving process tells about itself.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A run in numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub took: Duration,
    /// From the start of the service until it could answer; part of `took`.
    pub ready: Duration,
    /// All requests.
    pub all: Latency,
    /// Product pages alone.
    pub pages: Latency,
    pub queries: u64,
    pub changes: u64,
    /// Pages whose version was compared with what had been acknowledged before they were asked for.
    pub checked: u64,
    /// Those of them that were older.
    pub stale: u64,
    /// Look-ups of the caches: answered from RAM, from disk, not at all.
    pub lookups: Option<[u64; 3]>,
    /// How the cache came up.
    pub start: Option<String>,
    /// Entries it found on disk.
    pub recovered: u64,
    pub survivors: Option<Survivors>,
}

impl Report {
    pub fn requests_per_second(&self) -> f64 {
        self.all.count as f64 / self.took.as_secs_f64()
    }

    /// Look-ups answered from RAM and from disk, of all.
    pub fn hit_ratios(&self) -> Option<[f64; 2]> {
        self.lookups.map(|lookups| {
            let all = lookups.iter().sum::<u64>().max(1) as f64;
            [lookups[0] as f64 / all, lookups[1] as f64 / all]
        })
    }

    /// Stale pages of the run and of the comparison after it.
    pub fn all_stale(&self) -> u64 {
        self.stale + self.survivors.as_ref().map_or(0, |survivors| survivors.stale)
    }
}

/// How long requests took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    pub p50: Duration,
    pub p99: Duration,
    pub p999: Duration,
}

impl Latency {
    /// From a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        let at = |quantile| Duration::from_nanos(histogram.value_at_quantile(quantile));
        Latency { count: histogram.len(), p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}

/// All cached pages, compared with the database when the run was over.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Survivors {
    pub compared: u64,
    pub stale: u64,
}
