// SPDX-License-Identifier: Apache-2.0
//! Tells nodes how to find and know their controller, by a ConfigMap: nothing of it is secret.

use std::{convert::Infallible, time::Duration};

use kube::Client;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use weft_identity::JoinToken;
use weft_runtime::supervise::chain;

/// How long a write may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How soon one that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is written: one that somebody emptied comes back.
const REPEAT: Duration = Duration::from_secs(60);

/// The ConfigMap, and what it says.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where nodes reach this controller.
    pub address: String,
    /// By what they know it.
    pub join: JoinToken,
}

impl Publication {
    /// Writes it for as long as the controller runs.
    ///
    /// # Errors
    /// Never.
    pub async fn keep(self, client: Client) -> Result<(), Infallible> {
        let mut failed = false;
        loop {
            match self.write(&client).await {
                Ok(()) => {
                    if std::mem::take(&mut failed) {
                        tracing::info!("nodes can find this controller again");
                    }
                    sleep(REPEAT).await;
                }
                Err(why) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::warn!(
                            "cannot write ConfigMap {}/{}, by which nodes find this controller (grant the verb `patch` \
                             of it): {why}",
                            self.namespace,
                            self.name
                        );
                    }
                    sleep(AGAIN).await;
                }
            }
        }
    }

    async fn write(&self, client: &Client) -> Result<(), String> {
        let (namespace, name) = (&self.namespace, &self.name);
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace},
            "data": {"address": self.address, "join": self.join.without_secret().expose()},
        });
        let path = format!(
            "/api/v1/namespaces/{namespace}/configmaps/{name}?fieldManager=weft-controller&force=true"
        );
        let request = http::Request::patch(path)
            .header(http::header::CONTENT_TYPE, "application/apply-patch+yaml")
            .body(map.to_string().into_bytes())
            .map_err(|error| error.to_string())?;
        match timeout(DEADLINE, client.request::<Value>(request)).await {
            Ok(answer) => answer.map(drop).map_err(|error| chain(&error)),
            Err(_) => Err(format!("nothing came within {} s", DEADLINE.as_secs())),
        }
    }
}
