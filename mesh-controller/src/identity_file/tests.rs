// SPDX-License-Identifier: Apache-2.0

use std::{collections::BTreeMap, sync::Arc};

use tempfile::TempDir;

use super::*;

fn given(number: u32) -> IdentityRecord {
    let labels = BTreeMap::from([("k8s:app".into(), format!("a{number}").into())]);
    IdentityRecord::Given { number, labels: Arc::new(labels) }
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("identities.log");
    (directory, path)
}

fn known(path: &Path) -> Vec<IdentityRecord> {
    IdentityFile::open(path).unwrap().1.shortest().collect()
}

/// Adds one number after the other, each in a run of its own.
fn add(path: &Path, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let (mut file, identities) = IdentityFile::open(path).unwrap();
        file.append(&[given(number)], &identities).unwrap();
    }
}

fn refused(path: &Path) -> String {
    IdentityFile::open(path).map(drop).unwrap_err().to_string()
}

#[test]
fn what_was_added_is_there_again() {
    let (_directory, path) = place();
    let (mut file, identities) = IdentityFile::open(&path).unwrap();
    assert!(identities.is_empty());
    file.append(&[given(256), given(257)], &identities).unwrap();
    file.append(&[IdentityRecord::Released { number: 256, at: 7 }], &identities).unwrap();
    drop(file);
    let expected = [given(256), IdentityRecord::Released { number: 256, at: 7 }, given(257)];
    assert_eq!(known(&path), expected);
}

#[test]
fn a_last_line_that_was_cut_off_is_left_out_and_any_other_damage_is_an_error() {
    let (_directory, path) = place();
    add(&path, 256..257);
    let mark = fs::read(mark_path(&path)).unwrap();
    add(&path, 257..258);
    let whole = fs::read(&path).unwrap();
    let ends: Vec<_> = (0..whole.len()).filter(|at| whole[*at] == b'\n').collect();
    for end in ends[1] + 1..whole.len() {
        // A crash: the line was not written, and so the mark not moved.
        fs::write(&path, &whole[..end]).unwrap();
        fs::write(mark_path(&path), &mark).unwrap();
        assert_eq!(known(&path), [given(256)]);
        add(&path, 258..259);
        assert_eq!(known(&path), [given(256), given(258)]);
    }
    for at in (0..whole.len() - 1).filter(|at| !ends.contains(at)) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&path, damaged).unwrap();
        let expected = 1 + ends.iter().filter(|end| **end < at).count();
        let error = IdentityFile::open(&path).unwrap_err();
        let line = matches!(error, IdentityFileError::Damaged { line, .. } if line == expected);
        assert!(line, "byte {at}: {error}");
    }
}

#[test]
fn lines_that_contradict_each_other_are_an_error() {
    let (_directory, path) = place();
    let (mut file, identities) = IdentityFile::open(&path).unwrap();
    file.append(&[given(256), given(256)], &identities).unwrap();
    assert!(matches!(IdentityFile::open(&path), Err(IdentityFileError::Invalid { .. })));
}

#[test]
fn lines_that_are_missing_are_named_with_the_file_the_line_and_the_fix() {
    let (_directory, path) = place();
    add(&path, 256..266);
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    // Every part that can be cut out.
    for begin in 0..lines.len() {
        for end in begin + 1..=lines.len() {
            let left = [&lines[..begin], &lines[end..]].concat().concat();
            fs::write(&path, &left).unwrap();
            let error = refused(&path);
            let line = if left.is_empty() || begin == 0 {
                1
            } else if end == lines.len() {
                begin
            } else {
                begin + 1
            };
            assert!(error.contains(&format!("identities.log:{line} ")), "{begin}..{end}: {error}");
            assert!(
                error.contains("restore the newest copy") && error.contains("identities.mark"),
                "{error}"
            );
        }
    }
    // Two lines that changed places, and one that is there twice.
    for order in [vec![0, 2, 1, 3], vec![0, 1, 1, 2, 3]] {
        let text: String = order.into_iter().chain(4..lines.len()).map(|at| lines[at]).collect();
        fs::write(&path, text).unwrap();
        assert!(matches!(IdentityFile::open(&path), Err(IdentityFileError::Damaged { .. })));
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(known(&path).len(), 10, "restored, it is used again");
}

#[test]
fn an_older_copy_or_no_copy_is_refused() {
    let (_directory, path) = place();
    add(&path, 256..258);
    let older = fs::read(&path).unwrap();
    add(&path, 258..259);
    let (whole, mark) = (fs::read(&path).unwrap(), fs::read(mark_path(&path)).unwrap());
    fs::write(&path, &older).unwrap();
    let error = refused(&path);
    assert!(error.contains("identities.log:3 ") && error.contains("had number 4"), "{error}");
    // One that has grown to the same length since then.
    let (other, other_path) = place();
    add(&other_path, 256..257);
    add(&other_path, 300..303);
    fs::copy(&other_path, &path).unwrap();
    assert!(matches!(IdentityFile::open(&path), Err(IdentityFileError::Older { .. })));
    drop(other);
    fs::remove_file(&path).unwrap();
    assert!(refused(&path).contains("identities.log"), "it is gone");
    fs::write(&path, &whole).unwrap();
    for damaged in [None, Some(&b"nonsense"[..]), Some(&mark[..10])] {
        drop(fs::remove_file(mark_path(&path)));
        if let Some(damaged) = damaged {
            fs::write(mark_path(&path), damaged).unwrap();
        }
        assert!(matches!(IdentityFile::open(&path), Err(IdentityFileError::NoMark { .. })));
    }
    // Behind the mark there may be more: what a crash left that nobody was told.
    fs::write(mark_path(&path), &mark).unwrap();
    add(&path, 259..260);
    fs::write(mark_path(&path), &mark).unwrap();
    assert_eq!(known(&path).len(), 4);
}

#[test]
fn a_copy_from_before_it_was_written_anew_is_refused_and_a_crash_in_between_is_not() {
    let (_directory, path) = place();
    add(&path, 256..258);
    let (older, mark) = (fs::read(&path).unwrap(), fs::read(mark_path(&path)).unwrap());
    let (mut file, identities) = IdentityFile::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    file.append(&[IdentityRecord::Released { number: 256, at: 7 }], &identities).unwrap();
    assert_eq!(file.rewritten(), 1);
    drop(file);
    let newer = fs::read(&path).unwrap();
    assert_eq!(known(&path).len(), 2);
    fs::write(&path, older).unwrap();
    assert!(matches!(IdentityFile::open(&path), Err(IdentityFileError::Older { .. })));
    // The log is there and the mark is not moved yet.
    fs::write(&path, newer).unwrap();
    fs::write(mark_path(&path), mark).unwrap();
    assert_eq!(known(&path).len(), 2);
}

#[test]
fn a_file_that_is_removed_while_it_runs_is_written_again_with_everything() {
    let (directory, path) = place();
    let (mut file, _) = IdentityFile::open(&path).unwrap();
    let losses: [&dyn Fn(); 4] = [
        &|| fs::remove_file(&path).unwrap(),
        &|| fs::remove_file(mark_path(&path)).unwrap(),
        &|| fs::remove_dir_all(directory.path()).unwrap(),
        &|| {
            drop(
                fs::write(path.with_extension("x"), "")
                    .and_then(|()| fs::rename(path.with_extension("x"), &path)),
            )
        },
    ];
    for (index, lose) in losses.iter().enumerate() {
        let number = 256 + u32::try_from(index).unwrap();
        lose();
        let identities = Identities::replay((256..=number).map(given)).unwrap();
        file.append(&[given(number)], &identities).unwrap();
        assert_eq!((file.rewritten(), known(&path).len()), (index as u64 + 1, index + 1));
        // Opening it has put another mark there: this is the only process in a run.
        file = IdentityFile::open(&path)
            .map(|(opened, _)| IdentityFile { rewritten: file.rewritten, ..opened })
            .unwrap();
    }
}

#[test]
fn a_start_writes_nothing_new() {
    let (_directory, path) = place();
    add(&path, 256..258);
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let before = (inode(&path), inode(&mark_path(&path)));
    // Neither file nor directory has room for another.
    fs::create_dir(path.with_extension("new")).unwrap();
    assert_eq!(known(&path).len(), 2);
    add(&path, 258..259);
    assert_eq!((inode(&path), inode(&mark_path(&path))), before);
}

#[test]
fn a_file_that_has_grown_is_written_anew() {
    let (_directory, path) = place();
    let (mut file, _) = IdentityFile::open(&path).unwrap();
    let identities = Identities::replay([given(256)]).unwrap();
    file.append(&[given(256)], &identities).unwrap();
    for at in 0..2_000 {
        let records = [IdentityRecord::Released { number: 256, at }, IdentityRecord::Taken { number: 256 }];
        file.append(&records, &identities).unwrap();
    }
    assert_eq!(file.rewritten(), 0, "that is no loss");
    drop(file);
    let lines = fs::read(&path).unwrap().split(|byte| *byte == b'\n').count();
    assert!(lines <= MIN_RECORDS + 1, "{lines}");
    assert_eq!(known(&path), [given(256)]);
}
