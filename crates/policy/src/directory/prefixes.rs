// SPDX-License-Identifier: Apache-2.0
//! Prefixes: which is the longest that holds an address, and the numbers of those that policies name.

use std::{cmp::Reverse, net::IpAddr};

use imbl::OrdMap;
use ipnet::{IpNet, Ipv4Net};
use weft_ebpf_common::identity;
use weft_ir::IdentityNumber;

use crate::counted::Counted;

/// Numbers that a node can give to prefixes: 24 bits below the scope bit (Cilium's layout).
const LOCAL_NUMBERS: u32 = identity::LOCAL_SCOPE - 1;

/// Values by prefix; an address is looked up once for each length that occurs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PrefixMap<V> {
    values: OrdMap<IpNet, V>,
    lengths: Counted<(bool, Reverse<u8>)>,
}

impl<V: Clone> PrefixMap<V> {
    pub(crate) fn insert(&mut self, prefix: IpNet, value: V) {
        if self.values.insert(prefix, value).is_none() {
            self.lengths.add(length(&prefix));
        }
    }

    pub(crate) fn remove(&mut self, prefix: &IpNet) -> Option<V> {
        let removed = self.values.remove(prefix)?;
        self.lengths.remove(&length(prefix));
        Some(removed)
    }

    pub(crate) fn get(&self, prefix: &IpNet) -> Option<&V> {
        self.values.get(prefix)
    }

    /// The value of the longest prefix that holds the address.
    pub(crate) fn find(&self, address: IpAddr) -> Option<&V> {
        self.longest(address, u8::MAX)
    }

    /// Whether a prefix of the map holds all of this one.
    pub(crate) fn covers(&self, prefix: &IpNet) -> bool {
        self.longest(prefix.network(), prefix.prefix_len()).is_some()
    }

    fn longest(&self, address: IpAddr, at_most: u8) -> Option<&V> {
        let family = address.is_ipv6();
        let lengths = self.lengths.between((family, Reverse(at_most)), (family, Reverse(0)));
        lengths
            .filter_map(|(_, Reverse(length))| IpNet::new(address, *length).ok())
            .find_map(|network| self.values.get(&network.trunc()))
    }

    /// Every prefix with its value, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&IpNet, &V)> {
        self.values.iter()
    }

    pub(crate) fn values(&self) -> &OrdMap<IpNet, V> {
        &self.values
    }
}

impl<V> Default for PrefixMap<V> {
    fn default() -> PrefixMap<V> {
        PrefixMap { values: OrdMap::default(), lengths: Counted::default() }
    }
}

/// Longer prefixes of a family come first.
fn length(prefix: &IpNet) -> (bool, Reverse<u8>) {
    (prefix.network().is_ipv6(), Reverse(prefix.prefix_len()))
}

/// The numbers that this node has given to prefixes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PrefixNumbers {
    numbers: OrdMap<IpNet, IdentityNumber>,
    prefixes: OrdMap<IdentityNumber, IpNet>,
    last: u32,
}

impl PrefixNumbers {
    /// Gives the prefix a number that nobody has. One that became free is not given again before all others
    /// were used. Beyond 16 million prefixes there is none: the rest stays `world`, which no CIDR rule allows.
    pub(crate) fn give(&mut self, prefix: IpNet) {
        if self.numbers.contains_key(&prefix) || self.numbers.len() as u64 >= u64::from(LOCAL_NUMBERS) {
            return;
        }
        let number = loop {
            self.last = self.last % LOCAL_NUMBERS + 1;
            let number = IdentityNumber(identity::LOCAL_SCOPE | self.last);
            if !self.prefixes.contains_key(&number) {
                break number;
            }
        };
        self.numbers.insert(prefix, number);
        self.prefixes.insert(number, prefix);
    }

    /// Takes the number of a prefix back.
    pub(crate) fn free(&mut self, prefix: &IpNet) {
        if let Some(number) = self.numbers.remove(prefix) {
            self.prefixes.remove(&number);
        }
    }

    pub(crate) fn number_of(&self, prefix: &IpNet) -> Option<IdentityNumber> {
        self.numbers.get(prefix).copied()
    }

    pub(crate) fn prefix_of(&self, number: IdentityNumber) -> Option<IpNet> {
        self.prefixes.get(&number).copied()
    }

    /// Prefixes by number.
    pub(crate) fn prefixes(&self) -> &OrdMap<IdentityNumber, IpNet> {
        &self.prefixes
    }
}

/// Whether no packet has an address of the prefix: packets have one family, so an IPv4 prefix written as
/// IPv6 matches none.
pub(crate) fn is_mapped(prefix: &IpNet) -> bool {
    mapped(prefix).is_some()
}

/// A prefix without host bits, and as IPv4 where it is an IPv4 prefix written as IPv6.
pub(crate) fn canonical(prefix: &IpNet) -> IpNet {
    mapped(prefix).map_or(prefix.trunc(), |prefix| IpNet::V4(prefix.trunc()))
}

fn mapped(prefix: &IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(prefix) = prefix else { return None };
    let length = prefix.prefix_len().checked_sub(96)?;
    Ipv4Net::new(prefix.addr().to_ipv4_mapped()?, length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_of_the_family_is_found() {
        let mut map = PrefixMap::default();
        for text in ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "::/0"] {
            map.insert(prefix(text), text);
        }
        let find = |map: &PrefixMap<&'static str>, text: &str| map.find(text.parse().unwrap()).copied();
        assert_eq!(find(&map, "10.1.2.3"), Some("10.1.0.0/16"));
        assert_eq!(find(&map, "10.2.0.0"), Some("10.0.0.0/8"));
        assert_eq!(find(&map, "11.0.0.0"), Some("0.0.0.0/0"));
        assert_eq!(find(&map, "2001:db8::1"), Some("::/0"));
        map.remove(&prefix("10.0.0.0/8"));
        assert_eq!(find(&map, "10.2.0.0"), Some("0.0.0.0/0"));
        map.remove(&prefix("0.0.0.0/0"));
        assert_eq!(find(&map, "10.2.0.0"), None);
        assert!(map.covers(&prefix("10.1.0.0/16")) && map.covers(&prefix("10.1.2.0/24")));
        assert!(!map.covers(&prefix("10.0.0.0/15")));
    }

    #[test]
    fn prefixes_keep_their_numbers_and_freed_ones_are_not_given_again_soon() {
        let mut numbers = PrefixNumbers::default();
        let (one, two, three) = (prefix("10.1.0.0/16"), prefix("10.2.0.0/16"), prefix("10.3.0.0/16"));
        numbers.give(one);
        numbers.give(two);
        numbers.free(&one);
        numbers.give(two);
        numbers.give(three);
        let plain = |found: Option<IdentityNumber>| found.map(|number| number.0 & !identity::LOCAL_SCOPE);
        assert_eq!(plain(numbers.number_of(&one)), None);
        assert_eq!(plain(numbers.number_of(&two)), Some(2));
        assert_eq!(plain(numbers.number_of(&three)), Some(3));
        assert_eq!(numbers.prefix_of(IdentityNumber(identity::LOCAL_SCOPE | 2)), Some(two));
    }

    #[test]
    fn numbers_begin_again_after_the_last_and_skip_those_in_use() {
        let mut numbers = PrefixNumbers::default();
        numbers.give(prefix("10.1.0.0/16"));
        numbers.last = LOCAL_NUMBERS;
        numbers.give(prefix("10.2.0.0/16"));
        let given: Vec<u32> = numbers.prefixes().keys().map(|number| number.0).collect();
        assert_eq!(given, [identity::LOCAL_SCOPE | 1, identity::LOCAL_SCOPE | 2]);
    }

    #[test]
    fn an_ipv4_prefix_written_as_ipv6_is_known_as_one() {
        assert!(is_mapped(&prefix("::ffff:10.0.0.0/104")) && !is_mapped(&prefix("::/8")));
        assert_eq!(canonical(&prefix("::ffff:10.1.2.3/104")), prefix("10.0.0.0/8"));
        assert_eq!(canonical(&prefix("2001:db8::1/32")), prefix("2001:db8::/32"));
    }
}
