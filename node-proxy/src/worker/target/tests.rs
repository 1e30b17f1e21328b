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

#[test]
fn an_endpoint_sees_the_client_wherever_its_answer_comes_by() {
    let mut snapshot = world::ground();
    world::two_pods(vec![], vec![]).into_iter().for_each(|pod| world::put(&mut snapshot, Ok(pod)));
    let (state, _) = Compiler::new(NODE.into(), vec![]).compile(&snapshot, &[]);
    let [outside, node]: [IpAddr; 2] = [[203, 0, 113, 9].into(), [192, 168, 0, 1].into()];
    let from = |client: IpAddr, endpoint: IpAddr| {
        let destination = SocketAddr::new([10, 96, 0, 1].into(), 80);
        let ends =
            Ends { client: SocketAddr::new(client, 40_000), destination, entrance: Entrance::Redirected };
        source(&state, ends, SocketAddr::new(endpoint, 8080))
    };
    let elsewhere = pod_address(77);
    for endpoint in [pod_address(2), elsewhere, outside] {
        assert_eq!(from(pod_address(1), endpoint), Some(pod_address(1)));
        assert_eq!(from(node, endpoint), Some(node));
    }
    assert_eq!(from(outside, pod_address(2)), Some(outside));
    // It would answer past this node.
    assert_eq!(from(outside, elsewhere), Some(node));
}
