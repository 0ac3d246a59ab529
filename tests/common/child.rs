//! A child process that uses a cache until it is killed, and reports to its parent as it goes.
//!
//! The child is the test binary itself, run again for one test that does nothing unless
//! [`role`] says so. It reports over a pipe that it has as its standard input, turned round: standard
//! output belongs to the test harness. A report is one `write` below PIPE_BUF, hence whole or not
//! there at all, and reports of several threads lie in the pipe in the order in which they were
//! written. The pipe outlives the child, so its parent sees everything that was reported before
//! the SIGKILL, and judges by nothing else.

use std::{
    env,
    fs::File,
    io::{self, PipeReader, Read, Write},
    os::{fd::AsFd, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const ROLE: &str = "EMBERCACHE_TEST_CHILD";
const DIR: &str = "EMBERCACHE_TEST_DIR";
const SEED: &str = "EMBERCACHE_TEST_SEED";

/// What a report says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// An insert of `version` under `key` is about to be called.
    InsertStarted = 1,
    /// It returned `Ok`.
    InsertAcked,
    /// A remove of `key` is about to be called; `version` numbers it.
    RemoveStarted,
    /// It returned `Ok`.
    RemoveAcked,
    /// A clear is about to be called.
    ClearStarted,
    /// It returned `Ok`.
    ClearAcked,
    /// A flush is about to be called.
    FlushStarted,
    /// It returned `Ok`.
    FlushAcked,
    /// The child is alive; `at_us` says when.
    Alive,
    /// Something was reclaimed, so a missing entry proves nothing.
    Reclaimed,
    /// The child itself saw a stale or corrupt value: `version` under `key`.
    Lied,
    /// The child has done all of its work and waits to be killed.
    Done,
    /// The child is where it is to die, by its own hand.
    AtPoint,
}

impl Kind {
    const ALL: [Kind; 13] = [
        Kind::InsertStarted,
        Kind::InsertAcked,
        Kind::RemoveStarted,
        Kind::RemoveAcked,
        Kind::ClearStarted,
        Kind::ClearAcked,
        Kind::FlushStarted,
        Kind::FlushAcked,
        Kind::Alive,
        Kind::Reclaimed,
        Kind::Lied,
        Kind::Done,
        Kind::AtPoint,
    ];
}

/// One line of the child's diary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) kind: Kind,
    pub(crate) key: u64,
    pub(crate) version: u64,
    /// Microseconds since the child began.
    pub(crate) at_us: u64,
}

impl Report {
    const BYTES: usize = 32;

    fn encode(self) -> [u8; Report::BYTES] {
        let mut bytes = [0; Report::BYTES];
        bytes[..8].copy_from_slice(&self.key.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.version.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.at_us.to_le_bytes());
        bytes[24] = self.kind as u8;
        bytes
    }

    fn decode(bytes: &[u8]) -> Report {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let kind = Kind::ALL[usize::from(bytes[24]) - 1];
        Report { kind, key: number(0), version: number(8), at_us: number(16) }
    }
}

/// What this process is to do, if it is a child.
pub(crate) fn role() -> Option<Role> {
    let name = env::var(ROLE).ok()?;
    let dir = PathBuf::from(env::var_os(DIR).expect("a child is told its directory"));
    let seed = super::from_env(SEED, 0);
    Some(Role { name, dir, seed })
}

/// What a child was told by its parent.
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) seed: u64,
}

impl Role {
    /// The way back to the parent.
    pub(crate) fn reporter(&self) -> Reporter {
        let pipe = io::stdin().as_fd().try_clone_to_owned().expect("standard input is the parent's pipe");
        Reporter { pipe: File::from(pipe), start: Instant::now() }
    }
}

/// The child's end of the pipe.
pub(crate) struct Reporter {
    pipe: File,
    start: Instant,
}

impl Reporter {
    /// Writes one report, in one piece.
    pub(crate) fn report(&self, kind: Kind, key: u64, version: u64) {
        let at_us = self.start.elapsed().as_micros() as u64;
        let report = Report { kind, key, version, at_us }.encode();
        let written = (&self.pipe).write(&report).expect("the parent reads until the child is dead");
        assert_eq!(written, Report::BYTES, "a write below PIPE_BUF is never split");
    }

    /// Says that all is done, and waits for the end.
    pub(crate) fn await_kill(&self) -> ! {
        self.report(Kind::Done, 0, 0);
        loop {
            thread::sleep(Duration::from_secs(1));
        }
    }
}

/// SIGKILL, here and now.
pub(crate) fn kill_own_process() -> ! {
    let own = rustix::process::Pid::from_raw(process::id() as i32).expect("a process has a number");
    rustix::process::kill_process(own, rustix::process::Signal::KILL).expect("one may kill oneself");
    loop {
        thread::park();
    }
}

/// The parent's end. A child that is dropped is killed.
pub(crate) struct Spawned {
    process: Child,
    reader: Option<JoinHandle<Vec<Report>>>,
    done: std::sync::mpsc::Receiver<()>,
}

impl Spawned {
    /// Starts this test binary again, as `role`, with the test at the path `entry` as its way in.
    pub(crate) fn start(entry: &str, role: &str, dir: &Path, seed: u64) -> Spawned {
        Spawned::start_under(&[], entry, role, dir, seed).expect("a test can start itself again")
    }

    /// The same, started by another program that is given it as its last arguments; an error if there
    /// is no such program.
    pub(crate) fn start_under(
        program: &[&str],
        entry: &str,
        role: &str,
        dir: &Path,
        seed: u64,
    ) -> io::Result<Spawned> {
        let (from_child, to_parent) = io::pipe().unwrap();
        let own = env::current_exe().unwrap();
        let own = own.to_str().expect("cargo names its targets in ASCII");
        // The harness names its tests without the crate that they are in.
        let entry = entry.split_once("::").map_or(entry, |(_, test)| test);
        let line: Vec<&str> = program.iter().copied().chain([own]).collect();
        let process = Command::new(line[0])
            .args(&line[1..])
            .args(["--exact", entry, "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(DIR, dir)
            .env(SEED, seed.to_string())
            .stdin(Stdio::from(to_parent))
            .stdout(Stdio::null())
            .spawn()?;
        let (tell, done) = std::sync::mpsc::channel();
        let reader = Some(thread::spawn(move || read_all(from_child, &tell)));
        Ok(Spawned { process, reader, done })
    }

    /// Waits until the child says that it is done, at most `limit`.
    pub(crate) fn wait_done(&self, limit: Duration) {
        self.done.recv_timeout(limit).expect("the child ends its work in time");
    }

    /// SIGKILL, and everything that the child had reported.
    pub(crate) fn kill(mut self) -> Vec<Report> {
        self.process.kill().unwrap();
        let status = self.process.wait().unwrap();
        assert_eq!(status.code(), None, "the child ended by itself before it was killed");
        self.reader.take().expect("read once").join().unwrap()
    }

    /// Waits until the child has killed itself, at most `limit`, and returns everything that it had reported.
    pub(crate) fn reports_at_own_end(self, limit: Duration) -> Vec<Report> {
        const SIGKILL: i32 = 9;
        let (signal, reports) = self.died(limit);
        assert_eq!(signal, Some(SIGKILL), "the child ended otherwise");
        reports
    }

    /// Waits for the child to end otherwise than by its parent: the signal, and everything that it had
    /// reported.
    pub(crate) fn died(mut self, limit: Duration) -> (Option<i32>, Vec<Report>) {
        super::wait_until("the child ends", limit, || self.process.try_wait().unwrap().is_some());
        let status = self.process.wait().unwrap();
        (status.signal(), self.reader.take().expect("read once").join().unwrap())
    }

    /// Waits for the child to end by itself, and returns whether its test passed.
    pub(crate) fn join(self) -> bool {
        self.reports().is_some()
    }

    /// As [`join`](Spawned::join), with everything that it had reported if its test passed.
    pub(crate) fn reports(mut self) -> Option<Vec<Report>> {
        let passed = self.process.wait().unwrap().success();
        let reports = self.reader.take().expect("read once").join().unwrap();
        passed.then_some(reports)
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // Errors mean that it is dead already, which is all that is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read_all(mut pipe: PipeReader, done: &std::sync::mpsc::Sender<()>) -> Vec<Report> {
    let mut reports = Vec::new();
    let mut buffer = vec![0; Report::BYTES * 2048];
    let mut filled = 0;
    loop {
        let read = pipe.read(&mut buffer[filled..]).unwrap();
        if read == 0 {
            assert_eq!(filled, 0, "a report was torn");
            return reports;
        }
        filled += read;
        let whole = filled / Report::BYTES * Report::BYTES;
        reports.extend(buffer[..whole].chunks_exact(Report::BYTES).map(Report::decode));
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
        if reports.last().is_some_and(|report| report.kind == Kind::Done) {
            // The parent may have stopped to listen, having killed the child.
            let _ = done.send(());
        }
    }
}
