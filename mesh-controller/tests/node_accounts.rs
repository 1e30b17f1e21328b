// SPDX-License-Identifier: Apache-2.0
//! Whom a token of a service account makes a node.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use serde_json::{Value, json};
use weft_mesh_controller::node_accounts::{NodeAccounts, Unproved};

#[path = "support/api_server.rs"]
#[allow(dead_code, reason = "lists and watches are for others")]
mod api_server;

use api_server::ApiServer;

/// What a review says of the token of a pod of weft-node on node a.
fn good() -> Value {
    let extra = json!({
        "authentication.kubernetes.io/pod-name": ["weft-node-x"],
        "authentication.kubernetes.io/pod-uid": ["p"],
        "authentication.kubernetes.io/node-name": ["a"],
        "authentication.kubernetes.io/node-uid": ["u"],
    });
    let user = json!({"username": "system:serviceaccount:weft-system:weft-node", "extra": extra});
    json!({"authenticated": true, "audiences": ["weft"], "user": user})
}

fn changed(path: &str, value: Value) -> Value {
    let mut status = good();
    *status.pointer_mut(path).unwrap() = value;
    status
}

async fn server() -> (ApiServer, NodeAccounts) {
    let api = ApiServer::start(true).await;
    for (name, uid) in [("a", "u"), ("b", "v")] {
        api.put("nodes", json!({"metadata": {"name": name, "uid": uid}}));
    }
    let accounts = NodeAccounts::new(api.client(), "weft-system", "weft-node");
    (api, accounts)
}

#[tokio::test]
async fn only_the_token_of_a_pod_on_a_node_makes_that_node() {
    let (api, accounts) = server().await;
    api.token("good", good());
    let node = |name: &str| name.parse().unwrap();
    accounts.prove("good", &node("a")).await.unwrap();
    assert!(matches!(accounts.prove("good", &node("b")).await, Err(Unproved::Node(name)) if name == "a"));
    assert!(matches!(accounts.prove("unknown", &node("a")).await, Err(Unproved::Refused(_))));
    // Made again under the same name since, and gone.
    api.put("nodes", json!({"metadata": {"name": "a", "uid": "w"}}));
    assert!(matches!(accounts.prove("good", &node("a")).await, Err(Unproved::Gone)));
    api.delete("nodes", "a");
    assert!(matches!(accounts.prove("good", &node("a")).await, Err(Unproved::Gone)));
}

#[tokio::test]
async fn what_a_token_does_not_say_makes_no_node() {
    let (api, accounts) = server().await;
    let extra = |name: &str| format!("/user/extra/authentication.kubernetes.io~1{name}");
    let node = "a".parse().unwrap();
    type Is = fn(&Unproved) -> bool;
    let cases: [(Value, Is); 8] = [
        (changed("/authenticated", json!(false)), |why| matches!(why, Unproved::Refused(_))),
        (changed("/audiences", json!(["https://kubernetes"])), |why| matches!(why, Unproved::Audience)),
        (changed("/audiences", json!([])), |why| matches!(why, Unproved::Audience)),
        (changed("/user/username", json!("system:serviceaccount:shop:weft-node")), |why| {
            matches!(why, Unproved::Account(..))
        }),
        (changed(&extra("pod-uid"), json!([])), |why| matches!(why, Unproved::Unbound)),
        (changed(&extra("node-uid"), json!([""])), |why| matches!(why, Unproved::Unbound)),
        (changed(&extra("node-name"), json!(null)), |why| matches!(why, Unproved::Unbound)),
        (changed("/user/extra", json!({})), |why| matches!(why, Unproved::Unbound)),
    ];
    for (status, is) in cases {
        api.token("token", status.clone());
        let why = accounts.prove("token", &node).await.unwrap_err();
        assert!(is(&why), "{why} of {status}");
    }
}

#[tokio::test]
async fn an_api_server_that_cannot_say_makes_no_node() {
    let (api, accounts) = server().await;
    api.token("good", good());
    drop(api);
    let node = "a".parse().unwrap();
    assert!(matches!(accounts.prove("good", &node).await, Err(Unproved::Away(_))));
}
