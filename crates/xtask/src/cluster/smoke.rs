// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask cluster test`: Weft is installed with its chart, serves the canary of `examples/canary` as written by
//! kubectl, writes statuses, and is removed without a trace in the kernel.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::image::Image;
use super::layout::{API_PORT, Layout, control, nodes};
use super::{build, kubectl, load, machine};
use crate::{cargo, exec, workspace};

/// The release whose CRDs are installed.
const GATEWAY_API: &str = "v1.6.3";

const NAMESPACE: &str = "weft-system";

/// How long pods may take to start and a change to arrive, on a machine that is busy with builds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Requests of a sample: with 10 in 100 expected, 300 of them miss the bounds below once in a million times.
const SAMPLE: u64 = 300;

/// Stands in for Cilium's own definition, which is not ours to ship: whatever is written, the API server takes.
const CILIUM: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ciliumnetworkpolicies.cilium.io}
spec:
  group: cilium.io
  names: {kind: CiliumNetworkPolicy, listKind: CiliumNetworkPolicyList, plural: ciliumnetworkpolicies}
  scope: Namespaced
  versions:
  - name: v2
    served: true
    storage: true
    schema:
      openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
";

/// Runs all of it on the cluster that is up.
pub(super) fn run(layout: &Layout) -> anyhow::Result<ExitCode> {
    let smoke = Smoke { layout, helm: build::helm(layout)? };
    smoke.images()?;
    let started = Instant::now();
    smoke.step("CRDs, and images on both nodes", Smoke::definitions)?;
    smoke.step("helm install: every part ready", Smoke::install)?;
    smoke.step("kubectl apply of the canary: its first request is routed", Smoke::canary)?;
    println!("from nothing to the first routed request: {:.1} s", started.elapsed().as_secs_f64());
    smoke.step("one request in ten goes to the new version", |smoke| smoke.share(4, 60))?;
    smoke.step("statuses say what is served", Smoke::statuses)?;
    smoke.step("the weights turned round: the next requests follow", Smoke::turned)?;
    smoke.step("a POST is refused by the policy", Smoke::refused)?;
    smoke.step("helm uninstall, and weft-node --cleanup: nothing is left in the kernel", Smoke::uninstall)?;
    println!("passed");
    Ok(ExitCode::SUCCESS)
}

struct Smoke<'a> {
    layout: &'a Layout,
    helm: PathBuf,
}

impl Smoke<'_> {
    fn step(&self, what: &str, step: impl FnOnce(&Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let started = Instant::now();
        step(self).with_context(|| format!("FAILED  {what}"))?;
        println!("ok      {what} ({:.1} s)", started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Weft and the application of the example, from what cargo builds.
    fn images(&self) -> anyhow::Result<()> {
        cargo::build_binaries("dev")?;
        let folder = self.layout.state().join("images");
        fs::create_dir_all(&folder)?;
        let binary = |name| workspace::binary(name, "dev");
        let own = ["weft", "weft-controller", "weft-node"];
        let places = ["/usr/bin/weft", "/usr/bin/weft-controller", "/usr/bin/weft-node"];
        let mut programs: Vec<_> = own.into_iter().map(binary).zip(places).collect();
        // The node writes rules of the firewall with it.
        programs.push((exec::find("nft").context("nft is missing")?, "/usr/sbin/nft"));
        let weft = Image { name: "localhost/weft:test", programs, entrypoint: &["weft"] };
        let application = Image {
            name: "ghcr.io/weft-mesh/testlab:latest",
            programs: vec![(binary("weft-lab"), "/usr/bin/weft-lab")],
            entrypoint: &["weft-lab", "pod"],
        };
        let archives = [folder.join("weft.tar"), folder.join("testlab.tar")];
        for (image, archive) in [weft, application].iter().zip(&archives) {
            image.write(archive)?;
        }
        load(self.layout, &archives)
    }

    fn definitions(&self) -> anyhow::Result<()> {
        let module = format!("sigs.k8s.io/gateway-api@{GATEWAY_API}");
        let folder = build::module(&module)?.join("config/crd/experimental");
        let cilium = self.layout.state().join("cilium.yaml");
        fs::write(&cilium, CILIUM)?;
        let own = workspace::root().join("charts/weft/crds");
        // The example has a retry, which is of the experimental channel.
        exec::quiet(kubectl(self.layout)?.args(["apply", "--server-side", "--kustomize"]).arg(&folder))?;
        for place in [&cilium, &own] {
            exec::quiet(kubectl(self.layout)?.args(["apply", "--server-side", "--filename"]).arg(place))?;
        }
        let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
        exec::quiet(kubectl(self.layout)?.args(wait)).map(drop)
    }

    fn helm(&self) -> anyhow::Result<Command> {
        let mut command = machine::within(self.layout)?;
        command.arg(&self.helm).arg("--kubeconfig").arg(self.layout.admin()).args(["--namespace", NAMESPACE]);
        Ok(command)
    }

    fn install(&self) -> anyhow::Result<()> {
        let node = nodes().next().context("no node")?;
        let mut helm = self.helm()?;
        helm.args(["upgrade", "--install", "--create-namespace", "weft"]);
        helm.arg(workspace::root().join("charts/weft"));
        let settings = [
            "image.repository=localhost/weft".to_owned(),
            "image.tag=test".to_owned(),
            "image.pullPolicy=Never".to_owned(),
            format!("apiServer.host={}", control().ipv4()),
            format!("apiServer.port={API_PORT}"),
            "controller.state.hostPath=/var/lib/weft/controller".to_owned(),
            format!(r"controller.nodeSelector.kubernetes\.io/hostname={}", node.name),
            "gatewayClass.create=false".to_owned(),
            format!("node.cgroup={}/kubepods", machine::cgroup2()?),
            "node.log=info".to_owned(),
        ];
        helm.args(settings.iter().flat_map(|setting| ["--set", setting]));
        exec::quiet(helm.args(["--wait", "--timeout", "120s"])).map(drop)
    }

    fn canary(&self) -> anyhow::Result<()> {
        let example = workspace::root().join("examples/canary");
        let application = fs::read_to_string(example.join("app.yaml"))?;
        // A `latest` is asked for in its registry each time, where it is not.
        let image = "image: ghcr.io/weft-mesh/testlab:latest\n";
        let local = application.replace(image, &format!("{image}        imagePullPolicy: Never\n"));
        let here = self.layout.state().join("app.yaml");
        fs::write(&here, local)?;
        let others =
            ["gateway.yaml", "policy.yaml", "ratelimit.yaml", "route.yaml"].map(|name| example.join(name));
        let mut apply = kubectl(self.layout)?;
        apply.arg("apply");
        for file in std::iter::once(&here).chain(&others) {
            apply.arg("--filename").arg(file);
        }
        exec::quiet(&mut apply)?;
        let ready = ["rollout", "status", "--namespace=shop", "--timeout=120s", "deployment"];
        exec::quiet(kubectl(self.layout)?.args(ready))?;
        self.until(|| Ok(self.requests(1, &[])?["status"]["200"] == 1))
    }

    /// What the client of the example counts of so many requests to the Service with the route.
    fn requests(&self, count: u64, more: &[&str]) -> anyhow::Result<Value> {
        let address = self.read(&["service", "checkout", "--output=jsonpath={.spec.clusterIP}"])?;
        let url = format!("http://{address}:80/");
        let mut client = kubectl(self.layout)?;
        client.args([
            "exec",
            "--namespace=shop",
            "deployment/client",
            "--",
            "weft-lab",
            "pod",
            "client",
            &url,
        ]);
        // Below the rate limit of the example, which is 50 each second.
        client.args(["--pause-ms=25", "--requests", &count.to_string()]).args(more);
        let said = exec::quiet(&mut client)?;
        serde_json::from_str(&said).with_context(|| format!("not a summary: {said}"))
    }

    fn read(&self, what: &[&str]) -> anyhow::Result<String> {
        exec::quiet(kubectl(self.layout)?.args(["get", "--namespace=shop"]).args(what))
    }

    /// Whether the second version has at least and at most so many of a sample, and no request fails.
    fn share(&self, least: u64, most: u64) -> anyhow::Result<()> {
        let summary = self.requests(SAMPLE, &[])?;
        let second = summary["version"]["v2"].as_u64().unwrap_or(0);
        if summary["status"]["200"] != SAMPLE || !(least..=most).contains(&second) {
            bail!("{second} of {SAMPLE}, expected {least} to {most}: {summary}");
        }
        Ok(())
    }

    fn statuses(&self) -> anyhow::Result<()> {
        let is = |object: &[&str], path: &str| -> anyhow::Result<()> {
            let mut what = object.to_vec();
            let output = format!("--output=jsonpath={path}");
            what.push(&output);
            self.until(|| Ok(self.read(&what)? == "True")).with_context(|| format!("{object:?}: {path}"))
        };
        let parent = |kind: &str| format!("{{.status.parents[0].conditions[?(@.type=='{kind}')].status}}");
        let own = |kind: &str| format!("{{.status.conditions[?(@.type=='{kind}')].status}}");
        is(&["httproute", "canary"], &parent("Accepted"))?;
        is(&["httproute", "canary"], &parent("ResolvedRefs"))?;
        is(&["gateway", "shop"], &own("Programmed"))?;
        is(&["gatewayclass", "weft"], &own("Accepted"))?;
        is(&["ratelimitpolicy", "checkout"], &own("Accepted"))
    }

    fn turned(&self) -> anyhow::Result<()> {
        let patch = r#"[{"op":"replace","path":"/spec/rules/0/backendRefs/0/weight","value":10},
            {"op":"replace","path":"/spec/rules/0/backendRefs/1/weight","value":90}]"#;
        let route = ["patch", "--namespace=shop", "httproute", "canary", "--type=json", "--patch", patch];
        exec::quiet(kubectl(self.layout)?.args(route))?;
        let generation = "{.metadata.generation} {.status.parents[0].conditions[0].observedGeneration}";
        let what = ["httproute", "canary", &format!("--output=jsonpath={generation}")];
        self.until(|| Ok(self.read(&what)?.split_once(' ').is_some_and(|(is, seen)| is == seen)))?;
        self.share(SAMPLE - 60, SAMPLE - 4)
    }

    fn refused(&self) -> anyhow::Result<()> {
        let summary = self.requests(3, &["--method=POST"])?;
        if summary["status"]["403"] == 3 { Ok(()) } else { bail!("not refused: {summary}") }
    }

    fn uninstall(&self) -> anyhow::Result<()> {
        exec::quiet(self.helm()?.args(["uninstall", "weft", "--wait", "--timeout", "120s"]))?;
        exec::quiet(kubectl(self.layout)?.args([
            "delete",
            "namespace",
            "shop",
            NAMESPACE,
            "--timeout=120s",
        ]))?;
        for node in nodes() {
            let mut clean = machine::inside(self.layout, node)?;
            exec::quiet(clean.arg(workspace::binary("weft-node", "dev")).arg("--cleanup"))?;
            let mut look = machine::inside(self.layout, node)?;
            let script = "ls -A /sys/fs/bpf/weft 2> /dev/null; ip rule | grep -i 0x57; nft list tables | grep weft; true";
            let left = exec::quiet(look.args(["sh", "-c", script]))?;
            if !left.trim().is_empty() {
                bail!("left on {}: {left}", node.name);
            }
        }
        Ok(())
    }

    fn until(&self, holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        machine::until(PATIENCE, holds)
    }
}
