//! W5: inserts until all of it is flushed, into a new directory, and what that writes.

use anyhow::{Result, ensure};

use crate::{
    measure::{Sample, time, written_bytes},
    peers::store::{OpenStore, Setup, stores},
    runner::{Contest, Runner, Target},
};

pub fn run(runner: &mut Runner) -> Result<()> {
    let (pages, rows) = (runner.scale.pick(16_384, 65_536), runner.scale.pick(100_000, 500_000));
    for (entries, value_bytes, times) in [(pages, 4096, 2.5), (rows, 200, 4.0)] {
        let setup = Setup { entries, value_bytes, ram_entries: (32 << 20) / value_bytes as u64 };
        let field = runner.prepare(stores(), |&open| Ok(open));
        let contest = Contest::new("W5", format!("insert until flushed, {value_bytes} B"), "ns/entry")
            .target(Target::TimesBest(times));
        runner.contest(&contest, &field, |&open| insert(open, setup))?;
    }
    Ok(())
}

fn insert(open: OpenStore, setup: Setup) -> Result<Sample> {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path(), setup)?;
    let before = written_bytes()?;
    let (took, result) = time(|| {
        store.insert_each(0..setup.entries, 0, setup.value_bytes)?;
        store.flush()
    });
    result?;
    let written = (written_bytes()? - before) as f64 / setup.total_bytes() as f64;
    for key in [0, setup.entries / 2, setup.entries - 1] {
        ensure!(store.check(key, 0)? == Some(true), "key {key} is wrong or gone");
    }
    store.close()?;
    let mb_per_s = setup.total_bytes() as f64 / 1e6 / took.wall.as_secs_f64();
    Ok(took.per_op(setup.entries).with("MB/s", mb_per_s).with("written a byte", written))
}
