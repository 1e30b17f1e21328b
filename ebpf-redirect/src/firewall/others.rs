// SPDX-License-Identifier: Apache-2.0
//! Forwarding rules of others, which packets that skip the node's stack do not meet.

use std::{fs, io};

use serde::Deserialize;
use serde_json::Value;

use super::{FirewallError, TABLE, nft};

/// Tables that look only at how connections begin, and accept what goes on: kube-proxy's of the nftables mode.
const KNOWN_TABLES: [&str; 1] = ["kube-proxy"];
/// Chains of the same kind to which `FORWARD` of iptables jumps: kube-proxy's, flannel's, and those of the CNI's
/// reference plug-ins. They drop nothing of an established connection but what connection tracking, which does not
/// see the short way, calls invalid.
const KNOWN_CHAINS: [&str; 6] = [
    "KUBE-FORWARD",
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-PROXY-FIREWALL",
    "FLANNEL-FWD",
    "CNI-FORWARD",
];
/// The tables of the older iptables, which nft does not list; there is no such file where none was ever used.
const OLD_TABLES: [&str; 2] =
    ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];

/// What `nft -j list` prints.
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Value>,
}

/// A chain, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    #[serde(default)]
    hook: String,
}

/// The first rules of others that look at packets which are forwarded, by family, table and chain.
///
/// # Errors
/// Where nft is missing, or prints what cannot be read.
pub(crate) async fn rules_of_others() -> Result<Option<String>, FirewallError> {
    for path in OLD_TABLES {
        let tables = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            tables => tables?,
        };
        if tables.split_whitespace().any(|table| table == "filter" || table == "mangle") {
            return Ok(Some("iptables-legacy".to_owned()));
        }
    }
    let listed = nft(&["-j", "list", "chains"], "").await?;
    for chain in chains(&listed)? {
        let listed = nft(&["-j", "list", "chain", &chain.family, &chain.table, &chain.name], "").await?;
        if !only_known(&listed)? {
            return Ok(Some(format!("{} {} {}", chain.family, chain.table, chain.name)));
        }
    }
    Ok(None)
}

fn read(listed: &[u8]) -> Result<Vec<Value>, FirewallError> {
    let listing: Listing = serde_json::from_slice(listed).map_err(io::Error::other)?;
    Ok(listing.nftables)
}

/// The chains of others at the forward hook.
fn chains(listed: &[u8]) -> Result<Vec<Chain>, FirewallError> {
    let chains = read(listed)?.into_iter().filter_map(|object| object.get("chain").cloned());
    let mut found = Vec::new();
    for chain in chains {
        let chain: Chain = serde_json::from_value(chain).map_err(io::Error::other)?;
        let ours = chain.family == "inet" && chain.table == TABLE;
        if chain.hook == "forward" && !ours && !KNOWN_TABLES.contains(&chain.table.as_str()) {
            found.push(chain);
        }
    }
    Ok(found)
}

/// Whether every rule of a chain goes to one that is known.
fn only_known(listed: &[u8]) -> Result<bool, FirewallError> {
    let target = |statement: &Value| {
        let chain = statement.get("jump").or_else(|| statement.get("goto"))?.get("target")?.as_str()?;
        KNOWN_CHAINS.contains(&chain).then_some(())
    };
    let known = |rule: &Value| {
        rule.get("expr")
            .and_then(Value::as_array)
            .is_some_and(|all| all.iter().any(|one| target(one).is_some()))
    };
    Ok(read(listed)?.iter().filter_map(|object| object.get("rule")).all(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_only_look_at_beginnings_are_known_and_others_are_not() {
        let rule =
            |expr: &str| format!(r#"{{"nftables": [{{"chain": {{}}}}, {{"rule": {{"expr": [{expr}]}}}}]}}"#);
        let jump = r#"{"counter": {"packets": 0, "bytes": 0}}, {"jump": {"target": "KUBE-FORWARD"}}"#;
        for (expr, known) in [
            (jump, true),
            (r#"{"goto": {"target": "FLANNEL-FWD"}}"#, true),
            (r#"{"jump": {"target": "DOCKER-USER"}}"#, false),
            (r#"{"drop": null}"#, false),
        ] {
            assert_eq!(only_known(rule(expr).as_bytes()).unwrap(), known, "{expr}");
        }
        assert!(only_known(br#"{"nftables": [{"chain": {}}]}"#).unwrap(), "a chain without rules");
    }

    #[test]
    fn chains_of_others_at_the_forward_hook_are_found() {
        let chain = |table: &str, hook: &str| {
            format!(r#"{{"chain": {{"family": "inet", "table": "{table}", "name": "c"{hook}}}}}"#)
        };
        let forward = r#", "hook": "forward""#;
        let listed = [
            chain("weft", forward),
            chain("kube-proxy", forward),
            chain("firewall", r#", "hook": "input""#),
            chain("firewall", ""),
            chain("firewall", forward),
        ]
        .join(",");
        let listed = format!(r#"{{"nftables": [{{"metainfo": {{}}}}, {listed}]}}"#);
        let found = chains(listed.as_bytes()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].table, "firewall");
    }
}
