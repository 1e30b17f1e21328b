// SPDX-License-Identifier: Apache-2.0
//! Looks at single files, where somebody knows which ones changed.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

use crate::{Manifests, Scan, bounds::Bounds, stamp::Stamp, walk};

/// What is at a path that changed.
enum Place {
    /// A file to be read.
    File(Stamp),
    /// A file that was read is there no more; its directory was changed then.
    Gone(Stamp),
    /// Nothing that is or was read.
    Nothing,
    /// Only a look at everything tells.
    Unclear,
}

impl Manifests {
    /// Looks at what changed, and tells what is different from what was read before: the files of these
    /// names alone, or everything where that does not suffice, as after a directory or a link came or went.
    /// Blocks on the disk.
    pub fn look(&mut self, paths: &BTreeSet<PathBuf>) -> Scan {
        self.bounds = Bounds::of(&self.roots);
        let mut places = Vec::with_capacity(paths.len());
        for path in paths {
            match (path.to_str(), self.place(path)) {
                (Some(_), Place::Nothing) => {}
                (None, _) | (_, Place::Unclear) => return self.scan(),
                (Some(name), place) => places.push((name, place)),
            }
        }
        let mut scan = Scan::default();
        let now = SystemTime::now();
        for (name, place) in places {
            self.faults.retain(|fault| fault.path != Path::new(name));
            match place {
                Place::File(stamp) => {
                    self.version = self.version.max(stamp.changed());
                    self.read(name, stamp, now, &mut scan);
                }
                Place::Gone(directory) => {
                    self.version = self.version.max(directory.changed());
                    self.files.remove(name);
                    scan.removed.push(name.to_owned());
                }
                Place::Nothing | Place::Unclear => {}
            }
        }
        scan.faults = self.faults.iter().cloned().collect();
        scan
    }

    fn place(&self, path: &Path) -> Place {
        let below = self.roots.iter().find_map(|root| path.strip_prefix(root).ok());
        let Some(below) = below.filter(|below| !self.links && !below.as_os_str().is_empty()) else {
            return Place::Unclear;
        };
        if below.components().any(is_hidden) {
            return Place::Nothing;
        }
        let is_known = path.to_str().is_some_and(|name| self.files.contains_key(name));
        let unclear = self.faults.iter().any(|fault| path.starts_with(&fault.path) && path != fault.path);
        match fs::symlink_metadata(path) {
            _ if unclear || (!is_known && self.has_below(path)) => Place::Unclear,
            Ok(found) if found.is_file() && walk::is_manifest(path) => Place::File(Stamp::new(&found)),
            Ok(found) if found.is_file() => Place::Nothing,
            Ok(_) => Place::Unclear,
            Err(error) if error.kind() != io::ErrorKind::NotFound => Place::Unclear,
            Err(_) if is_known => {
                let directory = path.parent().and_then(|parent| fs::metadata(parent).ok());
                directory.map_or(Place::Unclear, |found| Place::Gone(Stamp::new(&found)))
            }
            // A fault of a file that was never read, or of a directory.
            Err(_) if self.faults.iter().any(|fault| fault.path == path) => Place::Unclear,
            Err(_) => Place::Nothing,
        }
    }
}

fn is_hidden(component: Component<'_>) -> bool {
    component.as_os_str().as_encoded_bytes().starts_with(b".")
}
