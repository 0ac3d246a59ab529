//! Plays recorded traces through embercache, reference policies and other crates, and prints how
//! often each of them missed.

mod contestant;
mod ember;
mod player;
mod plot;
mod policies;
mod recipe;
mod report;
mod rivals;
mod size;
mod trace;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use contestant::Contestant;
use player::Outcome;
use recipe::Recipe;
use report::{Report, Row};
use size::Size;
use trace::{Columns, Trace};

/// Where the recipe looks for traces, from this package. Their licences keep them out of the repository.
const TRACES: &str = "../../../shared/traces";
const QUICK_REQUESTS: usize = 50_000;

/// Plays recorded traces through embercache and other caches: look up, and store on a miss.
#[derive(Parser)]
struct Arguments {
    /// A trace: .k8 (u64 keys), .k8s4 (u64 keys, u32 sizes), .csv, or else one key a line; each also
    /// as .zst. With --recipe, a folder of traces: by default `shared/traces` beside the repository.
    #[arg(required_unless_present = "recipe")]
    path: Option<PathBuf>,
    /// Sizes of the cache: shares of the distinct keys (with --bytes, of their bytes), or numbers.
    #[arg(long, value_delimiter = ',', default_value = "0.1%,1%,5%,10%,25%")]
    sizes: Vec<Size>,
    /// Who plays. Without it, one of each kind. With --recipe, everybody; and if any are named, by entries only.
    #[arg(long, value_delimiter = ',')]
    caches: Vec<Contestant>,
    /// Plays the first so many requests only.
    #[arg(long)]
    requests: Option<usize>,
    /// Counts the sizes of the requests; else every entry is one.
    #[arg(long)]
    bytes: bool,
    /// The column of a CSV with the key: its name, or its number from 0.
    #[arg(long, default_value = "key")]
    key_column: String,
    /// The column of a CSV with the size.
    #[arg(long)]
    size_column: Option<String>,
    /// Prints a line of JSON for each cache and size in place of a table.
    #[arg(long)]
    json: bool,
    /// Draws the miss ratios over the sizes.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Plays every trace of a folder as the recipe says, and prints each cache's means and which targets
    /// are met. Minutes.
    #[arg(long, conflicts_with_all = ["sizes", "bytes", "plot", "json"])]
    recipe: bool,
    /// Plays a small part of each trace, to see that all is in order: the targets are not for that.
    #[arg(long, requires = "recipe", conflicts_with = "requests")]
    quick: bool,
    /// Writes the recipe's raw results, a line of JSON for each trace and size.
    #[arg(long, requires = "recipe", value_name = "FILE.jsonl")]
    save: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.recipe {
        return arguments.recipe().play();
    }
    let path = arguments.path.context("a trace is needed")?;
    let default = &contestant::OF_EACH_KIND[..];
    let caches = if arguments.caches.is_empty() { default } else { &arguments.caches };
    let columns =
        Columns { key: arguments.key_column, size: arguments.size_column, in_bytes: arguments.bytes };
    let mut trace = Trace::read(&path, &columns, arguments.requests.unwrap_or(usize::MAX))?;
    if arguments.bytes {
        trace.add_overhead(ember::Ember::entry_overhead_bytes()?);
        let tiers = caches.iter().any(|cache| cache.has_disk());
        ensure!(!tiers, "both tiers are played by entries, not by bytes");
    }
    let report = play(&trace, &arguments.sizes, caches)?;
    report.print(arguments.json)?;
    arguments.plot.map_or(Ok(()), |path| plot::draw(&report, &path))
}

impl Arguments {
    fn recipe(self) -> Recipe {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join(TRACES);
        Recipe {
            folder: self.path.unwrap_or(beside),
            caches: self.caches,
            requests_max: if self.quick { Some(QUICK_REQUESTS) } else { self.requests },
            save: self.save,
        }
    }
}

fn play(trace: &Trace, sizes: &[Size], caches: &[Contestant]) -> Result<Report> {
    let progress = progress_bar(trace.len() as u64 * (sizes.len() * caches.len()) as u64);
    let mut rows = Vec::new();
    for size in sizes.iter().map(|size| size.of(trace)) {
        if trace.is_weighted() && size < ember::RAM_BYTES_MIN {
            progress.println(format!("{size} bytes are too few for a cache: left out"));
            continue;
        }
        if size == 0 {
            progress.println("a size of no entries: left out");
            continue;
        }
        for &cache in caches {
            progress.set_message(format!("{} {size}", cache.name()));
            let outcome = Outcome::of(&mut *cache.player(size, trace)?, trace, &progress);
            rows.push(Row { cache, size, outcome });
        }
    }
    progress.finish_and_clear();
    Ok(Report::new(trace, rows))
}

/// Hidden where nobody watches.
fn progress_bar(requests: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:30} {wide_bar} {percent} % {per_sec} {eta}");
    ProgressBar::new(requests).with_style(style.expect("the template is well-formed"))
}
