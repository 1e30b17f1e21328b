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

/// The hooks of every device.
pub(super) fn hooks(
    links: &BTreeMap<u32, Link>,
    places: &BTreeMap<IpAddr, Place>,
    names: &[String],
) -> BTreeSet<(DeviceHook, u32)> {
    let pods: BTreeSet<u32> = places.values().map(|place| place.ifindex).collect();
    let bridges: BTreeSet<u32> = places.values().filter_map(|place| place.bridge).collect();
    let is_port = |link: &Link| link.controller.is_some_and(|bridge| bridges.contains(&bridge));
    let is_bridge = |index: &u32| links.get(index).is_some_and(|link| link.kind == Kind::Bridge);
    // What is a port of something else (Open vSwitch) is found by no route.
    let can_be_found = |link: &Link| link.controller.as_ref().is_none_or(is_bridge);
    let is_unowned = |link: &Link| {
        link.kind == Kind::Veth && is_port(link) || can_be_found(link) && is_like_a_pods(link, names)
    };
    let mut wanted = BTreeSet::new();
    for (index, link) in links {
        let of_device: &[DeviceHook] = if link.name == DEVICE {
            &[DeviceHook::Bounced]
        } else if link.loopback || link.name == DEVICE_PEER {
            &[]
        } else if pods.contains(index) {
            &[DeviceHook::FromPod, DeviceHook::ToPod]
        } else if is_unowned(link) {
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
    fn hooks_of(devices: &[Link]) -> Vec<Vec<DeviceHook>> {
        let pods =
            [link("p8", Kind::Veth, None), link("p9", Kind::Veth, Some(7)), link("br0", Kind::Bridge, None)];
        let links =
            (8..).zip(pods[..2].to_vec()).chain([(7, pods[2].clone())]).chain((20..).zip(devices.to_vec()));
        let places = BTreeMap::from([
            ([10, 0, 0, 8].into(), Place { ifindex: 8, bridge: None }),
            ([10, 0, 0, 9].into(), Place { ifindex: 9, bridge: Some(7) }),
        ]);
        let names = POD_DEVICES.map(str::to_owned);
        let found = hooks(&links.collect(), &places, &names);
        let of = |index: u32| found.iter().filter(|(_, of)| *of == index).map(|(hook, _)| *hook).collect();
        assert_eq!((of(8), of(9)), (vec![DeviceHook::FromPod, DeviceHook::ToPod], of(8)));
        assert_eq!(of(7), [DeviceHook::FromNetdev]);
        (20..).zip(devices).map(|(index, _)| of(index)).collect()
    }

    #[test]
    fn what_leads_out_of_the_node_is_an_uplink_and_what_leads_around_in_it_is_not() {
        let found = hooks_of(&[
            link("eth0", Kind::Other, None),
            link("vxlan0", Kind::Other, None),
            link("veth0", Kind::Veth, None),
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
        // Docker's, Podman's, and what has no name of a pod's but is a port of the pods' bridge.
        for name in ["veth1a2b3c4", "veth0", "up0"] {
            assert_eq!(hooks_of(&[link(name, Kind::Veth, None)]), [[DeviceHook::FromUplink]], "{name}");
            assert_eq!(hooks_of(&[link(name, Kind::Veth, Some(7))]), std::slice::from_ref(&closed), "{name}");
        }
        assert_eq!(hooks_of(&[link("eth1", Kind::Other, Some(7))]), [[DeviceHook::FromUplink]]);
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
