// SPDX-License-Identifier: Apache-2.0
//! Reads one file, with a bound.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{Fault, MAX_FILE_BYTES, bounds::Bounds};

enum Content {
    Gone,
    Outside,
    TooLarge,
    Bytes(Vec<u8>),
}

/// The text of a file; nothing where it is gone.
pub(crate) fn read(path: &Path, bounds: &Bounds) -> Result<Option<String>, Fault> {
    match content(path, bounds) {
        // As one that is about to be written, or that a full disk left: nobody means to say nothing by it.
        Ok(Content::Bytes(bytes)) if bytes.is_empty() => Err(Fault::new(
            path,
            0,
            "is empty: write it, or remove it; a comment in it says that it is meant",
        )),
        Ok(Content::Bytes(bytes)) => text(path, bytes).map(Some),
        Ok(Content::TooLarge) => {
            let reason = format!("is larger than {} MiB: split it into several files", MAX_FILE_BYTES >> 20);
            Err(Fault::new(path, 0, reason))
        }
        Ok(Content::Outside) => Err(Fault::new(path, 0, Bounds::LEFT)),
        Ok(Content::Gone) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Fault::new(path, 0, format_args!("cannot be read: {error}"))),
    }
}

fn content(path: &Path, bounds: &Bounds) -> io::Result<Content> {
    // What was a file when it was listed may be a pipe now; opening that must not wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Ok(Content::Gone);
    }
    // The path may have become a link since it was listed; the file that is open is what it is.
    if !bounds.hold_open(&file)? {
        return Ok(Content::Outside);
    }
    let mut bytes = Vec::new();
    if found.len() <= MAX_FILE_BYTES {
        // The file may grow while it is read.
        bytes.reserve(usize::try_from(found.len()).unwrap_or(0));
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    }
    let is_whole = found.len() <= MAX_FILE_BYTES && bytes.len() as u64 <= MAX_FILE_BYTES;
    Ok(if is_whole { Content::Bytes(bytes) } else { Content::TooLarge })
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, Fault> {
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        Fault::new(path, u32::try_from(line).unwrap_or(u32::MAX), "is not UTF-8 here: save it as UTF-8")
    })
}
