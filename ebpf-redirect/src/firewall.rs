// SPDX-License-Identifier: Apache-2.0
//! One nft table of our own that keeps the node's connection tracking off the proxy's connections.
//!
//! NAT by others (kube-proxy, masquerading, firewalld) would change addresses that the proxy keeps, and
//! rules like `ct state invalid drop` would drop the proxy's answers, whose first packet conntrack never
//! saw. Only what the proxy sends in a client's name to outside of the cluster stays tracked, so that it
//! can be masqueraded.

use std::{collections::BTreeSet, fmt::Write as _, io, process::Stdio, time::Duration};

use ipnet::IpNet;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::config::DatapathConfig;

/// Name of our table (family inet).
pub const TABLE: &str = "weft";
/// How long nft may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// nft could not be run, or refused the rules.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The program could not be run.
    #[error("nft could not be run (install nftables): {0}")]
    Run(#[from] io::Error),
    /// The rules were refused.
    #[error("nft refused the rules: {0}")]
    Refused(String),
    /// No answer in time.
    #[error("nft did not end within {} s", PATIENCE.as_secs())]
    Slow,
}

/// The whole table as a script that replaces what is there in one transaction.
pub(crate) fn script(config: &DatapathConfig, cluster: &BTreeSet<IpNet>) -> String {
    let (mask, to, from) = (config.mark.mask, config.mark.to_proxy, config.mark.from_proxy);
    let (first, last) = config.ports;
    let mut text = format!("table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    for (name, kind, ipv6) in [("cluster4", "ipv4_addr", false), ("cluster6", "ipv6_addr", true)] {
        let prefixes: Vec<String> = cluster
            .iter()
            .filter(|prefix| matches!(prefix, IpNet::V6(_)) == ipv6)
            .map(ToString::to_string)
            .collect();
        let _infallible = writeln!(text, " set {name} {{ type {kind}; flags interval; auto-merge;");
        if !prefixes.is_empty() {
            let _infallible = writeln!(text, "  elements = {{ {} }}", prefixes.join(", "));
        }
        text.push_str(" }\n");
    }
    let _infallible = writeln!(
        text,
        " chain prerouting {{ type filter hook prerouting priority raw; policy accept;\n  \
         meta mark & {mask:#x} == {to:#x} notrack\n }}\n \
         chain output {{ type filter hook output priority raw; policy accept;\n  \
         meta mark & {mask:#x} != {from:#x} accept\n  \
         tcp sport {first}-{last} ip daddr != @cluster4 accept\n  \
         tcp sport {first}-{last} ip6 daddr != @cluster6 accept\n  \
         notrack\n }}\n}}"
    );
    text
}

/// Writes the table.
///
/// # Errors
/// Where nft is missing or refuses it.
pub async fn apply(config: &DatapathConfig, cluster: &BTreeSet<IpNet>) -> Result<(), FirewallError> {
    run(&script(config, cluster)).await
}

/// Removes the table, if it is there.
///
/// # Errors
/// Where nft is missing.
pub async fn remove() -> Result<(), FirewallError> {
    run(&format!("table inet {TABLE}\ndelete table inet {TABLE}\n")).await
}

async fn run(script: &str) -> Result<(), FirewallError> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.as_bytes()).await?;
    }
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let Ok(output) = ended else { return Err(FirewallError::Slow) };
    let output = output?;
    if output.status.success() {
        Ok(())
    } else {
        Err(FirewallError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_replaces_the_table_and_names_the_mark_and_ports() {
        let config = DatapathConfig::new("n", "/c".into(), "/b".into(), "/s".into());
        let cluster = ["10.0.0.0/8", "fd00::/8"].map(|prefix| prefix.parse().expect("prefix")).into();
        let text = script(&config, &cluster);
        assert!(text.starts_with("table inet weft\ndelete table inet weft\n"), "{text}");
        for part in ["& 0x60 == 0x20 notrack", "61000-65535", "elements = { 10.0.0.0/8 }", "{ fd00::/8 }"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}
