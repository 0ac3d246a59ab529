//! The options, checked once and worked out.

use std::{path::PathBuf, thread, time::Duration};

use crate::{
    budget::Plan,
    error::Error,
    location::Location,
    options::{KIB, MIB, Options, Overload, RamBudget, WriteBehind},
};

/// Stripes for each core: enough that two threads seldom meet at one.
const STRIPES_PER_CORE: u64 = 16;
/// One more for each so much of the disk: a stripe's index is read when the stripe is first touched after
/// a close, and whoever touches it waits for all of it.
const STRIPE_DISK_BYTES: u64 = 32 * MIB;
/// A stripe whose share is smaller than this has too few entries for its policy to learn from.
const STRIPE_SHARE_MIN: u64 = MIB;
/// The same where the budget counts entries.
const STRIPE_ENTRIES_MIN: u64 = 256;
/// For the disk's sake alone a policy is not brought to these limits, but to so many times their size.
const DISK_STRIPE_SHARES: u64 = 4;
/// Ten bits of the hash: the hot table's tags are taken from below its top sixteen.
const STRIPES_MAX: u64 = 1024;

/// The limits that the builder documents at its methods.
const RAM_ONLY_MIN: u64 = 64 * KIB;
const RAM_MIN: u64 = MIB;
const SEGMENT_MIN: u64 = 64 * KIB;
const SEGMENTS_MIN: u64 = 4;
const DISK_MAX: u64 = 64 << 40;
const ENTRIES_MAX: u64 = 1 << 31;
/// A larger write is no cheaper by the byte, and its records wait longer.
const BATCH_MAX: u64 = MIB;
const WRITE_BEHIND_MIN: Duration = Duration::from_millis(10);

/// What the options come to.
pub(crate) struct Limits {
    pub(crate) plan: Plan,
    pub(crate) write_behind: WriteBehind,
    pub(crate) close_timeout: Duration,
    pub(crate) reinserted_percent: u64,
    /// The disk tier's, if there is one.
    pub(crate) disk: Option<DiskLimits>,
}

pub(crate) struct DiskLimits {
    pub(crate) dir: PathBuf,
    pub(crate) capacity_bytes: u64,
    pub(crate) segment_bytes: u32,
    pub(crate) batch_bytes: usize,
}

impl Limits {
    /// Checks every option against the limits documented at its method.
    pub(crate) fn of<K, V>(options: &Options<K, V>) -> Result<Limits, Error> {
        check("index_share", options.index_percent, 1, 90)?;
        check("reinsertion", options.reinserted_percent, 0, 75)?;
        if let WriteBehind::After(interval) = options.write_behind {
            let ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
            check("write_behind", ms, WRITE_BEHIND_MIN.as_millis() as u64, u64::MAX)?;
        }
        let disk = options.dir.clone().map(|dir| disk_limits(options, dir)).transpose()?;
        let stripes = stripes(options, disk.as_ref())?;
        Ok(Limits {
            plan: plan(options, disk.as_ref(), stripes.ilog2())?,
            write_behind: options.write_behind,
            close_timeout: options.close_timeout,
            reinserted_percent: options.reinserted_percent,
            disk,
        })
    }
}

fn disk_limits<K, V>(options: &Options<K, V>, dir: PathBuf) -> Result<DiskLimits, Error> {
    let capacity_bytes = options.disk_bytes;
    check("disk", capacity_bytes, SEGMENTS_MIN * SEGMENT_MIN, DISK_MAX)?;
    let segment_max = u64::from(Location::SEGMENT_BYTES_MAX);
    let segment_bytes = match options.segment_bytes {
        Some(bytes) => {
            check("segment_size", bytes, SEGMENT_MIN, segment_max.min(capacity_bytes / SEGMENTS_MIN))?;
            if !bytes.is_power_of_two() {
                let allowed = "a power of two".to_owned();
                return Err(Error::Option { option: "segment_size", found: bytes, allowed });
            }
            bytes
        }
        None => {
            let few = (capacity_bytes / 256).next_power_of_two().clamp(4 * MIB, segment_max);
            few.min(floor_power_of_two(capacity_bytes / 16).max(SEGMENT_MIN))
        }
    };
    Ok(DiskLimits {
        dir,
        capacity_bytes,
        segment_bytes: segment_bytes as u32,
        batch_bytes: batch_bytes(options).min(segment_bytes / 2) as usize,
    })
}

/// What is gathered before it is written at once, out of the RAM budget.
fn batch_bytes<K, V>(options: &Options<K, V>) -> u64 {
    match options.budget {
        RamBudget::Bytes(bytes) => (bytes / 16).clamp(64 * KIB, BATCH_MAX),
        RamBudget::Entries(_) => BATCH_MAX,
    }
}

fn stripes<K, V>(options: &Options<K, V>, disk: Option<&DiskLimits>) -> Result<u64, Error> {
    let useful = match options.budget {
        RamBudget::Bytes(bytes) => bytes / STRIPE_SHARE_MIN,
        RamBudget::Entries(entries) => entries / STRIPE_ENTRIES_MIN,
    };
    match options.stripes {
        Some(stripes) => {
            check("stripes", stripes, 1, STRIPES_MAX)?;
            if !stripes.is_power_of_two() {
                let allowed = "a power of two".to_owned();
                return Err(Error::Option { option: "stripes", found: stripes, allowed });
            }
            Ok(stripes)
        }
        None => {
            let for_cores = (cores() * STRIPES_PER_CORE).min(useful);
            let of_disk = disk.map_or(0, |disk| disk.capacity_bytes / STRIPE_DISK_BYTES);
            let for_disk = of_disk.min(useful / DISK_STRIPE_SHARES);
            Ok(floor_power_of_two(for_cores.max(for_disk).clamp(1, STRIPES_MAX)))
        }
    }
}

fn cores() -> u64 {
    thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

fn plan<K, V>(options: &Options<K, V>, disk: Option<&DiskLimits>, stripe_bits: u32) -> Result<Plan, Error> {
    let sheds = options.overload == Overload::Shed;
    // On one core it would keep the thread off that it holds back for.
    let holds_back = disk.is_some() && !sheds && cores() > 1;
    match options.budget {
        RamBudget::Bytes(bytes) => {
            check("ram", bytes, if disk.is_some() { RAM_MIN } else { RAM_ONLY_MIN }, u64::MAX)?;
            let batch = disk.map_or(0, |disk| disk.batch_bytes as u64);
            let leaving_max = disk.map_or(0, |_| (bytes / 8).min(16 * MIB));
            let pool = bytes - batch - leaving_max;
            // Entries keep some room, whatever the buffers of a small budget have taken.
            let index_max = (bytes / 100 * options.index_percent).min(pool / 10 * 9);
            Ok(Plan { pool, stripe_bits, leaving_max, index_max, sheds, holds_back, in_bytes: true })
        }
        RamBudget::Entries(entries) => {
            check("ram_entries", entries, 1, ENTRIES_MAX)?;
            let leaving_max = (entries / 8).max(16);
            let index_max = u64::MAX;
            Ok(Plan {
                pool: entries,
                stripe_bits,
                leaving_max,
                index_max,
                sheds,
                holds_back,
                in_bytes: false,
            })
        }
    }
}

fn check(option: &'static str, found: u64, min: u64, max: u64) -> Result<(), Error> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    let allowed = if max == u64::MAX { format!("at least {min}") } else { format!("from {min} to {max}") };
    Err(Error::Option { option, found, allowed })
}

fn floor_power_of_two(number: u64) -> u64 {
    1 << number.max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GIB, options::Options};

    fn default_stripes(ram: RamBudget, disk_bytes: Option<u64>) -> u64 {
        let options = Options::<u64, u64> {
            budget: ram,
            disk_bytes: disk_bytes.unwrap_or_default(),
            ..Options::new(disk_bytes.map(|_| PathBuf::from("dir")))
        };
        1 << Limits::of(&options).unwrap().plan.stripe_bits
    }

    #[test]
    fn a_full_index_leaves_room_for_entries() {
        for mib in [1, 2, 16, 1024] {
            let disk = Options::<u64, u64> {
                budget: RamBudget::Bytes(mib * MIB),
                disk_bytes: GIB,
                index_percent: 90,
                ..Options::new(Some(PathBuf::from("dir")))
            };
            let Plan { pool, index_max, .. } = Limits::of(&disk).unwrap().plan;
            assert!(pool - index_max >= pool / 10, "{index_max} of {pool} bytes, with {mib} MiB");
        }
    }

    #[test]
    fn a_large_disk_has_more_stripes_where_ram_has_the_entries_for_them() {
        let for_cores = floor_power_of_two(cores() * STRIPES_PER_CORE).min(STRIPES_MAX);
        let ram = |mib| RamBudget::Bytes(mib * MIB);
        assert_eq!(default_stripes(ram(64 << 10), None), for_cores);
        assert_eq!(default_stripes(ram(64 << 10), Some(GIB)), for_cores.max(32));
        assert_eq!(default_stripes(ram(64 << 10), Some(8 * GIB)), for_cores.max(256));
        assert_eq!(default_stripes(ram(64 << 10), Some(1 << 40)), STRIPES_MAX);
        assert_eq!(default_stripes(ram(512), Some(1 << 40)), for_cores.clamp(128, 512));
        assert_eq!(default_stripes(RamBudget::Entries(100_000), Some(1 << 40)), for_cores.clamp(64, 256));
        assert_eq!(default_stripes(ram(1), Some(1 << 40)), 1);
    }
}
