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

/// The hooks of every device.
pub(super) fn hooks(
    links: &BTreeMap<u32, Link>,
    places: &BTreeMap<IpAddr, Place>,
) -> BTreeSet<(DeviceHook, u32)> {
    let pods: BTreeSet<u32> = places.values().map(|place| place.ifindex).collect();
    let bridges: BTreeSet<u32> = places.values().filter_map(|place| place.bridge).collect();
    let is_port = |link: &Link| link.controller.is_some_and(|bridge| bridges.contains(&bridge));
    let mut wanted = BTreeSet::new();
    for (index, link) in links {
        let of_device: &[DeviceHook] = if link.name == DEVICE {
            &[DeviceHook::Bounced]
        } else if link.loopback || link.name == DEVICE_PEER {
            &[]
        } else if pods.contains(index) {
            &[DeviceHook::FromPod, DeviceHook::ToPod]
        } else if is_port(link) && link.kind == Kind::Veth {
            &[DeviceHook::FromUnowned, DeviceHook::ToUnowned]
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

    fn link(name: &str, kind: Kind, controller: Option<u32>) -> Link {
        let netns = (kind == Kind::Veth).then_some(0);
        Link { name: name.to_owned(), kind, loopback: name == "lo", controller, netns }
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
        let found = hooks(&links.collect(), &places);
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
}
