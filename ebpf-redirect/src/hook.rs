// SPDX-License-Identifier: Apache-2.0
//! Where the programs are attached.

use crate::bpf::Attach;

/// The hooks of sockets, each attached to the node's cgroup.
pub(crate) const SOCKET_HOOKS: [(&str, Attach); 9] = [
    ("connect4", Attach::Connect4),
    ("connect6", Attach::Connect6),
    ("sendmsg4", Attach::Sendmsg4),
    ("sendmsg6", Attach::Sendmsg6),
    ("recvmsg4", Attach::Recvmsg4),
    ("recvmsg6", Attach::Recvmsg6),
    ("getpeername4", Attach::Getpeername4),
    ("getpeername6", Attach::Getpeername6),
    ("setsockopt", Attach::Setsockopt),
];

/// Hooks that only guard the proxy against other processes of the node, and that old kernels do not
/// take. All others are needed.
///
/// Before 6.1 `setsockopt` cannot tell whose process it runs in.
pub(crate) const OPTIONAL_HOOKS: [&str; 1] = ["setsockopt"];

/// A hook of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceHook {
    /// What a pod sends.
    FromPod,
    /// What is sent to a pod.
    ToPod,
    /// What a pod sends of which it is not known which one it is.
    FromUnowned,
    /// What is sent to such a pod.
    ToUnowned,
    /// What comes through devices of the node behind which pods may be.
    FromNetdev,
    /// What comes from everywhere else.
    FromUplink,
    /// Our own device.
    Bounced,
}

impl DeviceHook {
    /// All of them.
    pub const ALL: [DeviceHook; 7] = [
        DeviceHook::FromPod,
        DeviceHook::ToPod,
        DeviceHook::FromUnowned,
        DeviceHook::ToUnowned,
        DeviceHook::FromNetdev,
        DeviceHook::FromUplink,
        DeviceHook::Bounced,
    ];

    /// The name of the program.
    pub fn program(self) -> &'static str {
        match self {
            DeviceHook::FromPod => "from_pod",
            DeviceHook::ToPod => "to_pod",
            DeviceHook::FromUnowned => "from_unowned",
            DeviceHook::ToUnowned => "to_unowned",
            DeviceHook::FromNetdev => "from_netdev",
            DeviceHook::FromUplink => "from_uplink",
            DeviceHook::Bounced => "bounced",
        }
    }

    /// A number that stays the same from version to version.
    pub(crate) fn number(self) -> u32 {
        match self {
            DeviceHook::FromPod => 0,
            DeviceHook::ToPod => 1,
            DeviceHook::FromUnowned => 2,
            DeviceHook::ToUnowned => 3,
            DeviceHook::FromNetdev => 4,
            DeviceHook::Bounced => 5,
            DeviceHook::FromUplink => 6,
        }
    }

    /// Which packets of the device it sees.
    pub(crate) fn side(self) -> Side {
        match self {
            DeviceHook::ToPod | DeviceHook::ToUnowned => Side::Egress,
            _ => Side::Ingress,
        }
    }

    /// How a tcx link attaches it.
    pub(crate) fn attach(self) -> Attach {
        match self.side() {
            Side::Ingress => Attach::TcxIngress,
            Side::Egress => Attach::TcxEgress,
        }
    }
}

/// The direction of a hook, seen from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Ingress,
    Egress,
}

impl Side {
    /// Both.
    pub(crate) const BOTH: [Side; 2] = [Side::Ingress, Side::Egress];
}
