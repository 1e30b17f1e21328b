// SPDX-License-Identifier: Apache-2.0
//! Kubernetes and CoreDNS from their Go modules, built once and kept in the user's cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::layout::{KUBERNETES, Layout};
use crate::exec;
use crate::setup::fetched;

const PROGRAMS: [&str; 6] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"];
const COREDNS: &str = "v1.15.0";
const HELM: &str = "v3.22.0";

/// Builds what is not there: five minutes on two cores at first, nothing later.
pub(super) fn ensure(layout: &Layout) -> anyhow::Result<()> {
    let bin = layout.bin();
    fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
    if !PROGRAMS.iter().all(|program| bin.join(program).exists()) {
        eprintln!("building Kubernetes {KUBERNETES}: minutes, once");
        kubernetes(layout)?;
    }
    tool(layout, "coredns", "github.com/coredns/coredns", COREDNS)
}

/// Helm, built once.
pub(super) fn helm(layout: &Layout) -> anyhow::Result<PathBuf> {
    tool(layout, "helm", "helm.sh/helm/v3/cmd/helm", HELM)?;
    Ok(layout.bin().join("helm"))
}

fn kubernetes(layout: &Layout) -> anyhow::Result<()> {
    let folder = layout.sources().join("kubernetes");
    fs::create_dir_all(&folder)?;
    let source = module(&format!("k8s.io/kubernetes@{KUBERNETES}"))?;
    let of_upstream = fs::read_to_string(source.join("go.mod"))?;
    fs::write(folder.join("go.mod"), module_of_kubernetes(&of_upstream)?)?;
    exec::quiet(go()?.args(["mod", "tidy"]).current_dir(&folder))?;
    let stamp = "k8s.io/component-base/version";
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    let flags = format!(
        "-s -w -X {stamp}.gitVersion={KUBERNETES} -X {stamp}.gitMajor=1 -X {stamp}.gitMinor={minor} \
         -X {stamp}.gitTreeState=clean"
    );
    build(&folder, &layout.bin(), &flags, "tool")
}

/// The folder of a module's source, which is fetched where it is not there.
pub(super) fn module(module: &str) -> anyhow::Result<PathBuf> {
    let found = exec::output(go()?.args(["mod", "download", "-json", module]).current_dir("/"))?;
    let found: serde_json::Value = serde_json::from_str(&found).context("go mod download printed no JSON")?;
    found["Dir"].as_str().map(PathBuf::from).with_context(|| format!("{module} has no folder"))
}

/// A module that has the programs as tools, with the staging modules in the versions that belong to them.
fn module_of_kubernetes(of_upstream: &str) -> anyhow::Result<String> {
    let staging = KUBERNETES.replacen("v1.", "v0.", 1);
    let mut text =
        format!("module weft.dev/cluster\n\ngo 1.26.0\n\nrequire k8s.io/kubernetes {KUBERNETES}\n\n");
    for program in PROGRAMS {
        text.push_str(&format!("tool k8s.io/kubernetes/cmd/{program}\n"));
    }
    let replaced = of_upstream.lines().filter_map(|line| {
        let (name, by) = line.trim().split_once(" => ")?;
        (name.starts_with("k8s.io/") && by.starts_with("./staging/")).then_some(name)
    });
    let before = text.len();
    replaced.for_each(|name| text.push_str(&format!("replace {name} => {name} {staging}\n")));
    if text.len() == before {
        bail!("go.mod of Kubernetes {KUBERNETES} has no staging modules");
    }
    Ok(text)
}

fn tool(layout: &Layout, name: &str, package: &str, version: &str) -> anyhow::Result<()> {
    if layout.bin().join(name).exists() {
        return Ok(());
    }
    eprintln!("building {name} {version}: minutes, once");
    let folder = layout.sources().join(name);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("go.mod"), format!("module weft.dev/{name}\n\ngo 1.26.0\n"))?;
    let module = format!("{package}@{version}");
    exec::quiet(go()?.args(["get", "-tool", &module]).current_dir(&folder))?;
    build(&folder, &layout.bin().join(name), "-s -w", package)
}

fn build(folder: &Path, to: &Path, flags: &str, what: &str) -> anyhow::Result<()> {
    let mut go = go()?;
    go.env("CGO_ENABLED", "0").args(["build", "-trimpath", "-ldflags", flags, "-o"]);
    // A folder has to end in a slash to be one.
    let to = if to.is_dir() { format!("{}/", to.display()) } else { to.display().to_string() };
    exec::run(go.args([&to, what]).current_dir(folder))
}

fn go() -> anyhow::Result<Command> {
    let path = fetched::go_path().context("Go is missing")?;
    let mut command = Command::new(path);
    // Neither a workspace around us nor flags of the user's decide what is built.
    command.env("GOWORK", "off").env("GOFLAGS", "-mod=mod").env("GOTOOLCHAIN", "local");
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_has_every_program_and_the_staging_modules_of_its_version() {
        let upstream = "replace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\tk8s.io/x => ./staging/src/k8s.io/x\n\
                        \tgithub.com/a/b => github.com/c/b v1.0.0\n)\n";
        let module = module_of_kubernetes(upstream).unwrap();
        assert!(
            module
                .contains("replace k8s.io/api => k8s.io/api v0.36.3\nreplace k8s.io/x => k8s.io/x v0.36.3\n")
        );
        assert!(!module.contains("github.com"));
        assert!(PROGRAMS.iter().all(|name| module.contains(&format!("tool k8s.io/kubernetes/cmd/{name}\n"))));
        assert!(module_of_kubernetes("module k8s.io/kubernetes\n").is_err());
    }
}
