//! The table for people, and a line of JSON for each peer in each contest.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    measure::Sample,
    runner::{Contest, Target},
};

/// Ours, in every table.
pub const EMBERCACHE: &str = "embercache";

/// What one peer did in one contest.
pub struct Row {
    pub peer: &'static str,
    pub samples: Vec<Sample>,
    pub failure: Option<String>,
}

impl Row {
    /// The median value, if every repetition went well.
    fn median(&self) -> Option<f64> {
        self.median_of(|sample| Some(sample.value))
    }

    fn median_cpu(&self) -> Option<f64> {
        self.median_of(|sample| sample.cpu)
    }

    fn median_of(&self, value: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.samples.iter().filter_map(value).collect();
        values.sort_by(f64::total_cmp);
        match (&self.failure, values.len()) {
            (Some(_), _) | (None, 0) => None,
            (None, len) => Some((values[len / 2] + values[(len - 1) / 2]) / 2.0),
        }
    }

    fn spread(&self) -> (f64, f64) {
        let values = self.samples.iter().map(|sample| sample.value);
        (values.clone().fold(f64::INFINITY, f64::min), values.fold(0.0, f64::max))
    }

    /// Each figure's median, and the first fault, in words.
    fn notes(&self) -> String {
        let Some(first) = self.samples.first() else { return String::new() };
        let fault = self.samples.iter().find_map(|sample| sample.fault.as_ref());
        let figure = |name: &String| {
            let median = self.median_of(|sample| sample.figures.get(name).copied())?;
            Some(format!("{name} {}", short(median)))
        };
        let figures = first.figures.keys().filter_map(figure);
        figures.chain(fault.cloned()).collect::<Vec<_>>().join(", ")
    }
}

/// Where the answers go.
pub struct Report {
    path: PathBuf,
    file: File,
}

impl Report {
    /// Begins a file of results with a line about the machine.
    pub fn create(path: &Path, machine: &Value) -> Result<Report> {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let mut file = File::create(path)?;
        writeln!(file, "{machine}")?;
        Ok(Report { path: path.to_owned(), file })
    }

    pub fn add(&mut self, contest: &Contest, rows: &[Row]) -> Result<()> {
        print_table(contest, rows);
        for row in rows {
            writeln!(self.file, "{}", json_line(contest, row))?;
        }
        Ok(())
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        println!("\nraw results: {}", self.path.display());
    }
}

fn json_line(contest: &Contest, row: &Row) -> Value {
    json!({
        "workload": contest.workload,
        "contest": contest.what,
        "unit": contest.unit,
        "peer": row.peer,
        "median": row.median(),
        "median_cpu": row.median_cpu(),
        "values": row.samples.iter().map(|sample| sample.value).collect::<Vec<_>>(),
        "cpu": row.samples.iter().filter_map(|sample| sample.cpu).collect::<Vec<_>>(),
        "figures": row.samples.iter().map(|sample| &sample.figures).collect::<Vec<_>>(),
        "faults": row.samples.iter().filter_map(|sample| sample.fault.as_ref()).collect::<Vec<_>>(),
        "failure": row.failure,
    })
}

fn print_table(contest: &Contest, rows: &[Row]) {
    let ours = rows.iter().find(|row| row.peer == EMBERCACHE);
    let (value, cpu) = (ours.and_then(Row::median), ours.and_then(Row::median_cpu));
    println!("\n{}  {}  [{}, less is better]", contest.workload, contest.what, contest.unit);
    println!(
        "  {:<18} {:>10} {:>21} {:>10} {:>8} {:>8}",
        "peer", "median", "min .. max", "cpu", "× ours", "by cpu"
    );
    for row in rows {
        if let Some(failure) = &row.failure {
            println!("  {:<18} FAILED: {failure}", row.peer);
            continue;
        }
        let (min, max) = row.spread();
        println!(
            "  {:<18} {:>10} {:>21} {:>10} {:>8} {:>8}  {}",
            row.peer,
            row.median().map_or_else(String::new, short),
            format!("{} .. {}", short(min), short(max)),
            row.median_cpu().map_or_else(String::new, short),
            ratio(row.median(), value),
            ratio(row.median_cpu(), cpu),
            row.notes(),
        );
    }
    if let Some(verdict) = verdict(contest, rows) {
        println!("  {verdict}");
    }
}

/// Whether embercache reached its target; by the wall, and by the CPU where that is known.
fn verdict(contest: &Contest, rows: &[Row]) -> Option<String> {
    let ours = rows.iter().find(|row| row.peer == EMBERCACHE)?;
    let value = ours.median()?;
    let others = || rows.iter().filter(|row| row.peer != EMBERCACHE && !is_reference(row.peer));
    let (asked, other) = match contest.target? {
        Target::AtMost(most) => {
            let word = if value <= most { "met" } else { "SHORT" };
            return Some(format!("target <= {}: {} {word}", short(most), short(value)));
        }
        Target::Times(times, peer) => (times, others().find(|row| row.peer == peer)?),
        Target::TimesBest(times) => {
            let best = others().filter(|row| row.median().is_some());
            (
                times,
                best.min_by(|a, b| f64::total_cmp(&a.median().unwrap_or(0.0), &b.median().unwrap_or(0.0)))?,
            )
        }
    };
    let reached = other.median()? / value;
    let word = if reached >= asked { "met" } else { "SHORT" };
    let by_cpu = ratio(other.median_cpu(), ours.median_cpu());
    Some(format!("target >= {asked:.2} x {}: {reached:.2} {word} (by cpu {by_cpu})", other.peer))
}

/// Maps that never evict are no caches; they show what would be possible.
fn is_reference(peer: &str) -> bool {
    peer.ends_with('*')
}

fn ratio(other: Option<f64>, ours: Option<f64>) -> String {
    match (other, ours) {
        (Some(other), Some(ours)) => format!("{:.2}", other / ours),
        _ => String::from("-"),
    }
}

/// Three digits or so.
fn short(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 100.0 || value == value.trunc() {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}
