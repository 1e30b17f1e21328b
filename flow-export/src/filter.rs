// SPDX-License-Identifier: Apache-2.0
//! Which flows a reader wants. The words and what they mean are those of `hubble observe`.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};
use thiserror::Error;
use weft_ebpf_common::reason::Reason;

use crate::{Direction, Flow, FlowEndpoint, Protocol, Verdict};

/// Values that one filter may have in all, so that a request cannot make every flow expensive.
const MAX_VALUES: usize = 100;
/// The size of one compiled expression, in bytes.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// A filter that cannot be meant.
#[derive(Debug, Error)]
pub enum FilterError {
    /// There is no filter of this name.
    #[error("there is no flow filter `{0}`: see `weft observe --help`")]
    Unknown(String),
    /// The value does not fit the filter.
    #[error("`{value}` is no value for the flow filter `{name}`: {expected}")]
    Value {
        /// The filter.
        name: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// An expression that does not compile.
    #[error("the expression of the flow filter `{name}` is not valid")]
    Regex {
        /// The filter.
        name: &'static str,
        /// What is wrong with it.
        #[source]
        source: regex::Error,
    },
    /// Too many values.
    #[error("a flow filter has at most {MAX_VALUES} values")]
    TooMany,
}

/// Conditions that must all hold; of the values of one condition any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    conditions: Vec<(Condition, Vec<Value>)>,
}

/// Which ends of a flow a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Either,
    From,
    To,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Namespace(Side),
    Pod(Side),
    Ip(Side),
    Port(Side),
    Service(Side),
    Identity(Side),
    Verdict,
    Reason,
    Protocol,
    Direction,
    Event,
    Node,
    HttpMethod,
    HttpPath,
    HttpStatus,
}

#[derive(Clone, Debug)]
enum Value {
    Text(Arc<str>),
    /// A namespace, where one was given, and the beginning of a name.
    Name(Option<Arc<str>>, Arc<str>),
    Address(IpNet),
    Number(u32),
    Verdict(Verdict),
    Reason(Reason),
    Protocol(ProtocolValue),
    Direction(Direction),
    Regex(Regex),
}

#[derive(Clone, Copy, Debug)]
enum ProtocolValue {
    Ip(Protocol),
    Icmp,
    Http,
}

/// The names of the conditions, as in the query of the admin endpoint and in the flags of the command line.
const CONDITIONS: [(&str, Condition); 27] = [
    ("namespace", Condition::Namespace(Side::Either)),
    ("from-namespace", Condition::Namespace(Side::From)),
    ("to-namespace", Condition::Namespace(Side::To)),
    ("pod", Condition::Pod(Side::Either)),
    ("from-pod", Condition::Pod(Side::From)),
    ("to-pod", Condition::Pod(Side::To)),
    ("ip", Condition::Ip(Side::Either)),
    ("from-ip", Condition::Ip(Side::From)),
    ("to-ip", Condition::Ip(Side::To)),
    ("port", Condition::Port(Side::Either)),
    ("from-port", Condition::Port(Side::From)),
    ("to-port", Condition::Port(Side::To)),
    ("service", Condition::Service(Side::Either)),
    ("from-service", Condition::Service(Side::From)),
    ("to-service", Condition::Service(Side::To)),
    ("identity", Condition::Identity(Side::Either)),
    ("from-identity", Condition::Identity(Side::From)),
    ("to-identity", Condition::Identity(Side::To)),
    ("verdict", Condition::Verdict),
    ("reason", Condition::Reason),
    ("protocol", Condition::Protocol),
    ("traffic-direction", Condition::Direction),
    ("type", Condition::Event),
    ("node-name", Condition::Node),
    ("http-method", Condition::HttpMethod),
    ("http-path", Condition::HttpPath),
    ("http-status", Condition::HttpStatus),
];

/// The event kinds that `type` takes.
const EVENTS: [&str; 8] =
    ["http-request", "http-response", "l7", "policy-verdict", "drop", "open", "close", "service-translation"];

impl Filter {
    /// A filter that every flow passes.
    pub fn new() -> Filter {
        Filter::default()
    }

    /// Whether every flow passes.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Adds a value to the condition of this name.
    ///
    /// # Errors
    /// When there is no such condition, or the value does not fit it.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), FilterError> {
        let (name, condition) = CONDITIONS
            .into_iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| FilterError::Unknown(name.to_owned()))?;
        if self.conditions.iter().map(|(_, values)| values.len()).sum::<usize>() >= MAX_VALUES {
            return Err(FilterError::TooMany);
        }
        let value = parse(name, condition, value)?;
        match self.conditions.iter_mut().find(|(known, _)| *known == condition) {
            Some((_, values)) => values.push(value),
            None => self.conditions.push((condition, vec![value])),
        }
        Ok(())
    }

    /// Whether the flow passes.
    pub fn matches(&self, flow: &Flow) -> bool {
        self.conditions
            .iter()
            .all(|(condition, values)| values.iter().any(|value| holds(*condition, value, flow)))
    }
}

fn parse(name: &'static str, condition: Condition, text: &str) -> Result<Value, FilterError> {
    let refuse = |expected| FilterError::Value { name, value: text.to_owned(), expected };
    let value = match condition {
        Condition::Namespace(_) | Condition::Node | Condition::HttpMethod => Some(Value::Text(text.into())),
        Condition::Pod(_) | Condition::Service(_) => return Ok(parse_name(text)),
        Condition::Ip(_) => parse_address(text).map(Value::Address),
        Condition::Port(_) => text.parse::<u16>().ok().map(|port| Value::Number(port.into())),
        Condition::Identity(_) => text.parse().ok().map(Value::Number),
        Condition::Verdict => {
            Verdict::ALL.into_iter().find(|v| v.name().eq_ignore_ascii_case(text)).map(Value::Verdict)
        }
        Condition::Reason => {
            Reason::ALL.iter().find(|reason| reason.name() == text).map(|reason| Value::Reason(*reason))
        }
        Condition::Protocol => parse_protocol(text).map(Value::Protocol),
        Condition::Direction => [Direction::Ingress, Direction::Egress]
            .into_iter()
            .find(|direction| direction.name().eq_ignore_ascii_case(text))
            .map(Value::Direction),
        Condition::Event => EVENTS.contains(&text).then(|| Value::Text(text.into())),
        Condition::HttpStatus => is_status(text).then(|| Value::Text(text.into())),
        Condition::HttpPath => {
            let compiled = RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).build();
            return compiled.map(Value::Regex).map_err(|source| FilterError::Regex { name, source });
        }
    };
    value.ok_or_else(|| refuse(expected(condition)))
}

fn expected(condition: Condition) -> &'static str {
    match condition {
        Condition::Ip(_) => "write an address or a prefix, like 10.0.0.1 or 10.0.0.0/8",
        Condition::Port(_) => "write a port from 0 to 65535",
        Condition::Identity(_) => "write the number of an identity",
        Condition::Verdict => "write FORWARDED, DROPPED, ERROR, REDIRECTED or TRANSLATED",
        Condition::Reason => "write a reason as in docs/reference/reasons.md, like policy_denied",
        Condition::Protocol => "write tcp, udp, sctp, icmp, icmpv4, icmpv6, http, or a protocol number",
        Condition::Direction => "write ingress or egress",
        Condition::Event => {
            "write http-request, http-response, l7, policy-verdict, drop, open, close or service-translation"
        }
        Condition::HttpStatus => "write a status like 404, or its beginning and a plus like 5+ or 50+",
        Condition::Namespace(_)
        | Condition::Pod(_)
        | Condition::Service(_)
        | Condition::Node
        | Condition::HttpMethod
        | Condition::HttpPath => "any text will do",
    }
}

/// `namespace/name`, or a name in any namespace. Hubble would take
/// the namespace `default` there, which surprises those who work in another.
fn parse_name(text: &str) -> Value {
    match text.split_once('/') {
        Some(("", name)) => Value::Name(None, name.into()),
        Some((namespace, name)) => Value::Name(Some(namespace.into()), name.into()),
        None => Value::Name(None, text.into()),
    }
}

fn parse_address(text: &str) -> Option<IpNet> {
    let single = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(single)
}

fn parse_protocol(text: &str) -> Option<ProtocolValue> {
    match text.to_ascii_lowercase().as_str() {
        "http" => Some(ProtocolValue::Http),
        "icmp" => Some(ProtocolValue::Icmp),
        _ => text.parse().ok().map(ProtocolValue::Ip),
    }
}

/// `404`, `40+` or `4+` (Hubble's form).
fn is_status(text: &str) -> bool {
    let (digits, whole) = match text.strip_suffix('+') {
        Some(digits) => (digits, false),
        None => (text, true),
    };
    let length = if whole { 3..=3 } else { 1..=2 };
    length.contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && matches!(digits.as_bytes().first(), Some(b'1'..=b'5'))
}

fn holds(condition: Condition, value: &Value, flow: &Flow) -> bool {
    let ends = |side, holds: &dyn Fn(&FlowEndpoint) -> bool| match side {
        Side::Either => holds(&flow.source) || holds(&flow.destination),
        Side::From => holds(&flow.source),
        Side::To => holds(&flow.destination),
    };
    match (condition, value) {
        (Condition::Namespace(side), Value::Text(name)) => ends(side, &|end| end.namespace == *name),
        (Condition::Pod(side), Value::Name(namespace, prefix)) => ends(side, &|end| {
            let named = !end.pod.is_empty() && end.pod.starts_with(&**prefix);
            named && namespace.as_ref().is_none_or(|namespace| *namespace == end.namespace)
        }),
        (Condition::Service(side), Value::Name(namespace, prefix)) => {
            ends(side, &|end| match end.service.split_once('/') {
                Some((found, name)) => {
                    name.starts_with(&**prefix) && namespace.as_ref().is_none_or(|wanted| **wanted == *found)
                }
                None => false,
            })
        }
        (Condition::Ip(side), Value::Address(prefix)) => {
            ends(side, &|end| end.ip.is_some_and(|address| prefix.contains(&address)))
        }
        (Condition::Port(side), Value::Number(port)) => ends(side, &|end| u32::from(end.port) == *port),
        (Condition::Identity(side), Value::Number(number)) => ends(side, &|end| end.identity == *number),
        (Condition::Verdict, Value::Verdict(verdict)) => flow.verdict == *verdict,
        (Condition::Reason, Value::Reason(reason)) => flow.reason == Some(*reason),
        (Condition::Protocol, Value::Protocol(protocol)) => match protocol {
            ProtocolValue::Ip(protocol) => flow.l4.protocol == *protocol,
            ProtocolValue::Icmp => ["icmpv4", "icmpv6"].map(Some).contains(&flow.l4.protocol.name()),
            ProtocolValue::Http => flow.http.is_some(),
        },
        (Condition::Direction, Value::Direction(direction)) => flow.direction == *direction,
        (Condition::Event, Value::Text(name)) => match &**name {
            "l7" => flow.http.is_some(),
            name => flow.event.name() == name,
        },
        (Condition::Node, Value::Text(name)) => flow.node == *name,
        (Condition::HttpMethod, Value::Text(method)) => {
            flow.http.as_ref().is_some_and(|http| http.method.eq_ignore_ascii_case(method))
        }
        (Condition::HttpPath, Value::Regex(regex)) => {
            flow.http.as_ref().is_some_and(|http| regex.is_match(path_only(&http.path)))
        }
        (Condition::HttpStatus, Value::Text(wanted)) => flow.http.as_ref().is_some_and(|http| {
            let status = http.status.to_string();
            match wanted.strip_suffix('+') {
                Some(prefix) => http.status != 0 && status.starts_with(prefix),
                None => status == **wanted,
            }
        }),
        // A condition is only ever made with the kind of value that it reads.
        _ => false,
    }
}

fn path_only(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

#[cfg(test)]
mod tests;
