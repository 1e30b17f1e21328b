// SPDX-License-Identifier: Apache-2.0
//! Envoy: one worker, the connection manager as Cilium configures it, RBAC with a method and a path
//! expression, the router. No access log, no tracing: what a real mesh adds makes it slower.

use std::env;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::load::Shape;
use crate::peers::{Running, Setup};
use crate::process::{self, PROXY_CORE, Process};

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
    fs::write(&file, serde_json::to_string_pretty(&config(setup, address.port()))?)?;
    let (program, file) = (program(), file.to_string_lossy().into_owned());
    let program = program.to_string_lossy();
    let own =
        [&*program, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "-c", &*file];
    let command = [setup.prefix, &own].concat();
    let mut process = Process::start(PROXY_CORE, &command, &log)?;
    process.wait_for(address, &log)?;
    Ok(Running { address, process, _beside: Vec::new() })
}

fn config(setup: &Setup<'_>, port: u16) -> Value {
    let mut cluster = json!({
        "name": "origin",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": { "thresholds": [{
            "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
        }]},
        "load_assignment": { "cluster_name": "origin", "endpoints": [{ "lb_endpoints": [{
            "endpoint": { "address": socket_address(setup.origin.port()) },
        }]}]},
    });
    if setup.shape == Shape::Http2 {
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
            "address": socket_address(port),
            "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": connection_manager(setup.shape),
            }]}],
        }],
    }})
}

fn connection_manager(shape: Shape) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web",
        "codec_type": "AUTO",
        "use_remote_address": true,
        "skip_xff_append": true,
        "stream_idle_timeout": "300s",
        "upgrade_configs": [{ "upgrade_type": "websocket" }],
        "route_config": { "name": "routes", "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{
                "match": { "prefix": shape.prefix() },
                "route": { "cluster": "origin", "timeout": "15s" },
            }],
        }]},
        "http_filters": [rbac(shape), {
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
    })
}

fn rbac(shape: Shape) -> Value {
    let matches = |regex: &str| json!({ "safe_regex": { "regex": regex } });
    json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": { "action": "ALLOW", "policies": { "api": {
                "principals": [{ "any": true }],
                "permissions": [{ "and_rules": { "rules": [
                    { "header": { "name": ":method", "string_match": matches("GET|POST") } },
                    { "url_path": { "path": matches(shape.allowed_path()) } },
                ]}}],
            }}},
        },
    })
}

fn socket_address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}
