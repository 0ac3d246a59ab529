//! What one trace came to, for a person or a program.

use anyhow::Result;
use serde::Serialize;

use crate::{contestant::Contestant, player::Outcome, trace::Trace};

/// A trace, and how every cache did at every size.
pub struct Report {
    pub trace: String,
    pub unit: &'static str,
    requests: usize,
    distinct: usize,
    pub rows: Vec<Row>,
}

/// One cache at one size.
pub struct Row {
    pub cache: Contestant,
    pub size: u64,
    pub outcome: Outcome,
}

/// A row as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    trace: &'a str,
    cache: Contestant,
    size: u64,
    unit: &'a str,
    requests: u64,
    misses: u64,
    miss_ratio: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_steps_a_miss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_hit_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    writes_a_request: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_bytes_written: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_entries: Option<u64>,
}

impl Report {
    pub fn new(trace: &Trace, rows: Vec<Row>) -> Report {
        let unit = if trace.is_weighted() { "bytes" } else { "entries" };
        Report { trace: trace.name.clone(), unit, requests: trace.len(), distinct: trace.distinct(), rows }
    }

    pub fn print(&self, as_json: bool) -> Result<()> {
        if !as_json {
            self.print_table();
            return Ok(());
        }
        for row in &self.rows {
            println!("{}", serde_json::to_string(&self.line(row))?);
        }
        Ok(())
    }

    fn line(&self, row: &Row) -> Line<'_> {
        let outcome = &row.outcome;
        Line {
            trace: &self.trace,
            cache: row.cache,
            size: row.size,
            unit: self.unit,
            requests: outcome.requests,
            misses: outcome.misses,
            miss_ratio: outcome.miss_ratio(),
            clock_steps_a_miss: outcome.steps_a_miss(),
            disk_hit_ratio: outcome.disk_hit_ratio(),
            writes_a_request: outcome.writes_a_request(),
            record_bytes_written: outcome.details.disk.map(|disk| disk.record_bytes_written),
            disk_entries: outcome.details.disk.map(|disk| disk.entries),
        }
    }

    fn print_table(&self) {
        println!("{}: {} requests for {} keys", self.trace, self.requests, self.distinct);
        println!(
            "{:>12}  {:16} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
            self.unit, "cache", "miss", "hit", "in RAM", "on disk", "writes", "steps"
        );
        for Row { cache, size, outcome } in &self.rows {
            let on_disk = outcome.disk_hit_ratio();
            println!(
                "{size:>12}  {:16} {:8.4} {:8.4} {:8.4} {} {} {}",
                cache.name(),
                outcome.miss_ratio(),
                outcome.hit_ratio(),
                outcome.hit_ratio() - on_disk.unwrap_or(0.0),
                cell(on_disk),
                cell(outcome.writes_a_request()),
                cell(outcome.steps_a_miss()),
            );
        }
        println!("Ratios and writes are a request, clock steps a miss.");
    }
}

fn cell(number: Option<f64>) -> String {
    number.map_or_else(|| format!("{:>8}", "-"), |number| format!("{number:8.4}"))
}
