// SPDX-License-Identifier: Apache-2.0
//! Where the workspace is, and where its binaries end up.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the workspace: the folder two levels above this crate.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Cargo's target folder: `CARGO_TARGET_DIR` where it is set.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The folder for tools that are built or fetched for this workspace only.
pub(crate) fn tools() -> PathBuf {
    target().join("tools")
}

/// A binary of the workspace, as built with `profile`.
pub(crate) fn binary(name: &str, profile: &str) -> PathBuf {
    let folder = if profile == "dev" { "debug" } else { profile };
    target().join(folder).join(name)
}
