// SPDX-License-Identifier: Apache-2.0
//! Which hooks a device has, by what is behind it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    config::{DEVICE, DEVICE_PEER},
    hook::DeviceHook,
    network::{Kind, Link},
    sync::Place,
};

/// The hooks of a pod's device of which it is not known whose it is.
pub(super) const UNOWNED: [DeviceHook; 2] = [DeviceHook::FromUnowned, DeviceHook::ToUnowned];

/// Whether a device looks like a pod's before anybody says so: the other end of its pair is in another
/// namespace, and one of the names is its own.
pub(super) fn is_like_a_pods(link: &Link, names: &[String]) -> bool {
    link.kind == Kind::Veth && names.iter().any(|pattern| matches(pattern.as_bytes(), link.name.as_bytes()))
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), None) => matches(rest, name),
        (Some((b'*', rest)), Some((_, others))) => matches(rest, name) || matches(pattern, others),
        (Some((one, rest)), Some((letter, others))) => {
            (*one == b'?' || one == letter) && matches(rest, others)
        }
        _ => false,
    }
}

/// What is known of the node's devices.
pub(super) struct Node<'a> {
    pub(super) links: &'a BTreeMap<u32, Link>,
    /// Where workloads are.
    pub(super) places: &'a BTreeMap<IpAddr, Place>,
    /// Names of pods' devices.
    pub(super) names: &'a [String],
    /// Devices over which a route leads to more than one machine.
    pub(super) out: &'a BTreeSet<u32>,
    /// Bridges of which it is known that they are not the pods'.
    pub(super) foreign: &'a BTreeSet<u32>,
    /// Devices that have been pods'.
    pub(super) were_pods: &'a BTreeSet<u32>,
}

impl Node<'_> {
    /// The hooks of every device.
    pub(super) fn hooks(&self) -> BTreeSet<(DeviceHook, u32)> {
        let pods: BTreeSet<u32> = self.places.values().map(|place| place.ifindex).collect();
        let bridges: BTreeSet<u32> = self.places.values().filter_map(|place| place.bridge).collect();
        let mut wanted = BTreeSet::new();
        for (index, link) in self.links {
            let of_device: &[DeviceHook] = if link.name == DEVICE {
                &[DeviceHook::Bounced]
            } else if link.loopback || link.name == DEVICE_PEER {
                &[]
            } else if pods.contains(index) {
                &[DeviceHook::FromPod, DeviceHook::ToPod]
            } else if link.kind == Kind::Veth && self.is_unowned(*index, link, &bridges) {
                &UNOWNED
            } else if matches!(link.kind, Kind::Bridge | Kind::Inside) {
                &[DeviceHook::FromNetdev]
            } else {
                &[DeviceHook::FromUplink]
            };
            wanted.extend(of_device.iter().map(|hook| (*hook, *index)));
        }
        wanted
    }

    /// Whether a pod may be behind the end of a pair.
    ///
    /// SECURITY: what is behind an uplink may speak for pods of other nodes, and is held to no policy. So an end is
    /// none because nobody knows it: routes have to lead on over it, as no plug-in makes them to a pod.
    fn is_unowned(&self, index: u32, link: &Link, bridges: &BTreeSet<u32>) -> bool {
        let named = is_like_a_pods(link, self.names);
        let Some(controller) = link.controller else {
            // Without names the operator has chosen that what nobody knows stays open.
            let leads_nowhere = self.names.iter().any(|name| !name.is_empty()) && !self.out.contains(&index);
            return self.were_pods.contains(&index) || named || leads_nowhere;
        };
        let is_bridge = self.links.get(&controller).is_some_and(|link| link.kind == Kind::Bridge);
        bridges.contains(&controller)
            || self.were_pods.contains(&index)
            // What is a port of something else (Open vSwitch) is found by no route.
            || named && is_bridge && !self.foreign.contains(&controller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::POD_DEVICES;

    fn link(name: &str, kind: Kind, controller: Option<u32>) -> Link {
        let netns = (kind == Kind::Veth).then_some(0);
        Link {
            name: name.to_owned(),
            kind,
            loopback: name == "lo",
            controller,
            netns,
            peer: netns.map(|_| 2),
        }
    }

    /// The hooks of devices that are there beside a routed pod behind device 8 and a bridged one behind 9.
    /// Over device 20 routes lead on, and bridge 98 is another's.
    fn hooks_of(devices: &[Link]) -> Vec<Vec<DeviceHook>> {
        hooks_after(devices, &[])
    }

    fn hooks_after(devices: &[Link], were_pods: &[u32]) -> Vec<Vec<DeviceHook>> {
        hooks_by(devices, were_pods, &POD_DEVICES)
    }

    fn hooks_by(devices: &[Link], were_pods: &[u32], names: &[&str]) -> Vec<Vec<DeviceHook>> {
        let pods =
            [link("p8", Kind::Veth, None), link("p9", Kind::Veth, Some(7)), link("br0", Kind::Bridge, None)];
        let links = (8..).zip(pods[..2].to_vec()).chain([(7, pods[2].clone())]);
        let links = links.chain([(98, link("nerdctl0", Kind::Bridge, None))]);
        let links = links.chain((20..).zip(devices.to_vec())).collect();
        let places = BTreeMap::from([
            ([10, 0, 0, 8].into(), Place { ifindex: 8, bridge: None }),
            ([10, 0, 0, 9].into(), Place { ifindex: 9, bridge: Some(7) }),
        ]);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let node = Node {
            links: &links,
            places: &places,
            names: &names,
            out: &BTreeSet::from([20]),
            foreign: &BTreeSet::from([98]),
            were_pods: &were_pods.iter().copied().collect(),
        };
        let found = node.hooks();
        let of = |index: u32| found.iter().filter(|(_, of)| *of == index).map(|(hook, _)| *hook).collect();
        assert_eq!((of(8), of(9)), (vec![DeviceHook::FromPod, DeviceHook::ToPod], of(8)));
        assert_eq!(of(7), [DeviceHook::FromNetdev]);
        (20..).zip(devices).map(|(index, _)| of(index)).collect()
    }

    #[test]
    fn what_leads_out_of_the_node_is_an_uplink_and_what_leads_around_in_it_is_not() {
        let found = hooks_of(&[
            link("veth0", Kind::Veth, None),
            link("eth0", Kind::Other, None),
            link("vxlan0", Kind::Other, None),
            link("docker0", Kind::Bridge, None),
            link("cilium_net", Kind::Inside, None),
            link("lo", Kind::Other, None),
            link(DEVICE, Kind::Inside, None),
            link(DEVICE_PEER, Kind::Inside, None),
        ]);
        let (out, around) = (vec![DeviceHook::FromUplink], vec![DeviceHook::FromNetdev]);
        let ours = vec![DeviceHook::Bounced];
        assert_eq!(found, [out.clone(), out.clone(), out, around.clone(), around, vec![], ours, vec![]]);
    }

    #[test]
    fn a_device_that_looks_like_a_pods_is_closed_and_nobody_elses_is() {
        let closed = UNOWNED.to_vec();
        for name in ["cali12ab", "eni3f", "azv0", "veth1a2b3c4d"] {
            for controller in [None, Some(7)] {
                assert_eq!(
                    hooks_of(&[link(name, Kind::Veth, controller)]),
                    std::slice::from_ref(&closed),
                    "{name}"
                );
            }
            // Of a switch that no route leads to, and with no other namespace behind it.
            assert_eq!(hooks_of(&[link(name, Kind::Veth, Some(99))]), [[DeviceHook::FromUplink]], "{name}");
            assert_eq!(hooks_of(&[link(name, Kind::Other, None)]), [[DeviceHook::FromUplink]], "{name}");
        }
        // What has no name of a pod's but is a port of the pods' bridge.
        for name in ["veth1a2b3c4", "veth0", "up0"] {
            assert_eq!(hooks_of(&[link(name, Kind::Veth, Some(7))]), std::slice::from_ref(&closed), "{name}");
        }
        assert_eq!(hooks_of(&[link("eth1", Kind::Other, Some(7))]), [[DeviceHook::FromUplink]]);
    }

    #[test]
    fn an_end_of_a_pair_over_which_nothing_leads_on_is_no_uplink() {
        let found = hooks_of(&[link("up0", Kind::Veth, None), link("lxc1", Kind::Veth, None)]);
        assert_eq!(found, [vec![DeviceHook::FromUplink], UNOWNED.to_vec()]);
        // With no names only what is known to be, or to have been, a pod's is closed.
        let lxc = [link("up0", Kind::Veth, None), link("lxc1", Kind::Veth, None)];
        assert_eq!(hooks_by(&lxc, &[], &[""])[1], [DeviceHook::FromUplink]);
        assert_eq!(hooks_by(&lxc, &[21], &[""])[1], UNOWNED);
        // What has been a pod's is none either, whatever leads there, until it is gone.
        assert_eq!(hooks_after(&[link("up0", Kind::Veth, None)], &[20]), [UNOWNED]);
        assert_eq!(hooks_after(&[link("up0", Kind::Veth, Some(98))], &[20]), [UNOWNED]);
    }

    #[test]
    fn ports_of_bridges_of_others_are_theirs_by_whatever_name() {
        for name in ["veth1a2b3c4", "veth1a2b3c4d"] {
            assert_eq!(hooks_of(&[link(name, Kind::Veth, Some(98))]), [[DeviceHook::FromUplink]], "{name}");
        }
    }

    #[test]
    fn names_match_as_shells_match_them() {
        for (pattern, name, same) in [
            ("p*", "p0", true),
            ("p*", "p", true),
            ("p*", "up0", false),
            ("*0", "up0", true),
            ("*p*0", "up10", true),
            ("v?t", "vet", true),
            ("v?t", "vt", false),
            ("", "", true),
            ("", "p", false),
            ("p0", "p", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), same, "{pattern} {name}");
        }
    }
}
