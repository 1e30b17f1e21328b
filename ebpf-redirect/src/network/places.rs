// SPDX-License-Identifier: Apache-2.0
//! Where workloads hang: the node's end of the pair that leads to each.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use futures_util::TryStreamExt;
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteType};
use rtnetlink::RouteMessageBuilder;
use weft_ir::ObjectName;

use super::{
    Kind, Link, Network, NetworkError, cni,
    owners::{self, Asked, Ports},
};
use crate::{
    config::{DEVICE, DEVICE_PEER},
    sync::Place,
};

/// Where a route leads.
struct Way {
    device: u32,
    /// The route is to this address alone, as CNIs that route make them.
    host_route: bool,
}

/// What a look for workloads goes by.
pub(crate) struct Look<'a> {
    /// The workloads' addresses, and whose they are.
    pub(crate) workloads: BTreeMap<IpAddr, &'a ObjectName>,
    /// Every device.
    pub(crate) links: &'a BTreeMap<u32, Link>,
    /// The ports behind which workloads were found by this process.
    pub(crate) sure: BTreeMap<IpAddr, u32>,
    /// The ports that an earlier process has left in the kernel's table.
    pub(crate) before: BTreeMap<IpAddr, u32>,
    /// Where the results of CNI plug-ins are.
    pub(crate) results: &'a Path,
}

/// What a look has found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// Where each workload is; those to which nothing leads are left out.
    pub(crate) places: BTreeMap<IpAddr, Place>,
    /// Ports that claim an address of which it is not known whose it is.
    pub(crate) claimed: BTreeMap<IpAddr, BTreeSet<u32>>,
}

impl Network {
    /// Finds the node's devices of workloads.
    ///
    /// # Errors
    /// Those of the netlink requests.
    pub(crate) async fn find(&self, look: &Look<'_>) -> Result<Found, NetworkError> {
        let mut found = Found::default();
        let mut bridged: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        for address in look.workloads.keys().copied() {
            let Some(way) = self.way(address).await? else { continue };
            let Some(link) = look.links.get(&way.device) else { continue };
            if link.kind == Kind::Bridge {
                bridged.entry(way.device).or_default().insert(address);
            } else if way.host_route && !link.loopback && link.name != DEVICE && link.name != DEVICE_PEER {
                found.places.insert(address, Place { ifindex: way.device, bridge: link.controller });
            }
        }
        for (bridge, addresses) in bridged {
            self.find_ports(bridge, &addresses, look, &mut found).await?;
        }
        Ok(found)
    }

    /// Finds the ports of a bridge behind which workloads are.
    ///
    /// SECURITY: what a bridge and the neighbour table learn is what any pod may say. A port is known from
    /// who made the pod (the result of its CNI plug-in), or by the addresses of the namespace behind it.
    async fn find_ports(
        &self,
        bridge: u32,
        addresses: &BTreeSet<IpAddr>,
        look: &Look<'_>,
        found: &mut Found,
    ) -> Result<(), NetworkError> {
        let of_bridge = |link: &&Link| link.controller == Some(bridge) && link.kind == Kind::Veth;
        let links: BTreeMap<u32, &Link> = look
            .links
            .iter()
            .filter(|(_, link)| of_bridge(link))
            .map(|(index, link)| (*index, link))
            .collect();
        let asked: Asked<'_> = addresses.iter().map(|address| (*address, look.workloads[address])).collect();
        let is_port = |ports: &BTreeMap<IpAddr, u32>| -> Ports {
            let known = ports
                .iter()
                .filter(|(address, port)| addresses.contains(address) && links.contains_key(port));
            known.map(|(address, port)| (*address, *port)).collect()
        };
        let mut ports = is_port(&look.sure);
        if ports.len() < addresses.len() {
            let results = cni::read(look.results);
            let by_name: BTreeMap<&str, u32> =
                links.iter().map(|(index, link)| (link.name.as_str(), *index)).collect();
            let made = asked.iter().filter_map(|(address, name)| {
                let devices = results.get(&(*address, (*name).clone()))?;
                Some((*address, devices.iter().find_map(|device| by_name.get(device.as_str()).copied())?))
            });
            ports = is_port(&look.before).into_iter().chain(ports).collect();
            owners::believe(&asked, &mut ports, made.collect());
        }
        if ports.len() < addresses.len() {
            let taken: BTreeSet<u32> = ports.values().copied().collect();
            let mut namespaces = BTreeMap::new();
            for (index, link) in links.iter().filter(|(index, _)| !taken.contains(index)) {
                if let Some(number) = link.netns {
                    namespaces.insert(*index, self.addresses_in(number).await?);
                }
            }
            found.claimed.extend(owners::settle(&asked, &mut ports, &namespaces));
        }
        for address in addresses {
            let ifindex = ports.get(address).copied().unwrap_or(0);
            found.places.insert(*address, Place { ifindex, bridge: Some(bridge) });
        }
        Ok(())
    }

    /// Where the route to an address leads, if it leads to a neighbour: what lies behind a gateway, such
    /// as that of the default route, is no workload of this node.
    async fn way(&self, address: IpAddr) -> Result<Option<Way>, NetworkError> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let mut message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(address, length)
            .map_err(|_mixed| NetworkError::Route(address))?
            .build();
        // The entry of the table, with its prefix, not the cached answer for the address.
        message.header.flags |= RouteFlags::FibMatch;
        let mut found = self.handle.route().get(message).execute();
        // No route is an answer, not a failure.
        let Ok(Some(route)) = found.try_next().await else { return Ok(None) };
        if route.header.kind != RouteType::Unicast {
            return Ok(None);
        }
        let mut device = None;
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => device = Some(*index),
                RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => {
                    return Ok(None);
                }
                _ => {}
            }
        }
        let host_route = route.header.destination_prefix_length == length;
        Ok(device.map(|device| Way { device, host_route }))
    }
}
