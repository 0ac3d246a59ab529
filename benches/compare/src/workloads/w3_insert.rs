//! W3: inserts only, of keys that are always new, into a full cache.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::{Result, ensure};

use crate::{
    content::Payload,
    measure::{Latencies, Sample, time_threads},
    peers::ram::{RamCache, policies},
    runner::{Contest, Runner, Target},
};

const CAPACITY: u64 = 100_000;
/// The last of the keys that a repetition inserts are the ones that should still be there.
const RECENT: u64 = 10;

/// A cache, and the next key that it has never seen.
struct Full {
    cache: Box<dyn RamCache<Arc<[u8]>>>,
    /// Relaxed: only its uniqueness matters.
    next: AtomicU64,
}

pub fn run(runner: &mut Runner) -> Result<()> {
    let inserts = runner.scale.pick(200_000, 1_000_000);
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
        runner.contest(&contest, &field, |full, _| full.insert(threads, inserts))?;
    }
    let contest = Contest::new("W3", "p99.9 of an insert, 1 thread", "ns").target(Target::AtMost(5_000.0));
    runner.contest(&contest, &field, |full, _| full.latency(inserts))
}

impl Full {
    fn insert(&self, threads: usize, inserts: u64) -> Result<Sample> {
        let share = inserts / threads as u64;
        let (took, _) = time_threads(threads, |_| {
            let first = self.next.fetch_add(share, Ordering::Relaxed);
            self.cache.insert_each(first..first + share);
            Ok(())
        })?;
        let end = self.next.load(Ordering::Relaxed);
        for key in end - RECENT..end {
            ensure!(self.cache.check(key) != Some(false), "LIES about key {key}");
        }
        Ok(took.per_op(share * threads as u64).with("filled", self.cache.len() as f64 / CAPACITY as f64))
    }

    fn latency(&self, inserts: u64) -> Result<Sample> {
        let first = self.next.fetch_add(inserts, Ordering::Relaxed);
        let took = (first..first + inserts)
            .map(|key| {
                let value = <Arc<[u8]>>::of(key);
                let start = Instant::now();
                self.cache.insert(key, value);
                start.elapsed().as_nanos() as u64
            })
            .collect();
        Ok(Latencies::new(took)?.sample())
    }
}
