//! The locks under which podman, buildah and CRI-O write their records: POSIX, shared with whoever else reads
//! (gh:containers/storage lockfile).
//!
//! Nobody is waited for without end. Stores on read-only media have no locks and need none.

use std::{
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, OFlags, fcntl_lock},
    io::Errno,
};

use crate::error::{Error, Result};

/// Waits for whoever writes records. The lock ends with the file; without one, or without locks on this file
/// system, the records are read as they are.
pub(super) fn lock(path: &Path) -> Result<Option<fs_err::File>> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).custom_flags((OFlags::NONBLOCK | OFlags::CLOEXEC).bits().cast_signed());
    let Ok(file) = fs_err::OpenOptions::from_options(options).open(path) else { return Ok(None) };
    let attempt = || rustix::io::retry_on_intr(|| fcntl_lock(&file, FlockOperation::NonBlockingLockShared));
    let locked = wait(attempt, PATIENCE).map_err(|Held| {
        Error::local(format!("somebody else holds the lock `{}`", path.display()))
            .with_hint("podman, buildah or CRI-O is writing to this storage: try again when it is done")
    })?;
    Ok(locked.then_some(file))
}

/// Somebody holds a lock for longer than anybody waits.
#[derive(Debug)]
struct Held;

/// Attempts to take a lock until nobody else has it; returns whether there is one. Waiting in the kernel would
/// know no end, and nobody would be told what for.
fn wait(attempt: impl Fn() -> rustix::io::Result<()>, patience: Duration) -> Result<bool, Held> {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(()) => return Ok(true),
            Err(Errno::AGAIN | Errno::ACCESS) if started.elapsed() < patience => thread::sleep(STEP),
            Err(Errno::AGAIN | Errno::ACCESS) => return Err(Held),
            Err(_) => return Ok(false),
        }
    }
}

/// Records are written in a moment; who holds a lock longer is removing or copying something large.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two attempts: no user notices it.
const STEP: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::{cell::Cell, os::fd::AsRawFd as _};

    use super::*;

    /// Returns the kinds of locks that this process holds on a file, as the kernel lists them. Of the list of all locks
    /// of the machine, some are missing where others come and go.
    fn held(file: &fs_err::File) -> Vec<String> {
        let text = fs_err::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap();
        let locks = text.lines().filter_map(|line| line.strip_prefix("lock:"));
        locks
            .map(|lock| lock.split_ascii_whitespace().skip(1).take(3).collect::<Vec<_>>().join(" "))
            .collect()
    }

    #[test]
    fn records_are_read_under_podmans_kind_of_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layers.lock");
        assert!(lock(&path).unwrap().is_none());
        fs_err::write(&path, "").unwrap();
        let file = lock(&path).unwrap().unwrap();
        assert_eq!(held(&file), ["POSIX ADVISORY READ"]);
        drop(file);
        assert!(held(&fs_err::File::open(&path).unwrap()).is_empty());
    }

    #[test]
    fn a_lock_that_is_held_is_waited_for_and_not_for_ever() {
        let attempts = Cell::new(0);
        let held_for = |times: u32, error: Errno| {
            attempts.set(0);
            wait(
                || {
                    attempts.set(attempts.get() + 1);
                    if attempts.get() > times { Ok(()) } else { Err(error) }
                },
                Duration::from_secs(3600),
            )
        };
        for held in [Errno::AGAIN, Errno::ACCESS] {
            assert!(held_for(2, held).unwrap());
            assert_eq!(attempts.get(), 3);
        }
        // A file system without locks.
        assert!(!held_for(2, Errno::NOLCK).unwrap());
        wait(|| Err(Errno::AGAIN), Duration::ZERO).unwrap_err();
    }
}
