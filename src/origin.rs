//! The process that opened a cache, told apart from its forks.
//!
//! A fork has a copy of a cache's memory and the same open files, but none of its threads, and locks that
//! nobody may ever give back. What it wrote would tear the parent's journal, and what it found in RAM would
//! be as of the fork. So in a fork a cache with a disk finds nothing and changes nothing.

use memmap2::MmapMut;
#[cfg(target_os = "linux")]
use rustix::mm::{Advice, madvise};

use crate::error::Error;

/// Made where a cache is opened.
#[derive(Debug)]
pub(crate) enum Origin {
    /// A page that the kernel empties in every fork, so that to ask costs a load.
    Page(MmapMut),
    /// The process's number, where the kernel does not.
    Process(u32),
}

impl Origin {
    pub(crate) fn here() -> Origin {
        marked_page().map_or_else(|| Origin::Process(std::process::id()), Origin::Page)
    }

    /// Whether this is a fork of the process that opened the cache.
    #[inline]
    pub(crate) fn is_elsewhere(&self) -> bool {
        match self {
            Origin::Page(page) => page[0] == 0,
            Origin::Process(id) => *id != std::process::id(),
        }
    }

    /// # Errors
    ///
    /// [`Error::Forked`].
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_elsewhere() { Err(Error::Forked) } else { Ok(()) }
    }
}

#[cfg(target_os = "linux")]
fn marked_page() -> Option<MmapMut> {
    let mut page = MmapMut::map_anon(1).ok()?;
    // SAFETY: the range is that of `page`, which stays mapped. The advice takes its bytes away in forks
    // alone, where nothing is known of them but that they may be zero.
    unsafe { madvise(page.as_mut_ptr().cast(), page.len(), Advice::LinuxWipeOnFork) }.ok()?;
    page[0] = 1;
    Some(page)
}

#[cfg(not(target_os = "linux"))]
fn marked_page() -> Option<MmapMut> {
    None
}
