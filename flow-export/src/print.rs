// SPDX-License-Identifier: Apache-2.0
//! Flows as text: lines like those of `hubble observe`, or JSON.

use std::net::IpAddr;

use weft_ebpf_common::reason::Reason;

use weft_ir::Direction;

use crate::{Event, Flow, FlowEndpoint, IpProtocol, Verdict, enrich::reserved_name};

const CYAN: &str = "36";
const YELLOW: &str = "33";
const MAGENTA: &str = "35";
const GREEN: &str = "32";
const RED: &str = "31";

/// Writes flows as one line each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compact {
    /// Colours, for a terminal.
    pub color: bool,
    /// The node's name in each line.
    pub node: bool,
}

impl Compact {
    /// The line of a flow, without a line end. Nothing in it can move a terminal's cursor.
    pub fn line(&self, flow: &Flow) -> String {
        let reply = flow.is_reply == Some(true);
        let (client, server) =
            if reply { (&flow.destination, &flow.source) } else { (&flow.source, &flow.destination) };
        let arrow = match flow.is_reply {
            Some(true) => "<-",
            Some(false) => "->",
            None => "<>",
        };
        let mut line = flow.time.stamp();
        if self.node {
            line.push_str(&format!(" [{}]", clean(&flow.node)));
        }
        let (kind, verdict) = (kind(flow), self.verdict(flow));
        let (client, server) = (self.end(client), self.end(server));
        line.push_str(&format!(": {client} {arrow} {server} {kind} {verdict}"));
        let summary = summary(flow);
        if !summary.is_empty() {
            line.push_str(&format!(" ({})", clean(&summary)));
        }
        if let Some(reason) = flow.reason {
            line.push_str(&format!(" reason={}", reason.name()));
        }
        if !flow.policies.is_empty() {
            line.push_str(&format!(" policy={}", clean(&flow.policies.join(","))));
        }
        line
    }

    fn end(&self, end: &FlowEndpoint) -> String {
        let identity = match reserved_name(end.identity) {
            Some(name) => format!("({name})"),
            None => format!("(ID:{})", end.identity),
        };
        let port = if end.port == 0 {
            String::new()
        } else {
            format!(":{}", self.paint(YELLOW, &end.port.to_string()))
        };
        let host = clean(&host(end));
        format!("{}{port} {}", self.paint(CYAN, &host), self.paint(MAGENTA, &identity))
    }

    fn verdict(&self, flow: &Flow) -> String {
        let text = flow.verdict.name();
        let color = match flow.verdict {
            Verdict::Forwarded | Verdict::Redirected => GREEN,
            Verdict::Dropped | Verdict::Error => RED,
            Verdict::Translated => YELLOW,
        };
        self.paint(color, text)
    }

    fn paint(&self, color: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{color}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// `namespace/pod`, else the service, else the address.
fn host(end: &FlowEndpoint) -> String {
    if !end.pod.is_empty() {
        return format!("{}/{}", end.namespace, end.pod);
    }
    if !end.service.is_empty() {
        return end.service.to_string();
    }
    match end.ip {
        Some(IpAddr::V6(ip)) if end.port != 0 => format!("[{ip}]"),
        Some(ip) => ip.to_string(),
        None => "unknown".to_owned(),
    }
}

fn kind(flow: &Flow) -> String {
    match flow.event {
        Event::HttpRequest => "http-request".to_owned(),
        Event::HttpResponse => "http-response".to_owned(),
        Event::Drop => flow.reason.map_or_else(|| "dropped".to_owned(), drop_text),
        Event::Open if flow.direction == Direction::Ingress => "to-endpoint".to_owned(),
        Event::Open => "from-endpoint".to_owned(),
        Event::Close { .. } => "closed".to_owned(),
        Event::ServiceTranslation => "pre-xlate-fwd".to_owned(),
    }
}

/// Hubble's words for a drop where it has some, else the reason's own.
fn drop_text(reason: Reason) -> String {
    let text = match reason.hubble() {
        132 => "Invalid source ip",
        133 => "Policy denied",
        158 => "Service backend not found",
        180 => "Proxy redirection not supported for protocol",
        181 => "Policy denied by denylist",
        _ => return reason.name().replace('_', " "),
    };
    text.to_owned()
}

fn summary(flow: &Flow) -> String {
    if let Some(http) = &flow.http {
        let url = format!("http://{}{}", http.authority, http.path);
        return match flow.event {
            Event::HttpResponse => {
                let milliseconds = http.latency_ns / 1_000_000;
                format!("{} {} {milliseconds}ms ({} {url})", http.protocol, http.status, http.method)
            }
            _ => format!("{} {} {url}", http.protocol, http.method),
        };
    }
    let mut text = match flow.l4.protocol {
        IpProtocol::TCP if flow.l4.flags.is_empty() => "TCP".to_owned(),
        IpProtocol::TCP => format!("TCP Flags: {}", flow.l4.flags),
        protocol => protocol.name().map_or_else(|| format!("IP protocol {}", protocol.0), str::to_uppercase),
    };
    if let Event::Close { bytes_sent, bytes_received, duration_ns, .. } = flow.event {
        let milliseconds = duration_ns / 1_000_000;
        text += &format!("; sent {bytes_sent} B, received {bytes_received} B in {milliseconds}ms");
    }
    text
}

/// The text with every control character written out, so that no name, path or header of the network can
/// command the terminal or forge a line.
fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        // Bidirectional controls (U+202A to U+202E, U+2066 to U+2069) would show text in another order.
        let turns = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
    }
    clean
}

/// The JSON of a flow, in one line without a line end.
///
/// # Errors
/// None for flows: every field can be written as JSON.
pub fn json_line(flow: &Flow) -> Result<String, serde_json::Error> {
    serde_json::to_string(flow)
}

#[cfg(test)]
mod tests;
