// SPDX-License-Identifier: Apache-2.0
//! One nft table of our own that keeps the node's connection tracking off the proxy's connections.
//!
//! NAT by others (kube-proxy, masquerading, firewalld) would change addresses that the proxy keeps, and
//! rules like `ct state invalid drop` would drop the proxy's answers, whose first packet conntrack never
//! saw. Only what the proxy sends in a client's name to outside of the cluster stays tracked, so that it
//! can be masqueraded. Processes of the node that connect to a kept service address are not translated by
//! others either, or they would never come to the proxy.

use std::{collections::BTreeSet, fmt::Write as _, io, net::IpAddr, process::Stdio, time::Duration};

use ipnet::IpNet;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::config::DatapathConfig;

mod others;

pub(crate) use others::rules_of_others;

/// Name of our table (family inet).
pub(crate) const TABLE: &str = "weft";
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

/// What the rules speak about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exempt {
    /// Prefixes inside of the cluster.
    pub cluster: BTreeSet<IpNet>,
    /// Addresses and TCP ports whose connections go to the proxy.
    pub kept: BTreeSet<(IpAddr, u16)>,
}

/// The whole table as a script that replaces what is there in one transaction.
pub(crate) fn script(config: &DatapathConfig, exempt: &Exempt) -> String {
    let (mask, to, from) = (config.mark.mask, config.mark.to_proxy, config.mark.from_proxy);
    let (first, last) = config.ports;
    let mut text = format!("table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    for (version, ipv6) in [(4, false), (6, true)] {
        let prefixes = exempt.cluster.iter().filter(|prefix| matches!(prefix, IpNet::V6(_)) == ipv6);
        let kept = exempt.kept.iter().filter(|(address, _)| address.is_ipv6() == ipv6);
        let kind = format!("ipv{version}_addr");
        set(
            &mut text,
            &format!("cluster{version}"),
            &format!("{kind}; flags interval; auto-merge"),
            prefixes,
        );
        let kept = kept.map(|(address, port)| format!("{address} . {port}"));
        set(&mut text, &format!("kept{version}"), &format!("{kind} . inet_service"), kept);
    }
    let _infallible = writeln!(
        text,
        " chain prerouting {{ type filter hook prerouting priority raw; policy accept;\n  \
         meta mark & {mask:#x} == {to:#x} notrack\n  \
         meta mark & {mask:#x} == {from:#x} tcp sport != {first}-{last} notrack\n }}\n \
         chain output {{ type filter hook output priority raw; policy accept;\n  \
         ip daddr . tcp dport @kept4 notrack\n  \
         ip6 daddr . tcp dport @kept6 notrack\n  \
         meta mark & {mask:#x} != {from:#x} accept\n  \
         tcp sport {first}-{last} ip daddr != @cluster4 accept\n  \
         tcp sport {first}-{last} ip6 daddr != @cluster6 accept\n  \
         notrack\n }}\n}}"
    );
    text
}

fn set(text: &mut String, name: &str, kind: &str, elements: impl Iterator<Item = impl ToString>) {
    let elements: Vec<String> = elements.map(|element| element.to_string()).collect();
    let _infallible = writeln!(text, " set {name} {{ type {kind};");
    if !elements.is_empty() {
        let _infallible = writeln!(text, "  elements = {{ {} }}", elements.join(", "));
    }
    text.push_str(" }\n");
}

/// Writes the table.
///
/// # Errors
/// Where nft is missing or refuses it.
pub(crate) async fn apply(config: &DatapathConfig, exempt: &Exempt) -> Result<(), FirewallError> {
    run(&script(config, exempt)).await
}

/// Adds and removes kept ports of the table that is there, in one transaction.
///
/// # Errors
/// Where nft is missing, or where the table is not what it was written as.
pub(crate) async fn change(
    added: &BTreeSet<(IpAddr, u16)>,
    removed: &BTreeSet<(IpAddr, u16)>,
) -> Result<(), FirewallError> {
    run(&change_script(added, removed)).await
}

fn change_script(added: &BTreeSet<(IpAddr, u16)>, removed: &BTreeSet<(IpAddr, u16)>) -> String {
    let mut text = String::new();
    for (verb, kept) in [("delete", removed), ("add", added)] {
        for (version, ipv6) in [(4, false), (6, true)] {
            let of_family = kept.iter().filter(|(address, _)| address.is_ipv6() == ipv6);
            let elements: Vec<String> =
                of_family.map(|(address, port)| format!("{address} . {port}")).collect();
            if !elements.is_empty() {
                let elements = elements.join(", ");
                let _infallible =
                    writeln!(text, "{verb} element inet {TABLE} kept{version} {{ {elements} }}");
            }
        }
    }
    text
}

/// Removes the table, if it is there.
///
/// # Errors
/// Where nft is missing.
pub(crate) async fn remove() -> Result<(), FirewallError> {
    run(&format!("table inet {TABLE}\ndelete table inet {TABLE}\n")).await
}

async fn run(script: &str) -> Result<(), FirewallError> {
    nft(&["-f", "-"], script).await.map(|_| ())
}

/// Runs nft with an input; what it printed.
pub(super) async fn nft(arguments: &[&str], script: &str) -> Result<Vec<u8>, FirewallError> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
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
        Ok(output.stdout)
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
        let kept = [("10.96.0.1".parse().expect("address"), 80)].into();
        let text = script(&config, &Exempt { cluster, kept });
        assert!(text.starts_with("table inet weft\ndelete table inet weft\n"), "{text}");
        for part in [
            "& 0x60 == 0x20 notrack",
            "61000-65535",
            "elements = { 10.0.0.0/8 }",
            "{ fd00::/8 }",
            "{ 10.96.0.1 . 80 }",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn a_change_of_kept_ports_names_only_what_differs() {
        let kept = |address: &str, port| ([(address.parse().expect("address"), port)]).into();
        assert_eq!(
            change_script(&kept("10.96.0.1", 80), &kept("fd00::1", 81)),
            "delete element inet weft kept6 { fd00::1 . 81 }\nadd element inet weft kept4 { 10.96.0.1 . 80 }\n"
        );
    }
}
