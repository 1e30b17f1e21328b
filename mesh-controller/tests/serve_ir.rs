// SPDX-License-Identifier: Apache-2.0
//! The state server over real TLS sockets, with a client of no more than tonic and the subscriber.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::BTreeMap, path::Path, sync::Arc};

use tokio::{net::TcpListener, time::timeout};
use weft_identity::{JoinToken, NODE_LIFETIME, Registrar};
use weft_ir::{
    Identity, IdentityNumber, Resource,
    publish::Change,
    stream::{ToNode, Versions},
    subscribe::Subscriber,
};
use weft_mesh_controller::serve_ir::{IrLimits, IrServer, IrServerConfig};

#[path = "support/node.rs"]
mod node;

use node::{DEADLINE, Member, Stream};

async fn start(directory: &Path) -> (IrServer, JoinToken) {
    let registrar = Registrar::open(directory, NODE_LIFETIME).unwrap();
    let token = registrar.token().clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config =
        IrServerConfig { registrar: Arc::new(registrar), accounts: None, limits: IrLimits::default() };
    (IrServer::start(listener, config).unwrap(), token)
}

fn identities(numbers: std::ops::Range<u32>) -> Vec<Resource> {
    let identity = |number| Identity { number: IdentityNumber(number), labels: BTreeMap::new() };
    numbers.map(identity).map(Resource::Identity).collect()
}

#[tokio::test]
async fn a_cut_stream_resumes_and_the_report_follows_what_is_applied() {
    let home = tempfile::tempdir().unwrap();
    let (server, token) = start(home.path()).await;
    let mut node = Subscriber::new("a".into());
    let member = Member::join(server.address(), &token, "a").await.unwrap();
    let mut reports = server.handle().watch_acks();

    let hello = node.hello();
    let mut stream = Stream::open(server.address(), &member, hello).await.unwrap();
    let change = Change { upserts: identities(0..5000), ..Change::default() };
    assert_eq!(server.handle().publish(change).await, Ok(1));
    let first = stream.commit(&mut node).await;
    assert_eq!(first.snapshot.resources.len(), 5000);
    assert_eq!(reports.borrow_and_update().behind(1).count(), 1, "received is not applied");
    stream.apply(&mut node, first.position).await;
    timeout(DEADLINE, reports.wait_for(|report| report.behind(1).count() == 0)).await.unwrap().unwrap();

    drop(stream);
    timeout(DEADLINE, reports.wait_for(|report| !report.nodes["a"].connected)).await.unwrap().unwrap();
    let change = Change {
        upserts: identities(5000..5001),
        removes: vec![identities(0..1)[0].key()],
        ..Change::default()
    };
    assert_eq!(server.handle().publish(change).await, Ok(2));
    let hello = node.hello();
    assert_eq!(hello.resume.map(|at| at.revision), Some(1));
    let mut stream = Stream::open(server.address(), &member, hello).await.unwrap();
    let second = stream.commit(&mut node).await;
    assert_eq!((second.changed.len(), second.removed.len()), (1, 1), "a delta");
    stream.apply(&mut node, second.position).await;
    let applied = |report: &Arc<_>| {
        let report: &weft_mesh_controller::serve_ir::IrReport = report;
        report.nodes["a"].applied == Some(2)
    };
    timeout(DEADLINE, reports.wait_for(applied)).await.unwrap().unwrap();
    server.shutdown().await;
    let end = timeout(DEADLINE, stream.inbound.message()).await.unwrap();
    assert!(end.is_err() || end.unwrap().is_none());
}

#[tokio::test]
async fn a_node_that_is_sent_nothing_is_told_why() {
    let home = tempfile::tempdir().unwrap();
    let (server, token) = start(home.path()).await;
    let member = Member::join(server.address(), &token, "a").await.unwrap();
    let of = |version| Change { versions: Versions::of("files", version), ..Change::default() };
    let first = Change { upserts: identities(0..1), ..of(5) };
    server.handle().publish(first).await.unwrap();
    let mut hello = Subscriber::new("a".into()).hello();
    hello.versions = Versions::of("files", 9);
    for _each_stream in 0..2 {
        let mut stream = Stream::open(server.address(), &member, hello.clone()).await.unwrap();
        let ToNode::Withheld { reason } = stream.next().await.unwrap() else { panic!("it is told why") };
        assert_eq!(&*reason, "was told files 9, and this controller knows files 5");
        drop(stream);
        let mut reports = server.handle().watch_acks();
        timeout(DEADLINE, reports.wait_for(|report| !report.nodes["a"].connected)).await.unwrap().unwrap();
    }
    let mut stream = Stream::open(server.address(), &member, hello).await.unwrap();
    assert!(matches!(stream.next().await, Ok(ToNode::Withheld { .. })));
    server.handle().publish(of(9)).await.unwrap();
    assert!(matches!(stream.next().await, Ok(ToNode::Batch(_))), "it knows as much now");
    server.shutdown().await;
}
