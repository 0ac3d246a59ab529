//! The file system, mounted.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::Duration,
};

use fuser::{BackgroundSession, MountOption};

use crate::{
    files::{Content, Event, Files, ROOT},
    server::Server,
};

/// What kind of file system it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// No page cache, hence no shared maps: `mmap` answers ENODEV.
    pub direct_io: bool,
}

/// A mounted file system, unmounted when it is dropped. Its directory must be there, and stays.
pub struct Mount {
    at: PathBuf,
    files: Arc<Mutex<Files>>,
    /// `None` once unmounted.
    session: Option<BackgroundSession>,
}

impl Mount {
    /// Mounts an empty file system, which takes root and /dev/fuse.
    pub fn new(at: &Path, options: Options) -> io::Result<Mount> {
        if !fs::exists("/dev/fuse")? {
            return Err(io::Error::new(io::ErrorKind::NotFound, "there is no /dev/fuse"));
        }
        let files = Arc::new(Mutex::new(Files::new()));
        let server = Server { files: Arc::clone(&files), direct_io: options.direct_io };
        let mount = [MountOption::FSName("embercache-fuse".to_owned()), MountOption::DefaultPermissions];
        let session = fuser::spawn_mount2(server, at, &mount)?;
        Ok(Mount { at: at.to_owned(), files, session: Some(session) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Puts a file into the root.
    pub fn add(&self, name: &str, bytes: Vec<u8>) {
        self.files().create(ROOT, OsStr::new(name), Content::File(bytes), 0o600);
    }

    /// The bytes of a file in the root.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let files = self.files();
        files.bytes(files.find(ROOT, OsStr::new(name))?).cloned()
    }

    /// Remembers from now on what is written to a file in the root. Returns its bytes until now.
    pub fn start_recording(&self, name: &str) -> Option<Vec<u8>> {
        let mut files = self.files();
        let file = files.find(ROOT, OsStr::new(name))?;
        files.start_recording(file);
        files.bytes(file).cloned()
    }

    /// How many events have been recorded: the moment, as the disk knows it.
    pub fn recorded(&self) -> usize {
        self.files().recorded()
    }

    /// Ends the recording and returns it.
    pub fn take_recorded(&self) -> Vec<Event> {
        self.files().take_recorded()
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().expect("a request that panicked has ended the server")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A loop device over one of its files is let go of a moment after it was unmounted.
        for _ in 0..100 {
            let unmounted = Command::new("umount").arg(&self.at).output();
            if unmounted.is_ok_and(|output| output.status.success()) {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        // Detaches it if it is still there, so that nobody is left waiting for the server.
        let _ = Command::new("umount").arg("-l").arg(&self.at).output();
        drop(self.session.take());
    }
}
