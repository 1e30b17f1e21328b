// SPDX-License-Identifier: Apache-2.0
//! Random packets, lost, repeated and in any order, between two pods of the node and an address outside,
//! with policies that change in between, through the real programs on one table. Beside it a model in a
//! few lines: the programs must pass what it passes, and nothing else, at every step.
//!
//! The seeds are fixed; `WEFT_SEEDS=1000` tries as many others. Needs root.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use std::collections::{BTreeMap, HashMap};

use weft_ebpf_common::{
    Action, Reason, Verdict,
    layout::{ANY_IDENTITY, Address, CHANGES, Change, EGRESS, INGRESS, POLICY_PREFIX, PolicyKey, Workload},
    verdict::{Level, TIER_NORMAL},
};
use weft_ebpf_redirect::{
    bpf::{self, Prefix},
    desired::address_prefix,
};

#[path = "support/bench.rs"]
mod bench;

use bench::*;

const ICMP: u8 = 1;
const FIN: u8 = 1;
const RST: u8 = 4;
/// Sequence numbers that no end would believe.
const FAR: u32 = 0x8000_0000;
const OUTSIDE: usize = VIP;
const PODS: [usize; 2] = [POD, PEER];
const PROTOCOLS: [u8; 3] = [TCP, UDP, ICMP];
const PORTS_IN_USE: [u16; 3] = [40_000, 8080, 53];

/// What the address outside is called, now and then.
const NAMES: [u32; 2] = [2, 5000];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// What a pod's policy says.
#[derive(Clone, Default)]
struct Policy {
    rest: [Verdict; 2],
    /// By direction, identity, protocol and port; 0 for any of the last two.
    entries: BTreeMap<(u8, u32, u8, u16), Verdict>,
}

impl Policy {
    fn random(random: &mut Random) -> Policy {
        let deny = Verdict::deny(Level::last(TIER_NORMAL), 1, Reason::PolicyDenied as u16);
        let rest = [0, 1].map(|_| random.of(&[deny, Verdict::allow(Level::NONE, 0)]));
        let mut policy = Policy { rest, entries: BTreeMap::new() };
        for _ in 0..random.below(5) {
            let level = Level::new(TIER_NORMAL, random.below(2) as u16);
            let verdict = random.of(&[
                Verdict::allow(level, 2),
                Verdict::allow(level, 2),
                Verdict::deny(level, 3, Reason::DeniedByRule as u16),
                Verdict::redirect(level, 4),
            ]);
            let identity = random.of(&[POD_IDENTITY, PEER_IDENTITY, NAMES[0], NAMES[1], ANY_IDENTITY]);
            let protocol = random.of(&[0, TCP, UDP]);
            let port = if protocol == 0 { 0 } else { random.of(&[0, 8080, 53, 40_000]) };
            let _same =
                policy.entries.insert((random.of(&[EGRESS, INGRESS]), identity, protocol, port), verdict);
        }
        policy
    }

    /// What it says of connections to or from somebody, to a port.
    fn allows(&self, way: u8, peer: u32, protocol: u8, port: u16) -> bool {
        let mut found = self.rest[usize::from(way)];
        for identity in [peer, ANY_IDENTITY] {
            for protocol in [protocol, 0] {
                let entry = |port| self.entries.get(&(way, identity, protocol, port));
                if let Some(entry) = entry(port).or_else(|| entry(0)) {
                    found = found.or(*entry);
                }
            }
        }
        found.action() == Action::Allow
    }
}

/// Who sends what to whom. Of an echo, the first port is its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sent {
    from: usize,
    to: usize,
    ports: (u16, u16),
    protocol: u8,
    flags: u8,
}

impl Sent {
    fn random(random: &mut Random) -> Sent {
        let from = random.below(3);
        let to = (from + 1 + random.below(2)) % 3;
        let protocol = random.of(&PROTOCOLS);
        let ports = match protocol {
            ICMP => random.of(&[(7, 0), (0, 7)]),
            _ => (random.of(&PORTS_IN_USE), random.of(&PORTS_IN_USE)),
        };
        let flags = match protocol {
            TCP => random.of(&[SYN, SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST]),
            _ => 0,
        };
        Sent { from, to, ports, protocol, flags }
    }

    /// Another packet of the same connection.
    fn other(self, random: &mut Random) -> Sent {
        let mut next = Sent::random(random);
        next.flags =
            if self.protocol == TCP { random.of(&[SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST]) } else { 0 };
        next.protocol = self.protocol;
        (next.from, next.to, next.ports) = match random.below(2) {
            0 => (self.from, self.to, self.ports),
            _ => (self.to, self.from, (self.ports.1, self.ports.0)),
        };
        next
    }

    fn begins(self) -> bool {
        self.protocol == TCP && self.flags == SYN
    }

    fn opens(self) -> bool {
        match self.protocol {
            TCP => self.begins(),
            ICMP => self.ports.1 == 0,
            _ => true,
        }
    }

    /// Both ends in one order.
    fn connection(self) -> ([(usize, u16); 2], u8) {
        let mut ends = [(self.from, self.ports.0), (self.to, self.ports.1)];
        ends.sort_unstable();
        (ends, self.protocol)
    }

    fn frame(self, bench: &Bench) -> Vec<u8> {
        match self.protocol {
            TCP => {
                let mut frame = bench.tcp(self.from, self.to, self.ports, self.flags);
                let at = if bench.v6 { 54 } else { 34 };
                if self.flags & (FIN | RST) != 0 {
                    frame[at + 4..at + 8].copy_from_slice(&FAR.to_be_bytes());
                }
                frame
            }
            UDP => bench.udp(self.from, self.to, self.ports),
            _ => bench.echo(self.from, self.to, self.opens()),
        }
    }
}

/// As what an end has let a connection in or out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Opener,
    Other,
    /// It has not seen who opened it.
    Either,
}

#[derive(Clone, Debug)]
struct Known {
    opener: usize,
    half_open: bool,
    answered: bool,
    ways: HashMap<usize, Way>,
}

/// What the node should do.
#[derive(Default)]
struct Model {
    policies: HashMap<usize, Policy>,
    connections: HashMap<([(usize, u16); 2], u8), Known>,
    /// Which of the names the address outside has.
    outside: usize,
}

impl Model {
    fn identity(&self, who: usize) -> u32 {
        [POD_IDENTITY, PEER_IDENTITY, NAMES[self.outside]][who]
    }

    fn allows(&self, end: usize, way: Way, sent: Sent) -> bool {
        let (other, own_port, other_port) = match end == sent.from {
            true => (sent.to, sent.ports.0, sent.ports.1),
            false => (sent.from, sent.ports.1, sent.ports.0),
        };
        let (policy, peer) = (&self.policies[&end], self.identity(other));
        let ports = if sent.protocol == ICMP { (0, 0) } else { (own_port, other_port) };
        // The kernel's rules know ICMP by the number of the family; these name it nowhere.
        let out = || policy.allows(EGRESS, peer, sent.protocol, ports.1);
        let back = || policy.allows(INGRESS, peer, sent.protocol, ports.0);
        match way {
            Way::Opener => out(),
            Way::Other => back(),
            Way::Either => out() && back(),
        }
    }

    /// Whether the end of a pod lets a packet out or in.
    fn passes(&mut self, end: usize, sent: Sent) -> bool {
        let key = sent.connection();
        let renews = |known: &Known| sent.begins() && !(known.half_open && known.opener == sent.from);
        let known = self.connections.get(&key).filter(|known| !renews(known)).cloned();
        if let Some(way) = known.as_ref().and_then(|known| known.ways.get(&end)) {
            let allowed = self.allows(end, *way, sent);
            let known = self.connections.get_mut(&key).unwrap();
            match allowed {
                true => known.count(end, sent),
                false => known.half_open = false,
            }
            return allowed;
        }
        let way = match (sent.opens(), end == sent.from) {
            (true, true) => Way::Opener,
            (true, false) => Way::Other,
            (false, _) => Way::Either,
        };
        if !self.allows(end, way, sent) {
            return false;
        }
        let new = Known { opener: sent.from, half_open: true, answered: false, ways: HashMap::new() };
        let mut known = known.unwrap_or(new);
        known.ways.insert(end, way);
        self.connections.insert(key, known);
        true
    }
}

impl Known {
    /// A packet counts once: as it leaves a pod, else as it comes to one.
    fn count(&mut self, end: usize, sent: Sent) {
        if end != sent.from && self.ways.contains_key(&sent.from) || !self.half_open {
            return;
        }
        self.answered |= sent.from != self.opener && sent.flags & RST == 0;
        let confirmed = sent.protocol != TCP || sent.from == self.opener && sent.flags & SYN == 0;
        self.half_open = !(self.answered && confirmed);
    }
}

/// The programs and the model, and what is under way between the pods.
struct World {
    bench: Bench,
    model: Model,
    sets: u32,
    under_way: Vec<Sent>,
    /// How many packets went straight to the other pod.
    at_once: usize,
}

/// What `bpf_redirect_peer` answers.
const AT_ONCE: i32 = 7;

impl World {
    fn new(v6: bool) -> World {
        let bench = Bench::new(v6, 0);
        bench.maps.short_devices.update(&DEVICE, &1).unwrap();
        bench.maps.identities.update(&address_prefix(bench.ip(OUTSIDE).into()), &2).unwrap();
        bench.configure(|config| config.half_open_places = 1 << 20);
        World { bench, model: Model::default(), sets: 100, under_way: Vec::new(), at_once: 0 }
    }

    /// Writes a policy as a synchronisation does: the set, the workload, and then whom it concerns.
    fn change(&mut self, pod: usize, policy: Policy) {
        self.sets += 1;
        for ((direction, identity, protocol, port), verdict) in &policy.entries {
            let data = PolicyKey {
                set: self.sets,
                identity: *identity,
                direction: *direction,
                protocol: *protocol,
                port_be: port.to_be(),
            };
            let length = POLICY_PREFIX + if *port == 0 { 0 } else { 16 };
            self.bench.maps.policy.update(&Prefix { length, data }, verdict).unwrap();
        }
        let [egress, ingress] = policy.rest;
        let (id, identity) = (9 + pod as u32, self.model.identity(pod));
        let workload =
            Workload { id, ifindex: DEVICE, identity, policy: self.sets, flags: 0, egress, ingress };
        self.bench.maps.workloads.update(&self.bench.address(pod), &workload).unwrap();
        self.tell(pod);
        self.model.policies.insert(pod, policy);
    }

    /// The address outside is called something else.
    fn rename(&mut self) {
        self.model.outside ^= 1;
        let key = address_prefix(self.bench.ip(OUTSIDE).into());
        self.bench.maps.identities.update(&key, &self.model.identity(OUTSIDE)).unwrap();
        self.tell(OUTSIDE);
    }

    /// Writes down whom a change concerns; now and then, a wider prefix.
    fn tell(&mut self, who: usize) {
        let address = self.bench.address(who);
        self.sets += 1;
        let mask =
            Address([u32::MAX, u32::MAX, u32::MAX, if self.sets.is_multiple_of(3) { 0 } else { u32::MAX }]);
        self.bench.configure(|config| {
            config.epoch += 1;
            let masked = Address([0, 1, 2, 3].map(|word| address.0[word] & mask.0[word]));
            let change = Change { epoch: config.epoch, address: masked, mask };
            self.bench.maps.changes.update(&(config.epoch % CHANGES), &change).unwrap();
        });
    }

    /// A packet at the hook of one end: whether it went on, which is what the model says. One that goes straight to
    /// the other pod has passed the other end, too.
    fn pass(&mut self, end: usize, sent: Sent, told: &str) -> bool {
        let program = if end == sent.from { "from_pod" } else { "to_pod" };
        let mut context = [0_u8; 192];
        context[40..44].copy_from_slice(&DEVICE.to_ne_bytes());
        let program = self.bench.programs.fd(program).unwrap();
        let (verdict, _) = bpf::test_run(program, &sent.frame(&self.bench), &mut context).unwrap();
        let before = self.model.connections.get(&sent.connection()).cloned();
        let wanted = self.model.passes(end, sent);
        let at_once = verdict == AT_ONCE;
        assert_eq!(verdict == PASS || at_once, wanted, "{told}: {sent:?} at {end}, known {before:?}");
        if at_once {
            self.at_once += 1;
            assert!(end == sent.from && sent.to != OUTSIDE && !sent.begins(), "{told}: {sent:?} at {end}");
            assert!(self.model.passes(sent.to, sent), "{told}: {sent:?} went past {}", sent.to);
        }
        // Whatever the model thinks: what goes through, the policy allows one way or the other now, and what
        // begins a connection its own way.
        if wanted {
            let ways: &[Way] = match (sent.begins(), end == sent.from) {
                (true, true) => &[Way::Opener],
                (true, false) => &[Way::Other],
                (false, _) => &[Way::Opener, Way::Other],
            };
            assert!(ways.iter().any(|way| self.model.allows(end, *way, sent)), "{told}: {sent:?} at {end}");
        }
        wanted
    }

    fn send(&mut self, sent: Sent, told: &str) {
        let before = self.at_once;
        let left = sent.from == OUTSIDE || self.pass(sent.from, sent, told);
        if left && sent.to != OUTSIDE && self.at_once == before {
            self.under_way.push(sent);
        }
    }

    /// One of what is under way arrives, once or not for the last time.
    fn arrive(&mut self, random: &mut Random, told: &str) {
        if self.under_way.is_empty() {
            return;
        }
        let at = random.below(self.under_way.len());
        let sent = self.under_way[at];
        if random.below(5) != 0 {
            self.under_way.swap_remove(at);
        }
        if random.below(10) != 0 {
            self.pass(sent.to, sent, told);
        }
    }
}

/// How many packets went straight to the other pod.
fn run(seed: u64, v6: bool) -> usize {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut world = World::new(v6);
    for pod in PODS {
        world.change(pod, Policy::random(&mut random));
    }
    let mut last = Sent::random(&mut random);
    for step in 0..600 {
        let told = format!("seed {seed} v6 {v6} step {step}");
        match random.below(40) {
            0 => {
                let pod = random.of(&PODS);
                world.change(pod, Policy::random(&mut random));
            }
            2 if random.below(2) == 0 => world.rename(),
            // What was known is lost: evicted, or of another layout.
            1 if random.below(4) == 0 => {
                world.bench.forget();
                world.model.connections.clear();
            }
            1..=14 => world.arrive(&mut random, &told),
            15..=32 => {
                last = last.other(&mut random);
                world.send(last, &told);
            }
            _ => {
                last = Sent::random(&mut random);
                world.send(last, &told);
            }
        }
    }
    world.at_once
}

#[test]
#[ignore = "needs root"]
fn whatever_is_sent_the_kernel_passes_what_the_policy_allows_and_nothing_else() {
    let (first, seeds) = match std::env::var("WEFT_SEEDS") {
        Ok(count) => (1_000, count.parse().expect("a number of seeds")),
        Err(_) => (1, 12),
    };
    let at_once: usize = (first..first + seeds).map(|seed| run(seed, false) + run(seed, true)).sum();
    assert!(at_once > 0, "nothing took the short path");
}
