//! Plants the faults of mutations.toml, one at a time, in a copy of the crate, and sees that the test which is
//! named there fails, and passes without the fault: a test suite is worth what it catches.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
};

use anyhow::{Result, bail, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

/// What builds or runs longer has hung.
const TEST_SECONDS: &str = "900";

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
    let mut faults = faults()?;
    faults.retain(|fault| fault.rule.contains(&args.only) || fault.what.contains(&args.only));
    if args.list {
        faults.iter().for_each(|fault| println!("{}", fault.row()));
        return Ok(ExitCode::SUCCESS);
    }
    let copy = Copy::of(root())?;
    let bar = ProgressBar::new(faults.len() as u64)
        .with_style(ProgressStyle::with_template("[{elapsed_precise}] {wide_bar} {pos}/{len} {msg}")?);
    // First, so that the crate is built once for all of them.
    let mut controls = BTreeMap::new();
    for Mutation { caught_by, .. } in &faults {
        bar.set_message(format!("no fault: {caught_by}"));
        controls.entry(caught_by).or_insert_with(|| copy.control(caught_by));
    }
    let mut missed = 0;
    for fault in &faults {
        bar.set_message(fault.what.clone());
        // What is not tested does not end it: the others are still worth a run.
        let verdict = match controls[&fault.caught_by].as_ref().map(|()| copy.plant(fault)) {
            Ok(Ok(true)) => "caught".to_owned(),
            Ok(Ok(false)) => "MISSED".to_owned(),
            Ok(Err(error)) => format!("NOT TESTED, {error:#}:"),
            Err(error) => format!("NOT TESTED, {error:#}:"),
        };
        missed += usize::from(verdict != "caught");
        bar.suspend(|| println!("{verdict} {}: {}", fault.rule, fault.what));
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!("{} faults, {missed} missed", faults.len());
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn faults() -> Result<Vec<Mutation>> {
    let list = fs::read_to_string(root().join("soak/mutations.toml"))?;
    Ok(toml::from_str::<Mutations>(&list)?.mutation)
}

/// The crate's directory.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in it")
}

impl Mutation {
    /// Its line in docs/mutations.md.
    fn row(&self) -> String {
        format!("| {} | {} | `{}` |", self.rule, self.what, self.caught_by)
    }

    /// The file's text with the fault in it.
    fn apply(&self, good: &str) -> Result<String> {
        ensure!(good.matches(&self.old).count() == 1, "{} has it not once", self.file.display());
        Ok(good.replace(&self.old, &self.new))
    }
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

    /// That there is such a test, and that it passes without a fault: one that does not catches nothing.
    fn control(&self, args: &str) -> Result<()> {
        let run = self.test(args)?;
        let output = String::from_utf8_lossy(&run.stdout);
        ensure!(run.status.success(), "the test fails without it: {output}");
        ensure!(output.lines().any(|line| line.ends_with(" ... ok")), "there is no test {args}");
        Ok(())
    }

    /// Whether the fault is caught: the test compiles with it, and fails.
    fn plant(&self, fault: &Mutation) -> Result<bool> {
        let file = self.path().join(&fault.file);
        let good = fs::read_to_string(&file)?;
        fs::write(&file, fault.apply(&good)?)?;
        let run = self.test(&fault.caught_by);
        fs::write(&file, good)?;
        Ok(!run?.status.success())
    }

    fn test(&self, args: &str) -> Result<Output> {
        let cargo = |rest: &[&str]| {
            // A fault may make a test wait for ever.
            let mut command = Command::new("timeout");
            command.args([TEST_SECONDS, "cargo"]);
            // It may leave something unused.
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
        Ok(cargo(&[])?)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("crate")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_can_be_planted() {
        for fault in faults().unwrap() {
            let good = fs::read_to_string(root().join(&fault.file)).unwrap();
            fault.apply(&good).unwrap_or_else(|error| panic!("{}: {error}", fault.what));
        }
    }

    #[test]
    fn the_docs_list_every_fault() {
        let docs = fs::read_to_string(root().join("docs/mutations.md")).unwrap();
        let listed: Vec<&str> = docs.lines().filter(|line| line.ends_with("` |")).collect();
        let faults: Vec<String> = faults().unwrap().iter().map(Mutation::row).collect();
        assert_eq!(listed, faults, "docs/mutations.md is not what --list prints");
    }
}
