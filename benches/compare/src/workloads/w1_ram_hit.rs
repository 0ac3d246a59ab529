//! W1: a million keys that all fit, looked up by zipf 0.99; every look-up has to hit.

use std::sync::Arc;

use anyhow::{Result, ensure};

use crate::{
    child,
    content::{Payload, zipf},
    measure::{Sample, Tally, time_threads},
    peers::ram::{OpenRam, RamCache, caches, references},
    runner::{Contest, Entrant, Runner, Target},
};

const KEYS: u64 = 1_000_000;
/// Room for all keys even where a cache's shards are not equally full.
const CAPACITY: u64 = KEYS * 13 / 10;

type Ram<V> = Box<dyn RamCache<V>>;

pub fn run(runner: &mut Runner) -> Result<()> {
    let keys = zipf(KEYS, 0.99, runner.scale.pick(500_000, 4_000_000));
    numbers(runner, &keys)?;
    arcs(runner, &keys)?;
    memory(runner)
}

fn numbers(runner: &mut Runner, keys: &[u64]) -> Result<()> {
    let field = fill::<u64>(runner);
    for (threads, times) in [(1, 1.8), (2, 1.8), (4, 2.0)] {
        let contest = contest(format!("get, u64 to u64, {threads} thread(s)"), times);
        runner.contest(&contest, &field, |cache| hits(cache, keys, threads, RamCache::get_each))?;
    }
    let hot = vec![keys[0]; keys.len()];
    let contest = Contest::new("W1", "one hot key, u64 to u64, 2 threads against 1", "of 1 thread's time")
        .target(Target::AtMost(1.0 / 1.9));
    runner.contest(&contest, &field, |cache| {
        let one = hits(cache, &hot, 1, RamCache::get_each)?;
        let two = hits(cache, &hot, 2, RamCache::get_each)?;
        Ok(Sample::of(two.value / one.value).with("ns", two.value).with("scaling", one.value / two.value))
    })
}

fn arcs(runner: &mut Runner, keys: &[u64]) -> Result<()> {
    let field = fill::<Arc<[u8]>>(runner);
    for threads in [1, 2] {
        let lent = contest(format!("get_with, u64 to 100 B, {threads} thread(s)"), 1.7);
        runner.contest(&lent, &field, |cache| hits(cache, keys, threads, RamCache::check_each))?;
        let cloned = contest(format!("get, u64 to 100 B, {threads} thread(s)"), 1.5);
        runner.contest(&cloned, &field, |cache| hits(cache, keys, threads, RamCache::get_each))?;
    }
    Ok(())
}

fn contest(what: String, times: f64) -> Contest {
    Contest::new("W1", what, "ns/op").target(Target::Times(times, "quick_cache"))
}

fn fill<V: Payload>(runner: &Runner) -> Vec<Entrant<Ram<V>>> {
    runner.prepare(peers::<V>(), |open| {
        let cache = open(CAPACITY)?;
        cache.insert_each(0..KEYS);
        ensure!(cache.len() == KEYS, "only {} of {KEYS} fit", cache.len());
        Ok(cache)
    })
}

/// `keys` on each thread, somewhere else in the same sequence.
fn hits<V: Payload>(
    cache: &Ram<V>,
    keys: &[u64],
    threads: usize,
    look_up: impl Fn(&(dyn RamCache<V> + 'static), &[u64]) -> Tally + Sync,
) -> Result<Sample> {
    let (took, tallies) = time_threads(threads, |thread| {
        let (before, after) = keys.split_at(keys.len() / threads * thread);
        look_up(&**cache, after).add(look_up(&**cache, before)).all_hits()
    })?;
    let tally = tallies.into_iter().fold(Tally::default(), Tally::add);
    Ok(took.per_op(tally.ops))
}

/// By processes of their own, so that nothing freed before is used again unseen.
fn memory(runner: &mut Runner) -> Result<()> {
    let names = |peers: Vec<(&'static str, OpenRam<u64>)>| -> Vec<_> {
        peers.into_iter().map(|(name, _)| (name, name)).collect()
    };
    let field = runner.prepare(names(peers()), |&name| Ok(name));
    for (value, most) in [("u64", 30.0), ("100B", 50.0)] {
        let contest = Contest::new("W1", format!("RAM an entry beyond its payload, u64 to {value}"), "bytes")
            .target(Target::AtMost(most));
        runner.contest(&contest, &field, |peer| child::sample(&["ram-entry", peer, value]))?;
    }
    Ok(())
}

fn peers<V: Payload>() -> Vec<(&'static str, OpenRam<V>)> {
    let mut peers = caches();
    peers.extend(references());
    peers
}
