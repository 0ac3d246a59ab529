//! The table for people, and a line of JSON for each peer in each contest.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{
    measure::{Sample, median},
    runner::{Contest, Target},
};

/// Ours, in every table.
pub const EMBERCACHE: &str = "embercache";

/// What one peer did in one contest.
pub struct Row {
    pub peer: &'static str,
    pub samples: Vec<Sample>,
    pub failure: Option<String>,
}

impl Row {
    /// The median value, if every repetition went well.
    fn median(&self) -> Option<f64> {
        self.median_of(|sample| Some(sample.value))
    }

    fn median_cpu(&self) -> Option<f64> {
        self.median_of(|sample| sample.cpu)
    }

    fn figure(&self, name: &str) -> Option<f64> {
        self.median_of(|sample| sample.figures.get(name).copied())
    }

    fn median_of(&self, value: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let values = self.samples.iter().filter_map(value).collect();
        if self.failure.is_some() { None } else { median(values) }
    }

    fn spread(&self) -> (f64, f64) {
        let values = self.samples.iter().map(|sample| sample.value);
        (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max))
    }

    /// The first thing that was wrong although the work was done.
    fn fault(&self) -> Option<&str> {
        self.samples.iter().find_map(|sample| sample.fault.as_deref())
    }

    /// Each figure's median, and the fault.
    fn notes(&self) -> String {
        let Some(first) = self.samples.first() else { return String::new() };
        let figure = |name: &String| Some(format!("{name} {}", short(self.figure(name)?)));
        let figures = first.figures.keys().filter_map(figure);
        figures.chain(self.fault().map(str::to_owned)).collect::<Vec<_>>().join(", ")
    }
}

/// Whether embercache reached one target.
#[derive(Debug, PartialEq)]
struct Verdict {
    /// `None` if the peer that it is about failed.
    is_met: Option<bool>,
    text: String,
}

/// Where the answers go.
pub struct Report {
    path: PathBuf,
    file: File,
    verdicts: Vec<(String, Verdict)>,
    /// What embercache did that it may not do.
    our_failures: Vec<String>,
}

impl Report {
    /// Begins a file of results with a line about the machine.
    pub fn create(path: &Path, machine: &Value) -> Result<Report> {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let mut file = File::create(path)?;
        writeln!(file, "{machine}")?;
        Ok(Report { path: path.to_owned(), file, verdicts: Vec::new(), our_failures: Vec::new() })
    }

    pub fn add(&mut self, contest: &Contest, rows: &[Row]) -> Result<()> {
        print_table(contest, rows);
        for row in rows {
            writeln!(self.file, "{}", json_line(contest, row))?;
        }
        let name = format!("{} {}", contest.workload, contest.what);
        for verdict in contest.targets.iter().filter_map(|target| verdict(*target, rows)) {
            let line = json!({ "contest": name, "target": verdict.text, "met": verdict.is_met });
            writeln!(self.file, "{line}")?;
            println!("  {}", verdict.text);
            self.verdicts.push((name.clone(), verdict));
        }
        let ours = rows.iter().filter(|row| row.peer == EMBERCACHE);
        let wrong = ours.filter_map(|row| row.failure.as_deref().or(row.fault()));
        self.our_failures.extend(wrong.map(|what| format!("{name}: {what}")));
        Ok(())
    }

    /// Ends with all targets in one list; an error if embercache failed or lied.
    pub fn finish(&mut self) -> Result<()> {
        let count = |is_met| self.verdicts.iter().filter(|(_, verdict)| verdict.is_met == is_met).count();
        println!(
            "\ntargets: {} met, {} SHORT, {} not judged",
            count(Some(true)),
            count(Some(false)),
            count(None)
        );
        for (contest, verdict) in &self.verdicts {
            println!("  {contest}: {}", verdict.text);
        }
        println!("\nraw results: {}", self.path.display());
        ensure!(self.our_failures.is_empty(), "embercache failed: {}", self.our_failures.join("; "));
        Ok(())
    }
}

fn json_line(contest: &Contest, row: &Row) -> Value {
    json!({
        "workload": contest.workload,
        "contest": contest.what,
        "unit": contest.unit,
        "peer": row.peer,
        "median": row.median(),
        "median_cpu": row.median_cpu(),
        "values": row.samples.iter().map(|sample| sample.value).collect::<Vec<_>>(),
        "cpu": row.samples.iter().filter_map(|sample| sample.cpu).collect::<Vec<_>>(),
        "figures": row.samples.iter().map(|sample| &sample.figures).collect::<Vec<_>>(),
        "faults": row.samples.iter().filter_map(|sample| sample.fault.as_ref()).collect::<Vec<_>>(),
        "failure": row.failure,
    })
}

fn print_table(contest: &Contest, rows: &[Row]) {
    let ours = rows.iter().find(|row| row.peer == EMBERCACHE);
    let (value, cpu) = (ours.and_then(Row::median), ours.and_then(Row::median_cpu));
    println!("\n{}  {}  [{}, less is better]", contest.workload, contest.what, contest.unit);
    println!(
        "  {:<18} {:>10} {:>21} {:>10} {:>8} {:>8}",
        "peer", "median", "min .. max", "cpu", "× ours", "by cpu"
    );
    for row in rows {
        if let Some(failure) = &row.failure {
            println!("  {:<18} FAILED: {failure}", row.peer);
            continue;
        }
        let (min, max) = row.spread();
        let line = format!(
            "  {:<18} {:>10} {:>21} {:>10} {:>8} {:>8}  {}",
            row.peer,
            row.median().map_or_else(String::new, short),
            format!("{} .. {}", short(min), short(max)),
            row.median_cpu().map_or_else(String::new, short),
            ratio(row.median(), value),
            ratio(row.median_cpu(), cpu),
            row.notes(),
        );
        println!("{}", line.trim_end());
    }
}

/// `None` if a peer that it names was not asked for.
fn verdict(target: Target, rows: &[Row]) -> Option<Verdict> {
    let ours = rows.iter().find(|row| row.peer == EMBERCACHE)?;
    let Some(value) = ours.median() else {
        return Some(Verdict { is_met: Some(false), text: String::from("target SHORT: embercache failed") });
    };
    let others = || rows.iter().filter(|row| row.peer != EMBERCACHE && !is_reference(row.peer));
    let figure = |name: &str| ours.figure(name).unwrap_or(f64::NAN);
    let (is_met, text) = match target {
        Target::Times(times, peer) => {
            return times_as_good(times, ours, others().find(|row| row.peer == peer)?);
        }
        Target::TimesBest(times) => {
            let medians = others().filter_map(|row| Some((row, row.median()?)));
            return times_as_good(times, ours, medians.min_by(|a, b| a.1.total_cmp(&b.1))?.0);
        }
        Target::AtMost(most) => (value <= most, format!("<= {}: {}", short(most), short(value))),
        Target::FigureAtLeast(name, least) => {
            (figure(name) >= least, format!("{name} >= {}: {}", short(least), short(figure(name))))
        }
        Target::FigureAtMost(name, most) => {
            (figure(name) <= most, format!("{name} <= {}: {}", short(most), short(figure(name))))
        }
        Target::FigureAtLeastBest(name) => {
            let figures = others().filter_map(|row| Some((row.peer, row.figure(name)?)));
            let (peer, best) = figures.max_by(|a, b| a.1.total_cmp(&b.1))?;
            let text = format!("{name} >= that of {peer}, {best:.4}: {:.4}", figure(name));
            (figure(name) >= best, text)
        }
        Target::NoFault => (ours.fault().is_none(), format!("no fault: {}", ours.fault().unwrap_or("none"))),
    };
    Some(Verdict { is_met: Some(is_met), text: format!("target {text} {}", word(is_met)) })
}

/// By the wall, and for information by the CPU where that is known.
fn times_as_good(times: f64, ours: &Row, other: &Row) -> Option<Verdict> {
    let asked = format!("target >= {times:.2} x {}", other.peer);
    let Some(theirs) = other.median() else {
        return Some(Verdict { is_met: None, text: format!("{asked}: not judged, it failed") });
    };
    let reached = theirs / ours.median()?;
    let is_met = reached >= times;
    let by_cpu = ratio(other.median_cpu(), ours.median_cpu());
    let text = format!("{asked}: {reached:.2} {} (by cpu {by_cpu})", word(is_met));
    Some(Verdict { is_met: Some(is_met), text })
}

fn word(is_met: bool) -> &'static str {
    if is_met { "met" } else { "SHORT" }
}

/// Maps that never evict are no caches; they show what would be possible.
fn is_reference(peer: &str) -> bool {
    peer.ends_with('*')
}

fn ratio(other: Option<f64>, ours: Option<f64>) -> String {
    match (other, ours) {
        (Some(other), Some(ours)) => format!("{:.2}", other / ours),
        _ => String::from("-"),
    }
}

/// Three digits or so.
fn short(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 100.0 || value == value.trunc() {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(peer: &'static str, values: &[f64], hit_ratio: f64) -> Row {
        let samples = values.iter().map(|&value| Sample::of(value).with("hit ratio", hit_ratio)).collect();
        Row { peer, samples, failure: None }
    }

    fn judge(target: Target, rows: &[Row]) -> (bool, String) {
        verdict(target, rows).map(|verdict| (verdict.is_met.unwrap(), verdict.text)).unwrap()
    }

    #[test]
    fn a_target_is_judged_by_medians() {
        let rows = [
            row(EMBERCACHE, &[1.0, 2.0, 9.0], 0.7),
            row("moka", &[9.0, 6.0, 1.0], 0.69),
            row("quick_cache", &[3.0], 0.71),
            row("dashmap*", &[0.1], 1.0),
        ];
        assert_eq!(judge(Target::Times(3.0, "moka"), &rows).1, "target >= 3.00 x moka: 3.00 met (by cpu -)");
        assert!(!judge(Target::TimesBest(1.6), &rows).0, "quick_cache is 1.5 times as slow");
        assert!(judge(Target::AtMost(2.0), &rows).0 && !judge(Target::AtMost(1.9), &rows).0);
        assert!(judge(Target::FigureAtLeast("hit ratio", 0.7), &rows).0);
        assert!(!judge(Target::FigureAtMost("hit ratio", 0.6), &rows).0);
        assert!(!judge(Target::FigureAtLeast("scaling", 0.0), &rows).0, "an absent figure is not met");
        let (is_met, text) = judge(Target::FigureAtLeastBest("hit ratio"), &rows);
        assert_eq!(
            (is_met, &*text),
            (false, "target hit ratio >= that of quick_cache, 0.7100: 0.7000 SHORT")
        );
        assert!(verdict(Target::Times(1.0, "foyer"), &rows).is_none(), "it was not asked for");
    }

    #[test]
    fn a_peer_that_failed_is_not_the_best_and_embercache_is_short() {
        let failed = Row { failure: Some(String::from("LIES")), ..row("moka", &[0.1], 1.0) };
        let rows = [row(EMBERCACHE, &[1.0], 0.7), failed, row("quick_cache", &[3.0], 0.6)];
        assert!(judge(Target::TimesBest(3.0), &rows).0);
        assert_eq!(verdict(Target::Times(1.0, "moka"), &rows).unwrap().is_met, None);
        let rows = rows.map(|row| Row { failure: Some(String::from("LIES")), ..row });
        assert!(!judge(Target::AtMost(9.0), &rows).0);
    }

    #[test]
    fn what_embercache_did_wrong_fails_the_run_and_what_others_did_does_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut report = Report::create(file.path(), &Value::Null).unwrap();
        let contest = Contest::new("W6", "reopen", "ms").target(Target::NoFault);
        let stale = |peer| {
            let sample = Sample::of(1.0).with_fault(Some(String::from("1 STALE")));
            Row { peer, samples: vec![sample], failure: None }
        };
        report.add(&contest, &[row(EMBERCACHE, &[1.0], 0.0), stale("foyer")]).unwrap();
        assert!(report.finish().is_ok());
        report.add(&contest, &[stale(EMBERCACHE)]).unwrap();
        assert_eq!(report.finish().unwrap_err().to_string(), "embercache failed: W6 reopen: 1 STALE");
        let written = fs::read_to_string(file.path()).unwrap();
        assert!(written.contains(r#""peer":"foyer""#) && written.contains(r#""met":false"#));
    }
}
