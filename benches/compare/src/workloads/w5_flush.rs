//! W5: inserts until all of it is flushed, into a new directory, and what that writes; and how long one
//! insert takes while RAM is full and each of them pushes another to the disk. Nothing may be dropped.
//!
//! The keys come in random order, as a cache's do: in their own order a tree in a database appends.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::ensure_kept;
use crate::{
    content::{fill, shuffled},
    measure::{Latencies, Sample, time, written_bytes},
    peers::store::{KEY_BYTES, OpenStore, Setup, stores},
    runner::{Contest, Runner, Target},
};

/// A case and its targets.
struct Case {
    setup: Setup,
    times: f64,
    written: f64,
}

pub fn run(runner: &mut Runner) -> Result<()> {
    let (pages, rows) = (runner.scale.pick(8_192, 65_536), runner.scale.pick(50_000, 250_000));
    let setup = |entries, value_bytes| Setup { entries, value_bytes, ram_entries: entries / 8 };
    let cases = [
        Case { setup: setup(pages, 4096), times: 2.5, written: 1.03 },
        Case { setup: setup(rows, 200), times: 4.0, written: 1.3 },
    ];
    for case in cases {
        flush(runner, &case)?;
        latency(runner, case.setup)?;
    }
    Ok(())
}

fn flush(runner: &mut Runner, case: &Case) -> Result<()> {
    let field = runner.prepare(stores(), |&open| Ok(open));
    let what = format!("insert until flushed, {} B", case.setup.value_bytes);
    let contest = Contest::new("W5", what, "ns/entry")
        .target(Target::TimesBest(case.times))
        .target(Target::FigureAtMost("written a byte", case.written))
        .repetitions(runner.scale.pick(2, 3));
    let (keys, limit) = (shuffled(case.setup.entries), runner.scale.limit());
    runner.contest(&contest, &field, |&open, _| insert_all(open, case.setup, &keys, limit))
}

fn insert_all(open: OpenStore, setup: Setup, keys: &[u64], limit: Duration) -> Result<Sample> {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path(), setup)?;
    let before = written_bytes()?;
    let (took, result) = time(|| {
        store.insert_each(keys, 0, setup.value_bytes)?;
        store.flush()
    });
    result?;
    let written = written_bytes()? - before;
    // In an order that says nothing of when a key was inserted.
    ensure_kept(&*store, &Vec::from_iter(0..setup.entries), limit)?;
    store.close()?;
    let given = (setup.total_bytes() + setup.entries * KEY_BYTES) as f64;
    let mb_per_s = given / 1e6 / took.wall.as_secs_f64();
    Ok(took.per_op(setup.entries).with("MB/s", mb_per_s).with("written a byte", written as f64 / given))
}

fn latency(runner: &mut Runner, setup: Setup) -> Result<()> {
    let field = runner.prepare(stores(), |&open| Ok(open));
    let what = format!("p99.9 of an insert while spilling, {} B, 1 thread", setup.value_bytes);
    let contest =
        Contest::new("W5", what, "ns").target(Target::AtMost(50_000.0)).repetitions(runner.scale.pick(2, 3));
    let (keys, limit) = (shuffled(setup.entries), runner.scale.limit());
    runner.contest(&contest, &field, |&open, _| {
        let dir = tempfile::tempdir()?;
        insert_singly(open, dir.path(), setup, &keys, limit)
    })
}

/// One insert after the other, each for itself, into a store whose RAM is full when the clock starts.
fn insert_singly(open: OpenStore, dir: &Path, setup: Setup, keys: &[u64], limit: Duration) -> Result<Sample> {
    let store = open(dir, setup)?;
    let (first, others) = keys.split_at(setup.ram_entries as usize);
    store.insert_each(first, 0, setup.value_bytes)?;
    let mut value = vec![0; setup.value_bytes];
    let (mut took, start) = (Vec::new(), Instant::now());
    for &key in others {
        fill(&mut value, key, 0);
        let begun = Instant::now();
        store.insert(key, &value)?;
        took.push(begun.elapsed().as_nanos() as u64);
        if begun.duration_since(start) >= limit {
            break;
        }
    }
    store.flush()?;
    let mut inserted = keys[..first.len() + took.len()].to_vec();
    inserted.sort_unstable();
    ensure_kept(&*store, &inserted, limit)?;
    store.close()?;
    Ok(Latencies::new(took)?.sample())
}
