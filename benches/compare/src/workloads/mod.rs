//! The workloads, one a file, and their names.

mod w1_ram_hit;
mod w2_fill_on_miss;
mod w3_insert;
mod w4_disk_hit;
mod w5_flush;
mod w6_reopen;
mod w7_index;
mod w8_aside;

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{measure::within, peers::store::Store, runner::Runner};

/// A workload's name, what it is, and its contests.
pub struct Workload {
    pub name: &'static str,
    pub what: &'static str,
    /// Runs also if it was not asked for by name.
    pub is_default: bool,
    pub run: fn(&mut Runner) -> Result<()>,
}

impl Workload {
    const fn new(name: &'static str, what: &'static str, run: fn(&mut Runner) -> Result<()>) -> Workload {
        Workload { name, what, is_default: true, run }
    }
}

/// In the order in which they run.
pub const ALL: &[Workload] = &[
    Workload::new("W1", "RAM hits, 1 M keys, zipf 0.99", w1_ram_hit::run),
    Workload::new("W2", "get, insert on miss, room for 10 %", w2_fill_on_miss::run),
    Workload::new("W3", "inserts into a full cache", w3_insert::run),
    Workload::new("W4", "disk hits, page-cached, 4 KiB and 200 B", w4_disk_hit::run),
    Workload::new("W5", "inserts until flushed, 4 KiB and 200 B", w5_flush::run),
    Workload::new("W6", "open to first get, after a close and a SIGKILL", w6_reopen::run),
    Workload {
        is_default: false,
        ..Workload::new("W6-10M", "the same with 10 M entries, embercache alone", w6_reopen::run_10m)
    },
    Workload::new("W7", "RAM a disk entry", w7_index::run),
    Workload::new("W8", "cache-aside over SQLite, and after a restart over a slow database", w8_aside::run),
];

/// An error if one of `keys` is gone or wrong, by as many of them as there is time to read.
fn ensure_kept(store: &dyn Store, keys: &[u64], patience: Duration) -> Result<()> {
    let tally = within(patience, [keys], |keys| store.check_each(keys, 0))?.no_lies()?;
    let gone = tally.ops - tally.hits;
    let percent = gone as f64 * 100.0 / tally.ops as f64;
    ensure!(
        gone == 0,
        "DROPPED {percent:.1} %: {gone} of {} entries that were looked up are gone",
        tally.ops
    );
    Ok(())
}
