//! What the fuzzer makes of its input: options, then operations on a cache that is checked against a map.

use std::time::Duration;

use embercache::{
    Admission, Builder, Cache, Durability, KIB, MIB, Overload, ReadMode, WriteBehind,
    testing::{MemoryDisk, RecorderDisk},
};

use crate::{
    checked::{Demands, Run, SHORT, TestDisk},
    ops::Op,
};

/// More would only make an input slower, not find more.
const OPS_MAX: usize = 200;
/// How often every counter is derived again from scratch.
const CHECK_INTERVAL: usize = 16;

/// Runs what the bytes say: two of options, then the operations.
///
/// # Panics
///
/// If the cache lies, or its own figures contradict each other.
pub fn run(input: &[u8]) {
    let Some((options, ops)) = input.split_first_chunk::<2>() else { return };
    let options = Options(u16::from_le_bytes(*options));
    let disk = options.disk();
    let outlives_power = options.durability() == Durability::PowerLoss;
    let demands = Demands { outlives_power, ..Demands::TRUTH };
    let mut run = Run::new(disk, demands, move |disk| options.builder(disk));
    for (number, op) in ops.as_chunks().0.iter().take(OPS_MAX).enumerate() {
        run.step(Op::decode(*op));
        if number % CHECK_INTERVAL == 0 {
            run.cache.check();
        }
    }
    run.reopen_by_close();
    run.cache.check();
}

/// The options, a bit each.
#[derive(Clone, Copy)]
struct Options(u16);

impl Options {
    fn is_set(self, bit: u16) -> bool {
        self.0 & 1 << bit != 0
    }

    fn disk(self) -> TestDisk {
        match (self.is_set(0), self.durability()) {
            (true, Durability::PowerLoss) => TestDisk::recorded(RecorderDisk::over(MemoryDisk::new())),
            (true, _) => TestDisk::memory(),
            (false, _) => TestDisk::files(),
        }
    }

    /// Mostly the mode that has something to lose at a kill.
    fn durability(self) -> Durability {
        match self.0 >> 13 {
            0 => Durability::Clean,
            1 | 2 => Durability::PowerLoss,
            _ => Durability::ProcessCrash,
        }
    }

    fn builder(self, disk: &TestDisk) -> Builder<u64, Vec<u8>> {
        let builder =
            Cache::builder(disk.dir()).segment_size(64 * KIB).disk(MIB).durability(self.durability());
        let builder = if self.is_set(1) { builder.ram(MIB) } else { builder.ram_entries(8) };
        let builder = if self.is_set(2) { builder.stripes(1) } else { builder.stripes(4) };
        let builder = match (self.is_set(3), self.is_set(4)) {
            (false, false) => builder,
            (true, false) => builder.write_behind(WriteBehind::After(Duration::from_millis(10))),
            (false, true) => builder.write_behind(WriteBehind::Never),
            (true, true) => builder.write_behind(WriteBehind::Through),
        };
        let builder = if self.is_set(5) { builder.admission(Admission::All) } else { builder };
        let builder = if self.is_set(6) { builder.overload(Overload::Shed) } else { builder };
        let builder = if self.is_set(7) { builder.read_mode(ReadMode::Strict) } else { builder };
        if self.is_set(8) { builder.time_to_idle(SHORT * 5) } else { builder }
    }
}
