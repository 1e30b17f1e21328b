// SPDX-License-Identifier: Apache-2.0
//! HAProxy: one thread, two expressions for the policy, and the two fields about the client that the others
//! add, too.

use std::fs;

use crate::peers::{Running, Setup};
use crate::process::{self, PROXY_CORE, Process};
use crate::workload::Protocol;

/// Starts HAProxy.
pub(crate) fn start(setup: &Setup<'_>) -> anyhow::Result<Running> {
    let [address, _] = process::free_addresses()?;
    let file = setup.folder.join("haproxy.cfg");
    let log = setup.folder.join("haproxy.log");
    fs::write(&file, config(setup, &address.to_string()))?;
    let file = file.to_string_lossy();
    let command = [setup.prefix, &["haproxy", "-db", "-f", &file]].concat();
    let mut process = Process::start(PROXY_CORE, &command, &log)?;
    process.wait_for(address, &log)?;
    Ok(Running { address, process, _beside: Vec::new() })
}

fn config(setup: &Setup<'_>, address: &str) -> String {
    let protocol = match setup.protocol {
        Protocol::Http1 => "",
        Protocol::Http2 => " proto h2",
    };
    let (origin, prefix, path) = (setup.origin, setup.protocol.prefix(), setup.protocol.allowed_path());
    format!(
        "global\n    nbthread 1\n    maxconn 9000\n\
         defaults\n    mode http\n    timeout connect 5s\n    timeout client 300s\n    timeout server 300s\n\
         \x20   http-reuse always\n    option forwardfor\n\
         frontend web\n    bind {address}{protocol}\n\
         \x20   acl method_allowed method -m reg ^(GET|POST)$\n    acl path_allowed path_reg ^{path}$\n\
         \x20   http-request deny unless method_allowed path_allowed\n\
         \x20   http-request set-header x-forwarded-proto http\n\
         \x20   use_backend origin if {{ path_beg {prefix} }}\n\
         backend origin\n    server one {origin}{protocol}\n"
    )
}
