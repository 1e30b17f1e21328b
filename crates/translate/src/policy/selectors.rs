// SPDX-License-Identifier: Apache-2.0
//! Label selectors of policies, with Cilium's sources and scoping.

use std::sync::Arc;

use weft_api::{
    decode::DecodeError,
    policy::{LabelSelector, SelectorOperator},
};
use weft_ir::{Operator, Requirement, Selector, is_label_key};

use crate::workload::{LEFT_OUT_LABELS, NAMESPACE_LABEL, NAMESPACE_LABELS_PREFIX};

/// The sources that a key may begin with (`pkg/labels` of Cilium). Only labels of Kubernetes exist.
const SOURCES: [&str; 3] = ["k8s", "any", "reserved"];

/// The subject of a CiliumNetworkPolicy: always in the policy's own namespace.
pub(super) fn subject(
    path: &str,
    namespace: &str,
    selector: &LabelSelector,
) -> Result<Selector, DecodeError> {
    let mut found = cilium(path, selector)?;
    let names_namespace = |requirement: &Requirement| {
        is_namespace(&requirement.key) && matches!(requirement.operator, Operator::In(_))
    };
    found.requirements.retain(|requirement| !names_namespace(requirement));
    found.requirements.push(in_namespace(namespace));
    Ok(found)
}

/// A peer of a CiliumNetworkPolicy: in the policy's own namespace, unless the selector speaks of
/// namespaces itself.
pub(super) fn peer(path: &str, namespace: &str, selector: &LabelSelector) -> Result<Selector, DecodeError> {
    let mut found = cilium(path, selector)?;
    let scoped = found.requirements.iter().any(|requirement| speaks_of_namespaces(&requirement.key));
    if !scoped {
        found.requirements.push(in_namespace(namespace));
    }
    Ok(found)
}

/// A selector of a NetworkPolicy over pod labels (`prefix` is `k8s:`) or namespace labels.
pub(super) fn kubernetes(
    path: &str,
    prefix: &str,
    selector: &LabelSelector,
) -> Result<Vec<Requirement>, DecodeError> {
    requirements(path, selector, |key| match is_label_key(key) {
        true => Ok(format!("{prefix}{key}").into()),
        false => Err(format!("`{key}` is no key of a label")),
    })
}

/// The conditions of a selector of Cilium, without any scope.
pub(super) fn unscoped(path: &str, selector: &LabelSelector) -> Result<Vec<Requirement>, DecodeError> {
    cilium(path, selector).map(|found| found.requirements)
}

/// The condition that a workload lives in this namespace.
pub(super) fn in_namespace(namespace: &str) -> Requirement {
    Requirement {
        key: format!("k8s:{NAMESPACE_LABEL}").into(),
        operator: Operator::In(vec![namespace.into()]),
    }
}

fn cilium(path: &str, selector: &LabelSelector) -> Result<Selector, DecodeError> {
    let requirements = requirements(path, selector, |key| match key.split_once(':') {
        None => Ok(format!("any:{key}").into()),
        Some((source, _)) if !SOURCES.contains(&source) => {
            Err(format!("labels of source `{source}` are not supported"))
        }
        Some(("reserved", _)) => {
            Err(format!("`{key}` is not supported in a selector; name an entity instead"))
        }
        Some(_) => Ok(key.into()),
    })?;
    Ok(Selector { requirements })
}

fn requirements(
    path: &str,
    selector: &LabelSelector,
    key: impl Fn(&str) -> Result<Arc<str>, String>,
) -> Result<Vec<Requirement>, DecodeError> {
    // What Cilium puts in front of a label (a source, and of a namespace's label where it is from) counts for no
    // length of it.
    let is_key = |key: &str| {
        let plain = key.split_once(':').map_or(key, |(_, rest)| rest);
        is_label_key(plain.strip_prefix(NAMESPACE_LABELS_PREFIX).unwrap_or(plain))
    };
    weft_gateway_api::selector::check(selector, is_key).map_err(|message| DecodeError::new(path, message))?;
    let key = |text: &str| {
        let plain = text.split_once(':').map_or(text, |(_, rest)| rest);
        if LEFT_OUT_LABELS.contains(&plain) {
            let message =
                format!("the label `{plain}` is not part of identities, so no policy can select it");
            return Err(DecodeError::new(path, message));
        }
        key(text).map_err(|message| DecodeError::new(path, message))
    };
    let mut found = Vec::new();
    for (name, value) in &selector.match_labels {
        found.push(Requirement { key: key(name)?, operator: Operator::In(vec![value.clone()]) });
    }
    for expression in &selector.match_expressions {
        let operator = match expression.operator {
            SelectorOperator::In => Operator::In(expression.values.clone()),
            SelectorOperator::NotIn => Operator::NotIn(expression.values.clone()),
            SelectorOperator::Exists => Operator::Exists,
            SelectorOperator::DoesNotExist => Operator::DoesNotExist,
        };
        found.push(Requirement { key: key(&expression.key)?, operator });
    }
    Ok(found)
}

fn is_namespace(key: &str) -> bool {
    matches!(key.split_once(':'), Some(("k8s" | "any", NAMESPACE_LABEL)))
}

fn speaks_of_namespaces(key: &str) -> bool {
    is_namespace(key)
        || key.split_once(':').is_some_and(|(_, rest)| rest.starts_with(NAMESPACE_LABELS_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_no_label_can_have_is_refused_and_prefixes_of_cilium_are_none_of_it() {
        let wanted = |key: &str, value: &str| {
            let match_labels = [(Arc::from(key), Arc::from(value))].into();
            cilium("at", &LabelSelector { match_labels, ..LabelSelector::default() }).map(drop)
        };
        let long = "x".repeat(63);
        for key in
            ["app", "k8s:app.kubernetes.io/name", "any:app", &format!("k8s:{NAMESPACE_LABELS_PREFIX}{long}")]
        {
            assert!(wanted(key, "a").is_ok(), "{key}");
        }
        for key in ["app ", "k8s:", "k8s:any:app", "", &format!("k8s:{long}x")] {
            assert!(wanted(key, "a").is_err(), "{key}");
        }
        assert!(wanted("app", "a b").is_err() && wanted("app", "").is_ok());
    }
}
