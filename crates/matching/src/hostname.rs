// SPDX-License-Identifier: Apache-2.0
//! Hostnames of listeners and routes: exact, `*.suffix`, or empty for any.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use imbl::HashMap;

/// Whether some host matches both.
pub fn intersect(left: &str, right: &str) -> bool {
    if left.is_empty() || right.is_empty() || left.eq_ignore_ascii_case(right) {
        return true;
    }
    match (left.strip_prefix('*'), right.strip_prefix('*')) {
        (None, None) => false,
        (Some(suffix), None) => covers(suffix, right),
        (None, Some(suffix)) => covers(suffix, left),
        (Some(left), Some(right)) => ends_with(left, right) || ends_with(right, left),
    }
}

/// Whether a name has at least one label before the suffix `.example.com`.
fn covers(suffix: &str, name: &str) -> bool {
    name.len() > suffix.len() && ends_with(name, suffix)
}

fn ends_with(name: &str, suffix: &str) -> bool {
    name.len() >= suffix.len()
        && name.as_bytes()[name.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
}

/// Whether a text is a hostname of the Gateway API: RFC 1123 labels in lower case, at most 253
/// bytes, with an optional `*.` in front, and not an IP address.
pub fn valid(hostname: &str) -> bool {
    let name = hostname.strip_prefix("*.").unwrap_or(hostname);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    hostname.len() <= 253 && name.split('.').all(label) && name.parse::<IpAddr>().is_err()
}

/// A hostname as it is compared: in lower case, since names differ in nothing else (RFC 4343). Nothing for
/// what is no hostname.
pub fn canonical(hostname: &str) -> Option<Arc<str>> {
    let lower = hostname.to_ascii_lowercase();
    valid(&lower).then(|| lower.into())
}

/// Whether a text can be the value of `Host`: a hostname or an address, and a port after it or none
/// (RFC 9110 section 7.2).
pub fn valid_authority(text: &str) -> bool {
    let after_brackets = text.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match text[after_brackets..].rsplit_once(':') {
        Some((name, port)) => (&text[..after_brackets + name.len()], Some(port)),
        None => (text, None),
    };
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let known = match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            let name = host.to_ascii_lowercase();
            (valid(&name) && !name.starts_with('*')) || name.parse::<Ipv4Addr>().is_ok()
        }
    };
    known && port.is_none_or(digits)
}

/// Something for each of many hostnames. A clone shares everything with the original.
#[derive(Clone, Debug)]
pub struct HostMap<T> {
    exact: HashMap<Box<[u8]>, T>,
    /// By the suffix after `*.`.
    wildcard: HashMap<Box<[u8]>, T>,
    any: Option<T>,
}

impl<T> Default for HostMap<T> {
    fn default() -> HostMap<T> {
        HostMap { exact: HashMap::new(), wildcard: HashMap::new(), any: None }
    }
}

impl<T: Clone> HostMap<T> {
    /// Says what there is for a hostname as it was written; empty stands for any host.
    pub fn set(&mut self, hostname: &str, value: Option<T>) {
        let lower = hostname.to_ascii_lowercase();
        let (hosts, key) = match lower.strip_prefix("*.") {
            Some(suffix) => (&mut self.wildcard, suffix),
            None if lower.is_empty() => {
                self.any = value;
                return;
            }
            None => (&mut self.exact, lower.as_str()),
        };
        match value {
            Some(value) => hosts.insert(key.as_bytes().into(), value),
            None => hosts.remove(key.as_bytes()),
        };
    }

    /// Everything whose hostname covers a host, the most specific first: the name itself, then the
    /// wildcards from the longest on (`*.x` stands for one label or more), then what is for any host. The
    /// host is in lower case and has no port.
    pub fn covering<'t, 'h>(&'t self, host: &'h [u8]) -> impl Iterator<Item = &'t T> + use<'t, 'h, T> {
        let mut rest = if self.wildcard.is_empty() { &[][..] } else { host };
        let suffixes = std::iter::from_fn(move || {
            let dot = rest.iter().position(|byte| *byte == b'.')?;
            rest = rest.get(dot + 1..)?;
            Some(rest)
        });
        let wildcards = suffixes.filter_map(|suffix| self.wildcard.get(suffix));
        self.exact.get(host).into_iter().chain(wildcards).chain(&self.any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_hostname_comes_first_in_any_case() {
        let mut hosts = HostMap::default();
        for name in ["", "*.Test", "*.shop.test", "A.shop.test", "b.shop.test"] {
            hosts.set(name, Some(name));
        }
        hosts.set("B.shop.test", None);
        let covering = |host: &'static str| hosts.covering(host.as_bytes()).copied().collect::<Vec<_>>();
        assert_eq!(covering("a.shop.test"), ["A.shop.test", "*.shop.test", "*.Test", ""]);
        assert_eq!(covering("b.shop.test"), ["*.shop.test", "*.Test", ""]);
        assert_eq!(covering("shop.test"), ["*.Test", ""]);
        assert_eq!(covering("test"), [""]);
        assert_eq!(covering(""), [""]);
    }

    #[test]
    fn case_is_no_part_of_a_hostname() {
        assert_eq!(canonical("*.Example.COM").as_deref(), Some("*.example.com"));
        assert_eq!((canonical("a_b"), canonical("")), (None, None));
    }

    #[test]
    fn a_wildcard_covers_one_or_more_labels() {
        assert!(intersect("*.example.com", "a.example.com"));
        assert!(intersect("*.example.com", "a.b.example.com"));
        assert!(!intersect("*.example.com", "example.com"));
        assert!(intersect("*.example.com", "*.b.example.com"));
        assert!(!intersect("*.example.com", "*.example.org"));
        assert!(!intersect("*.example.com", "a.badexample.com"));
        assert!(intersect("", "a.example.com"));
    }

    #[test]
    fn addresses_and_upper_case_are_no_hostnames() {
        assert!(valid("*.example.com") && valid("checkout"));
        for name in ["", "*", "1.2.3.4", "A.com", "a..b", "-a.com", "a_b", "a.*.com"] {
            assert!(!valid(name), "{name}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for text in ["a", "A.test", "a.test:80", "1.2.3.4", "1.2.3.4:80", "[fd00::1]", "[fd00::1]:8080"] {
            assert!(valid_authority(text), "{text}");
        }
        for text in
            ["", "*.test", "a b", "a:", "a:x", "a:70000", "a:+8", "fd00::1", "[a]", "a]", "u@a", "a/b"]
        {
            assert!(!valid_authority(text), "{text}");
        }
    }
}
