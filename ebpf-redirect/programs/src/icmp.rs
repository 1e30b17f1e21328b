// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Who may tell a pod that a packet did not arrive.
//!
//! Of such a message, `source` and `destination` are the ends of the connection that it is about, turned
//! around: `destination` sent the packet, `source` was to receive it.

use weft_ebpf_common::identity;

use crate::{
    packet::{ICMP, ICMPV6, Packet, has_ports},
    policy,
};

/// Whether it tells who sent the packet, and comes from who was to receive it, or from a router between.
#[inline(always)]
pub(crate) fn is_from_the_way(packet: &Packet) -> bool {
    packet.receiver == packet.destination && (packet.sender == packet.source || is_router(packet))
}

/// Whether a pod tells the sender about a packet that it received. Pods are no routers.
#[inline(always)]
pub(crate) fn is_from_receiver(packet: &Packet) -> bool {
    packet.receiver == packet.destination && packet.sender == packet.source
}

/// Nodes and what is outside of the cluster may be on the way; workloads are not, and neither is an address
/// of theirs that nobody has.
#[inline(always)]
fn is_router(packet: &Packet) -> bool {
    let sender = policy::identity(&packet.sender);
    let workload = (identity::FIRST_ALLOCATED..identity::LOCAL_SCOPE).contains(&sender);
    !workload && sender != identity::UNKNOWN
}

/// Whether packets like the one that it is about are followed, so that it is either about one that is known
/// or about none.
#[inline(always)]
pub(crate) fn is_followed(packet: &Packet) -> bool {
    has_ports(packet.protocol) || packet.protocol == ICMP || packet.protocol == ICMPV6
}
