// SPDX-License-Identifier: Apache-2.0
//! Policies.

use super::{
    WireError,
    fields::{
        all, checked, cidr, object_name, parse_cidr, parse_object_name, parse_protocol, protocol, required,
        share, shared, small, string, strings,
    },
    generated::{self as pb, peer, port_rule},
};
use crate::{
    Entity, HttpRule, L7Rules, MAX_PRIORITY, ObjectName, Operator, Peer, Policy, PolicyDirection, PolicyKind,
    PolicyPort, PolicyRule, PortRule, Requirement, Selector, Tier, is_subdomain,
};

pub(super) fn to_wire(from: &Policy) -> pb::Policy {
    let kind = match from.kind {
        PolicyKind::CiliumNetworkPolicy => pb::PolicyKind::CiliumNetworkPolicy,
        PolicyKind::CiliumClusterwideNetworkPolicy => pb::PolicyKind::CiliumClusterwideNetworkPolicy,
        PolicyKind::NetworkPolicy => pb::PolicyKind::NetworkPolicy,
    };
    pb::Policy {
        kind: kind.into(),
        name: object_name(&from.name),
        index: from.index,
        tier: tier(from.tier).into(),
        priority: from.priority.into(),
        subject: Some(selector(&from.subject)),
        ingress: Some(direction(&from.ingress)),
        egress: Some(direction(&from.egress)),
    }
}

pub(super) fn parse(from: pb::Policy) -> Result<Policy, WireError> {
    let kind = match pb::PolicyKind::try_from(from.kind) {
        Ok(pb::PolicyKind::CiliumNetworkPolicy) => PolicyKind::CiliumNetworkPolicy,
        Ok(pb::PolicyKind::CiliumClusterwideNetworkPolicy) => PolicyKind::CiliumClusterwideNetworkPolicy,
        Ok(pb::PolicyKind::NetworkPolicy) => PolicyKind::NetworkPolicy,
        Ok(pb::PolicyKind::Unspecified) | Err(_) => {
            return Err(WireError::UnknownEnum { field: "policy.kind", value: from.kind });
        }
    };
    Ok(Policy {
        kind,
        name: parse_name(kind, from.name)?,
        index: from.index,
        tier: parse_tier(from.tier)?,
        priority: parse_priority(from.priority)?,
        subject: parse_selector(required(from.subject, "policy.subject")?)?,
        ingress: parse_direction(required(from.ingress, "policy.ingress")?)?,
        egress: parse_direction(required(from.egress, "policy.egress")?)?,
    })
}

fn tier(from: Tier) -> pb::PolicyTier {
    match from {
        Tier::Admin => pb::PolicyTier::Admin,
        Tier::Normal => pb::PolicyTier::Normal,
        Tier::Baseline => pb::PolicyTier::Baseline,
    }
}

fn parse_tier(from: i32) -> Result<Tier, WireError> {
    Ok(match pb::PolicyTier::try_from(from) {
        Ok(pb::PolicyTier::Admin) => Tier::Admin,
        Ok(pb::PolicyTier::Normal) => Tier::Normal,
        Ok(pb::PolicyTier::Baseline) => Tier::Baseline,
        Ok(pb::PolicyTier::Unspecified) | Err(_) => {
            return Err(WireError::UnknownEnum { field: "policy.tier", value: from });
        }
    })
}

fn parse_priority(from: u32) -> Result<u16, WireError> {
    let priority = small(from, "policy.priority")?;
    if priority > MAX_PRIORITY {
        return Err(WireError::OutOfRange { field: "policy.priority", value: from.into() });
    }
    Ok(priority)
}

fn parse_name(kind: PolicyKind, from: Option<pb::ObjectName>) -> Result<ObjectName, WireError> {
    let field = "policy.name";
    if kind.is_namespaced() {
        return parse_object_name(from, field);
    }
    let from = required(from, field)?;
    let namespace = checked(from.namespace, str::is_empty, field)?;
    Ok(ObjectName { namespace, name: checked(from.name, is_subdomain, field)? })
}

fn direction(from: &PolicyDirection) -> pb::PolicyDirection {
    pb::PolicyDirection {
        default_deny: from.default_deny,
        allow: from.allow.iter().map(rule).collect(),
        deny: from.deny.iter().map(rule).collect(),
    }
}

fn parse_direction(from: pb::PolicyDirection) -> Result<PolicyDirection, WireError> {
    Ok(PolicyDirection {
        default_deny: from.default_deny,
        allow: all(from.allow, parse_rule)?,
        deny: all(from.deny, parse_rule)?,
    })
}

fn rule(from: &PolicyRule) -> pb::PolicyRule {
    pb::PolicyRule {
        peers: from.peers.iter().map(peer_to_wire).collect(),
        ports: from.ports.iter().map(port_rule_to_wire).collect(),
        authenticate: from.authenticate,
    }
}

fn parse_rule(from: pb::PolicyRule) -> Result<PolicyRule, WireError> {
    Ok(PolicyRule {
        peers: all(from.peers, parse_peer)?,
        ports: all(from.ports, parse_port_rule)?,
        authenticate: from.authenticate,
    })
}

fn peer_to_wire(from: &Peer) -> pb::Peer {
    let peer = match from {
        Peer::Any => peer::Peer::Any(pb::AnyPeer {}),
        Peer::Selector(from) => peer::Peer::Selector(selector(from)),
        Peer::Entity(from) => peer::Peer::Entity(entity(*from).into()),
        Peer::Cidr { cidr: net, except } => peer::Peer::Cidr(pb::CidrPeer {
            cidr: Some(cidr(net)),
            except: except.iter().map(cidr).collect(),
        }),
    };
    pb::Peer { peer: Some(peer) }
}

fn parse_peer(from: pb::Peer) -> Result<Peer, WireError> {
    Ok(match required(from.peer, "peer.peer")? {
        peer::Peer::Any(pb::AnyPeer {}) => Peer::Any,
        peer::Peer::Selector(from) => Peer::Selector(parse_selector(from)?),
        peer::Peer::Entity(from) => Peer::Entity(parse_entity(from)?),
        peer::Peer::Cidr(from) => Peer::Cidr {
            cidr: parse_cidr(required(from.cidr, "cidr_peer.cidr")?, "cidr_peer.cidr")?,
            except: all(from.except, |net| parse_cidr(net, "cidr_peer.except"))?,
        },
    })
}

fn entity(from: Entity) -> pb::Entity {
    match from {
        Entity::All => pb::Entity::All,
        Entity::World => pb::Entity::World,
        Entity::Cluster => pb::Entity::Cluster,
        Entity::Host => pb::Entity::Host,
        Entity::RemoteNode => pb::Entity::RemoteNode,
        Entity::KubeApiserver => pb::Entity::KubeApiserver,
        Entity::Ingress => pb::Entity::Ingress,
        Entity::None => pb::Entity::None,
    }
}

fn parse_entity(from: i32) -> Result<Entity, WireError> {
    Ok(match pb::Entity::try_from(from) {
        Ok(pb::Entity::All) => Entity::All,
        Ok(pb::Entity::World) => Entity::World,
        Ok(pb::Entity::Cluster) => Entity::Cluster,
        Ok(pb::Entity::Host) => Entity::Host,
        Ok(pb::Entity::RemoteNode) => Entity::RemoteNode,
        Ok(pb::Entity::KubeApiserver) => Entity::KubeApiserver,
        Ok(pb::Entity::Ingress) => Entity::Ingress,
        Ok(pb::Entity::None) => Entity::None,
        Ok(pb::Entity::Unspecified) | Err(_) => {
            return Err(WireError::UnknownEnum { field: "peer.entity", value: from });
        }
    })
}

fn selector(from: &Selector) -> pb::Selector {
    pb::Selector { requirements: from.requirements.iter().map(requirement).collect() }
}

fn parse_selector(from: pb::Selector) -> Result<Selector, WireError> {
    Ok(Selector { requirements: all(from.requirements, parse_requirement)? })
}

fn requirement(from: &Requirement) -> pb::Requirement {
    let (operator, values) = match &from.operator {
        Operator::In(values) => (pb::Operator::In, strings(values)),
        Operator::NotIn(values) => (pb::Operator::NotIn, strings(values)),
        Operator::Exists => (pb::Operator::Exists, Vec::new()),
        Operator::DoesNotExist => (pb::Operator::DoesNotExist, Vec::new()),
    };
    pb::Requirement { key: from.key.to_string(), operator: operator.into(), values }
}

fn parse_requirement(from: pb::Requirement) -> Result<Requirement, WireError> {
    let operator = match pb::Operator::try_from(from.operator) {
        Ok(pb::Operator::In) => Operator::In(shared(from.values)),
        Ok(pb::Operator::NotIn) => Operator::NotIn(shared(from.values)),
        Ok(pb::Operator::Exists) => Operator::Exists,
        Ok(pb::Operator::DoesNotExist) => Operator::DoesNotExist,
        Ok(pb::Operator::Unspecified) | Err(_) => {
            return Err(WireError::UnknownEnum { field: "requirement.operator", value: from.operator });
        }
    };
    Ok(Requirement { key: from.key.into(), operator })
}

fn port_rule_to_wire(from: &PortRule) -> pb::PortRule {
    let port = match &from.port {
        PolicyPort::Any => port_rule::Port::Any(pb::AnyPort {}),
        PolicyPort::Range(first, last) => {
            port_rule::Port::Range(pb::PortRange { first: (*first).into(), last: (*last).into() })
        }
        PolicyPort::Named(name) => port_rule::Port::Named(name.to_string()),
    };
    let l7 = match &from.l7 {
        None => port_rule::L7::Anything(pb::AnyPayload {}),
        Some(L7Rules::Http(rules)) => {
            port_rule::L7::Http(pb::HttpRules { rules: rules.iter().map(http_rule).collect() })
        }
    };
    pb::PortRule { port: Some(port), protocol: from.protocol.map(protocol), l7: Some(l7) }
}

pub(super) fn parse_port_rule(from: pb::PortRule) -> Result<PortRule, WireError> {
    let port = match required(from.port, "port_rule.port")? {
        port_rule::Port::Any(pb::AnyPort {}) => PolicyPort::Any,
        port_rule::Port::Range(range) => parse_range(range)?,
        port_rule::Port::Named(name) => PolicyPort::Named(name.into()),
    };
    let l7 = match required(from.l7, "port_rule.l7")? {
        port_rule::L7::Anything(pb::AnyPayload {}) => None,
        port_rule::L7::Http(rules) => {
            Some(L7Rules::Http(rules.rules.into_iter().map(parse_http_rule).collect()))
        }
    };
    Ok(PortRule {
        port,
        protocol: from.protocol.map(|p| parse_protocol(p, "port_rule.protocol")).transpose()?,
        l7,
    })
}

fn parse_range(from: pb::PortRange) -> Result<PolicyPort, WireError> {
    let first = small(from.first, "port_range.first")?;
    let last = small(from.last, "port_range.last")?;
    if first > last {
        return Err(WireError::OutOfRange { field: "port_range.last", value: last.into() });
    }
    Ok(PolicyPort::Range(first, last))
}

fn http_rule(from: &HttpRule) -> pb::HttpRule {
    let headers = from.headers.iter();
    pb::HttpRule {
        path: string(&from.path),
        method: string(&from.method),
        host: string(&from.host),
        headers: headers
            .map(|(name, value)| pb::HeaderCondition { name: name.to_string(), value: string(value) })
            .collect(),
    }
}

fn parse_http_rule(from: pb::HttpRule) -> HttpRule {
    HttpRule {
        path: share(from.path),
        method: share(from.method),
        host: share(from.host),
        headers: from.headers.into_iter().map(|h| (h.name.into(), share(h.value))).collect(),
    }
}
