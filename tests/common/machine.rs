//! What a test asks of the machine: file systems and control groups of its own, gone when it ends.
//!
//! Where the machine or the user may not have them, that is said aloud, and there is none.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use super::{TempDir, child::Spawned, skip};

/// Starts a child under a program, or says that there is none. Its way in is the target's test `child`.
pub(crate) fn start_under(program: &[&str], role: &str, dir: &Path) -> Option<Spawned> {
    start_at(program, "child", role, dir, 0)
}

fn start_at(program: &[&str], entry: &str, role: &str, dir: &Path, seed: u64) -> Option<Spawned> {
    match Spawned::start_under(program, entry, role, dir, seed) {
        Ok(child) => Some(child),
        Err(error) => {
            skip(role, &format!("{}: {error}", program[0]));
            None
        }
    }
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// What this process holds of RAM by itself, files apart.
pub(crate) fn anonymous_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

/// A file system of its own, unmounted at the end.
pub(crate) struct Mount {
    dir: TempDir,
    image: Option<PathBuf>,
}

impl Mount {
    pub(crate) fn tmpfs(size: &str) -> Option<Mount> {
        Mount::new(None, &["-t", "tmpfs", "-o", &format!("size={size},mode=755"), "tmpfs"])
    }

    /// An ext4 in a file.
    pub(crate) fn image(size: &str) -> Option<Mount> {
        let dir = TempDir::new();
        let image = dir.outer().join("image");
        run(&["truncate", "-s", size, image.to_str().unwrap()])?;
        run(&["mkfs.ext4", "-q", "-F", image.to_str().unwrap()])?;
        Mount::new(Some((dir, image.clone())), &["-o", "loop", image.to_str().unwrap()])
    }

    /// What is in a file of the caller's.
    pub(crate) fn of_image(image: &Path) -> Option<Mount> {
        Mount::new(None, &["-o", "loop", image.to_str().unwrap()])
    }

    fn new(image: Option<(TempDir, PathBuf)>, args: &[&str]) -> Option<Mount> {
        if !is_root() {
            skip("a file system of its own", "only root may mount one");
            return None;
        }
        let (dir, image) = image.map_or_else(|| (TempDir::new(), None), |(dir, image)| (dir, Some(image)));
        let at = dir.outer().join("mount");
        fs::create_dir(&at).unwrap();
        run(&[&["mount"], args, &[at.to_str().unwrap()]].concat())?;
        Some(Mount { dir, image })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.outer().join("mount")
    }

    /// The same files once more, for reading only.
    pub(crate) fn read_only(&self) -> Mount {
        let copy =
            Mount::new(None, &["--bind", self.path().to_str().unwrap()]).expect("it could mount before");
        run(&["mount", "-o", "remount,ro,bind", copy.path().to_str().unwrap()]).expect("as above");
        copy
    }

    /// Cuts the device off, and has the kernel forget what it has read.
    pub(crate) fn cut_image(&self, bytes: u64) {
        run(&["sync"]).unwrap();
        let image = fs::OpenOptions::new().write(true).open(self.image.as_ref().unwrap()).unwrap();
        image.set_len(bytes).unwrap();
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let umount = |how: &[&str]| Command::new("umount").args(how).arg(self.path()).output();
        if !umount(&[]).is_ok_and(|output| output.status.success()) {
            // Whoever still holds a file of it does not keep the test's directory from being removed.
            let _ = umount(&["-l"]);
        }
    }
}

/// Runs a program to its end. `None`, said aloud, if it is not there or failed.
pub(crate) fn run(line: &[&str]) -> Option<()> {
    let ended = Command::new(line[0]).args(&line[1..]).output();
    let why = match ended {
        Ok(output) if output.status.success() => return Some(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    skip(&line.join(" "), &why);
    None
}

/// A control group that bounds memory, removed at the end.
pub(crate) struct Group(PathBuf);

impl Group {
    pub(crate) fn of_memory(bytes: u64) -> Option<Group> {
        let group =
            Group(Path::new("/sys/fs/cgroup/memory").join(format!("embercache-{}", std::process::id())));
        let made = fs::create_dir(&group.0);
        let bounded = made.and_then(|()| fs::write(group.0.join("memory.limit_in_bytes"), bytes.to_string()));
        if let Err(error) = bounded {
            skip("a control group", &error.to_string());
            return None;
        }
        Some(group)
    }

    /// Starts a child in it, or says why not.
    pub(crate) fn start(&self, entry: &str, role: &str, dir: &Path, seed: u64) -> Option<Spawned> {
        let enter = format!("echo $$ > {}/cgroup.procs; exec \"$0\" \"$@\"", self.0.display());
        start_at(&["sh", "-c", &enter], entry, role, dir, seed)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its last process has just ended; the kernel may need a moment to see that.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
