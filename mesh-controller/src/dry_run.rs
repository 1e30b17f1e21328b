// SPDX-License-Identifier: Apache-2.0
//! One translation without nodes: what would be served, and what is rejected.

use std::path::Path;

use weft_manifests::{Fault, Manifests};
use weft_translate::{Preview, Problem, Store, Translator};

use crate::intake::EMPTY;

/// Reads and translates once; that a controller would not start on a source without any object is a problem, too.
/// Blocks on the disk.
pub fn preview(source: &Path, allow_empty: bool, translator: &Translator) -> Preview {
    let scan = Manifests::new([source.to_owned()]).scan();
    let unread =
        |fault: &Fault| Problem::unread(&fault.path.display().to_string(), fault.line, &fault.reason);
    let mut problems: Vec<Problem> = scan.faults.iter().map(unread).collect();
    let texts = || scan.changed.iter().map(|(name, text)| (&**name, &**text));
    if !allow_empty && problems.is_empty() && Store::default().would_be_empty(texts(), []) {
        problems.push(Problem::unread(&source.display().to_string(), 0, EMPTY));
    }
    Preview::new(translator, texts(), problems)
}
