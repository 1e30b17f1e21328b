// SPDX-License-Identifier: Apache-2.0
//! What nodes with an older schema are sent.
//!
//! Whether such a node would lose something of a resource is computed: what the older schema makes of the
//! bytes is encoded again, and compared. What would lose something is replaced by a stand-in that denies,
//! or left out where nothing has to be denied; the node's report says so.

use bytes::Bytes;

use crate::{
    Peer, Policy, PolicyDirection, PolicyRule, Resource, ResourceKey, RouteFilter, Tier,
    stream::{MAX_RESOURCE_BYTES, SCHEMA, Upsert},
    wire,
};

/// How resources are encoded, and what older schemas keep of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schemas {
    /// The number of the one in which resources are encoded.
    pub(super) current: u32,
    pub(super) encode: fn(&Resource) -> Bytes,
    /// The newest first. Nodes that read none of these are refused.
    pub(super) older: &'static [Older],
}

/// A schema that nodes may still have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Older {
    pub(super) number: u32,
    /// Decodes with it and encodes again; nothing where it cannot be decoded.
    pub(super) again: fn(&[u8]) -> Option<Bytes>,
}

impl Default for Schemas {
    /// Who raises [`SCHEMA`] keeps the code of the one before, and names it here.
    fn default() -> Schemas {
        Schemas { current: SCHEMA, encode: wire::encode, older: &[] }
    }
}

/// A resource, encoded once for all nodes of a schema.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) bytes: Bytes,
    /// The oldest schema that loses nothing.
    min_schema: u32,
    /// What stands in where an older one would, and nothing where it is left out.
    stand_ins: Vec<(u32, Option<Bytes>)>,
}

impl Schemas {
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        std::iter::once(self.current).chain(self.older.iter().map(|older| older.number))
    }

    /// The newest that a node reads.
    pub(super) fn of_node(&self, schema: u32) -> Option<u32> {
        self.numbers().find(|number| *number <= schema)
    }

    pub(super) fn entry(&self, resource: &Resource) -> Entry {
        let mut bytes = (self.encode)(resource);
        if bytes.len() > MAX_RESOURCE_BYTES {
            bytes = Bytes::new();
        }
        let mut entry = Entry { bytes, min_schema: self.current, stand_ins: Vec::new() };
        for older in self.older {
            if entry.stand_ins.is_empty() && older.keeps(&entry.bytes) {
                entry.min_schema = older.number;
            } else {
                entry.stand_ins.push((older.number, self.stand_in(resource, older)));
            }
        }
        entry
    }

    fn stand_in(&self, resource: &Resource, older: &Older) -> Option<Bytes> {
        let closed = match resource {
            Resource::Policy(policy) => Resource::Policy(closed_policy(policy)),
            Resource::Route(route) => {
                let mut route = route.clone();
                route.action.filters = vec![RouteFilter::Invalid];
                route.action.backends = Vec::new();
                route.action.retry = None;
                Resource::Route(route)
            }
            _ => return None,
        };
        // What is lost may be in a part that stays.
        let bytes = wire::encode(&closed);
        match resource {
            _ if older.keeps(&bytes) => Some(bytes),
            // Who has a policy's key and cannot read it closes all that it may be about.
            Resource::Policy(_) => Some(Bytes::new()),
            _ => None,
        }
    }
}

impl Older {
    fn keeps(&self, bytes: &Bytes) -> bool {
        bytes.is_empty() || (self.again)(bytes).is_some_and(|again| again == *bytes)
    }
}

/// What allows nothing that the policy does not, and denies all that it may deny: what other policies allow
/// stays allowed only where this one has no denials and no precedence.
fn closed_policy(policy: &Policy) -> Policy {
    let close = |direction: &PolicyDirection| {
        let denies = !direction.deny.is_empty() || policy.tier != Tier::Normal;
        let everybody = PolicyRule { peers: vec![Peer::Any], ports: Vec::new(), authenticate: false };
        let deny = if denies { vec![everybody] } else { Vec::new() };
        PolicyDirection { default_deny: true, allow: Vec::new(), deny }
    };
    Policy { ingress: close(&policy.ingress), egress: close(&policy.egress), ..policy.clone() }
}

impl Entry {
    /// What a node of this schema is sent.
    pub(super) fn bytes_for(&self, schema: u32) -> Option<&Bytes> {
        if schema >= self.min_schema {
            return Some(&self.bytes);
        }
        self.stand_ins.iter().find(|(number, _)| *number == schema).and_then(|(_, bytes)| bytes.as_ref())
    }

    pub(super) fn upsert_for(&self, schema: u32, key: &ResourceKey) -> Option<Upsert> {
        let resource = self.bytes_for(schema)?.clone();
        Some(Upsert { key: key.clone(), min_schema: self.min_schema.min(schema), resource })
    }

    /// Why a node of this schema has not the resource itself.
    pub(super) fn loss(&self, schema: u32) -> Option<String> {
        let closed = self.stand_ins.iter().any(|(number, bytes)| *number == schema && bytes.is_some());
        let instead = if closed { "what it names is denied" } else { "it is left out" };
        let needs = self.min_schema;
        (schema < needs).then(|| format!("needs schema {needs}, and the node reads {schema}: {instead}"))
    }
}

#[cfg(test)]
mod tests;
