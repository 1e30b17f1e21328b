// SPDX-License-Identifier: Apache-2.0
//! Random policies: what the kernel does with its entries, what the engine says, and what a plain reading
//! of the rules says are the same.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod reference;
mod sequence;
mod world;

use proptest::prelude::*;
use weft_ir::{Direction, IdentityNumber};
use weft_policy::{
    Decision, DirectionPolicy, HttpDecision, HttpRequest, HttpRules, KernelEntry, L7Policy, Peer, PolicySet,
    Ports,
};

use reference::{Answer, Question};
use weft_ebpf_common::{Action, Verdict};
use world::{ADDRESSES, NODE, PORTS, PROTOCOLS, REQUESTS, World};

/// What the kernel is documented to do: of all entries that match, and of what holds for the rest, the
/// greatest precedence wins.
fn kernel(
    policy: &DirectionPolicy,
    entries: &[KernelEntry],
    peer: IdentityNumber,
    protocol: u8,
    port: u16,
) -> u32 {
    let matching = entries.iter().filter(|entry| {
        (entry.peer == Peer::Any || entry.peer == Peer::Identity(peer))
            && entry.protocol.is_none_or(|of| of.number() == protocol)
            && match entry.ports {
                Ports::Any => true,
                Ports::Range(first, last) => (first..=last).contains(&port),
            }
    });
    matching
        .map(|entry| entry.verdict)
        .chain([policy.rest()])
        .map(|verdict| verdict.precedence)
        .max()
        .unwrap()
}

/// The same with four longest-prefix lookups, as the kernel programs do them, with the rule that decides.
fn kernel_by_prefix(
    policy: &DirectionPolicy,
    entries: &[KernelEntry],
    peer: IdentityNumber,
    protocol: u8,
    port: u16,
) -> Verdict {
    let lookup = |wanted_peer, wanted_protocol| {
        let same = entries
            .iter()
            .filter(|e| e.peer == wanted_peer && e.protocol.map(|of| of.number()) == wanted_protocol);
        same.flat_map(|entry| entry.ports.prefixes().into_iter().map(move |prefix| (prefix, entry.verdict)))
            .filter(|((first, length), _)| {
                let mask = u16::MAX.checked_shl(16 - u32::from(*length)).unwrap_or(0);
                port & mask == *first
            })
            .max_by_key(|((_, length), _)| *length)
            .map_or(Verdict::NONE, |(_, verdict)| verdict)
    };
    let (identity, number) = (Peer::Identity(peer), Some(protocol));
    let found = [
        lookup(identity, number),
        lookup(identity, None),
        lookup(Peer::Any, number),
        lookup(Peer::Any, None),
    ];
    found.into_iter().fold(policy.rest(), Verdict::or)
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
                let peer = set.directory().find(address).identity;
                for (protocol, port) in
                    PROTOCOLS.iter().flat_map(|p| PORTS.iter().map(move |port| (*p, *port)))
                {
                    let asked = Question { world, workload, direction, address, protocol, port };
                    let decision = policy.l4(peer, protocol, port);
                    let context = || format!("{direction} {peer:?} {address} {protocol} {port} {decision:?}");
                    let verdict = decision.verdict;
                    let in_kernel = kernel(policy, &entries, peer, protocol, port);
                    assert_eq!(in_kernel, verdict.precedence, "{}", context());
                    let in_kernel = kernel_by_prefix(policy, &entries, peer, protocol, port);
                    assert_eq!(in_kernel, verdict, "{}", context());
                    let name = set.rule(verdict.rule).map(|rule| rule.policy);
                    assert_eq!(name, decision.policy, "the number names the policy: {}", context());
                    compare(&asked.answer(), &decision, &context);
                }
            }
        }
    }
}

/// Holds the engine's answer to what the rules say, in every part.
fn compare(expected: &Answer, decision: &Decision, context: &dyn Fn() -> String) {
    let verdict = decision.verdict;
    assert_eq!(verdict.action(), expected.action, "{}", context());
    assert_eq!(verdict.authenticate(), expected.authenticate, "{}", context());
    assert_eq!((verdict.tier(), verdict.priority()), expected.level, "{}", context());
    let policy = decision.policy.as_deref().unwrap_or_default();
    assert!(expected.policies.contains(policy), "{:?} decide: {}", expected.policies, context());
    let allowed = decision.l7.as_ref().map(|L7Policy::Http(rules)| allowed_requests(rules));
    assert_eq!(allowed, expected.requests, "{}", context());
    if expected.authenticate {
        assert_ne!(verdict.action(), Action::Allow, "nobody was asked who he is: {}", context());
    }
}

/// A longest-prefix table can only hold entries that do not overlap.
fn no_overlaps(entries: &[KernelEntry]) {
    for pair in entries.windows(2) {
        let [one, other] = pair else { continue };
        if (one.peer, one.protocol) == (other.peer, other.protocol) {
            let range = |entry: &KernelEntry| match entry.ports {
                Ports::Any => (0, u16::MAX),
                Ports::Range(first, last) => (first, last),
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

    /// Whatever changes, and in whatever order: a state that follows another is what it gives from scratch.
    #[test]
    fn what_follows_a_state_is_what_it_gives_from_scratch(batches in sequence::sequence()) {
        sequence::check(&batches);
    }
}
