// SPDX-License-Identifier: Apache-2.0
use std::net::SocketAddr;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    route::{
        RouteTable,
        rule::Rule,
        samples::{HOSTS, PATHS, get},
        seen::Looked,
        slots::Slot,
    },
    state::world::{self, NODE, PORTS},
};

/// Everything that a worker could ask a state, without the numbers of slots.
fn answers(state: &MeshState) -> Vec<String> {
    let mut answers = Vec::new();
    for address in world::vips().flat_map(|vip| PORTS.map(|port| SocketAddr::new(vip, port))) {
        let Some(target) = state.service(address) else { continue };
        let limits: Vec<_> = target.limits.iter().map(|limiter| limiter.limit()).collect();
        answers.push(format!(
            "{address} {:?} {limits:?} {}",
            target.capture,
            upstream(state, target.upstream)
        ));
        let routes = target.routes.iter();
        answers
            .extend(routes.flat_map(|table| rules(state, table, "")).map(|rule| format!("{address} {rule}")));
    }
    for (address, point) in state.listen_points() {
        answers.push(address.to_string());
        for host in HOSTS {
            let Some(table) = point.find(host.as_bytes()) else { continue };
            answers.extend(rules(state, table, host).map(|rule| format!("{address} {host} {rule}")));
        }
    }
    answers
}

fn rules<'a>(
    state: &'a MeshState,
    table: &'a RouteTable,
    host: &'static str,
) -> impl Iterator<Item = String> + 'a {
    PATHS.into_iter().map(move |path| {
        let head = get(path);
        let found = table.find(host.as_bytes(), &head, &mut Looked::default());
        format!("{path} {:?}", found.map(|matched| rule(state, matched.rule)))
    })
}

fn rule(state: &MeshState, rule: &Rule) -> String {
    let limits: Vec<_> = rule.limits.iter().map(|limiter| limiter.limit()).collect();
    let upstreams: Vec<_> =
        rule.backends.iter().map(|backend| backend.upstream.map(|slot| upstream(state, slot))).collect();
    format!("{} {} {:?} {upstreams:?} {limits:?}", rule.label, rule.invalid, rule.cumulative)
}

fn upstream(state: &MeshState, slot: Slot) -> String {
    let Some(upstream) = state.upstream(slot) else { return "none".into() };
    let endpoints: Vec<_> = upstream.endpoints.iter().map(|endpoint| endpoint.address).collect();
    let limits: Vec<_> = upstream.limits.iter().map(|limiter| limiter.limit()).collect();
    format!("{} {:?} {endpoints:?} {limits:?}", upstream.name, upstream.protocol)
}

/// Slots that are in use: those of upstreams and those of endpoints.
fn slots(compiler: &Compiler) -> (usize, usize) {
    (compiler.slots.len(), compiler.targets.endpoints())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A state that followed changes is the one that its snapshot gives from scratch, and holds no more.
    #[test]
    fn states_that_follow_changes_are_those_of_the_snapshot(
        commits in vec(vec(world::edit(), 1..4), 1..12),
    ) {
        let mut snapshot = world::ground();
        let mut compiler = Compiler::new(NODE.into(), vec![]);
        for commit in commits {
            snapshot.revision += 1;
            commit.into_iter().for_each(|edit| world::put(&mut snapshot, edit));
            let (state, rejected) = compiler.compile(&snapshot, &[]);
            let mut scratch = Compiler::new(NODE.into(), vec![]);
            let (wanted, wanted_rejected) = scratch.compile(&snapshot, &[]);
            prop_assert_eq!(answers(&state), answers(&wanted));
            prop_assert_eq!(rejected, wanted_rejected);
            prop_assert_eq!(slots(&compiler), slots(&scratch));
            prop_assert_eq!(compiler.listeners.sizes(), scratch.listeners.sizes());
        }
    }
}
