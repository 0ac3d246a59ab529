//! Connections to one SQLite database: with a write-ahead log, without syncs, read through a map.

use std::path::{Path, PathBuf};

use anyhow::Result;
use parking_lot::Mutex;
use rusqlite::Connection;

pub struct Connections {
    path: PathBuf,
    /// Those that no thread uses now. Guards only the list.
    idle: Mutex<Vec<Connection>>,
}

impl Connections {
    pub fn new(path: impl Into<PathBuf>) -> Connections {
        Connections { path: path.into(), idle: Mutex::new(Vec::new()) }
    }

    /// Lends an idle connection, or a new one.
    pub fn with<R>(&self, work: impl FnOnce(&mut Connection) -> Result<R>) -> Result<R> {
        let idle = self.idle.lock().pop();
        let mut connection = idle.map_or_else(|| connect(&self.path), Ok)?;
        let result = work(&mut connection);
        self.idle.lock().push(connection);
        result
    }

    pub fn close(self) -> Result<()> {
        for connection in self.idle.into_inner() {
            connection.close().map_err(|(_, error)| error)?;
        }
        Ok(())
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA mmap_size = 4294967296;
         PRAGMA busy_timeout = 10000;",
    )?;
    Ok(connection)
}
