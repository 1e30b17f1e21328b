// SPDX-License-Identifier: Apache-2.0
//! The lab without Weft: pods reach each other, rules of others work, and nothing is left behind.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use weft_testlab::foreign::Rules;
use weft_testlab::lab::{Lab, Pod, Shape};
use weft_testlab::peer::{bulk, client, raw, tcp, udp};
use weft_testlab::{cgroup, netns, wait};

const DEADLINE: Duration = Duration::from_secs(10);

fn addresses(pod: &Pod) -> [IpAddr; 2] {
    [pod.ip4().into(), pod.ip6().into()]
}

#[test]
#[ignore = "needs root"]
fn pods_of_all_shapes_reach_each_other_in_both_families() {
    let lab = Lab::new().unwrap();
    let nodes = [lab.add_node("n1", Shape::Routed).unwrap(), lab.add_node("n2", Shape::Bridged).unwrap()];
    let pods: Vec<Pod> = nodes
        .iter()
        .flat_map(|node| [node.add_pod("t", "a").unwrap(), node.add_pod("t", "b").unwrap()])
        .collect();
    let _servers: Vec<_> = pods.iter().map(|pod| pod.serve(&["echo"]).unwrap()).collect();
    for client in &pods {
        for (server, own) in pods.iter().flat_map(|pod| addresses(pod).into_iter().zip(addresses(client))) {
            let address = SocketAddr::new(server, 9000).to_string();
            let tcp: tcp::Summary = client.ask(&["tcp-client", &address], DEADLINE).unwrap();
            assert_eq!(tcp.seen.get(&format!("echo {own}")), Some(&1), "{own} to {address}: {tcp:?}");
            let udp: udp::Summary = client.ask(&["udp-client", &address], DEADLINE).unwrap();
            assert_eq!(udp.seen.get(&format!("echo {own}")), Some(&1), "{own} to {address}: {udp:?}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn peers_speak_what_they_say() {
    let lab = Lab::new().unwrap();
    let node = lab.add_node("n1", Shape::Routed).unwrap();
    let (client, server) = (node.add_pod("t", "client").unwrap(), node.add_pod("t", "server").unwrap());
    let _http = server.serve(&["http", "--version", "v7", "--fail-every", "5"]).unwrap();
    let _bulk = server.serve(&["bulk-server"]).unwrap();
    let url = format!("http://{}:8080/a?b=c", server.ip4());
    for (mode, protocol) in [("keep-alive", "HTTP/1.1"), ("close", "HTTP/1.1"), ("h2", "HTTP/2.0")] {
        let summary: client::Summary =
            client.ask(&["client", &url, "--mode", mode, "--requests", "9"], DEADLINE).unwrap();
        assert_eq!((summary.sent, summary.answered), (9, 9), "{mode}: {summary:?}");
        assert_eq!(summary.ok() + summary.status_count(503), 9, "{mode}: {summary:?}");
        assert!(summary.status_count(503) >= 1, "{mode}: {summary:?}");
        assert_eq!(summary.version_count("v7"), 9);
        let seen = summary.seen().unwrap();
        assert_eq!((&*seen.path, &*seen.protocol), ("/a?b=c", protocol));
        assert_eq!(seen.client.ip(), IpAddr::from(client.ip4()));
    }
    let grpc: client::Summary =
        client.ask(&["client", &url, "--mode", "h2", "--grpc", "--requests", "1"], DEADLINE).unwrap();
    assert_eq!(grpc.last.unwrap().trailers.get("grpc-status").map(String::as_str), Some("0"));
    let target = SocketAddr::new(server.ip6().into(), 9100).to_string();
    let sent: bulk::Summary = client.ask(&["bulk-client", &target], DEADLINE).unwrap();
    assert_eq!(sent.received.bytes, 30_000_000);
    let target = format!("{}:8080", server.ip4());
    let text = r"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer: raw::Answer =
        client.ask(&["raw", &target, "--text", text, "--half-close"], DEADLINE).unwrap();
    assert!(answer.text.starts_with("HTTP/1.1 ") && answer.closed, "{answer:?}");
}

#[test]
#[ignore = "needs root"]
fn rules_of_others_do_what_they_say() {
    let lab = Lab::new().unwrap();
    let node = lab.add_node("n1", Shape::Bridged).unwrap();
    let other = lab.add_node("n2", Shape::Routed).unwrap();
    let (client, server) = (node.add_pod("t", "client").unwrap(), other.add_pod("t", "server").unwrap());
    let _echo = server.serve(&["echo"]).unwrap();
    let _world = lab.world_place().serve("world", &["echo", "--name", "world"]).unwrap();
    for rules in [Rules::Masquerade, Rules::DropInvalid, Rules::Track] {
        rules.install(&node).unwrap();
    }
    for (service, endpoint) in
        [("10.96.0.9:80", addresses(&server)[0]), ("[fd00:96::9]:80", addresses(&server)[1])]
    {
        let service: SocketAddr = service.parse().unwrap();
        let endpoints = vec![SocketAddr::new(endpoint, 9000)];
        Rules::ServiceNat { service, endpoints }.install(&node).unwrap();
        for place in [client.place(), &node.place()] {
            let reply: tcp::Summary =
                place.ask("client", &["tcp-client", &service.to_string()], DEADLINE).unwrap();
            assert_eq!(reply.echoed, 1, "{service}: {reply:?}");
        }
    }
    let outside: tcp::Summary = client.ask(&["tcp-client", "172.30.0.1:9000"], DEADLINE).unwrap();
    assert_eq!(outside.seen.get(&format!("world {}", node.ip4())), Some(&1), "{outside:?}");
}

#[test]
#[ignore = "needs root"]
fn a_smaller_mtu_on_the_way_is_told_by_icmp() {
    let lab = Lab::new().unwrap();
    let near = lab.add_node("n1", Shape::Bridged).unwrap();
    let far = lab.add_node("n2", Shape::Routed).unwrap();
    let (client, server) = (near.add_pod("t", "client").unwrap(), far.add_pod("t", "server").unwrap());
    far.netns().ip(&format!("link set {} mtu 1300", server.device())).unwrap();
    let _bulk = server.serve(&["bulk-server"]).unwrap();
    let told = |file: &str, name: &str| -> u64 {
        let text = far.netns().run("cat", &[file]).unwrap();
        let pairs: Vec<(&str, &str)> = match file {
            "/proc/net/snmp6" => {
                text.lines().filter_map(|line| line.split_once(char::is_whitespace)).collect()
            }
            _ => {
                let mut rows = text.lines().filter(|line| line.starts_with("Icmp:"));
                let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
                names.split(' ').zip(values.split(' ')).collect()
            }
        };
        let (_, value) = pairs.iter().find(|(key, _)| *key == name).unwrap();
        value.trim().parse().unwrap()
    };
    for (ip, file, name) in [
        (addresses(&server)[0], "/proc/net/snmp", "OutDestUnreachs"),
        (addresses(&server)[1], "/proc/net/snmp6", "Icmp6OutPktTooBigs"),
    ] {
        let before = told(file, name);
        let target = SocketAddr::new(ip, 9100).to_string();
        let sent: bulk::Summary =
            client.ask(&["bulk-client", &target, "--bytes", "3000000"], DEADLINE).unwrap();
        assert_eq!(sent.received.bytes, 3_000_000);
        assert!(told(file, name) > before, "{ip}: nothing was too big");
    }
}

#[test]
#[ignore = "needs root"]
fn nothing_is_left_when_a_lab_is_dropped() {
    let lab = Lab::new().unwrap();
    let node = lab.add_node("n1", Shape::Routed).unwrap();
    let pod = node.add_pod("t", "a").unwrap();
    let mut server = pod.serve(&["echo"]).unwrap();
    let (id, directory) = (lab.id().to_owned(), lab.directory().to_path_buf());
    drop(lab);
    assert!(!server.is_running());
    assert_gone(&id, &directory);
}

#[test]
#[ignore = "needs root"]
fn nothing_is_left_when_the_process_of_a_lab_is_killed() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weft-lab"))
        .arg("hold")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let id = line.strip_prefix("lab ").unwrap();
    assert!(Path::new("/run/weft-lab").join(id).exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_gone(id, &Path::new("/run/weft-lab").join(id));
}

fn assert_gone(id: &str, directory: &Path) {
    let gone = wait::eventually(DEADLINE, || {
        anyhow::ensure!(!directory.exists(), "the directory is there");
        anyhow::ensure!(!cgroup::v2_mount()?.join(format!("weft-lab-{id}")).exists(), "the cgroup is there");
        for name in std::fs::read_dir(netns::NAMES)? {
            let name = name?.file_name().to_string_lossy().into_owned();
            anyhow::ensure!(!name.contains(id), "the namespace {name} is there");
        }
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        anyhow::ensure!(!mounts.contains(&format!("weft-lab/{id}")), "a mount is there");
        Ok(())
    });
    assert!(gone.is_ok(), "{gone:?}");
}
