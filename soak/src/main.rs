//! The reliability tests, for as long as is asked: each suite once as CI runs it, and then once more with as
//! many cases as its share of the time allows. Prints the figures by the lines of docs/reliability.md.

mod lines;
mod suite;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use suite::{Outcome, SUITES, Suite};

#[derive(Parser)]
#[command(about = "Runs the reliability tests for as long as is asked, and prints their figures")]
struct Args {
    /// How long it all may take, builds not included.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Only this suite; may be repeated.
    #[arg(long)]
    suite: Vec<String>,
    /// Names the suites and ends.
    #[arg(long)]
    list: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let is_wanted =
        |suite: &&Suite| args.suite.is_empty() || args.suite.iter().any(|name| name == suite.name);
    let suites: Vec<&Suite> = SUITES.iter().filter(is_wanted).collect();
    if args.list {
        suites.iter().for_each(|suite| println!("{:<16} {}", suite.name, suite.what));
        return Ok(ExitCode::SUCCESS);
    }
    let missed: Vec<_> = suites.iter().filter_map(|suite| Some((suite.name, suite.misses()?))).collect();
    let suites: Vec<_> = suites.into_iter().filter(|suite| suite.misses().is_none()).collect();
    tell_skipped(&missed);
    let bar = ProgressBar::new(suites.len() as u64 * 3)
        .with_style(ProgressStyle::with_template("[{elapsed_precise}] {wide_bar} {pos}/{len} {msg}")?);
    bar.enable_steady_tick(Duration::from_secs(1));
    for suite in &suites {
        bar.set_message(format!("building {}", suite.name));
        suite.build()?;
        bar.inc(1);
    }
    let end = Instant::now() + Duration::from_secs(args.minutes * 60);
    let mut outcomes = Vec::new();
    for (done, suite) in suites.iter().enumerate() {
        let left = end.saturating_duration_since(Instant::now());
        let share = left / (suites.len() - done) as u32;
        let outcome = soak(suite, share, &bar)?;
        // The table comes in the end; if a later suite hangs, this has been told.
        bar.suspend(|| println!("{}", lines::row(&outcome)));
        outcomes.push(outcome);
    }
    bar.finish_and_clear();
    lines::print(&outcomes, args.suite.is_empty());
    tell_skipped(&missed);
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed).collect();
    for outcome in &failed {
        println!("\nFAILED: {}\n{}", outcome.suite.name, outcome.output);
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// At the beginning, when there is still time to do something about it, and below the table.
fn tell_skipped(missed: &[(&str, &str)]) {
    for (name, what) in missed {
        println!("SKIPPED: {name}, for want of {what}");
    }
}

/// Runs a suite as CI does, which also tells how long it takes, and then for its share of the time.
fn soak(suite: &'static Suite, share: Duration, bar: &ProgressBar) -> Result<Outcome> {
    bar.set_message(suite.name);
    let short = suite.run(1)?;
    bar.inc(1);
    let factor = share.saturating_sub(short.took).as_secs_f64() / short.took.as_secs_f64();
    let outcome = if short.passed && suite.can_grow() && factor >= 2.0 {
        bar.set_message(format!("{} x {}", suite.name, factor as u64));
        suite.run(factor as u64)?
    } else {
        short
    };
    bar.inc(1);
    Ok(outcome)
}
