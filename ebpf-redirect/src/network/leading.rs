// SPDX-License-Identifier: Apache-2.0
//! Devices over which routes lead on, to more than the one machine behind them.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteNextHop, RouteProtocol, RouteType,
};
use rtnetlink::IpVersion;

use super::{Network, NetworkError};

impl Network {
    /// Devices with a route to a prefix, or behind a gateway.
    ///
    /// # Errors
    /// Those of the netlink requests.
    pub(crate) async fn leading_on(&self) -> Result<BTreeSet<u32>, NetworkError> {
        let mut found = BTreeSet::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            for route in self.routes(version).await?.into_iter().filter(leads_on) {
                for attribute in &route.attributes {
                    match attribute {
                        RouteAttribute::Oif(index) => drop(found.insert(*index)),
                        RouteAttribute::MultiPath(hops) => {
                            found.extend(hops.iter().map(|hop: &RouteNextHop| hop.interface_index));
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(found)
    }
}

/// Whether a route leads to more than one machine. Plug-ins that route give the node's end of a pod's pair a route
/// to the pod, and an address of its own without a prefix, or of the link.
///
/// SECURITY: a pod that is a router of its link may announce routes, which expire.
fn leads_on(route: &RouteMessage) -> bool {
    let said = route
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, RouteAttribute::CacheInfo(cached) if cached.expires != 0));
    if route.header.kind != RouteType::Unicast || route.header.protocol == RouteProtocol::Ra || said {
        return false;
    }
    let gateway = |attribute: &RouteAttribute| {
        matches!(
            attribute,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_)
        )
    };
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    let length = route.header.destination_prefix_length;
    let to_many = match destination {
        Some(IpAddr::V4(address)) => length < 32 && !is_of_link_v4(address),
        Some(IpAddr::V6(address)) => length < 128 && !is_of_link_v6(address),
        None => true,
    };
    to_many || route.attributes.iter().any(gateway)
}

fn is_of_link_v4(address: Ipv4Addr) -> bool {
    address.is_link_local() || address.is_multicast()
}

fn is_of_link_v6(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local() || address.is_multicast()
}

#[cfg(test)]
mod tests {
    use rtnetlink::RouteMessageBuilder;

    use super::*;

    fn route(to: &str, length: u8, gateway: Option<&str>) -> RouteMessage {
        let builder = RouteMessageBuilder::<IpAddr>::new();
        let builder = builder.destination_prefix(to.parse().expect("an address"), length).expect("a prefix");
        match gateway {
            Some(gateway) => builder.gateway(gateway.parse().expect("an address")).expect("a family").build(),
            None => builder.build(),
        }
    }

    #[test]
    fn routes_of_a_pods_device_lead_to_it_alone() {
        for (to, length) in
            [("10.0.0.7", 32), ("fd00::7", 128), ("fe80::", 64), ("ff00::", 8), ("169.254.0.0", 16)]
        {
            assert!(!leads_on(&route(to, length, None)), "{to}/{length}");
        }
        for (to, length, gateway) in [
            ("0.0.0.0", 0, None),
            ("::", 0, Some("fe80::1")),
            ("10.0.0.0", 24, None),
            ("10.0.0.7", 32, Some("10.1.0.1")),
        ] {
            assert!(leads_on(&route(to, length, gateway)), "{to}/{length}");
        }
    }

    #[test]
    fn what_a_router_announces_makes_no_uplink() {
        let mut announced = route("::", 0, Some("fe80::1"));
        announced.header.protocol = RouteProtocol::Ra;
        assert!(!leads_on(&announced));
    }
}
