//! An athletic-shoes web shop over SQLite, serving the same customers without a cache and with embercache,
//! killed while it serves, and started again.
//!
//! How the cache is put into the service stands in `service.rs`; the README has a map of the rest.

mod acknowledged;
mod catalog;
mod ledger;
mod page;
mod process;
mod report;
mod serve;
mod service;
mod store;
mod summary;
mod table;
mod traffic;
mod wording;

use std::{
    fs, io,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::{Parser, Subcommand};
use indicatif::{HumanCount, ProgressBar};

use crate::{process::Process, report::Report, serve::Plan};

/// Serves a shoe shop without a cache and with embercache, kills it, starts it again, and prints a table.
#[derive(Parser)]
struct Args {
    /// Where the database and the caches go. The database is built once.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/shop-data"))]
    data: PathBuf,
    /// Products in the catalogue.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    products: u64,
    /// How long each of the two runs serves.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Threads that serve.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    threads: u64,
    /// Leave out the invalidation, to see the stale pages counted.
    #[arg(long)]
    without_invalidation: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serves as the plan says: what this program starts itself as.
    #[command(hide = true)]
    Serve { plan: String },
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(Command::Serve { plan }) = &args.command {
        serve::serve(&serde_json::from_str(plan)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let begin = Instant::now();
    let shop = Shop::build(&args)?;

    let without = shop.run("Serving without a cache", &shop.plan(None))?;
    let with = shop.run_and_kill("Serving with embercache, then SIGKILL", &shop.plan(Some("cache")))?;
    let warm = shop.run("Starting again, warm", &shop.first_second("cache"))?;
    let cold = shop.run("Starting again, cold", &shop.first_second("cold-cache"))?;
    shop.remove_caches()?;

    println!("\n{}", summary::runs(&without, &with));
    println!("{}", summary::first_seconds(&cold, &warm));
    let stale: u64 = [&without, &with, &warm, &cold].iter().map(|report| report.all_stale()).sum();
    println!("stale pages seen: {stale}        (took {:.0} s in all)", begin.elapsed().as_secs_f64());
    Ok(if stale == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The shop's data on disk and the options of its runs.
struct Shop<'a> {
    args: &'a Args,
    database: PathBuf,
}

impl<'a> Shop<'a> {
    /// Builds the database if it is not there, and puts away the caches of an earlier run.
    fn build(args: &'a Args) -> Result<Shop<'a>> {
        fs::create_dir_all(&args.data)?;
        let database = catalog::path(&args.data, args.products);
        let begin = Instant::now();
        if !database.exists() {
            catalog::build_once(&database, args.products)?;
            println!(
                "Built a catalogue of {} products in {}.",
                HumanCount(args.products),
                summary::time(begin.elapsed())
            );
        }
        let shop = Shop { args, database };
        shop.remove_caches()?;
        Ok(shop)
    }

    fn remove_caches(&self) -> Result<()> {
        ["cache", "cold-cache"].iter().try_for_each(|name| {
            match fs::remove_dir_all(self.args.data.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            }
        })
    }

    /// A long run. Without a cache and with one it gets the same requests.
    fn plan(&self, cache: Option<&str>) -> Plan {
        Plan {
            database: self.database.clone(),
            cache: cache.map(|name| self.args.data.join(name)),
            products: self.args.products,
            threads: self.args.threads,
            measured: Duration::from_secs(self.args.seconds),
            seed: 1,
            invalidates: !self.args.without_invalidation,
            until_killed: false,
        }
    }

    /// The first second of a process, with requests that no run has had before.
    fn first_second(&self, cache: &str) -> Plan {
        Plan { measured: Duration::from_secs(1), seed: 2, ..self.plan(Some(cache)) }
    }

    fn run(&self, what: &'static str, plan: &Plan) -> Result<Report> {
        let (mut process, progress) = self.start(what, plan)?;
        let report = process.report()?;
        process.wait()?;
        progress.finish_and_clear();
        println!("{what}: {} requests.", HumanCount(report.all.count));
        Ok(report)
    }

    fn run_and_kill(&self, what: &'static str, plan: &Plan) -> Result<Report> {
        let (mut process, progress) = self.start(what, &Plan { until_killed: true, ..plan.clone() })?;
        let report = process.report()?;
        // It goes on serving and changing prices: the kill falls into the middle of that.
        thread::sleep(Duration::from_millis(300));
        process.kill()?;
        progress.finish_and_clear();
        println!("{what}: {} requests.", HumanCount(report.all.count));
        Ok(report)
    }

    fn start(&self, what: &'static str, plan: &Plan) -> Result<(Process, ProgressBar)> {
        store::checkpoint(&self.database)?;
        let progress = ProgressBar::new_spinner().with_message(what);
        progress.enable_steady_tick(Duration::from_millis(100));
        Ok((Process::start(plan)?, progress))
    }
}
