//! W1: a million keys that all fit, looked up by zipf 0.99; every look-up has to hit.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    child,
    content::{Payload, Zipf},
    measure::{Sample, Tally, time_threads, within},
    peers::ram::{OpenRam, RamCache, batched, caches, references},
    runner::{Contest, Entrant, Runner, Target},
};

const KEYS: u64 = 1_000_000;
/// Room for all keys even where a cache's shards are not equally full.
const CAPACITY: u64 = KEYS * 13 / 10;

type Ram<V> = Box<dyn RamCache<V>>;

pub fn run(runner: &mut Runner) -> Result<()> {
    let keys = Zipf::new(KEYS, 0.99, 0).take(runner.scale.pick(100_000, 1_000_000));
    numbers(runner, &keys)?;
    batches(runner, &keys)?;
    blobs(runner, &keys)?;
    memory(runner)
}

fn numbers(runner: &mut Runner, keys: &[u64]) -> Result<()> {
    let field = fill(runner, peers::<u64>());
    let limit = runner.scale.limit();
    for (threads, times) in [(1, 1.8), (2, 1.8), (4, 2.0)] {
        let contest = contest(format!("get, u64 to u64, {threads} thread(s)"), times);
        runner.contest(&contest, &field, |cache, _| hits(cache, keys, threads, limit, RamCache::get_each))?;
    }
    // So many that starting the threads takes no part worth mentioning.
    let hot = vec![keys[0]; runner.scale.pick(300_000, 1_000_000)];
    let contest = Contest::new("W1", "one hot key, u64 to u64, 2 threads against 1", "of 1 thread's time")
        .target(Target::FigureAtLeast("scaling", 1.9));
    runner.contest(&contest, &field, |cache, _| {
        let one = hits(cache, &hot, 1, limit, RamCache::get_each)?;
        let two = hits(cache, &hot, 2, limit, RamCache::get_each)?;
        Ok(Sample::of(two.value / one.value).with("ns", two.value).with("scaling", one.value / two.value))
    })
}

/// Against ours looked up one by one: no peer has such a look-up.
fn batches(runner: &mut Runner, keys: &[u64]) -> Result<()> {
    let field = fill(runner, batched::<u64>());
    let contest = Contest::new("W1", "get_many of 16, u64 to u64, 1 thread(s)", "ns/op")
        .target(Target::Times(2.5, "embercache_get"));
    let limit = runner.scale.limit();
    runner.contest(&contest, &field, |cache, _| hits(cache, keys, 1, limit, RamCache::get_each))
}

fn blobs(runner: &mut Runner, keys: &[u64]) -> Result<()> {
    let field = fill(runner, peers::<Arc<[u8]>>());
    let limit = runner.scale.limit();
    for threads in [1, 2] {
        let lent = contest(format!("get_with, u64 to 100 B, {threads} thread(s)"), 1.7);
        runner.contest(&lent, &field, |cache, _| hits(cache, keys, threads, limit, RamCache::check_each))?;
        let cloned = contest(format!("get, u64 to 100 B, {threads} thread(s)"), 1.5);
        runner.contest(&cloned, &field, |cache, _| hits(cache, keys, threads, limit, RamCache::get_each))?;
    }
    Ok(())
}

fn contest(what: String, times: f64) -> Contest {
    Contest::new("W1", what, "ns/op").target(Target::Times(times, "quick_cache"))
}

fn fill<V: Payload>(runner: &Runner, peers: Vec<(&'static str, OpenRam<V>)>) -> Vec<Entrant<Ram<V>>> {
    runner.prepare(peers, |open| {
        let cache = open(CAPACITY)?;
        cache.insert_each(0..KEYS);
        ensure!(cache.len() == KEYS, "only {} of {KEYS} fit", cache.len());
        Ok(cache)
    })
}

/// `keys` on each thread, from somewhere else in the same sequence on.
fn hits<V: Payload>(
    cache: &Ram<V>,
    keys: &[u64],
    threads: usize,
    limit: Duration,
    look_up: impl Fn(&(dyn RamCache<V> + 'static), &[u64]) -> Tally + Sync,
) -> Result<Sample> {
    let (took, tallies) = time_threads(threads, |thread| {
        let (before, after) = keys.split_at(keys.len() / threads * thread);
        within(limit, [after, before], |keys| Ok(look_up(&**cache, keys)))?.all_hits()
    })?;
    let tally: Tally = tallies.into_iter().sum();
    Ok(took.per_op(tally.ops))
}

/// By processes of their own, so that nothing freed before is used again unseen.
fn memory(runner: &mut Runner) -> Result<()> {
    let keys = runner.scale.pick(250_000, 1_000_000).to_string();
    let kinds =
        [("u64", "u64", Some(30.0)), ("100 B by Arc", "Arc", None), ("100 B inline", "array", Some(50.0))];
    for (value, kind, most) in kinds {
        let names = peers::<u64>().into_iter().map(|(name, _)| (name, name)).collect();
        let field = runner.prepare(names, |&peer| child::sample(&["ram-entry", peer, kind, &keys]));
        let contest = Contest::new("W1", format!("RAM an entry beyond its payload, u64 to {value}"), "bytes")
            .repetitions(1);
        let contest = most.map_or(contest.clone(), |most| contest.target(Target::AtMost(most)));
        runner.contest(&contest, &field, |sample, _| Ok(sample.clone()))?;
    }
    Ok(())
}

fn peers<V: Payload>() -> Vec<(&'static str, OpenRam<V>)> {
    let mut peers = caches();
    peers.extend(references());
    peers
}
