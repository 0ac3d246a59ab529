//! W2: look up, insert on a miss, with room for a tenth of the keys: the policy decides the hit ratio.
//!
//! Each repetition goes on in the sequence of keys where the one before ended: played again, it would be a
//! loop, which no cache is asked for.

use std::sync::Arc;

use anyhow::Result;

use crate::{
    content::Zipf,
    measure::{Sample, Tally, time_threads},
    peers::ram::{RamCache, policies},
    runner::{Contest, Runner, Target},
};

pub fn run(runner: &mut Runner) -> Result<()> {
    let keys = runner.scale.pick(100_000, 1_000_000);
    let mut zipf = Zipf::new(keys, 0.9, 1);
    let (capacity, warming) = (keys / 10, zipf.take(keys as usize));
    let field = runner.prepare(policies::<Arc<[u8]>>(), |open| {
        let cache = open(capacity)?;
        cache.fill_each(&warming).no_lies()?;
        Ok(cache)
    });
    for (threads, times) in [(1, 1.3), (2, 1.5), (4, 1.6)] {
        let what = format!("get, insert on miss, {keys} keys, zipf 0.9, 100 B, {threads} thread(s)");
        let contest = Contest::new("W2", what, "ns/op")
            .target(Target::Times(times, "quick_cache"))
            .target(Target::FigureAtLeastBest("hit ratio"))
            .target(Target::FigureAtLeast("filled", 0.98));
        let rounds: Vec<_> = (0..runner.scale.repetitions).map(|_| zipf.take(keys as usize)).collect();
        runner.contest(&contest, &field, |cache, repetition| {
            fill(&**cache, &rounds[repetition], threads, capacity)
        })?;
    }
    Ok(())
}

/// All of `keys`, however slow the peer: the hit ratio is to be that of the same keys.
fn fill(cache: &dyn RamCache<Arc<[u8]>>, keys: &[u64], threads: usize, capacity: u64) -> Result<Sample> {
    let share = keys.len() / threads;
    let (took, tallies) = time_threads(threads, |thread| {
        cache.fill_each(&keys[share * thread..share * (thread + 1)]).no_lies()
    })?;
    let tally: Tally = tallies.into_iter().sum();
    let filled = cache.len() as f64 / capacity as f64;
    Ok(took.per_op(tally.ops).with("hit ratio", tally.hit_ratio()).with("filled", filled))
}
