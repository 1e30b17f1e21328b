// SPDX-License-Identifier: Apache-2.0
//! Filters on devices, as on kernels before 6.6: beside those of others, and over restarts. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
    time::Duration,
};

use weft_ebpf_redirect::{Attachment, Datapath, hook::DeviceHook, load::Programs, probe::Found};

#[path = "support/lab.rs"]
mod lab;

use lab::{Lab, PATIENCE, Running, Shape, State, inside};

const PORT: u16 = 8080;

/// What a command line in the node prints.
fn printed(lab: &Lab, line: &str) -> String {
    let output = Command::new("ip").args(["netns", "exec", &lab.node, "sh", "-c", line]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The names of our filters on a device.
fn ours(lab: &Lab, device: &str) -> Vec<String> {
    let both = format!("tc filter show dev {device} ingress; tc filter show dev {device} egress");
    let text = printed(lab, &both);
    let words = text.split_whitespace().filter(|word| word.starts_with("weft_"));
    words.map(|word| word.split('[').next().unwrap_or(word).trim_end_matches(':').to_owned()).collect()
}

fn qdiscs(lab: &Lab) -> usize {
    printed(lab, "tc qdisc show").matches("clsact").count()
}

fn server(namespace: &str) {
    let (ready, wait) = mpsc::channel();
    inside(namespace, move || {
        let listener = TcpListener::bind(("::", PORT)).unwrap();
        ready.send(()).unwrap();
        for client in listener.incoming() {
            drop(client);
        }
    });
    wait.recv_timeout(PATIENCE).unwrap();
}

fn connects(lab: &Lab) -> bool {
    let to = SocketAddr::new(lab.pods[1].addresses[0], PORT);
    let patience = Duration::from_millis(1500);
    inside(&lab.pods[0].namespace, move || TcpStream::connect_timeout(&to, patience).is_ok()).join().unwrap()
}

#[test]
#[ignore = "needs root"]
fn filters_of_others_see_what_ours_leave_to_them_and_outlive_us() {
    let lab = Lab::new(Shape::Routed, 2);
    server(&lab.pods[1].namespace);
    lab.node_sh("tc qdisc add dev p0 clsact");
    let running = Running::start(&lab, &State::new(&lab.pods), Vec::new);
    assert_eq!(ours(&lab, "p0"), ["weft_from_pod", "weft_to_pod"]);
    assert_eq!(ours(&lab, "up0"), ["weft_from_uplink"]);
    assert_eq!(ours(&lab, "weft0"), ["weft_bounced"]);
    assert!(connects(&lab));
    lab.node_sh("tc filter add dev p0 ingress protocol ip bpf da bytecode \"1,6 0 0 2\"");
    // A program of one instruction that returns TC_ACT_SHOT.
    assert!(!connects(&lab), "what we pass goes on to the next filter");
    drop(running);
    assert_eq!(ours(&lab, "p0"), [""; 0]);
    assert!(!connects(&lab), "the filter of somebody else is still there");
    assert_eq!(qdiscs(&lab), 1, "all but the one that was not ours are gone");
}

#[test]
#[ignore = "needs root"]
fn a_queueing_discipline_that_others_use_stays_though_we_made_it() {
    let lab = Lab::new(Shape::Routed, 2);
    let running = Running::start(&lab, &State::new(&lab.pods), Vec::new);
    lab.node_sh("tc filter add dev p1 egress protocol ip bpf da bytecode \"1,6 0 0 0\"");
    drop(running);
    assert_eq!(qdiscs(&lab), 1);
    assert_eq!(ours(&lab, "p1"), [""; 0]);
}

#[test]
#[ignore = "needs root"]
fn a_restart_finds_filters_and_can_change_to_links_and_back() {
    let mut lab = Lab::new(Shape::Routed, 2);
    server(&lab.pods[1].namespace);
    let state = State::new(&lab.pods);
    let tcx =
        Datapath::check().features.iter().any(|found| found.name == "tcx links" && found.found == Found::Yes);
    let filters = ["weft_from_pod", "weft_to_pod"];
    for attachment in [Attachment::Clsact, Attachment::Clsact, Attachment::Auto, Attachment::Clsact] {
        lab.config.attachment = attachment;
        let running = Running::start(&lab, &state, Vec::new);
        let links = tcx && attachment == Attachment::Auto;
        let pinned =
            lab.config.bpffs.join("links").read_dir().unwrap().filter(|entry| {
                entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("from_pod-")
            });
        assert_eq!(pinned.count(), if links { 2 } else { 0 }, "{attachment:?}");
        assert_eq!(ours(&lab, "p0"), if links { &[][..] } else { &filters[..] }, "{attachment:?}");
        assert!(connects(&lab), "{attachment:?}");
        running.leave();
    }
    drop(Running::start(&lab, &state, Vec::new));
    assert_eq!(qdiscs(&lab), 0);
}

#[test]
#[ignore = "needs root"]
fn what_is_in_the_way_of_a_filter_is_named() {
    let lab = Lab::new(Shape::Routed, 2);
    lab.node_sh("tc qdisc add dev p0 ingress");
    lab.node_sh("tc qdisc add dev p1 clsact");
    lab.node_sh("tc filter add dev p1 ingress pref 1 protocol ip u32 match u32 0 0");
    let index =
        |device| printed(&lab, &format!("cat /sys/class/net/{device}/ifindex")).trim().parse().unwrap();
    let (p0, p1): (u32, u32) = (index("p0"), index("p1"));
    let bpffs = lab.config.bpffs.clone();
    let attached = inside(&lab.node, move || {
        let programs = Programs::load(&bpffs).unwrap().attaching(Attachment::Clsact);
        let attach = |hook, device| programs.attach_device(hook, device).map_err(|error| error.to_string());
        [
            attach(DeviceHook::FromPod, p0),
            attach(DeviceHook::ToPod, p0),
            attach(DeviceHook::FromPod, p1),
            attach(DeviceHook::ToPod, p1),
        ]
    });
    let [from_0, to_0, from_1, to_1] = attached.join().unwrap();
    assert_eq!((from_0, to_1), (Ok(()), Ok(())));
    // Filters for egress would run at ingress.
    assert!(to_0.unwrap_err().contains("queueing discipline ingress"));
    assert!(from_1.unwrap_err().contains("priority 1"));
}

#[test]
#[ignore = "needs root"]
fn what_somebody_else_takes_away_comes_back() {
    let lab = Lab::new(Shape::Routed, 2);
    let running = Running::start(&lab, &State::new(&lab.pods), Vec::new);
    for taken in ["tc filter del dev p0 egress", "tc qdisc del dev p0 clsact"] {
        lab.node_sh(taken);
        assert_ne!(ours(&lab, "p0"), ["weft_from_pod", "weft_to_pod"], "{taken}");
        running.refresh();
        assert_eq!(ours(&lab, "p0"), ["weft_from_pod", "weft_to_pod"], "{taken}");
    }
    drop(running);
    assert_eq!(qdiscs(&lab), 0);
}
