// SPDX-License-Identifier: Apache-2.0
use proptest::{collection::vec, prelude::*};
use tokio::sync::mpsc;

use super::*;
use crate::{
    route::samples,
    state::{
        compile::Compiler,
        world::{self, NODE, PORTS, pod_address},
    },
};

/// What connections of a pod of this node, and of clients of every listener, are for.
fn resolved(held: &Rc<Held>) -> Vec<Resolved> {
    let client = SocketAddr::new(pod_address(1), 40_000);
    let redirected =
        world::vips().flat_map(|vip| PORTS.map(|port| (Entrance::Redirected, SocketAddr::new(vip, port))));
    let points = held.state().listen_points().keys();
    let gateways = points.map(|point| (Entrance::Gateway(*point), *point));
    let ends = redirected.chain(gateways);
    ends.map(|(entrance, destination)| Resolved::new(Rc::clone(held), Ends { client, destination, entrance }))
        .collect()
}

fn of(served: Option<Rc<Served>>) -> Option<(Arc<str>, Option<usize>)> {
    served.map(|served| (Arc::clone(&served.rule.label), served.prefix))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The route of a request does not depend on what the connection was asked before.
    #[test]
    fn a_connection_that_remembers_routes_as_a_new_one(
        edits in vec(world::edit(), 4..24),
        requests in vec(samples::request(), 2..16),
    ) {
        let mut snapshot = world::ground();
        edits.into_iter().for_each(|edit| world::put(&mut snapshot, edit));
        let (state, _) = Compiler::new(NODE.into(), vec![]).compile(&snapshot, &[]);
        let held = Rc::new(Held::new(state, mpsc::channel(1).0));
        let remembering = resolved(&held);
        for request in &requests {
            for (one, fresh) in remembering.iter().zip(resolved(&held)) {
                prop_assert_eq!(of(one.route(request)), of(fresh.route(request)));
            }
        }
    }
}
