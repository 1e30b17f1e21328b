// SPDX-License-Identifier: Apache-2.0
//! Manifest files on disk: what changed since the last scan, and what cannot be read.
//!
//! A scan looks at the whole directory, so that renames, links that move (as those of a mounted ConfigMap)
//! and lost events cannot leave it behind. Whoever is told which files changed has only these looked at,
//! where that is all that there is to see. Names that begin with a dot are left out. A link is followed where
//! it leads to something below the same roots, and refused where it does not. What cannot be read keeps the text
//! that it had, and is a [`Fault`] until it can be read again; everything else goes on. The crate knows nothing of
//! YAML, and keeps no text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    time::SystemTime,
};

mod bounds;
mod look;
mod read;
mod stamp;
mod walk;

use bounds::Bounds;
use stamp::Stamp;
pub use walk::is_manifest;

/// The largest file that is read, in bytes: etcd holds no object above 1.5 MiB, and this is ten of them.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

/// The most files and directories that are looked at: four times those of 50,000 objects in a file each.
pub(crate) const MAX_ENTRIES: usize = 200_000;

/// Why something on disk is not read as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file or directory.
    pub path: PathBuf,
    /// The line, from 1; 0 where the whole is meant.
    pub line: u32,
    /// Why, and what to do.
    pub reason: String,
    /// Whether nobody knows what is there now; where it is false, the same is read under another name.
    pub hides: bool,
}

impl Fault {
    fn new(path: &Path, line: u32, reason: impl fmt::Display) -> Fault {
        Fault { path: path.to_owned(), line, reason: reason.to_string(), hides: true }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        write!(f, " {}", self.reason)
    }
}

impl std::error::Error for Fault {}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Files that are new or have another text, by name.
    pub changed: Vec<(String, String)>,
    /// Files that are gone.
    pub removed: Vec<String>,
    /// Everything that cannot be read now; the texts of before stay.
    pub faults: Vec<Fault>,
}

impl Scan {
    /// Whether the texts are those of the scan before.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// The files below some directories, and some files.
#[derive(Debug)]
pub struct Manifests {
    roots: Vec<PathBuf>,
    files: BTreeMap<String, Known>,
    faults: BTreeSet<Fault>,
    /// When something was changed last, of all that was seen so far.
    version: u64,
    /// Whether the last scan came across a link: then a file may be read under another name as well.
    links: bool,
    /// Outside of which nothing is read.
    bounds: Bounds,
    /// Keyed by chance, so that nobody can write two texts of one digest.
    digests: RandomState,
}

/// What a file looked like when it was read.
#[derive(Debug)]
struct Known {
    /// Tells its text from another.
    digest: u64,
    /// Nothing where the file may be written again without looking different.
    stamp: Option<Stamp>,
}

impl Manifests {
    /// Nothing is read yet. A root that is a file is read whatever its name; below a directory every
    /// `.yaml` and `.yml` file is.
    pub fn new(roots: impl IntoIterator<Item = PathBuf>) -> Manifests {
        Manifests {
            roots: roots.into_iter().collect(),
            files: BTreeMap::new(),
            faults: BTreeSet::new(),
            version: 0,
            links: false,
            bounds: Bounds::default(),
            digests: RandomState::new(),
        }
    }

    /// How many files were read.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether no file was read.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What is known up to: when the last of all files and directories that were looked at was changed, in
    /// nanoseconds since 1970. That is the kernel's `ctime`, which nobody can set back, and a removal changes
    /// the directory. It only grows, and is never newer than what was read.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Looks at everything, and tells what is different from what was read before. Blocks on the disk.
    pub fn scan(&mut self) -> Scan {
        self.bounds = Bounds::of(&self.roots);
        let found = walk::walk(&self.roots, &self.bounds, MAX_ENTRIES, |below| self.has_below(below));
        let mut scan = Scan::default();
        let now = SystemTime::now();
        self.links = found.links;
        self.version = self.version.max(found.changed);
        self.faults = found.faults.into_iter().collect();
        let mut names = BTreeSet::new();
        for (path, stamp) in &found.files {
            let Some(name) = path.to_str() else { continue };
            names.insert(name);
            self.read(name, *stamp, now, &mut scan);
        }
        let stays = |name: &str| {
            names.contains(name) || found.unknown.iter().any(|place| Path::new(name).starts_with(place))
        };
        scan.removed = self.files.keys().filter(|name| !stays(name)).cloned().collect();
        for name in &scan.removed {
            self.files.remove(name);
        }
        scan.faults = self.faults.iter().cloned().collect();
        scan
    }

    /// Reads a file, unless it looks as it did when it was read last.
    fn read(&mut self, name: &str, stamp: Stamp, now: SystemTime, scan: &mut Scan) {
        let known = self.files.get_mut(name);
        if known.as_ref().is_some_and(|known| known.stamp == Some(stamp)) {
            return;
        }
        // Whoever writes while it is read leaves another stamp than that of before the reading.
        let stamp = stamp.is_settled(now).then_some(stamp);
        match read::read(Path::new(name), &self.bounds) {
            Ok(Some(text)) => {
                let digest = self.digests.hash_one(&text);
                match known {
                    Some(known) if known.digest == digest => known.stamp = stamp,
                    Some(_) | None => {
                        self.files.insert(name.to_owned(), Known { digest, stamp });
                        scan.changed.push((name.to_owned(), text));
                    }
                }
            }
            // Gone since it was listed: the scan that follows that event says so.
            Ok(None) => {}
            Err(fault) => drop(self.faults.insert(fault)),
        }
    }

    /// Whether a file was read at a path, or below it.
    fn has_below(&self, path: &Path) -> bool {
        let Some(name) = path.to_str() else { return false };
        // Names below the path follow it, and so do some that only begin as it does.
        let mut from = self.files.range(name.to_owned()..).map(|(name, _)| name);
        from.by_ref()
            .take_while(|found| found.starts_with(name))
            .any(|found| Path::new(found).starts_with(path))
    }
}

#[cfg(test)]
mod tests;
