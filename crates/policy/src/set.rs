// SPDX-License-Identifier: Apache-2.0
//! Everything about policy in one state, for one node.

use std::{net::IpAddr, ptr, sync::Arc};

use weft_ir::{IdentityNumber, NamedPort, ResourceKey, Snapshot};

use crate::{
    AddressTable, EndpointPolicy, Labels,
    addresses::{PrefixNumbers, apiserver_addresses, apiserver_is_local},
    http::HttpCache,
    numbers::{RuleName, RuleNumbers},
    rejected::Rejected,
    rules::{RuleSet, named_ports},
};

/// The policies of one revision. A clone shares everything with the original.
#[derive(Clone, Debug)]
pub struct PolicySet {
    node: Arc<str>,
    /// Addresses of the node's own devices.
    own: Arc<[IpAddr]>,
    snapshot: Snapshot,
    numbers: PrefixNumbers,
    addresses: Arc<AddressTable>,
    rules: Arc<RuleSet>,
}

impl PolicySet {
    /// Compiles the policies of a state for the node of this name.
    pub fn compile(snapshot: &Snapshot, node: &str) -> PolicySet {
        PolicySet::compile_with_rejected(snapshot, node, &[])
    }

    /// The same, with the keys of resources that this node could not read. A policy among them that the
    /// state holds no earlier version of closes all workloads of its namespace.
    pub fn compile_with_rejected(snapshot: &Snapshot, node: &str, rejected: &[ResourceKey]) -> PolicySet {
        let numbers = PrefixNumbers::default().renew(snapshot);
        let rejected = Rejected::of(rejected, snapshot);
        PolicySet {
            node: node.into(),
            own: Arc::default(),
            snapshot: snapshot.clone(),
            addresses: Arc::new(AddressTable::build(snapshot, node, &[], &numbers)),
            rules: Arc::new(RuleSet::build(
                snapshot,
                node,
                &numbers,
                rejected,
                HttpCache::default(),
                RuleNumbers::default(),
            )),
            numbers,
        }
    }

    /// Compiles the next state, reusing what did not change: prefixes keep their numbers, HTTP rules
    /// stay compiled, and all endpoint policies stay where nothing that they are made of changed.
    pub fn next(&self, snapshot: &Snapshot, rejected: &[ResourceKey]) -> PolicySet {
        let numbers = self.numbers.renew(snapshot);
        let rejected = Rejected::of(rejected, snapshot);
        let addresses = AddressTable::build(snapshot, &self.node, &self.own, &numbers);
        let addresses =
            if addresses == *self.addresses { self.addresses.clone() } else { Arc::new(addresses) };
        let rules = if self.rules_hold(snapshot, &numbers, &rejected) {
            self.rules.clone()
        } else {
            let http = self.rules.http.carry_over();
            Arc::new(RuleSet::build(
                snapshot,
                &self.node,
                &numbers,
                rejected,
                http,
                self.rules.numbers.clone(),
            ))
        };
        PolicySet {
            node: self.node.clone(),
            own: self.own.clone(),
            snapshot: snapshot.clone(),
            numbers,
            addresses,
            rules,
        }
    }

    /// The same set, and its later states, on a node whose devices have these addresses: what the state
    /// says nothing else about is `host`, also inside a pod CIDR (a bridge, a tunnel, `docker0`).
    pub fn with_own_addresses(&self, own: &[IpAddr]) -> PolicySet {
        let addresses = AddressTable::build(&self.snapshot, &self.node, own, &self.numbers);
        PolicySet { own: own.into(), addresses: Arc::new(addresses), ..self.clone() }
    }

    /// The state's revision.
    pub fn revision(&self) -> u64 {
        self.snapshot.revision
    }

    /// The identity of an address.
    pub fn identity_of(&self, address: IpAddr) -> IdentityNumber {
        self.addresses.identity_of(address)
    }

    /// Every address and prefix with its identity; the same pointer as long as nothing changed.
    pub fn addresses(&self) -> &Arc<AddressTable> {
        &self.addresses
    }

    /// The labels of an identity; none for `unknown`.
    pub fn labels(&self, identity: IdentityNumber) -> Option<&Arc<Labels>> {
        self.rules.identities.labels(identity)
    }

    /// The rule that a number in a verdict stands for; none once its policy is long gone.
    pub fn rule(&self, number: u32) -> Option<RuleName> {
        self.rules.numbers.name(number)
    }

    /// The policy of workloads with this identity and these named ports. Compiled at the first call and
    /// kept, behind a lock: data workers keep the result instead of asking for each request.
    pub fn endpoint(&self, identity: IdentityNumber, ports: &[NamedPort]) -> Arc<EndpointPolicy> {
        self.rules.endpoint(identity, ports)
    }

    /// Whether the compiled rules are those of the new state too.
    fn rules_hold(&self, snapshot: &Snapshot, numbers: &PrefixNumbers, rejected: &Rejected) -> bool {
        let (old, new) = (&self.snapshot, snapshot);
        old.policies().map(ptr::from_ref).eq(new.policies().map(ptr::from_ref))
            && old.identities().map(ptr::from_ref).eq(new.identities().map(ptr::from_ref))
            && *numbers == self.numbers
            && *rejected == self.rules.rejected
            && named_ports(snapshot) == self.rules.named_ports
            && apiserver_addresses(snapshot) == apiserver_addresses(&self.snapshot)
            && apiserver_is_local(snapshot, &self.node) == apiserver_is_local(&self.snapshot, &self.node)
    }
}
