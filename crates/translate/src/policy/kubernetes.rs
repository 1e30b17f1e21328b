// SPDX-License-Identifier: Apache-2.0
//! NetworkPolicy of Kubernetes.

use weft_api::{
    core::L4Protocol,
    decode::DecodeError,
    policy::{IntOrString, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, PolicyType},
};
use weft_ir::{
    Operator, Peer, Policy, PolicyDirection, PolicyKind, PolicyPort, PolicyRule, PortRule, Protocol,
    Requirement, Selector, Tier,
};

use super::{cilium::cidr_set, object_name, selectors};
use crate::workload::{NAMESPACE_LABEL, NAMESPACE_LABELS_PREFIX};

/// Translates a policy, which has one rule.
pub(super) fn translate(policy: &NetworkPolicy) -> Result<Vec<Policy>, DecodeError> {
    let spec = &policy.spec;
    let name = object_name(&policy.metadata);
    let namespace = &*name.namespace;
    let mut subject = selectors::kubernetes("spec.podSelector", "k8s:", &spec.pod_selector)?;
    subject.push(selectors::in_namespace(namespace));
    let closes = |direction| match spec.policy_types.as_slice() {
        // The default: ingress always, egress where the policy has such rules.
        [] => {
            direction == PolicyType::Ingress
                || spec.egress.as_ref().is_some_and(|entries| !entries.is_empty())
        }
        types => types.contains(&direction),
    };
    let mut ingress = PolicyDirection::default();
    if closes(PolicyType::Ingress) {
        ingress.default_deny = true;
        for (at, entry) in spec.ingress.iter().flatten().enumerate() {
            let path = format!("spec.ingress[{at}]");
            ingress.allow.push(rule(namespace, &path, "from", &entry.from, &entry.ports)?);
        }
    }
    let mut egress = PolicyDirection::default();
    if closes(PolicyType::Egress) {
        egress.default_deny = true;
        for (at, entry) in spec.egress.iter().flatten().enumerate() {
            let path = format!("spec.egress[{at}]");
            egress.allow.push(rule(namespace, &path, "to", &entry.to, &entry.ports)?);
        }
    }
    Ok(vec![Policy {
        kind: PolicyKind::NetworkPolicy,
        name: name.clone(),
        index: 0,
        tier: Tier::Normal,
        priority: 0,
        subject: Selector { requirements: subject },
        ingress,
        egress,
    }])
}

fn rule(
    namespace: &str,
    path: &str,
    field: &str,
    peers: &[NetworkPolicyPeer],
    ports: &[NetworkPolicyPort],
) -> Result<PolicyRule, DecodeError> {
    let one_peer = |(at, entry)| peer(namespace, &format!("{path}.{field}[{at}]"), entry);
    let one_port = |(at, entry)| port(&format!("{path}.ports[{at}]"), entry);
    let mut found: Vec<Peer> = peers.iter().enumerate().map(one_peer).collect::<Result<_, _>>()?;
    if found.is_empty() {
        found.push(Peer::Any);
    }
    let ports = ports.iter().enumerate().map(one_port).collect::<Result<_, _>>()?;
    Ok(PolicyRule { peers: found, ports, authenticate: false })
}

fn peer(namespace: &str, path: &str, peer: &NetworkPolicyPeer) -> Result<Peer, DecodeError> {
    match (&peer.pod_selector, &peer.namespace_selector, &peer.ip_block) {
        (None, None, Some(block)) => cidr_set(&format!("{path}.ipBlock"), block),
        (_, _, Some(_)) => Err(DecodeError::new(path, "ipBlock cannot be combined with selectors")),
        (None, None, None) => {
            Err(DecodeError::new(path, "one of podSelector, namespaceSelector and ipBlock is required"))
        }
        (pods, namespaces, None) => {
            let mut requirements = match pods {
                Some(pods) => selectors::kubernetes(&format!("{path}.podSelector"), "k8s:", pods)?,
                None => Vec::new(),
            };
            match namespaces {
                None => requirements.push(selectors::in_namespace(namespace)),
                Some(wanted) => {
                    let prefix = format!("k8s:{NAMESPACE_LABELS_PREFIX}");
                    requirements.push(any_namespace());
                    requirements.extend(selectors::kubernetes(
                        &format!("{path}.namespaceSelector"),
                        &prefix,
                        wanted,
                    )?);
                }
            }
            Ok(Peer::Selector(Selector { requirements }))
        }
    }
}

/// Only pods live in namespaces: without this, conditions on missing labels would fit anybody.
fn any_namespace() -> Requirement {
    Requirement { key: format!("k8s:{NAMESPACE_LABEL}").into(), operator: Operator::Exists }
}

fn port(path: &str, port: &NetworkPolicyPort) -> Result<PortRule, DecodeError> {
    let protocol = match port.protocol {
        L4Protocol::Tcp => Protocol::Tcp,
        L4Protocol::Udp => Protocol::Udp,
        L4Protocol::Sctp => Protocol::Sctp,
    };
    let refuse = |field: &str, message: &str| Err(DecodeError::new(format!("{path}.{field}"), message));
    let found = match (&port.port, port.end_port) {
        (None, None) => PolicyPort::Any,
        (None, Some(_)) => return refuse("endPort", "needs a port"),
        (Some(IntOrString::String(_)), Some(_)) => {
            return refuse("endPort", "a named port cannot have an end");
        }
        (Some(IntOrString::String(name)), None) => PolicyPort::Named(name.clone()),
        (Some(IntOrString::Int(first)), last) => {
            let last = last.unwrap_or(*first);
            match (u16::try_from(*first), u16::try_from(last)) {
                (Ok(first @ 1..), Ok(last)) if last >= first => PolicyPort::Range(first, last),
                (Ok(1..), _) => return refuse("endPort", "is no port behind the first"),
                _ => return refuse("port", "must be 1 to 65535"),
            }
        }
    };
    Ok(PortRule { port: found, protocol: Some(protocol), l7: None })
}
