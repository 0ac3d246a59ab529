//! embercache and its peers at the same verified work, in turns. See README.md.

mod child;
mod connections;
mod content;
mod database;
mod machine;
mod measure;
mod peers;
mod report;
mod runner;
mod workloads;

use std::{
    panic,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use crate::{
    report::Report,
    runner::{Runner, Scale},
    workloads::{ALL, Workload},
};

#[derive(Parser)]
#[command(about = "embercache and its peers at the same verified work, in turns")]
struct Cli {
    /// Less of everything: done in two minutes, and noisier.
    #[arg(long)]
    quick: bool,
    /// Only this workload (W1, W2, ...); may be repeated.
    #[arg(long)]
    workload: Vec<String>,
    /// Only this peer, beside embercache; may be repeated.
    #[arg(long)]
    peer: Vec<String>,
    /// Repetitions of each contest.
    #[arg(long)]
    repetitions: Option<usize>,
    /// Where the JSON lines go. Default: `results/` in this package.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Name the workloads and end.
    #[arg(long)]
    list: bool,
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(Subcommand)]
enum Task {
    /// Not for people: a part that is measured in a process of its own.
    #[command(hide = true)]
    Child { args: Vec<String> },
}

/// An error ends in one line, whatever RUST_BACKTRACE says: a child's is read by its parent.
fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    panic::set_hook(Box::new(|panic| eprintln!("panic in {:?}: {panic}", thread::current().name())));
    if let Some(Task::Child { args }) = cli.task {
        return child::run(&args);
    }
    if cli.list {
        ALL.iter().for_each(|workload| println!("{}  {}", workload.name, workload.what));
        return Ok(());
    }
    let chosen = choose(&cli.workload)?;
    let scale =
        Scale { is_quick: cli.quick, repetitions: cli.repetitions.unwrap_or(if cli.quick { 2 } else { 3 }) };
    let machine = machine::describe(cli.quick, scale.repetitions);
    println!("{}", serde_json::to_string_pretty(&machine)?);
    let mut peers = cli.peer;
    if !peers.is_empty() {
        peers.push(report::EMBERCACHE.to_owned());
    }
    let report = Report::create(&cli.output.unwrap_or_else(|| default_output(cli.quick)), &machine)?;
    let mut runner = Runner::new(scale, peers, report);
    chosen.iter().try_for_each(|workload| (workload.run)(&mut runner))?;
    runner.finish()
}

fn choose(names: &[String]) -> Result<Vec<&'static Workload>> {
    let is_known = |name: &String| ALL.iter().any(|workload| workload.name.eq_ignore_ascii_case(name));
    ensure!(names.iter().all(is_known), "no such workload; --list names them");
    let is_chosen = |workload: &&Workload| {
        names.is_empty() && workload.is_default
            || names.iter().any(|name| name.eq_ignore_ascii_case(workload.name))
    };
    Ok(ALL.iter().filter(is_chosen).collect())
}

fn default_output(is_quick: bool) -> PathBuf {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let kind = if is_quick { "quick" } else { "full" };
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results").join(format!("{kind}-{seconds}.jsonl"))
}
