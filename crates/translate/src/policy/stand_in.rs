// SPDX-License-Identifier: Apache-2.0
//! What stands in for a policy that was refused: the workloads that it names are closed in the
//! directions that it names. What cannot be understood is taken in the widest sense.

use serde_json::Value;
use weft_api::{
    object::{Kind, ObjectKey, decode_as},
    policy::LabelSelector,
};
use weft_ir::{ObjectName, Operator, Policy, PolicyDirection, PolicyKind, Requirement, Selector, Tier};

use super::selectors;
use crate::workload::NAMESPACE_LABEL;

/// The closed policies for a refused object. A host policy (`nodeSelector` alone) has none, since no
/// policy of Weft speaks about nodes.
pub fn stand_in(key: &ObjectKey, value: &Value) -> Vec<Policy> {
    let kind = match key.kind {
        Kind::NetworkPolicy => PolicyKind::NetworkPolicy,
        Kind::CiliumClusterwideNetworkPolicy => PolicyKind::CiliumClusterwideNetworkPolicy,
        _ => PolicyKind::CiliumNetworkPolicy,
    };
    let mut rules: Vec<&Value> = value.get("spec").into_iter().collect();
    if let Some(Value::Array(specs)) = value.get("specs") {
        rules.extend(specs);
    }
    if rules.is_empty() {
        rules.push(&Value::Null);
    }
    let clusterwide = key.kind == Kind::CiliumClusterwideNetworkPolicy;
    (0..)
        .zip(rules)
        .filter(|(_, rule)| {
            !(clusterwide && rule.get("nodeSelector").is_some() && rule.get("endpointSelector").is_none())
        })
        .map(|(index, rule)| {
            let (ingress, egress) = directions(kind, rule);
            Policy {
                kind,
                name: ObjectName { namespace: key.namespace.clone(), name: key.name.clone() },
                index,
                tier: Tier::Normal,
                priority: 0,
                subject: subject(kind, &key.namespace, rule),
                ingress: PolicyDirection { default_deny: ingress, ..PolicyDirection::default() },
                egress: PolicyDirection { default_deny: egress, ..PolicyDirection::default() },
            }
        })
        .collect()
}

/// The directions that a rule names; both where it names none.
fn directions(kind: PolicyKind, rule: &Value) -> (bool, bool) {
    let has = |field: &str| rule.get(field).is_some();
    let (mut ingress, mut egress) =
        (has("ingress") || has("ingressDeny"), has("egress") || has("egressDeny"));
    if kind == PolicyKind::NetworkPolicy {
        match rule.get("policyTypes") {
            Some(Value::Array(types)) if !types.is_empty() => {
                ingress |= types.iter().any(|name| name == "Ingress");
                egress |= types.iter().any(|name| name == "Egress");
            }
            _ => ingress = true,
        }
        if !rule.is_object() {
            egress = true;
        }
    }
    if ingress || egress { (ingress, egress) } else { (true, true) }
}

/// The workloads that a rule names. An empty namespace stands for every one.
fn subject(kind: PolicyKind, namespace: &str, rule: &Value) -> Selector {
    let scope = if namespace.is_empty() {
        Requirement { key: format!("k8s:{NAMESPACE_LABEL}").into(), operator: Operator::Exists }
    } else {
        selectors::in_namespace(namespace)
    };
    let everything = Selector { requirements: vec![scope.clone()] };
    let field = if kind == PolicyKind::NetworkPolicy { "podSelector" } else { "endpointSelector" };
    let selector = match rule.get(field).map(decode_as::<LabelSelector>) {
        Some(Ok(decoded)) if decoded.unknown.is_empty() => decoded.object,
        Some(Ok(_) | Err(_)) | None => return everything,
    };
    let found = match kind {
        PolicyKind::NetworkPolicy => selectors::kubernetes(field, "k8s:", &selector),
        PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy => {
            selectors::unscoped(field, &selector)
        }
    };
    match found {
        Ok(requirements) => Selector { requirements: [requirements, vec![scope]].concat() },
        Err(_) => everything,
    }
}
