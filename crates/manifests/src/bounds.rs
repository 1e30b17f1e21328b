// SPDX-License-Identifier: Apache-2.0
//! What lies below the roots, whatever the links on the way to it.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

/// The roots, without any links in their paths.
#[derive(Debug, Default)]
pub(crate) struct Bounds(Vec<PathBuf>);

impl Bounds {
    /// Why a link is refused, and what to do.
    pub(crate) const LEFT: &str =
        "is a link that leads outside of the source: put in its place what it leads to";

    /// A root that is not there holds nothing.
    pub(crate) fn of(roots: &[PathBuf]) -> Bounds {
        Bounds(roots.iter().filter_map(|root| fs::canonicalize(root).ok()).collect())
    }

    /// Whether what is at a path lies below a root, or is one. False where that cannot be told.
    pub(crate) fn hold(&self, path: &Path) -> bool {
        fs::canonicalize(path).is_ok_and(|found| self.are_above(&found))
    }

    /// The same of a file that is open.
    pub(crate) fn hold_open(&self, file: &File) -> io::Result<bool> {
        fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map(|found| self.are_above(&found))
    }

    fn are_above(&self, path: &Path) -> bool {
        self.0.iter().any(|root| path.starts_with(root))
    }
}
