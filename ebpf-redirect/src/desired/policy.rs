// SPDX-License-Identifier: Apache-2.0
//! Policy as entries of the kernel's table.

use std::collections::BTreeMap;

use weft_ebpf_common::{
    Verdict,
    layout::{
        ANY_IDENTITY, EGRESS, INGRESS, POLICY_PREFIX, PolicyKey, WORKLOAD_EGRESS_OPEN, WORKLOAD_INGRESS_OPEN,
    },
};
use weft_policy::{DirectionPolicy, EndpointPolicy, Peer};

use crate::bpf::Prefix;

/// Entries of one set: the key without the set's number, and the verdict.
pub type PolicyEntries = BTreeMap<Prefix<PolicyKey>, Verdict>;

/// `WORKLOAD_*` for what a workload's policy holds.
pub(super) fn flags(endpoint: &EndpointPolicy) -> u32 {
    let mut flags = 0;
    for (direction, open) in
        [(&endpoint.egress, WORKLOAD_EGRESS_OPEN), (&endpoint.ingress, WORKLOAD_INGRESS_OPEN)]
    {
        if direction.is_open() {
            flags |= open;
        }
    }
    flags
}

/// The entries of both directions.
pub(super) fn entries(endpoint: &EndpointPolicy) -> PolicyEntries {
    let mut entries = PolicyEntries::new();
    entries_of(&endpoint.egress, EGRESS, &mut entries);
    entries_of(&endpoint.ingress, INGRESS, &mut entries);
    entries
}

/// Entries as keys of the trie. Entries of one peer and protocol never overlap, so that the longest
/// prefix is the only one that matches.
fn entries_of(policy: &DirectionPolicy, direction: u8, entries: &mut PolicyEntries) {
    for entry in policy.kernel_entries() {
        let identity = match entry.peer {
            Peer::Any => ANY_IDENTITY,
            Peer::Identity(number) => number.0,
        };
        let protocol = entry.protocol.map_or(0, |protocol| protocol.number());
        for (port, bits) in entry.ports.prefixes() {
            let data = PolicyKey { set: 0, identity, direction, protocol, port_be: port.to_be() };
            entries.insert(Prefix { length: POLICY_PREFIX + u32::from(bits), data }, entry.verdict);
        }
    }
}
