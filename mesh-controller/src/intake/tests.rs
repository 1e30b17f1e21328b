// SPDX-License-Identifier: Apache-2.0

use std::fs;

use weft_manifests::Manifests;

use super::*;

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{}}\n")
}

/// A directory that an intake follows.
struct Place {
    directory: tempfile::TempDir,
    manifests: Manifests,
    intake: Intake,
}

impl Place {
    /// With a service in `a.yaml` and another in `b.yaml`.
    fn new(allow_empty: bool) -> Place {
        let directory = tempfile::tempdir().unwrap();
        let intake = Intake::new(directory.path(), allow_empty);
        let manifests = Manifests::new([directory.path().to_owned()]);
        let mut place = Place { directory, manifests, intake };
        for name in ["a", "b"] {
            place.write(&format!("{name}.yaml"), service(name));
        }
        assert_eq!(place.follow(), (vec!["a".to_owned(), "b".to_owned()], vec![]));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    fn rename(&self, name: &str, to: &str) {
        fs::rename(self.path(name), self.path(to)).unwrap();
    }

    /// The names of the services, and what is held back.
    fn follow(&mut self) -> (Vec<String>, Vec<String>) {
        let scan = self.manifests.scan();
        self.intake.take(scan);
        let objects = self.intake.store().objects().keys().map(|key| key.name.to_string()).collect();
        let root = format!("{}/", self.directory.path().display());
        let problems = self.intake.problems();
        (objects, problems.iter().map(|problem| problem.to_string().replace(&root, "")).collect())
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_source_that_loses_every_object_at_once_loses_none() {
    let empty: [fn(&Place); 4] = [
        |place| ["a.yaml", "b.yaml"].iter().for_each(|name| place.remove(name)),
        |place| ["a.yaml", "b.yaml"].iter().for_each(|name| place.write(name, "# nothing\n")),
        |place| {
            place.remove("a.yaml");
            place.write("b.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n");
        },
        |place| {
            place.remove("a.yaml");
            place.rename("b.yaml", "b.txt");
        },
    ];
    for empty in empty {
        let mut place = Place::new(false);
        empty(&place);
        for _ in 0..2 {
            let (objects, held) = place.follow();
            assert_eq!(objects, names(&["a", "b"]));
            assert!(held.len() == 1 && held[0].contains(EMPTY), "{held:?}");
        }
        // As soon as there is an object, the files are believed, and those that went are gone.
        place.write("c.yaml", service("c"));
        assert_eq!(place.follow(), (names(&["c"]), vec![]));
    }
}

#[test]
fn a_source_that_has_no_object_at_first_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for text in [None, Some("# nothing\n")] {
        if let Some(text) = text {
            fs::write(directory.path().join("a.yaml"), text).unwrap();
        }
        for allow_empty in [false, true] {
            let mut intake = Intake::new(directory.path(), allow_empty);
            intake.take(Manifests::new([directory.path().to_owned()]).scan());
            assert_eq!(intake.withheld().is_none(), allow_empty, "{text:?}");
        }
    }
}

#[test]
fn a_source_without_objects_is_believed_where_that_is_asked_for() {
    let mut place = Place::new(true);
    ["a.yaml", "b.yaml"].iter().for_each(|name| place.remove(name));
    assert_eq!(place.follow(), (vec![], vec![]));
}

#[test]
fn a_checkout_that_takes_everything_away_and_brings_half_of_it_keeps_what_is_broken() {
    let mut place = Place::new(false);
    ["a.yaml", "b.yaml"].iter().for_each(|name| place.remove(name));
    place.follow();
    place.write("a.yaml", "spec: [\n");
    assert_eq!(place.follow().0, names(&["a", "b"]));
    place.write("b.yaml", service("b2"));
    assert_eq!(place.follow().0, names(&["a", "b2"]));
}

#[test]
fn a_broken_file_that_is_renamed_keeps_what_it_had() {
    for broken in [&b"kind: \xff"[..], b"spec: [\n", b"apiVersion: v1\nkind: Service\nmetadata: {name: 5}\n"]
    {
        let mut place = Place::new(false);
        place.write("a.yaml", broken);
        assert_eq!(place.follow().0, names(&["a", "b"]));
        for (from, to) in [("a.yaml", "c.yaml"), ("c.yaml", "d.yaml"), ("d.yaml", "b.yaml")] {
            place.rename(from, to);
            let (objects, held) = place.follow();
            assert_eq!(objects, names(&["a", "b"]), "{from} to {to}");
            assert!(held[0].starts_with("a.yaml: is gone while "), "{held:?}");
            assert_eq!(place.follow(), (objects, held), "however often it is looked at");
        }
        place.write("b.yaml", service("c"));
        assert_eq!(place.follow(), (names(&["c"]), vec![]));
    }
}

#[test]
fn a_file_that_breaks_while_it_is_renamed_keeps_what_it_had_until_it_is_gone_as_well() {
    let mut place = Place::new(false);
    place.rename("a.yaml", "c.yaml");
    place.write("c.yaml", b"kind: \xff");
    assert_eq!(place.follow().0, names(&["a", "b"]));
    // What is removed later is no rename of it.
    place.write("d.yaml", service("d"));
    assert_eq!(place.follow().0, names(&["a", "b", "d"]));
    place.remove("d.yaml");
    assert_eq!(place.follow().0, names(&["a", "b"]));
    place.remove("c.yaml");
    assert_eq!(place.follow(), (names(&["b"]), vec![]));
}

#[test]
fn a_document_that_nobody_recognises_and_that_is_removed_keeps_nothing_longer() {
    let mut place = Place::new(false);
    place.rename("a.yaml", "c.yaml");
    place.write("c.yaml", "spec: [\n");
    assert_eq!(place.follow().0, names(&["a", "b"]));
    place.remove("c.yaml");
    assert_eq!(place.follow(), (names(&["b"]), vec![]));
}

#[test]
fn a_file_that_is_there_again_speaks_for_itself() {
    let mut place = Place::new(false);
    place.rename("a.yaml", "c.yaml");
    place.write("c.yaml", "spec: [\n");
    place.follow();
    place.write("a.yaml", service("a2"));
    assert_eq!(place.follow(), (names(&["a2", "b"]), vec![]));
}

#[test]
fn the_last_object_that_is_kept_for_a_broken_file_stays_when_that_is_gone() {
    let mut place = Place::new(false);
    place.remove("b.yaml");
    assert_eq!(place.follow(), (names(&["a"]), vec![]));
    place.rename("a.yaml", "c.yaml");
    place.write("c.yaml", "spec: [\n");
    assert_eq!(place.follow().0, names(&["a"]));
    place.remove("c.yaml");
    let (objects, held) = place.follow();
    assert_eq!(objects, names(&["a"]));
    assert!(held.iter().any(|held| held.contains(EMPTY)), "{held:?}");
    place.write("d.yaml", service("d"));
    assert_eq!(place.follow(), (names(&["d"]), vec![]));
}
