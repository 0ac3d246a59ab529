//! W3: inserts only, of keys that are always new, into a full cache.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    content::Payload,
    measure::{Latencies, Sample, time_threads},
    peers::ram::{RamCache, policies},
    runner::{Contest, Runner, Target},
};

const CAPACITY: u64 = 100_000;
/// Keys between two looks at the clock.
const PIECE: u64 = 1_000;
/// The last of the keys that a repetition inserts are the ones that should still be there.
const RECENT: u64 = 10;

/// A cache, and the next key that it has never seen.
struct Full {
    cache: Box<dyn RamCache<Arc<[u8]>>>,
    /// Relaxed: only its uniqueness matters.
    next: AtomicU64,
}

pub fn run(runner: &mut Runner) -> Result<()> {
    let (inserts, limit) = (runner.scale.pick(100_000, 1_000_000), runner.scale.limit());
    let field = runner.prepare(policies(), |open| {
        let cache = open(CAPACITY)?;
        cache.insert_each(0..CAPACITY * 3);
        Ok(Full { cache, next: AtomicU64::new(CAPACITY * 3) })
    });
    for threads in [1, 2] {
        let contest =
            Contest::new("W3", format!("insert, steady eviction, 100 B, {threads} thread(s)"), "ns/op")
                .target(Target::TimesBest(1.5))
                .target(Target::FigureAtLeast("filled", 0.98));
        runner.contest(&contest, &field, |full, _| full.insert(threads, inserts, limit))?;
    }
    let contest = Contest::new("W3", "p99.9 of an insert, 1 thread", "ns").target(Target::AtMost(5_000.0));
    runner.contest(&contest, &field, |full, _| full.latency(inserts, limit))
}

impl Full {
    /// Pieces of new keys on each thread, until all are stored or the time is up.
    fn insert(&self, threads: usize, inserts: u64, limit: Duration) -> Result<Sample> {
        let pieces = inserts / threads as u64 / PIECE;
        let (took, stored) = time_threads(threads, |_| {
            let end = Instant::now() + limit;
            let mut stored = 0;
            while stored < pieces * PIECE && Instant::now() < end {
                let first = self.next.fetch_add(PIECE, Ordering::Relaxed);
                self.cache.insert_each(first..first + PIECE);
                stored += PIECE;
            }
            Ok(stored)
        })?;
        let end = self.next.load(Ordering::Relaxed);
        for key in end - RECENT..end {
            ensure!(self.cache.check(key) != Some(false), "LIES about key {key}");
        }
        let filled = self.cache.len() as f64 / CAPACITY as f64;
        Ok(took.per_op(stored.into_iter().sum()).with("filled", filled))
    }

    fn latency(&self, inserts: u64, limit: Duration) -> Result<Sample> {
        let start = Instant::now();
        let mut took = Vec::new();
        while took.len() < inserts as usize && start.elapsed() < limit {
            let key = self.next.fetch_add(1, Ordering::Relaxed);
            let value = <Arc<[u8]>>::of(key);
            let begun = Instant::now();
            self.cache.insert(key, value);
            took.push(begun.elapsed().as_nanos() as u64);
        }
        Ok(Latencies::new(took)?.sample())
    }
}
