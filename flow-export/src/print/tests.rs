// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::{L4, TcpFlags, flow::tests::denied_request};

fn line(flow: &Flow) -> String {
    Compact::default().line(flow)
}

#[test]
fn a_denied_request_is_one_line_with_both_ends_and_the_reason() {
    assert_eq!(
        line(&denied_request()),
        "Nov 21 04:05:00.123: shop/client:41234 (ID:258) -> shop/checkout-v1:8080 (ID:257) http-request DROPPED \
         (HTTP/1.1 POST http://checkout/pay?card=1) reason=http_policy_denied policy=shop/checkout"
    );
}

#[test]
fn a_response_is_shown_from_the_clients_side() {
    let mut flow = denied_request();
    std::mem::swap(&mut flow.source, &mut flow.destination);
    flow.is_reply = Some(true);
    flow.event = Event::HttpResponse;
    (flow.verdict, flow.reason) = (Verdict::Forwarded, None);
    flow.policies.clear();
    if let Some(http) = &mut flow.http {
        (http.status, http.latency_ns) = (200, 3_900_000);
    }
    assert_eq!(
        line(&flow),
        "Nov 21 04:05:00.123: shop/client:41234 (ID:258) <- shop/checkout-v1:8080 (ID:257) http-response FORWARDED \
         (HTTP/1.1 200 3ms (POST http://checkout/pay?card=1))"
    );
}

#[test]
fn a_dropped_packet_has_hubbles_words_and_the_reason() {
    let mut flow = denied_request();
    (flow.http, flow.is_reply, flow.event) = (None, None, Event::Drop);
    flow.l4 = L4 { protocol: IpProtocol::TCP, flags: TcpFlags(0x02) };
    flow.reason = Some(Reason::PolicyDenied);
    flow.source = FlowEndpoint { ip: flow.destination.ip, port: 5, identity: 2, ..FlowEndpoint::default() };
    let node = Compact { node: true, ..Compact::default() };
    assert_eq!(
        node.line(&flow),
        "Nov 21 04:05:00.123 [n1]: [fd00::3]:5 (world) <> shop/checkout-v1:8080 (ID:257) Policy denied DROPPED \
         (TCP Flags: SYN) reason=policy_denied policy=shop/checkout"
    );
    flow.reason = Some(Reason::ProxyUnavailable);
    assert!(line(&flow).contains(" proxy unavailable DROPPED "));
}

#[test]
fn the_end_of_a_connection_tells_its_bytes() {
    let mut flow = denied_request();
    (flow.http, flow.reason, flow.verdict) = (None, None, Verdict::Forwarded);
    flow.policies.clear();
    flow.event = Event::Close {
        bytes_sent: 10,
        bytes_received: 20,
        packets: 0,
        duration_ns: 5_000_000,
        retransmits: 0,
    };
    assert!(
        line(&flow).ends_with(" closed FORWARDED (TCP; sent 10 B, received 20 B in 5ms)"),
        "{}",
        line(&flow)
    );
}

#[test]
fn nothing_from_the_network_reaches_the_terminal_as_a_command() {
    let mut flow = denied_request();
    if let Some(http) = &mut flow.http {
        http.path = "/\u{1b}[2J\r\nforged\u{202e}\u{9b}".into();
    }
    flow.source.pod = "a\nb".into();
    let line = line(&flow);
    assert!(line.chars().all(|character| !character.is_control() && character != '\u{202e}'), "{line:?}");
    assert!(line.contains("/\\u{1b}[2J\\r\\nforged\\u{202e}\\u{9b}"), "{line}");
}

#[test]
fn colours_wrap_the_words_and_change_nothing_else() {
    let flow = denied_request();
    let colored = Compact { color: true, ..Compact::default() }.line(&flow);
    assert!(colored.contains("\u{1b}[31mDROPPED\u{1b}[0m"));
    let codes = ["36", "33", "35", "32", "31", "0"].map(|code| format!("\u{1b}[{code}m"));
    let plain = codes.iter().fold(colored, |text, code| text.replace(code.as_str(), ""));
    assert_eq!(plain, line(&flow));
}
