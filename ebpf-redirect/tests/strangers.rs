// SPDX-License-Identifier: Apache-2.0
//! Devices that nobody knows, by any name. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use std::{net::IpAddr, net::SocketAddr, process::Command, time::Duration};

use weft_ebpf_common::Reason;
use weft_ebpf_redirect::KernelEventKind;
use weft_ir::{ObjectName, PolicyDirection, ResourceKey};

#[path = "support/lab.rs"]
mod lab;

use lab::{Lab, Pod, Running, Shape, State, inside, only, sh};

/// Sends datagrams from a pod, and returns why they were dropped.
fn refused(running: &Running, pod: &Pod, from: IpAddr) -> Vec<Reason> {
    drop(running.events());
    let to: IpAddr = if from.is_ipv4() { "172.30.9.2" } else { "fd00:30::2" }.parse().unwrap();
    let spoken = inside(&pod.namespace, move || {
        let socket = std::net::UdpSocket::bind((from, 0)).unwrap();
        for _ in 0..3 {
            let _sent = socket.send_to(b"x", SocketAddr::new(to, 5353));
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    spoken.join().unwrap();
    let of = |event: weft_ebpf_redirect::KernelEvent| match event.kind {
        KernelEventKind::Drop { reason, .. } if event.source.ip() == from => Some(reason),
        _ => None,
    };
    running.events().into_iter().filter_map(of).collect()
}

fn knows_router(lab: &Lab, pod: &Pod) {
    let (name, node, device) = (&pod.namespace, &lab.node, &pod.device);
    sh(&format!(
        "mac=$(ip netns exec {node} cat /sys/class/net/{device}/address)
         for router in 169.254.77.1 fe80::77; do ip -n {name} neigh replace $router lladdr $mac dev eth0; done"
    ));
}

fn index(lab: &Lab, device: &str) -> u32 {
    let path = format!("/sys/class/net/{device}/ifindex");
    let output = Command::new("ip").args(["netns", "exec", &lab.node, "cat", &path]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[test]
#[ignore = "needs root"]
fn a_routed_pod_that_is_not_known_or_no_longer_is_closed_by_any_name() {
    let lab = Lab::new(Shape::Routed, 2);
    let mut state = State::new(&lab.pods);
    state.remove(&ResourceKey::Workload(ObjectName::new("shop", "pod1")));
    let running = Running::start(&lab, &state, Vec::new);
    lab.pods.iter().for_each(|pod| knows_router(&lab, pod));
    // Never known, and deleted from the API while it lives.
    for index in [1, 0] {
        if index == 0 {
            state.remove(&ResourceKey::Workload(ObjectName::new("shop", "pod0")));
            running.apply(&state);
            running.refresh();
        }
        let pod = &lab.pods[index];
        for address in pod.addresses {
            assert!(refused(&running, pod, address).contains(&Reason::UnknownOwner), "{address}");
            // In the name of a pod of another node.
            let other: IpAddr =
                if address.is_ipv4() { "10.244.1.10" } else { "fd00:9::1:10" }.parse().unwrap();
            let length = if address.is_ipv4() { 32 } else { 128 };
            sh(&format!("ip -n {} addr add {other}/{length} dev eth0 nodad", pod.namespace));
            assert!(refused(&running, pod, other).contains(&Reason::UnknownOwner), "{other}");
        }
    }
    // Not even by a route that somebody leads over it.
    lab.node_sh("ip route add 192.0.2.0/24 via 10.244.9.2 dev p0 onlink");
    running.refresh();
    let address = lab.pods[0].addresses[0];
    assert!(refused(&running, &lab.pods[0], address).contains(&Reason::UnknownOwner));
}

#[test]
#[ignore = "needs root"]
fn a_device_made_again_with_the_same_index_gets_its_hooks() {
    let lab = Lab::new(Shape::Routed, 1);
    let mut state = State::new(&lab.pods);
    state.policy("closed", 0, PolicyDirection::default(), only(vec![]));
    let running = Running::start(&lab, &state, Vec::new);
    knows_router(&lab, &lab.pods[0]);
    let address = lab.pods[0].addresses[0];
    assert!(refused(&running, &lab.pods[0], address).contains(&Reason::PolicyDenied));
    let (number, name, node) = (index(&lab, "p0"), lab.pods[0].namespace.clone(), lab.node.clone());
    sh(&format!(
        "ip -n {node} link del p0
         ip -n {node} link add p0 index {number} type veth peer name eth0 netns {name}
         ip -n {node} link set p0 up; ip -n {node} addr add 169.254.77.1/32 dev p0
         ip -n {name} addr add {address}/32 dev eth0; ip -n {name} link set eth0 up
         ip -n {name} route add 169.254.77.1 dev eth0 scope link
         ip -n {name} route add default via 169.254.77.1
         ip -n {node} route add {address}/32 dev p0"
    ));
    sh(&format!(
        "mac=$(ip netns exec {node} cat /sys/class/net/p0/address)
         ip -n {name} neigh replace 169.254.77.1 lladdr $mac dev eth0"
    ));
    // Equal drops are told once in a second.
    std::thread::sleep(Duration::from_millis(1_100));
    running.refresh();
    assert!(refused(&running, &lab.pods[0], address).contains(&Reason::PolicyDenied));
}
