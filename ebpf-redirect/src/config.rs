// SPDX-License-Identifier: Apache-2.0
//! What one node owns on its kernel, and the numbers that it uses there.

use std::{path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// Settings of the datapath of one node. Several nodes can share one kernel, each with its own
/// cgroup, bpffs directory, network namespace (the caller's) and state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatapathConfig {
    /// The node's name in the IR.
    pub node: String,
    /// A cgroup v2 directory: sockets of processes below it are load balanced.
    pub cgroup: PathBuf,
    /// A directory on a bpf file system; made, and mounted under `/sys/fs/bpf`, if it is not there.
    pub bpffs: PathBuf,
    /// Where the values of changed sysctls are kept until [`crate::Datapath::cleanup`].
    pub state_dir: PathBuf,
    /// Our bits of the packet mark.
    pub mark: Mark,
    /// First and last port of the proxy's own connections in a client's name. Others may use them too.
    pub ports: (u16, u16),
    /// Routing table that delivers marked packets.
    pub table: u32,
    /// Preference of the `ip rule` that leads there.
    pub rule_priority: u32,
    /// How programs are attached to devices.
    pub attachment: Attachment,
    /// Where container runtimes keep the results of CNI plug-ins; need not be there.
    pub cni_results: PathBuf,
    /// Names of devices that are pods' where their other end is in another namespace (`*` stands for any text,
    /// `?` for a character): closed until it is known whose they are. Ports of pods' bridges always are.
    pub pod_devices: Vec<String>,
    /// Whether packets of established connections skip the node's stack.
    pub short_path: ShortPath,
}

/// Whether packets of established connections go past the node's stack, from device to pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShortPath {
    /// Where no forwarding rules of others stand in the way but those that only look at how connections begin.
    #[default]
    Auto,
    /// Past any forwarding rules of others.
    On,
    /// Never.
    Off,
}

impl FromStr for ShortPath {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<ShortPath, ConfigError> {
        match text {
            "auto" => Ok(ShortPath::Auto),
            "on" => Ok(ShortPath::On),
            "off" => Ok(ShortPath::Off),
            _ => Err(ConfigError::ShortPath(text.to_owned())),
        }
    }
}

/// The names that Calico, the AWS and Azure plug-ins and the reference plug-ins (four random bytes) give to
/// pods' devices. Not those of Docker, which have seven digits, and of LXC and Podman, which have fewer.
pub const POD_DEVICES: [&str; 4] = ["cali*", "eni*", "azv*", "veth????????"];

/// Behind the local table, which is first where nobody has moved it, and before what others look up by device: the
/// AWS plug-in from 10 on, Cilium from 9. Our rules have the numbers next to it, too.
const RULE_PRIORITY: u32 = 4;

/// Where libcni keeps results by default.
pub const CNI_RESULTS: &str = "/var/lib/cni/results";

/// How programs are attached to devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attachment {
    /// By tcx links where the kernel has them (6.6), by filters where it does not.
    #[default]
    Auto,
    /// By tcx links.
    Tcx,
    /// By filters on the clsact queueing discipline, also where there are tcx links.
    Clsact,
}

impl FromStr for Attachment {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Attachment, ConfigError> {
        match text {
            "auto" => Ok(Attachment::Auto),
            "tcx" => Ok(Attachment::Tcx),
            "clsact" => Ok(Attachment::Clsact),
            _ => Err(ConfigError::Attachment(text.to_owned())),
        }
    }
}

/// The bits of the packet mark that are Weft's, and the two values in use.
///
/// The default, 0x60, is free of the bits of Cilium (0xf00 and above 0xffff0000), kube-proxy (0x4000,
/// 0x8000), portmap (0x2000), Calico (0xffff0000) and the AWS CNI (0x80).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The bits.
    pub mask: u32,
    /// Packets on their way to a socket of the proxy.
    pub to_proxy: u32,
    /// Sockets of the proxy: its listeners and its connections onward set this as `SO_MARK`.
    pub from_proxy: u32,
}

/// The mark that the proxy's sockets carry by default.
pub const DEFAULT_MARK: Mark = Mark { mask: 0x60, to_proxy: 0x20, from_proxy: 0x40 };

/// The proxy's default block of ports. Linux' own ephemeral range ends at 60999.
pub const DEFAULT_PORTS: (u16, u16) = (61_000, 65_535);

/// Name of the device at whose ingress sockets are assigned.
pub(crate) const DEVICE: &str = "weft0";

/// Name of its other end, into which routes of kept service addresses lead.
pub(crate) const DEVICE_PEER: &str = "weft1";

/// Bits of the mark that others use: name and mask.
pub(crate) const FOREIGN_MARKS: [(&str, u32); 5] = [
    ("cilium", 0x0000_0f00),
    ("kube-proxy", 0x0000_c000),
    ("portmap", 0x0000_2000),
    ("calico", 0xffff_0000),
    ("aws-cni", 0x0000_0080),
];

impl DatapathConfig {
    /// The defaults for a node.
    pub fn new(node: &str, cgroup: PathBuf, bpffs: PathBuf, state_dir: PathBuf) -> DatapathConfig {
        DatapathConfig {
            node: node.to_owned(),
            cgroup,
            bpffs,
            state_dir,
            mark: DEFAULT_MARK,
            ports: DEFAULT_PORTS,
            table: 3077,
            rule_priority: RULE_PRIORITY,
            attachment: Attachment::default(),
            cni_results: CNI_RESULTS.into(),
            pod_devices: POD_DEVICES.map(str::to_owned).to_vec(),
            short_path: ShortPath::default(),
        }
    }

    /// Checks the numbers against each other and against the marks of others.
    ///
    /// # Errors
    /// Names the first setting that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Mark { mask, to_proxy, from_proxy } = self.mark;
        let inside = |value: u32| value != 0 && value & !mask == 0;
        if !inside(to_proxy) || !inside(from_proxy) || to_proxy == from_proxy {
            return Err(ConfigError::Mark { mask, to_proxy, from_proxy });
        }
        if let Some((owner, bits)) = FOREIGN_MARKS.iter().find(|(_, bits)| bits & mask != 0) {
            return Err(ConfigError::ForeignMark { mask, owner, bits: *bits });
        }
        let (first, last) = self.ports;
        if first < 1024 || first > last || last - first < 255 {
            return Err(ConfigError::Ports { first, last });
        }
        Ok(())
    }
}

/// A setting that cannot work.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The mark's values are not two different ones inside of the mask.
    #[error(
        "mark {to_proxy:#x} and {from_proxy:#x} must differ, not be 0, and lie inside of the mask {mask:#x}"
    )]
    Mark {
        /// The mask.
        mask: u32,
        /// Towards the proxy.
        to_proxy: u32,
        /// From the proxy.
        from_proxy: u32,
    },
    /// The mask has bits of somebody else.
    #[error("mark mask {mask:#x} overlaps {owner}'s {bits:#x}; choose other bits")]
    ForeignMark {
        /// The mask.
        mask: u32,
        /// Whose bits.
        owner: &'static str,
        /// The bits.
        bits: u32,
    },
    /// No way of attaching has this name.
    #[error("attachment {0} is not auto, tcx or clsact")]
    Attachment(String),
    /// No setting of the short path has this name.
    #[error("short path {0} is not auto, on or off")]
    ShortPath(String),
    /// The block of ports is too small or out of place.
    #[error("proxy ports {first}-{last} must be at least 256 ports above 1023")]
    Ports {
        /// The first.
        first: u16,
        /// The last.
        last: u16,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> DatapathConfig {
        DatapathConfig::new("n", "/c".into(), "/b".into(), "/s".into())
    }

    #[test]
    fn the_defaults_are_free_of_the_marks_of_others() {
        assert_eq!(config().check(), Ok(()));
    }

    #[test]
    fn a_mask_of_somebody_else_is_refused() {
        let mut config = config();
        config.mark = Mark { mask: 0x300, to_proxy: 0x200, from_proxy: 0x300 };
        assert!(matches!(config.check(), Err(ConfigError::ForeignMark { owner: "cilium", .. })));
    }

    #[test]
    fn an_attachment_is_one_of_three() {
        let read = |text: &str| text.parse::<Attachment>();
        assert_eq!(read("auto"), Ok(Attachment::default()));
        assert_eq!((read("tcx"), read("clsact")), (Ok(Attachment::Tcx), Ok(Attachment::Clsact)));
        assert_eq!(read("netkit"), Err(ConfigError::Attachment("netkit".into())));
    }

    #[test]
    fn the_short_path_is_one_of_three() {
        let read = |text: &str| text.parse::<ShortPath>();
        assert_eq!(read("auto"), Ok(ShortPath::default()));
        assert_eq!((read("on"), read("off")), (Ok(ShortPath::On), Ok(ShortPath::Off)));
        assert_eq!(read("yes"), Err(ConfigError::ShortPath("yes".into())));
    }

    #[test]
    fn equal_marks_are_refused() {
        let mut config = config();
        config.mark.to_proxy = config.mark.from_proxy;
        assert!(matches!(config.check(), Err(ConfigError::Mark { .. })));
    }
}
