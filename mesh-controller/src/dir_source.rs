// SPDX-License-Identifier: Apache-2.0
//! Notices what may have changed in a directory of manifests.
//!
//! A change is told a few milliseconds after the last of those that come together: what is being written is
//! waited for, and so is what follows at once. Now and then the whole directory is to be looked at, so that
//! lost events cannot leave it behind. Links are not watched: what is behind one is seen then. The directory
//! itself may be deleted, renamed or be a link that is swapped: its parent is watched too, and what has its
//! name then is followed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, mem,
    os::unix::fs::MetadataExt,
    path::{self, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{
    Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use weft_manifests::is_manifest;

/// How long nothing must change before a change is told, at least: events of one rename or of files that
/// are written one after the other come within less.
const QUIET: Duration = Duration::from_millis(3);
/// How long nothing must change while a file is being written, and at most otherwise.
const LONG_QUIET: Duration = Duration::from_millis(100);
/// How long changes that keep coming can put one off.
const LONGEST: Duration = Duration::from_millis(250);
/// How long files that are being written can put off a change.
const LONGEST_WRITING: Duration = Duration::from_secs(2);
/// When everything is looked at all the same, at the soonest: links may point to where no event comes from.
pub(crate) const RESCAN: Duration = Duration::from_secs(5);
/// Looking at everything takes at most this part of the time.
const RESCAN_SHARE: u32 = 200;
/// With more changes than this, everything is looked at.
const MAX_PATHS: usize = 4_096;

/// The directory cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {path}: {hint}", hint = hint(.source))]
pub struct WatchError {
    /// The path.
    path: PathBuf,
    /// Why.
    source: notify::Error,
}

fn hint(error: &notify::Error) -> String {
    match &error.kind {
        notify::ErrorKind::PathNotFound => {
            "it does not exist: create it, or name another with --source".into()
        }
        notify::ErrorKind::MaxFilesWatch => {
            "the kernel has no watches left: raise fs.inotify.max_user_watches".into()
        }
        notify::ErrorKind::Io(error) => error.to_string(),
        _ => error.to_string(),
    }
}

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Anything may have changed.
    Everything,
    /// These may have changed, have come or are gone.
    Paths(BTreeSet<PathBuf>),
}

/// Tells what may have changed in a directory.
#[derive(Debug)]
pub(crate) struct DirWatch {
    seen: Arc<Mutex<Seen>>,
    wake: Arc<Notify>,
    /// When the last change was told, and whether it was everything.
    told: Option<(Instant, bool)>,
    /// How long nothing must change now: as long as the last change took, so that one that comes meanwhile
    /// with others does not come alone.
    quiet: Duration,
    rescan: Instant,
    root: PathBuf,
    /// What is watched: the directory, or that to which it is a link.
    target: Arc<Mutex<PathBuf>>,
    /// Device and inode of the directory that is watched; nothing where it is gone.
    watched: Option<(u64, u64)>,
    watcher: RecommendedWatcher,
}

/// The events since the last change was told.
#[derive(Debug, Default)]
struct Seen {
    /// Whether each is being written.
    paths: BTreeMap<PathBuf, bool>,
    everything: bool,
    /// Another directory may have the name of the one that is watched.
    moved: bool,
    /// The first and the last event.
    times: Option<(Instant, Instant)>,
}

impl DirWatch {
    /// Starts to watch.
    ///
    /// # Errors
    /// When the directory does not exist, may not be read, or the kernel has no watches left.
    pub(crate) fn start(root: &Path) -> Result<DirWatch, WatchError> {
        let failed = |source| WatchError { path: root.to_owned(), source };
        // As the events name it.
        let root_there = path::absolute(root).map_err(|error| failed(error.into()))?;
        let root_path = root_there.clone();
        let (seen, wake) = (Arc::new(Mutex::new(Seen::default())), Arc::new(Notify::new()));
        let (seen_there, wake_there) = (seen.clone(), wake.clone());
        let target = Arc::new(Mutex::new(target(root_path.clone())));
        let target_there = target.clone();
        let notice = move |mut event: notify::Result<Event>| {
            if let Ok(event) = &mut event {
                let target = target_there.lock().unwrap_or_else(PoisonError::into_inner);
                event.paths.iter_mut().for_each(|path| rename(path, &target, &root_there));
            }
            if seen_there.lock().unwrap_or_else(PoisonError::into_inner).add(
                event,
                &root_there,
                Instant::now(),
            ) {
                wake_there.notify_one();
            }
        };
        // Links in a circle would be watched over and over.
        let config = Config::default().with_follow_symlinks(false);
        let mut watcher = RecommendedWatcher::new(notice, config).map_err(failed)?;
        if let Some(parent) = root_path.parent()
            && let Err(error) = watcher.watch(parent, RecursiveMode::NonRecursive)
        {
            tracing::debug!(%error, "a source that is replaced is noticed late: its parent cannot be watched");
        }
        let watched = identity(&root_path);
        let path = target.lock().unwrap_or_else(PoisonError::into_inner).clone();
        watcher.watch(&path, RecursiveMode::Recursive).map_err(failed)?;
        let rescan = Instant::now() + RESCAN;
        Ok(DirWatch {
            seen,
            wake,
            told: None,
            quiet: QUIET,
            rescan,
            root: root_path,
            target,
            watched,
            watcher,
        })
    }

    /// Watches what has the name of the directory now.
    fn follow(&mut self) {
        let target = target(self.root.clone());
        let old =
            mem::replace(&mut *self.target.lock().unwrap_or_else(PoisonError::into_inner), target.clone());
        // Whatever was watched may be gone, and its watch with it.
        drop(self.watcher.unwatch(&old));
        self.watched = identity(&target);
        if self.watched.is_some()
            && let Err(error) = self.watcher.watch(&target, RecursiveMode::Recursive)
        {
            // Tried again when everything is looked at.
            tracing::warn!(%error, "the source cannot be followed");
            self.watched = None;
        }
        self.lock(|seen| {
            seen.everything = true;
            seen.at(Instant::now());
        });
    }

    /// Waits until the directory may have changed and is quiet again. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Changed {
        if let Some((told, everything)) = self.told.take() {
            let took = told.elapsed();
            self.quiet = took.clamp(QUIET, LONG_QUIET);
            if everything {
                self.rescan = Instant::now() + RESCAN.max(took * RESCAN_SHARE);
            }
        }
        loop {
            if self.lock(|seen| mem::take(&mut seen.moved)) {
                self.follow();
            }
            let due = self.lock(|seen| seen.due(self.quiet)).unwrap_or(self.rescan);
            tokio::select! {
                () = self.wake.notified() => {}
                // An event may have put it off since.
                () = sleep_until(due) => {
                    let now = Instant::now();
                    if now >= self.rescan {
                        if identity(&self.root) != self.watched {
                            self.follow();
                        }
                        self.lock(mem::take);
                        return self.tell(Changed::Everything);
                    }
                    if self.lock(|seen| seen.due(self.quiet)).is_some_and(|due| now >= due) {
                        let seen = self.lock(mem::take);
                        return self.tell(seen.changed());
                    }
                }
            }
        }
    }

    fn tell(&mut self, changed: Changed) -> Changed {
        self.told = Some((Instant::now(), changed == Changed::Everything));
        changed
    }

    fn lock<T>(&self, work: impl FnOnce(&mut Seen) -> T) -> T {
        work(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Seen {
    /// Takes an event, and tells whether something may have changed.
    fn add(&mut self, event: notify::Result<Event>, root: &Path, now: Instant) -> bool {
        let Ok(event) = event else {
            self.everything = true;
            self.at(now);
            return true;
        };
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        // The scan itself opens and reads; only what may have changed something counts.
        if event.kind.is_access() && event.kind != closed {
            return false;
        }
        let others = !event.paths.is_empty() && event.paths.iter().all(|path| !path.starts_with(root));
        if others && !event.need_rescan() {
            // Of the parent, which is watched for one name only.
            return false;
        }
        let names = event.kind.is_create()
            || event.kind.is_remove()
            || matches!(event.kind, EventKind::Modify(ModifyKind::Name(_)));
        self.moved |= names && event.paths.iter().any(|path| path == root);
        self.everything |= event.need_rescan() || event.paths.is_empty();
        let writing = matches!(
            event.kind,
            EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_))
        );
        for path in event.paths {
            let writing = writing && is_manifest(&path);
            self.paths.insert(path, writing);
        }
        if self.paths.len() > MAX_PATHS {
            self.everything = true;
            self.paths.clear();
        }
        self.at(now);
        true
    }

    fn at(&mut self, now: Instant) {
        self.times = Some((self.times.map_or(now, |(first, _)| first), now));
    }

    /// When it is to be told; nothing where there is nothing to tell.
    fn due(&self, quiet: Duration) -> Option<Instant> {
        let (first, last) = self.times?;
        let (quiet, longest) = match self.everything || self.paths.values().any(|writing| *writing) {
            true => (LONG_QUIET, LONGEST_WRITING),
            false => (quiet, LONGEST),
        };
        Some((first + longest).min(last + quiet))
    }

    fn changed(self) -> Changed {
        match self.everything {
            true => Changed::Everything,
            false => Changed::Paths(self.paths.into_keys().collect()),
        }
    }
}

/// What is to be watched for this directory. A link is not followed by a watch.
fn target(root: PathBuf) -> PathBuf {
    match root.is_symlink() {
        true => root.canonicalize().unwrap_or(root),
        false => root,
    }
}

/// Names a path below the target as it is below the directory.
fn rename(path: &mut PathBuf, target: &Path, root: &Path) {
    if let Ok(below) = path.strip_prefix(target) {
        *path = if below.as_os_str().is_empty() { root.to_owned() } else { root.join(below) };
    }
}

/// Device and inode of what is there, links followed.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write, os::unix::fs::symlink};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_change_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = DirWatch::start(directory.path()).unwrap();
        fs::write(directory.path().join("a.yaml"), "a").unwrap();
        timeout(RESCAN / 2, watch.changed()).await.expect("an event, not the rescan");
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_again_and_again_loses_no_event() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = DirWatch::start(directory.path()).unwrap();
        fs::write(directory.path().join("a.yaml"), "a").unwrap();
        let noticed = async { while timeout(QUIET / 3, watch.changed()).await.is_err() {} };
        timeout(RESCAN / 2, noticed).await.expect("as when acknowledgements come all the time");
    }

    #[tokio::test]
    async fn a_file_that_is_being_written_is_waited_for_and_one_that_is_whole_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = DirWatch::start(directory.path()).unwrap();
        let path = directory.path().join("a.yaml");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"a").unwrap();
        let writing = Instant::now();
        let changed = timeout(RESCAN / 2, watch.changed()).await.unwrap();
        assert!(writing.elapsed() >= LONG_QUIET);
        assert_eq!(changed, Changed::Paths([path.clone()].into()));
        file.write_all(b"b").unwrap();
        drop(file);
        let told = Instant::now();
        timeout(RESCAN / 2, watch.changed()).await.unwrap();
        assert!(told.elapsed() < LONG_QUIET, "{:?}", told.elapsed());
    }

    fn event(kind: EventKind, path: &str) -> notify::Result<Event> {
        Ok(Event::new(kind).add_path(path.into()))
    }

    #[test]
    fn changes_that_keep_coming_put_one_off_for_a_bounded_time() {
        let (start, mut seen) = (Instant::now(), Seen::default());
        assert_eq!(seen.due(QUIET), None);
        let moved = EventKind::Modify(ModifyKind::Any);
        let mut now = start;
        while now < start + LONGEST {
            seen.add(event(moved, "/s/a.yaml"), Path::new("/s"), now);
            assert!(seen.due(QUIET) <= Some(start + LONGEST));
            now += QUIET / 2;
        }
        let data = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        seen.add(event(data, "/s/b.log"), Path::new("/s"), now);
        assert_eq!(seen.due(QUIET), Some(start + LONGEST), "what is no manifest keeps nobody waiting");
        seen.add(event(data, "/s/b.yaml"), Path::new("/s"), now);
        assert_eq!(seen.due(QUIET), Some(now + LONG_QUIET));
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        seen.add(event(closed, "/s/b.yaml"), Path::new("/s"), now);
        assert_eq!(seen.due(QUIET), Some(start + LONGEST));
    }

    #[test]
    fn too_many_changes_and_lost_events_are_everything() {
        let mut seen = Seen::default();
        for number in 0..=MAX_PATHS {
            assert!(!seen.everything);
            seen.add(event(EventKind::Any, &format!("/s/{number}")), Path::new("/s"), Instant::now());
        }
        assert_eq!(seen.changed(), Changed::Everything);
        let mut seen = Seen::default();
        seen.add(
            Ok(Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan)),
            Path::new("/s"),
            Instant::now(),
        );
        assert_eq!(seen.changed(), Changed::Everything);
    }

    /// What happens to the directory is noticed, and so is what happens in it afterwards.
    async fn is_followed(watch: &mut DirWatch, source: &Path) {
        for name in ["c.yaml", "d.yaml"] {
            timeout(RESCAN / 2, watch.changed()).await.expect("an event, not the rescan");
            while timeout(LONG_QUIET * 2, watch.changed()).await.is_ok() {}
            fs::write(source.join(name), "c").unwrap();
        }
        timeout(RESCAN / 2, watch.changed()).await.expect("an event, not the rescan");
    }

    #[tokio::test]
    async fn a_source_that_is_deleted_and_made_again_is_followed_at_once() {
        let home = tempfile::tempdir().unwrap();
        let source = home.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("a.yaml"), "a").unwrap();
        let mut watch = DirWatch::start(&source).unwrap();
        fs::remove_dir_all(&source).unwrap();
        timeout(RESCAN / 2, watch.changed()).await.expect("an event, not the rescan");
        while timeout(LONG_QUIET * 2, watch.changed()).await.is_ok() {}
        fs::create_dir(&source).unwrap();
        is_followed(&mut watch, &source).await;
    }

    #[tokio::test]
    async fn a_source_that_is_renamed_away_and_replaced_is_followed_at_once() {
        let home = tempfile::tempdir().unwrap();
        let [source, next, old] = ["source", "next", "old"].map(|name| home.path().join(name));
        for directory in [&source, &next] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("a.yaml"), "a").unwrap();
        }
        let mut watch = DirWatch::start(&source).unwrap();
        fs::rename(&source, &old).unwrap();
        fs::rename(&next, &source).unwrap();
        is_followed(&mut watch, &source).await;
        while timeout(LONG_QUIET * 2, watch.changed()).await.is_ok() {}
        fs::write(old.join("b.yaml"), "b").unwrap();
        fs::write(home.path().join("other"), "b").unwrap();
        assert!(timeout(LONG_QUIET * 3, watch.changed()).await.is_err(), "the old one is left alone");
    }

    #[tokio::test]
    async fn a_link_to_the_source_that_is_swapped_is_followed_at_once() {
        let home = tempfile::tempdir().unwrap();
        let [source, one, two, new] = ["source", "one", "two", "new"].map(|name| home.path().join(name));
        for directory in [&one, &two] {
            fs::create_dir(directory).unwrap();
        }
        symlink(&one, &source).unwrap();
        let mut watch = DirWatch::start(&source).unwrap();
        symlink(&two, &new).unwrap();
        fs::rename(&new, &source).unwrap();
        is_followed(&mut watch, &two).await;
    }

    /// As kubelet does it: files are links through `..data`, a link that is swapped.
    #[tokio::test]
    async fn a_config_map_that_is_swapped_is_noticed_at_once() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("a.yaml"), version).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/a.yaml", at("a.yaml")).unwrap();
        let mut watch = DirWatch::start(home.path()).unwrap();
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        timeout(RESCAN / 2, watch.changed()).await.expect("an event, not the rescan");
    }

    #[tokio::test]
    async fn links_in_a_circle_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        // Followed, these are two to the power of twenty directories.
        for depth in 0..20 {
            let (here, next) = (directory.path().join(depth.to_string()), format!("../{}", depth + 1));
            fs::create_dir(&here).unwrap();
            symlink(&next, here.join("a")).unwrap();
            symlink(&next, here.join("b")).unwrap();
        }
        let mut watch = DirWatch::start(directory.path()).unwrap();
        fs::write(directory.path().join("a.yaml"), "a").unwrap();
        timeout(RESCAN / 2, watch.changed()).await.expect("an event, not the rescan");
    }

    #[test]
    fn a_directory_that_is_not_there_is_named_with_what_to_do() {
        let error = DirWatch::start(Path::new("/nowhere/at-all")).unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot watch /nowhere/at-all: it does not exist: create it, or name another with --source"
        );
    }
}
