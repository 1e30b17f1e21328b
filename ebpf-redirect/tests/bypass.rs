// SPDX-License-Identifier: Apache-2.0
//! Programs of others that deliver to pods past the node's end of their pair. Needs root, and Linux 6.7 to see it.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::mpsc,
    time::Duration,
};

use weft_ebpf_redirect::{ShortPath, bpf::bare};
use weft_ir::ObjectName;

#[path = "support/lab.rs"]
mod lab;

use lab::{Lab, PATIENCE, Running, Shape, State, inside};

const PORT: u16 = 5353;

/// Answers datagrams in a namespace.
fn answer(namespace: &str) {
    let (ready, wait) = mpsc::channel();
    inside(namespace, move || {
        let socket = UdpSocket::bind(("::", PORT)).unwrap();
        socket.set_read_timeout(Some(4 * PATIENCE)).unwrap();
        ready.send(()).unwrap();
        while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
            let _gone = socket.send_to(b"!", from);
        }
    });
    wait.recv_timeout(PATIENCE).unwrap();
}

/// How many of a hundred datagrams on one connection are answered.
fn asked(from: &str, to: IpAddr) -> usize {
    let asking = inside(from, move || {
        let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let ask = |_: &i32| {
            socket.send_to(b"?", SocketAddr::new(to, PORT)).is_ok() && socket.recv_from(&mut [0; 8]).is_ok()
        };
        (0..100).filter(ask).count()
    });
    asking.join().unwrap()
}

fn device(lab: &Lab, name: &'static str) -> u32 {
    let named = inside(&lab.node, move || {
        std::fs::read_to_string(format!("/proc/thread-self/net/dev_snmp6/{name}")).map(|text| {
            let index = text.lines().find_map(|line| line.strip_prefix("ifIndex")).unwrap();
            index.trim().parse().unwrap()
        })
    });
    named.join().unwrap().unwrap()
}

#[test]
#[ignore = "needs root"]
fn a_pod_that_gets_packets_past_us_is_named_and_our_own_short_path_is_not_that() {
    for shape in [Shape::Routed, Shape::Bridged] {
        let mut lab = Lab::new(shape, 3);
        lab.config.short_path = ShortPath::On;
        let running = Running::start(&lab, &State::new(&lab.pods), Vec::new);
        let pod = &lab.pods[1];
        answer(&pod.namespace);
        assert_eq!(running.passed_by(), BTreeSet::new());
        for address in pod.addresses {
            assert!(asked(&lab.pods[0].namespace, address) > 90, "{shape:?} {address}");
            assert!(asked(&lab.remote(), address) > 90, "{shape:?} {address}");
        }
        let maps = weft_ebpf_redirect::maps::Maps::open(&lab.config.bpffs.join("maps")).unwrap();
        let short = weft_ebpf_common::layout::metric_index(0, weft_ebpf_common::layout::METRIC_SHORT, 1);
        let short = maps.metrics.lookup(&short).unwrap().unwrap();
        assert!(short.iter().map(|metric| metric.packets).sum::<u64>() > 100, "the short path is not taken");
        assert_eq!(running.passed_by(), BTreeSet::new(), "{shape:?}");
        // Somebody else's program behind ours hands everything from the uplink to one pod.
        let (uplink, to) = (device(&lab, "up0"), device(&lab, "p1"));
        let link = inside(&lab.node, move || bare::attach_redirect_peer(uplink, to).unwrap()).join().unwrap();
        for address in pod.addresses {
            asked(&lab.remote(), address);
        }
        assert_eq!(running.passed_by(), BTreeSet::from([ObjectName::new("shop", "pod1")]), "{shape:?}");
        drop(link);
        drop(running);
    }
}
