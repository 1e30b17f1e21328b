// SPDX-License-Identifier: Apache-2.0
//! What the in-process tests share: a plane with one gateway on the loopback address, origins made with
//! hyper, and a client.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use weft_flow_export::{Filter, Flow, FlowRing, Read};
use weft_ir::{
    AppProtocol, BackendService, Endpoint, EndpointPort, Endpoints, Listener, ListenerParent,
    ListenerParentKind, ObjectName, PathMatch, Protocol, Resource, Route, RouteAction, RouteBackend,
    RouteKind, RouteMatch, RouteParent, RouteTimeouts, Service, ServicePort, Snapshot,
};
use weft_node_proxy::{Plane, PlaneConfig};

/// A plane with a gateway listener, and the state that it was given.
pub(crate) struct Lab {
    pub(crate) plane: Plane,
    pub(crate) snapshot: Snapshot,
    pub(crate) ring: FlowRing,
    pub(crate) gateway: SocketAddr,
}

impl Lab {
    /// Two workers and one listener on a free port.
    pub(crate) async fn start(resources: Vec<Resource>) -> Lab {
        Lab::with_workers(2, resources).await
    }

    /// One listener on a free port.
    pub(crate) async fn with_workers(workers: usize, resources: Vec<Resource>) -> Lab {
        let ring = FlowRing::new(4096);
        let config = PlaneConfig {
            node: "node-a".into(),
            workers,
            connections: 1000,
            listen_addresses: vec![],
            connect_timeout: Duration::from_secs(2),
            redirect: None,
        };
        let plane = Plane::start(&config, &ring).expect("the plane starts");
        tokio::spawn(ring.clone().keep_up());
        let gateway = free_address();
        let mut lab = Lab { plane, snapshot: Snapshot::default(), ring, gateway };
        let mut all = vec![listener("http", gateway, "")];
        all.extend(resources);
        lab.apply(all).await;
        lab
    }

    /// Adds or replaces resources in one commit.
    pub(crate) async fn apply(&mut self, resources: Vec<Resource>) {
        self.snapshot.revision += 1;
        resources.into_iter().for_each(|resource| self.snapshot.insert(resource));
        let rejected = self.plane.apply(&self.snapshot, &[]).await.expect("the workers live");
        assert_eq!(rejected, [], "all resources can be used");
    }

    /// Sends a request to the gateway over a connection of its own.
    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.send(Request::get(target)).await
    }

    /// Sends a request without body.
    pub(crate) async fn send(&self, request: http::request::Builder) -> Answer {
        self.send_body(request, Bytes::new()).await
    }

    /// Sends a request.
    pub(crate) async fn send_body(&self, request: http::request::Builder, body: Bytes) -> Answer {
        let has_host = request.headers_ref().is_some_and(|headers| headers.contains_key("host"));
        let request = if has_host { request } else { request.header("host", "shop.test") };
        let mut client = Client::connect(self.gateway).await;
        client.send(request.body(Full::new(body)).expect("a request")).await
    }

    /// The first flow that matches, within 5 s.
    pub(crate) async fn flow(&self, wanted: impl Fn(&Flow) -> bool) -> Arc<Flow> {
        let mut reader = self.ring.reader(usize::MAX, &Filter::default());
        let looking = async {
            loop {
                if let Read::Flow(flow) = reader.next().await
                    && wanted(&flow)
                {
                    return flow;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), looking).await.expect("a flow that matches")
    }
}

/// A response that was read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

/// One HTTP/1.1 connection.
pub(crate) struct Client {
    requests: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.expect("the gateway accepts");
        let (requests, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
        tokio::spawn(connection);
        Client { requests }
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        self.try_send(request).await.expect("a response")
    }

    pub(crate) async fn try_send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
        self.requests.ready().await?;
        let (parts, body) = self.requests.send_request(request).await?.into_parts();
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes() })
    }
}

/// A server whose answers are made by a function; counts its requests.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) requests: Arc<AtomicUsize>,
}

impl Origin {
    /// Answers every request with this text.
    pub(crate) async fn text(text: &'static str) -> Origin {
        Origin::with(move |_| async move { Response::new(Full::new(Bytes::from_static(text.as_bytes()))) })
            .await
    }

    /// Answers with what the function makes of the request.
    pub(crate) async fn with<F, A, B>(answer: F) -> Origin
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Response<B>> + Send + 'static,
        B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let origin = Origin {
            address: listener.local_addr().expect("an address"),
            requests: Arc::new(AtomicUsize::new(0)),
        };
        let requests = Arc::clone(&origin.requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, requests) = (answer.clone(), Arc::clone(&requests));
                let service = service_fn(move |request| {
                    requests.fetch_add(1, Ordering::SeqCst);
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                tokio::spawn(async move {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // A client that goes away ends its own connection only.
                    drop(builder.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        origin
    }

    pub(crate) fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.local_addr().expect("an address")
}

/// Waits for a condition, at most 10 s.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn name(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

fn parent() -> ListenerParent {
    ListenerParent { kind: ListenerParentKind::Gateway, name: name("gw") }
}

pub(crate) fn listener(listener: &str, address: SocketAddr, hostname: &str) -> Resource {
    Resource::Listener(Listener {
        parent: parent(),
        name: listener.into(),
        addresses: vec![address.ip()],
        port: address.port(),
        hostname: hostname.into(),
    })
}

/// A Service with one port 80 and these endpoints.
pub(crate) fn service(service: &str, protocol: AppProtocol, origins: &[SocketAddr]) -> Vec<Resource> {
    let mut resources = vec![Resource::Service(Service {
        name: name(service),
        addresses: vec![],
        ports: vec![ServicePort {
            name: "http".into(),
            port: 80,
            protocol: Protocol::Tcp,
            app_protocol: protocol,
        }],
    })];
    for (index, origin) in origins.iter().enumerate() {
        resources.push(Resource::Endpoints(Endpoints {
            name: name(&format!("{service}-{index}")),
            service: service.into(),
            ports: vec![EndpointPort { name: "http".into(), port: origin.port(), protocol: Protocol::Tcp }],
            endpoints: vec![Endpoint {
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                ready: true,
                serving: true,
                terminating: false,
            }],
        }));
    }
    resources
}

pub(crate) fn backend(service: &str, weight: u32) -> RouteBackend {
    let service = Some(BackendService { name: name(service), port: 80 });
    RouteBackend { service, weight, filters: vec![] }
}

/// A route at the gateway's listener for a path prefix.
pub(crate) fn route(route: &str, prefix: &str, backends: Vec<RouteBackend>) -> Route {
    Route {
        kind: RouteKind::HttpRoute,
        origin: name(route),
        rule: 0,
        created: 1,
        parents: vec![RouteParent::Listener { parent: parent(), listener: "http".into() }],
        hostnames: vec![],
        matches: vec![RouteMatch {
            path: PathMatch::Prefix(prefix.into()),
            method: None,
            headers: vec![],
            query: vec![],
        }],
        action: RouteAction { filters: vec![], backends, timeouts: RouteTimeouts::default(), retry: None },
    }
}
