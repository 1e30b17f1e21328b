// SPDX-License-Identifier: Apache-2.0
//! Golden tests: `NAME.in.yaml` is translated, and the result compared with `NAME.ir.yaml` and
//! `NAME.status.yaml`. `UPDATE_GOLDEN=1` writes them anew; read the difference before it is committed.
//!
//! `_base.yaml` of the directory is put in front of every case. Resources that come from it alone are
//! left out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;
use weft_translate::{report, to_yaml};

#[path = "support/mesh.rs"]
mod mesh;

use mesh::Mesh;

#[derive(Serialize)]
struct State {
    resources: Vec<(String, weft_translate::Resource)>,
}

#[derive(Serialize)]
struct Statuses {
    problems: Vec<String>,
    lines: Vec<String>,
    statuses: Vec<weft_translate::ObjectStatus>,
}

fn directory(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn translate(files: &[(&str, &str)]) -> Mesh {
    Mesh::of(files.iter().copied())
}

/// Runs the cases of a directory, and tells how many there were.
fn run(directory: &Path) -> usize {
    let base = fs::read_to_string(directory.join("_base.yaml")).unwrap();
    let of_base = translate(&[("base", &base)]);
    let mut cases: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".in.yaml"))
        .collect();
    cases.sort();
    let mut wrong = Vec::new();
    for case in &cases {
        let text = fs::read_to_string(case).unwrap();
        let translation = translate(&[("base", &base), ("in.yaml", &text)]);
        let resources = translation.resources.iter();
        let new = resources.filter(|(key, resource)| of_base.resources.get(*key) != Some(*resource));
        let state = State { resources: new.map(|(key, one)| (key.to_string(), one.clone())).collect() };
        let of_base = of_base.told();
        let changed = |status: &weft_translate::ObjectStatus| !of_base.contains(status);
        let statuses: Vec<_> = translation.told().into_iter().filter(changed).collect();
        let statuses = Statuses {
            problems: translation.problems.iter().map(ToString::to_string).collect(),
            lines: statuses.iter().map(|one| report::line(&one.object, &one.status)).collect(),
            statuses,
        };
        let stem = case.to_string_lossy().replace(".in.yaml", "");
        for (suffix, actual) in [("ir", to_yaml(&state).unwrap()), ("status", to_yaml(&statuses).unwrap())] {
            let path = format!("{stem}.{suffix}.yaml");
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::write(&path, &actual).unwrap();
            } else if fs::read_to_string(&path).unwrap_or_default() != actual {
                wrong.push(format!("{path} differs; this is the result:\n{actual}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    cases.len()
}

#[test]
fn policies_and_workloads_become_what_the_golden_files_say() {
    assert!(run(&directory("tests/golden")) >= 10);
}

#[test]
fn every_example_is_accepted_as_it_is() {
    let mut mesh = Mesh::new(Vec::new());
    let examples = directory("../../examples");
    let mut files = 0;
    for example in fs::read_dir(&examples).unwrap() {
        for entry in fs::read_dir(example.unwrap().path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "yaml") {
                mesh.store.apply(&path.display().to_string(), &fs::read_to_string(&path).unwrap());
                files += 1;
            }
        }
    }
    assert!(files >= 5);
    mesh.update(0);
    assert_eq!(mesh.problems, []);
    let lines: Vec<String> = mesh.told().iter().map(|one| report::line(&one.object, &one.status)).collect();
    assert!(lines.iter().all(|line| !line.contains("=False")), "{lines:#?}");
    for key in [
        "httproute.gateway.networking.k8s.io/shop/canary/0",
        "gateway.gateway.networking.k8s.io/shop/shop/http",
        "ciliumnetworkpolicy.cilium.io/shop/checkout/0",
        "ratelimitpolicy.weft.dev/shop/checkout",
    ] {
        assert!(mesh.resources.keys().any(|found| found.to_string() == key), "{key}");
    }
}
