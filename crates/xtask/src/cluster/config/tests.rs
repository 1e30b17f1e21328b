// SPDX-License-Identifier: Apache-2.0

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::cluster::layout::MACHINES;

fn every_settings() -> impl Iterator<Item = Settings> {
    let all = [(Cni::Ptp, Families::Ipv4), (Cni::Ptp, Families::Dual), (Cni::Bridge, Families::Dual)];
    let both = |(cni, families)| [true, false].map(|kube_proxy| Settings { cni, families, kube_proxy });
    all.into_iter().flat_map(both)
}

#[test]
fn every_machine_has_a_script_that_a_shell_reads() {
    let layout = Layout::below(Path::new("/cache"));
    for settings in every_settings() {
        for machine in MACHINES {
            let text = script(&layout, machine, settings, "cpu:cpu unified:v2").unwrap();
            let mut shell =
                Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().expect("a shell that checks");
            shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            assert!(shell.wait().unwrap().success(), "{text}");
            let has_proxy = text.contains("start kube-proxy ");
            assert_eq!(has_proxy, machine.is_node && settings.kube_proxy);
            assert_eq!(text.contains("fd10:"), settings.is_dual(), "{settings}: {text}");
        }
    }
    let odd = Layout::below(Path::new("/home/a b"));
    assert!(script(&odd, control(), every_settings().next().unwrap(), "").is_err());
}

#[test]
fn pods_of_two_nodes_have_different_prefixes_and_a_route_to_each_other() {
    let layout = Layout::below(Path::new("/cache"));
    for settings in every_settings() {
        let [a, b] = nodes().collect::<Vec<_>>().try_into().unwrap();
        for (node, other) in [(a, b), (b, a)] {
            let own: Value = serde_json::from_str(&conflist(node, settings)).unwrap();
            let ipam = &own["plugins"][0]["ipam"];
            let ranges: Vec<&str> = ipam["ranges"]
                .as_array()
                .unwrap()
                .iter()
                .map(|range| range[0]["subnet"].as_str().unwrap())
                .collect();
            assert_eq!(ranges, settings.pods(node));
            assert_eq!(ipam["routes"].as_array().unwrap().len(), ranges.len());
            let text = script(&layout, other, settings, "").unwrap();
            for range in ranges {
                assert!(text.contains(&format!("route add {range} via ")), "{text}");
                assert!(!script(&layout, node, settings, "").unwrap().contains(&format!("add {range} ")));
            }
        }
        assert_ne!(settings.pods(a), settings.pods(b));
    }
}

#[test]
fn names_find_the_api_server_without_a_service() {
    let text = dns();
    assert!(text.contains(&format!("value: {}", control().ipv4())), "{text}");
    assert!(!text.contains("API_SERVER") && !text.contains("DNS_ADDRESS"));
}
