//! What there is to run, and running it.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

/// Tests that are run by one command, and said to do more by the environment.
pub struct Suite {
    pub name: &'static str,
    pub what: &'static str,
    kind: Kind,
}

enum Kind {
    /// A module of one of the crate's own test targets, or all of a target that is named as the suite is.
    /// Multiplies its cases by `EMBERCACHE_SOAK`, if it has any to multiply.
    Test { target: &'static str, can_grow: bool },
    /// The same of the package in `fuse/`, whose file systems only root may mount.
    Served,
    /// A fuzz target, for [`FUZZ_SECONDS`] times the factor, and the lines that its figures are for.
    Fuzz(&'static [u32]),
    /// The models of the lock-free look-up, in all of their executions.
    Models,
    /// The whole engine in orders that shuttle chooses.
    Schedules,
    /// The stress under both sanitizers, for [`SANITIZE_SECONDS`] times the factor each.
    Sanitizers,
}

const fn test(target: &'static str, name: &'static str, what: &'static str) -> Suite {
    Suite { name, what, kind: Kind::Test { target, can_grow: true } }
}

/// One that a longer run would only repeat.
const fn once(target: &'static str, name: &'static str, what: &'static str) -> Suite {
    Suite { name, what, kind: Kind::Test { target, can_grow: false } }
}

const fn served(name: &'static str, what: &'static str) -> Suite {
    Suite { name, what, kind: Kind::Served }
}

const fn fuzz(name: &'static str, lines: &'static [u32], what: &'static str) -> Suite {
    Suite { name, what, kind: Kind::Fuzz(lines) }
}

const FUZZ_SECONDS: u64 = 20;
const SANITIZE_SECONDS: u64 = 10;
const SERVED: &str = "fuse/Cargo.toml";

pub const SUITES: &[Suite] = &[
    test("crash", "kill", "SIGKILL at random moments"),
    test("crash", "points", "SIGKILL at named operations of the disk"),
    test("crash", "invalidations", "removes and overwrites right after their acknowledgement"),
    test("truth", "no_stale", "eight threads and an oracle"),
    test("truth", "audit", "what races leave on disk, to the last record"),
    once("truth", "peers_lie", "situations in which other caches return old values"),
    test("truth", "model", "random operations beside a model"),
    test("crash", "every_moment", "a stop at every operation of the disk"),
    test("crash", "power_loss", "what a loss of power may leave"),
    test("disk", "faults", "the nth operation of the disk fails"),
    test("disk", "syncs", "syncs and journals that fail"),
    once("disk", "costs", "what operations cost the disk"),
    once("disk", "format", "the directory of a release"),
    once("disk", "open", "what an open refuses"),
    test("disk", "corruption", "damaged, cut and forged files"),
    test("machine", "machine", "real faults: full and failing file systems, limits, other processes"),
    test("disk", "opening", "look-ups while the index is being loaded"),
    test("disk", "read_only", "directories opened for reading only"),
    test("process", "restart", "a restart's time, and its memory at its height"),
    test("process", "write_amplification", "bytes written a byte"),
    test("process", "growth", "memory, descriptors and maps over a long time"),
    served("images", "what a loss of power may leave of an ext4"),
    served("direct_io", "a file system that cannot map"),
    test("disk", "footprint", "the log's size while segments come and go"),
    test("process", "slow_disk", "a disk of 5 MB a second"),
    test("caller", "collisions", "keys that an enemy has chosen"),
    test("caller", "limits", "the edges of sizes, times and numbers"),
    test("process", "user_code", "user code that panics"),
    test("process", "length_bombs", "lengths that were forged"),
    fuzz("segment", &[39], "segments as the parser meets them"),
    fuzz("metadata", &[40, 41], "STATE, snapshot and journal as the parsers meet them"),
    fuzz("codec", &[44], "bytes that no codec wrote"),
    fuzz("operations", &[42], "operations with kills, reboots and faults beside a model"),
    Suite { name: "models", what: "the look-up without a lock, by loom", kind: Kind::Models },
    Suite { name: "schedules", what: "the whole engine in orders chosen by shuttle", kind: Kind::Schedules },
    Suite {
        name: "sanitizers",
        what: "the stress by ThreadSanitizer and AddressSanitizer",
        kind: Kind::Sanitizers,
    },
];

/// What a run came to.
pub struct Outcome {
    pub suite: &'static Suite,
    pub factor: u64,
    pub passed: bool,
    pub took: Duration,
    /// The figures that it printed, by line.
    pub figures: Vec<(u32, String)>,
    pub output: String,
}

impl Suite {
    /// Whether a longer run does more.
    pub fn can_grow(&self) -> bool {
        !matches!(self.kind, Kind::Test { can_grow: false, .. } | Kind::Models)
    }

    /// What it needs and this machine has not.
    pub fn misses(&self) -> Option<&'static str> {
        let is_fuzz = matches!(self.kind, Kind::Fuzz(_));
        let has_fuzzer = || cargo(&["fuzz", "--version"]).output().is_ok_and(|told| told.status.success());
        (is_fuzz && !has_fuzzer()).then_some("cargo-fuzz (`cargo install cargo-fuzz`)")
    }

    /// Builds it, so that the run's time is the run's.
    pub fn build(&self) -> Result<()> {
        let mut command = match self.kind {
            Kind::Test { target, .. } => cargo(&["test", "--release", "--no-run", "--test", target]),
            Kind::Served => {
                cargo(&["test", "--release", "--manifest-path", SERVED, "--no-run", "--test", self.name])
            }
            Kind::Fuzz(_) => cargo(&["fuzz", "build", self.name]),
            Kind::Models => loom(&["--no-run"]),
            Kind::Schedules => shuttle(&["--no-run"]),
            // A script that builds and runs.
            Kind::Sanitizers => sanitize(2),
        };
        let built = command.output().context("cargo could not be started")?;
        ensure!(built.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&built.stderr));
        Ok(())
    }

    pub fn run(&'static self, factor: u64) -> Result<Outcome> {
        let mut command = match self.kind {
            Kind::Test { target, .. } => {
                let mut command = cargo(&["test", "--release", "--test", target, "--", "--nocapture"]);
                if target != self.name {
                    command.arg(format!("{}::", self.name));
                }
                command
            }
            Kind::Served => {
                let test = ["test", "--release", "--manifest-path", SERVED, "--test", self.name];
                cargo(&[&test[..], &["--", "--nocapture"]].concat())
            }
            Kind::Fuzz(_) => {
                let time = format!("-max_total_time={}", FUZZ_SECONDS * factor);
                cargo(&["fuzz", "run", self.name, "--", &time, "-detect_leaks=0", "-print_final_stats=1"])
            }
            Kind::Models => loom(&["loom_"]),
            Kind::Schedules => shuttle(&["schedules::", "--", "--nocapture"]),
            Kind::Sanitizers => sanitize(SANITIZE_SECONDS * factor),
        };
        command.env("EMBERCACHE_SOAK", factor.to_string());
        let begun = Instant::now();
        let run = command.output().context("cargo could not be started")?;
        let output =
            [run.stdout, run.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        Ok(Outcome {
            suite: self,
            factor,
            passed: run.status.success(),
            took: begun.elapsed(),
            figures: match self.kind {
                Kind::Test { .. } | Kind::Served | Kind::Schedules | Kind::Sanitizers => figures(&output),
                Kind::Fuzz(lines) => lines.iter().map(|&line| (line, executions(&output))).collect(),
                Kind::Models => vec![(33, models(&output))],
            },
            output,
        })
    }
}

/// In the crate's directory, with what nightly flags the fuzzer needs.
fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(args).current_dir(root()).env("RUSTC_BOOTSTRAP", "1");
    command
}

/// The unit tests as shuttle runs them, in a target folder of their own: its flag would build all anew.
fn shuttle(args: &[&str]) -> Command {
    let test = ["test", "--lib", "--target-dir", "target/shuttle"];
    let mut command = cargo(&[&test[..], args].concat());
    command.env("RUSTFLAGS", "--cfg shuttle");
    command
}

/// The same for loom, whose models take seconds even unoptimised.
fn loom(args: &[&str]) -> Command {
    let test = ["test", "--lib", "--target-dir", "target/loom"];
    let mut command = cargo(&[&test[..], args].concat());
    command.env("RUSTFLAGS", "--cfg loom").env("CARGO_PROFILE_DEV_OPT_LEVEL", "0");
    command
}

fn sanitize(seconds: u64) -> Command {
    let mut command = Command::new(root().join(".ci/sanitize"));
    command.env("SANITIZE_SECONDS", seconds.to_string());
    command
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the crate's directory")
}

/// The tests print `line N: figures`, behind the test's name where there is but one thread.
fn figures(output: &str) -> Vec<(u32, String)> {
    let figure = |line: &str| {
        let line = line.trim();
        let told = line.split_once(" ... ").map_or(line, |(_, told)| told);
        let (number, figures) = told.strip_prefix("line ")?.split_once(": ")?;
        Some((number.parse().ok()?, figures.to_owned()))
    };
    output.lines().filter_map(figure).collect()
}

/// The models that held.
fn models(output: &str) -> String {
    let held = output.lines().filter(|line| line.contains("loom_") && line.ends_with(" ... ok")).count();
    format!("{held} models hold in all of their executions")
}

/// What libFuzzer prints in the end, and its last word on coverage.
fn executions(output: &str) -> String {
    let after = |name: &str| {
        let at = output.rfind(name)? + name.len();
        output[at..].split_whitespace().next()
    };
    let executions = after("stat::number_of_executed_units:").unwrap_or("no");
    format!("{executions} executions, {} edges covered", after(" cov:").unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A filter that names no module would run nothing, and pass.
    #[test]
    fn every_suite_is_where_it_is_looked_for() {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
        for suite in SUITES {
            let Kind::Test { target, .. } = suite.kind else { continue };
            let dir = if target == suite.name { "" } else { target };
            assert!(tests.join(dir).join(suite.name).with_extension("rs").exists(), "{}", suite.name);
        }
    }

    #[test]
    fn figures_are_found_among_other_output() {
        let output = "running 2 tests\nline 15: 7 flips, 0 wrong\nline x: no\ntest a ... ok\n  line 9: b: c\n\
                      test d ... line 8: e";
        let found = [(15, "7 flips, 0 wrong"), (9, "b: c"), (8, "e")];
        assert_eq!(figures(output), found.map(|(line, figures)| (line, figures.to_owned())));
    }

    #[test]
    fn models_are_counted() {
        let output = "test a::loom_x ... ok\ntest a::loom_y ... FAILED\ntest a::z ... ok\ntest loom_w ... ok";
        assert_eq!(models(output), "2 models hold in all of their executions");
    }

    #[test]
    fn the_fuzzer_tells_executions_and_coverage() {
        let output =
            "#8 pulse cov: 12 ft: 3\n#9 DONE cov: 34 ft: 5\nstat::number_of_executed_units: 900\nstat::x: 1";
        assert_eq!(executions(output), "900 executions, 34 edges covered");
    }
}
