// SPDX-License-Identifier: Apache-2.0
//! How the API server is reached.

use std::{path::Path, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// How long a connection may take: the API server is near.
const CONNECT: Duration = Duration::from_secs(10);

/// A client as a file says; without one, as a pod's service account, or as the user's own files say. It repeats no
/// request: whoever asks knows how long an answer is of use.
///
/// # Errors
/// When nothing says how to reach the API server, or what does is no good.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, kube::Error> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await.map_err(kube::Error::InferConfig)?,
    };
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config)
}
