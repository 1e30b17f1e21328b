// SPDX-License-Identifier: Apache-2.0
//! What others have at the devices of pods and uplinks that a packet of the short way would pass by.

use std::{collections::BTreeSet, io};

use crate::{
    bpf::{self, Attach},
    clsact,
    hook::{DeviceHook, Side},
};

/// What was found at all devices of this network namespace but programs on tcx.
pub(crate) struct Others {
    filters: BTreeSet<(u32, Side)>,
    shaped: BTreeSet<u32>,
}

impl Others {
    /// Looks.
    ///
    /// # Errors
    /// Those of the netlink requests.
    pub(crate) fn look() -> io::Result<Others> {
        Ok(Others { filters: clsact::others()?, shaped: clsact::shaped()? })
    }

    /// Whether nothing of others is at a device, as far as packets of `hook` that take the short way miss it. A
    /// pod's packets miss what comes behind our program, and what is at the other pod's device on the way out.
    ///
    /// # Errors
    /// Those of the system calls.
    pub(crate) fn leave_alone(&self, hook: DeviceHook, device: u32) -> io::Result<bool> {
        let sides: &[(Side, Attach)] = match hook {
            DeviceHook::FromPod if self.shaped.contains(&device) => return Ok(false),
            DeviceHook::FromPod => &[(Side::Ingress, Attach::TcxIngress), (Side::Egress, Attach::TcxEgress)],
            DeviceHook::FromUplink => &[(Side::Ingress, Attach::TcxIngress)],
            _ => return Ok(false),
        };
        for (side, attach) in sides {
            if self.filters.contains(&(device, *side)) || !only_ours(device, *attach)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether the programs at a device are ours, of this process or another of the same node.
fn only_ours(device: u32, attach: Attach) -> io::Result<bool> {
    for program in bpf::attached(device, attach)? {
        let name = bpf::program_name(program)?;
        if !DeviceHook::ALL.iter().any(|hook| hook.program() == name) {
            return Ok(false);
        }
    }
    Ok(true)
}
