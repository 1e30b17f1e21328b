// SPDX-License-Identifier: Apache-2.0
//! What the translation is told besides the objects.

use std::sync::Arc;

use weft_ir::MeshDefaults;

/// The settings of the translation.
#[derive(Clone, Debug)]
pub struct Translator {
    /// The cluster's name, which is a label of every identity.
    pub cluster: Arc<str>,
    /// Settings for every node.
    pub defaults: MeshDefaults,
}

impl Default for Translator {
    /// The cluster `default`, as Cilium names it.
    fn default() -> Translator {
        Translator { cluster: "default".into(), defaults: MeshDefaults::default() }
    }
}
