// SPDX-License-Identifier: Apache-2.0
//! The difference between two states.

use std::collections::BTreeMap;

use weft_ir::{Resource, ResourceKey};

/// What must change so that one state becomes another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Resources that are new or different.
    pub upserts: Vec<Resource>,
    /// Resources that are gone.
    pub removes: Vec<ResourceKey>,
}

impl Change {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removes.is_empty()
    }
}

/// Compares two states by key.
pub fn diff(old: &BTreeMap<ResourceKey, Resource>, new: &BTreeMap<ResourceKey, Resource>) -> Change {
    let changed = |(key, resource): &(&ResourceKey, &Resource)| old.get(*key) != Some(*resource);
    Change {
        upserts: new.iter().filter(changed).map(|(_, resource)| resource.clone()).collect(),
        removes: old.keys().filter(|key| !new.contains_key(*key)).cloned().collect(),
    }
}
