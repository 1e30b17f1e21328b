// SPDX-License-Identifier: Apache-2.0
//! One translation without nodes: what would be served, and what is rejected.

use std::path::Path;

use weft_manifests::{Fault, Manifests};
use weft_translate::{Preview, Problem, Translator};

/// Reads and translates once. Blocks on the disk.
pub fn preview(source: &Path, translator: &Translator) -> Preview {
    let scan = Manifests::new([source.to_owned()]).scan();
    let texts = scan.changed.iter().map(|(name, text)| (&**name, &**text));
    let unread =
        |fault: &Fault| Problem::unread(&fault.path.display().to_string(), fault.line, &fault.reason);
    Preview::new(translator, texts, scan.faults.iter().map(unread).collect())
}
