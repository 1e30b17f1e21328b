// SPDX-License-Identifier: Apache-2.0
//! The way of a change, from a file to a commit.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{net::TcpListener, time::timeout};
use weft_identity::{NODE_LIFETIME, Registrar};
use weft_ir::{
    stream::{Hello, Versions},
    subscribe::Subscriber,
};
use weft_mesh_controller::{
    observed::{Objects, Observed},
    reconcile::{ReconcileError, Reconciler, ReconcilerConfig},
    serve_ir::{IrLimits, IrServer, IrServerConfig},
    source::{SourceConfig, SourceError},
};
use weft_translate::Translator;

#[path = "support/node.rs"]
mod node;

use node::{DEADLINE, Member, Stream};

const SERVICE: &str =
    "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.0.0.1, ports: [{port: 80}]}\n";

async fn server(state: &Path) -> IrServer {
    let registrar = Arc::new(Registrar::open(state, NODE_LIFETIME).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    IrServer::start(listener, IrServerConfig { registrar, accounts: None, limits: IrLimits::default() })
        .unwrap()
}

fn config(root: &Path) -> ReconcilerConfig {
    ReconcilerConfig {
        source: SourceConfig::Directory { path: root.join("source"), allow_empty: false },
        identities: root.join("identities.log"),
        translator: Translator::default(),
        print_status: false,
        observed: Observed::default(),
        rescan: Arc::default(),
    }
}

/// Waits until this revision is published.
async fn published(server: &IrServer, revision: u64) {
    let mut reports = server.handle().watch_acks();
    let found = reports.wait_for(|report| report.revision >= revision);
    timeout(Duration::from_secs(10), found).await.expect("published in time").unwrap();
}

#[tokio::test]
async fn a_change_of_a_file_becomes_a_commit_and_what_is_not_recognized_does_not() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("source")).unwrap();
    let file = root.path().join("source/a.yaml");
    fs::write(&file, SERVICE).unwrap();
    let server = server(&root.path().join("state")).await;
    let reconciler = Reconciler::start(config(root.path()), server.handle().clone()).await.unwrap();
    assert_eq!(reconciler.revision(), 1);
    let run = tokio::spawn(reconciler.run());
    // Nobody can tell what the first change names, and so it must not be a commit: the second is the next.
    fs::write(&file, SERVICE.replace("name: a", "name: 5")).unwrap();
    let other = root.path().join("source/b.yaml");
    fs::write(&other, SERVICE.replace("name: a", "name: b")).unwrap();
    published(&server, 2).await;
    fs::remove_file(&other).unwrap();
    published(&server, 3).await;
    run.abort();
    server.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_read_at_the_start_stops_it_before_the_first_publish() {
    let root = tempfile::tempdir().unwrap();
    let server = server(&root.path().join("state")).await;
    let error = Reconciler::start(config(root.path()), server.handle().clone()).await.unwrap_err();
    assert!(matches!(error, ReconcileError::Source(SourceError::Watch(_))), "{error}");
    fs::create_dir(root.path().join("source")).unwrap();
    let file = root.path().join("source/a.yaml");
    fs::write(&file, [0xff]).unwrap();
    let error = Reconciler::start(config(root.path()), server.handle().clone()).await.unwrap_err();
    assert!(matches!(error, ReconcileError::Source(SourceError::Unread(_))), "{error}");
    fs::write(&file, "spec: [\n").unwrap();
    let error = Reconciler::start(config(root.path()), server.handle().clone()).await.unwrap_err();
    assert!(error.to_string().contains("a.yaml:"), "{error}");
    assert_eq!(server.handle().watch_acks().borrow().revision, 0);
    server.shutdown().await;
}

/// A running reconciler over `a.yaml` and `b.yaml`, each with a service, and `c.yaml` that nothing happens to.
struct Running {
    root: tempfile::TempDir,
    server: IrServer,
    observed: Observed,
    run: tokio::task::JoinHandle<Result<(), ReconcileError>>,
}

impl Running {
    async fn start() -> Running {
        Running::over(|source| {
            for name in ["a", "b", "c"] {
                let text = SERVICE.replace("name: a", &format!("name: {name}"));
                fs::write(source.join(name).with_extension("yaml"), text).unwrap();
            }
        })
        .await
    }

    /// The same over other files.
    async fn over(write: impl FnOnce(&Path)) -> Running {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("source")).unwrap();
        write(&root.path().join("source"));
        let server = server(&root.path().join("state")).await;
        let config = config(root.path());
        let observed = config.observed.clone();
        let reconciler = Reconciler::start(config, server.handle().clone()).await.unwrap();
        let run = tokio::spawn(reconciler.run());
        Running { root, server, observed, run }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join("source").join(name)
    }

    /// What a node joins with.
    async fn join(&self, name: &str) -> Member {
        let registrar = Registrar::open(&self.root.path().join("state"), NODE_LIFETIME).unwrap();
        Member::join(self.server.address(), registrar.token(), name).await.unwrap()
    }

    /// Waits until the objects stand like this.
    async fn stands(&self, like: impl Fn(&Objects) -> bool) -> Arc<Objects> {
        let mut objects = self.observed.watch();
        let found = objects.wait_for(|objects| like(objects));
        timeout(Duration::from_secs(10), found).await.expect("in time").unwrap().clone()
    }

    async fn end(self) {
        self.run.abort();
        self.server.shutdown().await;
    }
}

fn problem(objects: &Objects) -> String {
    objects.problems.first().map(ToString::to_string).unwrap_or_default()
}

#[tokio::test]
async fn a_file_that_breaks_is_named_while_others_go_on_and_heals_by_itself() {
    type Break = fn(&Path);
    let breaks: [(Break, &str); 4] = [
        (|file| fs::write(file, b"kind: Service\n\xff\xfe").unwrap(), "a.yaml:2: is not UTF-8"),
        (|file| File::create(file).unwrap().set_len(100 << 20).unwrap(), "a.yaml: is larger than 16 MiB"),
        (|file| fs::write(file, &SERVICE[..SERVICE.len() - 8]).unwrap(), "a.yaml:4: unclosed bracket"),
        (
            |file| {
                fs::remove_file(file).unwrap();
                symlink(file, file).unwrap();
            },
            "a.yaml: cannot be read: Too many levels of symbolic links",
        ),
    ];
    let running = Running::start().await;
    let mut revision = 1;
    for (break_file, reason) in breaks {
        let file = running.file("a.yaml");
        break_file(&file);
        let objects = running.stands(|objects| objects.problems.len() == 1).await;
        assert!(problem(&objects).contains(reason), "{}", problem(&objects));
        assert!(problem(&objects).ends_with("stays"), "{}", problem(&objects));
        assert_eq!((objects.revision, objects.rejected_files()), (revision, 1), "what was read before stays");
        // Others come and go all the same.
        let other = running.file("b.yaml");
        let text = fs::read_to_string(&other).unwrap();
        fs::remove_file(&other).unwrap();
        revision += 1;
        running.stands(|objects| objects.revision == revision).await;
        fs::write(&other, text).unwrap();
        revision += 1;
        running.stands(|objects| objects.revision == revision && objects.problems.len() == 1).await;
        fs::write(running.file("new"), SERVICE).unwrap();
        fs::rename(running.file("new"), &file).unwrap();
        let objects = running.stands(|objects| objects.problems.is_empty()).await;
        assert_eq!(objects.revision, revision, "{reason}: nothing had changed for nodes");
    }
    running.end().await;
}

#[tokio::test]
async fn a_directory_that_links_to_itself_is_named_and_read_once() {
    let running = Running::start().await;
    symlink(".", running.file("loop")).unwrap();
    let objects = running.stands(|objects| objects.problems.len() == 1).await;
    assert!(problem(&objects).contains("/loop: is the directory "), "{}", problem(&objects));
    assert_eq!((objects.revision, objects.files), (1, 3));
    fs::remove_file(running.file("loop")).unwrap();
    running.stands(|objects| objects.problems.is_empty()).await;
    running.end().await;
}

#[tokio::test]
async fn an_object_that_breaks_is_counted_by_its_kind() {
    let running = Running::start().await;
    fs::write(running.file("a.yaml"), SERVICE.replace("80", "eighty")).unwrap();
    let objects = running.stands(|objects| !objects.problems.is_empty()).await;
    assert!(problem(&objects).contains("a.yaml:4: Service default/a: spec.ports[0].port: "), "{objects:?}");
    assert_eq!((objects.counts["Service"].accepted, objects.counts["Service"].rejected), (2, 1));
    running.end().await;
}

/// The times are printed, not asserted: they depend on what else the machine does.
#[tokio::test]
#[allow(clippy::print_stdout, reason = "the times are what it is for")]
async fn a_written_file_is_all_that_its_change_sends_and_the_node_answers_for_it() {
    let write = |source: &Path, number: u32, port: u32| {
        let text = SERVICE.replace("name: a", &format!("name: s{number}")).replace("80", &port.to_string());
        fs::write(source.join(format!("{number}.yaml")), text).unwrap();
    };
    let running = Running::over(|source| (0..100).for_each(|number| write(source, number, 80))).await;

    let mut node = Subscriber::new("a".into());
    let member = running.join("a").await;
    let mut stream = Stream::open(running.server.address(), &member, node.hello()).await.unwrap();
    let first = stream.commit(&mut node).await;
    stream.apply(&mut node, first.position).await;
    let mut reports = running.server.handle().watch_acks();
    let mut times = Vec::new();
    for change in 0..20 {
        let begin = Instant::now();
        write(&running.file(""), change, 8080);
        let commit = stream.commit(&mut node).await;
        let received = begin.elapsed();
        let changed: Vec<String> = commit.changed.iter().map(ToString::to_string).collect();
        assert_eq!(changed, [format!("service/default/s{change}")]);
        stream.apply(&mut node, commit.position).await;
        let revision = Some(commit.position.revision);
        let answered = reports.wait_for(|report| report.nodes["a"].applied == revision);
        timeout(DEADLINE, answered).await.unwrap().unwrap();
        times.push((received, begin.elapsed()));
    }
    times.sort();
    let (received, answered) = times[times.len() / 2];
    println!("a written file is received after {received:.1?} and acknowledged after {answered:.1?}");
    running.end().await;
}

#[tokio::test]
async fn a_touched_file_lets_a_controller_speak_that_knew_less_than_its_node() {
    let running = Running::over(|source| fs::write(source.join("a.yaml"), SERVICE).unwrap()).await;

    let mut node = Subscriber::new("a".into());
    let told = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let hello = Hello { versions: Versions::of("files", told), ..node.hello() };
    let member = running.join("a").await;
    let mut stream = Stream::open(running.server.address(), &member, hello).await.unwrap();
    let mut reports = running.server.handle().watch_acks();
    let refused = reports.wait_for(|report| report.nodes.get("a").is_some_and(|node| node.ahead.is_some()));
    timeout(DEADLINE, refused).await.unwrap().unwrap();
    // The clock of files may be some milliseconds behind that of the hello.
    tokio::time::sleep(Duration::from_millis(20)).await;
    File::options()
        .append(true)
        .open(running.file("a.yaml"))
        .unwrap()
        .set_modified(SystemTime::now())
        .unwrap();
    let commit = stream.commit(&mut node).await;
    assert_eq!(commit.snapshot.services().count(), 1);
    running.end().await;
}

const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: weft}\n\
    spec: {controllerName: weft.dev/gateway-controller}\n---\n\
    apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: default}\n\
    spec: {gatewayClassName: weft, listeners: [{name: http, protocol: HTTP, port: 8080}]}\n";

#[tokio::test]
async fn a_node_that_the_source_does_not_name_programs_no_gateway() {
    let running = Running::start().await;
    fs::write(running.file("gateway.yaml"), GATEWAY).unwrap();
    let node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: real}\n";
    fs::write(running.file("node.yaml"), node).unwrap();
    let says =
        |text: &'static str| move |objects: &Objects| serde_json::to_string(objects).unwrap().contains(text);
    running.stands(says("no node is connected")).await;
    let address = running.server.address();
    for (name, then) in [
        ("invented", "no node of the source is connected, only invented, which it has not"),
        ("real", "the connected nodes serve it"),
    ] {
        let member = running.join(name).await;
        let mut subscriber = Subscriber::new(name.into());
        let mut stream = Stream::open(address, &member, subscriber.hello()).await.unwrap();
        let commit = stream.commit(&mut subscriber).await;
        stream.apply(&mut subscriber, commit.position).await;
        let objects = running.stands(says(then)).await;
        assert!(says("lastTransitionTime")(&objects));
    }
    running.end().await;
}

#[tokio::test]
async fn a_source_without_any_object_is_refused_at_the_start_and_removes_nothing_later() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("source")).unwrap();
    let server = server(&root.path().join("state")).await;
    let error =
        Reconciler::start(config(root.path()), server.handle().clone()).await.unwrap_err().to_string();
    for part in ["/source: holds no object", "--allow-empty-source", "nothing was published"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(server.handle().watch_acks().borrow().revision, 0);
    let source = SourceConfig::Directory { path: root.path().join("source"), allow_empty: true };
    let believed = ReconcilerConfig { source, ..config(root.path()) };
    assert_eq!(Reconciler::start(believed, server.handle().clone()).await.unwrap().revision(), 1);
    server.shutdown().await;

    let running = Running::start().await;
    for name in ["a.yaml", "b.yaml", "c.yaml"] {
        fs::remove_file(running.file(name)).unwrap();
    }
    let objects = running.stands(|objects| objects.withheld.is_some()).await;
    assert!(problem(&objects).contains("/source: holds no object"), "{}", problem(&objects));
    assert_eq!(objects.counts["Service"].accepted, 3, "what was read before stays");
    let revision = objects.revision;
    fs::write(running.file("c.yaml"), SERVICE.replace("name: a", "name: c")).unwrap();
    let objects = running.stands(|objects| objects.withheld.is_none()).await;
    assert_eq!((objects.counts["Service"].accepted, objects.revision), (1, revision + 1));
    running.end().await;
}

#[tokio::test]
async fn a_file_that_breaks_keeps_what_it_had_when_it_is_renamed() {
    let running = Running::start().await;
    fs::write(running.file("a.yaml"), b"kind: \xff\n").unwrap();
    running.stands(|objects| objects.problems.len() == 1).await;
    fs::rename(running.file("a.yaml"), running.file("renamed.yaml")).unwrap();
    let objects = running.stands(|objects| objects.problems.len() == 2).await;
    assert!(problem(&objects).contains("/a.yaml: is gone while "), "{}", problem(&objects));
    assert_eq!(objects.counts["Service"].accepted, 3);
    fs::write(running.file("renamed.yaml"), SERVICE).unwrap();
    let objects = running.stands(|objects| objects.problems.is_empty()).await;
    assert_eq!(objects.counts["Service"].accepted, 3);
    running.end().await;
}
