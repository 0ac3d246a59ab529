//! The printed result: what the reports of the runs say, side by side.

use std::time::Duration;

use indicatif::HumanCount;

use crate::{
    report::{Latency, Report},
    table::Table,
};

const NONE: &str = "-";

/// The same requests without a cache and with one.
pub fn runs(without: &Report, with: &Report) -> Table {
    let mut table = Table::new("the same customers", "no cache", "embercache");
    let both = [without, with];
    table.row("pages a second", both.map(|run| HumanCount(run.requests_per_second() as u64).to_string()));
    add_latencies(&mut table, "a product page", both.map(|run| &run.pages));
    add_latencies(&mut table, "any request", both.map(|run| &run.all));
    add_hit_ratios(&mut table, both);
    table.row("database queries", both.map(|run| HumanCount(run.queries).to_string()));
    table.row("database queries a page", both.map(queries_a_page));
    table.row("changes of price or stock", both.map(|run| HumanCount(run.changes).to_string()));
    table.row("pages checked", both.map(|run| HumanCount(run.checked).to_string()));
    table.row("stale pages seen", both.map(|run| HumanCount(run.stale).to_string()));
    table
}

/// The first second after a start with an empty cache, and with the one that the killed process left.
pub fn first_seconds(cold: &Report, warm: &Report) -> Table {
    let mut table = Table::new("the first second after a start", "cold", "warm, after SIGKILL");
    let both = [cold, warm];
    table.row("the cache came up", both.map(|run| run.start.clone().unwrap_or_else(|| NONE.to_owned())));
    table.row("  with entries", both.map(|run| HumanCount(run.recovered).to_string()));
    table.row("ready to serve after", both.map(|run| time(run.ready)));
    table.row("pages served", both.map(|run| HumanCount(run.all.count).to_string()));
    add_latencies(&mut table, "a product page", both.map(|run| &run.pages));
    add_hit_ratios(&mut table, both);
    table.row("database queries", both.map(|run| HumanCount(run.queries).to_string()));
    table.row("database queries a page", both.map(queries_a_page));
    table.row("stale pages seen", both.map(|run| HumanCount(run.stale).to_string()));
    table.row(
        "cached pages compared at the end",
        both.map(|run| survivors(run, |survivors| survivors.compared)),
    );
    table.row("  stale among them", both.map(|run| survivors(run, |survivors| survivors.stale)));
    table
}

/// A duration with three digits.
pub fn time(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    let (value, unit) = match micros {
        ..1e3 => (micros, "µs"),
        ..1e6 => (micros / 1e3, "ms"),
        _ => (micros / 1e6, "s"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

fn add_latencies(table: &mut Table, what: &str, latencies: [&Latency; 2]) {
    table.row(&format!("{what}, p50"), latencies.map(|latency| time(latency.p50)));
    table.row("  p99", latencies.map(|latency| time(latency.p99)));
    table.row("  p99.9", latencies.map(|latency| time(latency.p999)));
}

fn add_hit_ratios(table: &mut Table, runs: [&Report; 2]) {
    let percent = |run: &Report, pick: fn([f64; 2]) -> f64| {
        run.hit_ratios().map_or(NONE.to_owned(), |ratios| format!("{:.1} %", pick(ratios) * 100.0))
    };
    table.row("look-ups answered by the cache", runs.map(|run| percent(run, |[ram, disk]| ram + disk)));
    table.row("  from RAM", runs.map(|run| percent(run, |[ram, _]| ram)));
    table.row("  from disk", runs.map(|run| percent(run, |[_, disk]| disk)));
}

fn queries_a_page(run: &Report) -> String {
    format!("{:.2}", run.queries as f64 / run.all.count.max(1) as f64)
}

fn survivors(run: &Report, pick: fn(&crate::report::Survivors) -> u64) -> String {
    run.survivors.as_ref().map_or(NONE.to_owned(), |survivors| HumanCount(pick(survivors)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        let nanos = |nanos| time(Duration::from_nanos(nanos));
        assert_eq!([nanos(950), nanos(45_600), nanos(999_000)], ["0.95 µs", "45.6 µs", "999 µs"]);
        assert_eq!([nanos(7_890_000), nanos(12_000_000_000)], ["7.89 ms", "12.0 s"]);
    }
}
