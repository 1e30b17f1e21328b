// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Connections to services that others translate, as kube-proxy does: those from before the sockets' hooks knew
//! the service. The pod's end sees the service's address all the time; the policy is asked about the backend.

use weft_ebpf_common::layout::Address;

use crate::{maps::FOREIGN, packet::Packet};

/// The backend to which others lead the connection of a packet that a workload sends (egress) or receives
/// (ingress). Its port is then what the policy knows of the other end. What opens a connection anew is led
/// elsewhere, nobody knows where.
#[inline(never)]
pub(crate) fn backend(packet: &mut Packet, at: u8, address: &mut Address) -> bool {
    if packet.first != 0 {
        return false;
    }
    // SAFETY: plain numbers. An entry that is evicted while it is read may be another connection's: then the
    // policy is asked about another backend of this node's services, once.
    let Some(found) = (unsafe { FOREIGN.get(&packet.connection) }) else { return false };
    packet.policy_ports_be[usize::from(at & 1 ^ 1)] = found.port_be;
    packet.translated = 1;
    *address = found.address;
    true
}
