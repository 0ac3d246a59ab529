//! W2: look up, insert on a miss, with room for a tenth of the keys: the policy decides the hit ratio.

use std::sync::Arc;

use anyhow::Result;

use crate::{
    content::zipf,
    measure::{Tally, time_threads},
    peers::ram::caches,
    runner::{Contest, Runner, Target},
};

const KEYS: u64 = 1_000_000;
const CAPACITY: u64 = KEYS / 10;

pub fn run(runner: &mut Runner) -> Result<()> {
    let keys = zipf(KEYS, 0.9, runner.scale.pick(1_000_000, 4_000_000));
    let field = runner.prepare(caches::<Arc<[u8]>>(), |open| {
        let cache = open(CAPACITY)?;
        cache.fill_each(&keys);
        Ok(cache)
    });
    for (threads, times) in [(1, 1.3), (2, 1.5), (4, 1.6)] {
        let contest =
            Contest::new("W2", format!("get, insert on miss, zipf 0.9, 100 B, {threads} thread(s)"), "ns/op")
                .target(Target::Times(times, "quick_cache"));
        runner.contest(&contest, &field, |cache| {
            let (took, tallies) = time_threads(threads, |thread| {
                let share = keys.len() / threads;
                cache.fill_each(&keys[share * thread..share * (thread + 1)]).no_lies()
            })?;
            let tally = tallies.into_iter().fold(Tally::default(), Tally::add);
            Ok(took.per_op(tally.ops).with("hit ratio", tally.hits as f64 / tally.ops as f64))
        })?;
    }
    Ok(())
}
