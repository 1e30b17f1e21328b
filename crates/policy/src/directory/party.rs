// SPDX-License-Identifier: Apache-2.0
//! Who is behind an address.

use std::{ops::Deref, sync::Arc};

use weft_ebpf_common::identity;
use weft_ir::{IdentityNumber, ObjectName, Resource, Workload};

/// Who is behind an address, as seen from this node.
#[derive(Clone, Debug, PartialEq)]
pub struct Party {
    /// The security identity.
    pub identity: IdentityNumber,
    /// Where it is.
    pub place: Place,
    /// The workload, where it is one and nobody else claims the address.
    pub workload: Option<WorkloadRef>,
    /// The pods that claim the address, where there are several: then it is nobody's.
    pub claimants: Option<Arc<[ObjectName]>>,
}

/// Where somebody is, as seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A pod of this node.
    LocalPod,
    /// A pod of another node.
    RemotePod,
    /// This node itself.
    Host,
    /// Another node.
    OtherNode,
    /// Outside of the cluster.
    Outside,
    /// An address of the cluster that nobody is known to have.
    Unknown,
}

/// A workload, shared with the state that it is from.
#[derive(Clone, Debug)]
pub struct WorkloadRef(Arc<Resource>);

impl Party {
    /// Traffic that entered through a Gateway of this node.
    pub fn ingress() -> Party {
        Party::reserved(identity::INGRESS, Place::Host)
    }

    /// Whether this node decides its policies.
    pub fn is_local(&self) -> bool {
        self.place == Place::LocalPod
    }

    /// Somebody with a reserved identity, or one of a prefix.
    pub(crate) fn reserved(number: u32, place: Place) -> Party {
        Party { identity: IdentityNumber(number), place, workload: None, claimants: None }
    }

    /// Whoever has an address of a prefix of this identity.
    pub(crate) fn of_prefix(number: IdentityNumber) -> Party {
        let place = match number.0 {
            identity::UNKNOWN => Place::Unknown,
            identity::HOST => Place::Host,
            _ => Place::Outside,
        };
        Party::reserved(number.0, place)
    }
}

impl WorkloadRef {
    /// The workload in a resource, if it is one.
    pub fn of(resource: &Arc<Resource>) -> Option<WorkloadRef> {
        matches!(**resource, Resource::Workload(_)).then(|| WorkloadRef(Arc::clone(resource)))
    }
}

impl Deref for WorkloadRef {
    type Target = Workload;

    fn deref(&self) -> &Workload {
        match &*self.0 {
            Resource::Workload(workload) => workload,
            _ => unreachable!("invariant: only `of` makes one, of workloads"),
        }
    }
}

impl PartialEq for WorkloadRef {
    fn eq(&self, other: &WorkloadRef) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}
