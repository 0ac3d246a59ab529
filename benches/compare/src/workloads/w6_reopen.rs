//! W6: from `open` to the first verified value, in a new process, after a close and after a SIGKILL.
//! Then every entry is read: what was flushed has to be there, what was overwritten may not be back.

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    child,
    measure::Sample,
    peers::store::restarted,
    runner::{Contest, Runner, Target},
};

/// The peers' share of a million.
pub fn run(runner: &mut Runner) -> Result<()> {
    let entries = runner.scale.pick(50_000, 1_000_000);
    let names = restarted().into_iter().map(|(name, _)| name).collect();
    reopen(runner, names, entries, [5.0, 300.0])
}

/// Ten million, of embercache alone.
pub fn run_10m(runner: &mut Runner) -> Result<()> {
    reopen(runner, vec!["embercache"], 10_000_000, [10.0, 3_000.0])
}

/// Targets in milliseconds, of the one after a close and of the other.
fn reopen(runner: &mut Runner, peers: Vec<&'static str>, entries: u64, most: [f64; 2]) -> Result<()> {
    let repetitions = runner.scale.pick(1, 2);
    let contest = |how: &str, most| {
        Contest::new("W6", format!("open to first get after {how}, {entries} x 200 B"), "ms")
            .target(Target::AtMost(most))
            .target(Target::NoFault)
    };
    let names: Vec<_> = peers.into_iter().map(|name| (name, name)).collect();
    let closed = runner.prepare(names.clone(), |&name| {
        let dir = tempfile::tempdir()?;
        child::fill_and_close(name, dir.path(), entries)?;
        Ok((name, dir))
    });
    runner.settle();
    let after_close = contest("a close", most[0]).repetitions(runner.scale.pick(2, 3));
    runner.contest(&after_close, &closed, |(name, dir), _| sample(name, dir, entries))?;
    drop(closed);
    let killed = runner.prepare(names, |&name| {
        let wrecks: Result<Vec<TempDir>> = (0..repetitions)
            .map(|_| {
                let dir = tempfile::tempdir()?;
                child::fill_and_kill(name, dir.path(), entries)?;
                Ok(dir)
            })
            .collect();
        Ok((name, wrecks?))
    });
    runner.settle();
    let contest = contest("SIGKILL", most[1]).repetitions(repetitions);
    runner.contest(&contest, &killed, |(name, wrecks), repetition| sample(name, &wrecks[repetition], entries))
}

fn sample(name: &str, dir: &TempDir, entries: u64) -> Result<Sample> {
    child::sample(&["reopen", name, &dir.path().to_string_lossy(), &entries.to_string()])
}
