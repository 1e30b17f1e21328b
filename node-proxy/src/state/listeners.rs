// SPDX-License-Identifier: Apache-2.0
//! The listeners of Gateways, by address and hostname.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use weft_ir::Listener;
use weft_matching::HostMap;

use crate::route::RouteTable;

/// One address and port on which Gateways listen.
#[derive(Debug, Default)]
pub(crate) struct ListenPoint {
    hosts: HostMap<Arc<RouteTable>>,
}

impl ListenPoint {
    /// The routes of the listener with the most specific hostname for a host, which is in lower case and
    /// has no port. No other listener serves the request, even when this one has no rule for it (listener
    /// isolation).
    pub(crate) fn find(&self, host: &[u8]) -> Option<&Arc<RouteTable>> {
        self.hosts.covering(host).next()
    }

    pub(super) fn add(&mut self, hostname: &str, routes: Arc<RouteTable>) {
        self.hosts.set(hostname, Some(routes));
    }
}

/// Listeners with the same address, port and hostname; more than one only where several Gateways share
/// the node's addresses, and then all their routes serve together.
pub(super) type Shared<'a> = BTreeMap<(SocketAddr, String), Vec<&'a Listener>>;

/// Sorts listeners by where they listen. One that listens on every address also serves the addresses
/// that others of the same port name.
pub(super) fn by_address<'a>(listeners: &[&'a Listener], default: &[IpAddr]) -> Shared<'a> {
    let mut addresses: BTreeMap<u16, BTreeSet<IpAddr>> = BTreeMap::new();
    for listener in listeners {
        addresses.entry(listener.port).or_default().extend(own_addresses(listener, default));
    }
    let mut shared: Shared<'a> = BTreeMap::new();
    for listener in listeners {
        let own = match (listener.addresses.is_empty(), addresses.get(&listener.port)) {
            (true, Some(all)) => all.iter().copied().collect(),
            _ => own_addresses(listener, default),
        };
        for address in own {
            let key = (SocketAddr::new(address, listener.port), listener.hostname.to_ascii_lowercase());
            shared.entry(key).or_default().push(listener);
        }
    }
    shared
}

fn own_addresses(listener: &Listener, default: &[IpAddr]) -> Vec<IpAddr> {
    match (listener.addresses.as_slice(), default) {
        ([], []) => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        ([], default) => default.to_vec(),
        (own, _) => own.to_vec(),
    }
}
