//! The summary, by the lines of docs/reliability.md.

use crate::suite::Outcome;

/// What each line asks for. A long run has the counts; CI has a part of them.
pub const LINES: [(u32, &str); 64] = [
    (1, "SIGKILL within 300 ms, 1,000 times: 0 stale, 0 corrupt, 99 % of what was flushed is back"),
    (2, "SIGKILL at each of 30 points, 20 times each: the same"),
    (3, "SIGKILL of a recovery, 200 times: the same set as without"),
    (4, "SIGKILL in snapshot, STATE and footer, 200 times each: no error at open, 0 stale"),
    (5, "remove and SIGKILL, 10,000 times: 0 come back"),
    (6, "overwrite of a value on disk and SIGKILL, 10,000 times: the new one or none"),
    (7, "value, tombstone, reclaim and restart in 1,000 orders: 0 come back"),
    (8, "overwrite whose copy is rejected, 10,000 times: 0 old values"),
    (9, "clear and SIGKILL at 20 points, 10 times each: all or nothing, after it all"),
    (10, "PowerLoss, 100,000 images: 0 stale, 0 corrupt, all that was synced is back"),
    (11, "ProcessCrash on another boot, 10,000 images: all cold, 0 stale"),
    (12, "200 images of an ext4: it mounts, 0 stale, what was synced is complete"),
    (13, "want of memory, abort, panic, 50 times each: as 1; closed within 5 s"),
    (
        14,
        "(a) a segment that goes, (b) a copy unreadable for a while, (c) a batch half written, (d) a lost unlink, 1,000 times each: 0 stale",
    ),
    (15, "each byte of a segment of 1 MiB: 0 wrong, 0 panics, 99 % of the others readable"),
    (16, "a cut at each length of 64 KiB, and 1,000 of 64 MiB: whole records before it are back"),
    (17, "pages of zeros or garbage, 10,000 times: 0 wrong"),
    (18, "segments swapped, doubled, renamed, 1,000 times: 0 stale"),
    (19, "frames of another life behind the end, 1,000 times: 0 accepted"),
    (20, "each byte of a snapshot of 64 KiB: the same keys, no error"),
    (21, "each byte of a journal of 64 KiB: cold or correct"),
    (22, "STATE damaged, missing or another's, 4,096 times: cold"),
    (23, "a full file system for 60 s: 0 SIGBUS, no error from get, back within 5 s and the pause"),
    (24, "segments of 64 MiB under a limit of 8 MiB on files: the process lives"),
    (25, "the nth call fails, 8,000 runs: 0 panics, 0 stale, nobody waits 5 s"),
    (26, "eight scenarios of LD_PRELOAD: RAM as full as without, counted"),
    (27, "a sync fails: not again, its entries miss, its file is gone"),
    (28, "a device that was cut off, 10,000 reads: 0 SIGBUS, misses"),
    (29, "a segment cut by another process, 10,000 reads: 0 SIGBUS, 0 wrong"),
    (30, "a journal that cannot be written, 100 times: cold next, or an error"),
    (31, "a disk of 5 MB/s: p99 of inserts at most doubled, buffers within their cap, drops counted"),
    (32, "8 threads, 10,000,000 operations and an oracle, restarts: 0 stale"),
    (33, "loom, at least 4 models: all executions"),
    (34, "shuttle, 100,000 random schedules and 10,000 by PCT: 0 failures"),
    (35, "races of spills, rewrites and promotions, 1,000 each: 0 stale, disk and index agree exactly"),
    (36, "a value lent while its segment is reclaimed, 1,000 times: unchanged, disk within two segments"),
    (37, "ThreadSanitizer and AddressSanitizer, 600 s each: no report"),
    (38, "a watchdog of 30 s in all stress tests: 0 trips"),
    (39, "fuzzed segments (100,000,000 inputs to all parsers): 0 crashes"),
    (40, "fuzzed snapshots and journals"),
    (41, "fuzzed STATE"),
    (42, "1,000,000 fuzzed sequences of operations, kills, faults, beside a model"),
    (43, "100,000 keys that collide under seed 0: p99 at most doubled; 1,000 of one hash: 0 wrong"),
    (44, "10,000 forged lengths: what the value takes and 1 MiB at most"),
    (45, "decompression bombs: there is no compression"),
    (46, "sizes from 0 to beyond 4 GiB: stored exactly or refused"),
    (47, "clocks that jump by an hour and ten years: 0 expired values"),
    (48, "segment ids, offsets and seqs at their ends: 0 wrong"),
    (49, "two processes race to open, 1,000 times: one wins, the other is told within 50 ms"),
    (50, "100 forks: refused, the parent undisturbed"),
    (51, "links, pipes, devices for files, 12 times: refused, nothing elsewhere touched"),
    (52, "umask 000: 0600 and 0700; another's directory and another user refused"),
    (53, "a mount for reading only: hits, 0 calls that write"),
    (54, "1,600 segments with 64 descriptors: works"),
    (55, "1 GiB of log in a group of 256 MiB for 60 s: not killed, RAM within a tenth of the budget"),
    (56, "a file system that cannot map: read by system calls"),
    (57, "user code panics, 1,000 times: 0 stripes harmed, 0 leaks"),
    (58, "restart of 1 M entries within 1 s, killed 1.5 s, of 10 M 5 s and 8 s, in 1.3 times the index"),
    (59, "the index: 24 bytes an entry at most"),
    (60, "writes amplified 1.35 times at most, told within 2 % of the kernel's count"),
    (61, "disk use within two segments and the journal"),
    (62, "a put without a copy on disk: 0 journal writes"),
    (63, "30 min: less than 1 MiB in 10 min, descriptors and maps constant"),
    (64, "directories of all released formats: opened"),
];

/// Prints a table of the suites and one of all lines with their figures, in Markdown; where only some suites were
/// run, of the lines that these are about.
pub fn print(outcomes: &[Outcome], is_all: bool) {
    println!("| suite | what | times as much as CI | took | |\n|---|---|---|---|---|");
    outcomes.iter().for_each(|outcome| println!("{}", row(outcome)));
    println!("\n| line | what is asked | figures |\n|---|---|---|");
    for (line, asked) in LINES {
        let all = outcomes.iter().flat_map(|outcome| &outcome.figures);
        let figures: Vec<&str> = all.filter(|(of, _)| *of == line).map(|(_, figures)| &**figures).collect();
        match figures.as_slice() {
            [] if !is_all => {}
            [] => println!("| {line} | {asked} | nothing was told |"),
            figures => println!("| {line} | {asked} | {} |", figures.join("; ")),
        }
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_docs_have_every_line() {
        let docs = include_str!("../../docs/reliability.md");
        let numbers = |row: &str| -> Vec<u32> {
            let cell = row.trim_start_matches("| ").split(" | ").next().unwrap_or_default();
            cell.split(", ").map_while(|number| number.parse().ok()).collect()
        };
        let told: BTreeSet<u32> =
            docs.lines().filter(|row| row.starts_with("| ")).flat_map(numbers).collect();
        assert!(told.iter().eq(&BTreeSet::from(LINES.map(|(line, _)| line))), "{told:?}");
    }
}
