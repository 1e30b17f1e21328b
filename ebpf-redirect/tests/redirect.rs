// SPDX-License-Identifier: Apache-2.0
//! Connections that pods open are handed to a transparent proxy, with the true addresses on both sides.
//! Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    time::Duration,
};

use socket2::{Domain, Socket, Type};
use weft_ebpf_redirect::{DEFAULT_PORTS, sync::Changes};
use weft_ir::{HttpRule, L7Rules, Peer, PolicyDirection, PolicyPort, PolicyRule, PortRule, Protocol};

#[path = "support/lab.rs"]
mod lab;
#[path = "support/proxy.rs"]
mod proxies;

use lab::{Lab, PATIENCE, Running, Shape, State, VIP, inside, only, sh};
use proxies::{TARGET, ask, both, proxy, server, vips};

fn egress(shape: Shape) {
    let lab = Lab::new(shape, 2);
    let mut state = State::new(&lab.pods);
    state.service("server", Protocol::Tcp, &vips(), &lab.pods[1].addresses, TARGET);
    state.route("server");
    server(&lab.pods[1].namespace);
    let backends = both(TARGET, |family| lab.pods[1].addresses[family]);
    let _running = Running::start(&lab, &state, move || vec![proxy(backends.map(Some))]);
    for (family, vip) in both(80, |family| vips()[family]).into_iter().enumerate() {
        let client = lab.pods[0].addresses[family];
        for length in [10, 3_000_000] {
            let answer = ask(&lab.pods[0].namespace, vip, length).unwrap();
            assert_eq!(answer, format!("proxy {client} {vip};server {client} {length}"));
        }
        // What no route names stays in the kernel.
        let answer = ask(&lab.pods[0].namespace, backends[family], 10).unwrap();
        assert_eq!(answer, format!("server {client} 10"));
        // A process of the node is redirected too.
        let answer = ask(&lab.node, vip, 10).unwrap();
        assert!(answer.starts_with("proxy ") && answer.contains(&format!(" {vip};server ")), "{answer}");
    }
}

#[test]
#[ignore = "needs root"]
fn routed_pods_reach_a_kept_address_through_the_proxy() {
    egress(Shape::Routed);
}

#[test]
#[ignore = "needs root"]
fn bridged_pods_reach_a_kept_address_through_the_proxy() {
    egress(Shape::Bridged);
}

#[test]
#[ignore = "needs root"]
fn listeners_that_somebody_else_has_set_are_put_back_and_never_taken_from_another() {
    let (lab, _state, running) = scene(Shape::Routed);
    let maps = weft_ebpf_redirect::maps::Maps::open(&lab.config.bpffs.join("maps")).unwrap();
    let set = |count: u32, port: u32| {
        let mut config = maps.config.lookup(&0).unwrap().unwrap();
        let before = (config.listeners, maps.listeners.lookup(&0).unwrap().unwrap());
        config.listeners = count;
        maps.listeners.update(&0, &port).unwrap();
        maps.config.update(&0, &config).unwrap();
        before
    };
    let own = set(0, 1);
    running.keep_up();
    assert_eq!(set(own.0, own.1), own, "a process that ended has cleared them");
    let vip = both(80, |family| vips()[family])[0];
    assert!(ask(&lab.pods[0].namespace, vip, 10).unwrap().starts_with("proxy "));
    // Another process has taken over: this one ends, and leaves them.
    set(1, 7);
    running.clear_listeners();
    assert_eq!(set(1, 7), (1, 7));
    set(own.0, own.1);
    running.clear_listeners();
    assert_eq!(set(0, 0).0, 0, "its own are taken back");
}

/// The proxy has a connection in a pod's name, and the pod opens the same: a client's port to the same backend.
fn two_of_the_same(shape: Shape) {
    let (lab, _state, running) = scene(shape);
    let taken = running.pod_connections();
    for (family, vip) in both(80, |family| vips()[family]).into_iter().enumerate() {
        let client = lab.pods[0].addresses[family];
        let backend = SocketAddr::new(lab.pods[1].addresses[family], TARGET);
        let (held, wait) = mpsc::channel();
        // Nothing is sent yet: the connection behind the proxy stays.
        inside(&lab.pods[0].namespace, move || {
            let mut stream = TcpStream::connect_timeout(&vip, PATIENCE).unwrap();
            let mut seen = [0; 5];
            stream.read_exact(&mut seen).unwrap();
            held.send(stream).unwrap();
        });
        let held = wait.recv_timeout(PATIENCE).unwrap();
        let open = |port: u16| {
            let from = SocketAddr::new(client, port);
            inside(&lab.pods[0].namespace, move || {
                let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
                socket.bind(&from.into())?;
                socket.connect_timeout(&backend.into(), PATIENCE).map(|()| socket)
            })
            .join()
            .unwrap()
        };
        let first = DEFAULT_PORTS.0;
        let refused = open(first).map(|_| ()).map_err(|error| error.kind());
        assert_eq!(refused, Err(std::io::ErrorKind::ConnectionRefused), "{shape:?} {backend}");
        let own = open(first + 7).unwrap();
        assert!(taken.has(SocketAddr::new(client, first + 7), backend), "the proxy sees it");
        assert!(!taken.has(SocketAddr::new(client, first), backend));
        drop((held, own));
    }
}

#[test]
#[ignore = "needs root"]
fn a_pods_port_that_the_proxy_has_in_its_name_is_refused_at_once() {
    for shape in [Shape::Routed, Shape::Bridged] {
        two_of_the_same(shape);
    }
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

fn ingress(shape: Shape) {
    let lab = Lab::new(shape, 2);
    let mut state = State::new(&lab.pods);
    state.policy("http", 1, http_rule(), PolicyDirection::default());
    server(&lab.pods[1].namespace);
    let _running = Running::start(&lab, &state, || vec![proxy([None, None])]);
    for (family, to) in both(TARGET, |family| lab.pods[1].addresses[family]).into_iter().enumerate() {
        let client = lab.pods[0].addresses[family];
        let answer = ask(&lab.pods[0].namespace, to, 3_000_000).unwrap();
        assert_eq!(answer, format!("proxy {client} {to};server {client} 3000000"));
        let remote: IpAddr = ["172.30.9.2", "fd00:30::2"][family].parse().unwrap();
        let answer = ask(&lab.remote(), to, 3_000_000).unwrap();
        assert_eq!(answer, format!("proxy {remote} {to};server {remote} 3000000"));
        // Another port is not allowed at all.
        let other = SocketAddr::new(to.ip(), 9999);
        assert!(ask(&lab.pods[0].namespace, other, 1).is_err());
    }
}

#[test]
#[ignore = "needs root"]
fn what_is_sent_to_a_routed_pod_with_an_http_rule_passes_the_proxy() {
    ingress(Shape::Routed);
}

#[test]
#[ignore = "needs root"]
fn what_is_sent_to_a_bridged_pod_with_an_http_rule_passes_the_proxy() {
    ingress(Shape::Bridged);
}

#[test]
#[ignore = "needs root"]
fn cleanup_leaves_nothing_behind() {
    let lab = Lab::new(Shape::Routed, 1);
    let state = State::new(&lab.pods);
    drop(Running::start(&lab, &state, || vec![proxy([None, None])]));
    assert!(!lab.config.bpffs.exists());
    let node = &lab.node;
    sh(&format!("! ip -n {node} link show weft0 2>/dev/null"));
    sh(&format!("! ip -n {node} rule | grep -Ev '^(0|32766|32767):'; ! ip -n {node} -6 rule | grep -q 3077"));
    sh(&format!("! ip netns exec {node} nft list table inet weft 2>/dev/null"));
    sh(&format!("test $(ip netns exec {node} sysctl -n net.ipv4.ip_early_demux) = 1"));
}

/// A node whose pod 0 reaches pod 1 through the service, with a proxy.
fn scene(shape: Shape) -> (Lab, State, Running) {
    let lab = Lab::new(shape, 2);
    let mut state = State::new(&lab.pods);
    state.service("server", Protocol::Tcp, &vips(), &lab.pods[1].addresses, TARGET);
    state.route("server");
    server(&lab.pods[1].namespace);
    let backends = both(TARGET, |family| lab.pods[1].addresses[family]);
    let running = Running::start(&lab, &state, move || vec![proxy(backends.map(Some))]);
    (lab, state, running)
}

#[test]
#[ignore = "needs root"]
fn nat_and_state_rules_of_others_do_not_touch_the_proxys_connections() {
    for shape in [Shape::Routed, Shape::Bridged] {
        let (lab, _state, _running) = scene(shape);
        // What kube-proxy, a masquerading CNI and a strict host firewall do.
        lab.node_sh(
            "nft add table inet foreign
             nft \"add chain inet foreign pre { type nat hook prerouting priority dstnat; }\"
             nft add rule inet foreign pre ip daddr 10.96.0.10 tcp dport 80 dnat ip to 10.244.9.66:9
             nft add rule inet foreign pre ip6 daddr fd00:96::10 tcp dport 80 dnat ip6 to [fd00:9::42]:9
             nft \"add chain inet foreign loc { type nat hook output priority -100; }\"
             nft add rule inet foreign loc ip daddr 10.96.0.10 tcp dport 80 dnat ip to 10.244.9.66:9
             nft add rule inet foreign loc ip6 daddr fd00:96::10 tcp dport 80 dnat ip6 to [fd00:9::42]:9
             nft \"add chain inet foreign post { type nat hook postrouting priority srcnat; }\"
             nft add rule inet foreign post ip saddr 10.244.0.0/16 masquerade
             nft add rule inet foreign post ip6 saddr fd00:9::/64 masquerade
             nft \"add chain inet foreign out { type filter hook output priority 0; }\"
             nft add rule inet foreign out ct state invalid drop
             nft \"add chain inet foreign inp { type filter hook input priority 0; }\"
             nft add rule inet foreign inp ct state invalid drop",
        );
        for (family, vip) in both(80, |family| vips()[family]).into_iter().enumerate() {
            let client = lab.pods[0].addresses[family];
            let answer = ask(&lab.pods[0].namespace, vip, 100_000).unwrap();
            assert_eq!(answer, format!("proxy {client} {vip};server {client} 100000"), "{shape:?}");
            let answer = ask(&lab.node, vip, 100_000).unwrap();
            assert!(answer.starts_with("proxy ") && answer.contains(&format!(" {vip};server ")), "{answer}");
        }
    }
}

/// Pods and the node reach the service through the proxy, and pods each other without.
fn all_is_served(lab: &Lab, told: &str) {
    for (family, vip) in both(80, |family| vips()[family]).into_iter().enumerate() {
        let client = lab.pods[0].addresses[family];
        let answer = ask(&lab.pods[0].namespace, vip, 100_000);
        assert_eq!(answer.ok(), Some(format!("proxy {client} {vip};server {client} 100000")), "{told}");
        let answer = ask(&lab.node, vip, 10).unwrap();
        assert!(
            answer.starts_with("proxy ") && answer.contains(&format!(" {vip};server ")),
            "{told}: {answer}"
        );
        let direct = SocketAddr::new(lab.pods[1].addresses[family], TARGET);
        assert_eq!(
            ask(&lab.pods[0].namespace, direct, 10).ok(),
            Some(format!("server {client} 10")),
            "{told}"
        );
    }
}

#[test]
#[ignore = "needs root"]
fn the_redirect_holds_where_others_have_moved_the_local_rule_and_route_by_device() {
    for shape in [Shape::Routed, Shape::Bridged] {
        let (lab, _state, running) = scene(shape);
        lab.node_sh(
            "for family in -4 -6; do ip $family rule add pref 20 lookup local; ip $family rule del pref 0; done",
        );
        all_is_served(&lab, &format!("{shape:?}"));
        if shape == Shape::Bridged {
            continue;
        }
        // As the AWS plug-in does with interfaces of their own for pods: these know their router's address.
        let (name, node) = (&lab.pods[0].namespace, &lab.node);
        sh(&format!(
            "mac=$(ip netns exec {node} cat /sys/class/net/p0/address)
             for router in 169.254.77.1 fe80::77; do ip -n {name} neigh replace $router lladdr $mac dev eth0; done"
        ));
        lab.node_sh(
            "ip route add default via 172.30.9.2 table 101; ip -6 route add default via fd00:30::2 table 101
             for family in -4 -6; do ip $family rule add pref 10 iif p0 lookup 101; done",
        );
        for (family, vip) in both(80, |family| vips()[family]).into_iter().enumerate() {
            let client = lab.pods[0].addresses[family];
            let answer = ask(&lab.pods[0].namespace, vip, 100_000);
            assert_eq!(answer.ok(), Some(format!("proxy {client} {vip};server {client} 100000")));
        }
        drop(running);
    }
}

#[test]
#[ignore = "needs root"]
fn the_redirect_holds_where_frames_of_bridges_pass_the_rules_of_the_firewall() {
    for module in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        assert!(std::path::Path::new("/proc/sys/net/bridge").join(module).exists(), "modprobe br_netfilter");
    }
    let (lab, _state, running) = scene(Shape::Bridged);
    lab.node_sh(
        "sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1
         nft add table inet foreign
         nft \"add chain inet foreign pre { type nat hook prerouting priority dstnat; }\"
         nft add rule inet foreign pre ip daddr 10.96.0.10 tcp dport 80 dnat ip to 10.244.9.66:9
         nft add rule inet foreign pre ip6 daddr fd00:96::10 tcp dport 80 dnat ip6 to [fd00:9::42]:9
         nft \"add chain inet foreign forw { type filter hook forward priority 0; }\"
         nft add rule inet foreign forw ct state invalid drop
         nft \"add chain inet foreign post { type nat hook postrouting priority srcnat; }\"
         nft add rule inet foreign post ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade",
    );
    all_is_served(&lab, "bridge-nf");
    drop(running);
}

#[test]
#[ignore = "needs root"]
fn who_asks_a_kept_address_is_served_and_called_what_it_is() {
    let (lab, _state, running) = scene(Shape::Routed);
    let remote = lab.remote();
    sh(&format!("ip -n {remote} route add {} via 172.30.9.1", VIP[0]));
    sh(&format!("ip -n {remote} -6 route add {} via fd00:30::1", VIP[1]));
    for (from, identity) in [(&remote, 2), (&lab.node, 1)] {
        for vip in both(80, |family| vips()[family]) {
            running.events();
            let answer = ask(from, vip, 10).unwrap();
            assert!(answer.starts_with("proxy ") && answer.contains(&format!(" {vip};server ")), "{answer}");
            let told = running.events().into_iter().find(|event| {
                event.kind == weft_ebpf_redirect::KernelEventKind::Redirect && event.destination == vip
            });
            assert_eq!(told.map(|event| event.source_identity), Some(identity), "{from} to {vip}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn what_comes_from_outside_in_a_pods_name_goes_nowhere() {
    for shape in [Shape::Routed, Shape::Bridged] {
        let lab = Lab::new(shape, 2);
        let state = State::new(&lab.pods);
        let running = Running::start(&lab, &state, Vec::new);
        // Where the stack itself looks at sources, it would be its doing.
        lab.node_sh("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.up0.rp_filter=0");
        let remote = lab.remote();
        let [v4, v6] = lab.pods[0].addresses;
        sh(&format!(
            "ip -n {remote} addr add {v4}/32 dev lo; ip -n {remote} -6 addr add {v6}/128 dev lo nodad"
        ));
        for family in [0, 1] {
            let (spoofed, own) =
                (lab.pods[0].addresses[family], ["172.30.9.2", "fd00:30::2"][family].parse().unwrap());
            let to = SocketAddr::new(lab.pods[1].addresses[family], 5353 + family as u16);
            let received = datagrams(&lab.pods[1].namespace, to.port());
            send_from(&remote, spoofed, to);
            send_from(&remote, own, to);
            assert_eq!(received.recv_timeout(PATIENCE).map(|from| from.ip()), Ok(own), "{shape:?}");
            let reason = weft_ebpf_common::Reason::InvalidSourceIp;
            let told = running.events().into_iter().any(|event| {
                matches!(event.kind, weft_ebpf_redirect::KernelEventKind::Drop { reason: found, .. } if found == reason)
                    && event.source.ip() == spoofed
            });
            assert!(told, "no event about {spoofed}");
        }
    }
}

/// Asks by datagram: the answer, if there is one.
fn ask_by_datagram(namespace: &str, to: SocketAddr) -> Option<String> {
    let asked = inside(namespace, move || {
        let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let socket = std::net::UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.send_to(b"?", to).ok()?;
        let mut answer = [0; 64];
        let (length, _) = socket.recv_from(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer[..length]).into_owned())
    });
    asked.join().unwrap()
}

#[test]
#[ignore = "needs root"]
fn a_dns_cache_of_the_node_is_asked_at_the_address_of_the_service() {
    for shape in [Shape::Routed, Shape::Bridged] {
        let lab = Lab::new(shape, 1);
        let mut state = State::new(&lab.pods);
        state.service_at("dns", (53, Protocol::Udp), &vips(), &["10.244.7.7".parse().unwrap()], 53);
        let running = Running::start(&lab, &state, Vec::new);
        let [v4, v6] = VIP;
        // It is a dummy, which not every kernel has; only its name counts.
        lab.node_sh(&format!(
            "ip link add nodelocaldns type bridge; ip addr add 169.254.20.10/32 dev nodelocaldns
             ip addr add {v4}/32 dev nodelocaldns; ip -6 addr add {v6}/128 dev nodelocaldns nodad
             ip link set nodelocaldns up"
        ));
        let (ready, wait) = mpsc::channel();
        for vip in both(53, |family| vips()[family]) {
            let ready = ready.clone();
            inside(&lab.node, move || {
                let socket = std::net::UdpSocket::bind(vip).unwrap();
                ready.send(()).unwrap();
                socket.set_read_timeout(Some(4 * PATIENCE)).unwrap();
                while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
                    socket.send_to(b"cache", from).unwrap();
                }
            });
            wait.recv_timeout(PATIENCE).unwrap();
        }
        running.refresh();
        for vip in both(53, |family| vips()[family]) {
            let answer = ask_by_datagram(&lab.pods[0].namespace, vip);
            assert_eq!(answer.as_deref(), Some("cache"), "{shape:?} {vip}");
        }
        drop(running);
    }
}

/// Who sends datagrams to a port in a namespace.
fn datagrams(namespace: &str, port: u16) -> mpsc::Receiver<SocketAddr> {
    let ((ready, wait), (from, received)) = (mpsc::channel(), mpsc::channel());
    inside(namespace, move || {
        let socket = std::net::UdpSocket::bind(("::", port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        ready.send(()).unwrap();
        while let Ok((_, sender)) = socket.recv_from(&mut [0; 64]) {
            let _gone = from.send(SocketAddr::new(sender.ip().to_canonical(), sender.port()));
        }
    });
    wait.recv_timeout(PATIENCE).unwrap();
    received
}

fn send_from(namespace: &str, from: IpAddr, to: SocketAddr) {
    let sent = inside(namespace, move || {
        std::net::UdpSocket::bind((from, 0)).unwrap().send_to(b"x", to).unwrap();
    });
    sent.join().unwrap();
}

#[test]
#[ignore = "needs root"]
fn without_a_proxy_a_connection_waits_and_nothing_is_passed_or_reset() {
    let (lab, _state, running) = scene(Shape::Routed);
    running.set_listeners(vec![]);
    for vip in both(80, |family| vips()[family]) {
        let error = ask(&lab.pods[0].namespace, vip, 1).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        let reason = weft_ebpf_common::Reason::ProxyUnavailable;
        let told = running.events().into_iter().any(|event| {
            matches!(event.kind, weft_ebpf_redirect::KernelEventKind::Drop { reason: found, .. } if found == reason)
                && event.destination == vip
        });
        assert!(told, "no event for {vip}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_port_that_the_client_uses_again_at_once_is_served() {
    let (lab, _state, _running) = scene(Shape::Routed);
    for vip in both(80, |family| vips()[family]) {
        let any: SocketAddr = if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let answers = inside(&lab.pods[0].namespace, move || {
            let mut local = any;
            let mut answers = Vec::new();
            for _ in 0..4 {
                let socket = Socket::new(Domain::for_address(vip), Type::STREAM, None).unwrap();
                socket.set_reuse_address(true).unwrap();
                socket.bind(&local.into()).unwrap();
                local = SocketAddr::new(any.ip(), socket.local_addr().unwrap().as_socket().unwrap().port());
                socket.connect_timeout(&vip.into(), PATIENCE).unwrap();
                let mut stream: TcpStream = socket.into();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answers.push(answer);
                // No TIME_WAIT here, so that the proxy's side is the one that may have it.
                reset_on_close(&stream);
            }
            answers
        });
        let answers = answers.join().unwrap();
        assert!(answers.iter().all(|answer| answer.starts_with("proxy ")), "{answers:?}");
    }
}

fn reset_on_close(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
#[ignore = "needs root"]
fn path_mtu_discovery_reaches_the_proxys_connections() {
    for shape in [Shape::Routed, Shape::Bridged] {
        let lab = Lab::new(shape, 2);
        let mut state = State::new(&lab.pods);
        let remote: [IpAddr; 2] = ["172.30.9.130".parse().unwrap(), "fd00:31::2".parse().unwrap()];
        state.service("server", Protocol::Tcp, &vips(), &remote, TARGET);
        state.route("server");
        // Behind the other machine is a third one, over a link with a small MTU that only the router
        // between knows of.
        let (router, far) = (lab.remote(), format!("{}f", lab.remote()));
        sh(&format!(
            "ip netns add {far}; ip -n {far} link set lo up
             ip netns exec {router} sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
             ip link add far0 netns {router} mtu 1280 type veth peer name eth0 netns {far} mtu 1280
             ip -n {router} addr add 172.30.9.129/30 dev far0; ip -n {router} -6 addr add fd00:31::1/64 dev far0 nodad
             ip -n {router} link set far0 up
             ip -n {far} addr add 172.30.9.130/30 dev eth0; ip -n {far} -6 addr add fd00:31::2/64 dev eth0 nodad
             ip -n {far} link set eth0 up
             ip -n {far} route add default via 172.30.9.129; ip -n {far} -6 route add default via fd00:31::1"
        ));
        lab.node_sh("ip route add 172.30.9.130/32 via 172.30.9.2");
        server(&far);
        let backends = both(TARGET, |family| remote[family]);
        let running = Running::start(&lab, &state, move || vec![proxy(backends.map(Some))]);
        for (family, vip) in both(80, |family| vips()[family]).into_iter().enumerate() {
            let client = lab.pods[0].addresses[family];
            let answer = ask(&lab.pods[0].namespace, vip, 1_000_000);
            let wanted = format!("proxy {client} {vip};server {client} 1000000");
            assert_eq!(answer.ok(), Some(wanted), "{shape:?} {:?}", running.counters());
        }
        drop(running);
        sh(&format!("ip netns del {far}"));
    }
}

#[test]
#[ignore = "needs root"]
fn kernel_connections_outlive_the_daemon_and_are_taken_over() {
    let lab = Lab::new(Shape::Routed, 2);
    let mut state = State::new(&lab.pods);
    // Only what is asked for may come in, so that a lost table would cut the connection.
    let rule =
        PolicyRule { peers: vec![Peer::Selector(lab::pod_selector(0))], ports: vec![], authenticate: false };
    state.policy("peer", 1, only(vec![rule]), PolicyDirection::default());
    let running = Running::start(&lab, &state, Vec::new);
    let to = SocketAddr::new(lab.pods[1].addresses[0], TARGET);
    server(&lab.pods[1].namespace);
    let (send, next) = mpsc::channel::<()>();
    let (done, wait) = mpsc::channel();
    let client = inside(&lab.pods[0].namespace, move || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        for () in next {
            stream.write_all(b"x").unwrap();
            done.send(()).unwrap();
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let step = || {
        send.send(()).unwrap();
        wait.recv_timeout(PATIENCE).unwrap();
    };
    step();
    running.leave();
    step();
    assert!(ask(&lab.remote(), to, 1).is_err(), "policy holds without the daemon");
    let running = Running::start(&lab, &state, Vec::new);
    step();
    drop(send);
    assert_eq!(client.join().unwrap(), format!("server {} 3", lab.pods[0].addresses[0]));
    let translated = running.counters().packets.len();
    assert!(translated > 0);
}

#[test]
#[ignore = "needs root"]
fn a_new_http_rule_ends_the_connections_that_it_names_and_no_others() {
    let lab = Lab::new(Shape::Routed, 2);
    let mut state = State::new(&lab.pods);
    server(&lab.pods[1].namespace);
    let running = Running::start(&lab, &state, || vec![proxy([None, None])]);
    for to in both(TARGET, |family| lab.pods[1].addresses[family]) {
        state.policy("open", 1, PolicyDirection::default(), PolicyDirection::default());
        running.apply(&state);
        let (send, next) = mpsc::channel::<()>();
        let (opened, wait) = mpsc::channel();
        let client = inside(&lab.pods[0].namespace, move || {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            opened.send(()).unwrap();
            let _go: Result<(), _> = next.recv();
            let mut ask = || {
                stream.write_all(b"x")?;
                stream.shutdown(std::net::Shutdown::Write)?;
                stream.read_to_string(&mut String::new())
            };
            ask().is_err()
        });
        wait.recv_timeout(PATIENCE).unwrap();
        running.events();
        state.policy("open", 1, http_rule(), PolicyDirection::default());
        running.apply(&state);
        drop(send);
        assert!(client.join().unwrap(), "an old connection went past the rule");
        let reason = Some(weft_ebpf_common::Reason::PolicyTightened);
        let told = running
            .events()
            .into_iter()
            .any(|event| event.kind == weft_ebpf_redirect::KernelEventKind::Close { reason });
        assert!(told, "no event");
        assert!(ask(&lab.pods[0].namespace, to, 10).unwrap().starts_with("proxy "));
    }
}

/// A connection on which the server speaks all the time, and how it ends for each side: whether it did.
struct Pushing {
    server: mpsc::Receiver<bool>,
    client: mpsc::Receiver<bool>,
    /// Lets the client speak too.
    talk: mpsc::Sender<()>,
    received: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

const PUSH: Duration = Duration::from_millis(20);

impl Pushing {
    fn start(from: &str, to: &lab::Pod, address: IpAddr, port: u16) -> Pushing {
        let (ready, wait) = mpsc::channel();
        let (server_ended, server) = mpsc::channel();
        inside(&to.namespace, move || {
            let listener = TcpListener::bind(("::", port)).unwrap();
            ready.send(()).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let deadline = std::time::Instant::now() + 2 * PATIENCE;
            let mut ended = false;
            while !ended && std::time::Instant::now() < deadline {
                ended = stream.write_all(b"x").is_err();
                std::thread::sleep(PUSH);
            }
            let _gone = server_ended.send(ended);
        });
        wait.recv_timeout(PATIENCE).unwrap();
        let received = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (counted, (talk, may_talk), (client_ended, client)) =
            (std::sync::Arc::clone(&received), mpsc::channel::<()>(), mpsc::channel());
        inside(from, move || {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE).unwrap();
            stream.set_read_timeout(Some(PUSH)).unwrap();
            let deadline = std::time::Instant::now() + 2 * PATIENCE;
            let mut ended = false;
            while !ended && std::time::Instant::now() < deadline {
                ended = match stream.read(&mut [0; 64]) {
                    Ok(length) => {
                        counted.fetch_add(length, std::sync::atomic::Ordering::Relaxed);
                        length == 0
                    }
                    Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
                };
                ended |= may_talk.try_recv().is_ok() && stream.write_all(b"y").is_err();
            }
            let _gone = client_ended.send(ended);
        });
        let pushing = Pushing { server, client, talk, received };
        pushing.goes_on();
        pushing
    }

    fn goes_on(&self) {
        let count = || self.received.load(std::sync::atomic::Ordering::Relaxed);
        let (before, deadline) = (count(), std::time::Instant::now() + PATIENCE);
        while count() < before + 5 {
            assert!(std::time::Instant::now() < deadline, "nothing comes any more");
            std::thread::sleep(PUSH);
        }
    }

    /// The server is told by what it pushes, the client by what it says.
    fn both_are_told(self) {
        assert!(self.server.recv_timeout(PATIENCE).unwrap(), "the server was not told");
        for _ in 0..20 {
            let _ended = self.talk.send(());
        }
        assert!(self.client.recv_timeout(PATIENCE).unwrap(), "the client was not told");
    }
}

fn deny(peer: u32) -> PolicyDirection {
    let rule = PolicyRule {
        peers: vec![Peer::Selector(lab::pod_selector(peer))],
        ports: vec![],
        authenticate: false,
    };
    PolicyDirection { default_deny: false, allow: vec![], deny: vec![rule] }
}

#[test]
#[ignore = "needs root"]
fn a_tightened_policy_ends_a_connection_on_which_the_server_pushes() {
    for shape in [Shape::Routed, Shape::Bridged] {
        let lab = Lab::new(shape, 2);
        let mut state = State::new(&lab.pods);
        let running = Running::start(&lab, &state, || vec![proxy([None, None])]);
        let port = |index: usize| TARGET + index as u16;
        for (index, rule) in [deny(0), deny(0), http_rule(), http_rule()].into_iter().enumerate() {
            state.policy("server", 1, PolicyDirection::default(), PolicyDirection::default());
            running.apply(&state);
            let address = lab.pods[1].addresses[index % 2];
            let pushing = Pushing::start(&lab.pods[0].namespace, &lab.pods[1], address, port(index));
            state.policy("server", 1, rule, PolicyDirection::default());
            running.apply(&state);
            pushing.both_are_told();
        }
        drop(running);
    }
}

#[test]
#[ignore = "needs root"]
fn connections_from_before_the_start_are_held_to_the_policy_or_go_on() {
    for shape in [Shape::Routed, Shape::Bridged] {
        let lab = Lab::new(shape, 3);
        let mut state = State::new(&lab.pods);
        state.policy("server", 1, deny(0), PolicyDirection::default());
        let start = |from: usize, to: usize, family: usize| {
            let (from, to) = (&lab.pods[from], &lab.pods[to]);
            Pushing::start(&from.namespace, to, to.addresses[family], TARGET + family as u16)
        };
        let denied = [start(0, 1, 0), start(0, 1, 1)];
        let allowed = [start(0, 2, 0), start(0, 2, 1)];
        let running = Running::start(&lab, &state, || vec![proxy([None, None])]);
        for pushing in denied {
            pushing.both_are_told();
        }
        for pushing in allowed {
            pushing.goes_on();
        }
        drop(running);
    }
}

#[test]
#[ignore = "needs root"]
fn a_lost_entry_of_a_pushing_server_comes_back_or_its_ends_are_told() {
    for shape in [Shape::Routed, Shape::Bridged] {
        let lab = Lab::new(shape, 3);
        let mut state = State::new(&lab.pods);
        // The server may only be asked, and say nothing of its own accord.
        let rule = PolicyRule {
            peers: vec![Peer::Selector(lab::pod_selector(0))],
            ports: vec![],
            authenticate: false,
        };
        state.policy("server", 1, only(vec![rule]), only(vec![]));
        let running = Running::start(&lab, &state, || vec![proxy([None, None])]);
        let start = |to: usize, family: usize| {
            let to = &lab.pods[to];
            Pushing::start(&lab.pods[0].namespace, to, to.addresses[family], TARGET + family as u16)
        };
        let (closed, open) = ([start(1, 0), start(1, 1)], [start(2, 0), start(2, 1)]);
        let maps = weft_ebpf_redirect::maps::Maps::open(&lab.config.bpffs.join("maps")).unwrap();
        for key in maps.connections.keys().unwrap() {
            maps.connections.remove(&key).unwrap();
        }
        open.iter().for_each(Pushing::goes_on);
        closed.into_iter().for_each(Pushing::both_are_told);
        drop(running);
    }
}

#[test]
#[ignore = "needs root"]
fn the_check_finds_all_that_is_wanted_and_leaves_nothing() {
    let report = weft_ebpf_redirect::Datapath::check();
    assert!(report.usable(), "{report}");
    assert_eq!(report.features.iter().filter(|feature| feature.name == "tcx links").count(), 1, "{report}");
    let pins = format!("/sys/fs/bpf/weft-check-{}", std::process::id());
    assert!(!std::path::Path::new(&pins).exists());
}

#[test]
#[ignore = "needs root"]
fn what_a_pod_claims_on_the_bridge_moves_no_address() {
    let lab = Lab::new(Shape::Bridged, 3);
    let mut state = State::new(&lab.pods);
    state.policy("server", 1, http_rule(), PolicyDirection::default());
    server(&lab.pods[1].namespace);
    let running = Running::start(&lab, &state, || vec![proxy([None, None])]);
    let (thief, victim) = (&lab.pods[2], &lab.pods[1]);
    let [v4, v6] = victim.addresses;
    // The thief answers for the victim's addresses, and speaks from them.
    let name = &thief.namespace;
    sh(&format!(
        "ip -n {name} addr add {v4}/32 dev eth0; ip -n {name} -6 addr add {v6}/128 dev eth0 nodad
         ip netns exec {name} sysctl -qw net.ipv4.conf.all.arp_announce=0 net.ipv6.conf.all.ndisc_notify=1
         ip netns exec {name} ping -q -c 1 -W 1 -I {v4} 10.244.9.1 && exit 1
         ip netns exec {name} ping -q -c 1 -W 1 -I {v6} fd00:9::1 && exit 1; true"
    ));
    running.apply(&state);
    for (index, to) in both(TARGET, |family| victim.addresses[family]).into_iter().enumerate() {
        let client = lab.pods[0].addresses[index];
        let answer = ask(&lab.pods[0].namespace, to, 10).unwrap();
        assert_eq!(answer, format!("proxy {client} {to};server {client} 10"));
    }
    drop(running);
}

#[test]
#[ignore = "needs root"]
fn an_uplink_is_no_pods_device_when_the_pods_own_route_is_gone() {
    let lab = Lab::new(Shape::Routed, 2);
    let state = State::new(&lab.pods);
    let running = Running::start(&lab, &state, || vec![proxy([None, None])]);
    let [v4, v6] = lab.pods[1].addresses;
    lab.node_sh(&format!("ip route del {v4}/32; ip -6 route del {v6}/128"));
    let applied = running.refresh();
    assert_eq!(applied.unattached, [v4, v6]);
    server(&lab.remote());
    for to in ["172.30.9.2", "fd00:30::2"] {
        let to = SocketAddr::new(to.parse().unwrap(), TARGET);
        let answer = ask(&lab.node, to, 10).unwrap();
        assert!(answer.starts_with("server "), "{answer}");
    }
    drop(running);
}

#[test]
#[ignore = "needs root"]
fn a_change_of_the_state_writes_what_differs_and_a_restart_nothing() {
    let lab = Lab::new(Shape::Routed, 2);
    let mut state = State::new(&lab.pods);
    state.policy("server", 1, http_rule(), PolicyDirection::default());
    state.service("server", Protocol::Tcp, &vips(), &lab.pods[1].addresses, TARGET);
    state.service("other", Protocol::Tcp, &["10.96.0.11".parse().unwrap()], &[], TARGET);
    let running = Running::start(&lab, &state, Vec::new);
    // The kernel gives our new device a link-local address in a while, which is the node's from then on.
    let settled = |_| {
        std::thread::sleep(Duration::from_millis(100));
        running.refresh().changes == Changes::default()
    };
    assert!((0..20).any(settled));
    // One backend less for IPv4: a list of one entry, the service; one list goes.
    state.service("server", Protocol::Tcp, &vips(), &lab.pods[1].addresses[1..], TARGET);
    let changes = running.apply(&state).changes;
    assert_eq!((changes.written, changes.removed, changes.recheck), (1, 1, false));
    state.service("other", Protocol::Tcp, &["10.96.0.12".parse().unwrap()], &[], TARGET);
    let changes = running.apply(&state).changes;
    assert_eq!((changes.written, changes.removed, changes.recheck), (2, 2, false));
    running.leave();
    let running = Running::start(&lab, &state, Vec::new);
    assert_eq!(running.apply(&state).changes, Changes::default());
    drop(running);
}
