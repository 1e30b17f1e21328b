// SPDX-License-Identifier: Apache-2.0
//! The devices of the node's network namespace, and what they say about what is behind them.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

use super::{Network, NetworkError, netlink};

/// What kind of device it is, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A bridge.
    Bridge,
    /// One end of a pair whose other end is in another network namespace.
    Veth,
    /// What leads from one part of this node to another: pairs whose ends are both here, devices that only
    /// hold addresses, shape traffic, or stand for several.
    Inside,
    /// Anything else: network cards, tunnels.
    Other,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// It is the loopback device.
    pub loopback: bool,
    /// Index of the bridge or other device that it is a port of.
    pub controller: Option<u32>,
    /// Number of the network namespace that its other end is in, as this one knows it.
    pub netns: Option<i32>,
    /// Index of its other end there.
    pub peer: Option<u32>,
}

/// The other end of a pair, in another namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OtherEnd {
    /// Its index there.
    pub index: u32,
    /// The number that this namespace has for that one.
    pub netns: i32,
}

impl Link {
    /// Its other end, if that is in another namespace.
    pub(crate) fn other_end(&self) -> Option<OtherEnd> {
        Some(OtherEnd { index: self.peer?, netns: self.netns? }).filter(|_| self.kind == Kind::Veth)
    }

    /// Reads a message about a device.
    pub(super) fn read(message: LinkMessage) -> (u32, Link) {
        let mut link = Link {
            name: String::new(),
            kind: Kind::Other,
            loopback: message.header.flags.contains(LinkFlags::Loopback),
            controller: None,
            netns: None,
            peer: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::Link(index) => link.peer = Some(index),
                LinkAttribute::LinkNetNsId(number) => link.netns = Some(number),
                LinkAttribute::LinkInfo(details) => {
                    let mut kinds = details.into_iter().filter_map(|detail| match detail {
                        LinkInfo::Kind(kind) => Some(kind_of(&kind)),
                        _ => None,
                    });
                    link.kind = kinds.next().unwrap_or(Kind::Other);
                }
                _ => {}
            }
        }
        if link.kind == Kind::Veth && link.netns.is_none() {
            link.kind = Kind::Inside;
        }
        (message.header.index, link)
    }
}

fn kind_of(kind: &InfoKind) -> Kind {
    match kind {
        InfoKind::Bridge => Kind::Bridge,
        InfoKind::Veth => Kind::Veth,
        InfoKind::Dummy | InfoKind::Ifb | InfoKind::Nlmon | InfoKind::Vrf | InfoKind::Netkit => Kind::Inside,
        // Its internal ports lead to the node from whatever the switch connects.
        InfoKind::Other(name) if name == "openvswitch" => Kind::Inside,
        _ => Kind::Other,
    }
}

impl Network {
    /// Every device by index.
    ///
    /// # Errors
    /// Those of the netlink request.
    pub(crate) async fn links(&self) -> Result<BTreeMap<u32, Link>, NetworkError> {
        let mut links = BTreeMap::new();
        let mut found = self.handle.link().get().execute();
        while let Some(message) = found.try_next().await.map_err(netlink("list of devices"))? {
            let (index, link) = Link::read(message);
            links.insert(index, link);
        }
        Ok(links)
    }
}
