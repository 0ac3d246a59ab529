//! W4: hits on disk, in the page cache, RAM far too small for the values; every look-up has to hit.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    content::shuffled,
    measure::{Sample, Tally, time_threads},
    peers::store::{Setup, Store, stores},
    runner::{Contest, Runner, Target},
};

/// An open store in a directory of its own.
struct Filled {
    store: Box<dyn Store>,
    _dir: TempDir,
    disk_bytes: u64,
}

pub fn run(runner: &mut Runner) -> Result<()> {
    let (pages, rows) = (runner.scale.pick(16_384, 65_536), runner.scale.pick(100_000, 250_000));
    of_size(runner, pages, 4096, 1.4, 4_200.0)?;
    of_size(runner, rows, 200, 2.0, 275.0)
}

fn of_size(runner: &mut Runner, entries: u64, value_bytes: usize, times: f64, most: f64) -> Result<()> {
    let setup = Setup { entries, value_bytes, ram_entries: entries / 128 };
    let field = runner.prepare(stores(), |open| {
        let dir = tempfile::tempdir()?;
        let store = open(dir.path(), setup)?;
        store.insert_each(0..entries, 0, value_bytes)?;
        store.flush()?;
        store.close()?;
        let disk_bytes = disk_bytes(dir.path())?;
        let store = open(dir.path(), setup)?;
        store.check_each(&shuffled(entries), 0)?;
        Ok(Filled { store, _dir: dir, disk_bytes })
    });
    runner.settle();
    let keys = shuffled(entries);
    for threads in [1, 2] {
        let contest =
            Contest::new("W4", format!("get, disk hit, {value_bytes} B, {threads} thread(s)"), "ns/op")
                .target(Target::Times(times, "lmdb_kept"));
        runner.contest(&contest, &field, |filled| hits(&*filled.store, &keys, threads))?;
    }
    let contest = Contest::new("W4", format!("disk an entry, 16 B keys, {value_bytes} B"), "bytes")
        .target(Target::AtMost(most));
    runner.contest(&contest, &field, |filled| Ok(Sample::of(filled.disk_bytes as f64 / entries as f64)))
}

/// All keys once: by the time that a key is asked for again, RAM has seen all the others.
fn hits(store: &dyn Store, keys: &[u64], threads: usize) -> Result<Sample> {
    let before = store.ram_hits();
    let share = keys.len() / threads;
    let (took, tallies) = time_threads(threads, |thread| {
        store.check_each(&keys[share * thread..share * (thread + 1)], 0)?.all_hits()
    })?;
    let tally = tallies.into_iter().fold(Tally::default(), Tally::add);
    let sample = took.per_op(tally.ops);
    Ok(match (before, store.ram_hits()) {
        (Some(before), Some(after)) => sample.with("from RAM", (after - before) as f64 / tally.ops as f64),
        _ => sample,
    })
}

/// What the files below `dir` take on the disk, holes not counted.
fn disk_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
