// SPDX-License-Identifier: Apache-2.0

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    process::Command,
};

use tempfile::TempDir;

use super::*;

struct Place {
    directory: TempDir,
    manifests: Manifests,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Place {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::create_dir_all(directory.path().join(name).parent().unwrap()).unwrap();
            fs::write(directory.path().join(name), text).unwrap();
        }
        let manifests = Manifests::new([directory.path().to_owned()]);
        Place { directory, manifests }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn short(&self, name: &str) -> String {
        name.replace(&format!("{}/", self.directory.path().display()), "")
    }

    /// Names that changed, names that are gone, faults.
    fn scan(&mut self) -> (Vec<String>, Vec<String>, Vec<String>) {
        let scan = self.manifests.scan();
        (
            scan.changed.iter().map(|(name, _)| self.short(name)).collect(),
            scan.removed.iter().map(|name| self.short(name)).collect(),
            scan.faults.iter().map(|fault| self.short(&fault.to_string())).collect(),
        )
    }
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_scan_tells_what_is_different() {
    let mut place = Place::new(&[
        ("a.yaml", "a"),
        ("sub/b.yml", "b"),
        ("C.YAML", "c"),
        ("README.md", "no"),
        (".hidden.yaml", "no"),
    ]);
    assert_eq!(place.scan(), (texts(&["C.YAML", "a.yaml", "sub/b.yml"]), vec![], vec![]));
    assert!(place.manifests.scan().is_empty());
    fs::write(place.path("new"), "a2").unwrap();
    fs::rename(place.path("new"), place.path("a.yaml")).unwrap();
    fs::remove_file(place.path("sub/b.yml")).unwrap();
    assert_eq!(place.scan(), (texts(&["a.yaml"]), texts(&["sub/b.yml"]), vec![]));
    assert_eq!(place.manifests.len(), 2);
}

#[test]
fn links_as_a_config_map_has_them_are_followed() {
    let mut place = Place::new(&[("..1/a.yaml", "1"), ("..2/a.yaml", "2")]);
    symlink("..1", place.path("..data")).unwrap();
    symlink("..data/a.yaml", place.path("a.yaml")).unwrap();
    assert_eq!(place.manifests.scan().changed[0].1, "1");
    symlink("..2", place.path("..new")).unwrap();
    fs::rename(place.path("..new"), place.path("..data")).unwrap();
    assert_eq!(place.manifests.scan().changed[0].1, "2");
}

#[test]
fn an_empty_file_is_one_that_is_not_written_yet() {
    let mut place = Place::new(&[("a.yaml", "a"), ("b.yaml", "b"), ("new.yaml", "")]);
    let why = "is empty: write it, or remove it; a comment in it says that it is meant";
    assert_eq!(place.scan().2, [format!("new.yaml: {why}")]);
    fs::write(place.path("a.yaml"), "").unwrap();
    fs::write(place.path("b.yaml"), "# nothing\n").unwrap();
    fs::remove_file(place.path("new.yaml")).unwrap();
    assert_eq!(place.scan(), (texts(&["b.yaml"]), vec![], vec![format!("a.yaml: {why}")]));
    assert!(place.manifests.scan().faults[0].hides, "what it held stays");
    fs::write(place.path("a.yaml"), "a").unwrap();
    assert_eq!(place.scan(), (vec![], vec![], vec![]));
}

#[test]
fn a_link_that_leads_outside_is_refused_and_keeps_what_was_there() {
    let outer = Place::new(&[("secret.yaml", "s"), ("source/a.yaml", "a"), ("source/sub/b.yaml", "b")]);
    let root = outer.path("source");
    let mut manifests = Manifests::new([root.clone()]);
    assert_eq!(manifests.scan().changed.len(), 2);
    fs::remove_file(root.join("a.yaml")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("../../secret.yaml", root.join("sub/c.yaml")).unwrap();
    // By way of a link that is not read itself, and to what was read under its own name.
    symlink("../secret.yaml", root.join(".hidden")).unwrap();
    symlink(".hidden", root.join("a.yaml")).unwrap();
    // What nobody reads is nobody's concern.
    symlink("/etc/hostname", root.join("README")).unwrap();
    let scan = manifests.scan();
    assert!(scan.is_empty(), "{scan:?}");
    let faults: Vec<String> = scan.faults.iter().map(|fault| outer.short(&fault.to_string())).collect();
    let paths = ["source/a.yaml", "source/sub/c.yaml", "source/up"];
    assert_eq!(faults, paths.map(|path| format!("{path}: {}", Bounds::LEFT)));
    assert!(scan.faults.iter().all(|fault| fault.hides));
    // As when a file becomes a link between the listing and the reading.
    let fault = read::read(&root.join("sub/c.yaml"), &manifests.bounds).unwrap_err();
    assert_eq!(fault.reason, Bounds::LEFT);
}

#[test]
fn a_root_may_be_a_link_and_links_may_lead_to_another_root() {
    let outer = Place::new(&[("1/a.yaml", "a1"), ("2/a.yaml", "a2"), ("other/b.yaml", "b"), ("f", "f")]);
    symlink("1", outer.path("source")).unwrap();
    symlink("../other/b.yaml", outer.path("1/b.yaml")).unwrap();
    symlink("f", outer.path("g")).unwrap();
    let mut manifests = Manifests::new(["source", "other", "g"].map(|name| outer.path(name)));
    let scan = manifests.scan();
    let names: Vec<String> = scan.changed.iter().map(|(name, _)| outer.short(name)).collect();
    assert_eq!(
        (names, scan.faults),
        (texts(&["g", "other/b.yaml", "source/a.yaml", "source/b.yaml"]), vec![])
    );
    symlink("2", outer.path("new")).unwrap();
    fs::rename(outer.path("new"), outer.path("source")).unwrap();
    let scan = manifests.scan();
    assert_eq!((scan.changed.len(), &*scan.changed[0].1, scan.removed.len()), (1, "a2", 1));
}

#[test]
fn a_file_that_cannot_be_read_keeps_its_text_and_hinders_no_other() {
    let mut place = Place::new(&[("a.yaml", "a"), ("b.yaml", "b"), ("c.yaml", "c")]);
    place.scan();
    fs::write(place.path("a.yaml"), b"good\ngood\nbad \xff\n").unwrap();
    fs::remove_file(place.path("b.yaml")).unwrap();
    fs::write(place.path("c.yaml"), "c2").unwrap();
    let fault = texts(&["a.yaml:3: is not UTF-8 here: save it as UTF-8"]);
    assert_eq!(place.scan(), (texts(&["c.yaml"]), texts(&["b.yaml"]), fault.clone()));
    assert_eq!(place.scan(), (vec![], vec![], fault), "it is said as long as it is so");
    fs::write(place.path("a.yaml"), "a").unwrap();
    assert_eq!(place.scan(), (vec![], vec![], vec![]), "the text that was kept is there again");
}

#[test]
fn a_link_to_nothing_or_to_itself_keeps_what_was_there_and_lets_others_go() {
    for target in ["nowhere", "a.yaml"] {
        let mut place = Place::new(&[("a.yaml", "a"), ("b.yaml", "b")]);
        place.scan();
        fs::remove_file(place.path("a.yaml")).unwrap();
        fs::remove_file(place.path("b.yaml")).unwrap();
        symlink(target, place.path("a.yaml")).unwrap();
        let (changed, removed, faults) = place.scan();
        assert_eq!((changed, removed), (vec![], texts(&["b.yaml"])));
        assert!(faults[0].starts_with("a.yaml: ") && faults.len() == 1, "{faults:?}");
    }
}

#[test]
fn a_linked_directory_that_is_gone_keeps_what_was_below_it() {
    let mut place = Place::new(&[("a.yaml", "a"), ("..1/x.yaml", "x")]);
    symlink("..1", place.path("linked")).unwrap();
    assert_eq!(place.scan().0, texts(&["a.yaml", "linked/x.yaml"]));
    fs::rename(place.path("..1"), place.path("..2")).unwrap();
    assert_eq!(place.scan(), (vec![], vec![], texts(&["linked: is a link to nothing"])));
    fs::rename(place.path("..2"), place.path("..1")).unwrap();
    fs::remove_file(place.path("linked")).unwrap();
    assert_eq!(place.scan(), (vec![], texts(&["linked/x.yaml"]), vec![]));
}

#[test]
fn a_root_that_is_gone_keeps_everything() {
    let mut place = Place::new(&[("a.yaml", "a")]);
    place.scan();
    let hidden = place.directory.path().with_extension("away");
    fs::rename(place.directory.path(), &hidden).unwrap();
    let scan = place.manifests.scan();
    assert!(scan.is_empty() && scan.faults.len() == 1 && scan.faults[0].hides);
    fs::rename(&hidden, place.directory.path()).unwrap();
    assert!(place.manifests.scan().faults.is_empty());
}

#[test]
fn links_in_a_circle_are_read_once_and_named() {
    let mut place = Place::new(&[("a.yaml", "a"), ("sub/b.yaml", "b")]);
    // Followed, these would be two to the power of their depth.
    for (target, link) in [(".", "self"), ("..", "sub/up"), (".", "sub/again"), ("sub", "also")] {
        symlink(target, place.path(link)).unwrap();
    }
    let (changed, _, faults) = place.scan();
    assert_eq!(changed, texts(&["a.yaml", "sub/b.yaml"]));
    assert_eq!(faults.len(), 4, "{faults:?}");
    assert!(faults.iter().all(|fault| fault.contains("which is read: remove the link")), "{faults:?}");
    assert!(place.manifests.scan().faults.iter().all(|fault| !fault.hides));
}

#[test]
fn a_directory_that_moves_behind_a_link_leaves_no_old_text() {
    let mut place = Place::new(&[("x/a.yaml", "a")]);
    place.scan();
    fs::rename(place.path("x"), place.path("y")).unwrap();
    symlink("y", place.path("x")).unwrap();
    let (changed, removed, _) = place.scan();
    assert_eq!((changed, removed), (texts(&["y/a.yaml"]), texts(&["x/a.yaml"])));
}

#[test]
fn a_file_that_is_too_large_is_named_and_changes_nothing() {
    let mut place = Place::new(&[("a.yaml", "a")]);
    place.scan();
    File::options().write(true).open(place.path("a.yaml")).unwrap().set_len(100 << 20).unwrap();
    assert_eq!(place.scan().2, texts(&["a.yaml: is larger than 16 MiB: split it into several files"]));
    assert_eq!(place.manifests.scan().changed, []);
}

#[test]
fn what_is_no_file_is_named_keeps_nobody_waiting_and_leaves_what_was_there() {
    let mut place = Place::new(&[("a.yaml", "a"), ("b.yaml", "b"), ("c.yaml", "c")]);
    place.scan();
    let _socket = ["a.yaml", "b.yaml", "c.yaml", "ignored.txt"].map(|name| {
        let path = place.path(name);
        fs::remove_file(&path).ok();
        match name {
            "b.yaml" => symlink("/dev/zero", &path).unwrap(),
            "c.yaml" => drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
            _ => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
        }
    });
    let what = "is neither a file nor a directory";
    let faults = [("a.yaml", what), ("b.yaml", Bounds::LEFT), ("c.yaml", what)];
    assert_eq!(place.scan(), (vec![], vec![], faults.map(|(name, why)| format!("{name}: {why}")).to_vec()));
    // As when a file becomes a pipe between the listing and the reading.
    assert_eq!(read::read(&place.path("a.yaml"), &place.manifests.bounds), Ok(None));
    assert_eq!(Manifests::new([place.path("a.yaml")]).scan().faults.len(), 1);
    for name in ["a.yaml", "b.yaml", "c.yaml"] {
        fs::remove_file(place.path(name)).unwrap();
    }
    assert_eq!(place.scan(), (vec![], texts(&["a.yaml", "b.yaml", "c.yaml"]), vec![]));
}

#[test]
fn a_directory_of_too_many_files_is_named_and_keeps_what_was_read() {
    let place = Place::new(&[("a.yaml", ""), ("b.yaml", ""), ("sub/c.yaml", ""), ("sub/d.yaml", "")]);
    let roots = [place.directory.path().to_owned()];
    let found = walk::walk(&roots, &Bounds::of(&roots), 5, |_| true);
    assert_eq!((found.files.len(), found.faults.len()), (4, 0));
    let found = walk::walk(&roots, &Bounds::of(&roots), 4, |_| true);
    let reason = "holds more than 4 files and directories: give a smaller one";
    assert_eq!(found.faults, [Fault::new(&roots[0], 0, reason)]);
    assert_eq!(found.unknown, roots, "nothing below it counts as gone");
}

#[test]
fn files_that_come_change_and_go_during_scans_are_seen_as_they_are_in_the_end() {
    let mut place = Place::new(&[]);
    let root = place.directory.path().to_owned();
    let writer = std::thread::spawn(move || {
        for round in 0..400_usize {
            let path = root.join(format!("{}.yaml", round % 7));
            match round % 5 {
                0 => drop(fs::remove_file(&path)),
                1 => fs::write(&path, "x".repeat(round * 1_000)).unwrap(),
                2 => fs::rename(&path, root.join("moved.yaml")).unwrap_or_default(),
                3 => drop(fs::create_dir(root.join(format!("{}.d", round % 7)))),
                _ => drop(fs::remove_dir_all(root.join(format!("{}.d", round % 7)))),
            }
        }
    });
    let mut known = BTreeMap::new();
    let mut follow = |place: &mut Place| {
        let scan = place.manifests.scan();
        known.extend(scan.changed);
        known.retain(|name, _| !scan.removed.contains(name));
        (known.clone(), scan.faults)
    };
    while !writer.is_finished() {
        follow(&mut place);
    }
    writer.join().unwrap();
    let (seen, faults) = follow(&mut place);
    let fresh: BTreeMap<_, _> =
        Manifests::new([place.directory.path().to_owned()]).scan().changed.into_iter().collect();
    assert!(seen == fresh && !fresh.is_empty() && faults.is_empty(), "{faults:?}");
}

#[test]
fn a_file_that_is_named_is_read_whatever_its_name() {
    let place = Place::new(&[("a.txt", "a")]);
    let mut manifests = Manifests::new([place.path("a.txt")]);
    assert_eq!(manifests.scan().changed.len(), 1);
    fs::remove_file(place.path("a.txt")).unwrap();
    let scan = manifests.scan();
    assert!(scan.is_empty() && scan.faults.len() == 1, "what was named is missed: {scan:?}");
}

#[test]
fn a_file_is_read_again_only_after_it_was_written() {
    let mut place = Place::new(&[("a.yaml", "a")]);
    let age = |file: &Path, seconds| {
        let time = SystemTime::now() - std::time::Duration::from_secs(seconds);
        File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
    };
    let file = place.path("a.yaml");
    age(&file, 60);
    place.scan();
    let name = file.to_str().unwrap();
    assert!(place.manifests.files[name].stamp.is_none(), "its status was changed just now");
    // As if it had settled: then a write of the same length must still be seen.
    place.manifests.files.get_mut(name).unwrap().stamp = Some(Stamp::new(&fs::metadata(&file).unwrap()));
    assert!(place.manifests.scan().is_empty());
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(&file, "b").unwrap();
    assert_eq!(place.scan().0, texts(&["a.yaml"]));
}

/// What a step does to the files, and whether all that it touches can be looked at alone.
type Step = (fn(&Place), &'static [&'static str]);

#[test]
fn a_look_at_what_changed_sees_what_a_scan_sees() {
    let steps: [Step; 14] = [
        (|place| fs::write(place.path("a.yaml"), "a2").unwrap(), &["a.yaml"]),
        (|place| fs::write(place.path("new"), "a3").unwrap(), &["new"]),
        (|place| fs::rename(place.path("new"), place.path("a.yaml")).unwrap(), &["new", "a.yaml"]),
        (|place| fs::write(place.path(".a.yaml.swp"), "no").unwrap(), &[".a.yaml.swp"]),
        (|place| fs::write(place.path("a.yaml"), b"\xff").unwrap(), &["a.yaml"]),
        (|place| fs::write(place.path("sub/b.yml"), "b2").unwrap(), &["sub/b.yml"]),
        (|place| fs::write(place.path("a.yaml"), "a4").unwrap(), &["a.yaml"]),
        (|place| fs::remove_file(place.path("sub/b.yml")).unwrap(), &["sub/b.yml"]),
        (|place| fs::rename(place.path("sub"), place.path("other")).unwrap(), &["sub", "other"]),
        (|place| fs::write(place.path("other/c.yaml"), "c").unwrap(), &["other/c.yaml"]),
        (|place| fs::rename(place.path("other"), place.path("x.yaml")).unwrap(), &["other", "x.yaml"]),
        (|place| symlink("a.yaml", place.path("link.yaml")).unwrap(), &["link.yaml"]),
        (|place| fs::write(place.path("a.yaml"), "a5").unwrap(), &["a.yaml"]),
        (|place| fs::remove_dir_all(place.path("x.yaml")).unwrap(), &["x.yaml/c.yaml", "x.yaml"]),
    ];
    let mut place = Place::new(&[("a.yaml", "a"), ("sub/b.yml", "b")]);
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let apply = |texts: &mut BTreeMap<String, String>, scan: Scan| {
        texts.extend(scan.changed);
        texts.retain(|name, _| !scan.removed.contains(name));
        scan.faults
    };
    let scan = place.manifests.scan();
    apply(&mut texts, scan);
    for (number, (step, paths)) in steps.into_iter().enumerate() {
        step(&place);
        let paths = paths.iter().map(|path| place.path(path)).collect();
        let scan = place.manifests.look(&paths);
        let faults = apply(&mut texts, scan);
        let mut all = Manifests::new([place.directory.path().to_owned()]);
        let scan = all.scan();
        assert_eq!(faults, scan.faults, "step {number}");
        let mut kept = texts.clone();
        // A new scan has no text from before.
        kept.retain(|name, _| !faults.iter().any(|fault| fault.path == Path::new(name)));
        assert_eq!(kept, scan.changed.into_iter().collect(), "step {number}");
    }
}

#[test]
fn a_look_at_one_file_looks_at_no_other() {
    let mut place = Place::new(&[("a.yaml", "a"), ("b.yaml", "b")]);
    place.scan();
    fs::write(place.path("a.yaml"), "a2").unwrap();
    fs::write(place.path("b.yaml"), "b2").unwrap();
    let scan = place.manifests.look(&[place.path("b.yaml"), place.path("c.txt")].into());
    assert_eq!(scan.changed, [(place.path("b.yaml").to_str().unwrap().to_owned(), "b2".to_owned())]);
    assert_eq!(place.scan().0, texts(&["a.yaml"]), "a scan sees what nobody told of");
}

/// Waits until the kernel's clock for files has moved on.
fn tick(place: &Place) {
    let stamp = || Stamp::new(&fs::metadata(place.path(".tick")).unwrap()).changed();
    fs::write(place.path(".tick"), "a").unwrap();
    let before = stamp();
    while stamp() == before {
        fs::write(place.path(".tick"), "b").unwrap();
    }
}

#[test]
fn the_version_grows_with_every_change_however_it_is_looked_at() {
    let mut place = Place::new(&[("a.yaml", "a"), ("sub/b.yaml", "b")]);
    assert_eq!(place.manifests.version(), 0);
    place.manifests.scan();
    let mut last = place.manifests.version();
    let changes: [fn(&Place); 5] = [
        |place| fs::write(place.path("a.yaml"), "a2").unwrap(),
        |place| fs::remove_file(place.path("sub/b.yaml")).unwrap(),
        |place| fs::write(place.path("sub/c.yaml"), "c").unwrap(),
        |place| fs::rename(place.path("sub/c.yaml"), place.path("sub/d.yaml")).unwrap(),
        // A time that a user sets says nothing.
        |place| drop(File::open(place.path("a.yaml")).unwrap().set_modified(SystemTime::UNIX_EPOCH)),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        tick(&place);
        change(&place);
        let names = ["a.yaml", "sub/b.yaml", "sub/c.yaml", "sub/d.yaml"];
        place.manifests.look(&names.map(|name| place.path(name)).into());
        let version = place.manifests.version();
        assert!(version > last, "change {index}");
        let mut again = Manifests::new([place.directory.path().to_owned()]);
        again.scan();
        assert_eq!(again.version(), version, "change {index}: as whoever starts now sees it");
        last = version;
    }
}
