// SPDX-License-Identifier: Apache-2.0
//! Which node a pod runs on, by the token of its service account: the API server says so, not the pod.
//!
//! The token is bound to a pod and that to a node. It is for nobody but the controller, so that one that was meant
//! for another is worth nothing here, and it is asked about at each use, since a pod that is gone has no token any
//! more.

use std::time::Duration;

use kube::Client;
use serde_json::{Value, json};
use tokio::time::timeout;
use weft_identity::NodeName;
use weft_runtime::supervise::chain;

/// For whom the tokens of nodes are.
pub const AUDIENCE: &str = "weft";

/// How long the API server may take: a node that joins waits ten seconds.
const DEADLINE: Duration = Duration::from_secs(4);

/// Under which names a review tells of what a token is bound to (KEP-4193).
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_UID: &str = "authentication.kubernetes.io/node-uid";

/// Asks the API server about tokens of one service account.
#[derive(Clone)]
pub struct NodeAccounts {
    client: Client,
    /// `system:serviceaccount:NAMESPACE:NAME`
    user: String,
}

/// Why a token does not make a node.
#[derive(Debug, thiserror::Error)]
pub enum Unproved {
    /// The API server does not know it, or no longer.
    #[error("the API server does not take the token: {0}")]
    Refused(String),
    /// It is for somebody else.
    #[error("the token is not for the audience `{AUDIENCE}`")]
    Audience,
    /// It is another account's.
    #[error("the token is of {0}, not of {1}")]
    Account(String, String),
    /// It is bound to nothing.
    #[error(
        "the token does not say for which pod and node it is: Kubernetes before 1.32, or not a projected one"
    )]
    Unbound,
    /// It is another node's.
    #[error("the token is of a pod on node {0}")]
    Node(String),
    /// A node of this name was made again since.
    #[error("the token is of an earlier node of this name, or the node is gone")]
    Gone,
    /// Nobody can tell now.
    #[error("the API server cannot be asked: {0}")]
    Away(String),
}

impl NodeAccounts {
    /// The account, by namespace and name.
    pub fn new(client: Client, namespace: &str, name: &str) -> NodeAccounts {
        NodeAccounts { client, user: format!("system:serviceaccount:{namespace}:{name}") }
    }

    /// Whether a token is that of a pod which runs on this node now.
    ///
    /// # Errors
    /// When it is not, or nobody can tell.
    pub async fn prove(&self, token: &str, node: &NodeName) -> Result<(), Unproved> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        });
        let request = http::Request::post("/apis/authentication.k8s.io/v1/tokenreviews")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(review.to_string().into_bytes());
        let review = self.ask(request).await?;
        let node_uid = self.bound(&review["status"], node.shared())?;
        let request = http::Request::get(format!("/api/v1/nodes/{}", node.shared())).body(Vec::new());
        let live = match self.ask(request).await {
            Err(Unproved::Refused(_)) => return Err(Unproved::Gone),
            live => live?,
        };
        if live["metadata"]["uid"] == node_uid { Ok(()) } else { Err(Unproved::Gone) }
    }

    /// The identity of the node that a token is bound to.
    fn bound(&self, status: &Value, node: &str) -> Result<String, Unproved> {
        if status["authenticated"] != true {
            return Err(Unproved::Refused(status["error"].as_str().unwrap_or("it is not valid").to_owned()));
        }
        let audiences = status["audiences"].as_array();
        if !audiences.is_some_and(|all| all.iter().any(|one| *one == AUDIENCE)) {
            return Err(Unproved::Audience);
        }
        let user = status["user"]["username"].as_str().unwrap_or_default();
        if user != self.user {
            return Err(Unproved::Account(user.to_owned(), self.user.clone()));
        }
        let extra = |name: &str| {
            let values = status["user"]["extra"][name].as_array()?;
            values.first()?.as_str().filter(|text| !text.is_empty())
        };
        let (Some(_), Some(name), Some(uid)) = (extra(POD_UID), extra(NODE_NAME), extra(NODE_UID)) else {
            return Err(Unproved::Unbound);
        };
        if name == node { Ok(uid.to_owned()) } else { Err(Unproved::Node(name.to_owned())) }
    }

    async fn ask(&self, request: http::Result<http::Request<Vec<u8>>>) -> Result<Value, Unproved> {
        let request = request.map_err(|error| Unproved::Away(error.to_string()))?;
        match timeout(DEADLINE, self.client.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Unproved::Refused(status.message)),
            Ok(Err(error)) => Err(Unproved::Away(chain(&error))),
            Err(_) => Err(Unproved::Away(format!("nothing came within {} s", DEADLINE.as_secs()))),
        }
    }
}

impl std::fmt::Debug for NodeAccounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeAccounts").field("user", &self.user).finish_non_exhaustive()
    }
}
