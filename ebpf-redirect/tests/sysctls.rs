// SPDX-License-Identifier: Apache-2.0
//! The redirect beside settings of the kernel that others need, made while it runs. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use std::{net::IpAddr, path::Path};

use weft_ebpf_redirect::Datapath;
use weft_ir::{HttpRule, L7Rules, Peer, PolicyDirection, PolicyPort, PolicyRule, PortRule, Protocol};

#[path = "support/lab.rs"]
mod lab;
#[path = "support/proxy.rs"]
mod proxies;

use lab::{Lab, Running, Shape, State, inside, only};
use proxies::{TARGET, ask, both, proxy, proxy_v4, server, vips};

/// Who sets them, and to what; a `*` stands for each device.
const SETTINGS: [(&str, &[(&str, &str)]); 14] = [
    ("nobody", &[]),
    ("wg-quick", &[("ipv4/conf/all/src_valid_mark", "1")]),
    ("wg-quick on a strict host", &[("ipv4/conf/all/src_valid_mark", "1"), ("ipv4/conf/*/rp_filter", "1")]),
    ("a strict host", &[("ipv4/conf/*/rp_filter", "1")]),
    ("a loose host", &[("ipv4/conf/*/rp_filter", "2")]),
    ("a host without filters", &[("ipv4/conf/*/rp_filter", "0")]),
    ("a host that demultiplexes early", &[("ipv4/ip_early_demux", "1"), ("ipv4/tcp_early_demux", "1")]),
    ("a router that takes its own packets", &[("ipv4/conf/*/accept_local", "1")]),
    ("kube-proxy", &[("ipv4/conf/*/route_localnet", "1")]),
    ("kube-proxy with IPVS", &[("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")]),
    ("policy routing of answers", &[("ipv4/fwmark_reflect", "1"), ("ipv6/fwmark_reflect", "1")]),
    ("policy routing of accepted sockets", &[("ipv4/tcp_fwmark_accept", "1")]),
    ("a load balancer's addresses", &[("ipv4/ip_nonlocal_bind", "1"), ("ipv6/ip_nonlocal_bind", "1")]),
    (
        "connection tracking of bridges",
        &[("bridge/bridge-nf-call-iptables", "1"), ("bridge/bridge-nf-call-ip6tables", "1")],
    ),
];

/// Every file that a setting stands for, in this network namespace.
fn files(name: &str) -> Vec<String> {
    let Some((before, after)) = name.split_once('*') else { return vec![format!("/proc/sys/net/{name}")] };
    let entries = std::fs::read_dir(Path::new("/proc/sys/net").join(before)).unwrap();
    entries.map(|entry| format!("{}{after}", entry.unwrap().path().display())).collect()
}

/// Makes settings in the node: what was there before.
fn set(node: &str, settings: Vec<(String, String)>) -> Vec<(String, String)> {
    inside(node, move || {
        let mut before = Vec::new();
        for (name, value) in settings {
            for file in if name.starts_with('/') { vec![name] } else { files(&name) } {
                before.push((file.clone(), std::fs::read_to_string(&file).unwrap().trim().to_owned()));
                std::fs::write(&file, &value).unwrap_or_else(|error| panic!("{file}: {error}"));
            }
        }
        before
    })
    .join()
    .unwrap()
}

fn http_rule() -> PolicyDirection {
    only(vec![PolicyRule {
        peers: vec![Peer::Any],
        ports: vec![PortRule {
            port: PolicyPort::Range(TARGET, TARGET),
            protocol: Some(Protocol::Tcp),
            l7: Some(L7Rules::Http(vec![HttpRule::default()])),
        }],
        authenticate: false,
    }])
}

/// Everything that the redirect does: egress by route, ingress by rule, a process of the node, a peer on the uplink,
/// and the end of a connection that nobody knows. What failed.
fn failures(lab: &Lab) -> Vec<String> {
    let mut failed = Vec::new();
    let mut check = |what: &str, answer: std::io::Result<String>, wanted: String| match answer {
        Ok(answer) if answer.starts_with(&wanted) => {}
        other => failed.push(format!("{what}: {other:?}")),
    };
    for family in [0, 1] {
        let client = lab.pods[0].addresses[family];
        let vip = both(80, |family| vips()[family])[family];
        let guarded = both(TARGET, |family| lab.pods[2].addresses[family])[family];
        let plain = both(TARGET, |family| lab.pods[1].addresses[family])[family];
        let remote: IpAddr = ["172.30.9.2", "fd00:30::2"][family].parse().unwrap();
        let pod = &lab.pods[0].namespace;
        check("egress", ask(pod, vip, 100_000), format!("proxy {client} {vip};server {client} 100000"));
        check("node", ask(&lab.node, vip, 10), "proxy ".into());
        check(
            "ingress",
            ask(pod, guarded, 100_000),
            format!("proxy {client} {guarded};server {client} 100000"),
        );
        check(
            "from outside",
            ask(&lab.remote(), guarded, 10),
            format!("proxy {remote} {guarded};server {remote} 10"),
        );
        check("plain", ask(pod, plain, 10), format!("server {client} 10"));
    }
    failed
}

fn beside_settings_of_others(shape: Shape) {
    let lab = Lab::new(shape, 3);
    let mut state = State::new(&lab.pods);
    state.service("server", Protocol::Tcp, &vips(), &lab.pods[1].addresses, TARGET);
    state.route("server");
    state.policy("http", 2, http_rule(), PolicyDirection::default());
    server(&lab.pods[1].namespace);
    server(&lab.pods[2].namespace);
    let backends = both(TARGET, |family| lab.pods[1].addresses[family]);
    let running = Running::start(&lab, &state, move || vec![proxy(backends.map(Some))]);
    let mut broken = Vec::new();
    for (who, settings) in SETTINGS {
        let settings =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let before = set(&lab.node, settings);
        running.keep_up();
        broken.extend(failures(&lab).into_iter().map(|failure| format!("{shape:?} beside {who}: {failure}")));
        set(&lab.node, before);
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
#[ignore = "needs root"]
fn a_node_whose_ipv6_is_switched_off_redirects_ipv4() {
    let lab = Lab::new(Shape::Routed, 2);
    set(&lab.node, vec![("ipv6/conf/all/disable_ipv6".into(), "1".into())]);
    // Pods of such a node have none either.
    let pods: Vec<_> =
        lab.pods.iter().map(|pod| lab::Pod { addresses: [pod.addresses[0]; 2], ..pod.clone() }).collect();
    let mut state = State::new(&pods);
    state.service("server", Protocol::Tcp, &vips(), &lab.pods[1].addresses, TARGET);
    state.route("server");
    server(&lab.pods[1].namespace);
    let backends = both(TARGET, |family| lab.pods[1].addresses[family]);
    let _running = Running::start(&lab, &state, move || vec![proxy_v4(backends[0])]);
    let (client, vip) = (lab.pods[0].addresses[0], both(80, |family| vips()[family])[0]);
    let answer = ask(&lab.pods[0].namespace, vip, 10).unwrap();
    assert_eq!(answer, format!("proxy {client} {vip};server {client} 10"));
}

#[test]
#[ignore = "needs root"]
fn the_check_names_settings_that_matter() {
    let lab = Lab::new(Shape::Routed, 0);
    let check = || inside(&lab.node, || Datapath::check().to_string()).join().unwrap();
    for (name, harmless, value) in [
        ("ipv4/ip_early_demux", "0", "1"),
        ("ipv4/conf/all/src_valid_mark", "0", "1"),
        ("ipv4/conf/all/rp_filter", "2", "1"),
        ("ipv4/ip_forward", "1", "0"),
        ("ipv6/conf/all/forwarding", "1", "0"),
        ("ipv6/conf/all/disable_ipv6", "0", "1"),
        ("bridge/bridge-nf-call-iptables", "0", "1"),
    ] {
        let line = format!("net/{name} is {value}");
        for (now, named) in [(value, true), (harmless, false)] {
            set(&lab.node, vec![(name.into(), now.into())]);
            let check = check();
            assert_eq!(check.contains(&line), named, "{line}, now {now}: {check}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn what_others_remove_of_the_delivery_is_made_again() {
    let lab = Lab::new(Shape::Routed, 1);
    let running = Running::start(&lab, &State::new(&lab.pods), Vec::new);
    let rules = |family: &str| {
        let output =
            std::process::Command::new("ip").args(["-n", &lab.node, family, "rule"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let before = ["-4", "-6"].map(rules);
    // As network daemons do with rules and routes that are not their own.
    for family in ["-4", "-6"] {
        lab.node_sh(&format!("for at in 3 4 5; do ip {family} rule del pref $at 2>/dev/null || true; done"));
        lab.node_sh(&format!("ip {family} route flush table 3077"));
    }
    assert!(!rules("-4").contains("3077") && !rules("-6").contains("3077"));
    running.keep_up();
    assert_eq!(["-4", "-6"].map(rules), before);
    lab.node_sh("ip route show table 3077 | grep -q default; ip -6 route show table 3077 | grep -q default");
}

#[test]
#[ignore = "needs root"]
fn the_redirect_holds_beside_settings_of_others_routed() {
    beside_settings_of_others(Shape::Routed);
}

#[test]
#[ignore = "needs root"]
fn the_redirect_holds_beside_settings_of_others_bridged() {
    beside_settings_of_others(Shape::Bridged);
}
