//! The log as its callers see it, on a disk that fails on demand. A log that is dropped without
//! `close` stands for a killed process: the kernel keeps what was written, and nothing else.

use std::{collections::BTreeMap, fs, io::ErrorKind, path::Path, time::Duration};

use crossbeam_epoch as epoch;
use tempfile::TempDir;

use super::{open::Start, record::RecordHeader, segment::SegmentHeader, *};
use crate::{
    io::fault::{FaultDisk, Operation},
    location::RECORD_ALIGN,
};

const STRIPE_BITS: u32 = 3;
const FULL: ErrorKind = ErrorKind::StorageFull;
const EIO: i32 = 5;

fn options(dir: &Path) -> LogOptions {
    LogOptions {
        dir: dir.join("cache"),
        capacity_bytes: 1 << 20,
        segment_bytes: 1 << 16,
        batch_bytes: 1 << 12,
        durability: Durability::ProcessCrash,
        read_mode: ReadMode::Map,
        key_codec: 1,
        value_codec: 1,
        schema_version: 1,
        on_mismatch: OnMismatch::ColdStart,
        read_only: false,
    }
}

/// A directory, its disk, and the log that has it open.
struct Bench {
    dir: TempDir,
    disk: Arc<FaultDisk>,
    options: LogOptions,
    open: Option<Opened>,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        let mut bench = Bench { dir, disk: Arc::default(), options, open: None };
        bench.disk.skip_syncs(true);
        assert_eq!(bench.start(), Start::NoState);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("cache").join(name)
    }

    fn start(&mut self) -> Start {
        self.open = None;
        let opened = Log::open(self.disk.clone(), self.options.clone()).unwrap();
        let start = opened.report.start;
        self.open = Some(opened);
        start
    }

    fn log(&self) -> &Log {
        &self.open.as_ref().unwrap().log
    }

    fn appender(&mut self) -> &mut Appender {
        &mut self.open.as_mut().unwrap().appender
    }

    fn hash(&self, key: &str) -> KeyHash {
        KeyHash::of(key.as_bytes(), self.log().hash_seed())
    }

    /// Accepts a record without writing it.
    fn accept(&mut self, key: &str, value: &str, expiry: u32) -> Location {
        let hash = self.hash(key);
        if !self.appender().fits(key.len(), value.len()) {
            self.appender().write().unwrap();
            self.appender().roll().unwrap();
        }
        self.appender().stage(hash, key.as_bytes(), value.as_bytes(), expiry, false);
        let seq = self.log().next_seq();
        self.appender().accept(seq)
    }

    fn stage(&mut self, key: &str, value: &str) {
        let hash = self.hash(key);
        self.appender().stage(hash, key.as_bytes(), value.as_bytes(), 0, false);
    }

    fn accept_next(&mut self) -> Location {
        let seq = self.log().next_seq();
        self.appender().accept(seq)
    }

    fn put(&mut self, key: &str, value: &str) -> Location {
        let at = self.accept(key, value, 0);
        self.appender().write().unwrap();
        at
    }

    fn roll(&mut self) {
        self.appender().roll().unwrap();
    }

    fn invalidate(&self, key: &str) {
        self.log().invalidate(self.hash(key)).unwrap();
    }

    fn value(&self, at: Location, key: &str) -> Option<String> {
        match self.log().read(at, key.as_bytes(), &epoch::pin()) {
            Read::Hit(value) => Some(String::from_utf8(value.bytes).unwrap()),
            _ => None,
        }
    }

    /// What recovery finds, as `key=value`, sorted.
    fn found(&self) -> String {
        let mut newest = BTreeMap::new();
        let found = &mut |hash, at| _ = newest.entry(hash).or_insert(at);
        self.log().recover(|_| true, STRIPE_BITS, found).unwrap();
        let mut found: Vec<String> = newest
            .values()
            .map(|&at| {
                let record = self.log().read_record(at).expect("a whole record");
                let text = |bytes| String::from_utf8(bytes).unwrap();
                format!("{}={}", text(record.key), text(record.value))
            })
            .collect();
        found.sort();
        found.join(" ")
    }

    fn files(&self, prefix: &str) -> usize {
        let names = fs::read_dir(self.dir.path().join("cache")).unwrap();
        names.filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().starts_with(prefix)).count()
    }

    fn damage(&self, name: &str, at: u64) {
        let path = self.path(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at as usize] ^= 0x10;
        fs::write(path, bytes).unwrap();
    }

    /// Closes in order, with a snapshot of `slots`.
    fn close(&mut self, slots: &[(KeyHash, u64)]) {
        self.appender().write().unwrap();
        self.appender().seal().unwrap();
        let mut writer = self.log().begin_snapshot(STRIPE_BITS).unwrap();
        for stripe in 0..1 << STRIPE_BITS {
            let of_stripe = |slot: &&(KeyHash, u64)| slot.0.stripe(STRIPE_BITS) == stripe;
            let mut slots: Vec<_> = slots.iter().filter(of_stripe).copied().collect();
            slots.sort_unstable_by_key(|(hash, _)| hash.order());
            writer.write_stripe(&slots).unwrap();
        }
        writer.finish().unwrap();
        self.log().close().unwrap();
    }
}

#[test]
fn segments_are_found_across_the_gap_of_one_that_is_gone() {
    let mut bench = Bench::new();
    let keys = ["a", "b", "c", "d"];
    let places = keys.map(|key| {
        bench.roll();
        bench.put(key, "1")
    });
    bench.log().mark_dead(places[1].segment()).unwrap();
    bench.log().unlink(places[1].segment());
    let found = [0, 1, 2, 3].map(|n| bench.value(places[n], keys[n]).is_some());
    assert_eq!(found, [true, false, true, true]);
    let missing = [0_u32, 9, 1 << 29].map(|id| Location::new(SegmentId::new(id + 4).unwrap(), 64));
    assert!(missing.iter().all(|&at| bench.value(at, "a").is_none()), "of no segment");
}

#[test]
fn records_that_are_unstaged_leave_nothing_behind() {
    let mut bench = Bench::new();
    bench.roll();
    ["a", "b", "c", "d"].into_iter().for_each(|key| bench.stage(key, "1"));
    bench.appender().unstage(3);
    let a = bench.accept_next();
    assert_eq!(bench.appender().staged(), 2);
    bench.appender().unstage(0);
    ["e", "f"].into_iter().for_each(|key| bench.stage(key, "2"));
    let (e, f) = (bench.accept_next(), bench.accept_next());
    bench.appender().write().unwrap();
    for (at, key, value) in [(a, "a", "1"), (e, "e", "2"), (f, "f", "2")] {
        assert_eq!(bench.value(at, key).as_deref(), Some(value));
    }
    bench.start();
    assert_eq!(bench.found(), "a=1 e=2 f=2");
}

#[test]
fn what_is_staged_has_its_place_in_the_footer() {
    let mut bench = Bench::new();
    bench.roll();
    let mut staged = 0;
    while bench.appender().fits(1, 0) {
        bench.stage("k", "");
        staged += 1;
    }
    for _ in 0..staged {
        bench.accept_next();
    }
    bench.appender().write().unwrap();
    bench.appender().seal().unwrap();
    let written = bench.log().disk_bytes();
    assert!(written <= bench.options.segment_bytes.into(), "{staged} records took {written} bytes");
}

#[test]
fn a_record_reads_back_from_batch_file_and_map() {
    let mut bench = Bench::new();
    let at = bench.accept("key", "value", 7);
    assert_eq!(bench.value(at, "key"), None, "not written yet");
    bench.appender().write().unwrap();
    for _ in 0..2 {
        let Read::Hit(value) = bench.log().read(at, b"key", &epoch::pin()) else { panic!("a miss") };
        assert_eq!((&value.bytes[..], value.expiry, value.idle), (&b"value"[..], 7, false));
        assert!(matches!(bench.log().read(at, b"kez", &epoch::pin()), Read::OtherKey));
        assert!(matches!(bench.log().read(at, &[b'k'; 5000], &epoch::pin()), Read::OtherKey));
        bench.roll();
    }
    let elsewhere = Location::new(at.segment(), at.offset() + RECORD_ALIGN);
    assert!(matches!(bench.log().read(elsewhere, b"key", &epoch::pin()), Read::Damaged));
    let behind = Location::new(at.segment(), Location::SEGMENT_BYTES_MAX - RECORD_ALIGN);
    assert!(matches!(bench.log().read(behind, b"key", &epoch::pin()), Read::Damaged));
    bench.log().unlink(at.segment());
    assert!(matches!(bench.log().read(at, b"key", &epoch::pin()), Read::Gone));
}

#[test]
fn strict_mode_and_a_disk_that_cannot_map_read_the_same() {
    for strict in [false, true] {
        let mut bench = Bench::new();
        bench.disk.fail_map(true);
        bench.options.read_mode = if strict { ReadMode::Strict } else { ReadMode::Map };
        bench.start();
        let at = bench.put("key", "value");
        bench.roll();
        assert_eq!(bench.value(at, "key").as_deref(), Some("value"));
        bench.disk.fail_reads(Some(ErrorKind::Other));
        assert!(matches!(bench.log().read(at, b"key", &epoch::pin()), Read::Failed(_)));
    }
}

#[test]
fn a_segment_that_was_unlinked_before_it_was_opened_is_gone() {
    let mut bench = Bench::new();
    bench.options.read_mode = ReadMode::Strict;
    bench.start();
    let at = bench.put("key", "value");
    bench.roll();
    let guard = &epoch::pin();
    let segment = bench.log().readable.get(guard).get(at.segment()).unwrap();
    bench.log().unlink(at.segment());
    assert!(matches!(segment.read(at, b"key"), Read::Failed(_)));
    assert!(matches!(bench.log().read_in(segment, at, b"key", guard), Read::Gone));
}

#[test]
fn a_killed_process_leaves_exactly_what_was_not_invalidated() {
    let mut bench = Bench::new();
    for number in 0..500 {
        bench.put(&format!("{number:03}"), &"x".repeat(200));
    }
    assert!(bench.log().segment_count() >= 2);
    bench.put("001", "new");
    bench.invalidate("002");
    bench.accept("never written", "x", 0);
    for _ in 0..2 {
        assert_eq!(bench.start(), Start::Entries);
        let found = bench.found();
        assert_eq!(found.split(' ').count(), 499);
        assert!(found.contains("001=new") && !found.contains("002="));
    }
    assert!(bench.log().peek_seq().0 > 502, "seqs go on");
    bench.put("002", "again");
    assert_eq!(bench.start(), Start::Entries);
    assert!(bench.found().contains("002=again"));
}

#[test]
fn a_killed_process_is_cold_after_a_reboot_a_copy_and_in_clean_mode() {
    let mut bench = Bench::new();
    bench.put("key", "value");
    bench.disk.set_boot_id([9; 16]);
    assert_eq!(bench.start(), Start::Unclean);
    assert_eq!((bench.found().as_str(), bench.files("seg-")), ("", 0));

    bench.put("key", "value");
    bench.open = None;
    let text = fs::read(bench.path("LOCK")).unwrap();
    // The old inode stays in use, so that the copy cannot get it.
    fs::rename(bench.path("LOCK"), bench.dir.path().join("LOCK")).unwrap();
    fs::write(bench.path("LOCK"), text).unwrap();
    assert_eq!(bench.start(), Start::Unclean);

    bench.options.durability = Durability::Clean;
    assert_eq!(bench.start(), Start::Entries, "the run before kept a journal");
    bench.put("key", "value");
    bench.invalidate("key");
    assert_eq!(bench.files("inv-"), 0);
    assert_eq!(bench.start(), Start::Unclean);
    bench.options.durability = Durability::ProcessCrash;
    assert_eq!(bench.start(), Start::ModeChanged);
}

#[test]
fn a_barrier_kills_everything_before_it() {
    let mut bench = Bench::new();
    let old = bench.put("old", "1");
    bench.roll();
    let barrier = bench.log().raise_barrier().unwrap();
    bench.put("new", "2");
    let below = bench.log().segments_below(barrier);
    assert_eq!(below.iter().map(|segment| segment.id()).collect::<Vec<_>>(), [old.segment()]);
    assert_eq!(bench.start(), Start::Entries);
    assert_eq!(bench.found(), "new=2");
}

#[test]
fn a_dead_segment_stays_dead_and_is_unlinked() {
    let mut bench = Bench::new();
    let at = bench.put("a", "1");
    bench.roll();
    bench.put("b", "2");
    assert_eq!(bench.log().oldest_sealed().unwrap().id(), at.segment());
    bench.log().mark_dead(at.segment()).unwrap();
    bench.close(&[]);
    assert_eq!(bench.start(), Start::Snapshot);
    assert_eq!((bench.found().as_str(), bench.files("seg-")), ("b=2", 2));
    assert_eq!(bench.start(), Start::Entries);
    assert_eq!((bench.found().as_str(), bench.files("seg-")), ("b=2", 1));
}

#[test]
fn a_failed_batch_is_dead_however_much_of_it_was_written() {
    for cut_fails in [false, true] {
        let mut bench = Bench::new();
        bench.put("before", "1");
        let at = bench.accept("lost", "2", 0);
        bench.accept("lost too", &"3".repeat(500), 0);
        bench.invalidate("other");
        // The batch, the cut, then (the journal's entry between) the footer and the next cut.
        let failing: &[u64] = if cut_fails { &[2, 4, 5] } else { &[] };
        bench.disk.tear_nth_write(1, FULL);
        failing.iter().for_each(|&n| bench.disk.fail_nth_write(n, FULL));
        let journaled = bench.log().counters().journal_entries.load(Relaxed);
        assert!(matches!(bench.appender().write(), Err(Error::Io { .. })));
        let now_journaled = bench.log().counters().journal_entries.load(Relaxed);
        assert_eq!(now_journaled - journaled, u64::from(cut_fails));
        let file = fs::read(bench.path("seg-00000000.log")).unwrap();
        let there = file.windows(5).any(|bytes| bytes == b"lost2");
        assert_eq!(there, cut_fails, "half of the batch is on disk");
        assert_eq!(bench.value(at, "lost"), None);
        assert!(!bench.appender().fits(1, 1), "the next record needs a new segment");
        assert!(bench.appender().is_batch_empty());
        bench.put("after", "4");
        assert_eq!(bench.start(), Start::Entries);
        assert_eq!(bench.found(), "after=4 before=1");
    }
}

#[test]
fn without_a_journal_the_next_start_is_cold() {
    let mut bench = Bench::new();
    bench.put("key", "value");
    bench.disk.fail_writes(Some(FULL));
    bench.invalidate("key");
    bench.disk.fail_writes(None);
    bench.invalidate("key");
    assert_eq!(bench.log().counters().journal_entries.load(Relaxed), 0);
    assert!(!bench.path("STATE").exists());
    bench.close(&[]);
    assert_eq!(bench.start(), Start::NoState);
}

#[test]
fn an_invalidation_recorded_nowhere_is_an_error_until_it_is() {
    let mut bench = Bench::new();
    bench.put("key", "value");
    bench.disk.fail_writes(Some(FULL));
    bench.disk.fail_unlink(Some(ErrorKind::PermissionDenied));
    let hash = bench.hash("key");
    for _ in 0..3 {
        assert!(matches!(bench.log().invalidate(hash), Err(Error::NotDurable { .. })));
        assert!(matches!(bench.log().ensure_durable(), Err(Error::NotDurable { .. })));
    }
    assert!(matches!(bench.log().raise_barrier(), Err(Error::NotDurable { .. })));
    bench.disk.fail_writes(None);
    bench.log().ensure_durable().unwrap();
    bench.disk.fail_unlink(None);
    assert!(bench.path("STATE").exists(), "overwritten, since it could not be unlinked");
    assert_eq!(bench.start(), Start::NoState);
}

#[test]
fn journal_files_go_when_no_segment_needs_them() {
    let mut bench = Bench::new();
    let entries = (journal::FILE_BYTES - journal::HEADER_BYTES) / journal::ENTRY_BYTES;
    let old = bench.put("old", "1");
    for _ in 0..=entries {
        bench.invalidate("old");
    }
    bench.roll();
    bench.put("new", "2");
    bench.log().trim_journal();
    assert_eq!(bench.log().journal.lock().numbers(), [0, 1], "the old segment needs the first");
    bench.log().mark_dead(old.segment()).unwrap();
    bench.log().unlink(old.segment());
    assert_eq!(bench.log().journal.lock().numbers(), [1]);
    assert_eq!(bench.files("inv-"), 1);
    assert_eq!(bench.start(), Start::Entries);
    assert_eq!(bench.found(), "new=2");
    bench.invalidate("new");
    assert_eq!(bench.log().journal.lock().numbers(), [1, 2], "never append to an earlier run's");
}

#[test]
fn a_segment_that_cannot_be_unlinked_keeps_its_journal() {
    let mut bench = Bench::new();
    let entries = (journal::FILE_BYTES - journal::HEADER_BYTES) / journal::ENTRY_BYTES;
    let old = bench.put("old", "1");
    bench.roll();
    bench.log().mark_dead(old.segment()).unwrap();
    for _ in 0..entries {
        bench.invalidate("other");
    }
    // The active segment needs only the second file.
    bench.roll();
    bench.disk.fail_unlink(Some(ErrorKind::Other));
    bench.log().unlink(old.segment());
    bench.disk.fail_unlink(None);
    assert_eq!(bench.log().journal.lock().numbers(), [0, 1]);
    assert_eq!(bench.start(), Start::Entries);
    assert_eq!(bench.found(), "");
}

#[test]
fn a_journal_in_doubt_is_a_cold_start() {
    let damages: [&dyn Fn(&Bench); 5] = [
        &|bench| bench.damage("inv-00000000.log", 64),
        &|bench| bench.damage("inv-00000000.log", 64 + 32 + 16),
        &|bench| bench.damage("inv-00000000.log", 9_000),
        &|bench| fs::remove_file(bench.path("inv-00000000.log")).unwrap(),
        &|bench| {
            let bytes = fs::read(bench.path("inv-00000000.log")).unwrap();
            fs::write(bench.path("inv-00000000.log"), &bytes[..64]).unwrap();
        },
    ];
    for (number, damage) in damages.iter().enumerate() {
        let mut bench = Bench::new();
        bench.put("key", "value");
        bench.invalidate("key");
        bench.invalidate("other");
        bench.open = None;
        damage(&bench);
        assert_eq!(bench.start(), Start::Journal, "damage {number}");
        assert_eq!(bench.found(), "");
    }
}

#[test]
fn every_flip_of_a_segment_loses_one_record_at_most() {
    let mut bench = Bench::new();
    for key in ["a", "b", "c"] {
        bench.put(key, "value");
    }
    bench.roll();
    bench.appender().seal().unwrap();
    let name = "seg-00000000.log";
    bench.open = None;
    let good = fs::read(bench.path(name)).unwrap();
    let state = fs::read(bench.path("STATE")).unwrap();
    let mut kept = 0;
    for at in 0..good.len() as u64 {
        bench.open = None;
        fs::write(bench.path(name), &good).unwrap();
        bench.damage(name, at);
        assert_eq!(bench.start(), Start::Entries);
        let mut values = 0;
        let found = &mut |hash, location| {
            let key = ["a", "b", "c"].into_iter().find(|key| bench.hash(key) == hash).unwrap();
            let value = bench.value(location, key);
            assert!(value.is_none() || value.as_deref() == Some("value"), "flip at {at}");
            values += usize::from(value.is_some());
        };
        bench.log().recover(|_| true, 0, found).unwrap();
        assert!(values >= 2 || at < 64, "flip at {at} left {values}");
        kept += values;
        // What the start did about it (quarantine, dead marks) is not the next flip's.
        bench.open = None;
        let _ = fs::remove_file(bench.path("seg-00000000.bad"));
        let _ = fs::remove_file(bench.path("inv-00000000.log"));
        fs::write(bench.path("STATE"), &state).unwrap();
    }
    assert!(kept > 0);
}

#[test]
fn a_scan_ends_for_good_at_the_first_bad_record() {
    let mut bench = Bench::new();
    let at = ["a", "b", "c"].map(|key| bench.put(key, "value"));
    bench.open = None;
    let value_at = u64::from(at[1].offset()) + 33;
    bench.damage("seg-00000000.log", value_at);
    assert_eq!(bench.start(), Start::Entries);
    assert_eq!(bench.found(), "a=value");
    bench.open = None;
    let healed = fs::read(bench.path("seg-00000000.log")).unwrap();
    assert!(healed.len() < 64 + 3 * 40 + 64, "cut and sealed behind the first record");
}

/// However well signed.
#[test]
fn a_scan_ends_where_the_seqs_no_longer_rise() {
    let mut bench = Bench::new();
    let at = ["a", "b", "c"].map(|key| bench.put(key, "value"));
    bench.open = None;
    let (segment, state) = ("seg-00000000.log", fs::read(bench.path("STATE")).unwrap());
    let good = fs::read(bench.path(segment)).unwrap();
    let salt = SegmentHeader::decode(good.first_chunk().unwrap()).unwrap().salt;
    let second = at[1].offset() as usize;
    let place = record::place(salt, at[1].offset());
    let header = RecordHeader::decode(good[second..].first_chunk().unwrap(), place).unwrap();
    let kept = |bench: &mut Bench, seq: u64| {
        let mut forged = good.clone();
        let header = RecordHeader { seq: Seq(seq), ..header };
        forged[second..second + record::HEADER_BYTES].copy_from_slice(&header.encode(place));
        fs::write(bench.path(segment), forged).unwrap();
        fs::write(bench.path("STATE"), &state).unwrap();
        assert_eq!(bench.start(), Start::Entries);
        let found = bench.found();
        bench.open = None;
        let _ = fs::remove_file(bench.path("inv-00000000.log"));
        found
    };
    let seq = header.seq.0;
    assert_eq!(kept(&mut bench, seq), "a=value b=value c=value");
    for forged in [0, seq - 2, Seq::MAX.0 + 1, u64::MAX] {
        assert_eq!(
            kept(&mut bench, forged),
            "a=value",
            "a seq of {forged} between {} and {}",
            seq - 1,
            seq + 1
        );
    }
}

#[test]
fn a_damaged_footer_is_rebuilt_and_what_it_cannot_give_back_is_dead() {
    let mut bench = Bench::new();
    let at = ["a", "b", "c"].map(|key| bench.put(key, "value"));
    bench.roll();
    bench.open = None;
    let footer_at = u64::from(at[2].offset()) + 40;
    bench.damage("seg-00000000.log", footer_at);
    assert_eq!(bench.start(), Start::Entries);
    assert_eq!(bench.found(), "a=value b=value c=value");
    bench.open = None;
    let value_at = u64::from(at[1].offset()) + 33;
    bench.damage("seg-00000000.log", value_at);
    assert_eq!(bench.start(), Start::Entries);
    assert_eq!(bench.found(), "a=value");
    bench.open = None;
    for healed in [value_at, footer_at] {
        bench.damage("seg-00000000.log", healed);
    }
    assert_eq!(bench.start(), Start::Entries);
    assert_eq!(bench.found(), "a=value", "what was given up once stays so");
}

#[test]
fn a_segment_cut_anywhere_gives_the_records_before_the_cut() {
    let mut bench = Bench::new();
    let ends: Vec<u32> = (0..5).map(|n| bench.put(&format!("{n}"), "value").offset() + 40).collect();
    bench.roll();
    bench.open = None;
    let good = fs::read(bench.path("seg-00000000.log")).unwrap();
    let state = fs::read(bench.path("STATE")).unwrap();
    for len in 64..good.len() {
        fs::write(bench.path("STATE"), &state).unwrap();
        fs::write(bench.path("seg-00000000.log"), &good[..len]).unwrap();
        assert_eq!(bench.start(), Start::Entries);
        let whole = ends.iter().filter(|&&end| end as usize <= len).count();
        assert_eq!(bench.found().split_whitespace().count(), whole, "cut at {len}");
        bench.open = None;
    }
}

#[test]
fn a_segment_in_anothers_place_is_quarantined() {
    let mut bench = Bench::new();
    for number in 0..7 {
        bench.put(&format!("{number}"), "x");
        bench.roll();
    }
    bench.open = None;
    for number in 0..6 {
        let from = bench.path("seg-00000006.log");
        fs::copy(from, bench.path(&format!("seg-0000000{number}.log"))).unwrap();
    }
    assert_eq!(bench.start(), Start::Entries);
    assert_eq!(bench.found(), "6=x");
    assert_eq!(bench.open.as_ref().unwrap().report.quarantined, 6);
    let kept = |bench: &Bench| {
        (0..7).map(|n| bench.path(&format!("seg-0000000{n}.bad"))).filter(|path| path.exists()).count()
    };
    assert_eq!(kept(&bench), 4);
}

#[test]
fn a_clean_close_gives_the_snapshot_back_in_any_number_of_stripes() {
    let mut bench = Bench::new();
    let mut slots = Vec::new();
    for number in 0..100 {
        let key = format!("{number}");
        let at = bench.put(&key, &key);
        slots.push((bench.hash(&key), at.to_bits() | 3 << Location::BITS));
    }
    bench.close(&slots);
    slots.sort();
    bench.disk.set_boot_id([3; 16]);
    assert_eq!(bench.start(), Start::Snapshot);
    let Source::Snapshot(reader) = &bench.open.as_ref().unwrap().source else { panic!() };
    for bits in [0, STRIPE_BITS - 1, STRIPE_BITS, STRIPE_BITS + 2] {
        let mut all = Vec::new();
        let mut next = 0;
        while next < 1 << bits {
            let siblings = reader.siblings(next, bits);
            let before = all.len();
            reader.read(siblings.end - 1, bits, |hash, packed| all.push((hash, packed))).unwrap();
            assert!(all[before..].iter().all(|(hash, _)| siblings.contains(&hash.stripe(bits))));
            assert!(all.len() - before <= reader.len_of(next, bits));
            next = siblings.end;
        }
        all.sort();
        assert_eq!(all, slots, "{bits} bits");
    }
    assert_eq!(bench.value(Location::from_bits(slots[0].1), "nobody's"), None);
    for slot in fs::read(bench.path("STATE")).unwrap().as_chunks().0 {
        assert!(!State::decode(slot).unwrap().unwrap().clean, "no slot may say so now");
    }
    // Opened and killed: the clean close of the run before no longer counts.
    assert_eq!(bench.start(), Start::Entries);
    assert_eq!(bench.found().split(' ').count(), 100);
}

#[test]
fn a_damaged_snapshot_falls_back_to_the_entries() {
    let mut bench = Bench::new();
    let at = bench.put("key", "value");
    bench.put("gone", "value");
    bench.invalidate("gone");
    let slots = [(bench.hash("key"), at.to_bits())];
    bench.close(&slots);
    let good = fs::read(bench.path("index.snap")).unwrap();
    let state = fs::read(bench.path("STATE")).unwrap();
    for byte in 0..good.len() as u64 {
        bench.open = None;
        fs::write(bench.path("STATE"), &state).unwrap();
        fs::write(bench.path("index.snap"), &good).unwrap();
        bench.damage("index.snap", byte);
        match bench.start() {
            Start::Entries => {}
            Start::Snapshot => {
                let Source::Snapshot(reader) = &bench.open.as_ref().unwrap().source else { panic!() };
                let damaged = (0..1 << STRIPE_BITS).any(|n| reader.read(n, STRIPE_BITS, |_, _| ()).is_err());
                assert!(damaged, "byte {byte}");
            }
            other => panic!("{other:?} at byte {byte}"),
        }
        assert_eq!(bench.found(), "key=value");
    }
}

#[test]
fn an_event_after_the_snapshot_takes_it_back() {
    let mut bench = Bench::new();
    let at = bench.put("key", "value");
    bench.appender().seal().unwrap();
    let mut writer = bench.log().begin_snapshot(0).unwrap();
    writer.write_stripe(&[(bench.hash("key"), at.to_bits())]).unwrap();
    writer.finish().unwrap();
    bench.invalidate("key");
    bench.log().close().unwrap();
    assert_eq!(bench.start(), Start::Entries);
    assert_eq!(bench.found(), "");
}

#[test]
fn expired_entries_stay_expired_whatever_the_clock_does() {
    let mut bench = Bench::new();
    let second = |n: u64| Duration::from_secs(n);
    bench.disk.set_wall_time(Some(second(1_000)));
    bench.open = None;
    fs::remove_file(bench.path("STATE")).unwrap();
    bench.start();
    let at = bench.accept("soon", "1", 1_500);
    bench.accept("late", "2", 4_000);
    bench.put("never", "3");
    let slots = [(bench.hash("soon"), at.to_bits())];
    bench.disk.advance_clock(second(1_000));
    bench.disk.set_wall_time(Some(second(10)));
    assert_eq!(bench.start(), Start::Entries);
    assert_eq!(bench.found(), "late=2 never=3");

    bench.close(&slots);
    bench.disk.set_boot_id([1; 16]);
    assert_eq!(bench.start(), Start::Snapshot);
    assert!(bench.log().clock().now_ms() >= 2_000_000, "not before what was known");
    assert_eq!(bench.value(at, "soon"), None, "no deadline of before counts");
    for _ in 0..2 {
        assert_eq!(bench.start(), Start::Entries);
        assert_eq!(bench.found(), "never=3");
    }
    let again = bench.accept("again", "4", 4_000);
    bench.appender().write().unwrap();
    assert_eq!(bench.value(again, "again").as_deref(), Some("4"));
}

#[test]
fn a_directory_of_another_kind_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let io: Arc<FaultDisk> = Arc::default();
    let open = || Log::open(io.clone(), options.clone());
    fs::create_dir(&options.dir).unwrap();
    fs::write(options.dir.join("precious"), "x").unwrap();
    // The directory made by std may be open to the group under this umask.
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(&options.dir, private).unwrap();
    assert!(matches!(open().unwrap_err(), Error::NotACache { .. }));
    fs::write(options.dir.join("LOCK"), "somebody else's").unwrap();
    assert!(matches!(open().unwrap_err(), Error::NotACache { .. }));
    fs::write(options.dir.join("LOCK"), "embercache lock\n").unwrap();
    drop(open().unwrap());
    assert_eq!(fs::read(options.dir.join("precious")).unwrap(), b"x");
}

#[test]
fn a_second_open_gets_locked_until_the_first_is_closed() {
    let mut bench = Bench::new();
    let open = |bench: &Bench| Log::open(bench.disk.clone(), bench.options.clone());
    assert!(matches!(open(&bench).unwrap_err(), Error::Locked { .. }));
    bench.close(&[]);
    drop(open(&bench).unwrap());
}

#[test]
fn a_newer_format_and_a_refused_mismatch_are_left_alone() {
    let mut bench = Bench::new();
    bench.put("key", "value");
    bench.open = None;
    bench.options.schema_version = 2;
    bench.options.on_mismatch = OnMismatch::Refuse;
    let open = |bench: &Bench| Log::open(bench.disk.clone(), bench.options.clone()).unwrap_err();
    let expected = (1, 2);
    assert!(matches!(open(&bench), Error::Mismatch { found, expected: e, .. } if (found, e) == expected));
    bench.options.schema_version = 1;

    let good = fs::read(bench.path("STATE")).unwrap();
    let mut newer = good.clone();
    for slot in newer.chunks_mut(state::SLOT_BYTES) {
        layout::put(slot, 8, 2_u16.to_le_bytes());
        layout::put_check(slot, 0);
    }
    fs::write(bench.path("STATE"), &newer).unwrap();
    assert!(matches!(open(&bench), Error::NewerFormat { found: 2, supported: 1, .. }));
    assert_eq!(fs::read(bench.path("STATE")).unwrap(), newer);
    fs::write(bench.path("STATE"), good).unwrap();
    assert_eq!(bench.start(), Start::Entries);
    assert_eq!(bench.found(), "key=value");

    bench.options.schema_version = 2;
    bench.options.on_mismatch = OnMismatch::ColdStart;
    assert_eq!(bench.start(), Start::Mismatch);
    bench.put("key", "value");
    bench.open = None;
    fs::write(bench.path("STATE"), [0; 2 * state::SLOT_BYTES]).unwrap();
    assert_eq!(bench.start(), Start::NoState);
    assert_eq!(bench.files("seg-"), 0);
}

/// Whoever waits for an entry of the first file does not sync it himself once there is a second.
#[test]
fn a_full_journal_file_is_durable_before_the_next_is_begun() {
    let mut bench = Bench::new();
    bench.options.durability = Durability::PowerLoss;
    bench.start();
    let entries = (journal::FILE_BYTES - journal::HEADER_BYTES) / journal::ENTRY_BYTES;
    let syncs = |bench: &Bench| bench.disk.syncs_by_name().get("inv-00000000.log").copied();
    bench.invalidate("key");
    assert_eq!(syncs(&bench), Some(1), "a new file is durable at once");
    (1..entries).for_each(|_| bench.invalidate("key"));
    assert_eq!(syncs(&bench), Some(1), "nobody waited");
    let end = bench.log().invalidate(bench.hash("key")).unwrap();
    assert_eq!(syncs(&bench), Some(2));
    bench.log().commit(end).unwrap();
    assert_eq!(bench.disk.syncs_by_name()["inv-00000001.log"], 2);
}

/// Where entries are acknowledged once they are synced, a loss of power may leave some of those that were
/// not, in any order; elsewhere, zeros between entries are damage.
#[test]
fn a_gap_in_the_journal_is_believed_where_entries_were_synced() {
    // In one of the parts that it is read in, and all of one.
    for (count, gap) in [(40, 512..1024), (4_500, 64 << 10..128 << 10)] {
        for durability in [Durability::PowerLoss, Durability::ProcessCrash] {
            let mut bench = Bench::new();
            bench.options.durability = durability;
            bench.start();
            let keys: Vec<String> = (0..count).map(|number| format!("{number:04}")).collect();
            keys.iter().for_each(|key| _ = bench.put(key, "1"));
            keys.iter().for_each(|key| bench.invalidate(key));
            bench.open = None;
            let path = bench.path("inv-00000000.log");
            let mut bytes = fs::read(&path).unwrap();
            bytes[gap.clone()].fill(0);
            fs::write(path, bytes).unwrap();
            if durability == Durability::PowerLoss {
                bench.disk.set_boot_id([9; 16]);
                assert_eq!(bench.start(), Start::Entries);
                let first = (gap.start - journal::HEADER_BYTES) / journal::ENTRY_BYTES;
                let found = bench.found();
                assert!(found.starts_with(&format!("{first:04}=1")), "{found}");
                let lost = gap.len() / journal::ENTRY_BYTES;
                assert_eq!(found.split(' ').count(), lost, "the lost ones alone are there");
            } else {
                assert_eq!(bench.start(), Start::Journal);
            }
        }
    }
}

/// One slot of STATE is damaged, and the process is killed between the two slots that the cold start
/// writes: what the old, whole slot says must not be taken for the newer of the two.
#[test]
fn a_cold_start_that_is_killed_halfway_does_not_revive_what_it_did_not_believe() {
    let mut bench = Bench::new();
    bench.put("key", "old");
    // The third generation names the first journal file.
    bench.invalidate("key");
    bench.open = None;
    bench.damage("STATE", state::SLOT_BYTES as u64 + 100);
    bench.disk.fail_nth_write(2, FULL);
    assert!(Log::open(bench.disk.clone(), bench.options.clone()).is_err());
    bench.start();
    assert_eq!(bench.found(), "", "it was invalidated");
}

#[test]
fn numbers_of_journal_files_do_not_start_over() {
    for stray in ["inv-fffffffe.log", "inv-ffffffff.log"] {
        let mut bench = Bench::new();
        bench.open = None;
        fs::remove_file(bench.path("STATE")).unwrap();
        drop(bench.disk.open(&bench.path(stray), crate::io::OpenMode::CreateNew).unwrap());
        assert_eq!(bench.start(), Start::NoState);
        bench.put("key", "old");
        bench.invalidate("key");
        bench.start();
        assert_eq!(bench.found(), "", "it was invalidated");
    }
}

#[test]
fn a_generation_at_its_end_is_no_panic() {
    let mut bench = Bench::new();
    bench.open = None;
    let bytes = fs::read(bench.path("STATE")).unwrap();
    let state = State::decode(bytes[..state::SLOT_BYTES].try_into().unwrap()).unwrap().unwrap();
    let slot = |generation| State { generation, ..state }.encode();
    fs::write(bench.path("STATE"), [slot(u64::MAX - 1), slot(u64::MAX)].concat()).unwrap();
    bench.start();
}

/// The process has no descriptors left for a moment.
#[test]
fn want_of_descriptors_costs_nothing_but_the_open() {
    use crate::io::fault::Operation;
    for durability in [Durability::ProcessCrash, Durability::Clean] {
        let mut bench = Bench::new();
        bench.options.durability = durability;
        bench.start();
        bench.put("gone", "value");
        bench.invalidate("gone");
        let slots = ["key", "other"].map(|key| {
            let at = bench.put(key, "value");
            bench.roll();
            (bench.hash(key), at.to_bits())
        });
        let mut failed = 0;
        for nth in 1..12 {
            bench.close(&slots);
            bench.open = None;
            bench.disk.fail_nth(Operation::Open, nth, 24, false);
            failed += u64::from(Log::open(bench.disk.clone(), bench.options.clone()).is_err());
            bench.disk.fail_nth(Operation::Open, u64::MAX, 24, false);
            let start = bench.start();
            // Where no journal is kept, a run that has begun is over with that.
            if durability == Durability::Clean && start == Start::Unclean {
                break;
            }
            assert!(matches!(start, Start::Snapshot | Start::Entries), "{start:?} after open {nth}");
            for (at, key) in slots.iter().zip(["key", "other"]) {
                assert_eq!(bench.value(Location::from_bits(at.1), key).as_deref(), Some("value"), "{nth}");
            }
        }
        assert!(failed >= 3, "{failed} opens met it");
    }
}

/// Two threads sync the same file, and the kernel tells but one of them that it has failed: the other is
/// not to acknowledge anything by it.
#[test]
fn a_failed_sync_of_a_full_journal_file_is_nobodys_success() {
    use std::{
        sync::atomic::{AtomicBool, Ordering::SeqCst},
        thread,
        time::Instant,
    };

    use crate::io::fault::{Operation, Side};
    let mut bench = Bench::new();
    bench.options.durability = Durability::PowerLoss;
    bench.start();
    let entries = (journal::FILE_BYTES - journal::HEADER_BYTES) / journal::ENTRY_BYTES;
    (1..entries).for_each(|_| bench.invalidate("other"));
    let end = bench.log().invalidate(bench.hash("key")).unwrap();

    let (is_syncing, has_failed, is_acknowledged) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let wait_for = |flag: &AtomicBool| {
        let begun = Instant::now();
        while !flag.load(SeqCst) && begun.elapsed() < Duration::from_secs(1) {
            thread::yield_now();
        }
    };
    let is_known = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (is_syncing, has_failed) = (Arc::clone(&is_syncing), Arc::clone(&has_failed));
        let (is_acknowledged, is_known) = (Arc::clone(&is_acknowledged), Arc::clone(&is_known));
        move |moment: crate::io::fault::Moment<'_>| match (moment.operation, moment.file, moment.side) {
            // The commit's comes first and is held up; the other's fails meanwhile.
            (Operation::Sync, "inv-00000000.log", Side::Before) if !is_syncing.swap(true, SeqCst) => {
                wait_for(&has_failed);
            }
            (Operation::Write, "STATE", Side::Before) => {
                has_failed.store(true, SeqCst);
                wait_for(&is_acknowledged);
            }
            (Operation::Sync, "STATE", Side::After) => is_known.store(true, SeqCst),
            _ => {}
        }
    };
    bench.disk.watch(watcher);
    bench.disk.fail_nth(Operation::Sync, 1, 5, false);
    thread::scope(|scope| {
        scope.spawn(|| {
            bench.log().commit(end).unwrap();
            assert!(is_known.load(SeqCst), "acknowledged while STATE says that the journal is whole");
            is_acknowledged.store(true, SeqCst);
        });
        wait_for(&is_syncing);
        // The file is full: it is synced before the next is begun.
        bench.invalidate("key");
    });
    bench.disk.watch(|_| {});
}

/// From some files on, a run goes on with the last. What is not as an earlier run leaves it is not
/// written to: a start in doubt about it is a cold one.
#[test]
fn short_runs_share_a_journal_file_that_is_in_no_doubt() {
    let name = "inv-00000003.log";
    let damages: [&dyn Fn(&Bench); 4] =
        [&|_| (), &|bench| bench.damage(name, 64 + 3), &|bench| bench.damage(name, 64 + 32 + 3), &|bench| {
            bench.damage(name, 100_000)
        }];
    for (number, damage) in damages.iter().enumerate() {
        for durability in [Durability::ProcessCrash, Durability::PowerLoss] {
            let mut bench = Bench::new();
            for run in 0..8 {
                assert_eq!(bench.log().journal.lock().numbers().len(), run.min(4));
                bench.put("key", "value");
                bench.invalidate("key");
                bench.start();
            }
            let at = bench.put("other", "value");
            bench.close(&[(bench.hash("other"), at.to_bits())]);
            damage(&bench);
            bench.options.durability = durability;
            assert_eq!(bench.start(), Start::Snapshot);
            bench.invalidate("other");
            let is_gone_on_with = number == 0 && durability == Durability::ProcessCrash;
            assert_eq!(bench.log().journal.lock().numbers().len(), if is_gone_on_with { 4 } else { 5 });
            let start = if number == 0 { Start::Entries } else { Start::Journal };
            assert_eq!(bench.start(), start);
            assert_eq!(bench.found(), "");
        }
    }
}

/// The disk could not take a page of the journal, and the kernel has dropped it or may do so.
#[test]
fn a_journal_that_was_not_written_back_is_not_believed() {
    for durability in [Durability::ProcessCrash, Durability::PowerLoss] {
        let mut bench = Bench::new();
        bench.options.durability = durability;
        bench.start();
        bench.put("key", "old");
        bench.invalidate("key");
        bench.open = None;
        bench.disk.fail_syncs_of("inv-", std::io::ErrorKind::Other);
        assert_eq!(bench.start(), Start::Journal, "{durability:?}");
        assert_eq!(bench.found(), "");
    }
}

/// A full file waits for the close: acknowledgements do not wait for a sync in this mode.
#[test]
fn a_close_syncs_every_file_of_its_journal() {
    let mut bench = Bench::new();
    bench.put("k", "v1");
    (0..journal::FILE_BYTES / journal::ENTRY_BYTES).for_each(|_| bench.invalidate("k"));
    let before = bench.disk.syncs_by_name();
    bench.close(&[]);
    for name in ["inv-00000000.log", "inv-00000001.log"] {
        assert!(bench.disk.syncs_by_name().get(name) > before.get(name), "{name}");
    }
}

/// The kernel says once that it could not write a page back, and a close that asked it knows. The next start is not
/// told, and may read what the disk had before.
#[test]
fn what_a_close_could_not_sync_is_not_believed() {
    for file in ["inv-", "the directory", "STATE"] {
        let mut bench = Bench::new();
        bench.disk.skip_syncs(false);
        bench.put("k", "v1");
        bench.invalidate("k");
        bench.appender().seal().unwrap();
        match file {
            "the directory" => bench.disk.fail_nth(Operation::SyncDir, 1, EIO, false),
            _ => bench.disk.fail_syncs_of(file, ErrorKind::Other),
        }
        let mut writer = bench.log().begin_snapshot(STRIPE_BITS).unwrap();
        (0..1 << STRIPE_BITS).for_each(|_| writer.write_stripe(&[]).unwrap());
        let saved = writer.finish();
        assert!(saved.and(bench.log().close()).is_err(), "{file}");
        bench.disk.fail_sync(None);
        assert_eq!(bench.start(), Start::NoState, "{file}");
    }
}

/// As above, of a page that the last run, which was killed, has not asked for; and the open that is told is itself
/// killed, or fails.
#[test]
fn what_a_killed_run_wrote_is_asked_for_once() {
    for file in ["inv-", "STATE"] {
        let mut bench = Bench::new();
        bench.disk.skip_syncs(false);
        bench.put("k", "v1");
        let before = fs::read(bench.path("STATE")).unwrap();
        bench.invalidate("k");
        bench.open = None;
        // Of the pages that were not written back, the kernel has dropped the one that this is about.
        match file {
            "STATE" => fs::write(bench.path("STATE"), before).unwrap(),
            _ => {
                let mut journal = fs::read(bench.path("inv-00000000.log")).unwrap();
                journal[journal::HEADER_BYTES..].fill(0);
                fs::write(bench.path("inv-00000000.log"), journal).unwrap();
            }
        }
        bench.disk.fail_syncs_of(file, ErrorKind::Other);
        bench.disk.fail_nth(Operation::Write, 1, EIO, false);
        assert!(Log::open(bench.disk.clone(), bench.options.clone()).is_err(), "{file}");
        bench.disk.fail_sync(None);
        bench.start();
        assert_eq!(bench.found(), "", "{file}");
    }
}

/// What an open could not sync, of what it believes or has begun, is not believed by the next, which is told that
/// all is well.
#[test]
fn what_an_open_could_not_sync_is_not_believed() {
    for (file, nth) in [("seg-", 0), ("the directory", 1), ("the directory", 2)] {
        let mut bench = Bench::new();
        bench.disk.skip_syncs(false);
        bench.put("k", "v1");
        bench.invalidate("k");
        bench.open = None;
        bench.options.durability = Durability::PowerLoss;
        match file {
            "seg-" => bench.disk.fail_syncs_of(file, ErrorKind::Other),
            _ => bench.disk.fail_nth(Operation::SyncDir, nth, EIO, false),
        }
        assert!(Log::open(bench.disk.clone(), bench.options.clone()).is_err(), "{file} {nth}");
        bench.disk.fail_sync(None);
        assert_eq!(bench.start(), Start::NoState, "{file} {nth}");
    }
}

/// A record that could not be read as its segment was sealed may be read another day, when the key has another value.
#[test]
fn a_cut_outlives_the_machine_before_anything_is_acknowledged() {
    let mut bench = Bench::new();
    bench.options.durability = Durability::PowerLoss;
    bench.start();
    bench.put("a", "1");
    bench.put("b", "1");
    let name = "seg-00000000.log";
    let syncs = |bench: &Bench| bench.disk.syncs_by_name().get(name).copied().unwrap_or(0);
    let before = syncs(&bench);
    bench.disk.skip_syncs(false);
    assert_eq!(bench.start(), Start::Entries);
    assert_eq!(syncs(&bench) - before, 2, "before its trailer, and after the cut");
}
