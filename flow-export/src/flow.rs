// SPDX-License-Identifier: Apache-2.0
//! The flow: one thing that happened to a connection or a request.
//!
//! Names and numbers follow Hubble's, so that its API can be served from these values. Texts that
//! repeat (names, labels, methods) are shared, so that a flow is cheap to make and to copy.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use weft_ebpf_common::reason::Reason;
use weft_ir::{Direction, Protocol, stream::Position};
use weft_time::Timestamp;

/// The longest path that a flow keeps, in bytes; what was cut off is shown as `...`.
pub const MAX_PATH_BYTES: usize = 512;
/// The longest method, authority or protocol that a flow keeps, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// One thing that happened to a connection or a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// When.
    pub time: Timestamp,
    /// The node that saw it.
    pub node: Arc<str>,
    /// The state that decided.
    pub revision: Position,
    /// The sender of this packet or message; for a reply the server.
    pub source: FlowEndpoint,
    /// The receiver.
    pub destination: FlowEndpoint,
    /// The direction of the connection, seen from the workload whose node reports.
    pub direction: Direction,
    /// What was done.
    pub verdict: Verdict,
    /// Why not, for `DROPPED` and `ERROR`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "reason_name")]
    pub reason: Option<Reason>,
    /// The policies that decided (`namespace/name`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Arc<str>>,
    /// The transport.
    pub l4: L4,
    /// The request, for the events that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// Whether it answers something; absent when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_reply: Option<bool>,
    /// What happened.
    pub event: Event,
}

/// One end of a flow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowEndpoint {
    /// Its address; absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Its port; 0 when the protocol has none or it is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub port: u16,
    /// Its identity number.
    pub identity: u32,
    /// Its namespace; empty outside of the cluster.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub namespace: Arc<str>,
    /// Its pod.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub pod: Arc<str>,
    /// The owner of the pod (Deployment, ...).
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub workload: Arc<str>,
    /// The labels of its identity, `source:key=value`.
    #[serde(default = "no_labels", skip_serializing_if = "<[_]>::is_empty")]
    pub labels: Arc<[Arc<str>]>,
    /// The service that was asked for (`namespace/name`).
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub service: Arc<str>,
}

/// What was done (Hubble's names).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    /// It passed.
    Forwarded,
    /// It was refused.
    Dropped,
    /// It failed, although it was allowed.
    Error,
    /// It was handed to the proxy.
    Redirected,
    /// Its destination, a service, was replaced by a backend.
    Translated,
}

/// The transport of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct L4 {
    /// The protocol.
    pub protocol: IpProtocol,
    /// TCP flags that were seen.
    #[serde(default, skip_serializing_if = "TcpFlags::is_empty")]
    pub flags: TcpFlags,
}

/// The IP protocol of a packet, whichever, by its number (IANA protocol numbers).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IpProtocol(pub u8);

/// The flags of a TCP header, in its own bits (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TcpFlags(pub u8);

/// A request and, once it is there, the answer to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Http {
    /// The method.
    pub method: Arc<str>,
    /// Path and query.
    pub path: Arc<str>,
    /// The authority; empty when there is none.
    pub authority: Arc<str>,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: Arc<str>,
    /// The status code; 0 in a request that was passed on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub status: u16,
    /// From the request's head to the response's, in nanoseconds; 0 in a request.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub latency_ns: u64,
    /// The route rule that was chosen (`namespace/name/rule`); empty without one.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub route: Arc<str>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Event {
    /// A request was decided.
    HttpRequest,
    /// A request was answered.
    HttpResponse,
    /// A packet or a connection was refused.
    Drop,
    /// A connection began.
    Open,
    /// A connection ended.
    Close {
        /// Bytes from the client to the server.
        bytes_sent: u64,
        /// Bytes from the server to the client.
        bytes_received: u64,
        /// Packets, both ways together; 0 where they are not counted.
        packets: u64,
        /// How long it lasted, in nanoseconds.
        duration_ns: u64,
        /// Segments that were sent again; 0 where they are not counted.
        retransmits: u64,
    },
    /// The address of a service was replaced by that of a backend.
    ServiceTranslation,
}

impl Event {
    /// The name of the kind, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Event::HttpRequest => "http-request",
            Event::HttpResponse => "http-response",
            Event::Drop => "drop",
            Event::Open => "open",
            Event::Close { .. } => "close",
            Event::ServiceTranslation => "service-translation",
        }
    }
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Verdict; 5] =
        [Verdict::Forwarded, Verdict::Dropped, Verdict::Error, Verdict::Redirected, Verdict::Translated];

    /// Hubble's name.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Forwarded => "FORWARDED",
            Verdict::Dropped => "DROPPED",
            Verdict::Error => "ERROR",
            Verdict::Redirected => "REDIRECTED",
            Verdict::Translated => "TRANSLATED",
        }
    }
}

impl IpProtocol {
    /// TCP.
    pub const TCP: IpProtocol = IpProtocol(Protocol::Tcp.number());
    /// ICMP.
    pub(crate) const ICMPV4: IpProtocol = IpProtocol(1);
    /// ICMPv6.
    pub const ICMPV6: IpProtocol = IpProtocol(58);
    /// Names and numbers of the protocols that have a name here.
    const NAMES: [(&'static str, u8); 5] = [
        ("tcp", Protocol::Tcp.number()),
        ("udp", Protocol::Udp.number()),
        ("sctp", Protocol::Sctp.number()),
        ("icmpv4", IpProtocol::ICMPV4.0),
        ("icmpv6", IpProtocol::ICMPV6.0),
    ];

    /// The name in lower case, where there is one.
    pub fn name(self) -> Option<&'static str> {
        IpProtocol::NAMES.into_iter().find(|(_, number)| *number == self.0).map(|(name, _)| name)
    }
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for IpProtocol {
    type Err = std::num::ParseIntError;

    /// Reads a name in any case, or a number.
    fn from_str(text: &str) -> Result<IpProtocol, Self::Err> {
        let named = IpProtocol::NAMES.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        match named {
            Some((_, number)) => Ok(IpProtocol(number)),
            None => text.parse().map(IpProtocol),
        }
    }
}

impl Serialize for IpProtocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IpProtocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<IpProtocol, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl TcpFlags {
    /// Hubble's order of printing.
    const NAMES: [(u8, &'static str); 8] = [
        (0x02, "SYN"),
        (0x10, "ACK"),
        (0x04, "RST"),
        (0x01, "FIN"),
        (0x08, "PSH"),
        (0x20, "URG"),
        (0x40, "ECE"),
        (0x80, "CWR"),
    ];

    /// No flag is set, or none is known.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = TcpFlags::NAMES.iter().filter(|(bit, _)| self.0 & bit != 0);
        for (index, (_, name)) in set.enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{name}")?;
        }
        Ok(())
    }
}

impl Http {
    /// A request as received; texts from the network are cut to the lengths that a flow keeps.
    pub fn request(method: &str, path: &str, authority: &str, protocol: &str) -> Http {
        Http {
            method: bounded(method, MAX_NAME_BYTES),
            path: bounded(path, MAX_PATH_BYTES),
            authority: bounded(authority, MAX_NAME_BYTES),
            protocol: bounded(protocol, MAX_NAME_BYTES),
            status: 0,
            latency_ns: 0,
            route: Arc::default(),
        }
    }
}

/// The text, or its beginning and `...` where it is longer than `bytes`.
pub fn bounded(text: &str, bytes: usize) -> Arc<str> {
    if text.len() <= bytes {
        return text.into();
    }
    let cut = (0..=bytes.saturating_sub(3)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}...", &text[..cut]).into()
}

fn is_zero(number: &u16) -> bool {
    *number == 0
}

fn is_zero_u64(number: &u64) -> bool {
    *number == 0
}

fn no_labels() -> Arc<[Arc<str>]> {
    Arc::default()
}

/// Reasons are written by name.
mod reason_name {
    use super::{Deserialize, Deserializer, Reason, Serializer};

    pub(super) fn serialize<S: Serializer>(reason: &Option<Reason>, to: S) -> Result<S::Ok, S::Error> {
        match reason {
            Some(reason) => to.serialize_some(reason.name()),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Reason>, D::Error> {
        // The name of a newer node's reason is not known here; the flow is shown all the same.
        let name = Option::<String>::deserialize(from)?;
        Ok(name.and_then(|name| Reason::ALL.iter().copied().find(|reason| reason.name() == name)))
    }
}

#[cfg(test)]
pub(crate) mod tests;
