// SPDX-License-Identifier: Apache-2.0
//! Policies that exist, but that this node could not read and never had in an earlier version.

use std::{collections::BTreeSet, sync::Arc};

use weft_ir::{ResourceKey, Snapshot};

/// The namespaces that such policies close.
///
/// Nobody can tell which workloads an unreadable policy selects, or whether it denies what another one
/// allows. A namespaced policy can only select workloads of its own namespace, so all of those are
/// closed in both directions, except for what the local host sends to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rejected {
    namespaces: BTreeSet<Arc<str>>,
    everything: bool,
}

impl Rejected {
    /// A policy whose last good version is still in the state closes nothing, one of the cluster closes
    /// everything. So does a key that this build does not know: a controller leaves out what a node
    /// cannot know, so that such a key is damage, and may name a policy.
    pub(crate) fn of(keys: &[ResourceKey], snapshot: &Snapshot) -> Rejected {
        let mut rejected = Rejected::default();
        for key in keys {
            if snapshot.resources.contains_key(key) {
                continue;
            }
            match key {
                ResourceKey::Policy { kind, name, .. } if kind.is_namespaced() => {
                    rejected.namespaces.insert(name.namespace.clone());
                }
                ResourceKey::Policy { .. } | ResourceKey::Unknown(_) => rejected.everything = true,
                _ => {}
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
    use weft_ir::{ObjectName, PolicyKind};

    use super::*;

    fn policy(kind: PolicyKind, namespace: &str) -> ResourceKey {
        ResourceKey::Policy { kind, name: ObjectName::new(namespace, "x"), index: 0 }
    }

    #[test]
    fn a_key_closes_the_namespace_that_it_names() {
        let keys =
            [policy(PolicyKind::NetworkPolicy, "shop"), ResourceKey::Workload(ObjectName::new("bank", "x"))];
        let rejected = Rejected::of(&keys, &Snapshot::default());
        assert!(rejected.closes(Some("shop")));
        assert!(!rejected.closes(Some("bank")));
        assert!(!rejected.closes(None));
    }

    #[test]
    fn a_policy_of_the_cluster_and_an_unknown_key_close_everything() {
        let clusterwide = policy(PolicyKind::CiliumClusterwideNetworkPolicy, "");
        for key in [clusterwide, ResourceKey::parse("policy/odd"), ResourceKey::parse("")] {
            let rejected = Rejected::of(std::slice::from_ref(&key), &Snapshot::default());
            assert!(rejected.closes(Some("shop")) && rejected.closes(None), "{key}");
        }
    }
}
