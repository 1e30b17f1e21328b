// SPDX-License-Identifier: Apache-2.0
//! Identities and their labels, and the selectors that choose among them.

use std::{collections::BTreeMap, sync::Arc};

use imbl::{OrdMap, OrdSet};
use weft_ebpf_common::identity;
use weft_ir::{IdentityNumber, Operator, Requirement, Selector};

/// Labels as `source:key` to value.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// The label that names the namespace of a workload (Cilium's derived label).
pub(crate) const NAMESPACE: &str = "k8s:io.kubernetes.pod.namespace";

/// Cilium's labels of the reserved identities. `unknown` is left out on purpose: no selector matches it.
const RESERVED: [(u32, &str); 5] = [
    (identity::HOST, "reserved:host"),
    (identity::WORLD, "reserved:world"),
    (identity::REMOTE_NODE, "reserved:remote-node"),
    (identity::KUBE_APISERVER, "reserved:kube-apiserver"),
    (identity::INGRESS, "reserved:ingress"),
];

/// Every identity that a selector can match. A clone shares everything with the original.
#[derive(Clone, Debug)]
pub(crate) struct IdentityTable {
    labels: OrdMap<IdentityNumber, Arc<Labels>>,
    by_namespace: OrdMap<Arc<str>, OrdSet<IdentityNumber>>,
}

impl IdentityTable {
    /// The reserved identities.
    pub(crate) fn reserved() -> IdentityTable {
        let labels = RESERVED.map(|(number, label)| {
            let labels = Labels::from([(Arc::from(label), Arc::from(""))]);
            (IdentityNumber(number), Arc::new(labels))
        });
        IdentityTable { labels: labels.into_iter().collect(), by_namespace: OrdMap::default() }
    }

    /// Gives an identity its labels, or forgets it; yields those that it had.
    pub(crate) fn set(&mut self, number: IdentityNumber, labels: Option<Arc<Labels>>) -> Option<Arc<Labels>> {
        let old = match &labels {
            Some(labels) => self.labels.insert(number, labels.clone()),
            None => self.labels.remove(&number),
        };
        let name = |labels: &Option<Arc<Labels>>| labels.as_ref()?.get(NAMESPACE).cloned();
        let (before, now) = (name(&old), name(&labels));
        if before == now {
            return old;
        }
        if let Some(name) = now {
            self.by_namespace.entry(name).or_default().insert(number);
        }
        if let Some(name) = before
            && let Some(numbers) = self.by_namespace.get_mut(&name)
        {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_namespace.remove(&name);
            }
        }
        old
    }

    /// The labels of an identity.
    pub(crate) fn labels(&self, number: IdentityNumber) -> Option<&Arc<Labels>> {
        self.labels.get(&number)
    }

    /// The namespace of a workload's identity.
    pub(crate) fn namespace(&self, number: IdentityNumber) -> Option<&Arc<str>> {
        self.labels.get(&number)?.get(NAMESPACE)
    }

    /// Every identity, in order.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = IdentityNumber> {
        self.labels.keys().copied()
    }

    /// The identities that a selector matches, in order.
    pub(crate) fn select(&self, selector: &Selector) -> Vec<IdentityNumber> {
        let matched =
            |number: &IdentityNumber| self.labels.get(number).is_some_and(|labels| matches(selector, labels));
        match namespaces(selector) {
            Some(names) => {
                let mut numbers: Vec<IdentityNumber> = names
                    .iter()
                    .filter_map(|name| self.by_namespace.get(name))
                    .flatten()
                    .copied()
                    .filter(matched)
                    .collect();
                numbers.sort_unstable();
                numbers.dedup();
                numbers
            }
            None => self.numbers().filter(|number| matched(number)).collect(),
        }
    }
}

/// Whether the controller gave this number to a set of labels.
pub(crate) fn is_allocated(number: IdentityNumber) -> bool {
    (identity::FIRST_ALLOCATED..identity::LOCAL_SCOPE).contains(&number.0)
}

/// Whether this node gave the number to a prefix.
pub(crate) fn is_local_prefix(number: IdentityNumber) -> bool {
    number.0 & identity::LOCAL_SCOPE != 0
}

/// Whether all requirements hold for the labels.
pub(crate) fn matches(selector: &Selector, labels: &Labels) -> bool {
    selector.requirements.iter().all(|requirement| holds(requirement, labels))
}

/// The namespaces that the selector is limited to, where it says so: most selectors do, and then only
/// the identities of those namespaces need to be looked at.
pub(crate) fn namespaces(selector: &Selector) -> Option<&[Arc<str>]> {
    selector.requirements.iter().find_map(|requirement| match &requirement.operator {
        Operator::In(values) if &*requirement.key == NAMESPACE => Some(values.as_slice()),
        _ => None,
    })
}

fn holds(requirement: &Requirement, labels: &Labels) -> bool {
    let mut values = values_of(&requirement.key, labels);
    match &requirement.operator {
        Operator::In(wanted) => values.any(|value| wanted.contains(value)),
        Operator::NotIn(unwanted) => !values.any(|value| unwanted.contains(value)),
        Operator::Exists => values.next().is_some(),
        Operator::DoesNotExist => values.next().is_none(),
    }
}

/// The values of a key; the source `any` stands for every source, so there can be several.
fn values_of<'a>(key: &'a str, labels: &'a Labels) -> impl Iterator<Item = &'a Arc<str>> {
    let any_source = key.strip_prefix("any:");
    let exact = if any_source.is_none() { labels.get(key) } else { None };
    let scanned = any_source.into_iter().flat_map(move |wanted| {
        labels.iter().filter_map(move |(key, value)| {
            let name = key.split_once(':').map_or(&**key, |(_, name)| name);
            (name == wanted).then_some(value)
        })
    });
    exact.into_iter().chain(scanned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
    }

    fn holds_for(key: &str, operator: Operator) -> bool {
        let labels = labels(&[("k8s:app", "client"), ("k8s:io.kubernetes.pod.namespace", "shop")]);
        matches(&Selector { requirements: vec![Requirement { key: key.into(), operator }] }, &labels)
    }

    #[test]
    fn the_operators_are_those_of_kubernetes() {
        let client = || vec![Arc::from("client")];
        assert!(holds_for("k8s:app", Operator::In(client())));
        assert!(!holds_for("k8s:app", Operator::NotIn(client())));
        assert!(holds_for("k8s:missing", Operator::NotIn(client())));
        assert!(holds_for("k8s:app", Operator::Exists));
        assert!(!holds_for("k8s:missing", Operator::Exists));
        assert!(holds_for("k8s:missing", Operator::DoesNotExist));
        assert!(!holds_for("k8s:app", Operator::DoesNotExist));
        assert!(!holds_for("k8s:app", Operator::In(Vec::new())));
    }

    #[test]
    fn the_source_any_matches_every_source_and_another_source_does_not() {
        let client = || vec![Arc::from("client")];
        assert!(holds_for("any:app", Operator::In(client())));
        assert!(!holds_for("any:app", Operator::DoesNotExist));
        assert!(!holds_for("reserved:app", Operator::In(client())));
    }

    #[test]
    fn a_key_with_colons_is_compared_after_the_source() {
        let labels = labels(&[("k8s:a:b", "1")]);
        let selector = |key: &str| Selector {
            requirements: vec![Requirement { key: key.into(), operator: Operator::Exists }],
        };
        assert!(matches(&selector("any:a:b"), &labels));
        assert!(!matches(&selector("any:b"), &labels));
    }
}
