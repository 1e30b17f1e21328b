// SPDX-License-Identifier: Apache-2.0
//! Envoy: one worker, the connection manager as Cilium configures it, RBAC with a method and a path
//! expression, the router. No access log, no tracing: what a real mesh adds makes it slower. Fields that
//! only Envoy adds (a request id, `x-envoy-*`, `server`) are switched off: the others have none either.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::peers::{Running, Setup};
use crate::process::{self, PROXY_CORE, Process};
use crate::workload::Protocol;

/// The Envoy binary: `WEFT_BENCH_ENVOY`, which `cargo xtask bench` sets to the one that it installed, or
/// `envoy` of the PATH.
pub(crate) fn program() -> PathBuf {
    env::var_os("WEFT_BENCH_ENVOY").map_or_else(|| PathBuf::from("envoy"), PathBuf::from)
}

/// Starts Envoy.
pub(crate) fn start(setup: &Setup<'_>) -> anyhow::Result<Running> {
    let [address, _] = process::free_addresses()?;
    let file = setup.folder.join("envoy.json");
    let log = setup.folder.join("envoy.log");
    fs::write(&file, serde_json::to_string_pretty(&config(setup, address))?)?;
    let (program, file) = (program(), file.to_string_lossy().into_owned());
    let program = program.to_string_lossy();
    let own =
        [&*program, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "-c", &*file];
    let command = [setup.prefix, &own].concat();
    let mut process = Process::start(PROXY_CORE, &command, &log)?;
    process.wait_for(address, &log)?;
    Ok(Running { address, process, _beside: Vec::new() })
}

fn config(setup: &Setup<'_>, address: SocketAddr) -> Value {
    let mut cluster = json!({
        "name": "origin",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": { "thresholds": [{
            "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
        }]},
        "load_assignment": { "cluster_name": "origin", "endpoints": [{ "lb_endpoints": [{
            "endpoint": { "address": socket_address(setup.origin) },
        }]}]},
    });
    if setup.protocol == Protocol::Http2 {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        });
    }
    json!({ "static_resources": {
        "clusters": [cluster],
        "listeners": [{
            "name": "web",
            "address": socket_address(address),
            "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": connection_manager(setup.protocol),
            }]}],
        }],
    }})
}

fn connection_manager(protocol: Protocol) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web",
        "codec_type": "AUTO",
        "use_remote_address": true,
        "generate_request_id": false,
        "server_header_transformation": "PASS_THROUGH",
        "stream_idle_timeout": "300s",
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "route_config": { "name": "routes", "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{
                "match": { "prefix": protocol.prefix() },
                "route": { "cluster": "origin", "timeout": "15s" },
            }],
        }]},
        "http_filters": [rbac(protocol), {
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                "suppress_envoy_headers": true,
            },
        }],
    })
}

fn rbac(protocol: Protocol) -> Value {
    let matches = |regex: &str| json!({ "safe_regex": { "regex": regex } });
    json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": { "action": "ALLOW", "policies": { "api": {
                "principals": [{ "any": true }],
                "permissions": [{ "and_rules": { "rules": [
                    { "header": { "name": ":method", "string_match": matches("GET|POST") } },
                    { "url_path": { "path": matches(protocol.allowed_path()) } },
                ]}}],
            }}},
        },
    })
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}
