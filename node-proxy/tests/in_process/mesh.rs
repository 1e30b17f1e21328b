// SPDX-License-Identifier: Apache-2.0
//! Requests of redirected connections: who may talk to whom, decided for both ends. The connections are
//! said to have been redirected; what sends them here in earnest is tested in the lab.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use weft_ebpf_common::reason::Reason;
use weft_ir::{
    AppProtocol, Endpoint, EndpointPort, Endpoints, HeaderChanges, HttpRule, Identity, IdentityNumber,
    L7Rules, MeshDefaults, Node, Operator, PathChange, Peer, Policy, PolicyDirection, PolicyKind, PolicyPort,
    PolicyRule, PortRule, Protocol, RateLimit, RateLimitTarget, Requirement, Resource, Rewrite, RouteFilter,
    RouteParent, Selector, Service, ServicePort, Snapshot, Tier, Workload,
};
use weft_node_proxy::{Compiler, Ends, Entrance, Limits, MeshState, Records, Turns};

use crate::{
    by_hand::{compile, worker},
    support::{backend, name, route},
};

pub(crate) const CLIENT: [u8; 4] = [10, 0, 0, 9];
pub(crate) const VIP: ([u8; 4], u16) = ([10, 96, 0, 1], 80);

/// A worker at a state, and what it recorded.
struct Mesh {
    turns: RefCell<Turns>,
    records: RefCell<Records>,
}

/// One connection that is said to have been redirected.
struct Session<'a> {
    mesh: &'a Mesh,
    stream: TcpStream,
}

impl Session<'_> {
    /// Does something with the client's end while the worker works.
    async fn with<T>(&mut self, does: impl AsyncFnOnce(&mut TcpStream) -> T) -> T {
        let mesh = self.mesh;
        let turns = async {
            loop {
                mesh.turns.borrow_mut().turn().expect("a turn");
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        };
        tokio::select! {
            done = does(&mut self.stream) => done,
            () = turns => unreachable!("it turns for ever"),
        }
    }

    /// Sends a request; the status, and the content as text.
    async fn ask(&mut self, method: Method, target: &str) -> (u16, String) {
        let request = format!("{method} {target} HTTP/1.1\r\nhost: web.shop\r\n\r\n");
        self.with(async |stream| {
            stream.write_all(request.as_bytes()).await.expect("written");
            let head = head(stream).await;
            let line = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
            let length = line("content-length: ").expect("a length").parse().expect("a number");
            let mut content = vec![0; length];
            stream.read_exact(&mut content).await.expect("the content");
            let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
            (status, String::from_utf8(content).expect("text"))
        })
        .await
    }
}

/// The head of a message.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    String::from_utf8(head).expect("text")
}

impl Mesh {
    fn new(resources: Vec<Resource>) -> Mesh {
        let (worker, records) = worker(compile(1, resources), Limits::default());
        let turns = Turns::new(worker).expect("a set of sockets");
        Mesh { turns: RefCell::new(turns), records: RefCell::new(records) }
    }

    /// A connection of a client to a destination, as if it had been redirected.
    async fn connect(&self, client: [u8; 4], destination: SocketAddr) -> Session<'_> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let client = SocketAddr::from((client, 40_000));
        let ends = Ends { client, destination, entrance: Entrance::Redirected };
        let accepted = accepted.expect("accepted").0.into_std().expect("a socket");
        self.turns.borrow_mut().admit(accepted, ends).expect("admitted");
        Session { mesh: self, stream: stream.expect("connected") }
    }

    fn publish(&self, state: Arc<MeshState>) {
        self.turns.borrow_mut().publish(state);
    }

    /// Sends a request as if it had been redirected; the status, and the body as text.
    async fn send(
        &self,
        client: [u8; 4],
        destination: SocketAddr,
        method: Method,
        target: &str,
    ) -> (u16, String) {
        self.connect(client, destination).await.ask(method, target).await
    }

    async fn get(&self, target: &str) -> (u16, String) {
        self.send(CLIENT, VIP.into(), Method::GET, target).await
    }

    /// Reason and policy of the last request.
    fn last(&self) -> (Option<Reason>, Option<String>) {
        let record = self.records.borrow_mut().by_ref().last().expect("a record");
        (record.ended.reason, record.policy.as_ref().map(ToString::to_string))
    }
}

/// An origin on an address of the loopback network, which stands for a pod.
async fn pod_origin(last: u8) -> SocketAddr {
    let listener = TcpListener::bind((IpAddr::from([127, 0, 0, last]), 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = move |request: Request<hyper::body::Incoming>| async move {
                let text = format!("{last} {} {}", request.method(), request.uri());
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(text))))
            };
            let io = hyper_util::rt::TokioIo::new(stream);
            let service = hyper::service::service_fn(answer);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    address
}

fn pod(pod: &str, node: &str, address: [u8; 4], identity: u32) -> [Resource; 2] {
    let label = |key: &str, value: &str| (Arc::from(format!("k8s:{key}")), Arc::from(value));
    let labels = BTreeMap::from([label("app", pod), label("io.kubernetes.pod.namespace", "shop")]);
    [
        Resource::Workload(Workload {
            name: name(pod),
            node: node.into(),
            addresses: vec![address.into()],
            identity: IdentityNumber(identity),
            service_account: "default".into(),
            host_network: false,
            owner: pod.into(),
            ports: vec![],
        }),
        Resource::Identity(Identity { number: IdentityNumber(identity), labels }),
    ]
}

fn app(app: &str) -> Selector {
    let requirement = Requirement { key: "k8s:app".into(), operator: Operator::In(vec![app.into()]) };
    Selector { requirements: vec![requirement] }
}

/// A policy for the pods of an app: what it may do with another, in one direction.
pub(crate) fn policy(
    policy: &str,
    subject: &str,
    ingress: bool,
    peer: &str,
    http: Option<Vec<HttpRule>>,
) -> Resource {
    let port = PortRule { port: PolicyPort::Any, protocol: Some(Protocol::Tcp), l7: http.map(L7Rules::Http) };
    let rule = PolicyRule { peers: vec![Peer::Selector(app(peer))], ports: vec![port], authenticate: false };
    let direction = PolicyDirection { default_deny: true, allow: vec![rule], deny: vec![] };
    let (ingress, egress) = match ingress {
        true => (direction, PolicyDirection::default()),
        false => (PolicyDirection::default(), direction),
    };
    Resource::Policy(Policy {
        kind: PolicyKind::CiliumNetworkPolicy,
        name: name(policy),
        index: 0,
        tier: Tier::Normal,
        priority: 0,
        subject: app(subject),
        ingress,
        egress,
    })
}

pub(crate) fn rule(method: &str, path: &str) -> HttpRule {
    HttpRule { method: Some(method.into()), path: Some(path.into()), ..HttpRule::default() }
}

/// The Service `web` at the VIP, over pods `v1` and `v2`, with its client pod.
pub(crate) fn shop(v1: SocketAddr, v2: SocketAddr, node_of_v2: &str) -> Vec<Resource> {
    let octets = |address: SocketAddr| match address.ip() {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => panic!("IPv4 here"),
    };
    let mut resources = vec![Resource::Node(Node {
        name: "node-a".into(),
        addresses: vec![[192, 168, 0, 1].into()],
        ingress_addresses: vec![],
        pod_cidrs: vec![],
    })];
    resources.push(Resource::MeshDefaults(MeshDefaults {
        pod_cidrs: vec!["10.0.0.0/16".parse().expect("a prefix")],
    }));
    resources.extend(pod("client", "node-a", CLIENT, 300));
    resources.extend(pod("v1", "node-a", octets(v1), 301));
    resources.extend(pod("v2", node_of_v2, octets(v2), 302));
    for (service, vip, endpoints) in
        [("web", Some(VIP.0), vec![v1, v2]), ("v1", None, vec![v1]), ("v2", None, vec![v2])]
    {
        resources.push(Resource::Service(Service {
            name: name(service),
            addresses: vip.map(IpAddr::from).into_iter().collect(),
            ports: vec![ServicePort {
                name: "http".into(),
                port: 80,
                protocol: Protocol::Tcp,
                app_protocol: AppProtocol::Http,
            }],
        }));
        for endpoint in endpoints {
            resources.push(Resource::Endpoints(Endpoints {
                name: name(&format!("{service}-{}", endpoint.port())),
                service: service.into(),
                ports: vec![EndpointPort {
                    name: "http".into(),
                    port: endpoint.port(),
                    protocol: Protocol::Tcp,
                }],
                endpoints: vec![Endpoint {
                    address: endpoint.ip(),
                    ready: true,
                    serving: true,
                    terminating: false,
                }],
            }));
        }
    }
    resources
}

pub(crate) fn to_service(mut attached: weft_ir::Route) -> Resource {
    attached.parents = vec![RouteParent::Service { service: name("web"), port: Some(80) }];
    Resource::Route(attached)
}

fn local<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test);
}

#[test]
fn a_client_may_send_only_what_its_egress_rules_allow() {
    local(async {
        let (v1, v2) = (pod_origin(11).await, pod_origin(12).await);
        let mut resources = shop(v1, v2, "node-b");
        resources.push(policy("out", "client", false, "v1", Some(vec![rule("GET", "/items/[0-9]+")])));
        resources.push(to_service(route("all", "/", vec![backend("v1", 1)])));
        let mesh = Mesh::new(resources);
        assert_eq!(mesh.get("/items/7").await, (200, "11 GET /items/7".into()));
        assert_eq!(mesh.last(), (None, Some("shop/out".into())));
        assert_eq!(mesh.get("/items/7?x=1").await, (403, "Access denied\r\n".into()), "the query counts");
        assert_eq!(mesh.last(), (Some(Reason::HttpPolicyDenied), Some("shop/out".into())));
        let post = mesh.send(CLIENT, VIP.into(), Method::POST, "/items/7").await;
        assert_eq!(post, (403, "Access denied\r\n".into()));
    });
}

#[test]
fn egress_is_decided_for_the_endpoint_that_balancing_chose() {
    local(async {
        let (v1, v2) = (pod_origin(13).await, pod_origin(14).await);
        let mut resources = shop(v1, v2, "node-b");
        resources.push(policy("out", "client", false, "v1", None));
        resources.push(to_service(route("split", "/", vec![backend("v1", 1), backend("v2", 1)])));
        let mesh = Mesh::new(resources);
        let mut counts = (0, 0);
        for _ in 0..40 {
            match mesh.get("/").await {
                (200, text) if text.starts_with("13 ") => counts.0 += 1,
                (403, _) => {
                    counts.1 += 1;
                    assert_eq!(mesh.last(), (Some(Reason::PolicyDenied), Some("shop/out".into())));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(counts, (20, 20));
    });
}

#[test]
fn egress_sees_the_request_as_received_and_ingress_as_rewritten() {
    local(async {
        let (v1, v2) = (pod_origin(15).await, pod_origin(16).await);
        let rewritten = |prefix: &str| {
            let mut rewritten = route("rewritten", "/", vec![backend("v1", 1)]);
            rewritten.matches[0].path = weft_ir::PathMatch::Prefix("/out".into());
            rewritten.action.filters = vec![RouteFilter::Rewrite(Rewrite {
                hostname: None,
                path: Some(PathChange::Prefix(prefix.into())),
            })];
            to_service(rewritten)
        };
        let with = |prefix: &str, egress: &str, ingress: &str| {
            let mut resources = shop(v1, v2, "node-b");
            resources.push(policy("out", "client", false, "v1", Some(vec![rule("GET", egress)])));
            resources.push(policy("in", "v1", true, "client", Some(vec![rule("GET", ingress)])));
            resources.push(rewritten(prefix));
            Mesh::new(resources)
        };
        let mesh = with("/in", "/out/x", "/in/x");
        assert_eq!(mesh.get("/out/x").await, (200, "15 GET /in/x".into()));
        let mesh = with("/in", "/in/x", "/in/x");
        assert_eq!(mesh.get("/out/x").await.0, 403);
        assert_eq!(mesh.last().1.as_deref(), Some("shop/out"));
        let mesh = with("/in", "/out/x", "/out/x");
        assert_eq!(mesh.get("/out/x").await.0, 403);
        assert_eq!(mesh.last().1.as_deref(), Some("shop/in"));
    });
}

#[test]
fn the_ingress_of_an_endpoint_on_another_node_is_decided_there() {
    local(async {
        let (v1, v2) = (pod_origin(17).await, pod_origin(18).await);
        let mut resources = shop(v1, v2, "node-b");
        for closed in ["v1", "v2"] {
            resources.push(policy(&format!("in-{closed}"), closed, true, "nobody", None));
        }
        resources.push(to_service(route("v1", "/v1", vec![backend("v1", 1)])));
        resources.push(to_service(route("v2", "/v2", vec![backend("v2", 1)])));
        let mesh = Mesh::new(resources);
        assert_eq!(mesh.get("/v1").await.0, 403, "v1 is on this node");
        assert_eq!(mesh.get("/v2").await.0, 200, "v2 is not");
    });
}

#[test]
fn header_changes_do_not_fool_the_policy_of_the_other_end() {
    local(async {
        let (v1, v2) = (pod_origin(19).await, pod_origin(20).await);
        let mut resources = shop(v1, v2, "node-b");
        let mut wanted = rule("GET", "/.*");
        wanted.headers = vec![("x-key".into(), Some("right".into()))];
        resources.push(policy("in", "v1", true, "client", Some(vec![wanted])));
        let set = |value: &str| HeaderChanges {
            set: vec![("x-key".into(), value.into())],
            ..HeaderChanges::default()
        };
        for (path, value) in [("/right", "right"), ("/wrong", "wrong")] {
            let mut changed = route(&path[1..], path, vec![backend("v1", 1)]);
            changed.action.filters = vec![RouteFilter::RequestHeaders(set(value))];
            resources.push(to_service(changed));
        }
        let mesh = Mesh::new(resources);
        assert_eq!(mesh.get("/right").await.0, 200);
        assert_eq!(mesh.get("/wrong").await.0, 403);
    });
}

#[test]
fn to_have_been_redirected_is_no_permission() {
    local(async {
        let (v1, v2) = (pod_origin(21).await, pod_origin(22).await);
        let resources = shop(v1, v2, "node-b");
        let mesh = Mesh::new(resources);
        let web: SocketAddr = VIP.into();
        assert_eq!(mesh.get("/").await.0, 200, "no policy, no denial");
        // An address of the pod network that nobody has: its own egress policy is not known.
        let unknown = mesh.send([10, 0, 0, 77], web, Method::GET, "/").await;
        assert_eq!((unknown.0, mesh.last().0), (403, Some(Reason::UnknownSource)));
        // From outside to outside: nothing of it belongs to this node.
        let outside = mesh.send([198, 51, 100, 1], ([203, 0, 113, 1], 80).into(), Method::GET, "/").await;
        assert_eq!((outside.0, mesh.last().0), (404, Some(Reason::UnknownDestination)));
        // The proxy's own socket, connected to directly.
        let own = mesh.send(CLIENT, ([127, 0, 0, 1], 15_001).into(), Method::GET, "/").await;
        assert_eq!((own.0, mesh.last().0), (404, Some(Reason::UnknownDestination)));
        // Without any state nothing passes.
        let empty = Mesh::new(vec![]);
        empty.publish(Arc::new(MeshState::empty("node-a")));
        assert_eq!(empty.get("/").await.0, 500);
        assert_eq!(empty.last().0, Some(Reason::NoState));
    });
}

#[test]
fn a_new_state_counts_from_the_next_request_of_an_open_connection() {
    local(async {
        let (v1, v2) = (pod_origin(23).await, pod_origin(24).await);
        let mesh = Mesh::new(shop(v1, v2, "node-b"));
        let mut session = mesh.connect(CLIENT, VIP.into()).await;
        assert_eq!(session.ask(Method::GET, "/").await.0, 200);
        let mut resources = shop(v1, v2, "node-b");
        resources.push(policy("out", "client", false, "nobody", None));
        let mut snapshot = Snapshot { revision: 2, ..Snapshot::default() };
        resources.into_iter().for_each(|resource| snapshot.insert(resource));
        mesh.publish(Compiler::new("node-a".into(), vec![]).compile(&snapshot, &[]).0);
        assert_eq!(session.ask(Method::GET, "/").await.0, 403);
    });
}

/// An origin that switches to WebSocket and then sends back what it gets.
async fn switching_origin(last: u8) -> SocketAddr {
    told_origin(last, None).await
}

/// The same; if it is to wait, it says that it was asked, and answers when it is told.
async fn told_origin(last: u8, waits: Option<Arc<(Notify, Notify)>>) -> SocketAddr {
    let listener = TcpListener::bind((IpAddr::from([127, 0, 0, last]), 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let waits = waits.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a head"));
                }
                if let Some(waits) = &waits {
                    waits.0.notify_one();
                    waits.1.notified().await;
                }
                let answer =
                    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                stream.write_all(answer).await.expect("written");
                let (mut read, mut write) = stream.split();
                let _gone = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

#[test]
fn a_switched_stream_ends_when_its_request_is_no_longer_allowed() {
    local(async {
        let (v1, v2) = (switching_origin(25).await, switching_origin(26).await);
        let mesh = Mesh::new(shop(v1, v2, "node-b"));
        let mut session = mesh.connect(CLIENT, VIP.into()).await;
        let request =
            "GET /chat HTTP/1.1\r\nhost: web.shop\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello";
        let echo = session
            .with(async |stream| {
                stream.write_all(request.as_bytes()).await.expect("written");
                assert!(head(stream).await.starts_with("HTTP/1.1 101 "));
                let mut echo = [0; 5];
                stream.read_exact(&mut echo).await.expect("the echo");
                echo
            })
            .await;
        assert_eq!(&echo, b"hello");
        let publish = |revision, path| {
            let allowed =
                ["v1", "v2"].map(|to| policy(to, "client", false, to, Some(vec![rule("GET", path)])));
            let resources = shop(v1, v2, "node-b").into_iter().chain(allowed).collect();
            mesh.publish(compile(revision, resources));
        };
        // A change that still allows it leaves it alone.
        publish(2, "/chat");
        let still = session.with(async |stream| {
            stream.write_all(b"still").await.expect("written");
            let mut echo = [0; 5];
            stream.read_exact(&mut echo).await.expect("the echo")
        });
        assert_eq!(still.await, 5);
        publish(3, "/other");
        assert!(session.with(async |stream| stream.read_u8().await.is_err()).await, "it has ended");
        let record = mesh.records.borrow_mut().by_ref().last().expect("a record");
        assert_eq!(record.ended.reason, Some(Reason::PolicyTightened));
    });
}

#[test]
fn a_stream_that_would_switch_when_it_is_no_longer_allowed_does_not() {
    local(async {
        let waits = Arc::new((Notify::new(), Notify::new()));
        let v1 = told_origin(27, Some(Arc::clone(&waits))).await;
        let v2 = told_origin(28, Some(Arc::clone(&waits))).await;
        let allowing = |path| {
            let allowed =
                ["v1", "v2"].map(|to| policy(to, "client", false, to, Some(vec![rule("GET", path)])));
            shop(v1, v2, "node-b").into_iter().chain(allowed).collect()
        };
        let mesh = Mesh::new(allowing("/chat"));
        let mut session = mesh.connect(CLIENT, VIP.into()).await;
        let request =
            "GET /chat HTTP/1.1\r\nhost: web.shop\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        session
            .with(async |stream| {
                stream.write_all(request.as_bytes()).await.expect("written");
                waits.0.notified().await;
            })
            .await;
        mesh.publish(compile(2, allowing("/other")));
        waits.1.notify_one();
        let answer = session.with(head).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    });
}

/// What is wrong for each step of a request, in the order of request.rs, and the reason that it gives.
const STEPS: [(&str, Reason); 8] = [
    ("no rule matches", Reason::NoRoute),
    ("the rule has a filter that is not understood", Reason::InvalidBackend),
    ("no backend has a weight", Reason::NoWeight),
    ("the backend has no endpoints", Reason::NoServiceBackend),
    ("the client may not send it", Reason::HttpPolicyDenied),
    ("the endpoint may not receive it as it is sent", Reason::HttpPolicyDenied),
    ("the limit is used up", Reason::RateLimited),
    ("nobody listens", Reason::UpstreamConnectFailed),
];

/// A mesh in which the first of the steps are right, and all others wrong.
fn mesh_with(right: usize, listening: SocketAddr, silent: SocketAddr) -> Mesh {
    let wrong = |step: usize| step >= right;
    let endpoint = if wrong(7) { silent } else { listening };
    let mut resources = shop(endpoint, ([127, 0, 0, 26], 1).into(), "node-b");
    if wrong(3) {
        resources.retain(|resource| !matches!(resource, Resource::Endpoints(_)));
    }
    let mut rule_of = route("r", "/", vec![backend("v1", u32::from(!wrong(2)))]);
    rule_of.matches[0].path = weft_ir::PathMatch::Prefix(if wrong(0) { "/other" } else { "/out" }.into());
    let rewrite = Rewrite { hostname: None, path: Some(PathChange::Prefix("/in".into())) };
    rule_of.action.filters = vec![RouteFilter::Rewrite(rewrite)];
    rule_of.action.filters.extend(wrong(1).then_some(RouteFilter::Invalid));
    resources.push(to_service(rule_of));
    let egress = if wrong(4) { "/in" } else { "/out" };
    resources.push(policy("out", "client", false, "v1", Some(vec![rule("GET", egress)])));
    let ingress = if wrong(5) { "/out" } else { "/in" };
    resources.push(policy("in", "v1", true, "client", Some(vec![rule("GET", ingress)])));
    resources.push(Resource::RateLimit(RateLimit {
        name: name("limit"),
        target: RateLimitTarget::Service(name("web")),
        requests: u32::from(!wrong(6)),
        interval: Duration::from_secs(3600),
        burst: 1,
        per_client: false,
    }));
    Mesh::new(resources)
}

#[test]
fn the_steps_of_a_request_refuse_in_their_written_order() {
    local(async {
        let listening = pod_origin(25).await;
        let closed = TcpListener::bind("127.0.0.25:0").await.expect("a free port");
        let silent = closed.local_addr().expect("an address");
        drop(closed);
        for (right, (wrong, reason)) in STEPS.into_iter().enumerate() {
            let mesh = mesh_with(right, listening, silent);
            let answer = mesh.get("/out").await;
            let (refused, by) = mesh.last();
            assert_eq!(refused, Some(reason), "{wrong}: {answer:?}");
            match right {
                4 => assert_eq!(by.as_deref(), Some("shop/out")),
                5 => assert_eq!(by.as_deref(), Some("shop/in")),
                _ => {}
            }
        }
        let mesh = mesh_with(STEPS.len(), listening, silent);
        assert_eq!(mesh.get("/out").await, (200, "25 GET /in".into()));
    });
}
