// SPDX-License-Identifier: Apache-2.0
//! Finds the port of a bridge behind which an address is.

use std::{collections::BTreeMap, net::IpAddr};

use netlink_packet_route::{
    AddressFamily,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
};

/// Who is behind which port of which bridge.
#[derive(Debug, Default)]
pub(super) struct BridgeTables {
    neighbours: BTreeMap<(u32, IpAddr), Vec<u8>>,
    ports: BTreeMap<(u32, Vec<u8>), u32>,
}

impl BridgeTables {
    pub(super) fn add(&mut self, message: &NeighbourMessage) {
        let (mut address, mut mac, mut bridge) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                    address = Some(IpAddr::V4(*found));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                    address = Some(IpAddr::V6(*found));
                }
                NeighbourAttribute::LinkLayerAddress(found) => mac = Some(found.clone()),
                NeighbourAttribute::Controller(found) => bridge = Some(*found),
                _ => {}
            }
        }
        let Some(mac) = mac else { return };
        if message.header.family == AddressFamily::Bridge {
            if let Some(bridge) = bridge {
                self.ports.insert((bridge, mac), message.header.ifindex);
            }
        } else if let Some(address) = address {
            self.neighbours.insert((message.header.ifindex, address), mac);
        }
    }

    pub(super) fn port(&self, bridge: u32, address: IpAddr) -> Option<u32> {
        let mac = self.neighbours.get(&(bridge, address))?;
        self.ports.get(&(bridge, mac.clone())).copied()
    }
}
