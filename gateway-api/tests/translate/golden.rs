// SPDX-License-Identifier: Apache-2.0
//! Golden tests: `NAME.in.yaml` is translated, and the result compared with `NAME.ir.yaml` and
//! `NAME.status.yaml`. `UPDATE_GOLDEN=1` writes them anew; read the difference before it is committed.
//!
//! `_base.yaml` is put in front of every case. What comes from it alone is left out.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::Value;
use weft_api::status::Status;
use weft_ir::Resource;

use crate::world::{Translation, translate};

#[derive(Serialize)]
struct State<'a> {
    resources: &'a BTreeMap<String, Resource>,
}

#[derive(Serialize)]
struct Said<'a> {
    notes: &'a [String],
    statuses: &'a BTreeMap<String, Status>,
}

fn read(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn objects_become_what_the_golden_files_say() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let base = read(&directory.join("_base.yaml"));
    let of_base = translate(&base);
    let files = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = files.filter(|path| path.to_string_lossy().ends_with(".in.yaml")).collect();
    cases.sort();
    assert!(cases.len() >= 20, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let translation = translate(&[base.clone(), read(&case)].concat()).without(&of_base);
        let Translation { resources, statuses, notes } = &translation;
        let stem = case.to_string_lossy().replace(".in.yaml", "");
        let texts = [
            ("ir", serde_saphyr::to_string(&State { resources }).unwrap()),
            ("status", serde_saphyr::to_string(&Said { notes, statuses }).unwrap()),
        ];
        for (suffix, actual) in texts {
            let path = format!("{stem}.{suffix}.yaml");
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::write(&path, &actual).unwrap();
            } else if fs::read_to_string(&path).unwrap_or_default() != actual {
                wrong.push(format!("{path} differs; this is the result:\n{actual}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
