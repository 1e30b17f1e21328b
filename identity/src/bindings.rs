// SPDX-License-Identifier: Apache-2.0
//! Which key has which name, in memory and in one file for each name.
//!
//! While the controller runs, memory is what holds: a file that is gone is written again, unless somebody
//! has said in `.forgotten/` that the name is free. A file that cannot be read closes its name, and no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File},
    io,
    net::IpAddr,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    NodeName,
    peer::KeyHash,
    secret::{self, FileError},
};

/// Held by whoever changes files; none of the names, since it begins with a dot.
const LOCK: &str = ".lock";

/// The names that an operator has made free, until the controller has noticed. A directory, since a name
/// may be as long as the name of a file can be.
const FORGOTTEN: &str = ".forgotten";

/// A name belongs to this key until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) key: KeyHash,
    pub(crate) expires: SystemTime,
    /// The network that the name was first asked for from.
    pub(crate) from: IpAddr,
}

/// What is known about a name that is not free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    To(Binding),
    /// To a key that nobody can tell, for this reason.
    Unreadable(Arc<str>),
}

/// Why files cannot be used.
#[derive(Default)]
struct Trouble {
    looking: Option<String>,
    writing: Option<String>,
}

/// The names that are not free.
pub(crate) struct Bindings {
    directory: PathBuf,
    /// Held by whoever changes a file, here or in another process.
    lock: Mutex<File>,
    names: RwLock<BTreeMap<NodeName, Bound>>,
    rewritten: AtomicU64,
    /// Why the last look failed, and why the last write did.
    trouble: Mutex<Trouble>,
}

impl Bindings {
    /// Reads the files of this directory, which is made where it is not there.
    ///
    /// # Errors
    /// When the directory cannot be made or read. A file that cannot be read closes its name only.
    pub(crate) fn open(directory: PathBuf) -> Result<Bindings, FileError> {
        secret::create_directory(&directory)?;
        let lock = Mutex::new(lock_file(&directory)?);
        let (names, rewritten) = (RwLock::default(), AtomicU64::new(0));
        let bindings = Bindings { directory, lock, names, rewritten, trouble: Mutex::default() };
        let changing = bindings.changing()?;
        bindings.take_forgotten()?;
        bindings.load(bindings.files()?);
        drop(changing);
        Ok(bindings)
    }

    /// Makes a name free, whoever has it; false when nobody had. Works beside a running controller.
    ///
    /// # Errors
    /// When a file cannot be written or removed.
    pub(crate) fn forget(directory: &Path, node: &NodeName) -> Result<bool, FileError> {
        if !directory.is_dir() {
            return Ok(false);
        }
        let lock = lock_file(directory)?;
        lock.lock().map_err(FileError::io("lock", directory))?;
        let (file, forgotten) = (path(directory, node), directory.join(FORGOTTEN));
        if fs::symlink_metadata(&file).is_err() {
            return Ok(false);
        }
        secret::create_directory(&forgotten)?;
        secret::write(&path(&forgotten, node), "")?;
        remove(&file)
    }

    /// Nobody else changes files until what is returned is dropped. Where the directory is not the one that
    /// it was, it is made again with what memory holds.
    ///
    /// # Errors
    /// When it cannot be locked or made again.
    pub(crate) fn changing(&self) -> Result<Changing<'_>, FileError> {
        self.looked(self.take())
    }

    fn take(&self) -> Result<Changing<'_>, FileError> {
        let mut file = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_lock_of(&file, &self.directory) {
            secret::create_directory(&self.directory)?;
            let lock = lock_file(&self.directory)?;
            self.rewrite(self.read(|names| names.keys().cloned().collect()))?;
            *file = lock;
        }
        file.lock().map_err(FileError::io("lock", &self.directory))?;
        Ok(Changing(file))
    }

    /// What is known about a name; nothing where it is free.
    pub(crate) fn of(&self, node: &NodeName, now: SystemTime) -> Option<Bound> {
        self.read(|names| names.get(node).cloned()).filter(|bound| !bound.has_expired(now))
    }

    /// The same, for whoever is to change it: also what an operator said a moment ago.
    pub(crate) fn kept(&self, node: &NodeName, now: SystemTime, _changing: &Changing<'_>) -> Option<Bound> {
        let forgotten = path(&self.directory.join(FORGOTTEN), node).exists();
        self.of(node, now).filter(|_| !forgotten)
    }

    /// Binds a name. The file comes first: what a node was told holds after a crash.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn bind(
        &self,
        node: &NodeName,
        binding: Binding,
        _changing: &Changing<'_>,
    ) -> Result<(), FileError> {
        let write = || {
            secret::write(&path(&self.directory, node), &binding.to_string())?;
            remove(&path(&self.directory.join(FORGOTTEN), node))
        };
        let written = write();
        self.trouble().writing = written.as_ref().err().map(FileError::with_cause);
        written?;
        self.write().insert(node.clone(), Bound::To(binding));
        Ok(())
    }

    /// Drops the names that were forgotten or have expired, and makes memory and files agree about the
    /// others. Returns how many names are free now.
    ///
    /// # Errors
    /// When the directory cannot be read, or a file not be written or removed.
    pub(crate) fn sweep(&self, now: SystemTime, _changing: &Changing<'_>) -> Result<usize, FileError> {
        self.looked(self.look(now))
    }

    fn look(&self, now: SystemTime) -> Result<usize, FileError> {
        let forgotten = self.take_forgotten()?;
        let expired = self.names_where(|_, bound| bound.has_expired(now));
        for node in &expired {
            remove(&path(&self.directory, node))?;
            self.write().remove(node);
        }
        let files = self.files()?;
        // Who removes a file that cannot be read makes the name free: there is nothing to write again.
        let removed =
            self.names_where(|node, bound| matches!(bound, Bound::Unreadable(_)) && !files.contains(node));
        removed.iter().for_each(|node| drop(self.write().remove(node)));
        self.rewrite(self.names_where(|node, _| !files.contains(node)))?;
        let known = self.names_where(|_, bound| matches!(bound, Bound::To(_)));
        self.load(files.difference(&known.into_iter().collect()).cloned());
        Ok(forgotten + expired.len() + removed.len())
    }

    /// How many names were written again since the start, because their files were gone.
    pub(crate) fn rewritten(&self) -> u64 {
        self.rewritten.load(Ordering::Relaxed)
    }

    /// Each name whose file cannot be read, with the file and the reason.
    pub(crate) fn unreadable(&self) -> Vec<(NodeName, PathBuf, Arc<str>)> {
        let one = |(node, bound): (&NodeName, &Bound)| match bound {
            Bound::To(_) => None,
            Bound::Unreadable(why) => Some((node.clone(), path(&self.directory, node), why.clone())),
        };
        self.read(|names| names.iter().filter_map(one).collect())
    }

    /// Why the files cannot be read or written; nothing once the next look or write went well.
    pub(crate) fn why_not(&self) -> Option<String> {
        let trouble = self.trouble();
        trouble.looking.clone().or_else(|| trouble.writing.clone())
    }

    fn looked<T>(&self, result: Result<T, FileError>) -> Result<T, FileError> {
        self.trouble().looking = result.as_ref().err().map(FileError::with_cause);
        result
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many names are not free.
    pub(crate) fn len(&self) -> usize {
        self.read(BTreeMap::len)
    }

    /// How many names are bound that were first asked for from this network.
    pub(crate) fn of_network(&self, from: IpAddr, now: SystemTime) -> usize {
        let counts =
            |bound: &&Bound| matches!(bound, Bound::To(one) if one.from == from && one.expires > now);
        self.read(|names| names.values().filter(counts).count())
    }

    /// Drops the names that were forgotten; returns how many were bound.
    fn take_forgotten(&self) -> Result<usize, FileError> {
        let directory = self.directory.join(FORGOTTEN);
        let forgotten =
            listed(&directory).or_else(|error| error.is_not_found().then(BTreeSet::new).ok_or(error))?;
        for node in &forgotten {
            remove(&path(&self.directory, node))?;
            self.write().remove(node);
            remove(&path(&directory, node))?;
        }
        Ok(forgotten.len())
    }

    /// Writes the files of these names as memory has them.
    fn rewrite(&self, nodes: BTreeSet<NodeName>) -> Result<(), FileError> {
        for node in nodes {
            if let Some(Bound::To(binding)) = self.read(|names| names.get(&node).cloned()) {
                secret::write(&path(&self.directory, &node), &binding.to_string())?;
                self.rewritten.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn load(&self, nodes: impl IntoIterator<Item = NodeName>) {
        for node in nodes {
            let bound = match fs::read(path(&self.directory, &node)) {
                Ok(bytes) => Binding::parse(&bytes).map_or_else(
                    || Bound::Unreadable("it is not what the controller wrote".into()),
                    Bound::To,
                ),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => Bound::Unreadable(error.to_string().into()),
            };
            self.write().insert(node, bound);
        }
    }

    fn files(&self) -> Result<BTreeSet<NodeName>, FileError> {
        listed(&self.directory)
    }

    fn names_where(&self, holds: impl Fn(&NodeName, &Bound) -> bool) -> BTreeSet<NodeName> {
        let found = |(node, bound): (&NodeName, &Bound)| holds(node, bound).then(|| node.clone());
        self.read(|names| names.iter().filter_map(found).collect())
    }

    fn read<T>(&self, of: impl FnOnce(&BTreeMap<NodeName, Bound>) -> T) -> T {
        of(&self.names.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<NodeName, Bound>> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn set(&self, names: BTreeMap<NodeName, Bound>) {
        *self.write() = names;
    }
}

impl fmt::Debug for Bindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bindings").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// The right to change files; gives it back when it is dropped.
pub(crate) struct Changing<'a>(MutexGuard<'a, File>);

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        // Closing the file would do it as well; nothing is lost when it fails.
        drop(self.0.unlock());
    }
}

impl Bound {
    fn has_expired(&self, now: SystemTime) -> bool {
        matches!(self, Bound::To(binding) if binding.expires <= now)
    }
}

impl Binding {
    fn parse(bytes: &[u8]) -> Option<Binding> {
        let mut fields = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.split(' ');
        let (key, expires, from) = (fields.next()?, fields.next()?, fields.next()?);
        let key = KeyHash(URL_SAFE_NO_PAD.decode(key).ok()?.try_into().ok()?);
        let expires = UNIX_EPOCH.checked_add(Duration::from_secs(expires.parse().ok()?))?;
        Some(Binding { key, expires, from: from.parse().ok()? })
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expires = self.expires.duration_since(UNIX_EPOCH).unwrap_or_default();
        writeln!(f, "{} {} {}", URL_SAFE_NO_PAD.encode(self.key.0), expires.as_secs(), self.from)
    }
}

fn path(directory: &Path, node: &NodeName) -> PathBuf {
    directory.join(&**node.shared())
}

/// The names that have an entry in a directory.
fn listed(directory: &Path) -> Result<BTreeSet<NodeName>, FileError> {
    let entries = fs::read_dir(directory).map_err(FileError::io("read", directory))?;
    let mut names = BTreeSet::new();
    for entry in entries {
        let name = entry.map_err(FileError::io("read", directory))?.file_name();
        // What begins with a dot, and what an editor or a copy left beside a file, names no node.
        names.extend(name.to_str().and_then(|name| name.parse().ok()));
    }
    Ok(names)
}

fn lock_file(directory: &Path) -> Result<File, FileError> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(directory.join(LOCK)).map_err(FileError::io("open", directory))
}

/// Whether the directory is still the one that this file was opened in.
fn is_lock_of(file: &File, directory: &Path) -> bool {
    match (file.metadata(), fs::metadata(directory.join(LOCK))) {
        (Ok(own), Ok(there)) => (own.dev(), own.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Whether there was something to remove.
fn remove(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FileError::io("remove", path)(error)),
    }
}
