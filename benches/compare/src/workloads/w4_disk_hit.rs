//! W4: hits on disk, in the page cache, RAM far too small for the values; every look-up has to hit.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use anyhow::Result;
use tempfile::TempDir;

use super::ensure_kept;
use crate::{
    content::shuffled,
    measure::{Sample, Tally, time_threads, within},
    peers::store::{Setup, Store, readers},
    runner::{Contest, Runner, Target},
};

/// An open store in a directory of its own.
struct Filled {
    store: Box<dyn Store>,
    _dir: TempDir,
    disk_bytes: u64,
}

pub fn run(runner: &mut Runner) -> Result<()> {
    let (pages, rows) = (runner.scale.pick(8_192, 65_536), runner.scale.pick(50_000, 250_000));
    let of_pages = [
        Target::Times(1.4, "lmdb_kept"),
        Target::Times(60.0, "foyer_tuned"),
        Target::Times(20.0, "foyer_tuned_64"),
    ];
    of_size(runner, pages, 4096, &of_pages, 4_200.0)?;
    of_size(runner, rows, 200, &[Target::Times(2.0, "lmdb_kept")], 275.0)
}

fn of_size(
    runner: &mut Runner,
    entries: u64,
    value_bytes: usize,
    targets: &[Target],
    most: f64,
) -> Result<()> {
    let setup = Setup { entries, value_bytes, ram_entries: entries / 128 };
    let (keys, limit) = (shuffled(entries), runner.scale.limit());
    // Every value is read once here, so that all are in the page cache and every page is mapped.
    let patience = runner.scale.pick(Duration::from_secs(2), Duration::from_secs(10));
    let field = runner.prepare(readers(), |open| {
        let dir = tempfile::tempdir()?;
        let store = open(dir.path(), setup)?;
        store.insert_each(&Vec::from_iter(0..entries), 0, value_bytes)?;
        store.flush()?;
        store.close()?;
        let disk_bytes = disk_bytes(dir.path())?;
        let store = open(dir.path(), setup)?;
        ensure_kept(&*store, &keys, patience)?;
        Ok(Filled { store, _dir: dir, disk_bytes })
    });
    runner.settle();
    for threads in [1, 2] {
        let what = format!("get, disk hit, {value_bytes} B, {threads} thread(s)");
        let contest =
            targets.iter().fold(Contest::new("W4", what, "ns/op"), |contest, &target| contest.target(target));
        runner.contest(&contest, &field, |filled, _| hits(&*filled.store, &keys, threads, limit))?;
    }
    let contest = Contest::new("W4", format!("disk an entry, 16 B keys, {value_bytes} B"), "bytes")
        .target(Target::AtMost(most))
        .repetitions(1);
    runner.contest(&contest, &field, |filled, _| Ok(Sample::of(filled.disk_bytes as f64 / entries as f64)))
}

/// All keys once: by the time that a key is asked for again, RAM has seen all the others.
fn hits(store: &dyn Store, keys: &[u64], threads: usize, limit: Duration) -> Result<Sample> {
    let before = store.ram_hits();
    let share = keys.len() / threads;
    let (took, tallies) = time_threads(threads, |thread| {
        let keys = &keys[share * thread..share * (thread + 1)];
        within(limit, [keys], |keys| store.check_each(keys, 0))?.all_hits()
    })?;
    let tally: Tally = tallies.into_iter().sum();
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
