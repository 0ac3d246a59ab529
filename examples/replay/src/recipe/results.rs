//! The raw results, a line of JSON for each cell.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
    thread,
};

use anyhow::{Context, Result};
use serde::Serialize;

use super::section::{Cell, Section};
use crate::{contestant::Contestant, player::Outcome};

/// A file of results. Its first line says what they were made on.
pub struct Results(BufWriter<File>);

#[derive(Serialize)]
struct Machine {
    machine: String,
    cores: usize,
    versions: Vec<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    section: &'a str,
    trace: &'a str,
    size: u64,
    requests: u64,
    results: Vec<Figures>,
}

#[derive(Serialize)]
struct Figures {
    cache: Contestant,
    misses: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_steps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_hits: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    writes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rewrites: Option<u64>,
}

const LOCK: &str = include_str!("../../Cargo.lock");
const CRATES: [&str; 4] = ["embercache", "foyer-memory", "moka", "quick_cache"];

impl Results {
    pub fn create(path: &Path) -> Result<Results> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut results = Results(BufWriter::new(file));
        let cores = thread::available_parallelism()?.get();
        let versions = CRATES.map(|name| format!("{name} {}", version(LOCK, name).unwrap_or("?"))).to_vec();
        results.line(&Machine { machine: processor(), cores, versions })?;
        Ok(results)
    }

    pub fn add(&mut self, section: &Section) -> Result<()> {
        for cell in &section.cells {
            self.line(&Line::of(section, cell))?;
        }
        Ok(self.0.flush()?)
    }

    fn line(&mut self, line: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.0, line)?;
        Ok(self.0.write_all(b"\n")?)
    }
}

impl<'a> Line<'a> {
    fn of(section: &'a Section, cell: &'a Cell) -> Line<'a> {
        let results = section.caches.iter().zip(&cell.outcomes);
        Line {
            section: section.name,
            trace: &cell.trace,
            size: cell.size,
            requests: cell.outcomes[0].requests,
            results: results.map(|(&cache, outcome)| Figures::of(cache, outcome)).collect(),
        }
    }
}

impl Figures {
    fn of(cache: Contestant, outcome: &Outcome) -> Figures {
        let disk = outcome.details.disk;
        Figures {
            cache,
            misses: outcome.misses,
            missed_bytes: (outcome.missed_weight != outcome.misses).then_some(outcome.missed_weight),
            clock_steps: outcome.details.clock_steps,
            disk_hits: disk.map(|disk| disk.hits),
            writes: disk.map(|disk| disk.writes),
            rewrites: disk.map(|disk| disk.rewrites),
        }
    }
}

/// The version that a lock file has of a crate.
fn version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{name}\"")))?;
    entry.split("version = \"").nth(1)?.split('"').next()
}

/// What kind of processor this is, where the system tells.
fn processor() -> String {
    let told = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = told.lines().find_map(|line| line.strip_prefix("model name"));
    model.map_or("unknown", |model| model.trim_start_matches([' ', '\t', ':'])).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_names_every_version() {
        let lock =
            "[[package]]\nname = \"a-b\"\nversion = \"9\"\n[[package]]\nname = \"a\"\nversion = \"1.2\"\n";
        assert_eq!((version(lock, "a"), version(lock, "c")), (Some("1.2"), None));
        for name in CRATES {
            assert!(version(LOCK, name).is_some(), "{name}");
        }
    }
}
