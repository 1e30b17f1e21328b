// SPDX-License-Identifier: Apache-2.0
//! Which flows a reader wants. The words and what they mean are those of `hubble observe`.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};
use thiserror::Error;
use weft_ebpf_common::reason::Reason;

use weft_ir::Direction;

use crate::{Flow, FlowEndpoint, Http, IpProtocol, Verdict};

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
    /// By name.
    conditions: Vec<(&'static str, Vec<Condition>)>,
}

/// Which ends of a flow a condition is about.
#[derive(Clone, Copy, Debug)]
enum Side {
    Either,
    From,
    To,
}

/// One value of a condition.
#[derive(Clone, Debug)]
enum Condition {
    End(Side, EndCondition),
    Verdict(Verdict),
    Reason(Reason),
    Protocol(IpProtocol),
    Icmp,
    /// A request, whatever is asked of it.
    Http,
    Direction(Direction),
    Event(&'static str),
    Node(Arc<str>),
    HttpMethod(Arc<str>),
    HttpPath(Regex),
    /// The first digits; all three, or fewer.
    HttpStatus(Arc<str>),
}

/// What is asked of one end.
#[derive(Clone, Debug)]
enum EndCondition {
    Namespace(Arc<str>),
    Pod(Name),
    Service(Name),
    Ip(IpNet),
    Port(u16),
    Identity(u32),
}

/// A namespace, where one was given, and the beginning of a name.
#[derive(Clone, Debug)]
struct Name {
    namespace: Option<Arc<str>>,
    prefix: Arc<str>,
}

/// The names of the conditions, as in the query of the admin endpoint and in the flags of the command line.
const NAMES: [&str; 27] = [
    "namespace",
    "from-namespace",
    "to-namespace",
    "pod",
    "from-pod",
    "to-pod",
    "ip",
    "from-ip",
    "to-ip",
    "port",
    "from-port",
    "to-port",
    "service",
    "from-service",
    "to-service",
    "identity",
    "from-identity",
    "to-identity",
    "verdict",
    "reason",
    "protocol",
    "traffic-direction",
    "type",
    "node-name",
    "http-method",
    "http-path",
    "http-status",
];

/// The event kinds that `type` takes, besides `l7` for every request and response.
const EVENTS: [&str; 6] = ["http-request", "http-response", "drop", "open", "close", "service-translation"];

/// Every value that `type` takes.
pub fn event_names() -> impl Iterator<Item = &'static str> {
    EVENTS.into_iter().chain(["l7"])
}

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
        let known = NAMES.into_iter().find(|known| *known == name);
        let name = known.ok_or_else(|| FilterError::Unknown(name.to_owned()))?;
        if self.conditions.iter().map(|(_, values)| values.len()).sum::<usize>() >= MAX_VALUES {
            return Err(FilterError::TooMany);
        }
        let condition = parse(name, value)?;
        match self.conditions.iter_mut().find(|(known, _)| *known == name) {
            Some((_, conditions)) => conditions.push(condition),
            None => self.conditions.push((name, vec![condition])),
        }
        Ok(())
    }

    /// Whether the flow passes.
    pub fn matches(&self, flow: &Flow) -> bool {
        self.conditions.iter().all(|(_, conditions)| conditions.iter().any(|condition| condition.holds(flow)))
    }
}

fn parse(name: &'static str, text: &str) -> Result<Condition, FilterError> {
    let named = |wanted: &str| wanted.eq_ignore_ascii_case(text);
    let parsed = match name {
        "verdict" => Verdict::ALL.into_iter().find(|verdict| named(verdict.name())).map(Condition::Verdict),
        "reason" => Reason::ALL.iter().find(|r| r.name() == text).map(|reason| Condition::Reason(*reason)),
        "protocol" if named("http") => Some(Condition::Http),
        "protocol" if named("icmp") => Some(Condition::Icmp),
        "protocol" => text.parse().ok().map(Condition::Protocol),
        "traffic-direction" => [Direction::Ingress, Direction::Egress]
            .into_iter()
            .find(|direction| named(&direction.to_string()))
            .map(Condition::Direction),
        "type" if text == "l7" => Some(Condition::Http),
        "type" => EVENTS.into_iter().find(|event| *event == text).map(Condition::Event),
        "node-name" => Some(Condition::Node(text.into())),
        "http-method" => Some(Condition::HttpMethod(text.into())),
        "http-path" => {
            let compiled = RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).build();
            return compiled.map(Condition::HttpPath).map_err(|source| FilterError::Regex { name, source });
        }
        "http-status" => status_prefix(text).map(|prefix| Condition::HttpStatus(prefix.into())),
        _ => {
            let from = name.strip_prefix("from-").map(|what| (Side::From, what));
            let to = name.strip_prefix("to-").map(|what| (Side::To, what));
            let (side, what) = from.or(to).unwrap_or((Side::Either, name));
            parse_end(what, text).map(|condition| Condition::End(side, condition))
        }
    };
    parsed.ok_or_else(|| FilterError::Value { name, value: text.to_owned(), expected: expected(name) })
}

fn parse_end(what: &str, text: &str) -> Option<EndCondition> {
    match what {
        "namespace" => Some(EndCondition::Namespace(text.into())),
        "pod" => Some(EndCondition::Pod(parse_name(text))),
        "service" => Some(EndCondition::Service(parse_name(text))),
        "ip" => parse_address(text).map(EndCondition::Ip),
        "port" => text.parse().ok().map(EndCondition::Port),
        "identity" => text.parse().ok().map(EndCondition::Identity),
        _ => None,
    }
}

fn expected(name: &str) -> &'static str {
    match name.trim_start_matches("from-").trim_start_matches("to-") {
        "ip" => "write an address or a prefix, like 10.0.0.1 or 10.0.0.0/8",
        "port" => "write a port from 0 to 65535",
        "identity" => "write the number of an identity",
        "verdict" => "write FORWARDED, DROPPED, ERROR, REDIRECTED or TRANSLATED",
        "reason" => "write the name of a reason, like policy_denied",
        "protocol" => "write tcp, udp, sctp, icmp, icmpv4, icmpv6, http, or a protocol number",
        "traffic-direction" => "write ingress or egress",
        "type" => {
            "write http-request, http-response, l7, policy-verdict, drop, open, close or service-translation"
        }
        "http-status" => "write a status like 404, or its beginning and a plus like 5+ or 50+",
        _ => "write another text",
    }
}

/// `namespace/name`, or a name in any namespace. Hubble would take
/// the namespace `default` there, which surprises those who work in another.
fn parse_name(text: &str) -> Name {
    match text.split_once('/') {
        Some(("", prefix)) => Name { namespace: None, prefix: prefix.into() },
        Some((namespace, prefix)) => Name { namespace: Some(namespace.into()), prefix: prefix.into() },
        None => Name { namespace: None, prefix: text.into() },
    }
}

fn parse_address(text: &str) -> Option<IpNet> {
    let single = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(single)
}

/// The digits of `404`, `40+` or `4+` (Hubble's form).
fn status_prefix(text: &str) -> Option<&str> {
    let (digits, lengths) = match text.strip_suffix('+') {
        Some(digits) => (digits, 1..=2),
        None => (text, 3..=3),
    };
    let valid = lengths.contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && matches!(digits.as_bytes().first(), Some(b'1'..=b'5'));
    valid.then_some(digits)
}

impl Condition {
    fn holds(&self, flow: &Flow) -> bool {
        let http = |holds: &dyn Fn(&Http) -> bool| flow.http.as_ref().is_some_and(holds);
        match self {
            Condition::End(Side::Either, end) => end.holds(&flow.source) || end.holds(&flow.destination),
            Condition::End(Side::From, end) => end.holds(&flow.source),
            Condition::End(Side::To, end) => end.holds(&flow.destination),
            Condition::Verdict(verdict) => flow.verdict == *verdict,
            Condition::Reason(reason) => flow.reason == Some(*reason),
            Condition::Protocol(protocol) => flow.l4.protocol == *protocol,
            Condition::Icmp => [IpProtocol::ICMPV4, IpProtocol::ICMPV6].contains(&flow.l4.protocol),
            Condition::Http => flow.http.is_some(),
            Condition::Direction(direction) => flow.direction == *direction,
            Condition::Event(name) => flow.event.name() == *name,
            Condition::Node(name) => flow.node == *name,
            Condition::HttpMethod(method) => http(&|http| http.method.eq_ignore_ascii_case(method)),
            Condition::HttpPath(regex) => http(&|http| regex.is_match(path_only(&http.path))),
            Condition::HttpStatus(prefix) => {
                http(&|http| http.status != 0 && http.status.to_string().starts_with(&**prefix))
            }
        }
    }
}

impl EndCondition {
    fn holds(&self, end: &FlowEndpoint) -> bool {
        match self {
            EndCondition::Namespace(name) => end.namespace == *name,
            EndCondition::Pod(name) => !end.pod.is_empty() && name.matches(&end.namespace, &end.pod),
            EndCondition::Service(name) => end
                .service
                .split_once('/')
                .is_some_and(|(namespace, service)| name.matches(namespace, service)),
            EndCondition::Ip(prefix) => end.ip.is_some_and(|address| prefix.contains(&address)),
            EndCondition::Port(port) => end.port == *port,
            EndCondition::Identity(number) => end.identity == *number,
        }
    }
}

impl Name {
    fn matches(&self, namespace: &str, name: &str) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| wanted == namespace) && name.starts_with(&*self.prefix)
    }
}

fn path_only(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

#[cfg(test)]
mod tests;
