//! The recipe by which policies are judged: many traces, five sizes each, and means over the cells.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use serde::Serialize;

use crate::{
    contestant::Contestant,
    player::Outcome,
    progress_bar,
    size::Size,
    trace::{Columns, Trace},
};

const REQUESTS_MAX: usize = 1_000_000;
const SHARES: [f64; 5] = [0.001, 0.01, 0.05, 0.10, 0.25];
const ENTRIES_MIN: u64 = 50;
/// The sizes at which the ARC paper prints its figures for this trace.
const OLTP: (&str, [u64; 5]) = ("OLTP", [1_000, 2_000, 5_000, 10_000, 15_000]);

/// Plays the traces of a folder, and prints what each cache comes to.
pub fn play(folder: &Path, caches: &[Contestant], requests_max: Option<usize>, as_json: bool) -> Result<()> {
    let columns = Columns { key: "key".to_owned(), size: None, in_bytes: false };
    let mut scores: Vec<Score> = caches.iter().copied().map(Score::new).collect();
    let mut oltp = None;
    for path in trace_files(folder)? {
        let trace = Trace::read(&path, &columns, requests_max.unwrap_or(REQUESTS_MAX))?;
        play_trace(&trace, &mut scores)?;
        if trace.name == OLTP.0 {
            oltp = Some(play_oltp(&trace, caches)?);
        }
    }
    ensure!(
        !scores[0].cells.is_empty(),
        "no trace here is large enough for a cache of {ENTRIES_MIN} entries"
    );
    if as_json {
        return scores.iter().try_for_each(|score| {
            println!("{}", serde_json::to_string(&score.summary())?);
            Ok(())
        });
    }
    print_scores(&scores);
    oltp.iter().for_each(print_oltp);
    Ok(())
}

/// The traces in the packed formats, in order of their names.
fn trace_files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
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
    Ok(paths)
}

fn play_trace(trace: &Trace, scores: &mut [Score]) -> Result<()> {
    let sizes: Vec<u64> = SHARES
        .iter()
        .map(|&share| Size::Share(share).of(trace))
        .filter(|&entries| entries >= ENTRIES_MIN)
        .collect();
    let progress = progress_bar(trace.len() as u64 * (sizes.len() * (scores.len() + 1)) as u64);
    for entries in sizes {
        progress.set_message(format!("{} {entries}", trace.name));
        let fifo = outcome(Contestant::Fifo, entries, trace, &progress)?;
        for score in &mut *scores {
            let outcome = outcome(score.cache, entries, trace, &progress)?;
            score.cells.push(Cell::new(trace, entries, &fifo, &outcome));
        }
    }
    progress.finish_and_clear();
    Ok(())
}

fn play_oltp(trace: &Trace, caches: &[Contestant]) -> Result<Vec<(Contestant, Vec<f64>)>> {
    let caches = caches.iter().copied().chain([Contestant::Fifo]);
    let progress = ProgressBar::hidden();
    caches
        .map(|cache| {
            let hits = |&entries| Ok(100.0 * outcome(cache, entries, trace, &progress)?.hit_ratio());
            Ok((cache, OLTP.1.iter().map(hits).collect::<Result<_>>()?))
        })
        .collect()
}

fn outcome(cache: Contestant, entries: u64, trace: &Trace, progress: &ProgressBar) -> Result<Outcome> {
    Ok(Outcome::of(&mut *cache.player(entries, trace)?, trace, progress))
}

/// What one cache comes to.
struct Score {
    cache: Contestant,
    cells: Vec<Cell>,
}

/// One trace at one size.
struct Cell {
    name: String,
    /// By how much the misses of FIFO are cut.
    cut: f64,
    miss_ratio: f64,
    steps_a_miss: Option<f64>,
}

#[derive(Serialize)]
struct Summary<'a> {
    cache: Contestant,
    cells: usize,
    mean_cut: f64,
    mean_miss_ratio: f64,
    worst_cut: f64,
    worst_cell: &'a str,
    mean_steps_a_miss: Option<f64>,
}

impl Cell {
    fn new(trace: &Trace, entries: u64, fifo: &Outcome, outcome: &Outcome) -> Cell {
        Cell {
            name: format!("{} at {entries}", trace.name),
            cut: cut(fifo.misses, outcome.misses),
            miss_ratio: outcome.miss_ratio(),
            steps_a_miss: outcome.steps_a_miss(),
        }
    }
}

impl Score {
    fn new(cache: Contestant) -> Score {
        Score { cache, cells: Vec::new() }
    }

    fn summary(&self) -> Summary<'_> {
        let worst = self.cells.iter().min_by(|a, b| a.cut.total_cmp(&b.cut)).expect("there are cells");
        let steps: Option<Vec<f64>> = self.cells.iter().map(|cell| cell.steps_a_miss).collect();
        Summary {
            cache: self.cache,
            cells: self.cells.len(),
            mean_cut: mean(self.cells.iter().map(|cell| cell.cut)),
            mean_miss_ratio: mean(self.cells.iter().map(|cell| cell.miss_ratio)),
            worst_cut: worst.cut,
            worst_cell: &worst.name,
            mean_steps_a_miss: steps.map(|steps| mean(steps.into_iter())),
        }
    }
}

/// By how much `misses` cuts those of `base`; negative where it is worse.
fn cut(base: u64, misses: u64) -> f64 {
    (base as f64 - misses as f64) / base.max(misses) as f64
}

fn mean(of: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = of.len() as f64;
    of.sum::<f64>() / count
}

fn print_scores(scores: &[Score]) {
    println!("{} cells", scores[0].cells.len());
    println!("{:16} {:>8} {:>8} {:>8} {:>8}  worst cell", "cache", "cut", "miss", "steps", "worst");
    for summary in scores.iter().map(Score::summary) {
        let steps = summary.mean_steps_a_miss.map_or_else(|| "-".to_owned(), |steps| format!("{steps:.3}"));
        println!(
            "{:16} {:8.4} {:8.4} {steps:>8} {:8.4}  {}",
            summary.cache.name(),
            summary.mean_cut,
            summary.mean_miss_ratio,
            summary.worst_cut,
            summary.worst_cell
        );
    }
    println!("Cut: the mean part of FIFO's misses that are none. Steps: of the clock, a miss.");
}

fn print_oltp(oltp: &Vec<(Contestant, Vec<f64>)>) {
    print!("\n{:16}", format!("{} hit %", OLTP.0));
    OLTP.1.iter().for_each(|entries| print!(" {entries:>7}"));
    println!();
    for (cache, hits) in oltp {
        print!("{:16}", cache.name());
        hits.iter().for_each(|percent| print!(" {percent:7.2}"));
        println!();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_of_the_larger() {
        assert_eq!((cut(100, 75), cut(75, 100), cut(5, 5)), (0.25, -0.25, 0.0));
    }
}
