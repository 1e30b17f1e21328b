// SPDX-License-Identifier: Apache-2.0
//! Which pod is behind which port of a bridge. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use std::{
    net::{IpAddr, SocketAddr},
    sync::mpsc,
    time::Duration,
};

use weft_ebpf_common::Reason;
use weft_ebpf_redirect::{KernelEvent, KernelEventKind};
use weft_ir::{ObjectName, PolicyDirection, Resource, ResourceKey};

#[path = "support/lab.rs"]
mod lab;

use lab::{Lab, PATIENCE, Pod, Running, Shape, State, inside, only, sh};

const PORT: u16 = 5353;
/// How long something that must not come is waited for.
const ABSENCE: Duration = Duration::from_millis(300);

/// Who sends datagrams to a port of the machine on the uplink.
struct Listener(mpsc::Receiver<IpAddr>);

impl Listener {
    fn start(namespace: &str) -> Listener {
        let ((ready, wait), (from, received)) = (mpsc::channel(), mpsc::channel());
        inside(namespace, move || {
            let socket = std::net::UdpSocket::bind(("::", PORT)).unwrap();
            ready.send(()).unwrap();
            socket.set_read_timeout(Some(4 * PATIENCE)).unwrap();
            while let Ok((_, sender)) = socket.recv_from(&mut [0; 64]) {
                let _gone = from.send(sender.ip().to_canonical());
            }
        });
        wait.recv_timeout(PATIENCE).unwrap();
        Listener(received)
    }

    fn hears(&self, from: IpAddr) -> bool {
        while let Ok(heard) = self.0.recv_timeout(ABSENCE) {
            if heard == from {
                return true;
            }
        }
        false
    }
}

/// Sends datagrams from an address until somebody could have heard them.
fn speak(namespace: &str, from: IpAddr) {
    let to: IpAddr = if from.is_ipv4() { "172.30.9.2" } else { "fd00:30::2" }.parse().unwrap();
    let spoken = inside(namespace, move || {
        let socket = std::net::UdpSocket::bind((from, 0)).unwrap();
        for _ in 0..3 {
            let _sent = socket.send_to(b"x", SocketAddr::new(to, PORT));
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    spoken.join().unwrap();
}

/// Gives a pod's namespace addresses, beside its own or instead. It need not ask who its router is.
fn take(lab: &Lab, pod: &Pod, addresses: [IpAddr; 2], instead: bool) {
    let (name, [v4, v6]) = (&pod.namespace, addresses);
    if instead {
        sh(&format!("ip -n {name} addr flush dev eth0 scope global"));
    }
    sh(&format!(
        "ip -n {name} addr add {v4}/24 dev eth0; ip -n {name} -6 addr add {v6}/64 dev eth0 nodad
         ip -n {name} route replace default via 10.244.9.1; ip -n {name} -6 route replace default via fd00:9::1"
    ));
    knows_router(lab, pod);
}

fn knows_router(lab: &Lab, pod: &Pod) {
    knows(lab, pod, "br0", "10.244.9.1 fd00:9::1");
}

/// Tells a pod the link-layer address of a device of the node.
fn knows(lab: &Lab, pod: &Pod, device: &str, addresses: &str) {
    let (name, node) = (&pod.namespace, &lab.node);
    sh(&format!(
        "mac=$(ip netns exec {node} cat /sys/class/net/{device}/address)
         for router in {addresses}; do ip -n {name} neigh replace $router lladdr $mac dev eth0; done"
    ));
}

fn told(running: &Running, reason: Reason, from: IpAddr) -> bool {
    is_told(&running.events(), reason, from)
}

fn is_told(events: &[KernelEvent], reason: Reason, from: IpAddr) -> bool {
    events.iter().any(|event| {
        matches!(event.kind, KernelEventKind::Drop { reason: found, .. } if found == reason)
            && event.source.ip() == from
    })
}

fn pod(index: usize) -> ObjectName {
    ObjectName::new("shop", &format!("pod{index}"))
}

/// The state without the pods of these numbers.
fn without(pods: &[Pod], gone: &[usize]) -> State {
    let mut state = State::new(pods);
    for index in gone {
        state.remove(&ResourceKey::Workload(pod(*index)));
    }
    state
}

#[test]
#[ignore = "needs root"]
fn a_pod_is_found_behind_a_bridge_that_has_learned_nothing() {
    let lab = Lab::new(Shape::Bridged, 2);
    for pod in &lab.pods {
        lab.node_sh(&format!("bridge link set dev {} learning off", pod.device));
    }
    let mut state = State::new(&lab.pods);
    state.policy("closed", 1, PolicyDirection::default(), only(vec![]));
    let heard = Listener::start(&lab.remote());
    let running = Running::start(&lab, &state, Vec::new);
    for family in [0, 1] {
        let [open, closed] = [0, 1].map(|index: usize| lab.pods[index].addresses[family]);
        speak(&lab.pods[1].namespace, closed);
        assert!(told(&running, Reason::PolicyDenied, closed));
        speak(&lab.pods[0].namespace, open);
        assert!(heard.hears(open));
        assert!(!heard.hears(closed));
    }
}

#[test]
#[ignore = "needs root"]
fn a_pod_has_no_address_but_its_own_free_or_not() {
    let lab = Lab::new(Shape::Bridged, 2);
    let mut state = State::new(&lab.pods);
    state.policy("closed", 0, PolicyDirection::default(), only(vec![]));
    let free: [IpAddr; 2] = ["10.244.9.99".parse().unwrap(), "fd00:9::99".parse().unwrap()];
    take(&lab, &lab.pods[0], free, false);
    let heard = Listener::start(&lab.remote());
    let running = Running::start(&lab, &state, Vec::new);
    for address in free {
        speak(&lab.pods[0].namespace, address);
        assert!(!heard.hears(address), "{address}");
        assert!(told(&running, Reason::InvalidSourceIp, address), "{address}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_pod_that_nobody_knows_says_nothing() {
    let lab = Lab::new(Shape::Bridged, 2);
    knows_router(&lab, &lab.pods[1]);
    let heard = Listener::start(&lab.remote());
    let running = Running::start(&lab, &without(&lab.pods, &[1]), Vec::new);
    for address in lab.pods[1].addresses {
        speak(&lab.pods[1].namespace, address);
        assert!(!heard.hears(address), "{address}");
        assert!(told(&running, Reason::UnknownOwner, address), "{address}");
    }
    let mut state = State::new(&lab.pods);
    state.add(Resource::Workload(lab::workload(1, &lab.pods[1])));
    running.apply(&state);
    for address in lab.pods[1].addresses {
        speak(&lab.pods[1].namespace, address);
        assert!(heard.hears(address), "{address}");
    }
}

#[test]
#[ignore = "needs root"]
fn the_rightful_pod_has_the_address_that_another_took_before() {
    let lab = Lab::new(Shape::Bridged, 2);
    let [thief, rightful] = [&lab.pods[0], &lab.pods[1]];
    // Before the rightful pod is known, and without giving up its own.
    take(&lab, thief, rightful.addresses, false);
    let heard = Listener::start(&lab.remote());
    let running = Running::start(&lab, &without(&lab.pods, &[1]), Vec::new);
    for address in rightful.addresses {
        speak(&thief.namespace, address);
        assert!(!heard.hears(address), "{address}");
        assert!(told(&running, Reason::InvalidSourceIp, address), "{address}");
    }
    assert_eq!(running.apply(&State::new(&lab.pods)).ownerless, []);
    for address in rightful.addresses {
        speak(&thief.namespace, address);
        assert!(!heard.hears(address), "{address}");
        speak(&rightful.namespace, address);
        assert!(heard.hears(address), "{address}");
    }
}

#[test]
#[ignore = "needs root"]
fn where_two_namespaces_claim_an_address_neither_has_it_until_its_maker_says_so() {
    let lab = Lab::new(Shape::Bridged, 2);
    let [thief, rightful] = [&lab.pods[0], &lab.pods[1]];
    take(&lab, thief, rightful.addresses, true);
    knows_router(&lab, rightful);
    let heard = Listener::start(&lab.remote());
    let running = Running::start(&lab, &State::new(&lab.pods), Vec::new);
    let ownerless = running.refresh().ownerless;
    for address in rightful.addresses {
        let told = ownerless.iter().find(|told| told.address == address).unwrap();
        assert_eq!((&told.pod, &told.claimed_by[..]), (&pod(1), &["p0".to_owned(), "p1".to_owned()][..]));
        for pod in [thief, rightful] {
            speak(&pod.namespace, address);
            assert!(!heard.hears(address), "{address} from {}", pod.device);
        }
    }
    lab.cni_result(&pod(1), rightful);
    assert_eq!(running.refresh().ownerless.iter().filter(|told| told.pod == pod(1)).count(), 0);
    for address in rightful.addresses {
        speak(&thief.namespace, address);
        assert!(!heard.hears(address), "{address}");
        speak(&rightful.namespace, address);
        assert!(heard.hears(address), "{address}");
    }
    // Also for a process that finds another one's tables.
    running.leave();
    let running = Running::start(&lab, &State::new(&lab.pods), Vec::new);
    for address in rightful.addresses {
        speak(&rightful.namespace, address);
        assert!(heard.hears(address), "{address}");
    }
    drop(running);
}

/// Sends from each address of a pod, all the time from before it has any, until what is returned is dropped.
fn chatter(pod: &Pod) -> mpsc::Sender<()> {
    let (until, end) = mpsc::channel();
    let addresses = pod.addresses;
    inside(&pod.namespace, move || {
        while end.try_recv() == Err(mpsc::TryRecvError::Empty) {
            for address in addresses {
                let to: IpAddr = if address.is_ipv4() { "172.30.9.2" } else { "fd00:30::2" }.parse().unwrap();
                let sent = std::net::UdpSocket::bind((address, 0))
                    .and_then(|socket| socket.send_to(b"x", SocketAddr::new(to, PORT)));
                let _not_yet = sent;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    until
}

#[test]
#[ignore = "needs root"]
fn a_new_pod_says_nothing_until_it_is_known_and_then_what_it_may() {
    for shape in [Shape::Routed, Shape::Bridged] {
        let mut lab = Lab::new(shape, 1);
        lab.config.pod_devices = vec!["p*".to_owned()];
        let heard = Listener::start(&lab.remote());
        let running = Running::start(&lab, &State::new(&lab.pods), Vec::new);
        let watching = running.watch();
        lab.add_pod(shape, 1);
        match shape {
            Shape::Routed => knows(&lab, &lab.pods[1], "p1", "169.254.77.1 fe80::77"),
            Shape::Bridged => knows_router(&lab, &lab.pods[1]),
        }
        let talking = chatter(&lab.pods[1]);
        std::thread::sleep(Duration::from_secs(1));
        drop(watching);
        let events = running.events();
        for address in lab.pods[1].addresses {
            assert!(!heard.hears(address), "{shape:?} {address}");
            assert!(is_told(&events, Reason::UnknownOwner, address), "{shape:?} {address}");
        }
        let unowned = running.refresh().unowned;
        assert!(unowned.get("p1").is_some_and(|age| *age > Duration::from_millis(500)), "{unowned:?}");
        // What it may not is dropped from then on for that, and never passed in between.
        let mut state = State::new(&lab.pods);
        state.policy("closed", 1, PolicyDirection::default(), only(vec![]));
        assert_eq!(running.apply(&state).unowned.len(), 0);
        assert!(lab.pods[1].addresses.into_iter().all(|address| !heard.hears(address)), "{shape:?}");
        running.apply(&State::new(&lab.pods));
        assert!(lab.pods[1].addresses.into_iter().all(|address| heard.hears(address)), "{shape:?}");
        drop(talking);
    }
}

#[test]
#[ignore = "needs root"]
fn devices_of_others_are_left_alone() {
    // A container behind a bridge of its own, with a name that Docker gives, or nerdctl.
    for device in ["veth1a2b3c4", "veth1a2b3c4d"] {
        left_alone(device);
    }
}

fn left_alone(device: &str) {
    let mut lab = Lab::new(Shape::Bridged, 1);
    let heard = Listener::start(&lab.remote());
    let running = Running::start(&lab, &State::new(&lab.pods), Vec::new);
    let watching = running.watch();
    let (node, name) = (lab.node.clone(), format!("{}d", lab.node));
    lab.adopt(&name);
    sh(&format!(
        "ip netns add {name}; ip -n {name} link set lo up
         ip -n {node} link add docker0 type bridge; ip -n {node} addr add 172.17.0.1/16 dev docker0
         ip -n {node} link set docker0 up
         ip link add {device} netns {node} type veth peer name eth0 netns {name}
         ip -n {node} link set {device} master docker0 up
         ip -n {name} addr add 172.17.0.2/16 dev eth0; ip -n {name} link set eth0 up
         ip -n {name} route add default via 172.17.0.1
         ip -n {} route add 172.17.0.0/16 via 172.30.9.1",
        lab.remote()
    ));
    let address = "172.17.0.2".parse().unwrap();
    // What has a pod's name is closed until it is a port.
    drop(watching);
    running.refresh();
    speak(&name, address);
    assert!(heard.hears(address));
    assert_eq!(running.refresh().unowned.len(), 0);
}
