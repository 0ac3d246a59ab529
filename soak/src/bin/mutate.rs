//! Plants the faults of mutations.toml, one at a time, in a copy of the crate, and sees that the test which is
//! named there fails: a test suite is worth what it catches.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

#[derive(Parser)]
#[command(about = "Plants faults, one at a time, and sees that a test catches each")]
struct Args {
    /// Only faults whose rule or description has this in it.
    #[arg(default_value = "")]
    only: String,
    /// Names the faults and what catches them, and ends.
    #[arg(long)]
    list: bool,
}

#[derive(Deserialize)]
struct Mutations {
    mutation: Vec<Mutation>,
}

/// A fault, and what catches it.
#[derive(Deserialize)]
struct Mutation {
    /// What it breaks: a rule of ARCHITECTURE.md, or an order.
    rule: String,
    what: String,
    file: PathBuf,
    old: String,
    new: String,
    /// The arguments of `cargo test` that name the test.
    caught_by: String,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.parent().context("this package lies in the crate's directory")?;
    let list = fs::read_to_string(package.join("mutations.toml"))?;
    let mut faults = toml::from_str::<Mutations>(&list)?.mutation;
    faults.retain(|fault| fault.rule.contains(&args.only) || fault.what.contains(&args.only));
    if args.list {
        faults
            .iter()
            .for_each(|fault| println!("| {} | {} | `{}` |", fault.rule, fault.what, fault.caught_by));
        return Ok(ExitCode::SUCCESS);
    }
    let copy = Copy::of(root)?;
    let bar = ProgressBar::new(faults.len() as u64)
        .with_style(ProgressStyle::with_template("[{elapsed_precise}] {wide_bar} {pos}/{len} {msg}")?);
    let mut missed = 0;
    for fault in &faults {
        bar.set_message(fault.what.clone());
        let caught = copy.plant(fault).with_context(|| fault.what.clone())?;
        missed += usize::from(!caught);
        bar.suspend(|| {
            println!("{} {}: {}", if caught { "caught" } else { "MISSED" }, fault.rule, fault.what)
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!("{} faults, {missed} missed", faults.len());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The crate's sources as they are committed, in a directory that goes at the end.
struct Copy {
    dir: tempfile::TempDir,
}

impl Copy {
    fn of(root: &Path) -> Result<Copy> {
        let dir = tempfile::tempdir()?;
        let to = dir.path().join("crate");
        let cloned = Command::new("git").args(["clone", "--quiet"]).args([root, &to]).status()?;
        ensure!(cloned.success(), "{} cannot be cloned", root.display());
        Ok(Copy { dir })
    }

    /// Whether the fault is caught: the test compiles with it, and fails.
    fn plant(&self, fault: &Mutation) -> Result<bool> {
        let file = self.path().join(&fault.file);
        let good = fs::read_to_string(&file)?;
        ensure!(good.matches(&fault.old).count() == 1, "{} has it not once", fault.file.display());
        fs::write(&file, good.replace(&fault.old, &fault.new))?;
        let caught = self.test(&fault.caught_by);
        fs::write(&file, good)?;
        caught
    }

    fn test(&self, args: &str) -> Result<bool> {
        let cargo = |rest: &[&str]| {
            let mut command = Command::new("cargo");
            // A fault may leave something unused.
            command
                .current_dir(self.path())
                .env("RUSTFLAGS", "--cap-lints=allow")
                .env_remove("CARGO_TARGET_DIR");
            command.arg("test").args(args.split_whitespace()).args(rest).output()
        };
        let built = cargo(&["--no-run"])?;
        if !built.status.success() {
            bail!("it does not compile: {}", String::from_utf8_lossy(&built.stderr));
        }
        Ok(!cargo(&[])?.status.success())
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("crate")
    }
}
