//! The summary, by the lines of docs/reliability.md.

use crate::suite::Outcome;

/// Prints a table of the suites and one of the figures, in Markdown.
pub fn print(outcomes: &[Outcome]) {
    println!("| suite | what | times as much as CI | took | |\n|---|---|---|---|---|");
    outcomes.iter().for_each(|outcome| println!("{}", row(outcome)));
    let mut figures: Vec<_> = outcomes.iter().flat_map(|outcome| &outcome.figures).collect();
    figures.sort();
    println!("\n| line | figures |\n|---|---|");
    figures.iter().for_each(|(line, figures)| println!("| {line} | {figures} |"));
    let skipped =
        outcomes.iter().flat_map(|outcome| outcome.output.lines()).filter(|line| line.contains("SKIPPED"));
    skipped.for_each(|line| println!("\n{}", line.trim()));
}

/// What a suite came to, as a row of that table.
pub fn row(outcome: &Outcome) -> String {
    let verdict = if outcome.passed { "passed" } else { "FAILED" };
    let (name, what) = (outcome.suite.name, outcome.suite.what);
    format!("| {name} | {what} | {} | {} s | {verdict} |", outcome.factor, outcome.took.as_secs())
}
