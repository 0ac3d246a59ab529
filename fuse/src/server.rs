//! What the kernel asks, and the answers.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{
    FileAttr, FileType, Filesystem, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow,
};
use libc::{EEXIST, EISDIR, ENOENT, ENOTEMPTY, EOPNOTSUPP, c_int};

use crate::files::{Content, Files, Node};

/// Nothing changes but through the kernel, which may believe for this long what it was told.
const TTL: Duration = Duration::from_secs(1);
/// `FOPEN_DIRECT_IO` of linux/fuse.h: reads and writes pass the page cache, and a shared map is refused.
const DIRECT_IO: u32 = 1;

pub(crate) struct Server {
    /// Locked for one request at a time, and by whoever asks what was recorded.
    pub(crate) files: Arc<Mutex<Files>>,
    pub(crate) direct_io: bool,
}

impl Server {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().expect("a request that panicked has ended the server")
    }

    fn open_flags(&self) -> u32 {
        if self.direct_io { DIRECT_IO } else { 0 }
    }
}

fn attributes(number: u64, node: &Node) -> FileAttr {
    let (kind, size) = match &node.content {
        Content::Directory(_) => (FileType::Directory, 0),
        Content::File(bytes) => (FileType::RegularFile, bytes.len() as u64),
    };
    let [atime, mtime, ctime, crtime]: [SystemTime; 4] = [UNIX_EPOCH; 4];
    FileAttr {
        ino: number,
        size,
        blocks: size.div_ceil(512),
        atime,
        mtime,
        ctime,
        crtime,
        kind,
        perm: node.mode,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn answer(reply: ReplyEmpty, result: Result<(), c_int>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn permissions(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

impl Filesystem for Server {
    fn lookup(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEntry) {
        let files = self.files();
        match files.find(parent, name).and_then(|number| Some((number, files.node(number)?))) {
            Some((number, node)) => reply.entry(&TTL, &attributes(number, node), 0),
            None => reply.error(ENOENT),
        }
    }

    fn getattr(&mut self, _: &Request<'_>, number: u64, _handle: Option<u64>, reply: ReplyAttr) {
        match self.files().node(number) {
            Some(node) => reply.attr(&TTL, &attributes(number, node)),
            None => reply.error(ENOENT),
        }
    }

    fn setattr(
        &mut self,
        _: &Request<'_>,
        number: u64,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<u64>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<u32>,
        reply: ReplyAttr,
    ) {
        let mut files = self.files();
        if let Some(mode) = mode {
            files.set_mode(number, permissions(mode));
        }
        if size.is_some_and(|size| !files.set_len(number, size)) {
            return reply.error(EISDIR);
        }
        match files.node(number) {
            Some(node) => reply.attr(&TTL, &attributes(number, node)),
            None => reply.error(ENOENT),
        }
    }

    fn mkdir(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let mut files = self.files();
        if files.find(parent, name).is_some() {
            return reply.error(EEXIST);
        }
        let content = Content::Directory(BTreeMap::new());
        let made = files.create(parent, name, content, permissions(mode));
        match made.and_then(|number| Some((number, files.node(number)?))) {
            Some((number, node)) => reply.entry(&TTL, &attributes(number, node), 0),
            None => reply.error(ENOENT),
        }
    }

    fn create(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut files = self.files();
        let there = files.find(parent, name);
        let made = there.or_else(|| files.create(parent, name, Content::File(Vec::new()), permissions(mode)));
        made.inspect(|&number| files.opened(number));
        match made.and_then(|number| Some((number, files.node(number)?))) {
            Some((number, node)) => reply.created(&TTL, &attributes(number, node), 0, 0, self.open_flags()),
            None => reply.error(ENOENT),
        }
    }

    fn open(&mut self, _: &Request<'_>, number: u64, _flags: i32, reply: ReplyOpen) {
        self.files().opened(number);
        reply.opened(0, self.open_flags());
    }

    fn release(
        &mut self,
        _: &Request<'_>,
        number: u64,
        _handle: u64,
        _flags: i32,
        _lock_owner: Option<u64>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.files().released(number);
        reply.ok();
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        number: u64,
        _handle: u64,
        offset: i64,
        size: u32,
        _flags: i32,
        _lock_owner: Option<u64>,
        reply: ReplyData,
    ) {
        match self.files().bytes(number) {
            Some(bytes) => {
                let start = (offset as usize).min(bytes.len());
                reply.data(&bytes[start..(start + size as usize).min(bytes.len())]);
            }
            None => reply.error(EISDIR),
        }
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        number: u64,
        _handle: u64,
        offset: i64,
        data: &[u8],
        _write_flags: u32,
        _flags: i32,
        _lock_owner: Option<u64>,
        reply: ReplyWrite,
    ) {
        if self.files().write(number, offset as u64, data) {
            reply.written(data.len() as u32);
        } else {
            reply.error(EISDIR);
        }
    }

    /// A device's discard and its write of zeros arrive here, too.
    fn fallocate(
        &mut self,
        _: &Request<'_>,
        number: u64,
        _handle: u64,
        offset: i64,
        length: i64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
        let mut files = self.files();
        let end = (offset + length) as u64;
        let done = match mode {
            0 => {
                let len = files.bytes(number).map_or(0, |bytes| bytes.len() as u64);
                files.set_len(number, len.max(end))
            }
            PUNCH | ZERO => {
                let len = files.bytes(number).map_or(0, |bytes| bytes.len() as u64);
                let end = if mode == ZERO { end } else { end.min(len) };
                files.write(number, offset as u64, &vec![0; end.saturating_sub(offset as u64) as usize])
            }
            _ => return reply.error(EOPNOTSUPP),
        };
        answer(reply, if done { Ok(()) } else { Err(EISDIR) });
    }

    fn fsync(&mut self, _: &Request<'_>, number: u64, _handle: u64, _datasync: bool, reply: ReplyEmpty) {
        self.files().synced(number);
        reply.ok();
    }

    fn fsyncdir(&mut self, _: &Request<'_>, _number: u64, _handle: u64, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn unlink(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        let done = self.files().unlink(parent, name);
        answer(reply, if done { Ok(()) } else { Err(ENOENT) });
    }

    fn rmdir(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        let mut files = self.files();
        let is_empty =
            files.find(parent, name).and_then(|number| files.names(number)).map(BTreeMap::is_empty);
        match is_empty {
            Some(true) => {
                files.unlink(parent, name);
                reply.ok();
            }
            Some(false) => reply.error(ENOTEMPTY),
            None => reply.error(ENOENT),
        }
    }

    fn rename(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        new_parent: u64,
        new_name: &OsStr,
        _flags: u32,
        reply: ReplyEmpty,
    ) {
        let done = self.files().rename((parent, name), (new_parent, new_name));
        answer(reply, if done { Ok(()) } else { Err(ENOENT) });
    }

    fn readdir(
        &mut self,
        _: &Request<'_>,
        number: u64,
        _handle: u64,
        offset: i64,
        mut reply: ReplyDirectory,
    ) {
        let files = self.files();
        let Some(names) = files.names(number) else { return reply.error(ENOENT) };
        for (at, (name, &number)) in names.iter().enumerate().skip(offset as usize) {
            let kind = match files.names(number) {
                Some(_) => FileType::Directory,
                None => FileType::RegularFile,
            };
            if reply.add(number, at as i64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
