// SPDX-License-Identifier: Apache-2.0
//! A node and its pods as network namespaces, for the tests that need a kernel. Removed when dropped.
#![allow(dead_code, reason = "each test uses a part")]
#![allow(unsafe_code, reason = "setns")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::IpAddr,
    os::fd::AsRawFd,
    path::PathBuf,
    process::Command,
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use weft_ebpf_redirect::{
    Applied, Attachment, Counters, Datapath, DatapathConfig, Events, KernelEvent, PodConnections,
};
use weft_ir::{
    AppProtocol, Endpoint, EndpointPort, Endpoints, Identity, IdentityNumber, MeshDefaults, Node, ObjectName,
    PathMatch, Policy, PolicyDirection, PolicyKind, PolicyRule, Protocol, Resource, ResourceKey, Route,
    RouteAction, RouteKind, RouteMatch, RouteParent, RouteTimeouts, Selector, Service, ServicePort, Snapshot,
    Tier, Workload,
};
use weft_policy::{PolicySet, capture::Services};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// How pods are connected to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A route per pod, as the ptp CNI has it.
    Routed,
    /// A bridge, as the bridge CNI has it.
    Bridged,
}

/// A pod.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    /// Its network namespace.
    pub(crate) namespace: String,
    /// Its addresses, IPv4 first.
    pub(crate) addresses: [IpAddr; 2],
    /// The node's end of its veth.
    pub(crate) device: String,
}

/// A node with its pods.
pub(crate) struct Lab {
    /// The node's network namespace.
    pub(crate) node: String,
    /// The pods.
    pub(crate) pods: Vec<Pod>,
    /// The node's datapath.
    pub(crate) config: DatapathConfig,
    id: u32,
    directory: tempfile::TempDir,
    namespaces: Vec<String>,
}

/// Runs a command line, which must succeed.
pub(crate) fn sh(line: &str) {
    let output = Command::new("sh").args(["-ec", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a function on a thread of its own in a network namespace.
pub(crate) fn inside<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let path = format!("/run/netns/{namespace}");
    std::thread::spawn(move || {
        let namespace = File::open(&path).unwrap();
        // SAFETY: the descriptor is open, and only this thread changes.
        assert_eq!(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
        work()
    })
}

impl Lab {
    /// Makes a node with this number of pods.
    pub(crate) fn new(shape: Shape, pods: usize) -> Lab {
        // SAFETY: no arguments, cannot fail.
        assert_eq!(unsafe { libc::geteuid() }, 0, "this test needs root");
        let id = std::process::id() % 10_000 * 10 + COUNT.fetch_add(1, Ordering::Relaxed);
        let node = format!("wr{id}");
        sh(&format!(
            "ip netns add {node}; ip -n {node} link set lo up
             ip netns exec {node} sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
               net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0"
        ));
        let directory = tempfile::tempdir().unwrap();
        let cgroup = weft_ebpf_redirect::cgroup2_mount().unwrap().join(format!("weft-test-{id}"));
        std::fs::create_dir_all(&cgroup).unwrap();
        let mut config = DatapathConfig::new(
            "one",
            cgroup,
            PathBuf::from(format!("/sys/fs/bpf/weft-test-{id}")),
            directory.path().join("state"),
        );
        // The same tests are built once more under this name.
        if env!("CARGO_CRATE_NAME").ends_with("clsact") {
            config.attachment = Attachment::Clsact;
        }
        config.cni_results = directory.path().join("cni");
        let mut lab =
            Lab { node: node.clone(), pods: Vec::new(), config, id, directory, namespaces: vec![node] };
        lab.uplink();
        if shape == Shape::Bridged {
            lab.node_sh(
                "ip link add br0 type bridge; ip addr add 10.244.9.1/24 dev br0
                ip -6 addr add fd00:9::1/64 dev br0 nodad; ip link set br0 up",
            );
        }
        for index in 0..pods {
            lab.add_pod(shape, index);
        }
        lab
    }

    /// Runs a command line in the node.
    pub(crate) fn node_sh(&self, line: &str) {
        let node = &self.node;
        sh(&format!("ip netns exec {node} sh -ec '{line}'"));
    }

    /// Writes what the bridge plug-in would have answered for a pod, as libcni keeps it.
    pub(crate) fn cni_result(&self, name: &ObjectName, pod: &Pod) {
        let [v4, v6] = pod.addresses;
        let text = format!(
            r#"{{"kind":"cniCacheV1","containerId":"c","config":"e30=","ifName":"eth0","networkName":"n","cniArgs":
            [["K8S_POD_NAMESPACE","{}"],["K8S_POD_NAME","{}"]],"result":{{"cniVersion":"1.0.0","interfaces":
            [{{"name":"br0"}},{{"name":"{}"}},{{"name":"eth0","sandbox":"/run/netns/{}"}}],
            "ips":[{{"address":"{v4}/24"}},{{"address":"{v6}/64"}}]}}}}"#,
            name.namespace, name.name, pod.device, pod.namespace
        );
        std::fs::create_dir_all(&self.config.cni_results).unwrap();
        std::fs::write(self.config.cni_results.join(&*name.name), text).unwrap();
    }

    /// Removes a namespace with the lab.
    pub(crate) fn adopt(&mut self, namespace: &str) {
        self.namespaces.push(namespace.to_owned());
    }

    /// Another machine on the node's uplink.
    pub(crate) fn remote(&self) -> String {
        format!("wr{}r", self.id)
    }

    fn uplink(&mut self) {
        let (node, remote) = (self.node.clone(), self.remote());
        sh(&format!(
            "ip netns add {remote}; ip -n {remote} link set lo up
             ip link add up0 netns {node} type veth peer name eth0 netns {remote}
             ip -n {node} addr add 172.30.9.1/24 dev up0; ip -n {node} -6 addr add fd00:30::1/64 dev up0 nodad
             ip -n {node} link set up0 up
             ip -n {remote} addr add 172.30.9.2/24 dev eth0; ip -n {remote} -6 addr add fd00:30::2/64 dev eth0 nodad
             ip -n {remote} link set eth0 up
             ip -n {remote} route add 10.244.9.0/24 via 172.30.9.1
             ip -n {remote} -6 route add fd00:9::/64 via fd00:30::1
             ip -n {node} route add default via 172.30.9.2; ip -n {node} -6 route add default via fd00:30::2"
        ));
        self.namespaces.push(remote);
    }

    /// Makes one more pod.
    pub(crate) fn add_pod(&mut self, shape: Shape, index: usize) {
        let (node, host) = (self.node.clone(), 2 + index * 64);
        let name = format!("wr{}p{index}", self.id);
        let (v4, v6) = (format!("10.244.9.{host}"), format!("fd00:9::{host:x}"));
        // Before it is made, so that it goes also when the rest fails.
        self.namespaces.push(name.clone());
        sh(&format!(
            "ip netns add {name}; ip -n {name} link set lo up
             ip netns exec {name} sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
             ip link add p{index} netns {node} type veth peer name eth0 netns {name}
             ip -n {node} link set p{index} up"
        ));
        if shape == Shape::Bridged {
            sh(&format!(
                "ip -n {node} link set p{index} master br0
                 ip -n {name} addr add {v4}/24 dev eth0; ip -n {name} -6 addr add {v6}/64 dev eth0 nodad
                 ip -n {name} link set eth0 up
                 ip -n {name} route add default via 10.244.9.1; ip -n {name} -6 route add default via fd00:9::1"
            ));
        } else {
            sh(&format!(
                "ip -n {node} addr add 169.254.77.1/32 dev p{index}
                 ip -n {node} -6 addr add fe80::77/64 dev p{index} nodad
                 ip -n {name} addr add {v4}/32 dev eth0; ip -n {name} -6 addr add {v6}/128 dev eth0 nodad
                 ip -n {name} link set eth0 up
                 ip -n {name} route add 169.254.77.1 dev eth0 scope link
                 ip -n {name} route add default via 169.254.77.1
                 ip -n {name} -6 route add default via fe80::77 dev eth0
                 ip -n {node} route add {v4}/32 dev p{index}; ip -n {node} -6 route add {v6}/128 dev p{index}"
            ));
        }
        self.pods.push(Pod {
            namespace: name,
            addresses: [v4.parse().unwrap(), v6.parse().unwrap()],
            device: format!("p{index}"),
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            let _gone = Command::new("ip").args(["netns", "del", namespace]).output();
        }
        let _gone = std::fs::remove_dir_all(self.config.bpffs.join("links"));
        let _gone = std::fs::remove_dir_all(self.config.bpffs.join("maps"));
        let _gone = std::fs::remove_dir(&self.config.bpffs);
        let _gone = std::fs::remove_dir(&self.config.cgroup);
    }
}

/// A state for the lab: pod 0 is the client, pod 1 the server behind `shop/server`.
pub(crate) struct State {
    snapshot: Snapshot,
}

/// The workload that a pod is.
pub(crate) fn workload(index: u32, pod: &Pod) -> Workload {
    Workload {
        name: ObjectName::new("shop", &format!("pod{index}")),
        node: "one".into(),
        addresses: pod.addresses.to_vec(),
        identity: IdentityNumber(identity_of(index)),
        service_account: "default".into(),
        host_network: false,
        owner: "".into(),
        ports: vec![],
    }
}

/// Addresses of the service with a route.
pub(crate) const VIP: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
/// Identity of pod `index`.
pub(crate) const fn identity_of(index: u32) -> u32 {
    1000 + index
}

impl State {
    /// Workloads, their identities and the node; pods can do what they like.
    pub(crate) fn new(pods: &[Pod]) -> State {
        let mut state = State { snapshot: Snapshot { revision: 1, ..Snapshot::default() } };
        state.add(Resource::Node(Node {
            name: "one".into(),
            addresses: vec!["172.30.9.1".parse().unwrap(), "fd00:30::1".parse().unwrap()],
            ingress_addresses: vec![],
            pod_cidrs: vec![],
        }));
        state.add(Resource::MeshDefaults(MeshDefaults {
            pod_cidrs: vec!["10.244.0.0/16".parse().unwrap(), "fd00:9::/64".parse().unwrap()],
        }));
        for (index, pod) in (0..).zip(pods) {
            let number = IdentityNumber(identity_of(index));
            let labels = [
                ("k8s:app".into(), format!("pod{index}").into()),
                ("k8s:io.kubernetes.pod.namespace".into(), "shop".into()),
            ];
            state.add(Resource::Identity(Identity { number, labels: BTreeMap::from(labels) }));
            state.add(Resource::Workload(workload(index, pod)));
        }
        state
    }

    /// Adds or replaces a resource.
    pub(crate) fn add(&mut self, resource: Resource) {
        self.snapshot.revision += 1;
        self.snapshot.insert(resource);
    }

    /// Removes a resource.
    pub(crate) fn remove(&mut self, key: &ResourceKey) {
        self.snapshot.revision += 1;
        self.snapshot.resources.remove(key);
    }

    /// A service on `addresses`, port 80, in front of `backends` on port `target`.
    pub(crate) fn service(
        &mut self,
        name: &str,
        protocol: Protocol,
        addresses: &[IpAddr],
        backends: &[IpAddr],
        target: u16,
    ) {
        self.service_at(name, (80, protocol), addresses, backends, target);
    }

    /// A service on another port.
    pub(crate) fn service_at(
        &mut self,
        name: &str,
        (port, protocol): (u16, Protocol),
        addresses: &[IpAddr],
        backends: &[IpAddr],
        target: u16,
    ) {
        self.add(Resource::Service(Service {
            name: ObjectName::new("shop", name),
            addresses: addresses.to_vec(),
            ports: vec![ServicePort { name: "".into(), port, protocol, app_protocol: AppProtocol::Unknown }],
        }));
        self.add(Resource::Endpoints(Endpoints {
            name: ObjectName::new("shop", &format!("{name}-1")),
            service: name.into(),
            ports: vec![EndpointPort { name: "".into(), port: target, protocol }],
            endpoints: backends
                .iter()
                .map(|address| Endpoint { address: *address, ready: true, serving: true, terminating: false })
                .collect(),
        }));
    }

    /// A route for a service.
    pub(crate) fn route(&mut self, service: &str) {
        self.add(Resource::Route(Route {
            kind: RouteKind::HttpRoute,
            origin: ObjectName::new("shop", service),
            rule: 0,
            created: 0,
            parents: vec![RouteParent::Service { service: ObjectName::new("shop", service), port: None }],
            hostnames: vec![],
            matches: vec![RouteMatch {
                path: PathMatch::Prefix("/".into()),
                method: None,
                headers: vec![],
                query: vec![],
            }],
            action: RouteAction {
                filters: vec![],
                backends: vec![],
                timeouts: RouteTimeouts::default(),
                retry: None,
            },
        }));
    }

    /// A policy about pod `subject`.
    pub(crate) fn policy(
        &mut self,
        name: &str,
        subject: u32,
        ingress: PolicyDirection,
        egress: PolicyDirection,
    ) {
        self.add(Resource::Policy(Policy {
            kind: PolicyKind::CiliumNetworkPolicy,
            name: ObjectName::new("shop", name),
            index: 0,
            tier: Tier::Normal,
            priority: 0,
            subject: pod_selector(subject),
            ingress,
            egress,
        }));
    }

    /// The state.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// Selects pod `index`.
pub(crate) fn pod_selector(index: u32) -> Selector {
    Selector {
        requirements: vec![weft_ir::Requirement {
            key: "any:app".into(),
            operator: weft_ir::Operator::In(vec![format!("pod{index}").into()]),
        }],
    }
}

/// A direction that allows only these rules.
pub(crate) fn only(allow: Vec<PolicyRule>) -> PolicyDirection {
    PolicyDirection { default_deny: true, allow, deny: vec![] }
}

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How long the kernel may take to check the programs: emulated machines are slow.
const LOADING: Duration = Duration::from_secs(120);

enum Request {
    Apply(Snapshot, mpsc::Sender<Applied>),
    Refresh(mpsc::Sender<Applied>),
    PassedBy(mpsc::Sender<BTreeSet<ObjectName>>),
    KeepUp(mpsc::Sender<()>),
    ClearListeners(mpsc::Sender<()>),
    PodConnections(mpsc::Sender<PodConnections>),
    Watch(mpsc::Receiver<()>, mpsc::Sender<()>),
    Listeners(Vec<u16>, mpsc::Sender<()>),
    Leave,
    Counters(mpsc::Sender<Counters>),
    Events(mpsc::Sender<Vec<KernelEvent>>),
}

/// The datapath of a node, on a thread in its network namespace. Cleaned up when dropped.
pub(crate) struct Running {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Attaches, starts what `listeners` starts, and applies the state.
    pub(crate) fn start(
        lab: &Lab,
        state: &State,
        listeners: impl FnOnce() -> Vec<u16> + Send + 'static,
    ) -> Running {
        let (config, snapshot) = (lab.config.clone(), state.snapshot().clone());
        let (ready, wait) = mpsc::channel();
        let (requests, incoming) = mpsc::channel();
        let thread = inside(&lab.node, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let mut datapath = Datapath::attach(config.clone()).await.unwrap();
                let mut events = datapath.events().unwrap();
                datapath.set_listeners(&listeners()).unwrap();
                apply(&mut datapath, &snapshot).await;
                ready.send(()).unwrap();
                while let Ok(request) = incoming.recv() {
                    if let Request::Leave = request {
                        return;
                    }
                    serve(&mut datapath, &mut events, request).await;
                }
                drop(datapath);
                Datapath::cleanup(&config).await.unwrap();
            });
        });
        wait.recv_timeout(LOADING).expect("the datapath is attached");
        Running { requests: Some(requests), thread: Some(thread) }
    }

    fn ask<T>(&self, request: impl FnOnce(mpsc::Sender<T>) -> Request) -> T {
        let (reply, answer) = mpsc::channel();
        self.requests.as_ref().unwrap().send(request(reply)).unwrap();
        answer.recv_timeout(PATIENCE * 2).expect("an answer of the datapath")
    }

    /// Applies another state.
    pub(crate) fn apply(&self, state: &State) -> Applied {
        self.ask(|reply| Request::Apply(state.snapshot().clone(), reply))
    }

    /// Looks at the devices again.
    pub(crate) fn refresh(&self) -> Applied {
        self.ask(Request::Refresh)
    }

    /// What pods have open themselves.
    pub(crate) fn pod_connections(&self) -> PodConnections {
        self.ask(Request::PodConnections)
    }

    /// Takes its own listeners back, as a daemon does that ends.
    pub(crate) fn clear_listeners(&self) {
        self.ask(Request::ClearListeners)
    }

    /// Puts back what others changed, as a daemon does every few seconds.
    pub(crate) fn keep_up(&self) {
        self.ask(Request::KeepUp)
    }

    /// The pods that somebody delivers to past us, after a look.
    pub(crate) fn passed_by(&self) -> BTreeSet<ObjectName> {
        self.ask(Request::PassedBy)
    }

    /// Follows changes of devices, as the daemon does, until what is returned is dropped.
    pub(crate) fn watch(&self) -> mpsc::Sender<()> {
        let ((until, end), (begun, wait)) = (mpsc::channel(), mpsc::channel());
        self.requests.as_ref().unwrap().send(Request::Watch(end, begun)).unwrap();
        wait.recv_timeout(PATIENCE).unwrap();
        until
    }

    /// Sets other listeners.
    pub(crate) fn set_listeners(&self, ports: Vec<u16>) {
        self.ask(|reply| Request::Listeners(ports, reply));
    }

    /// Ends as a daemon does that is killed: everything stays in the kernel.
    pub(crate) fn leave(self) {
        self.requests.as_ref().unwrap().send(Request::Leave).unwrap();
    }

    /// The counters now.
    pub(crate) fn counters(&self) -> Counters {
        self.ask(Request::Counters)
    }

    /// The events since the last call.
    pub(crate) fn events(&self) -> Vec<KernelEvent> {
        self.ask(Request::Events)
    }
}

async fn apply(datapath: &mut Datapath, snapshot: &Snapshot) -> Applied {
    let policy = PolicySet::compile(snapshot, "one");
    let deadline = Instant::now() + PATIENCE;
    let services = Services::of(snapshot);
    let mut applied = datapath.apply(snapshot, &services, &policy).await.unwrap();
    while !applied.unattached.is_empty() {
        assert!(Instant::now() < deadline, "no device for {:?}", applied.unattached);
        let _late = tokio::time::timeout(Duration::from_millis(500), datapath.changed()).await;
        applied = datapath.refresh().await.unwrap();
    }
    applied
}

async fn serve(datapath: &mut Datapath, events: &mut Events, request: Request) {
    match request {
        Request::Apply(snapshot, reply) => {
            reply.send(apply(datapath, &snapshot).await).unwrap();
        }
        Request::Refresh(reply) => reply.send(datapath.refresh().await.unwrap()).unwrap(),
        Request::PodConnections(reply) => reply.send(datapath.pod_connections().unwrap()).unwrap(),
        Request::ClearListeners(reply) => {
            datapath.clear_listeners().unwrap();
            reply.send(()).unwrap();
        }
        Request::KeepUp(reply) => {
            datapath.keep_up().await.unwrap();
            reply.send(()).unwrap();
        }
        Request::PassedBy(reply) => {
            datapath.look_for_bypass().await.unwrap();
            reply.send(datapath.passed_by().await.unwrap()).unwrap();
        }
        Request::Watch(end, begun) => {
            begun.send(()).unwrap();
            while end.try_recv() == Err(mpsc::TryRecvError::Empty) {
                if tokio::time::timeout(Duration::from_millis(50), datapath.changed()).await.is_ok() {
                    datapath.refresh().await.unwrap();
                }
            }
        }
        Request::Leave => {}
        Request::Listeners(ports, reply) => {
            datapath.set_listeners(&ports).unwrap();
            reply.send(()).unwrap();
        }
        Request::Counters(reply) => reply.send(datapath.counters().unwrap()).unwrap(),
        Request::Events(reply) => {
            let mut found = Vec::new();
            while let Ok(event) = tokio::time::timeout(Duration::from_millis(100), events.next()).await {
                found.push(event.unwrap());
            }
            reply.send(found).unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.is_ok(), "the datapath's thread failed");
        }
    }
}
