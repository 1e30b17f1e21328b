// SPDX-License-Identifier: Apache-2.0
//! One port of a Service as a place to send requests to.

use std::{net::SocketAddr, sync::Arc};

use weft_ir::AppProtocol;

use crate::route::{ratelimit::RateLimiter, slots::Slot};

/// One port of a Service with its endpoints.
#[derive(Debug)]
pub(crate) struct Upstream {
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

/// One endpoint of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Under which workers keep what they measure about it.
    pub(crate) slot: Slot,
}

impl Upstream {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_endpoints_of_its_family_where_there_are_some() {
        let of = |addresses: &[&str]| Upstream {
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
}
