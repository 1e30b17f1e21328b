// SPDX-License-Identifier: Apache-2.0
//! What a peer that is slow, silent or hostile can take of the controller.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::Code;
use weft_identity::{NODE_LIFETIME, Registrar, tls};
use weft_ir::{
    Identity, IdentityNumber, Resource, ResourceKey,
    publish::Change,
    stream::{Ack, FromNode},
    subscribe::Subscriber,
};
use weft_mesh_controller::serve_ir::{IrLimits, IrReport, IrServer, IrServerConfig};

#[path = "support/node.rs"]
mod node;

use node::{DEADLINE, Member, Stream};

/// So short that a test can wait for it, and long enough for a loaded machine's handshakes.
const SHORT: Duration = Duration::from_millis(500);

struct Controller {
    _home: tempfile::TempDir,
    server: IrServer,
    registrar: Arc<Registrar>,
}

impl Controller {
    async fn start(limits: IrLimits) -> Controller {
        let home = tempfile::tempdir().unwrap();
        let registrar = Arc::new(Registrar::open(home.path(), NODE_LIFETIME).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = IrServerConfig { registrar: registrar.clone(), accounts: None, limits };
        Controller { _home: home, server: IrServer::start(listener, config).unwrap(), registrar }
    }

    async fn node(&self, name: &str) -> Result<Stream, tonic::Status> {
        let hello = Subscriber::new(name.into()).hello();
        Stream::open(self.server.address(), &self.member(name), hello).await
    }

    /// A node that has joined, on a connection that nobody counts.
    fn member(&self, name: &str) -> Member {
        let mut member = Member::stranger(self.registrar.token(), name);
        let (node, request) = (member.credential.node().clone(), member.credential.request().unwrap());
        let chain = self.registrar.join(&node, &request, [10, 0, 0, 1].into(), SystemTime::now()).unwrap();
        member.credential.accept(chain).unwrap();
        member
    }

    /// TLS as somebody who has not joined.
    fn connector(&self) -> TlsConnector {
        let stranger = Member::stranger(self.registrar.token(), "stranger");
        TlsConnector::from(tls::controller_client(&stranger.credential).unwrap())
    }

    async fn silent(&self) -> TcpStream {
        TcpStream::connect(self.server.address()).await.unwrap()
    }

    /// Waits until the nodes stand like this.
    async fn stands(&self, like: impl Fn(&IrReport) -> bool) -> Arc<IrReport> {
        let mut reports = self.server.handle().watch_acks();
        let found = reports.wait_for(|report| like(report));
        timeout(DEADLINE, found).await.expect("in time").unwrap().clone()
    }
}

/// Waits until the other side has closed.
async fn closed(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut bytes = [0; 1024];
    let end = async { while matches!(stream.read(&mut bytes).await, Ok(count) if count > 0) {} };
    timeout(DEADLINE, end).await.expect("it is cut");
}

/// Resources of one MiB together, different in every version.
fn state(version: u32) -> Change {
    let labels =
        BTreeMap::from([(Arc::from("k8s:app"), Arc::from(format!("{version}-{}", "x".repeat(16 << 10))))]);
    let identity = |number| Identity { number: IdentityNumber(number), labels: labels.clone() };
    let upserts = (0..64).map(identity).map(Resource::Identity).collect();
    Change { upserts, ..Change::default() }
}

#[tokio::test]
async fn a_connection_that_never_says_hello_is_cut_at_each_step() {
    let controller = Controller::start(IrLimits { greeting: SHORT, ..IrLimits::default() }).await;
    let counters = controller.server.handle().counters();

    closed(&mut controller.silent().await).await;
    assert_eq!(counters.handshakes_failed.value(), 1);

    let connector = controller.connector();
    let tcp = controller.silent().await;
    let mut after_handshake = connector.connect(tls::controller_name(), tcp).await.unwrap();
    closed(&mut after_handshake).await;
    assert_eq!(counters.greetings_late.value(), 1);

    let member = controller.member("a");
    let mut after_stream = Stream::open_silent(controller.server.address(), &member).await.unwrap();
    let end = timeout(DEADLINE, after_stream.inbound.message()).await.expect("it is cut");
    assert_eq!(end.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(counters.streams.value(), 0);
    controller.server.shutdown().await;
}

#[tokio::test]
async fn silent_connections_take_only_their_address_share_and_no_place_of_nodes() {
    let limits = IrLimits { pending_per_address: 2, greeting: DEADLINE * 6, ..IrLimits::default() };
    let controller = Controller::start(limits).await;
    let known = controller.node("known").await.unwrap();
    let late = controller.member("late");
    controller.stands(|report| report.nodes.contains_key("known")).await;
    let first = controller.silent().await;
    let _second = controller.silent().await;
    // The third comes from the same address, and long before the first two are cut.
    closed(&mut controller.silent().await).await;
    assert_eq!(controller.server.handle().counters().crowded.value(), 1);
    drop(first);
    let opened = async {
        loop {
            let hello = Subscriber::new("late".into()).hello();
            if let Ok(stream) = Stream::open(controller.server.address(), &late, hello).await {
                break stream;
            }
        }
    };
    let _late = timeout(DEADLINE, opened).await.expect("there is a place again");
    let report = controller.stands(|report| report.nodes.contains_key("late")).await;
    assert!(report.nodes["known"].connected, "who has a stream stays");
    drop(known);
    controller.server.shutdown().await;
}

#[tokio::test]
async fn there_are_only_so_many_connections_and_the_next_one_waits() {
    let controller = Controller::start(IrLimits { connections: 1, ..IrLimits::default() }).await;
    let first = controller.node("first").await.unwrap();
    controller.stands(|report| report.nodes.contains_key("first")).await;
    let connector = controller.connector();
    let tcp = controller.silent().await;
    let second = connector.connect(tls::controller_name(), tcp);
    tokio::pin!(second);
    assert!(timeout(SHORT, &mut second).await.is_err(), "it is not served");
    drop(first);
    timeout(DEADLINE, second).await.expect("its turn").unwrap();
    controller.server.shutdown().await;
}

#[tokio::test]
async fn a_node_that_does_not_acknowledge_is_overdue_until_it_does() {
    let limits = IrLimits { acknowledgement: SHORT, ..IrLimits::default() };
    let controller = Controller::start(limits).await;
    let mut node = Subscriber::new("slow".into());
    let mut stream = controller.node("slow").await.unwrap();
    controller.server.handle().publish(state(1)).await.unwrap();
    let first = stream.commit(&mut node).await;
    let report = controller.stands(|report| report.is_overdue("slow")).await;
    assert_eq!(report.waiting["slow"].revision, 1);
    // What is published meanwhile waits, and comes as one.
    for version in 2..10 {
        controller.server.handle().publish(state(version)).await.unwrap();
    }
    stream.apply(&mut node, first.position).await;
    let report = controller.stands(|report| report.waiting.values().any(|waiting| !waiting.overdue)).await;
    assert_eq!((report.waiting["slow"].revision, report.nodes["slow"].applied), (9, Some(1)));
    let last = stream.commit(&mut node).await;
    assert_eq!(last.position.revision, 9);
    stream.apply(&mut node, last.position).await;
    controller.stands(|report| report.waiting.is_empty()).await;
    drop(stream);
    controller.stands(|report| !report.nodes["slow"].connected).await;
    controller.server.shutdown().await;
}

#[tokio::test]
async fn a_node_that_acknowledges_and_never_reads_is_cut_before_batches_pile_up() {
    let controller = Controller::start(IrLimits::default()).await;
    let stream = controller.node("liar").await.unwrap();
    controller.stands(|report| report.nodes.contains_key("liar")).await;
    let mut sent = 0;
    for version in 1..=10 {
        let revision = controller.server.handle().publish(state(version)).await.unwrap();
        let report = controller
            .stands(|report| {
                let waits = report.waiting.get("liar").is_some_and(|waiting| waiting.revision == revision);
                waits || !report.nodes["liar"].connected
            })
            .await;
        if !report.nodes["liar"].connected {
            break;
        }
        sent += 1;
        let ack = FromNode::Ack(Ack { revision, ..Ack::default() });
        stream.outbound.send(ack).await.unwrap();
        controller.stands(|report| report.nodes["liar"].applied == Some(revision)).await;
    }
    // Two in the window of two MiB that this client grants, one that waits for room in it, one in the
    // channel; a frame may be on its way between them.
    assert!(sent <= 5, "{sent} batches were taken for a node that reads nothing");
    controller.server.shutdown().await;
}

#[tokio::test]
async fn an_acknowledgement_larger_than_any_node_sends_ends_the_stream() {
    let controller = Controller::start(IrLimits::default()).await;
    let mut node = Subscriber::new("big".into());
    let mut stream = controller.node("big").await.unwrap();
    controller.server.handle().publish(state(1)).await.unwrap();
    let first = stream.commit(&mut node).await;
    let rejection =
        weft_ir::stream::Rejection { key: ResourceKey::parse("x"), message: "x".repeat(1 << 20).into() };
    let ack = Ack { revision: first.position.revision, rejected: vec![rejection], omitted: 0 };
    stream.outbound.send(FromNode::Ack(ack)).await.unwrap();
    let report = controller.stands(|report| !report.nodes["big"].connected).await;
    assert!(report.nodes["big"].rejected.is_empty() && report.nodes["big"].applied.is_none());
    controller.server.shutdown().await;
}
