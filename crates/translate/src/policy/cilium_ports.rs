// SPDX-License-Identifier: Apache-2.0
//! `toPorts` of a CiliumNetworkPolicy: ports and L7 rules.

use std::sync::Arc;

use weft_api::{
    decode::DecodeError,
    policy::{CiliumHttpRule, CiliumL7Rules, CiliumPort, CiliumPortRule},
};
use weft_ir::{HttpRule, L7Rules, PolicyPort, PortRule, Protocol};

/// The most ports of one entry (`MaxPorts` of Cilium's API).
const MAX_PORTS: usize = 40;

/// Whether the rules of a section allow or deny.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Action {
    Allow,
    Deny,
}

/// Translates `toPorts`; nothing given means every port.
pub(super) fn translate(
    path: &str,
    rules: &[CiliumPortRule],
    action: Action,
) -> Result<Vec<PortRule>, DecodeError> {
    let mut found = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let path = format!("{path}.toPorts[{at}]");
        if rule.ports.is_empty() || rule.ports.len() > MAX_PORTS {
            return Err(DecodeError::new(format!("{path}.ports"), format!("needs 1 to {MAX_PORTS} ports")));
        }
        let l7 = rule.rules.as_ref().map(|rules| l7_rules(&format!("{path}.rules"), rules)).transpose()?;
        if l7.is_some() && action == Action::Deny {
            return Err(DecodeError::new(format!("{path}.rules"), "a deny rule cannot have L7 rules"));
        }
        for (at, port) in rule.ports.iter().enumerate() {
            found.push(port_rule(&format!("{path}.ports[{at}]"), port, l7.clone())?);
        }
    }
    Ok(found)
}

fn port_rule(path: &str, port: &CiliumPort, l7: Option<L7Rules>) -> Result<PortRule, DecodeError> {
    let protocol = match port.protocol.as_deref() {
        None | Some("" | "ANY") => None,
        Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(other) => {
            let message = format!("the protocol `{other}` is not supported");
            return Err(DecodeError::new(format!("{path}.protocol"), message));
        }
    };
    let number = policy_port(path, port)?;
    match &l7 {
        Some(L7Rules::Http(_)) if protocol != Some(Protocol::Tcp) => {
            return Err(DecodeError::new(format!("{path}.protocol"), "HTTP rules need `protocol: TCP`"));
        }
        Some(L7Rules::Http(_)) if number == PolicyPort::Any => {
            return Err(DecodeError::new(format!("{path}.port"), "HTTP rules need a port"));
        }
        Some(L7Rules::Http(_)) | None => {}
    }
    Ok(PortRule { port: number, protocol, l7 })
}

fn policy_port(path: &str, port: &CiliumPort) -> Result<PolicyPort, DecodeError> {
    let at_port = || format!("{path}.port");
    let at_end = || format!("{path}.endPort");
    if service_name(&port.port) {
        return match port.end_port {
            None | Some(0) => Ok(PolicyPort::Named(port.port.to_ascii_lowercase().into())),
            Some(_) => Err(DecodeError::new(at_end(), "a named port cannot have an end")),
        };
    }
    let Some(first) = number(&port.port) else {
        return Err(DecodeError::new(
            at_port(),
            format!("`{}` is neither a port nor the name of one", port.port),
        ));
    };
    match (first, port.end_port.unwrap_or(0)) {
        (0, 0) => Ok(PolicyPort::Any),
        (0, _) => Err(DecodeError::new(at_end(), "every port (`0`) cannot have an end")),
        (first, 0) => Ok(PolicyPort::Range(first, first)),
        (first, last) => match u16::try_from(last) {
            Ok(last) if last >= first => Ok(PolicyPort::Range(first, last)),
            Ok(_) | Err(_) => {
                Err(DecodeError::new(at_end(), format!("`{last}` is no port behind `{first}`")))
            }
        },
    }
}

/// A port in the notations of Go's `ParseUint` with base 0: decimal, or octal with a leading zero.
/// Empty is 0. Hexadecimal numbers never come here: they hold a letter and so are names.
fn number(text: &str) -> Option<u16> {
    if text.is_empty() {
        return Some(0);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u16::from_str_radix(octal, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// A service name of RFC 6335 section 5.1: 1 to 15 letters, digits and single hyphens inside, with
/// at least one letter.
fn service_name(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}

/// The L7 rules of an entry. A rule without conditions is one too.
fn l7_rules(path: &str, rules: &CiliumL7Rules) -> Result<L7Rules, DecodeError> {
    match rules {
        CiliumL7Rules::Http(rules) => {
            let translate = |(at, rule)| http_rule(&format!("{path}.http[{at}]"), rule);
            rules.iter().enumerate().map(translate).collect::<Result<_, _>>().map(L7Rules::Http)
        }
    }
}

fn http_rule(path: &str, rule: &CiliumHttpRule) -> Result<HttpRule, DecodeError> {
    let expression = |field: &str, text: &Arc<str>| {
        if text.is_empty() {
            return Ok(None);
        }
        match weft_matching::check(text) {
            Ok(()) => Ok(Some(text.clone())),
            Err(error) => Err(DecodeError::new(format!("{path}.{field}"), error.to_string())),
        }
    };
    let header = |text: &Arc<str>| match text.split_once(' ') {
        Some((name, value)) => (name.trim_end_matches(':').to_ascii_lowercase().into(), Some(value.into())),
        None => (text.to_ascii_lowercase().into(), None),
    };
    Ok(HttpRule {
        path: expression("path", &rule.path)?,
        method: expression("method", &rule.method)?,
        host: expression("host", &rule.host)?,
        headers: rule.headers.iter().map(header).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(port: &str, end_port: Option<i32>) -> Result<PolicyPort, DecodeError> {
        policy_port("p", &CiliumPort { port: port.into(), end_port, protocol: None })
    }

    #[test]
    fn ports_are_numbers_ranges_or_names() {
        assert_eq!(read("80", None), Ok(PolicyPort::Range(80, 80)));
        assert_eq!(read("80", Some(90)), Ok(PolicyPort::Range(80, 90)));
        assert_eq!(read("0", None), Ok(PolicyPort::Any));
        assert_eq!(read("", None), Ok(PolicyPort::Any));
        assert_eq!(read("HTTP", None), Ok(PolicyPort::Named("http".into())));
        assert_eq!(read("010", None), Ok(PolicyPort::Range(8, 8)));
        assert_eq!(read("0x10", None), Ok(PolicyPort::Named("0x10".into())));
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for (port, end) in [
            ("65536", None),
            ("-1", None),
            ("80", Some(79)),
            ("80", Some(70_000)),
            ("http", Some(9)),
            ("0", Some(9)),
            ("a_b", None),
        ] {
            assert!(read(port, end).is_err(), "{port} {end:?}");
        }
    }
}
