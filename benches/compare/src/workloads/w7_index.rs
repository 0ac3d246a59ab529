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
    let entries: u64 = runner.scale.pick(200_000, 1_000_000);
    let names = stores().into_iter().map(|(name, _)| (name, name)).collect();
    let field = runner.prepare(names, |&name| {
        let (few, all) = (tempfile::tempdir()?, tempfile::tempdir()?);
        child::fill_and_close(name, few.path(), entries / 4)?;
        child::fill_and_close(name, all.path(), entries)?;
        Ok((name, few, all))
    });
    let contest = Contest::new("W7", "RAM a disk entry, the block cache of a database included", "bytes")
        .target(Target::AtMost(24.0));
    runner.contest(&contest, &field, |(name, few, all)| {
        let ram = |dir: &tempfile::TempDir, entries: u64| {
            child::sample(&["store-ram", name, &dir.path().to_string_lossy(), &entries.to_string()])
        };
        let grown = ram(all, entries)?.value - ram(few, entries / 4)?.value;
        Ok(Sample::of(grown / (entries - entries / 4) as f64))
    })
}
