// SPDX-License-Identifier: Apache-2.0
//! Who claims an address, and who of them has it. The one place with the order of the claims.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use weft_ebpf_common::identity;
use weft_ir::{IdentityNumber, ObjectName};

use super::party::{Party, Place, WorkloadRef};

/// A reason why somebody might have an address.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Claim {
    /// It is the own address of the node of this name.
    Node(Arc<str>),
    /// The node of this name sends a Gateway's traffic from it.
    Ingress(Arc<str>),
    /// It is this pod's.
    Pod(WorkloadRef),
    /// A device of this node has it.
    Device,
    /// A prefix of this single address has the identity.
    Prefix(IdentityNumber),
}

/// An address that somebody claims.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) claims: Vec<Claim>,
    pub(crate) party: Party,
}

/// What is needed to choose among claims.
pub(crate) struct Judge<'a> {
    /// The name of this node.
    pub(crate) node: &'a str,
    /// Whether an API server is behind the address.
    pub(crate) apiserver: bool,
}

impl Claim {
    /// Whether both are the claim of the same object.
    pub(crate) fn is_of_same(&self, other: &Claim) -> bool {
        match (self, other) {
            (Claim::Node(one), Claim::Node(other)) | (Claim::Ingress(one), Claim::Ingress(other)) => {
                one == other
            }
            (Claim::Pod(one), Claim::Pod(other)) => one.name == other.name,
            (Claim::Device, Claim::Device) | (Claim::Prefix(_), Claim::Prefix(_)) => true,
            _ => false,
        }
    }
}

impl Judge<'_> {
    /// Who has the address; nothing where nobody claims it.
    ///
    /// A node's own address is the node's, whatever a pod says, and so is the address from which it sends a
    /// Gateway's traffic: pods come and go, and who can write one pod must not become a node. Of several
    /// pods none is believed. A device's address counts where no object names it, also inside of the pods'
    /// network: a bridge has one. A prefix counts last.
    pub(crate) fn decide(&self, claims: &[Claim]) -> Option<Party> {
        self.node(claims)
            .or_else(|| self.ingress(claims))
            .or_else(|| self.pod(claims))
            .or_else(|| claims.contains(&Claim::Device).then(|| Party::reserved(identity::HOST, Place::Host)))
            .or_else(|| {
                claims.iter().find_map(|claim| match claim {
                    Claim::Prefix(number) => Some(Party::of_prefix(*number)),
                    _ => None,
                })
            })
    }

    /// Where several nodes claim it, each is right about itself.
    fn node(&self, claims: &[Claim]) -> Option<Party> {
        let names =
            || claims.iter().filter_map(|c| if let Claim::Node(name) = c { Some(name) } else { None });
        names().next()?;
        Some(match names().any(|name| **name == *self.node) {
            true => Party::reserved(identity::HOST, Place::Host),
            false if self.apiserver => Party::reserved(identity::KUBE_APISERVER, Place::OtherNode),
            false => Party::reserved(identity::REMOTE_NODE, Place::OtherNode),
        })
    }

    fn ingress(&self, claims: &[Claim]) -> Option<Party> {
        let names =
            || claims.iter().filter_map(|c| if let Claim::Ingress(name) = c { Some(name) } else { None });
        names().next()?;
        let here = names().any(|name| **name == *self.node);
        Some(Party::reserved(identity::INGRESS, if here { Place::Host } else { Place::OtherNode }))
    }

    /// An address that several pods claim is unknown, and closed on the nodes of those pods.
    fn pod(&self, claims: &[Claim]) -> Option<Party> {
        let pods = || claims.iter().filter_map(|c| if let Claim::Pod(pod) = c { Some(pod) } else { None });
        let first = pods().next()?;
        let here = pods().any(|pod| *pod.node == *self.node);
        let place = if here { Place::LocalPod } else { Place::RemotePod };
        if pods().nth(1).is_none() {
            return Some(Party {
                identity: first.identity,
                place,
                workload: Some(first.clone()),
                claimants: None,
            });
        }
        let mut names: Vec<ObjectName> = pods().map(|pod| pod.name.clone()).collect();
        names.sort_unstable();
        Some(Party { claimants: Some(names.into()), ..Party::reserved(identity::UNKNOWN, place) })
    }
}

/// Whether an object can have the address. The loopback addresses that every host has are always the
/// host's. The rest of 127.0.0.0/8 is so too where no object claims it: on a machine without namespaces
/// for them, pods have such addresses. What is left out besides is no single receiver's.
pub(crate) fn can_be_claimed(address: IpAddr) -> bool {
    address != Ipv4Addr::LOCALHOST
        && address != Ipv6Addr::LOCALHOST
        && !address.is_unspecified()
        && !address.is_multicast()
}
