// SPDX-License-Identifier: Apache-2.0
//! Tells whether a file was written since it was read, without reading it.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Two writes within this time may leave the same times on a file: kernels before 6.13 step them with the
/// timer (4 to 10 ms), some file systems by whole seconds, FAT by two.
const GRANULE: Duration = Duration::from_secs(3);

/// What a write changes of a file, besides its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn new(file: &Metadata) -> Stamp {
        Stamp {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// When it was changed last, in nanoseconds since 1970: by the kernel's clock, which no user sets back.
    pub(crate) fn changed(&self) -> u64 {
        let (seconds, nanoseconds) = self.changed;
        let seconds = u64::try_from(seconds).unwrap_or(0);
        seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(nanoseconds).unwrap_or(0))
    }

    /// Whether the last write is so long ago that every later one leaves another stamp.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let last = self.changed.0.max(self.modified.0);
        u64::try_from(last).is_ok_and(|last| Duration::from_secs(last) + GRANULE < now)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_was_just_written_is_not_settled_and_an_old_one_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, "a").unwrap();
        let stamp = Stamp::new(&fs::metadata(&path).unwrap());
        let now = SystemTime::now();
        assert!(!stamp.is_settled(now));
        assert!(stamp.is_settled(now + 2 * GRANULE));
        // A clock that was set back makes nothing settled that is not.
        assert!(!stamp.is_settled(now - 2 * GRANULE));
    }

    #[test]
    fn a_write_of_the_same_length_leaves_another_stamp() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let stamp = |text| {
            fs::write(&path, text).unwrap();
            Stamp::new(&fs::metadata(&path).unwrap())
        };
        let first = stamp("a");
        std::thread::sleep(Duration::from_millis(20));
        assert_ne!(first, stamp("b"));
    }
}
