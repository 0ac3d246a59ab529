//! A file system in memory, served to the kernel by a thread of this process, which can tell afterwards
//! what the kernel had it write and sync, and in which order.
//!
//! A file of it makes a disk: behind a loop device it sees every block that a real file system writes, and
//! every flush that it asks for. So whatever a loss of power may leave of it can be made.

mod files;
mod mount;
mod server;

pub use files::Event;
pub use mount::{Mount, Options};
