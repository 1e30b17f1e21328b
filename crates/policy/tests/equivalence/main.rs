// SPDX-License-Identifier: Apache-2.0
//! Random policies: what the kernel does with its entries, what the engine says, and what a plain reading
//! of the rules says are the same.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod reference;
mod world;

use proptest::prelude::*;
use weft_ir::IdentityNumber;
use weft_policy::{
    Direction, DirectionPolicy, HttpDecision, HttpRequest, HttpRules, KernelEntry, KernelVerdict, L4Verdict,
    L7Policy, Peer, PolicySet, Protocol,
};

use reference::{Answer, Question};
use world::{ADDRESSES, NODE, PORTS, PROTOCOLS, REQUESTS, World};

/// What the kernel is documented to do: of all entries that match, the greatest verdict wins.
fn kernel(
    policy: &DirectionPolicy,
    entries: &[KernelEntry],
    peer: IdentityNumber,
    protocol: u8,
    port: u16,
) -> Decided {
    let matching = entries.iter().filter(|entry| {
        (entry.peer == Peer::Any || entry.peer == Peer::Identity(peer))
            && (entry.protocol == Protocol::Any || entry.protocol == Protocol::Number(protocol))
            && match entry.ports {
                weft_policy::Ports::Any => true,
                weft_policy::Ports::Range(first, last) => (first..=last).contains(&port),
            }
    });
    decided(policy, matching.map(|entry| entry.verdict).max())
}

/// The same with four longest-prefix lookups, as a kernel table does them.
fn kernel_by_prefix(
    policy: &DirectionPolicy,
    entries: &[KernelEntry],
    peer: IdentityNumber,
    protocol: u8,
    port: u16,
) -> Decided {
    let lookup = |wanted_peer, wanted_protocol| {
        let same = entries.iter().filter(|e| e.peer == wanted_peer && e.protocol == wanted_protocol);
        same.flat_map(|entry| entry.ports.prefixes().into_iter().map(move |prefix| (prefix, entry.verdict)))
            .filter(|((first, length), _)| {
                let mask = u16::MAX.checked_shl(16 - u32::from(*length)).unwrap_or(0);
                port & mask == *first
            })
            .max_by_key(|((_, length), _)| *length)
            .map(|(_, verdict)| verdict)
    };
    let (identity, number) = (Peer::Identity(peer), Protocol::Number(protocol));
    let found = [
        lookup(identity, number),
        lookup(identity, Protocol::Any),
        lookup(Peer::Any, number),
        lookup(Peer::Any, Protocol::Any),
    ];
    decided(policy, found.into_iter().flatten().max())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Decided {
    Allow,
    Deny,
    Redirect,
}

fn decided(policy: &DirectionPolicy, verdict: Option<KernelVerdict>) -> Decided {
    match verdict {
        Some(KernelVerdict::Deny) => Decided::Deny,
        Some(KernelVerdict::Allow) => Decided::Allow,
        Some(KernelVerdict::Redirect) => Decided::Redirect,
        None if policy.enforced() => Decided::Deny,
        None => Decided::Allow,
    }
}

fn engine(verdict: &L4Verdict) -> Decided {
    match verdict {
        L4Verdict::Allow(_) => Decided::Allow,
        L4Verdict::Deny(..) => Decided::Deny,
        L4Verdict::L7(_) => Decided::Redirect,
    }
}

fn allowed_requests(rules: &HttpRules) -> Vec<bool> {
    let allowed = |request: &world::Request| {
        let header = |name: &str| {
            let found = request.headers.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.as_bytes().into())
        };
        let request = HttpRequest {
            method: request.method.as_bytes(),
            authority: request.authority.as_bytes(),
            target: request.target.as_bytes(),
            header: &header,
        };
        matches!(rules.decide(&request), HttpDecision::Allow(_))
    };
    REQUESTS.iter().map(allowed).collect()
}

fn check(world: &World) {
    let set = PolicySet::compile(&world.snapshot, NODE);
    for workload in &world.workloads {
        let policy = set.endpoint(workload.identity, &workload.ports);
        for direction in [Direction::Ingress, Direction::Egress] {
            let policy = policy.direction(direction);
            let entries = policy.kernel_entries();
            no_overlaps(&entries);
            for address in ADDRESSES.iter().map(|text| text.parse().unwrap()) {
                let peer = set.identity_of(address);
                for (protocol, port) in
                    PROTOCOLS.iter().flat_map(|p| PORTS.iter().map(move |port| (*p, *port)))
                {
                    let asked = Question { world, workload, direction, address, protocol, port };
                    let verdict = policy.l4(peer, protocol, port);
                    let said = engine(&verdict);
                    let context = || format!("{direction} {peer:?} {address} {protocol} {port} {verdict:?}");
                    assert_eq!(kernel(policy, &entries, peer, protocol, port), said, "{}", context());
                    assert_eq!(
                        kernel_by_prefix(policy, &entries, peer, protocol, port),
                        said,
                        "{}",
                        context()
                    );
                    match (asked.answer(), &verdict) {
                        (Answer::Allow, L4Verdict::Allow(_)) | (Answer::Deny, L4Verdict::Deny(..)) => {}
                        (Answer::Requests(expected), L4Verdict::L7(L7Policy::Http(rules))) => {
                            assert_eq!(allowed_requests(rules), expected, "{}", context());
                        }
                        (expected, _) => panic!("the rules say {expected:?}: {}", context()),
                    }
                }
            }
        }
    }
}

/// A longest-prefix table can only hold entries that do not overlap.
fn no_overlaps(entries: &[KernelEntry]) {
    for pair in entries.windows(2) {
        let [one, other] = pair else { continue };
        if (one.peer, one.protocol) == (other.peer, other.protocol) {
            let range = |entry: &KernelEntry| match entry.ports {
                weft_policy::Ports::Any => (0, u16::MAX),
                weft_policy::Ports::Range(first, last) => (first, last),
            };
            let mut ranges = [range(one), range(other)];
            ranges.sort_unstable();
            assert!(ranges[0].1 < ranges[1].0, "{one:?} overlaps {other:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kernel_engine_and_rules_agree(world in world::world()) {
        check(&world);
    }

    /// A set that was compiled after another one decides as a fresh one does.
    #[test]
    fn the_next_state_decides_as_a_fresh_one(before in world::world(), after in world::world()) {
        let next = PolicySet::compile(&before.snapshot, NODE).next(&after.snapshot, &[]);
        let fresh = PolicySet::compile(&after.snapshot, NODE);
        for workload in &after.workloads {
            let (one, other) = (
                next.endpoint(workload.identity, &workload.ports),
                fresh.endpoint(workload.identity, &workload.ports),
            );
            for direction in [Direction::Ingress, Direction::Egress] {
                for address in ADDRESSES.iter().map(|text| text.parse().unwrap()) {
                    for port in PORTS {
                        let verdict = |set: &PolicySet, policy: &weft_policy::EndpointPolicy| {
                            engine(&policy.direction(direction).l4(set.identity_of(address), 6, *port))
                        };
                        prop_assert_eq!(verdict(&next, &one), verdict(&fresh, &other));
                    }
                }
            }
        }
    }
}
