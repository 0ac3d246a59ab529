//! W6: from `open` to the first verified value, in a new process, after a close and after a SIGKILL.
//! Then every entry is read: what was flushed has to be there, what was overwritten may not be back.

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    child,
    measure::Sample,
    peers::store::stores,
    runner::{Contest, Runner, Target},
};

pub fn run(runner: &mut Runner) -> Result<()> {
    let entries = runner.scale.pick(50_000, 1_000_000);
    let names = || stores().into_iter().map(|(name, _)| (name, name)).collect();
    let closed = runner.prepare(names(), |&name| {
        let dir = tempfile::tempdir()?;
        child::fill_and_close(name, dir.path(), entries)?;
        Ok((name, dir))
    });
    let contest = |how: &str, most| {
        Contest::new("W6", format!("open to first get after {how}, {entries} x 200 B"), "ms")
            .target(Target::AtMost(most))
    };
    runner.contest(&contest("a close", 5.0), &closed, |(name, dir)| reopen(name, dir, entries))?;
    drop(closed);
    let killed = runner.prepare(names(), |&name| Ok(name));
    runner.contest(&contest("SIGKILL", 300.0), &killed, |name| {
        let dir = tempfile::tempdir()?;
        child::fill_and_kill(name, dir.path(), entries)?;
        reopen(name, &dir, entries)
    })
}

fn reopen(name: &str, dir: &TempDir, entries: u64) -> Result<Sample> {
    child::sample(&["reopen", name, &dir.path().to_string_lossy(), &entries.to_string()])
}
