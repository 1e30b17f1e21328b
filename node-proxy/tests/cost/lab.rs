// SPDX-License-Identifier: Apache-2.0
//! A worker that has its turns by hand, between a client and an origin on the same thread, so that whatever
//! is counted is the worker's.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use weft_http::{
    h2::{Config, Connection, Event},
    head::{FieldName, Head, Value},
};
use weft_ir::{
    AppProtocol, BackendService, Endpoint, EndpointPort, Endpoints, HttpRule, Identity, IdentityNumber,
    L7Rules, Listener, ListenerParent, ListenerParentKind, Node, ObjectName, PathMatch, Peer, Policy,
    PolicyDirection, PolicyKind, PolicyPort, PolicyRule, PortRule, Protocol as Transport, Resource, Route,
    RouteAction, RouteBackend, RouteKind, RouteMatch, RouteParent, RouteTimeouts, Selector, Service,
    ServicePort, Snapshot, Tier, Workload,
};
use weft_node_proxy::{
    Compiler, DialConfig, Dialer, Ends, Entrance, Limits, Records, Turns, Worker, WorkerMetrics, WorkerParts,
    ring,
};

use crate::counted;

/// Bytes of the answer's content.
const ANSWER: usize = 100;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is spoken on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// A worker with a Gateway's listener, a route, and a policy that allows by method and path.
pub(crate) struct Lab {
    turns: Turns,
    /// Keeps the ring of records open, and reads it.
    records: Records,
    listener: TcpListener,
    gateway: SocketAddr,
    origin: TcpListener,
    /// Connections of the worker to the origin.
    accepted: Vec<End>,
    protocol: Protocol,
    /// Calls of the allocator by the worker.
    pub(crate) calls: usize,
    /// Bytes that the worker holds more.
    pub(crate) bytes: isize,
}

/// One end of a connection that is not the worker's.
pub(crate) struct End {
    socket: TcpStream,
    speaks: Speaks,
}

/// What an end has to say, and understands.
enum Speaks {
    Http1 {
        /// What came and was not understood yet.
        read: Vec<u8>,
    },
    Http2 {
        connection: Box<Connection>,
        read: Vec<u8>,
        head: Box<Head>,
    },
}

impl Lab {
    pub(crate) fn new(protocol: Protocol) -> Lab {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        // An address that stands for a pod; no policy speaks of the node's own.
        let origin = TcpListener::bind("127.0.0.7:0").expect("a free port");
        origin.set_nonblocking(true).expect("an option");
        let gateway = listener.local_addr().expect("an address");
        let resources = objects(protocol, gateway, origin.local_addr().expect("an address"));
        let mut snapshot = Snapshot { revision: 1, ..Snapshot::default() };
        resources.into_iter().for_each(|resource| snapshot.insert(resource));
        let (state, rejected) = Compiler::new("node-a".into(), vec![]).compile(&snapshot, &[]);
        assert_eq!(rejected, []);
        let (recorder, records) = ring(4096, Arc::default());
        let dial = DialConfig { mark: None, ports: 1..=1, taken: None, connect_timeout: PATIENCE };
        let worker = Worker::new(WorkerParts {
            seed: 1,
            state,
            retired: mpsc::channel(1).0,
            metrics: Arc::new(WorkerMetrics::default()),
            recorder,
            dialer: Dialer::new(dial, 0),
            limits: Limits::default(),
            connections: 5000,
            transparent: false,
        });
        let turns = Turns::new(worker).expect("a set of sockets");
        let accepted = Vec::new();
        Lab { turns, records, listener, gateway, origin, accepted, protocol, calls: 0, bytes: 0 }
    }

    /// A new connection of a client, as if it had come to the Gateway.
    pub(crate) fn connect(&mut self) -> End {
        let address = self.listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).expect("connected");
        let (server, _) = self.listener.accept().expect("accepted");
        let ends = Ends {
            client: SocketAddr::from(([192, 0, 2, 9], 40_000)),
            destination: self.gateway,
            entrance: Entrance::Gateway(self.gateway),
        };
        let ((), calls, bytes) = counted(|| self.turns.admit(server, ends).expect("admitted"));
        self.note(calls, bytes);
        End::new(client, self.protocol, true)
    }

    /// A new connection that has asked once.
    pub(crate) fn open(&mut self) -> End {
        let mut client = self.connect();
        self.ask(&mut client);
        client
    }

    /// Sends a request and reads its answer, turn by turn.
    pub(crate) fn ask(&mut self, client: &mut End) {
        self.ask_at_once(std::slice::from_mut(client), 1);
    }

    /// Sends so many requests on each connection at once, and reads their answers, turn by turn.
    pub(crate) fn ask_at_once(&mut self, clients: &mut [End], requests: usize) {
        clients.iter_mut().for_each(|client| (0..requests).for_each(|_| client.ask()));
        let wanted = clients.len() * requests;
        let (mut answered, until) = (0, Instant::now() + PATIENCE);
        while answered < wanted {
            let (turned, calls, bytes) = counted(|| self.turns.turn());
            turned.expect("a turn");
            self.note(calls, bytes);
            while let Ok((socket, _)) = self.origin.accept() {
                self.accepted.push(End::new(socket, self.protocol, false));
            }
            for end in &mut self.accepted {
                let asked = end.turn();
                (0..asked).for_each(|_| end.answer());
            }
            answered += clients.iter_mut().map(End::turn).sum::<usize>();
            assert!(Instant::now() < until, "no answer");
        }
        self.records.by_ref().for_each(|record| assert_eq!(record.ended.reason, None));
    }

    fn note(&mut self, calls: usize, bytes: isize) {
        self.calls += calls;
        self.bytes += bytes;
    }
}

impl End {
    fn new(socket: TcpStream, protocol: Protocol, is_client: bool) -> End {
        socket.set_nonblocking(true).expect("an option");
        socket.set_nodelay(true).expect("an option");
        let mut end = End { socket, speaks: Speaks::Http1 { read: Vec::new() } };
        if protocol == Protocol::Http2 {
            let mut out = Vec::new();
            let config = Config::default();
            let connection = match is_client {
                true => Connection::client(&config, &mut out),
                false => Connection::server(&config, &mut out),
            };
            end.speaks =
                Speaks::Http2 { connection: Box::new(connection), read: Vec::new(), head: Box::default() };
            end.write(&out);
        }
        end
    }

    /// Reads what is there; how many whole messages that gave.
    fn turn(&mut self) -> usize {
        let mut room = [0; 16 << 10];
        let came = match self.socket.read(&mut room) {
            Ok(count) => &room[..count],
            Err(error) if error.kind() == ErrorKind::WouldBlock => &[],
            Err(error) => panic!("{error}"),
        };
        let (whole, out) = match &mut self.speaks {
            Speaks::Http1 { read } => {
                read.extend_from_slice(came);
                let whole = std::iter::from_fn(|| whole_message(read).then_some(())).count();
                (whole, Vec::new())
            }
            Speaks::Http2 { connection, read, head } => {
                read.extend_from_slice(came);
                whole_streams(connection, read, head)
            }
        };
        self.write(&out);
        whole
    }

    fn ask(&mut self) {
        let out = match &mut self.speaks {
            Speaks::Http1 { .. } => {
                b"GET /api/items HTTP/1.1\r\nhost: shop.test\r\nuser-agent: h2load\r\nx-own: 1\r\n\r\n"
                    .to_vec()
            }
            Speaks::Http2 { connection, head, .. } => {
                let mut out = Vec::new();
                head.start_request(b"POST", b"/api/items", b"shop.test").expect("a request");
                for (name, value) in [
                    (FieldName::ContentType, "application/grpc"),
                    (FieldName::Te, "trailers"),
                    (FieldName::UserAgent, "h2load"),
                ] {
                    head.append(&name.into(), Value::literal(value)).expect("room");
                }
                let stream = connection.open(head, false, 1, &mut out).expect("open");
                let sent = connection.send_data(stream, &[b'm'; ANSWER], true, &mut out);
                assert_eq!(sent, Ok(ANSWER));
                out
            }
        };
        self.write(&out);
    }

    fn answer(&mut self) {
        let out = match &mut self.speaks {
            Speaks::Http1 { .. } => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {ANSWER}\r\nserver: origin\r\n\r\n");
                [head.as_bytes(), &[b'x'; ANSWER]].concat()
            }
            Speaks::Http2 { connection, head, .. } => {
                let mut out = Vec::new();
                let (stream, _) = connection.streams().next().expect("a stream that waits");
                head.start_response(200).expect("a status");
                let grpc = Value::literal("application/grpc");
                head.append(&FieldName::ContentType.into(), grpc).expect("room");
                connection.send_head(stream, head, false, &mut out).expect("its turn");
                let sent = connection.send_data(stream, &[b'x'; ANSWER], false, &mut out);
                assert_eq!(sent, Ok(ANSWER));
                head.clear();
                head.append(&FieldName::GrpcStatus.into(), Value::literal("0")).expect("room");
                connection.send_trailers(stream, head, &mut out).expect("its turn");
                out
            }
        };
        self.write(&out);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("a socket has room for so little");
    }
}

/// Takes one message out of what was read, if it is there as a whole: a request without content, or a response
/// with that of every answer.
fn whole_message(read: &mut Vec<u8>) -> bool {
    let Some(head) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
    let content = if read.starts_with(b"HTTP/1.1 200 ") { ANSWER } else { 0 };
    assert!(content > 0 || read.starts_with(b"GET "), "{}", String::from_utf8_lossy(read));
    if read.len() < head + 4 + content {
        return false;
    }
    read.drain(..head + 4 + content);
    true
}

/// How many streams were read to their end, and what is to be said to the peer.
fn whole_streams(connection: &mut Connection, read: &mut Vec<u8>, head: &mut Head) -> (usize, Vec<u8>) {
    let (mut whole, mut out, mut at) = (0, Vec::new(), 0);
    loop {
        let received = connection.receive(&read[at..], head, &mut out);
        at += received.consumed;
        match received.event {
            None => break,
            Some(Event::Data { stream, content, end, .. }) => {
                let octets = content.len();
                connection.release(stream, octets, &mut out);
                whole += usize::from(end);
            }
            Some(Event::Trailers { .. }) => whole += 1,
            Some(Event::Head { .. }) => assert!(matches!(head.status(), 0 | 200), "{}", head.status()),
            Some(other) => panic!("{other:?}"),
        }
    }
    read.drain(..at);
    (whole, out)
}

/// A Gateway with a route to a pod of this node, whose policy allows by method and path.
fn objects(protocol: Protocol, gateway: SocketAddr, origin: SocketAddr) -> Vec<Resource> {
    let parent = ListenerParent { kind: ListenerParentKind::Gateway, name: name("gw") };
    let app_protocol = match protocol {
        Protocol::Http1 => AppProtocol::Http,
        Protocol::Http2 => AppProtocol::Http2,
    };
    let port = || EndpointPort { name: "http".into(), port: origin.port(), protocol: Transport::Tcp };
    let mut resources = pod(origin.ip());
    resources.extend([
        Resource::Listener(Listener {
            parent: parent.clone(),
            name: "http".into(),
            addresses: vec![gateway.ip()],
            port: gateway.port(),
            hostname: "".into(),
        }),
        Resource::Service(Service {
            name: name("web"),
            addresses: vec![],
            ports: vec![ServicePort {
                name: "http".into(),
                port: 80,
                protocol: Transport::Tcp,
                app_protocol,
            }],
        }),
        Resource::Endpoints(Endpoints {
            name: name("web-1"),
            service: "web".into(),
            ports: vec![port()],
            endpoints: vec![Endpoint {
                address: origin.ip(),
                ready: true,
                serving: true,
                terminating: false,
            }],
        }),
        Resource::Route(route(parent)),
        Resource::Policy(policy()),
    ]);
    resources
}

fn pod(address: IpAddr) -> Vec<Resource> {
    let label = |key: &str, value: &str| (Arc::from(format!("k8s:{key}")), Arc::from(value));
    let labels = [label("app", "web"), label("io.kubernetes.pod.namespace", "shop")].into();
    vec![
        Resource::Node(Node {
            name: "node-a".into(),
            addresses: vec![[192, 168, 0, 1].into()],
            ingress_addresses: vec![],
            pod_cidrs: vec![],
        }),
        Resource::Workload(Workload {
            name: name("web"),
            node: "node-a".into(),
            addresses: vec![address],
            identity: IdentityNumber(300),
            service_account: "default".into(),
            host_network: false,
            owner: "web".into(),
            ports: vec![],
        }),
        Resource::Identity(Identity { number: IdentityNumber(300), labels }),
    ]
}

fn route(parent: ListenerParent) -> Route {
    let service = Some(BackendService { name: name("web"), port: 80 });
    Route {
        kind: RouteKind::HttpRoute,
        origin: name("all"),
        rule: 0,
        created: 1,
        parents: vec![RouteParent::Listener { parent, listener: "http".into() }],
        hostnames: vec![],
        matches: vec![RouteMatch {
            path: PathMatch::Prefix("/api".into()),
            method: None,
            headers: vec![],
            query: vec![],
        }],
        action: RouteAction {
            filters: vec![],
            backends: vec![RouteBackend { service, weight: 1, filters: vec![] }],
            timeouts: RouteTimeouts::default(),
            retry: None,
        },
    }
}

fn policy() -> Policy {
    let http =
        HttpRule { method: Some("GET|POST".into()), path: Some("/api/.*".into()), ..HttpRule::default() };
    let port = PortRule {
        port: PolicyPort::Any,
        protocol: Some(Transport::Tcp),
        l7: Some(L7Rules::Http(vec![http])),
    };
    let rule = PolicyRule { peers: vec![Peer::Any], ports: vec![port], authenticate: false };
    Policy {
        kind: PolicyKind::CiliumNetworkPolicy,
        name: name("api"),
        index: 0,
        tier: Tier::Normal,
        priority: 0,
        subject: Selector { requirements: vec![] },
        ingress: PolicyDirection { default_deny: true, allow: vec![rule], deny: vec![] },
        egress: PolicyDirection::default(),
    }
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}
