// SPDX-License-Identifier: Apache-2.0
//! Whether every proxy does the same: what it adds to a request and to an answer, and what it refuses.
//!
//! Every scenario verifies this of each proxy before it measures: a proxy that adds less, or decides less, is
//! faster, and no comparison.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail};

use super::{Bench, Options};
use crate::client::{self, Answer, Field};
use crate::peers::PeerName;
use crate::report::Table;
use crate::workload::Protocol;

/// What each proxy adds to a request: about the client, and no request id.
const ADDED: [&str; 2] = ["x-forwarded-for", "x-forwarded-proto"];
/// What Envoy adds besides, as soon as it adds `x-forwarded-for`; there is no switch for it, and to remove it
/// would be work that the others do not have.
const ENVOY_ADDS: &str = "x-envoy-external-address";
/// The status of what the policy does not allow.
const DENIED: u16 = 403;

/// What a proxy does to one exchange.
#[derive(Debug, PartialEq, Eq)]
struct Work {
    to_request: Changes,
    to_answer: Changes,
    /// The answers to a method and to a path that the policy does not allow.
    refusals: [u16; 2],
}

/// Names of fields.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
}

impl Work {
    /// What is expected of a proxy, or of a relay.
    fn expected(peer: PeerName) -> Self {
        let added = added_by(peer).into_iter().map(str::to_owned).collect();
        let to_request = Changes { added, ..Changes::default() };
        let refusal = if peer.is_proxy() { DENIED } else { 200 };
        Self { to_request, to_answer: Changes::default(), refusals: [refusal; 2] }
    }
}

fn added_by(peer: PeerName) -> Vec<&'static str> {
    match peer {
        PeerName::Envoy => [[ENVOY_ADDS].as_slice(), &ADDED].concat(),
        PeerName::Haproxy | PeerName::Weft => ADDED.to_vec(),
        PeerName::Relay | PeerName::RelayInTokio | PeerName::RelayTokio => Vec::new(),
    }
}

/// Fails where the proxy does more or less than is expected of it.
pub(super) fn verify(
    bench: &Bench,
    protocol: Protocol,
    peer: PeerName,
    proxy: SocketAddr,
) -> anyhow::Result<()> {
    let work = work(bench, protocol, proxy)
        .with_context(|| format!("{} requests through {}", protocol.label(), peer.label()))?;
    let expected = Work::expected(peer);
    if work != expected {
        bail!(
            "{} does not do the work that is compared, {}:\n  {work:?}\ninstead of\n  {expected:?}",
            peer.label(),
            protocol.label()
        );
    }
    Ok(())
}

/// The scenario: each peer in front of each protocol.
pub(super) fn run(title: &str, options: &Options) -> anyhow::Result<Table> {
    let bench = Bench::start()?;
    let mut notes = Vec::new();
    for peer in &options.peers {
        for protocol in Protocol::ALL {
            let running = bench.proxy(*peer, peer.label(), protocol, &[])?;
            verify(&bench, protocol, *peer, running.address)?;
            let denies = if peer.is_proxy() { "denies another method and path" } else { "denies nothing" };
            let adds = format!("adds [{}] to a request, nothing to an answer", added_by(*peer).join(", "));
            notes.push(format!("{}, {}: {adds}; {denies}", peer.label(), protocol.label()));
        }
    }
    Ok(Table { title: title.to_owned(), columns: Vec::new(), rows: Vec::new(), notes })
}

/// Compares exchanges through the proxy with the same ones without it.
fn work(bench: &Bench, protocol: Protocol, proxy: SocketAddr) -> anyhow::Result<Work> {
    let origin = bench.origin(protocol);
    let path = protocol.seen_path();
    let direct = ask(protocol, origin, "GET", path).context("without a proxy")?;
    let through = ask(protocol, proxy, "GET", path)?;
    if (direct.status, through.status) != (200, 200) {
        bail!("status {} without, {} with the proxy", direct.status, through.status);
    }
    let seen = |answer: &Answer, address: SocketAddr| {
        // The authority names the proxy or the origin, as the client asked it.
        let head = String::from_utf8_lossy(&answer.body).replace(&address.to_string(), "ADDRESS");
        (head.lines().next().unwrap_or_default().to_owned(), client::fields(&head))
    };
    let ((line, before), (line_through, after)) = (seen(&direct, origin), seen(&through, proxy));
    if line != line_through {
        bail!("the origin saw {line_through:?} instead of {line:?}");
    }
    let forwarded: Vec<&Field> = after.iter().filter(|(name, _)| name == "x-forwarded-for").collect();
    if forwarded.iter().any(|(_, value)| value.parse::<IpAddr>().is_err()) || forwarded.len() > 1 {
        bail!("x-forwarded-for is not one address: {forwarded:?}");
    }
    let refused = |method, path| ask(protocol, proxy, method, path).map(|answer| answer.status);
    Ok(Work {
        to_request: changes(&before, &after),
        to_answer: changes(&without_length(&direct), &without_length(&through)),
        // The route's prefix alone is a path that the route has and the policy has not.
        refusals: [refused("DELETE", path)?, refused("GET", protocol.prefix())?],
    })
}

fn ask(protocol: Protocol, address: SocketAddr, method: &str, path: &str) -> anyhow::Result<Answer> {
    match protocol {
        Protocol::Http1 => Ok(client::http1(address, method, path)?.1),
        Protocol::Http2 => client::Http2::new()?.ask(address, method, path),
    }
}

/// The body is the request that the origin saw, so its length differs where the request does.
fn without_length(answer: &Answer) -> Vec<Field> {
    answer.fields.iter().filter(|(name, _)| name != "content-length").cloned().collect()
}

fn changes(before: &[Field], after: &[Field]) -> Changes {
    let by_name = |fields: &[Field]| {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in fields {
            values.entry(name.clone()).or_default().push(value.clone());
        }
        values
    };
    let (before, after) = (by_name(before), by_name(after));
    let missing = |from: &BTreeMap<String, Vec<String>>, of: &BTreeMap<String, Vec<String>>| {
        of.keys().filter(|name| !from.contains_key(*name)).cloned().collect()
    };
    Changes {
        added: missing(&before, &after),
        removed: missing(&after, &before),
        changed: before
            .iter()
            .filter(|(name, values)| after.get(*name).is_some_and(|after| after != *values))
            .map(|(name, _)| name.clone())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_removed_and_changed_fields_are_told_apart() {
        let fields = |text: &str| client::fields(&format!("GET / HTTP/1.1\r\n{text}"));
        let before = fields("host: a\r\nte: trailers\r\nvia: x\r\n");
        let after = fields("host: a\r\nvia: x\r\nvia: y\r\nx-request-id: 1\r\n");
        let expected = Changes {
            added: vec!["x-request-id".into()],
            removed: vec!["te".into()],
            changed: vec!["via".into()],
        };
        assert_eq!(changes(&before, &after), expected);
    }

    #[test]
    fn a_proxy_that_makes_a_request_id_does_other_work() {
        let mut more = Work::expected(PeerName::Haproxy);
        assert_eq!(more, Work::expected(PeerName::Weft));
        more.to_request.added.push("x-request-id".into());
        assert_ne!(more, Work::expected(PeerName::Weft));
        assert_ne!(Work::expected(PeerName::Relay), Work::expected(PeerName::Weft));
    }
}
