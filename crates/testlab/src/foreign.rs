// SPDX-License-Identifier: Apache-2.0
//! Rules of others that Weft has to live with, to be switched on per node.

use std::net::SocketAddr;

use crate::lab::Node;

/// A set of rules as somebody else installs it.
#[derive(Clone, Debug)]
pub enum Rules {
    /// kube-proxy: the service's address is translated to one of the endpoints, in turn.
    ServiceNat {
        /// The service.
        service: SocketAddr,
        /// Its endpoints.
        endpoints: Vec<SocketAddr>,
    },
    /// A CNI plugin hides pods behind the node's address when they talk to the outside.
    Masquerade,
    /// A firewall drops what connection tracking calls invalid, coming in and going out.
    DropInvalid,
    /// A firewall tracks connections, which is enough to turn the tracking on.
    Track,
}

impl Rules {
    /// Installs the rules on `node`.
    pub fn install(&self, node: &Node) -> anyhow::Result<()> {
        node.netns().feed("nft", &["-f", "-"], &self.text())
    }

    fn text(&self) -> String {
        match self {
            Self::ServiceNat { service, endpoints } => service_nat(*service, endpoints),
            Self::Masquerade => MASQUERADE.to_owned(),
            Self::DropInvalid => DROP_INVALID.to_owned(),
            Self::Track => TRACK.to_owned(),
        }
    }
}

const MASQUERADE: &str = "
table ip cni {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade
  }
}
table ip6 cni {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip6 saddr fd00:244::/32 ip6 daddr != fd00:244::/32 masquerade
  }
}
";

const DROP_INVALID: &str = "
table inet firewall {
  chain input { type filter hook input priority filter + 10; ct state invalid drop; }
  chain forward { type filter hook forward priority filter + 10; ct state invalid drop; }
  chain output { type filter hook output priority filter + 10; ct state invalid drop; }
}
";

const TRACK: &str = "
table inet track {
  chain forward { type filter hook forward priority filter; ct state new counter; }
  chain output { type filter hook output priority filter; ct state new counter; }
}
";

fn service_nat(service: SocketAddr, endpoints: &[SocketAddr]) -> String {
    let family = if service.is_ipv4() { "ip" } else { "ip6" };
    let port = service.port();
    let targets: Vec<String> = endpoints
        .iter()
        .enumerate()
        .map(|(index, endpoint)| format!("{index} : {} . {}", endpoint.ip(), endpoint.port()))
        .collect();
    let rule = format!(
        "{family} daddr {} tcp dport {port} dnat {family} to numgen inc mod {} map {{ {} }}",
        service.ip(),
        endpoints.len(),
        targets.join(", ")
    );
    format!(
        "table {family} kube-proxy-{port} {{\n\
         chain prerouting {{ type nat hook prerouting priority dstnat; {rule}; }}\n\
         chain output {{ type nat hook output priority -100; {rule}; }}\n\
         }}\n"
    )
}
