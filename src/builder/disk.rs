//! The options of the disk tier.

use std::{sync::Arc, time::Duration};

use super::Builder;
#[cfg(feature = "testing")]
use crate::io::Io;
use crate::{
    codec::{Key, Value},
    options::{Admission, Durability, OnMismatch, Overload, ReadMode, WriteBehind},
};

/// The disk tier. In RAM alone, none of this has an effect.
impl<K: Key, V: Value> Builder<K, V> {
    /// The most that the log's segments may take on disk, in bytes. Default 1 GiB; at least four
    /// segments and 256 KiB, at most 64 TiB.
    ///
    /// To make room, the oldest segment is given up as a whole; those of its entries that were read are written
    /// again ([`reinsertion`](Builder::reinsertion)); if no segment is being filled then, one is begun for them, beyond
    /// the budget for a moment. Not counted are the invalidation journal (in files of 1 MiB),
    /// the snapshot of the index, and up to four damaged segments that are put aside.
    ///
    /// A directory that was written under a larger budget is cut down to this one by the background thread, the
    /// oldest segments first.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<u64, String> = Cache::builder(dir).ram(8 * MIB).disk(64 * MIB).open()?;
    /// cache.insert(1, "one".into())?;
    /// cache.flush()?;
    /// assert!((1..=64 * MIB).contains(&cache.disk_bytes()));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn disk(mut self, bytes: u64) -> Self {
        self.options.disk_bytes = bytes;
        self
    }

    /// The size of a segment file in bytes: a power of two from 64 KiB to 128 MiB, at most a quarter of the
    /// disk budget. An entry whose record is larger than a quarter of a segment never reaches the disk, which
    /// [`Stats::too_large`](crate::Stats::too_large) counts: with a disk budget of 1 GiB and the default, one above a MiB.
    ///
    /// By default about 1/256 of the disk budget, from 4 MiB to 128 MiB; below a disk budget of 64 MiB
    /// about a sixteenth of it, at least 64 KiB. Segments that were written with another size stay readable.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, Error, KIB, MIB};
    /// let pages = || Cache::<u64, String>::builder(&dir).disk(16 * MIB);
    /// assert!(pages().segment_size(256 * KIB).open().is_ok());
    /// assert!(matches!(
    ///     pages().segment_size(8 * MIB).open(),
    ///     Err(Error::Option { option: "segment_size", .. })
    /// ));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn segment_size(mut self, bytes: u64) -> Self {
        self.options.segment_bytes = Some(bytes);
        self
    }

    /// How much of the RAM budget the index of the disk tier may take at most, in percent, from 1 to 90.
    /// Default 50. Where the disk could hold more entries than that allows, the oldest leave earlier, and
    /// [`Stats::indexable_disk_bytes`](crate::Stats::indexable_disk_bytes) shows it. With a budget in entries there
    /// is no such bound.
    ///
    /// The index takes 18 to 24 bytes for each entry on disk.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, Error, MIB};
    /// let with = |percent| Cache::<u64, String>::builder(&dir).ram(8 * MIB).index_share(percent).open();
    /// assert!(with(75).is_ok());
    /// assert!(matches!(with(100), Err(Error::Option { option: "index_share", .. })));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn index_share(mut self, percent: u64) -> Self {
        self.options.index_percent = percent;
        self
    }

    /// How much of the oldest segment is written again at most when its place is needed, in percent of
    /// its size, header and footer counted as written again, from 0 to 75. Default 75. It is the entries that were read
    /// since they were written that are written again; the others are forgotten with their segment.
    ///
    /// A higher share gives a higher hit ratio for more writes: for each new byte, 75 writes up to four to segments, and
    /// 25 up to 1.33. With 0 nothing is written twice, and the log is a FIFO.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, Error};
    /// let with = |percent| Cache::<u64, String>::builder(&dir).reinsertion(percent).open();
    /// assert!(with(25).is_ok());
    /// assert!(matches!(with(76), Err(Error::Option { option: "reinsertion", .. })));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn reinsertion(mut self, percent: u64) -> Self {
        self.options.reinserted_percent = percent;
        self
    }

    /// What happens when the disk falls behind. Default [`Overload::Wait`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, MIB, Overload};
    /// let cache: Cache<u64, String> =
    ///     Cache::builder(dir).ram(8 * MIB).disk(64 * MIB).overload(Overload::Shed).open()?;
    /// cache.insert(1, "one".into())?;
    /// assert_eq!(cache.stats().shed, 0); // there was no hurry
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn overload(mut self, overload: Overload) -> Self {
        self.options.overload = overload;
        self
    }

    /// When entries that stay in RAM are copied to disk, so that a crash does not lose them. Default
    /// [`WriteBehind::After`] five seconds; at least 10 ms.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, MIB, WriteBehind};
    /// let cache: Cache<u64, String> =
    ///     Cache::builder(dir).ram(8 * MIB).disk(64 * MIB).write_behind(WriteBehind::Never).open()?;
    /// cache.insert(1, "one".into())?;
    /// assert_eq!(cache.stats().disk_entries, 0);
    /// cache.flush()?;
    /// assert_eq!(cache.stats().disk_entries, 1);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn write_behind(mut self, write_behind: WriteBehind) -> Self {
        self.options.write_behind = write_behind;
        self
    }

    /// How long [`close`](crate::Cache::close), or the last handle's drop, may spend on copying RAM to disk. What is
    /// not copied by then is forgotten. Default 30 s; zero copies nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, MIB};
    /// # use std::time::Duration;
    /// let open = || Cache::<u64, String>::builder(&dir).close_timeout(Duration::ZERO).open();
    /// let cache = open()?;
    /// cache.insert(1, "one".into())?;
    /// cache.close()?;
    /// assert_eq!(open()?.get(&1), None); // there was no time to copy it
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.options.close_timeout = timeout;
        self
    }

    /// Which of the entries that leave RAM are written to disk. Default [`Admission::Duet`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Admission, Cache, MIB};
    /// let cache: Cache<u64, Vec<u8>> =
    ///     Cache::builder(dir).ram(MIB).disk(4 * MIB).admission(Admission::All).open()?;
    /// for key in 0..10_000 {
    ///     cache.insert(key, vec![0; 1_000])?;
    /// }
    /// assert_eq!(cache.stats().refused, 0);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn admission(mut self, admission: Admission) -> Self {
        self.options.admission = admission;
        self
    }

    /// What survives an end without a close, and what an invalidation costs for that. Default
    /// [`Durability::ProcessCrash`]. A change from [`Durability::Clean`] to another mode starts cold.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, Durability, MIB};
    /// let open = || Cache::<u64, String>::builder(&dir).durability(Durability::Clean).open();
    /// let cache = open()?;
    /// cache.insert(1, "one".into())?;
    /// cache.close()?;
    /// assert_eq!(open()?.get(&1).as_deref(), Some("one"));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options.durability = durability;
        self
    }

    /// How values are read from disk. Default [`ReadMode::Map`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, ReadMode};
    /// let open = || Cache::<u64, String>::builder(&dir).read_mode(ReadMode::Strict).open();
    /// open()?.insert(1, "one".into())?;
    /// let cache = open()?;
    /// assert_eq!(cache.get(&1).as_deref(), Some("one"));
    /// assert_eq!(cache.stats().disk_hits, 1);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn read_mode(mut self, read_mode: ReadMode) -> Self {
        self.options.read_mode = read_mode;
        self
    }

    /// Opens what another cache has left, for look-ups alone. Nothing in the directory is written, so it
    /// may lie on a file system that is mounted for reading only. Any number of such caches, in any processes of its
    /// owner's, can have it open at the same time. While one does, a cache that may write to it is refused with
    /// [`Error::Locked`](crate::Error::Locked), and the other way round.
    ///
    /// Changes return [`Error::ReadOnly`](crate::Error::ReadOnly), and loads store nothing: what is there cannot become
    /// stale. It leaves no word of the time, either: on another boot than the last writer's, a second open finds again
    /// what the first saw expire, if the wall clock was set back in between. For the same reason a
    /// [`time_to_idle`](Builder::time_to_idle) has no effect: an entry expires when its copy on disk does, hit or not.
    /// Hits on disk come to RAM as usual. A directory whose entries cannot be believed (see [`Start`](crate::Start)) opens as an empty cache. `disk`,
    /// `segment_size` and `durability` have no effect, and the index takes what it needs of RAM, even beyond its share.
    /// [`open`](Builder::open) fails with [`Error::Io`](crate::Error::Io) where there is no directory, and with
    /// [`Error::NotACache`](crate::Error::NotACache) where it is empty.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, Error};
    /// let cache: Cache<u64, String> = Cache::builder(&dir).open()?;
    /// cache.insert(1, "one".into())?;
    /// cache.close()?;
    ///
    /// let cache: Cache<u64, String> = Cache::builder(&dir).read_only().open()?;
    /// assert_eq!(cache.get(&1).as_deref(), Some("one"));
    /// assert!(matches!(cache.insert(1, "uno".into()), Err(Error::ReadOnly)));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.options.read_only = true;
        self
    }

    /// What to do with a directory written with other codecs or another schema version. Default
    /// [`OnMismatch::ColdStart`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, Error, OnMismatch};
    /// drop(Cache::<u64, String>::builder(&dir).open()?);
    /// let with_ids = Cache::<u64, u64>::builder(&dir).on_mismatch(OnMismatch::Refuse).open();
    /// assert!(matches!(with_ids, Err(Error::Mismatch { what: "value codec", .. })));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn on_mismatch(mut self, on_mismatch: OnMismatch) -> Self {
        self.options.on_mismatch = on_mismatch;
        self
    }

    /// Puts another disk in place of the machine's.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    #[must_use]
    pub fn io(mut self, io: Arc<dyn Io>) -> Self {
        self.io = io;
        self
    }

    /// A number of yours for what the encoded bytes mean. Change it whenever a key or value type or its
    /// serialization changes: what was written under another number is not read
    /// ([`on_mismatch`](Builder::on_mismatch)). Default 0.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache};
    /// let open = |version| Cache::<u64, String>::builder(&dir).schema_version(version).open();
    /// open(1)?.insert(1, "one".into())?;
    /// assert_eq!(open(2)?.get(&1), None);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn schema_version(mut self, version: u32) -> Self {
        self.options.schema_version = version;
        self
    }

    /// Keeps entries off the disk for which `may_spill` is false, for instance secrets. By default all may be
    /// written. It is called by the background thread before an entry is encoded, under no lock; a panic counts as
    /// false. Meanwhile no memory of entries that leave RAM is freed, so it should not take long.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), embercache::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let dir = dir.path().join("cache");
    /// # use embercache::{Cache, MIB};
    /// let cache: Cache<String, String> = Cache::builder(dir)
    ///     .disk(64 * MIB)
    ///     .disk_filter(|key: &String, _| !key.starts_with("token"))
    ///     .open()?;
    /// cache.insert("token/7".into(), "hunter2".into())?;
    /// cache.insert("page/7".into(), "<html>".into())?;
    /// cache.flush()?;
    /// assert_eq!(cache.stats().disk_entries, 1);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn disk_filter(mut self, may_spill: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.options.disk_filter = Some(Arc::new(may_spill));
        self
    }
}
