// SPDX-License-Identifier: Apache-2.0
//! Policies that exist, but that this node could not read and never had in an earlier version.

use std::collections::BTreeSet;

use weft_ir::{ResourceKey, Snapshot};

/// The namespaces that such policies close.
///
/// Nobody can tell which workloads an unreadable policy selects, or whether it denies what another one
/// allows. A namespaced policy can only select workloads of its own namespace, so all of those are
/// closed in both directions, except for what the local host sends to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rejected {
    namespaces: BTreeSet<String>,
    everything: bool,
}

impl Rejected {
    /// Reads the namespaces from the keys (`policy/<kind>/<namespace>/<name>/<index>`). A policy whose
    /// last good version is still in the state closes nothing; a key without a namespace closes all.
    pub(crate) fn of(keys: &[ResourceKey], snapshot: &Snapshot) -> Rejected {
        let mut rejected = Rejected::default();
        for key in keys {
            if key.kind() != "policy" || snapshot.resources.contains_key(key) {
                continue;
            }
            match key.0.split('/').nth(2) {
                Some(namespace) if !namespace.is_empty() => {
                    rejected.namespaces.insert(namespace.to_owned());
                }
                _ => rejected.everything = true,
            }
        }
        rejected
    }

    /// Whether workloads of the namespace are closed.
    pub(crate) fn closes(&self, namespace: Option<&str>) -> bool {
        self.everything || namespace.is_some_and(|name| self.namespaces.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_closes_the_namespace_that_it_names() {
        let keys = [ResourceKey("policy/cnp/shop/checkout/0".into()), ResourceKey("route/bank/x/0".into())];
        let rejected = Rejected::of(&keys, &Snapshot::default());
        assert!(rejected.closes(Some("shop")));
        assert!(!rejected.closes(Some("bank")));
        assert!(!rejected.closes(None));
    }

    #[test]
    fn a_policy_key_without_a_namespace_closes_everything() {
        for key in ["policy/ccnp//all/0", "policy/odd", "policy"] {
            let rejected = Rejected::of(&[ResourceKey(key.into())], &Snapshot::default());
            assert!(rejected.closes(Some("shop")) && rejected.closes(None), "{key}");
        }
    }
}
