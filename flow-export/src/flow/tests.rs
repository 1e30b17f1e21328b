// SPDX-License-Identifier: Apache-2.0
use super::*;

/// A denied request, as `weft observe` must show it.
pub(crate) fn denied_request() -> Flow {
    let end = |pod: &str, ip: &str, port, identity| FlowEndpoint {
        ip: Some(ip.parse().unwrap()),
        port,
        identity,
        namespace: "shop".into(),
        pod: pod.into(),
        workload: "checkout".into(),
        labels: [Arc::from("k8s:app=checkout")].into(),
        service: Arc::default(),
    };
    Flow {
        time: Timestamp(1_795_233_900_123_456_789),
        node: "n1".into(),
        revision: Position { epoch: 0x3f2a, revision: 7 },
        source: end("client", "10.244.0.2", 41234, 258),
        destination: end("checkout-v1", "fd00::3", 8080, 257),
        direction: Direction::Egress,
        verdict: Verdict::Dropped,
        reason: Some(Reason::HttpPolicyDenied),
        policies: vec!["shop/checkout".into()],
        l4: L4 { protocol: IpProtocol::TCP, flags: TcpFlags::default() },
        http: Some(Http::request("POST", "/pay?card=1", "checkout", "HTTP/1.1")),
        is_reply: Some(false),
        event: Event::HttpRequest,
    }
}

#[test]
fn a_flow_survives_json() {
    let mut flow = denied_request();
    let text = serde_json::to_string(&flow).unwrap();
    assert_eq!(serde_json::from_str::<Flow>(&text).unwrap(), flow);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["time"], "2026-11-21T04:05:00.123456789Z");
    assert_eq!(value["verdict"], "DROPPED");
    assert_eq!(value["reason"], "http_policy_denied");
    assert_eq!(value["l4"], serde_json::json!({"protocol": "tcp"}));
    assert_eq!(value["event"], serde_json::json!({"type": "http-request"}));
    assert_eq!(value["http"]["path"], "/pay?card=1");
    flow.event =
        Event::Close { bytes_sent: 1, bytes_received: 2, packets: 3, duration_ns: 4, retransmits: 5 };
    flow.source = FlowEndpoint::default();
    flow.l4.flags = TcpFlags(0x12);
    flow.l4.protocol = IpProtocol(47);
    (flow.http, flow.reason, flow.is_reply, flow.policies) = (None, None, None, Vec::new());
    let text = serde_json::to_string(&flow).unwrap();
    assert_eq!(serde_json::from_str::<Flow>(&text).unwrap(), flow);
}

#[test]
fn a_reason_of_a_newer_node_is_left_out() {
    let text =
        serde_json::to_string(&denied_request()).unwrap().replace("http_policy_denied", "not_yet_known");
    assert_eq!(serde_json::from_str::<Flow>(&text).unwrap().reason, None);
}

#[test]
fn texts_of_the_network_are_cut_at_a_character() {
    assert_eq!(&*bounded("short", 8), "short");
    assert_eq!(&*bounded("123456789", 8), "12345...");
    assert_eq!(&*bounded("1234\u{e9}6789", 8), "1234...");
    let long = "/".repeat(100_000);
    assert_eq!(Http::request("GET", &long, &long, &long).path.len(), MAX_PATH_BYTES);
}

#[test]
fn flags_are_written_in_hubbles_order() {
    assert_eq!(TcpFlags(0x12).to_string(), "SYN, ACK");
    assert_eq!(TcpFlags(0xff).to_string(), "SYN, ACK, RST, FIN, PSH, URG, ECE, CWR");
    assert_eq!(TcpFlags(0).to_string(), "");
}
