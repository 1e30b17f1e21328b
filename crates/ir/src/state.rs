// SPDX-License-Identifier: Apache-2.0
//! The whole state at one revision.

use std::sync::Arc;

use imbl::OrdMap;

use crate::{Resource, ResourceKey};

/// The whole state at one revision. A clone shares everything with the original.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Numbers the publisher's commits; 0 before the first.
    pub revision: u64,
    /// Every resource by its key.
    pub resources: OrdMap<ResourceKey, Arc<Resource>>,
}

impl Snapshot {
    /// The resources of one kind (`route`, `policy`, ...), in the order of their keys.
    pub fn of_kind<'a>(&'a self, kind: &str) -> impl Iterator<Item = (&'a ResourceKey, &'a Resource)> {
        let first = ResourceKey(format!("{kind}/").into());
        // '0' follows '/' in ASCII, so this is the first key that is not of the kind.
        let end = ResourceKey(format!("{kind}0").into());
        self.resources.range(first..end).map(|(key, resource)| (key, resource.as_ref()))
    }

    /// Adds or replaces a resource.
    pub fn insert(&mut self, resource: Resource) {
        self.resources.insert(resource.key(), Arc::new(resource));
    }
}
