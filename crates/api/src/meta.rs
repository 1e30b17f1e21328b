// SPDX-License-Identifier: Apache-2.0
//! `metadata`, which every object has.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;
use weft_time::Timestamp;

/// Every field that Kubernetes has in `metadata`. Any other is a slip: it may have been meant to say which
/// namespace or which labels an object has.
pub(crate) const FIELDS: [&str; 16] = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "clusterName",
];

/// Whether a path within `metadata`, such as `.labels[a/b]`, begins with one of its fields.
pub(crate) fn is_field(path: &str) -> bool {
    let field = path.strip_prefix('.').and_then(|path| path.split(['.', '[']).next());
    field.is_some_and(|field| FIELDS.contains(&field))
}

/// The part of `metadata` that is read.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// The name; required of every object.
    pub name: Arc<str>,
    /// The namespace; empty where the object has none.
    pub namespace: Arc<str>,
    /// Labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Annotations.
    pub annotations: BTreeMap<Arc<str>, Arc<str>>,
    /// When the object was made.
    pub creation_timestamp: Option<Timestamp>,
    /// When its deletion was asked for; it then waits for its end or for finalizers.
    pub deletion_timestamp: Option<Timestamp>,
    /// Counts the changes of `spec`; absent in files.
    pub generation: Option<i64>,
    /// Who owns the object.
    pub owner_references: Vec<OwnerReference>,
}

impl Metadata {
    /// `creationTimestamp` in seconds since 1970; 0 when it is absent.
    pub fn created(&self) -> i64 {
        self.creation_timestamp.map_or(0, |time| time.seconds() as i64)
    }
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OwnerReference {
    /// The owner's kind.
    pub kind: Arc<str>,
    /// The owner's name.
    pub name: Arc<str>,
    /// Whether this owner is the managing controller.
    pub controller: bool,
}
