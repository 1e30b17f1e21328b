// SPDX-License-Identifier: Apache-2.0
//! Two controllers that follow one directory, and one that starts on it, come to the same state, whatever
//! happens to the files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use weft_api::object::ObjectKey;
use weft_manifests::Manifests;
use weft_mesh_controller::intake::Intake;
use weft_translate::Severity;

/// What a controller reads, up to the translation: that is a function of what the store holds
/// (`crates/translate/tests/incremental.rs`).
struct Replica {
    manifests: Manifests,
    intake: Intake,
}

impl Replica {
    fn new(root: &Path) -> Replica {
        Replica { manifests: Manifests::new([root.to_owned()]), intake: Intake::new(root, false) }
    }

    /// Looks at the directory; whether a start on it would stop.
    fn follow(&mut self) -> bool {
        let scan = self.manifests.scan();
        let unread = scan.faults.iter().any(|fault| fault.hides);
        self.intake.take(scan);
        let mut problems = self.intake.store().problems();
        unread
            || self.intake.withheld().is_some()
            || problems.any(|problem| problem.severity == Severity::Unrecognized)
    }

    /// All that the state follows from.
    fn content(&self) -> String {
        let objects: Vec<_> = self.intake.store().objects().iter().collect();
        let problems: Vec<_> = self.intake.store().problems().map(ToString::to_string).collect();
        format!("{objects:#?} {problems:#?}")
    }

    fn keys(&self) -> BTreeSet<ObjectKey> {
        self.intake.store().objects().keys().cloned().collect()
    }
}

/// Numbers that look random and are the same at every run (Knuth, MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

const DOCUMENTS: [&str; 12] = [
    "apiVersion: v1\nkind: Service\nmetadata: {name: NAME, namespace: shop}\nspec: {clusterIP: 10.0.0.VALUE}\n",
    "apiVersion: v1\nkind: Service\nmetadata: {name: NAME, namespace: shop}\nspec: {clusterIP: 10.0.0.VALUE00}\n",
    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: NAME, namespace: shop}\n\
     spec: {podSelector: {}, ingress: []}\n",
    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: NAME, namespace: shop}\n\
     spec: {podSelector: {}, ingres: VALUE}\n",
    "apiVersion: networking.k8s.o/v1\nkind: NetworkPolicy\nmetadata: {name: NAME, namespace: shop}\n",
    "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: NAME}\n",
    "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: NAME}\n",
    "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: NAME}}\n\
     - {apiVersion: v1, kind: Service, metadata: {name: NAME, namespace: shop}}\n",
    "apiVersion: v1\nkind: Pod\nmetadata: {name: NAME, namespace: shop, labels: {app: vVALUE}}\n\
     spec: {nodeName: one}\nstatus: {phase: Running, podIP: 10.1.0.VALUE}\n",
    "apiVersion: v1\nkind: Service\nmetadata: {name: 5}\n",
    "apiVersion: v1\nkind: Service\nmetadata: {name: NAME\n",
    "# nothing\n",
];

fn some_text(numbers: &mut Numbers) -> String {
    // An empty file is one that is not written yet.
    let mut text = String::from("# some\n");
    for _ in 0..numbers.below(4) {
        // Whole ones more often than broken ones.
        let end = if numbers.below(4) == 0 { DOCUMENTS.len() } else { 4 };
        let document = DOCUMENTS[numbers.below(end)];
        let (name, value) = (format!("n{}", numbers.below(4)), numbers.below(4).to_string());
        text += &document.replace("NAME", &name).replace("VALUE", &value);
        text += ["---\n", "...\n", "---\r\n"][numbers.below(3)];
    }
    text
}

/// Does something to a file or a directory below the root.
fn edit(root: &Path, numbers: &mut Numbers) {
    let names = ["a.yaml", "b.yaml", "sub/a.yaml", "sub/c.yml", "link.yaml"];
    let mut path = || root.join(names[numbers.below(names.len())]);
    let (path, other): (PathBuf, PathBuf) = (path(), path());
    fs::create_dir_all(root.join("sub")).unwrap();
    let clear = |path: &Path| drop(fs::remove_file(path));
    match numbers.below(12) {
        0 => clear(&path),
        1 => drop(fs::rename(&path, &other)),
        2 => {
            clear(&path);
            symlink(&other, &path).unwrap();
        }
        3 => drop(fs::remove_dir_all(root.join("sub"))),
        4 => {
            clear(&path);
            fs::write(&path, b"kind: \xff\n").unwrap();
        }
        5 => {
            // As when somebody is still writing.
            let text = some_text(numbers);
            clear(&path);
            fs::write(&path, &text[..numbers.below(text.len() + 1)]).unwrap();
        }
        6 => {
            clear(&path);
            std::os::unix::net::UnixListener::bind(&path).unwrap();
        }
        _ => {
            clear(&path);
            fs::write(&path, some_text(numbers)).unwrap();
        }
    }
}

#[test]
fn controllers_on_one_directory_come_to_one_state() {
    let mut numbers = Numbers(11);
    let (mut equal, mut kept) = (0, 0);
    for _ in 0..8 {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("source");
        fs::create_dir(&root).unwrap();
        let (mut often, mut seldom) = (Replica::new(&root), Replica::new(&root));
        for _ in 0..120 {
            edit(&root, &mut numbers);
            let before = often.keys();
            let stops = often.follow();
            let mut fresh = Replica::new(&root);
            assert_eq!(fresh.follow(), stops, "the one that runs and the one that starts see the same");
            if numbers.below(3) == 0 {
                assert_eq!(seldom.follow(), stops);
            }
            if stops {
                kept += before.intersection(&often.keys()).count();
                assert!(fresh.keys().is_subset(&often.keys()), "nothing of a start is missing");
                continue;
            }
            seldom.follow();
            let expected = fresh.content();
            assert_eq!(often.content(), expected);
            assert_eq!(seldom.content(), expected);
            equal += 1;
        }
    }
    assert!(equal > 100 && kept > 100, "both happened: {equal} {kept}");
}
