// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::{Event, flow::tests::denied_request};

fn filter(pairs: &[(&str, &str)]) -> Filter {
    let mut filter = Filter::new();
    for (name, value) in pairs {
        filter.add(name, value).unwrap();
    }
    filter
}

fn passes(pairs: &[(&str, &str)]) -> bool {
    filter(pairs).matches(&denied_request())
}

#[test]
fn every_condition_can_pass_and_fail() {
    for (name, passing, failing) in [
        ("namespace", "shop", "sho"),
        ("from-namespace", "shop", "bank"),
        ("to-namespace", "shop", "bank"),
        ("pod", "checkout", "server"),
        ("pod", "shop/check", "bank/check"),
        ("pod", "shop/", "bank/"),
        ("pod", "/client", "/server"),
        ("from-pod", "client", "checkout"),
        ("to-pod", "checkout", "client"),
        ("ip", "10.244.0.2", "10.244.0.3"),
        ("from-ip", "10.244.0.0/16", "fd00::/8"),
        ("to-ip", "fd00::/8", "10.0.0.0/8"),
        ("port", "41234", "80"),
        ("from-port", "41234", "8080"),
        ("to-port", "8080", "41234"),
        ("identity", "257", "2"),
        ("from-identity", "258", "257"),
        ("to-identity", "257", "258"),
        ("verdict", "dropped", "FORWARDED"),
        ("reason", "http_policy_denied", "policy_denied"),
        ("protocol", "TCP", "udp"),
        ("protocol", "http", "icmp"),
        ("protocol", "6", "17"),
        ("traffic-direction", "egress", "INGRESS"),
        ("type", "l7", "drop"),
        ("type", "http-request", "http-response"),
        ("node-name", "n1", "n"),
        ("http-method", "post", "GET"),
        ("http-path", "^/pay$", "card"),
    ] {
        assert!(passes(&[(name, passing)]), "{name}={passing}");
        assert!(!passes(&[(name, failing)]), "{name}={failing}");
    }
}

#[test]
fn values_of_one_condition_are_alternatives_and_conditions_must_all_hold() {
    assert!(passes(&[]));
    assert!(passes(&[("verdict", "FORWARDED"), ("verdict", "DROPPED"), ("namespace", "shop")]));
    assert!(!passes(&[("verdict", "DROPPED"), ("namespace", "bank")]));
}

#[test]
fn a_service_is_found_by_namespace_and_beginning() {
    let mut flow = denied_request();
    flow.destination.service = "shop/checkout".into();
    for (value, expected) in [("shop/check", true), ("check", true), ("bank/check", false), ("client", false)]
    {
        assert_eq!(filter(&[("service", value)]).matches(&flow), expected, "{value}");
        assert_eq!(filter(&[("to-service", value)]).matches(&flow), expected, "{value}");
        assert!(!filter(&[("from-service", value)]).matches(&flow), "{value}");
    }
}

#[test]
fn a_status_is_whole_or_the_beginning_of_one() {
    let mut flow = denied_request();
    let mut status = |status: u16, wanted: &str| {
        if let Some(http) = &mut flow.http {
            http.status = status;
        }
        filter(&[("http-status", wanted)]).matches(&flow)
    };
    assert!(status(503, "5+") && status(503, "50+") && status(503, "503"));
    assert!(!status(403, "5+") && !status(513, "50+") && !status(500, "503"));
    assert!(!status(0, "5+"), "a request without an answer has no status");
}

#[test]
fn conditions_on_requests_leave_packets_out() {
    let mut flow = denied_request();
    (flow.http, flow.event) = (None, Event::Drop);
    for pair in [("http-path", ".*"), ("http-method", "POST"), ("http-status", "4+"), ("protocol", "http")] {
        assert!(!filter(&[pair]).matches(&flow), "{pair:?}");
    }
}

#[test]
fn wrong_values_and_names_are_told() {
    let refuse = |name: &str, value: &str| Filter::new().add(name, value).unwrap_err().to_string();
    assert_eq!(refuse("color", "red"), "there is no flow filter `color`: see `weft observe --help`");
    assert_eq!(
        refuse("verdict", "LOST"),
        "`LOST` is no value for the flow filter `verdict`: write FORWARDED, DROPPED, ERROR, REDIRECTED or TRANSLATED"
    );
    for (name, value) in [
        ("ip", "10.0.0"),
        ("port", "70000"),
        ("http-status", "600"),
        ("http-status", "40"),
        ("http-status", "400+"),
        ("reason", "bad luck"),
        ("protocol", "quic"),
        ("http-path", "a{9999999}"),
    ] {
        assert!(!refuse(name, value).is_empty());
    }
}

#[test]
fn values_are_bounded() {
    let mut filter = Filter::new();
    for port in 0..100 {
        filter.add("port", &port.to_string()).unwrap();
    }
    assert!(matches!(filter.add("pod", "a"), Err(FilterError::TooMany)));
}
