// SPDX-License-Identifier: Apache-2.0
//! The binary against a real admin endpoint with a real ring.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::StatusCode;
use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;
use weft_flow_export::{
    Direction, Event, Flow, FlowEndpoint, FlowQuery, FlowRing, Http, IpProtocol, L4, Position, Verdict, serve,
};
use weft_runtime::{
    admin::{AdminAddress, AdminResponse, AdminRoutes, AdminServer, Status},
    drain,
    readiness::{Readiness, ReadinessHandle},
};
use weft_time::Timestamp;

const SOON: Duration = Duration::from_secs(20);

struct Node {
    ring: FlowRing,
    socket: PathBuf,
    condition: ReadinessHandle,
    trigger: Option<drain::DrainTrigger>,
    runtime: Runtime,
    folder: tempfile::TempDir,
}

impl Node {
    fn start(name: &'static str) -> Node {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let readiness = Readiness::new();
        let condition = readiness.add("state", "no state yet");
        let mut node = Node { ring: FlowRing::new(100), socket, condition, trigger: None, runtime, folder };
        node.serve(name, readiness);
        node
    }

    fn serve(&mut self, name: &'static str, readiness: Readiness) {
        let ring = self.ring.clone();
        let status = move || Status {
            daemon: "weft-node",
            version: "0.1.0",
            node: name.to_owned(),
            revision: "3f2a.42".into(),
            counters: [("flows_seen".to_owned(), 2)].into(),
            attention: vec!["a.yaml:3: wrong".to_owned()],
        };
        let routes = AdminRoutes::new(readiness.clone(), Arc::new(Registry::default()))
            .status(readiness, status)
            .get("/flows", move |request| {
                let ring = ring.clone();
                async move {
                    match FlowQuery::parse(&request.query) {
                        Ok(query) => {
                            let (pieces, task) = serve::serve(&ring, query);
                            tokio::spawn(task);
                            AdminResponse::stream("application/x-ndjson", pieces)
                        }
                        Err(error) => AdminResponse::text(StatusCode::BAD_REQUEST, error.to_string()),
                    }
                }
            });
        let (trigger, watch) = drain::channel();
        let address = AdminAddress::Unix(self.socket.clone());
        let server = self.runtime.block_on(AdminServer::bind(&address)).unwrap();
        self.runtime.spawn(server.serve(routes, watch));
        self.trigger = Some(trigger);
    }

    fn stop(&mut self) {
        let trigger = self.trigger.take().unwrap();
        assert_eq!(self.runtime.block_on(trigger.drain(SOON)), drain::Drained::Complete);
    }

    fn server(&self) -> String {
        format!("unix:{}", self.socket.display())
    }
}

fn flow(node: &str, second: u64, path: &str) -> Flow {
    let end = |namespace: &str, pod: &str, port| FlowEndpoint {
        namespace: namespace.into(),
        pod: pod.into(),
        identity: 300,
        port,
        ..FlowEndpoint::default()
    };
    Flow {
        time: Timestamp((1_795_233_900 + second) * 1_000_000_000),
        node: node.into(),
        revision: Position { epoch: 0x3f2a, revision: 42 },
        source: end("shop", "client", 41234),
        destination: end("shop", "checkout-v1", 8080),
        direction: Direction::Egress,
        verdict: Verdict::Forwarded,
        reason: None,
        policies: Vec::new(),
        l4: L4 { protocol: IpProtocol::TCP, ..L4::default() },
        http: Some(Http::request("GET", path, "checkout", "HTTP/1.1")),
        is_reply: Some(false),
        event: Event::HttpRequest,
    }
}

fn line(second: u64, path: &str) -> String {
    format!(
        "Nov 21 04:05:{second:02}.000: shop/client:41234 (ID:300) -> shop/checkout-v1:8080 (ID:300) http-request \
         FORWARDED (HTTP/1.1 GET http://checkout{path})\n"
    )
}

fn weft(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.args(arguments).env_remove("WEFT_ADMIN").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(arguments: &[&str]) -> (Output, String, String) {
    let output = weft(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output, stdout, stderr)
}

/// Ends the child also when a test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(begin.elapsed() < SOON, "the command does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_last_flows_that_match_are_printed() {
    let node = Node::start("n1");
    node.ring.push_all((0..5).map(|second| flow("n1", second, if second == 4 { "/x" } else { "/pay" })));
    let server = node.server();
    let (result, stdout, stderr) =
        output(&["observe", "--server", &server, "--last", "2", "--http-path", "^/pay$"]);
    assert!(result.status.success(), "{stderr}");
    assert_eq!(stdout, line(2, "/pay") + &line(3, "/pay"));
    let (_, stdout, _) = output(&["observe", "--server", &server, "--pod", "bank/"]);
    assert_eq!(stdout, "");
    let (_, stdout, _) =
        output(&["observe", "--server", &server, "--since", "2026-11-21T04:05:04Z", "-o", "json"]);
    let json: Flow = serde_json::from_str(&stdout).unwrap();
    assert_eq!(json, flow("n1", 4, "/x"));
}

#[test]
fn several_nodes_are_merged_by_time() {
    let (one, two) = (Node::start("n1"), Node::start("n2"));
    one.ring.push_all([flow("n1", 1, "/a"), flow("n1", 3, "/c")]);
    two.ring.push_all([flow("n2", 0, "/0"), flow("n2", 2, "/b"), flow("n2", 4, "/d")]);
    let servers = format!("{},{}", one.server(), two.server());
    let output = weft(&["observe", "--last", "3"]).env("WEFT_ADMIN", servers).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let seen: Vec<&str> = stdout.lines().map(|line| &line[20..24]).collect();
    assert_eq!(seen, ["[n2]", "[n1]", "[n2]"], "{stdout}");
    assert!(stdout.find("/b)") < stdout.find("/c)") && stdout.find("/c)") < stdout.find("/d)"), "{stdout}");
}

#[test]
fn following_goes_on_and_survives_a_restart_of_the_daemon() {
    let mut node = Node::start("n1");
    node.ring.push_all([flow("n1", 0, "/old")]);
    let mut child =
        Running(weft(&["observe", "--server", &node.server(), "-f", "--last", "1"]).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap());
    let mut next = || {
        let mut text = String::new();
        lines.read_line(&mut text).unwrap();
        text
    };
    assert_eq!(next(), line(0, "/old"));
    node.ring.push_all([flow("n1", 1, "/new")]);
    assert_eq!(next(), line(1, "/new"));
    node.stop();
    node.ring.push_all([flow("n1", 2, "/while-away")]);
    node.serve("n1", Readiness::new());
    assert_eq!(next(), line(2, "/while-away"));
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let node = Node::start("n1");
    let mut child = Running(weft(&["observe", "--server", &node.server(), "-f"]).spawn().unwrap());
    drop(child.0.stdout.take());
    let begin = Instant::now();
    // The command notices at its first line after the pipe was closed, whenever it has connected.
    let status = loop {
        if let Some(status) = child.0.try_wait().unwrap() {
            break status;
        }
        assert!(begin.elapsed() < SOON, "the command does not end");
        node.ring.push_all([flow("n1", 1, "/")]);
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut stderr = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(status.success() && stderr.is_empty(), "{status} {stderr}");
}

#[test]
fn a_daemon_that_is_not_there_is_named_and_the_others_are_shown() {
    let node = Node::start("n1");
    node.ring.push_all([flow("n1", 0, "/a")]);
    let missing = format!("unix:{}", node.folder.path().join("none.sock").display());
    let (result, stdout, stderr) = output(&["observe", "--server", &missing, "--server", &node.server()]);
    assert_eq!(result.status.code(), Some(1));
    assert_eq!(stdout.lines().count(), 1);
    assert!(stderr.contains(&missing) && stderr.contains("is weft-node running?"), "{stderr}");
    let (result, _, stderr) = output(&["observe", "-f", "--server", &missing]);
    assert_eq!(result.status.code(), Some(1));
    assert!(stderr.contains("no daemon answered"), "{stderr}");
}

#[test]
fn status_tells_what_is_not_ready() {
    let node = Node::start("n1");
    let server = node.server();
    let (result, stdout, _) = output(&["status", "--server", &server]);
    assert_eq!(result.status.code(), Some(1));
    assert!(stdout.starts_with("weft-node 0.1.0 on n1: NOT READY, revision 3f2a.42\n"), "{stdout}");
    assert!(stdout.contains("no state yet") && stdout.contains("flows_seen  2"), "{stdout}");
    assert!(stdout.ends_with("  ! a.yaml:3: wrong\n"), "{stdout}");
    node.condition.ready();
    let (result, stdout, _) = output(&["status", "--server", &server, "-o", "json"]);
    assert!(result.status.success());
    let status: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((status["ready"].as_bool(), status["revision"].as_str()), (Some(true), Some("3f2a.42")));
}

#[test]
fn every_shell_gets_a_completion_script() {
    for shell in ["bash", "zsh", "fish"] {
        let (result, stdout, _) = output(&["completion", shell]);
        assert!(result.status.success() && stdout.contains("observe"), "{shell}");
    }
    let mut child = Running(weft(&["completion", "bash"]).spawn().unwrap());
    drop(child.0.stdout.take());
    assert!(wait(&mut child.0).success());
}

#[test]
fn following_ends_when_its_reader_goes_away() {
    let node = Node::start("n1");
    let mut weft = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["observe", "-f", "--last", "1", "--server", &node.server()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(weft.stdout.take());
    let start = Instant::now();
    while weft.try_wait().unwrap().is_none() {
        if start.elapsed() > SOON {
            weft.kill().unwrap();
            panic!("it waits for a flow that never comes");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(weft.wait().unwrap().success());
}
