// SPDX-License-Identifier: Apache-2.0
//! One port of a Service as a place to send requests to.

use std::{net::SocketAddr, sync::Arc};

use weft_ir::{AppProtocol, EndpointPort, Endpoints, ServicePort};

use crate::route::{ratelimit::RateLimiter, slots::Slot};

/// One port of a Service with its endpoints.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Under which workers keep what they measure about it.
    pub(crate) slot: Slot,
    /// `namespace/name`, for flows.
    pub(crate) name: Arc<str>,
    /// What its endpoints speak.
    pub(crate) protocol: AppProtocol,
    /// Endpoints that take new requests, in the order of their addresses: IPv4 first.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Rate limits on the Service.
    pub(crate) limits: Vec<Arc<RateLimiter>>,
}

/// One endpoint of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Under which workers keep what they measure about it.
    pub(crate) slot: Slot,
}

impl Cluster {
    /// The endpoints for a client of this family: a dual-stack pod is an endpoint once in each, and only
    /// in its own family can a client keep its address. All of them where its family has none.
    pub(crate) fn endpoints_for(&self, ipv6: bool) -> &[Endpoint] {
        let (ipv4_endpoints, ipv6_endpoints) =
            self.endpoints.split_at(self.endpoints.partition_point(|endpoint| endpoint.address.is_ipv4()));
        match (ipv6, ipv4_endpoints, ipv6_endpoints) {
            (false, [_, ..], _) => ipv4_endpoints,
            (true, _, [_, ..]) => ipv6_endpoints,
            _ => &self.endpoints,
        }
    }
}

/// The addresses that serve a port of a service: the ready ones; where there are none, those that
/// still answer while they end (`serving` of EndpointSlice, as kube-proxy does).
pub(crate) fn serving_addresses<'a>(
    port: &ServicePort,
    slices: impl Iterator<Item = &'a Endpoints> + Clone,
) -> Vec<SocketAddr> {
    let pick = |wanted: fn(&weft_ir::Endpoint) -> bool| {
        let mut found: Vec<SocketAddr> = slices
            .clone()
            .filter_map(|slice| target_port(port, &slice.ports).map(|target| (slice, target)))
            .flat_map(|(slice, target)| {
                let chosen = slice.endpoints.iter().filter(move |endpoint| wanted(endpoint));
                chosen.map(move |endpoint| SocketAddr::new(endpoint.address, target))
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    let ready = pick(|endpoint| endpoint.ready);
    if ready.is_empty() { pick(|endpoint| endpoint.serving && endpoint.terminating) } else { ready }
}

fn target_port(port: &ServicePort, ports: &[EndpointPort]) -> Option<u16> {
    let same = |candidate: &&EndpointPort| candidate.name == port.name && candidate.protocol == port.protocol;
    ports.iter().find(same).map(|found| found.port)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use weft_ir::{ObjectName, Protocol};

    use super::*;

    fn slice(endpoints: &[(u8, bool, bool, bool)]) -> Endpoints {
        let endpoint = |&(last, ready, serving, terminating): &(u8, bool, bool, bool)| weft_ir::Endpoint {
            address: IpAddr::from([10, 0, 0, last]),
            ready,
            serving,
            terminating,
        };
        Endpoints {
            name: ObjectName::new("shop", "web-1"),
            service: "web".into(),
            ports: vec![EndpointPort { name: "http".into(), port: 8080, protocol: Protocol::Tcp }],
            endpoints: endpoints.iter().map(endpoint).collect(),
        }
    }

    fn port() -> ServicePort {
        ServicePort {
            name: "http".into(),
            port: 80,
            protocol: Protocol::Tcp,
            app_protocol: AppProtocol::Http,
        }
    }

    #[test]
    fn a_client_gets_endpoints_of_its_family_where_there_are_some() {
        let of = |addresses: &[&str]| Cluster {
            slot: Slot::default(),
            name: "shop/web".into(),
            protocol: AppProtocol::Http,
            endpoints: addresses
                .iter()
                .map(|address| Endpoint {
                    address: address.parse().expect("an address"),
                    slot: Slot::default(),
                })
                .collect(),
            limits: vec![],
        };
        let count = |addresses: &[&str], ipv6| of(addresses).endpoints_for(ipv6).len();
        let both = ["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80"];
        assert_eq!((count(&both, false), count(&both, true)), (2, 1));
        assert_eq!((count(&both[..2], true), count(&both[2..], false)), (2, 1));
    }

    #[test]
    fn ready_endpoints_of_all_slices_serve() {
        let slices =
            [slice(&[(2, true, true, false)]), slice(&[(1, true, true, false), (3, false, true, true)])];
        let found = serving_addresses(&port(), slices.iter());
        assert_eq!(found, [([10, 0, 0, 1], 8080).into(), ([10, 0, 0, 2], 8080).into()]);
    }

    #[test]
    fn ending_endpoints_serve_when_there_is_nothing_else() {
        let slices = [slice(&[(1, false, true, true), (2, false, false, false)])];
        assert_eq!(serving_addresses(&port(), slices.iter()), [([10, 0, 0, 1], 8080).into()]);
    }

    #[test]
    fn a_port_of_another_name_does_not_serve() {
        let slices = [slice(&[(1, true, true, false)])];
        let other = ServicePort { name: "grpc".into(), ..port() };
        assert_eq!(serving_addresses(&other, slices.iter()), []);
    }
}
