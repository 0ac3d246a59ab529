//! The recipe by which the policy is judged: many traces, several sizes each, means over the cells,
//! and what those should come to.

mod results;
mod section;
mod targets;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use self::{
    results::Results,
    section::{Cell, Section},
    targets::Targets,
};
use crate::{
    contestant::{Contestant, OF_BOTH_TIERS, OF_RAM, OF_STRIPES},
    ember::Ember,
    player::Outcome,
    progress_bar,
    size::{self, Size},
    trace::{Columns, Trace},
};

const REQUESTS_MAX: usize = 1_000_000;
const SHARES: [f64; 5] = [0.001, 0.01, 0.05, 0.10, 0.25];
/// RAM's part of the keys where both tiers play.
const TIERS_SHARE: f64 = 0.01;
const ENTRIES_MIN: u64 = 50;
/// The sizes at which the ARC paper prints its figures for this trace.
const OLTP: (&str, [u64; 5]) = ("OLTP", [1_000, 2_000, 5_000, 10_000, 15_000]);

/// What is played.
pub struct Recipe {
    pub folder: PathBuf,
    /// Who plays by entries; without it, everybody plays everything.
    pub caches: Vec<Contestant>,
    /// Of each trace, in place of what the recipe says.
    pub requests_max: Option<usize>,
    /// Where each cell is written as a line of JSON.
    pub save: Option<PathBuf>,
}

impl Recipe {
    /// Plays everything, and prints what each cache comes to and which targets that meets.
    pub fn play(&self) -> Result<()> {
        let Some(paths) = trace_files(&self.folder)? else {
            eprintln!("SKIPPED: there are no traces in {}", self.folder.display());
            return Ok(());
        };
        let mut results = self.save.as_deref().map(Results::create).transpose()?;
        let mut keep = |section: Section| -> Result<Section> {
            section.print();
            results.iter_mut().try_for_each(|results| results.add(&section))?;
            Ok(section)
        };
        let entries = keep(self.by_entries(&paths)?)?;
        if !self.caches.is_empty() {
            return Ok(());
        }
        let oltp = keep(self.as_in_the_arc_paper(&paths)?)?;
        let bytes = keep(self.by_bytes(&paths)?)?;
        let tiers = keep(self.in_two_tiers(&paths)?)?;
        if let Some(requests) = self.requests_max {
            println!(
                "\nOf the first {requests} requests of each trace; the targets are for the whole recipe."
            );
        }
        Targets::of(&entries, &oltp, &bytes, &tiers).print();
        Ok(())
    }

    /// Every entry weighs one.
    fn by_entries(&self, paths: &[PathBuf]) -> Result<Section> {
        let everybody = [OF_RAM, &OF_STRIPES].concat();
        let caches = if self.caches.is_empty() { &everybody } else { &self.caches };
        let mut section = Section::new("entries", with_fifo(caches));
        for path in paths {
            let trace = self.read(path, REQUESTS_MAX)?;
            let sizes: Vec<_> = sizes(&trace).map(|share| Size::Share(share).of(&trace)).collect();
            section.play(&trace, &sizes)?;
        }
        ensure!(!section.cells.is_empty(), "no trace here has room for {ENTRIES_MIN} entries");
        Ok(section)
    }

    fn as_in_the_arc_paper(&self, paths: &[PathBuf]) -> Result<Section> {
        let mut section = Section::new("OLTP", with_fifo(OF_RAM));
        if let Some(path) = paths.iter().find(|path| path.to_string_lossy().contains(OLTP.0)) {
            section.play(&self.read(path, REQUESTS_MAX)?, &OLTP.1)?;
        } else {
            eprintln!("SKIPPED: there is no trace {}", OLTP.0);
        }
        Ok(section)
    }

    /// Each key has a size of its own.
    fn by_bytes(&self, paths: &[PathBuf]) -> Result<Section> {
        let mut section = Section::new("bytes", with_fifo(OF_RAM));
        let overhead_bytes = Ember::entry_overhead_bytes()?;
        for path in paths {
            let mut trace = self.read(path, REQUESTS_MAX)?;
            let shares: Vec<_> = sizes(&trace).collect();
            trace.weigh(size::synthetic_bytes);
            trace.add_overhead(overhead_bytes);
            let sizes: Vec<_> = shares.iter().map(|&share| Size::Share(share).of(&trace)).collect();
            section.play(&trace, &sizes)?;
        }
        Ok(section)
    }

    /// Whole traces of keys without sizes.
    fn in_two_tiers(&self, paths: &[PathBuf]) -> Result<Section> {
        let mut section = Section::new("two tiers", OF_BOTH_TIERS.to_vec());
        for path in paths.iter().filter(|path| !path.to_string_lossy().contains(".k8s4")) {
            let trace = self.read(path, usize::MAX)?;
            let entries = Size::Share(TIERS_SHARE).of(&trace);
            if entries >= ENTRIES_MIN {
                section.play(&trace, &[entries])?;
            }
        }
        Ok(section)
    }

    fn read(&self, path: &Path, requests_max: usize) -> Result<Trace> {
        let columns = Columns { key: "key".to_owned(), size: None, in_bytes: false };
        Trace::read(path, &columns, self.requests_max.unwrap_or(requests_max))
    }
}

impl Section {
    /// Adds a cell for each size.
    fn play(&mut self, trace: &Trace, sizes: &[u64]) -> Result<()> {
        let progress = progress_bar(trace.len() as u64 * (sizes.len() * self.caches.len()) as u64);
        for &size in sizes {
            let outcome = |&cache: &Contestant| {
                progress.set_message(format!("{} {size} {}", trace.name, cache.name()));
                Ok(Outcome::of(&mut *cache.player(size, trace)?, trace, &progress))
            };
            let outcomes = self.caches.iter().map(outcome).collect::<Result<_>>()?;
            self.cells.push(Cell { trace: trace.name.clone(), size, outcomes });
        }
        progress.finish_and_clear();
        Ok(())
    }
}

/// The shares of a trace's keys that are enough for a cache.
fn sizes(trace: &Trace) -> impl Iterator<Item = f64> {
    let distinct = trace.distinct() as f64;
    SHARES.into_iter().filter(move |share| (share * distinct) as u64 >= ENTRIES_MIN)
}

fn with_fifo(caches: &[Contestant]) -> Vec<Contestant> {
    let others = caches.iter().copied().filter(|&cache| cache != Contestant::Fifo);
    [Contestant::Fifo].into_iter().chain(others).collect()
}

/// The traces in the packed formats, in order of their names; `None` if there are none.
fn trace_files(folder: &Path) -> Result<Option<Vec<PathBuf>>> {
    if !folder.exists() {
        return Ok(None);
    }
    let context = || format!("cannot list {}", folder.display());
    let mut paths = Vec::new();
    for file in fs::read_dir(folder).with_context(context)? {
        let path = file.with_context(context)?.path();
        let name = path.to_string_lossy();
        let name = name.strip_suffix(".zst").unwrap_or(&name);
        if name.ends_with(".k8") || name.ends_with(".k8s4") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok((!paths.is_empty()).then_some(paths))
}
