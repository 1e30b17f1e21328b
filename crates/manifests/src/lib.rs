// SPDX-License-Identifier: Apache-2.0
//! Manifest files on disk: what changed since the last scan, and what cannot be read.
//!
//! Every scan looks at the whole directory, so that renames, links that move (as those of a mounted
//! ConfigMap) and lost events cannot leave it behind. Names that begin with a dot are left out. What
//! cannot be read keeps the text that it had, and is a [`Fault`] until it can be read again; everything
//! else goes on. The crate knows nothing of YAML.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    time::SystemTime,
};

mod read;
mod stamp;
mod walk;

use stamp::Stamp;

/// The largest file that is read, in bytes: etcd holds no object above 1.5 MiB, and this is ten of them.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

/// The most files and directories that are looked at: four times those of 50,000 objects in a file each.
pub const MAX_ENTRIES: usize = 200_000;

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

/// The texts below some directories, and of some files.
#[derive(Debug)]
pub struct Manifests {
    roots: Vec<PathBuf>,
    texts: BTreeMap<String, Known>,
}

/// A text, and what its file looked like when it was read.
#[derive(Debug)]
struct Known {
    text: String,
    /// Nothing where the file may be written again without looking different.
    stamp: Option<Stamp>,
}

impl Manifests {
    /// Nothing is read yet. A root that is a file is read whatever its name; below a directory every
    /// `.yaml` and `.yml` file is.
    pub fn new(roots: impl IntoIterator<Item = PathBuf>) -> Manifests {
        Manifests { roots: roots.into_iter().collect(), texts: BTreeMap::new() }
    }

    /// How many files have a text.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether no file has a text.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Looks at everything, and tells what is different from the scan before. Blocks on the disk.
    pub fn scan(&mut self) -> Scan {
        let found = walk::walk(&self.roots, |below| self.has_below(below));
        let mut scan = Scan { faults: found.faults, ..Scan::default() };
        let now = SystemTime::now();
        let mut names = BTreeSet::new();
        for (path, stamp) in &found.files {
            let Some(name) = path.to_str() else { continue };
            names.insert(name);
            let known = self.texts.get_mut(name);
            if known.as_ref().is_some_and(|known| known.stamp.as_ref() == Some(stamp)) {
                continue;
            }
            // Whoever writes while it is read leaves another stamp than that of before the reading.
            let stamp = stamp.is_settled(now).then_some(*stamp);
            match (read::read(path), known) {
                (Ok(Some(text)), Some(known)) if known.text == text => known.stamp = stamp,
                (Ok(Some(text)), _) => {
                    scan.changed.push((name.to_owned(), text.clone()));
                    self.texts.insert(name.to_owned(), Known { text, stamp });
                }
                // Gone since it was listed: the scan that follows that event says so.
                (Ok(None), _) => {}
                (Err(fault), _) => scan.faults.push(fault),
            }
        }
        let stays = |name: &str| {
            names.contains(name) || found.unknown.iter().any(|place| Path::new(name).starts_with(place))
        };
        scan.removed = self.texts.keys().filter(|name| !stays(name)).cloned().collect();
        for name in &scan.removed {
            self.texts.remove(name);
        }
        scan.faults.sort();
        scan
    }

    /// Whether a text is known of a path, or of something below it.
    fn has_below(&self, path: &Path) -> bool {
        let Some(name) = path.to_str() else { return false };
        // Names below the path follow it, and so do some that only begin as it does.
        let mut from = self.texts.range(name.to_owned()..).map(|(name, _)| name);
        from.by_ref()
            .take_while(|found| found.starts_with(name))
            .any(|found| Path::new(found).starts_with(path))
    }
}

#[cfg(test)]
mod tests;
