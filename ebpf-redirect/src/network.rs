// SPDX-License-Identifier: Apache-2.0
//! The network around the programs: our device, the rule that delivers marked packets, routes of kept
//! service addresses, and where devices and workloads are. Everything in the caller's network namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use futures_util::{TryStreamExt, stream::BoxStream};
use netlink_packet_route::{
    address::{AddressAttribute, AddressScope},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope},
};
use rtnetlink::{Handle, IpVersion, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::{
    config::{DEVICE, DEVICE_PEER, DatapathConfig},
    desired::Desired,
};

mod cni;
mod delivery;
mod leading;
mod links;
mod namespaces;
mod owners;
mod passed;
mod places;
mod sysctl;
mod watch;

pub(crate) use links::{Kind, Link};
pub(crate) use passed::Passed;
pub(crate) use places::{Found, Look};
pub(crate) use sysctl::WRITTEN as WRITTEN_SYSCTLS;

/// Who made our routes, as `ip route show proto 77` shows it.
const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Other(77);
/// An address for our device: loose reverse path filtering wants one, and nobody sends to it.
const DEVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 177, 1);

/// The network could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A netlink request failed.
    #[error("{what}: {source}")]
    Netlink {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: rtnetlink::Error,
    },
    /// The netlink socket could not be opened.
    #[error("netlink socket: {0}")]
    Socket(io::Error),
    /// A sysctl or its saved value could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Our device is missing though it was just made.
    #[error("device {0} is not there")]
    NoDevice(&'static str),
    /// An address that no route can be made of.
    #[error("route to {0} cannot be written")]
    Route(IpAddr),
}

fn netlink(what: &'static str) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    move |source| NetworkError::Netlink { what, source }
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> NetworkError + '_ {
    |source| NetworkError::File { path: path.to_owned(), source }
}

/// A connection to the kernel's network configuration.
pub(crate) struct Network {
    handle: Handle,
    /// For questions about other namespaces, which the kernel answers only to who asks strictly.
    strict: Handle,
    /// What changed; with the device, where it is one.
    changes: BoxStream<'static, Option<(u32, Link)>>,
    /// Something has changed and it is not quiet yet.
    unsettled: bool,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl Network {
    /// The addresses of this namespace's devices, by device.
    ///
    /// # Errors
    /// Those of the netlink request.
    pub(crate) async fn addresses(&self) -> Result<BTreeMap<u32, BTreeSet<IpAddr>>, NetworkError> {
        let mut addresses: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        let mut found = self.handle.address().get().execute();
        while let Some(message) = found.try_next().await.map_err(netlink("list of addresses"))? {
            for attribute in message.attributes {
                if let AddressAttribute::Address(address) | AddressAttribute::Local(address) = attribute {
                    addresses.entry(message.header.index).or_default().insert(address);
                }
            }
        }
        Ok(addresses)
    }

    /// Makes our device, the rule and the table behind it; what is there already stays.
    ///
    /// # Errors
    /// Names what could not be made.
    pub(crate) async fn set_up(&self, config: &DatapathConfig) -> Result<u32, NetworkError> {
        sysctl::set(&config.state_dir)?;
        let index = match self.device(DEVICE).await? {
            Some(index) => index,
            None => self.make_device().await?,
        };
        sysctl::keep()?;
        self.deliver(config).await?;
        Ok(index)
    }

    /// Puts back what others have changed of what [`Network::set_up`] made, and tells of it.
    ///
    /// # Errors
    /// Names what could not be put back.
    pub(crate) async fn keep_up(&self, config: &DatapathConfig) -> Result<(), NetworkError> {
        for path in sysctl::keep()? {
            tracing::warn!(path = %path.display(), "somebody has changed a setting that the redirect needs, set again");
        }
        if self.restore_delivery(config).await? {
            tracing::warn!("rules that deliver marked packets were missing, made again");
        }
        Ok(())
    }

    async fn device(&self, name: &str) -> Result<Option<u32>, NetworkError> {
        let links = self.links().await?;
        Ok(links.into_iter().find_map(|(index, link)| (link.name == name).then_some(index)))
    }

    async fn make_device(&self) -> Result<u32, NetworkError> {
        let message = LinkVeth::new(DEVICE, DEVICE_PEER).build();
        self.handle.link().add(message).execute().await.map_err(netlink("making weft0"))?;
        let index = self.device(DEVICE).await?.ok_or(NetworkError::NoDevice(DEVICE))?;
        let peer = self.device(DEVICE_PEER).await?.ok_or(NetworkError::NoDevice(DEVICE_PEER))?;
        for (index, arp) in [(index, true), (peer, false)] {
            // Nobody answers behind the peer: frames go out without asking who is there.
            let message = LinkMessageBuilder::<LinkUnspec>::new().index(index).arp(arp).up().build();
            self.handle.link().set(message).execute().await.map_err(netlink("raising weft0"))?;
        }
        let mut request = self.handle.address().add(index, DEVICE_ADDRESS.into(), 32);
        // Of link scope it is never chosen as a source address.
        request.message_mut().header.scope = AddressScope::Link;
        request.execute().await.map_err(netlink("address of weft0"))?;
        Ok(index)
    }

    /// Leads packets that processes of the node send to `kept` addresses into our device.
    ///
    /// # Errors
    /// Names the route.
    pub(crate) async fn route_kept(&self, desired: &Desired, own: &[IpAddr]) -> Result<(), NetworkError> {
        let peer = self.device(DEVICE_PEER).await?.ok_or(NetworkError::NoDevice(DEVICE_PEER))?;
        let kept: BTreeSet<IpAddr> = desired.kept.iter().map(|(address, _)| *address).collect();
        let mut there = BTreeMap::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            for route in self.routes(version).await? {
                if let Some(address) = route_to(&route, peer) {
                    there.insert(address, route);
                }
            }
        }
        for address in kept.iter().filter(|address| !there.contains_key(address)) {
            self.keep(*address, desired, own).await?;
        }
        for (_, route) in there.into_iter().filter(|(address, _)| !kept.contains(address)) {
            self.handle.route().del(route).execute().await.map_err(netlink("old route of a service"))?;
        }
        Ok(())
    }

    /// Adds the route of one address, or replaces it.
    ///
    /// # Errors
    /// Those of the netlink requests.
    pub(crate) async fn keep(
        &self,
        address: IpAddr,
        desired: &Desired,
        own: &[IpAddr],
    ) -> Result<(), NetworkError> {
        if address.is_ipv6() && !delivery::has_ipv6() {
            return Ok(());
        }
        let source = desired
            .node_addresses()
            .find(|node_address| node_address.is_ipv4() == address.is_ipv4() && own.contains(node_address));
        let mut builder = self.kept_route(address).await?;
        if let Some(source) = source {
            builder = builder.pref_source(source).map_err(|_mixed| NetworkError::Route(address))?;
        }
        let request = self.handle.route().add(builder.build()).replace();
        request.execute().await.map_err(netlink("route of a service"))
    }

    /// Removes the route of one address.
    ///
    /// # Errors
    /// Those of the netlink requests; that it is not there is none.
    pub(crate) async fn forget_kept(&self, address: IpAddr) -> Result<(), NetworkError> {
        let route = self.kept_route(address).await?.build();
        match self.handle.route().del(route).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ESRCH => Ok(()),
            done => done.map_err(netlink("old route of a service")),
        }
    }

    async fn kept_route(&self, address: IpAddr) -> Result<RouteMessageBuilder<IpAddr>, NetworkError> {
        let device = self.device(DEVICE_PEER).await?.ok_or(NetworkError::NoDevice(DEVICE_PEER))?;
        let length = if address.is_ipv4() { 32 } else { 128 };
        let builder = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(address, length)
            .map_err(|_mixed| NetworkError::Route(address))?
            .output_interface(device)
            .protocol(ROUTE_PROTOCOL);
        Ok(if address.is_ipv4() { builder.scope(RouteScope::Link) } else { builder })
    }

    async fn routes(&self, version: IpVersion) -> Result<Vec<RouteMessage>, NetworkError> {
        let message = match version {
            IpVersion::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
            IpVersion::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
        };
        self.handle.route().get(message).execute().try_collect().await.map_err(netlink("list of routes"))
    }

    /// Removes rule, table and device, and restores the sysctls.
    ///
    /// # Errors
    /// Names what could not be removed; what is not there is no error.
    pub(crate) async fn tear_down(&self, config: &DatapathConfig) -> Result<(), NetworkError> {
        for rule in self.rules(config).await? {
            self.handle.rule().del(rule).execute().await.map_err(netlink("rule for marked packets"))?;
        }
        for version in [IpVersion::V4, IpVersion::V6] {
            for route in self.routes(version).await? {
                if route.header.protocol == ROUTE_PROTOCOL {
                    self.handle.route().del(route).execute().await.map_err(netlink("local route"))?;
                }
            }
        }
        if let Some(index) = self.device(DEVICE).await? {
            self.handle.link().del(index).execute().await.map_err(netlink("removing weft0"))?;
        }
        sysctl::restore(&config.state_dir)
    }
}

fn route_to(route: &RouteMessage, device: u32) -> Option<IpAddr> {
    if route.header.protocol != ROUTE_PROTOCOL || !route.attributes.contains(&RouteAttribute::Oif(device)) {
        return None;
    }
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}
