// SPDX-License-Identifier: Apache-2.0
//! A pod: a namespace with a veth pair into its node's.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{Node, Shape, Shared};
use crate::cgroup;
use crate::netns::Netns;
use crate::process::{Place, Running};

/// The address of the node in each routed pod's world: on every host-side device, for ARP only.
pub const GATEWAY_V4: &str = "169.254.77.1";
/// The same in IPv6.
pub const GATEWAY_V6: &str = "fe80::77:1";

/// A label: its key and value.
pub type Label = (String, String);

/// A pod of the lab. Clones are the same pod.
#[derive(Clone, Debug)]
pub struct Pod {
    parts: Shared<Parts>,
}

#[derive(Debug)]
struct Parts {
    namespace: String,
    name: String,
    labels: Vec<Label>,
    node: String,
    device: String,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    netns: Netns,
    place: Place,
}

impl Pod {
    pub(super) fn create(
        node: &Node,
        number: u8,
        namespace: &str,
        name: &str,
        labels: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let netns = Netns::create(&node.namespace_name(&format!("{namespace}-{name}")))?;
        let cgroup = node.cgroup().join("kubepods").join(format!("pod-{namespace}-{name}"));
        cgroup::create(&cgroup)?;
        let parts = Parts {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            node: node.name().to_owned(),
            device: format!("veth{number}"),
            v4: Ipv4Addr::new(10, 244, node.index(), number),
            v6: Ipv6Addr::new(0xfd00, 0x244, u16::from(node.index()), 0, 0, 0, 0, u16::from(number)),
            place: Place { netns: Some(netns.path()), cgroup: Some(cgroup), logs: node.logs().to_path_buf() },
            netns,
        };
        node.netns().ip(&format!(
            "link add {} type veth peer name eth0 netns {}",
            parts.device,
            parts.netns.name()
        ))?;
        match node.shape() {
            Shape::Routed => parts.join_routed(node)?,
            Shape::Bridged => parts.join_bridged(node)?,
        }
        Ok(Self { parts: Shared::new(parts) })
    }

    /// Its Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.parts.namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// Its labels.
    pub fn labels(&self) -> &[Label] {
        &self.parts.labels
    }

    /// The name of its node.
    pub fn node(&self) -> &str {
        &self.parts.node
    }

    /// The name of its veth in the node's namespace.
    pub fn device(&self) -> &str {
        &self.parts.device
    }

    /// Its address.
    pub fn ip4(&self) -> Ipv4Addr {
        self.parts.v4
    }

    /// Its IPv6 address.
    pub fn ip6(&self) -> Ipv6Addr {
        self.parts.v6
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        &self.parts.netns
    }

    /// Where its processes run.
    pub fn place(&self) -> &Place {
        &self.parts.place
    }

    /// Starts a peer that serves in the pod, and waits until it listens.
    pub fn serve(&self, arguments: &[&str]) -> anyhow::Result<Running> {
        self.parts.place.serve(&self.parts.name, arguments)
    }

    /// Starts a peer in the pod.
    pub fn start(&self, arguments: &[&str]) -> anyhow::Result<Running> {
        self.parts.place.peer(&self.parts.name, arguments)
    }

    /// Runs a peer in the pod to its end, and reads the JSON line that it printed.
    pub fn ask<T: DeserializeOwned>(&self, arguments: &[&str], deadline: Duration) -> anyhow::Result<T> {
        self.parts.place.ask(&self.parts.name, arguments, deadline)
    }
}

impl Parts {
    /// What `ptp` does: a /32 with the node as the only neighbour, and a host route on the node.
    fn join_routed(&self, node: &Node) -> anyhow::Result<()> {
        let Self { device, v4, v6, .. } = self;
        node.netns().ip(&format!(
            "addr add {GATEWAY_V4}/32 dev {device}\n\
             addr add {GATEWAY_V6}/64 dev {device} nodad\n\
             link set {device} up\n\
             route add {v4}/32 dev {device}\n\
             route add {v6}/128 dev {device}"
        ))?;
        node.netns().sysctl(&format!("net/ipv4/conf/{device}/proxy_arp"), "1")?;
        self.netns.ip(&format!(
            "addr add {v4}/32 dev eth0\n\
             addr add {v6}/128 dev eth0 nodad\n\
             link set eth0 up\n\
             route add {GATEWAY_V4} dev eth0 scope link\n\
             route add default via {GATEWAY_V4} dev eth0\n\
             route add default via {GATEWAY_V6} dev eth0"
        ))
    }

    /// What `bridge` does: a port of the node's bridge, and neighbours in one network.
    fn join_bridged(&self, node: &Node) -> anyhow::Result<()> {
        let Self { device, v4, v6, .. } = self;
        node.netns().ip(&format!("link set {device} master cni0 up"))?;
        self.netns.ip(&format!(
            "addr add {v4}/24 dev eth0\n\
             addr add {v6}/64 dev eth0 nodad\n\
             link set eth0 up\n\
             route add default via {}\n\
             route add default via {}",
            node.bridge_v4(),
            node.bridge_v6()
        ))
    }
}
