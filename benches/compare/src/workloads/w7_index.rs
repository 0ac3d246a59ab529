//! W7: the RAM that an entry on disk takes: what an open store grows by, from a quarter of the
//! entries to all of them, the caches in RAM being as large.

use anyhow::Result;

use crate::{
    child,
    measure::Sample,
    peers::store::stores,
    runner::{Contest, Runner, Target},
};

pub fn run(runner: &mut Runner) -> Result<()> {
    let entries: u64 = runner.scale.pick(100_000, 1_000_000);
    let names = stores().into_iter().map(|(name, _)| (name, name)).collect();
    let field = runner.prepare(names, |&name| {
        let (few, all) = (ram(name, entries / 4)?, ram(name, entries)?);
        let grown = (all.value - few.value) / (entries - entries / 4) as f64;
        Ok(Sample { value: grown, ..all })
    });
    let contest = Contest::new("W7", "RAM a disk entry, the block cache of a database included", "bytes")
        .target(Target::AtMost(24.0))
        .target(Target::NoFault)
        .repetitions(1);
    runner.contest(&contest, &field, |sample, _| Ok(sample.clone()))
}

fn ram(name: &str, entries: u64) -> Result<Sample> {
    let dir = tempfile::tempdir()?;
    child::fill_and_close(name, dir.path(), entries)?;
    child::sample(&["store-ram", name, &dir.path().to_string_lossy(), &entries.to_string()])
}
