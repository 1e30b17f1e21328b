// SPDX-License-Identifier: Apache-2.0
//! Which pod is behind which port, where nobody who made it says so.
//!
//! A pod that may change its namespace can give itself any address. So an address counts only where the
//! cluster gave it to a workload, a port has one owner, and where more than one port is left, none is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use weft_ir::ObjectName;

/// Addresses whose port is asked for, and whose they are.
pub(super) type Asked<'a> = BTreeMap<IpAddr, &'a ObjectName>;
/// Ports by address.
pub(super) type Ports = BTreeMap<IpAddr, u32>;

/// Adds to the ports that are known what the makers of pods say, which comes first: but a port has one owner. One
/// that is known to be another pod's, of which nobody says that it is elsewhere, stays that pod's; one that is
/// said to be two pods' is nobody's.
pub(super) fn believe(asked: &Asked<'_>, ports: &mut Ports, made: Ports) {
    ports.retain(|address, _| !made.contains_key(address));
    let mut said: BTreeMap<u32, BTreeSet<&ObjectName>> = BTreeMap::new();
    for (address, port) in &made {
        said.entry(*port).or_default().insert(asked[address]);
    }
    let known: BTreeMap<u32, &ObjectName> =
        ports.iter().map(|(address, port)| (*port, asked[address])).collect();
    let is_its = |address: &IpAddr, port: &u32| {
        said[port].len() == 1 && known.get(port).is_none_or(|owner| *owner == asked[address])
    };
    ports.extend(made.into_iter().filter(|(address, port)| is_its(address, port)));
}

/// Adds to `ports` what follows from the addresses of the namespaces behind the ports that are left; returns the
/// ports that claim each of the other addresses.
pub(super) fn settle(
    asked: &Asked<'_>,
    ports: &mut Ports,
    namespaces: &BTreeMap<u32, BTreeSet<IpAddr>>,
) -> BTreeMap<IpAddr, BTreeSet<u32>> {
    loop {
        let claims = claims(asked, ports, namespaces);
        let mut only: BTreeMap<u32, BTreeSet<&ObjectName>> = BTreeMap::new();
        let alone = claims.iter().filter_map(|(address, claimed)| match claimed.len() {
            1 => Some((*address, *claimed.first()?)),
            _ => None,
        });
        let alone: Vec<(IpAddr, u32)> = alone.collect();
        for (address, port) in &alone {
            only.entry(*port).or_default().insert(asked[address]);
        }
        let before = ports.len();
        ports.extend(alone.into_iter().filter(|(_, port)| only[port].len() == 1));
        if ports.len() == before {
            return claims;
        }
    }
}

/// The ports behind which each address may be that has none yet: those whose namespace has it, and that are
/// nobody else's.
fn claims(
    asked: &Asked<'_>,
    ports: &Ports,
    namespaces: &BTreeMap<u32, BTreeSet<IpAddr>>,
) -> BTreeMap<IpAddr, BTreeSet<u32>> {
    let owners: BTreeMap<u32, &ObjectName> =
        ports.iter().filter_map(|(address, port)| Some((*port, *asked.get(address)?))).collect();
    let homes: BTreeMap<&ObjectName, u32> = owners.iter().map(|(port, name)| (*name, *port)).collect();
    let open = asked.iter().filter(|(address, _)| !ports.contains_key(address));
    let may_be = |address: IpAddr, name: &ObjectName| {
        // The other address of a pod is where the one is.
        if let Some(home) = homes.get(name) {
            return BTreeSet::from([*home]);
        }
        let of = |(port, addresses): (&u32, &BTreeSet<IpAddr>)| {
            let free = owners.get(port).is_none_or(|owner| *owner == name);
            (free && addresses.contains(&address)).then_some(*port)
        };
        namespaces.iter().filter_map(of).collect()
    };
    open.map(|(address, name)| (*address, may_be(*address, name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROGUE: u32 = 7;
    const RIGHTFUL: u32 = 8;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// The ports of addresses 1 (rogue) and 2 (rightful), and who claims what is open.
    fn settled(rogue: &[u8], rightful: &[u8], known: &[(u8, u32)]) -> ([Option<u32>; 2], Vec<usize>) {
        let names = [ObjectName::new("shop", "rogue"), ObjectName::new("shop", "rightful")];
        let asked = BTreeMap::from([(ip(1), &names[0]), (ip(2), &names[1])]);
        let mut ports = known.iter().map(|(last, port)| (ip(*last), *port)).collect();
        let of = |addresses: &[u8]| addresses.iter().copied().map(ip).collect();
        let namespaces = BTreeMap::from([(ROGUE, of(rogue)), (RIGHTFUL, of(rightful))]);
        let claimed = settle(&asked, &mut ports, &namespaces);
        let found = [ports.get(&ip(1)).copied(), ports.get(&ip(2)).copied()];
        (found, claimed.values().map(BTreeSet::len).collect())
    }

    #[test]
    fn a_port_that_is_known_to_be_one_pods_is_not_anothers_because_a_file_says_so() {
        let names = [ObjectName::new("shop", "one"), ObjectName::new("shop", "two")];
        let asked = BTreeMap::from([(ip(1), &names[0]), (ip(2), &names[1])]);
        let believed = |known: &[(u8, u32)], made: &[(u8, u32)]| {
            let of = |ports: &[(u8, u32)]| ports.iter().map(|(last, port)| (ip(*last), *port)).collect();
            let mut ports: Ports = of(known);
            believe(&asked, &mut ports, of(made));
            [ports.get(&ip(1)).copied(), ports.get(&ip(2)).copied()]
        };
        assert_eq!(believed(&[(1, 7)], &[(2, 7)]), [Some(7), None]);
        assert_eq!(believed(&[], &[(1, 7), (2, 7)]), [None, None]);
        assert_eq!(believed(&[(1, 7), (2, 8)], &[(2, 9)]), [Some(7), Some(9)]);
        // What was found before was wrong, as both results say.
        assert_eq!(believed(&[(1, 7)], &[(1, 8), (2, 7)]), [Some(8), Some(7)]);
    }

    #[test]
    fn each_is_where_its_address_is() {
        assert_eq!(settled(&[1], &[2], &[]), ([Some(ROGUE), Some(RIGHTFUL)], vec![]));
        assert_eq!(settled(&[], &[2], &[]), ([None, Some(RIGHTFUL)], vec![0]));
    }

    #[test]
    fn a_pod_that_has_a_port_cannot_have_another_pods_address() {
        // Whoever was there first, and also where both are seen at once.
        assert_eq!(settled(&[1, 2], &[], &[(1, ROGUE)]), ([Some(ROGUE), None], vec![0]));
        assert_eq!(settled(&[1, 2], &[2], &[(1, ROGUE)]), ([Some(ROGUE), Some(RIGHTFUL)], vec![]));
        assert_eq!(settled(&[1, 2], &[2], &[]), ([Some(ROGUE), Some(RIGHTFUL)], vec![]));
    }

    #[test]
    fn both_addresses_of_a_pod_are_behind_one_port() {
        let (pod, other) = (ObjectName::new("shop", "pod"), ObjectName::new("shop", "other"));
        let asked = BTreeMap::from([(ip(1), &pod), (ip(2), &pod), (ip(3), &other)]);
        let mut ports = BTreeMap::from([(ip(1), RIGHTFUL)]);
        let namespaces = BTreeMap::from([(ROGUE, BTreeSet::from([ip(2)]))]);
        let claimed = settle(&asked, &mut ports, &namespaces);
        assert_eq!(ports, BTreeMap::from([(ip(1), RIGHTFUL), (ip(2), RIGHTFUL)]));
        assert_eq!(claimed, BTreeMap::from([(ip(3), BTreeSet::new())]));
    }

    #[test]
    fn where_two_claim_an_address_or_one_claims_two_names_nobody_has_it() {
        // It gave up its own address for that.
        assert_eq!(settled(&[2], &[2], &[]), ([None, None], vec![0, 2]));
        assert_eq!(settled(&[1, 2], &[], &[]), ([None, None], vec![1, 1]));
        assert_eq!(settled(&[1, 2], &[1, 2], &[]), ([None, None], vec![2, 2]));
    }
}
