//! The workloads, one a file, and their names.

mod w1_ram_hit;
mod w2_fill_on_miss;
mod w3_insert;
mod w4_disk_hit;
mod w5_flush;
mod w6_reopen;
mod w7_index;

use anyhow::Result;

use crate::runner::Runner;

/// A workload's name, what it is, and its contests.
pub struct Workload {
    pub name: &'static str,
    pub what: &'static str,
    pub run: fn(&mut Runner) -> Result<()>,
}

/// In the order in which they run.
pub const ALL: &[Workload] = &[
    Workload { name: "W1", what: "RAM hits, 1 M keys, zipf 0.99", run: w1_ram_hit::run },
    Workload { name: "W2", what: "get, insert on miss, room for 10 %", run: w2_fill_on_miss::run },
    Workload { name: "W3", what: "inserts into a full cache", run: w3_insert::run },
    Workload { name: "W4", what: "disk hits, page-cached, 4 KiB and 200 B", run: w4_disk_hit::run },
    Workload { name: "W5", what: "inserts until flushed, 4 KiB and 200 B", run: w5_flush::run },
    Workload { name: "W6", what: "open to first get, after a close and a SIGKILL", run: w6_reopen::run },
    Workload { name: "W7", what: "RAM a disk entry", run: w7_index::run },
];
