// SPDX-License-Identifier: Apache-2.0
//! CiliumNetworkPolicy.

use std::sync::Arc;

use ipnet::IpNet;
use weft_api::{
    decode::DecodeError,
    policy::{
        CidrRule, CiliumEgress, CiliumIngress, CiliumNetworkPolicy, CiliumPortRule, CiliumRule, LabelSelector,
    },
};
use weft_ir::{Entity, ObjectName, Peer, Policy, PolicyDirection, PolicyKind, PolicyRule, Tier};

use super::{
    cilium_ports::{self, Action},
    object_name, selectors,
};

/// Translates every rule of a policy.
pub(super) fn translate(policy: &CiliumNetworkPolicy) -> Result<Vec<Policy>, DecodeError> {
    let name = object_name(&policy.metadata);
    let spec = policy.spec.iter().map(|rule| ("spec".to_owned(), rule));
    let specs = policy.specs.iter().enumerate().map(|(at, rule)| (format!("specs[{at}]"), rule));
    let policies: Vec<Policy> = (0..)
        .zip(spec.chain(specs))
        .map(|(index, (path, rule))| translate_rule(&name, index, &path, rule))
        .collect::<Result<_, _>>()?;
    if policies.is_empty() {
        return Err(DecodeError::new("spec", "one of spec and specs is required"));
    }
    Ok(policies)
}

fn translate_rule(
    name: &ObjectName,
    index: u32,
    path: &str,
    rule: &CiliumRule,
) -> Result<Policy, DecodeError> {
    let Some(subject) = &rule.endpoint_selector else {
        return Err(DecodeError::new(format!("{path}.endpointSelector"), "is required"));
    };
    let sections = [
        rule.ingress.is_some(),
        rule.ingress_deny.is_some(),
        rule.egress.is_some(),
        rule.egress_deny.is_some(),
    ];
    if !sections.contains(&true) {
        return Err(DecodeError::new(path, "one of ingress, ingressDeny, egress and egressDeny is required"));
    }
    let namespace = &*name.namespace;
    let incoming = |section: &str, rules: &Option<Vec<CiliumIngress>>, action| {
        section_rules(path, section, rules, |at, entry: &CiliumIngress| ingress(namespace, at, entry, action))
    };
    let outgoing = |section: &str, rules: &Option<Vec<CiliumEgress>>, action| {
        section_rules(path, section, rules, |at, entry: &CiliumEgress| egress(namespace, at, entry, action))
    };
    let named = |allow: usize, deny: usize| allow + deny > 0;
    let count = |length: Option<usize>| length.unwrap_or(0);
    let names_ingress =
        named(count(rule.ingress.as_ref().map(Vec::len)), count(rule.ingress_deny.as_ref().map(Vec::len)));
    let names_egress =
        named(count(rule.egress.as_ref().map(Vec::len)), count(rule.egress_deny.as_ref().map(Vec::len)));
    let kind = match namespace {
        "" => PolicyKind::CiliumClusterwideNetworkPolicy,
        _ => PolicyKind::CiliumNetworkPolicy,
    };
    Ok(Policy {
        kind,
        name: name.clone(),
        index,
        tier: Tier::Normal,
        priority: 0,
        subject: selectors::subject(&format!("{path}.endpointSelector"), namespace, subject)?,
        ingress: PolicyDirection {
            default_deny: rule.enable_default_deny.ingress.unwrap_or(names_ingress),
            allow: incoming("ingress", &rule.ingress, Action::Allow)?,
            deny: incoming("ingressDeny", &rule.ingress_deny, Action::Deny)?,
        },
        egress: PolicyDirection {
            default_deny: rule.enable_default_deny.egress.unwrap_or(names_egress),
            allow: outgoing("egress", &rule.egress, Action::Allow)?,
            deny: outgoing("egressDeny", &rule.egress_deny, Action::Deny)?,
        },
    })
}

/// Translates the entries of a section. An entry that says nothing at all allows nothing.
fn section_rules<T: Default + PartialEq>(
    path: &str,
    section: &str,
    entries: &Option<Vec<T>>,
    translate: impl Fn(&str, &T) -> Result<PolicyRule, DecodeError>,
) -> Result<Vec<PolicyRule>, DecodeError> {
    let entries = entries.as_deref().unwrap_or_default();
    let empty = T::default();
    let stated = entries.iter().enumerate().filter(|(_, entry)| **entry != empty);
    stated.map(|(at, entry)| translate(&format!("{path}.{section}[{at}]"), entry)).collect()
}

fn ingress(
    namespace: &str,
    path: &str,
    entry: &CiliumIngress,
    action: Action,
) -> Result<PolicyRule, DecodeError> {
    let peers = Peers {
        direction: "from",
        endpoints: entry.from_endpoints.as_deref(),
        entities: entry.from_entities.as_deref(),
        cidrs: entry.from_cidr.as_deref(),
        cidr_sets: entry.from_cidr_set.as_deref(),
    };
    rule(namespace, path, &peers, &entry.to_ports, action)
}

fn egress(
    namespace: &str,
    path: &str,
    entry: &CiliumEgress,
    action: Action,
) -> Result<PolicyRule, DecodeError> {
    let peers = Peers {
        direction: "to",
        endpoints: entry.to_endpoints.as_deref(),
        entities: entry.to_entities.as_deref(),
        cidrs: entry.to_cidr.as_deref(),
        cidr_sets: entry.to_cidr_set.as_deref(),
    };
    rule(namespace, path, &peers, &entry.to_ports, action)
}

fn rule(
    namespace: &str,
    path: &str,
    peers: &Peers<'_>,
    ports: &[CiliumPortRule],
    action: Action,
) -> Result<PolicyRule, DecodeError> {
    Ok(PolicyRule {
        peers: peers.translate(namespace, path)?,
        ports: cilium_ports::translate(path, ports, action)?,
        // `authentication` is refused: nothing could prove who a peer is.
        authenticate: false,
    })
}

/// The peers of an entry, whichever its direction.
struct Peers<'a> {
    direction: &'static str,
    endpoints: Option<&'a [LabelSelector]>,
    entities: Option<&'a [Arc<str>]>,
    cidrs: Option<&'a [Arc<str>]>,
    cidr_sets: Option<&'a [CidrRule]>,
}

impl Peers<'_> {
    /// Nothing given means anybody; given but empty means nobody; two kinds of peers are an error.
    fn translate(&self, namespace: &str, path: &str) -> Result<Vec<Peer>, DecodeError> {
        let kinds = [
            ("Endpoints", self.endpoints.map(<[_]>::len)),
            ("Entities", self.entities.map(<[_]>::len)),
            ("CIDR", self.cidrs.map(<[_]>::len)),
            ("CIDRSet", self.cidr_sets.map(<[_]>::len)),
        ];
        if kinds.iter().all(|(_, length)| length.is_none()) {
            return Ok(vec![Peer::Any]);
        }
        let given: Vec<String> = kinds
            .iter()
            .filter(|(_, length)| length.is_some_and(|length| length > 0))
            .map(|(name, _)| format!("{}{name}", self.direction))
            .collect();
        if given.len() > 1 {
            return Err(DecodeError::new(path, format!("{} cannot be combined", given.join(" and "))));
        }
        let mut peers = Vec::new();
        for (at, selector) in self.endpoints.unwrap_or_default().iter().enumerate() {
            let path = format!("{path}.{}Endpoints[{at}]", self.direction);
            peers.push(Peer::Selector(selectors::peer(&path, namespace, selector)?));
        }
        for (at, name) in self.entities.unwrap_or_default().iter().enumerate() {
            peers.push(Peer::Entity(entity(&format!("{path}.{}Entities[{at}]", self.direction), name)?));
        }
        for (at, text) in self.cidrs.unwrap_or_default().iter().enumerate() {
            let cidr = prefix(&format!("{path}.{}CIDR[{at}]", self.direction), text)?;
            peers.push(Peer::Cidr { cidr, except: Vec::new() });
        }
        for (at, set) in self.cidr_sets.unwrap_or_default().iter().enumerate() {
            peers.push(cidr_set(&format!("{path}.{}CIDRSet[{at}]", self.direction), set)?);
        }
        Ok(peers)
    }
}

fn entity(path: &str, name: &str) -> Result<Entity, DecodeError> {
    Ok(match name {
        "all" => Entity::All,
        "world" => Entity::World,
        "cluster" => Entity::Cluster,
        "host" => Entity::Host,
        "remote-node" => Entity::RemoteNode,
        "kube-apiserver" => Entity::KubeApiserver,
        "ingress" => Entity::Ingress,
        "none" => Entity::None,
        "init" | "unmanaged" | "health" | "cluster-mesh" => {
            return Err(DecodeError::new(path, format!("the entity `{name}` is not supported")));
        }
        _ => return Err(DecodeError::new(path, format!("`{name}` is no entity"))),
    })
}

/// A prefix, or an address, which is a prefix of full length.
fn prefix(path: &str, text: &str) -> Result<IpNet, DecodeError> {
    let parsed = weft_api::policy::prefix(text).or_else(|error| {
        let address = text.parse::<std::net::IpAddr>();
        address.map(IpNet::from).map_err(|_not_an_address| error)
    });
    parsed.map(|cidr| cidr.trunc()).map_err(|error| DecodeError::new(path, error))
}

/// A prefix with exceptions, which must lie inside of it.
pub(super) fn cidr_set(path: &str, set: &CidrRule) -> Result<Peer, DecodeError> {
    for (at, except) in set.except.iter().enumerate() {
        if !set.cidr.contains(except) {
            let message = format!("`{except}` does not lie inside of `{}`", set.cidr);
            return Err(DecodeError::new(format!("{path}.except[{at}]"), message));
        }
    }
    Ok(Peer::Cidr { cidr: set.cidr.trunc(), except: set.except.iter().map(IpNet::trunc).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_no_octet_with_a_leading_zero() {
        for good in ["10.0.0.0/8", "10.0.0.1", "2001:db8::1"] {
            assert!(prefix("at", good).is_ok(), "{good}");
        }
        for bad in ["010.0.0.0/8", "010.0.0.1", "10.0.0.01/32", "10.0.0"] {
            assert!(prefix("at", bad).is_err(), "{bad}");
        }
    }
}
