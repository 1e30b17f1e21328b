// SPDX-License-Identifier: Apache-2.0
//! What goes wrong with programs and pins.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::programs::ProgramError;

/// What went wrong while loading or attaching.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bpf file system or a pin could not be used.
    #[error("{path}: {source}")]
    Path {
        /// Which path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Programs of one CPU may run into each other on this kernel.
    #[error(
        "a real-time kernel (PREEMPT_RT) lets programs of one CPU interrupt each other, and they share \
         the packet in hand: use another kernel, or --no-redirect"
    )]
    RealTime,
    /// The object could not be loaded.
    #[error("kernel programs could not be read or their maps not be made: {0}")]
    Object(#[from] aya::EbpfError),
    /// The kernel refused a program.
    #[error("kernel program {name}: {source}")]
    Program {
        /// Which program.
        name: String,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A program could not be attached.
    #[error("kernel program {name} could not be attached: {source}")]
    Attach {
        /// Which program.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The filters on devices could not be listed or removed.
    #[error("filters on devices (tc): {0}")]
    Filters(io::Error),
}

/// The error at a path.
pub(crate) fn path_error(path: &Path) -> impl FnOnce(io::Error) -> LoadError + '_ {
    |source| LoadError::Path { path: path.to_owned(), source }
}
