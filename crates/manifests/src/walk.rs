// SPDX-License-Identifier: Apache-2.0
//! Lists the manifests below directories, each directory once.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{Fault, bounds::Bounds, stamp::Stamp};

/// What is there.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) files: BTreeMap<PathBuf, Stamp>,
    pub(crate) faults: Vec<Fault>,
    /// When the last of all files and directories was changed, as [`Stamp::changed`] has it.
    pub(crate) changed: u64,
    /// Whether there is a link among them.
    pub(crate) links: bool,
    /// Files and directories of which nobody knows what they hold now.
    pub(crate) unknown: Vec<PathBuf>,
}

struct Walk<'a, K> {
    found: Found,
    bounds: &'a Bounds,
    /// Whether something was read there before.
    is_known: K,
    /// Every directory by device and inode, under the name that it was read by.
    seen: BTreeMap<(u64, u64), PathBuf>,
    /// Links to directories wait until all real directories are read: of two names for one directory,
    /// the real one is used, and a link to a parent goes nowhere.
    links: VecDeque<PathBuf>,
    entries: usize,
    most: usize,
}

/// Whether a file of this name is read where its directory is.
pub fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("yaml") || end.eq_ignore_ascii_case("yml"))
}

/// Lists every root, up to this many files and directories. `is_known` tells whether something was read at
/// or below a path before.
pub(crate) fn walk(
    roots: &[PathBuf],
    bounds: &Bounds,
    most: usize,
    is_known: impl Fn(&Path) -> bool,
) -> Found {
    let mut walk = Walk {
        found: Found::default(),
        bounds,
        is_known,
        seen: BTreeMap::new(),
        links: VecDeque::new(),
        entries: 0,
        most,
    };
    for root in roots {
        walk.found.links |= root.is_symlink();
        match fs::metadata(root) {
            Ok(found) if found.is_dir() => walk.tree(root),
            Ok(found) if found.is_file() => walk.file(root.clone(), Stamp::new(&found)),
            Ok(_) => walk.special(root),
            Err(error) => walk.unreadable(root, &error),
        }
    }
    while let Some(link) = walk.links.pop_front() {
        walk.tree(&link);
    }
    if walk.entries > most {
        for root in roots {
            let reason = format!("holds more than {most} files and directories: give a smaller one");
            walk.unknown(root, reason);
        }
    }
    walk.found
}

impl<K: Fn(&Path) -> bool> Walk<'_, K> {
    /// Everything below a directory, but not behind links.
    fn tree(&mut self, root: &Path) {
        let mut open = vec![root.to_owned()];
        while let Some(directory) = open.pop() {
            if let Err(error) = self.directory(&directory, &mut open) {
                self.unreadable(&directory, &error);
            }
        }
    }

    fn directory(&mut self, directory: &Path, open: &mut Vec<PathBuf>) -> io::Result<()> {
        let metadata = fs::metadata(directory)?;
        self.found.changed = self.found.changed.max(Stamp::new(&metadata).changed());
        if let Some(first) = self.seen.get(&(metadata.dev(), metadata.ino())) {
            let reason = format!("is the directory {}, which is read: remove the link", first.display());
            self.found.faults.push(Fault { hides: false, ..Fault::new(directory, 0, reason) });
            return Ok(());
        }
        self.seen.insert((metadata.dev(), metadata.ino()), directory.to_owned());
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory)? {
            self.entries += 1;
            if self.entries > self.most {
                return Ok(());
            }
            let entry = entry?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                paths.push((entry.path(), entry.file_type()?.is_symlink()));
            }
        }
        paths.sort();
        for (path, is_link) in paths {
            self.entry(path, is_link, open);
        }
        Ok(())
    }

    fn entry(&mut self, path: PathBuf, is_link: bool, open: &mut Vec<PathBuf>) {
        let is_manifest = is_manifest(&path);
        self.found.links |= is_link;
        match fs::metadata(&path) {
            Ok(found) if is_link && (found.is_dir() || is_manifest) && !self.bounds.hold(&path) => {
                self.unknown(&path, Bounds::LEFT.to_owned());
            }
            Ok(found) if found.is_dir() && is_link => self.links.push_back(path),
            Ok(found) if found.is_dir() => open.push(path),
            Ok(found) if found.is_file() && is_manifest => self.file(path, Stamp::new(&found)),
            Ok(found) if !found.is_file() && is_manifest => self.special(&path),
            Ok(_) => {}
            // Gone since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_link => {}
            Err(error) if is_manifest || (self.is_known)(&path) => self.unreadable(&path, &error),
            Err(_) => {}
        }
    }

    fn file(&mut self, path: PathBuf, stamp: Stamp) {
        self.found.changed = self.found.changed.max(stamp.changed());
        if path.to_str().is_none() {
            self.unknown(&path, "has a name that is not UTF-8: rename it".to_owned());
        } else {
            self.found.files.insert(path, stamp);
        }
    }

    /// A pipe, socket or device, which might keep a reader waiting for ever.
    fn special(&mut self, path: &Path) {
        self.unknown(path, "is neither a file nor a directory".to_owned());
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        let reason = match error.kind() {
            io::ErrorKind::NotFound if path.is_symlink() => "is a link to nothing".to_owned(),
            _ => format!("cannot be read: {error}"),
        };
        self.unknown(path, reason);
    }

    fn unknown(&mut self, path: &Path, reason: String) {
        self.found.faults.push(Fault::new(path, 0, reason));
        self.found.unknown.push(path.to_owned());
    }
}
