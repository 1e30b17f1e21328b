// SPDX-License-Identifier: Apache-2.0
//! Notices what may have changed in a directory of manifests.
//!
//! A change is told a few milliseconds after the last of those that come together: what is being written is
//! waited for, and so is what follows at once. Now and then the whole directory is to be looked at, so that
//! lost events cannot leave it behind. Links are not watched: what is behind one is seen then.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
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
pub const RESCAN: Duration = Duration::from_secs(5);
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
pub enum Changed {
    /// Anything may have changed.
    Everything,
    /// These may have changed, have come or are gone.
    Paths(BTreeSet<PathBuf>),
}

/// Tells what may have changed in a directory.
#[derive(Debug)]
pub struct DirWatch {
    seen: Arc<Mutex<Seen>>,
    wake: Arc<Notify>,
    /// When the last change was told, and whether it was everything.
    told: Option<(Instant, bool)>,
    /// How long nothing must change now: as long as the last change took, so that one that comes meanwhile
    /// with others does not come alone.
    quiet: Duration,
    rescan: Instant,
    _watcher: RecommendedWatcher,
}

/// The events since the last change was told.
#[derive(Debug, Default)]
struct Seen {
    /// Whether each is being written.
    paths: BTreeMap<PathBuf, bool>,
    everything: bool,
    /// The first and the last event.
    times: Option<(Instant, Instant)>,
}

impl DirWatch {
    /// Starts to watch.
    ///
    /// # Errors
    /// When the directory does not exist, may not be read, or the kernel has no watches left.
    pub fn start(root: &Path) -> Result<DirWatch, WatchError> {
        let failed = |source| WatchError { path: root.to_owned(), source };
        let (seen, wake) = (Arc::new(Mutex::new(Seen::default())), Arc::new(Notify::new()));
        let (seen_there, wake_there) = (seen.clone(), wake.clone());
        let notice = move |event| {
            if seen_there.lock().unwrap_or_else(PoisonError::into_inner).add(event, Instant::now()) {
                wake_there.notify_one();
            }
        };
        // Links in a circle would be watched over and over.
        let config = Config::default().with_follow_symlinks(false);
        let mut watcher = RecommendedWatcher::new(notice, config).map_err(failed)?;
        watcher.watch(root, RecursiveMode::Recursive).map_err(failed)?;
        let rescan = Instant::now() + RESCAN;
        Ok(DirWatch { seen, wake, told: None, quiet: QUIET, rescan, _watcher: watcher })
    }

    /// Waits until the directory may have changed and is quiet again. Cancel safe.
    pub async fn changed(&mut self) -> Changed {
        if let Some((told, everything)) = self.told.take() {
            let took = told.elapsed();
            self.quiet = took.clamp(QUIET, LONG_QUIET);
            if everything {
                self.rescan = Instant::now() + RESCAN.max(took * RESCAN_SHARE);
            }
        }
        loop {
            let due = self.lock(|seen| seen.due(self.quiet)).unwrap_or(self.rescan);
            tokio::select! {
                () = self.wake.notified() => {}
                // An event may have put it off since.
                () = sleep_until(due) => {
                    let now = Instant::now();
                    if now >= self.rescan {
                        self.lock(std::mem::take);
                        return self.tell(Changed::Everything);
                    }
                    if self.lock(|seen| seen.due(self.quiet)).is_some_and(|due| now >= due) {
                        let seen = self.lock(std::mem::take);
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
    fn add(&mut self, event: notify::Result<Event>, now: Instant) -> bool {
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

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::Write,
        os::unix::fs::symlink,
    };

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
            seen.add(event(moved, "a.yaml"), now);
            assert!(seen.due(QUIET) <= Some(start + LONGEST));
            now += QUIET / 2;
        }
        let data = EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any));
        seen.add(event(data, "b.log"), now);
        assert_eq!(seen.due(QUIET), Some(start + LONGEST), "what is no manifest keeps nobody waiting");
        seen.add(event(data, "b.yaml"), now);
        assert_eq!(seen.due(QUIET), Some(now + LONG_QUIET));
        seen.add(event(EventKind::Access(AccessKind::Close(AccessMode::Write)), "b.yaml"), now);
        assert_eq!(seen.due(QUIET), Some(start + LONGEST));
    }

    #[test]
    fn too_many_changes_and_lost_events_are_everything() {
        let mut seen = Seen::default();
        for number in 0..=MAX_PATHS {
            assert!(!seen.everything);
            seen.add(event(EventKind::Any, &number.to_string()), Instant::now());
        }
        assert_eq!(seen.changed(), Changed::Everything);
        let mut seen = Seen::default();
        seen.add(Ok(Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan)), Instant::now());
        assert_eq!(seen.changed(), Changed::Everything);
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
