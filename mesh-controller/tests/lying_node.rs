// SPDX-License-Identifier: Apache-2.0
//! Who holds the join token, or another node's certificate, and lies: over real TLS sockets.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tonic::{Code, Status};
use weft_identity::{JoinToken, NODE_LIFETIME, Registrar};
use weft_ir::subscribe::Subscriber;
use weft_mesh_controller::serve_ir::{IrLimits, IrReport, IrServer, IrServerConfig};

#[path = "support/node.rs"]
mod node;

use node::{DEADLINE, Member, Stream};

struct Controller {
    home: tempfile::TempDir,
    registrar: Arc<Registrar>,
    server: IrServer,
}

impl Controller {
    async fn start() -> Controller {
        Controller::start_in(tempfile::tempdir().unwrap(), NODE_LIFETIME).await
    }

    async fn start_in(home: tempfile::TempDir, lifetime: Duration) -> Controller {
        let registrar = Arc::new(Registrar::open(home.path(), lifetime).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config =
            IrServerConfig { registrar: registrar.clone(), accounts: None, limits: IrLimits::default() };
        Controller { home, registrar, server: IrServer::start(listener, config).unwrap() }
    }

    fn token(&self) -> &JoinToken {
        self.registrar.token()
    }

    async fn join(&self, name: &str) -> Result<Member, Status> {
        Member::join(self.server.address(), self.token(), name).await
    }

    /// Opens a stream that says hello as this node.
    async fn stream(&self, member: &Member, says: &str) -> Result<Stream, Status> {
        let hello = Subscriber::new(says.into()).hello();
        let opened = timeout(DEADLINE, Stream::open(self.server.address(), member, hello));
        opened.await.expect("an answer in time")
    }

    /// Why the stream is refused, at once or after its hello.
    async fn refused(&self, member: &Member, says: &str) -> Status {
        match self.stream(member, says).await {
            Ok(mut stream) => end(&mut stream).await,
            Err(status) => status,
        }
    }

    async fn stands(&self, like: impl Fn(&IrReport) -> bool) {
        let mut reports = self.server.handle().watch_acks();
        timeout(DEADLINE, reports.wait_for(|report| like(report))).await.expect("in time").unwrap();
    }

    fn is_connected(&self, node: &str) -> bool {
        self.server.handle().watch_acks().borrow().nodes.get(node).is_some_and(|node| node.connected)
    }
}

async fn end(stream: &mut Stream) -> Status {
    timeout(DEADLINE, stream.inbound.message()).await.expect("it is cut").unwrap_err()
}

#[tokio::test]
async fn the_token_alone_opens_no_stream_and_a_wrong_one_buys_no_certificate() {
    let controller = Controller::start().await;
    let mut stranger = Member::stranger(controller.token(), "a");
    let status = controller.refused(&stranger, "a").await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let address = controller.server.address();
    for bearer in ["Bearer nonsense", &JoinToken::generate(b"other").unwrap().authorization()] {
        let request = stranger.credential.request().unwrap();
        let status = stranger.ask(address, "a", request, bearer).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
    assert!(stranger.renew(address).await.is_err(), "there is nothing to renew");
    assert!(controller.server.handle().watch_acks().borrow().nodes.is_empty());
    assert_eq!(controller.server.handle().counters().certificates.value(), 0);
    controller.server.shutdown().await;
}

/// Invariant: a node's name is bound to its key.
#[tokio::test]
async fn a_token_holder_can_neither_speak_as_a_node_nor_cut_it_off() {
    let controller = Controller::start().await;
    let real = controller.join("a").await.unwrap();
    let _stream = controller.stream(&real, "a").await.unwrap();
    controller.stands(|report| report.nodes.contains_key("a")).await;

    let status = controller.join("a").await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("`weft-controller forget-node a`"), "{status}");
    // The request of the real node, seen and sent again, gives a certificate for a key that it has not.
    let mut thief = Member::stranger(controller.token(), "a");
    let request = real.credential.request().unwrap();
    let bearer = controller.token().authorization();
    let other = Member::stranger(controller.token(), "b");
    assert!(other.ask_raw(controller.server.address(), "a", request, &bearer).await.is_ok());
    let own = thief.credential.request().unwrap();
    assert!(thief.ask(controller.server.address(), "a", own, &bearer).await.is_err());

    let liar = controller.join("b").await.unwrap();
    let status = controller.refused(&liar, "a").await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(controller.is_connected("a") && !controller.is_connected("b"));
    assert_eq!(controller.server.handle().counters().streams.value(), 1);

    // The node itself may open another stream, which takes the place of the first where nobody answers there.
    let _second = controller.stream(&real, "a").await.unwrap();
    controller.stands(|_| controller.server.handle().counters().streams.value() == 2).await;
    controller.server.shutdown().await;
}

/// Invariant: two processes with one credential do not take turns.
#[tokio::test]
async fn a_process_that_speaks_as_another_is_refused_as_long_as_the_first_answers() {
    let controller = Controller::start().await;
    let mut first = controller.join("a").await.unwrap();
    let copy = first.copied(controller.token());
    let stream = controller.stream(&first, "a").await.unwrap();
    controller.stands(|report| report.nodes.contains_key("a")).await;
    let answering = tokio::spawn(stream.answer_pings());
    for refused in 1..=2 {
        let mut second = controller.stream(&copy, "a").await.unwrap();
        let status = end(&mut second).await;
        assert_eq!(status.code(), Code::AlreadyExists, "{status}");
        assert!(status.message().contains("another process speaks as node a, from 127.0.0.1"), "{status}");
        let told = |report: &IrReport| report.contested.get("a").is_some_and(|one| one.refused == refused);
        controller.stands(told).await;
    }
    assert!(!answering.is_finished(), "the first one goes on");
    assert_eq!(controller.server.handle().counters().streams.value(), 1);
    // Once it is gone, the other has the name.
    answering.abort();
    drop(answering.await);
    controller.stands(|report| !report.nodes["a"].connected).await;
    let _second = controller.stream(&copy, "a").await.unwrap();
    controller.stands(|report| report.nodes["a"].connected).await;
    controller.server.shutdown().await;
}

#[tokio::test]
async fn a_stream_on_which_nobody_answers_is_replaced_by_a_newer_one() {
    let controller = Controller::start().await;
    let node = controller.join("a").await.unwrap();
    let mut dead = controller.stream(&node, "a").await.unwrap();
    controller.stands(|report| report.nodes.contains_key("a")).await;
    // It tries again and again, which does not put the decision off.
    let mut given_up = controller.stream(&node, "a").await.unwrap();
    let alive = controller.stream(&node, "a").await.unwrap();
    let answering = tokio::spawn(alive.answer_pings());
    let replaced = async |stream: &mut Stream| loop {
        if let Err(status) = stream.next().await {
            return status.code();
        }
    };
    assert_eq!(replaced(&mut given_up).await, Code::Aborted);
    assert_eq!(replaced(&mut dead).await, Code::Aborted);
    assert!(controller.is_connected("a") && !answering.is_finished());
    assert!(controller.server.handle().watch_acks().borrow().contested.is_empty());
    controller.server.shutdown().await;
}

#[tokio::test]
async fn a_certificate_that_is_expired_or_of_another_controller_opens_no_stream() {
    let controller = Controller::start().await;
    let mut late = Member::stranger(controller.token(), "a");
    let long_ago = SystemTime::now() - NODE_LIFETIME - Duration::from_secs(60);
    let (name, request) = (late.credential.node().clone(), late.credential.request().unwrap());
    let chain = controller.registrar.join(&name, &request, [127, 0, 0, 1].into(), long_ago).unwrap();
    late.credential.accept(chain).unwrap();
    let status = controller.refused(&late, "a").await;
    assert!(format!("{status:?}").contains("CertificateExpired"), "{status:?}");

    let other = Controller::start().await;
    let foreign = other.join("a").await.unwrap();
    assert!(controller.stream(&foreign, "a").await.is_err(), "neither trusts the other");
    let counters = controller.server.handle().counters();
    let counted = async {
        while counters.handshakes_failed.value() < 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, counted).await.expect("both are counted");
    assert_eq!(controller.server.handle().counters().streams.value(), 0);
    controller.server.shutdown().await;
    other.server.shutdown().await;
}

#[tokio::test]
async fn a_restart_of_the_controller_keeps_names_and_certificates() {
    let controller = Controller::start().await;
    let real = controller.join("a").await.unwrap();
    controller.server.shutdown().await;
    let controller = Controller::start_in(controller.home, NODE_LIFETIME).await;
    assert_eq!(controller.join("a").await.err().map(|status| status.code()), Some(Code::PermissionDenied));
    let _stream = controller.stream(&real, "a").await.unwrap();
    controller.stands(|report| report.nodes.contains_key("a")).await;
    controller.server.shutdown().await;
}

#[tokio::test]
async fn a_renewed_name_keeps_its_stream_and_one_that_is_not_loses_it() {
    let lifetime = Duration::from_secs(8);
    let controller = Controller::start_in(tempfile::tempdir().unwrap(), lifetime).await;
    let (mut renewing, idle) = (controller.join("a").await.unwrap(), controller.join("b").await.unwrap());
    let _first = controller.stream(&renewing, "a").await.unwrap();
    let mut second = controller.stream(&idle, "b").await.unwrap();
    controller.stands(|report| report.nodes.len() == 2).await;
    sleep(lifetime / 2).await;
    renewing.renew(controller.server.address()).await.unwrap();
    let status = end(&mut second).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    controller.stands(|report| !report.nodes["b"].connected).await;
    assert!(controller.is_connected("a"), "on the stream that the first certificate opened");
    assert_eq!(controller.server.handle().counters().reconnects.value(), 0);
    controller.server.shutdown().await;
}

#[tokio::test]
async fn a_forgotten_node_loses_its_stream_and_its_name_is_free() {
    let controller = Controller::start().await;
    let stolen = controller.join("a").await.unwrap();
    let mut stream = controller.stream(&stolen, "a").await.unwrap();
    controller.stands(|report| report.nodes.contains_key("a")).await;
    assert!(Registrar::forget(controller.home.path(), &"a".parse().unwrap()).unwrap());
    // Nobody tells the controller: it looks.
    let status = timeout(DEADLINE * 2, stream.inbound.message()).await.expect("it is cut").unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let replaced = controller.join("a").await.unwrap();
    let _stream = controller.stream(&replaced, "a").await.unwrap();
    controller.stands(|report| report.nodes["a"].connected).await;
    assert_eq!(controller.refused(&stolen, "a").await.code(), Code::PermissionDenied);
    controller.server.shutdown().await;
}

#[tokio::test]
async fn invented_names_come_slowly_and_keep_no_node_out() {
    let controller = Controller::start().await;
    let real = controller.join("real").await.unwrap();
    let (address, bearer) = (controller.server.address(), controller.token().authorization());
    let mut refused = None;
    let mut names = BTreeMap::new();
    for number in 0..200 {
        let name = format!("invented-{number}");
        let mut liar = Member::stranger(controller.token(), &name);
        let request = liar.credential.request().unwrap();
        match liar.ask(address, &name, request, &bearer).await {
            Ok(()) => drop(names.insert(name, liar)),
            Err(status) => {
                refused = Some(status);
                break;
            }
        }
    }
    let status = refused.expect("a limit");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(controller.server.handle().counters().joins_throttled.value() > 0);
    let _stream = controller.stream(&real, "real").await.unwrap();
    controller.stands(|report| report.nodes.contains_key("real")).await;
    for name in ["", "..", "a/b", "A", &"a".repeat(300)] {
        let liar = Member::stranger(controller.token(), "x");
        let request = liar.credential.request().unwrap();
        assert!(liar.ask_raw(address, name, request, &bearer).await.is_err(), "{name}");
    }
    controller.server.shutdown().await;
}
