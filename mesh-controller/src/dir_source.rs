// SPDX-License-Identifier: Apache-2.0
//! A directory of manifests as the source of objects.
//!
//! Every change leads to a scan of the whole directory, so that renames, links that move (as those of
//! a mounted ConfigMap) and lost events cannot leave it behind. Names that begin with a dot are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::timeout,
};

/// How long nothing must change before a scan, so that a file is not read while it is written.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How long a stream of changes can put off a scan.
const LONGEST_DEBOUNCE: Duration = Duration::from_secs(2);
/// When a scan happens all the same: links may point to where no event comes from.
const RESCAN: Duration = Duration::from_secs(5);
/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;
/// How deep directories may be nested.
const MAX_DEPTH: usize = 32;

/// A file or directory could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file or directory could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is larger than any manifest.
    #[error("{path} is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge {
        /// The path.
        path: PathBuf,
    },
    /// The directory cannot be watched.
    #[error("cannot watch {path}")]
    Watch {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: notify::Error,
    },
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Files that are new or have another text.
    pub changed: Vec<(String, String)>,
    /// Files that are gone.
    pub removed: Vec<String>,
    /// What could not be read; the texts of before stay.
    pub errors: Vec<SourceError>,
}

impl Scan {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

/// The texts of a directory.
#[derive(Debug)]
pub struct DirSource {
    root: PathBuf,
    texts: BTreeMap<String, String>,
}

impl DirSource {
    /// A source that has read nothing yet.
    pub fn new(root: PathBuf) -> DirSource {
        DirSource { root, texts: BTreeMap::new() }
    }

    /// Reads the directory, and tells what is different from the scan before. Blocks on the disk.
    pub fn scan(&mut self) -> Scan {
        let mut scan = Scan::default();
        let mut files = BTreeSet::new();
        let mut complete = true;
        list(&self.root, 0, &mut files, &mut |error| {
            complete = false;
            scan.errors.push(error);
        });
        for path in &files {
            let name = path.display().to_string();
            match read(path) {
                Ok(Some(text)) => {
                    if self.texts.get(&name) != Some(&text) {
                        scan.changed.push((name.clone(), text.clone()));
                        self.texts.insert(name, text);
                    }
                }
                // Gone since it was listed: the scan that follows that event says so.
                Ok(None) => {}
                Err(error) => scan.errors.push(error),
            }
        }
        if complete {
            let listed: BTreeSet<String> = files.iter().map(|path| path.display().to_string()).collect();
            scan.removed = self.texts.keys().filter(|name| !listed.contains(*name)).cloned().collect();
            self.texts.retain(|name, _| listed.contains(name));
        }
        scan
    }
}

/// Collects the manifests below a directory.
fn list(directory: &Path, depth: usize, files: &mut BTreeSet<PathBuf>, fail: &mut impl FnMut(SourceError)) {
    let error = |source| SourceError::Read { path: directory.to_owned(), source };
    if depth > MAX_DEPTH {
        return fail(error(io::Error::other("directories are nested too deeply")));
    }
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(source) => return fail(error(source)),
    };
    for entry in entries {
        let path = match entry {
            Ok(entry) => entry.path(),
            Err(source) => {
                fail(error(source));
                continue;
            }
        };
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        let manifest = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => list(&path, depth + 1, files, fail),
            Ok(found) if found.is_file() && manifest => {
                files.insert(path);
            }
            Ok(_) => {}
            Err(source) if source.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {}
            Err(source) if manifest => fail(SourceError::Read { path, source }),
            Err(_) => {}
        }
    }
}

/// The text of a file; nothing where it is gone.
fn read(path: &Path) -> Result<Option<String>, SourceError> {
    let error = |source| SourceError::Read { path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(found) if found.len() > MAX_FILE_BYTES => Err(SourceError::TooLarge { path: path.to_owned() }),
        Ok(_) => match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(error(source)),
        },
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(error(source)),
    }
}

/// Tells when the directory may have changed.
#[derive(Debug)]
pub struct DirWatch {
    events: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

impl DirWatch {
    /// Starts to watch.
    ///
    /// # Errors
    /// When the directory does not exist or the kernel has no watches left.
    pub fn start(root: &Path) -> Result<DirWatch, SourceError> {
        let failed = |source| SourceError::Watch { path: root.to_owned(), source };
        // One event is as good as many: a full channel already means that something changed.
        let (sender, events) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // The scan itself opens and reads; only what may have changed something counts.
            let reading = event.is_ok_and(|event| {
                let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
                event.kind.is_access() && event.kind != closed
            });
            if !reading && let Err(TrySendError::Closed(())) = sender.try_send(()) {
                tracing::debug!("nobody watches the source any more");
            }
        })
        .map_err(failed)?;
        watcher.watch(root, RecursiveMode::Recursive).map_err(failed)?;
        Ok(DirWatch { events, _watcher: watcher })
    }

    /// Waits until the directory may have changed and is quiet again. Cancel safe: an event that is
    /// lost is made good by the next scan.
    pub async fn changed(&mut self) {
        if timeout(RESCAN, self.events.recv()).await.is_err() {
            return;
        }
        let quiet = async { while let Ok(Some(())) = timeout(DEBOUNCE, self.events.recv()).await {} };
        drop(timeout(LONGEST_DEBOUNCE, quiet).await);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(scan: &Scan, root: &Path) -> Vec<String> {
        let root = format!("{}/", root.display());
        scan.changed.iter().map(|(name, _)| name.replace(&root, "")).collect()
    }

    #[test]
    fn a_scan_tells_what_is_different() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir(root.join("sub")).unwrap();
        fs::write(root.join("a.yaml"), "a").unwrap();
        fs::write(root.join("sub/b.yml"), "b").unwrap();
        fs::write(root.join("README.md"), "no").unwrap();
        fs::write(root.join(".hidden.yaml"), "no").unwrap();
        let mut source = DirSource::new(root.to_owned());
        assert_eq!(names(&source.scan(), root), ["a.yaml", "sub/b.yml"]);
        assert!(source.scan().is_empty());
        fs::write(root.join("new"), "a2").unwrap();
        fs::rename(root.join("new"), root.join("a.yaml")).unwrap();
        fs::remove_file(root.join("sub/b.yml")).unwrap();
        let scan = source.scan();
        assert_eq!(names(&scan, root), ["a.yaml"]);
        assert_eq!(scan.removed.len(), 1);
    }

    #[test]
    fn links_as_a_config_map_has_them_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for version in ["..1", "..2"] {
            fs::create_dir(root.join(version)).unwrap();
            fs::write(root.join(version).join("a.yaml"), version).unwrap();
        }
        symlink("..1", root.join("..data")).unwrap();
        symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
        let mut source = DirSource::new(root.to_owned());
        assert_eq!(source.scan().changed[0].1, "..1");
        symlink("..2", root.join("..new")).unwrap();
        fs::rename(root.join("..new"), root.join("..data")).unwrap();
        assert_eq!(source.scan().changed[0].1, "..2");
    }

    #[test]
    fn what_cannot_be_read_is_named_and_keeps_its_text() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::write(root.join("a.yaml"), "a").unwrap();
        let mut source = DirSource::new(root.to_owned());
        source.scan();
        fs::write(root.join("a.yaml"), [0xff, 0xfe]).unwrap();
        let scan = source.scan();
        assert!(scan.is_empty());
        assert!(scan.errors[0].to_string().ends_with("a.yaml"), "{:?}", scan.errors);
        fs::rename(root, root.with_extension("away")).unwrap();
        let scan = source.scan();
        assert!(scan.is_empty() && scan.errors.len() == 1);
        fs::rename(root.with_extension("away"), root).unwrap();
    }

    #[tokio::test]
    async fn a_change_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = DirWatch::start(directory.path()).unwrap();
        fs::write(directory.path().join("a.yaml"), "a").unwrap();
        timeout(RESCAN / 2, watch.changed()).await.expect("an event, not the rescan");
    }
}
