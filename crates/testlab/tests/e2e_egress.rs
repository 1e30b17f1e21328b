// SPDX-License-Identifier: Apache-2.0
//! Requests to Services: redirected where a route names them, balanced in the kernel elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use weft_testlab::daemon::metrics;
use weft_testlab::peer::http::Seen;
use weft_testlab::peer::{bulk, client, tcp, udp};
use weft_testlab::scene::{Scene, address, ask, url};

fn scene() -> &'static Scene {
    static SCENE: OnceLock<Result<Scene, String>> = OnceLock::new();
    match SCENE.get_or_init(|| Scene::new().map_err(|error| format!("{error:#}"))) {
        Ok(scene) => scene,
        Err(error) => panic!("no scene: {error}"),
    }
}

fn one(summary: &client::Summary) -> Seen {
    assert_eq!(summary.ok(), 1, "{:?} {:?} {:?}", summary.status, summary.failures, summary.last);
    match summary.seen() {
        Ok(seen) => seen,
        Err(error) => panic!("{error:#}"),
    }
}

#[test]
#[ignore = "needs root"]
fn a_service_with_a_route_is_redirected_and_the_application_sees_the_client() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        for (index, backend) in scene.nodes.iter().enumerate() {
            let to = format!("x-to: {}", index + 1);
            let url = url(scene.web.ip(v6), 80);
            let summary = scene.request(pods.client.place(), &url, &["--header", &to]).unwrap();
            let seen = one(&summary);
            assert_eq!(seen.version, (index + 1).to_string(), "{} v6={v6}", pods.node.name());
            assert_eq!(seen.client.ip(), address(&pods.client, v6), "{} v6={v6}", pods.node.name());
            assert_eq!(seen.local, SocketAddr::new(address(&backend.web, v6), 8080));
        }
    }
}

#[test]
#[ignore = "needs root"]
fn http2_and_grpc_pass_with_their_trailers() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        let url = url(scene.web.ip(v6), 80);
        let arguments = ["client", &url, "--mode", "h2", "--grpc", "--requests", "20", "--concurrency", "2"];
        let summary: client::Summary = ask(pods.client.place(), &arguments).unwrap();
        assert_eq!(summary.ok(), 20, "{:?} {:?}", summary.status, summary.failures);
        assert_eq!(summary.last.unwrap().trailers.get("grpc-status").map(String::as_str), Some("0"));
    }
}

#[test]
#[ignore = "needs root"]
fn a_service_that_nothing_names_stays_in_the_kernel() {
    let scene = scene();
    let before = scene.mesh.sum(metrics::PROXY_CONNECTIONS, &[]).unwrap();
    for (pods, v6) in scene.clients() {
        let service = SocketAddr::new(scene.plain.ip(v6), 9000);
        let arguments = ["tcp-client", &service.to_string(), "--connections", "20"];
        let summary: tcp::Summary = ask(pods.client.place(), &arguments).unwrap();
        assert_eq!((summary.echoed, summary.seen.len()), (20, 2), "both backends: {summary:?}");
        assert_eq!(summary.peer, Some(service), "getpeername tells the service");
        let own = address(&pods.client, v6).to_string();
        assert!(summary.seen.keys().all(|seen| seen.ends_with(&own)), "{summary:?}");
    }
    let after = scene.mesh.sum(metrics::PROXY_CONNECTIONS, &[]).unwrap();
    assert_eq!(after - before, 0.0);
}

#[test]
#[ignore = "needs root"]
fn udp_services_answer_from_their_own_address() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        let service = SocketAddr::new(scene.plain.ip(v6), 9000);
        for more in [&[][..], &["--unconnected"]] {
            let to = service.to_string();
            let arguments = [&["udp-client", &to, "--datagrams", "4"], more].concat();
            let summary: udp::Summary = ask(pods.client.place(), &arguments).unwrap();
            assert_eq!(summary.echoed, 4, "{} {more:?}: {summary:?}", pods.node.name());
            assert_eq!(summary.from, Some(service), "{more:?}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn thirty_megabytes_pass_the_proxy_in_both_directions_and_the_kernel() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        let place = pods.client.place();
        let up = url(scene.web.ip(v6), 80);
        let long = ["--timeout-ms", "20000"];
        let more = [&["--method", "POST", "--body-bytes", "30000000"][..], &long].concat();
        let seen = one(&scene.request(place, &up, &more).unwrap());
        assert_eq!(seen.body_bytes, 30_000_000);
        let down = format!("{up}?bytes=30000000");
        let summary = scene.request(place, &down, &long).unwrap();
        assert_eq!(summary.last.map(|last| last.body_bytes), Some(30_000_000));
        let service = SocketAddr::new(scene.plain.ip(v6), 9100).to_string();
        let summary: bulk::Summary = ask(place, &["bulk-client", &service]).unwrap();
        assert_eq!(summary.received.bytes, 30_000_000);
    }
}

#[test]
#[ignore = "needs root"]
fn a_backend_that_calls_its_own_service_is_answered_by_itself() {
    let scene = scene();
    for (index, pods) in scene.nodes.iter().enumerate() {
        for v6 in [false, true] {
            let to = format!("x-to: {}", index + 1);
            let summary =
                scene.request(pods.web.place(), &url(scene.web.ip(v6), 80), &["--header", &to]).unwrap();
            assert_eq!(one(&summary).version, (index + 1).to_string());
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_port_that_waits_out_its_time_in_the_proxy_is_used_again() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        let url = url(scene.web.ip(v6), 80);
        // The proxy closes first, so that TIME_WAIT is on its side; the client takes the same port again.
        let arguments = [
            "client",
            &url,
            "--mode",
            "close",
            "--requests",
            "30",
            "--from-port",
            "40123",
            "--header",
            "connection: close",
            "--pause-ms",
            "20",
        ];
        let summary: client::Summary = ask(pods.client.place(), &arguments).unwrap();
        assert_eq!(summary.ok(), 30, "{} v6={v6}: {:?}", pods.node.name(), summary.failures);
    }
}

#[test]
#[ignore = "needs root"]
fn pods_may_use_ports_of_the_proxys_block() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        // The proxy has connections in this pod's name, by ports of the same block.
        one(&scene.request(pods.client.place(), &url(scene.web.ip(v6), 80), &[]).unwrap());
        let service = SocketAddr::new(scene.plain.ip(v6), 9000).to_string();
        for port in ["61234", "40999"] {
            let client = ["tcp-client", &service, "--from-port", port];
            let summary: tcp::Summary = ask(pods.client.place(), &client).unwrap();
            assert_eq!(summary.connected, 1, "{port}: {summary:?}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn the_host_reaches_services_with_and_without_a_route() {
    let scene = scene();
    for (pods, v6) in scene.clients() {
        let summary = scene.request(&pods.node.place(), &url(scene.web.ip(v6), 80), &[]).unwrap();
        one(&summary);
        let service = SocketAddr::new(scene.plain.ip(v6), 9000).to_string();
        let summary: tcp::Summary = ask(&pods.node.place(), &["tcp-client", &service]).unwrap();
        assert_eq!(summary.echoed, 1, "{} {service}: {summary:?}", pods.node.name());
    }
}

#[test]
#[ignore = "needs root"]
fn a_smaller_mtu_behind_the_proxy_is_found() {
    let scene = scene();
    let [routed, bridged] = &scene.nodes;
    // The far node refuses what is too long for the pod's device, and says so to the client's address,
    // which the proxy's socket has.
    routed.node.netns().ip(&format!("link set {} mtu 1300", routed.web.device())).unwrap();
    for v6 in [false, true] {
        let more = ["--header", "x-to: 1", "--method", "POST", "--body-bytes", "3000000"];
        let summary = scene.request(bridged.client.place(), &url(scene.web.ip(v6), 80), &more).unwrap();
        let seen = one(&summary);
        assert_eq!(seen.body_bytes, 3_000_000);
        assert_eq!(seen.client.ip(), address(&bridged.client, v6));
    }
    routed.node.netns().ip(&format!("link set {} mtu 1500", routed.web.device())).unwrap();
}

#[test]
#[ignore = "needs root"]
fn many_connections_at_once_all_succeed() {
    let scene = scene();
    let url = url(IpAddr::V4(scene.web.v4), 80);
    let arguments = ["client", &url, "--mode", "close", "--requests", "1000", "--concurrency", "50"];
    let summary: client::Summary = ask(scene.nodes[0].client.place(), &arguments).unwrap();
    assert_eq!(summary.ok(), 1000, "{:?} {:?}", summary.status, summary.failures);
}
