// SPDX-License-Identifier: Apache-2.0
//! Keys and certificates of the cluster, by openssl, and the files with which clients use them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::exec;

use super::config;
use super::layout::{KUBERNETES_SERVICE, Layout, Machine, control, nodes, text};

/// How long everything is good for, in days: nobody keeps such a cluster for a year.
const DAYS: &str = "365";

/// Makes a new authority and the certificates of all parts.
pub(super) fn make(layout: &Layout) -> anyhow::Result<()> {
    let pki = layout.pki();
    fs::create_dir_all(&pki)?;
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let mut authority = openssl(&pki);
    authority.args(["req", "-x509"]).args(curve);
    exec::quiet(authority.args([
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
        "-days",
        DAYS,
        "-subj",
        "/CN=weft-cluster",
    ]))?;
    exec::quiet(openssl(&pki).args(["genrsa", "-out", "accounts.key", "2048"]))?;
    exec::quiet(openssl(&pki).args(["rsa", "-in", "accounts.key", "-pubout", "-out", "accounts.pub"]))?;
    let names = "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,IP:127.0.0.1";
    let addresses = format!("IP:{KUBERNETES_SERVICE},IP:{},IP:{}", control().ipv4(), control().ipv6());
    certificate(layout, "apiserver", "/CN=kube-apiserver", &format!("{names},{addresses}"))?;
    for (name, subject) in [
        ("admin", "/O=system:masters/CN=admin"),
        ("controller-manager", "/CN=system:kube-controller-manager"),
        ("scheduler", "/CN=system:kube-scheduler"),
        ("kube-proxy", "/CN=system:kube-proxy"),
    ] {
        certificate(layout, name, subject, &format!("DNS:{name}"))?;
    }
    nodes().try_for_each(|node| of_node(layout, node))
}

fn of_node(layout: &Layout, node: Machine) -> anyhow::Result<()> {
    let name = node.name;
    let subject = format!("/O=system:nodes/CN=system:node:{name}");
    certificate(layout, name, &subject, &format!("DNS:{name},IP:{},IP:{}", node.ipv4(), node.ipv6()))
}

/// A certificate for a part, as server and client, and the file with which it reaches the API server.
fn certificate(layout: &Layout, name: &str, subject: &str, names: &str) -> anyhow::Result<()> {
    let pki = layout.pki();
    let file = |suffix: &str| format!("{name}.{suffix}");
    fs::write(
        pki.join(file("ext")),
        format!("subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n"),
    )?;
    let mut request = openssl(&pki);
    request.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    exec::quiet(request.args(["-keyout", &file("key"), "-out", &file("csr"), "-subj", subject]))?;
    let mut sign = openssl(&pki);
    sign.args(["x509", "-req", "-in", &file("csr"), "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"]);
    exec::quiet(sign.args(["-out", &file("crt"), "-days", DAYS, "-extfile", &file("ext")]))?;
    fs::write(pki.join(file("conf")), config::client(text(&pki)?, name))?;
    Ok(())
}

fn openssl(folder: &Path) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(folder);
    command
}
