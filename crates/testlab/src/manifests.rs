// SPDX-License-Identifier: Apache-2.0
//! A directory of Kubernetes manifests for what a lab has, as a cluster would hold them.
//!
//! Files are written beside their place and renamed into it, as an editor that is careful does.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::lab::{Lab, Pod};

/// The directory that the controller watches.
#[derive(Clone, Debug)]
pub struct Manifests {
    directory: PathBuf,
    beside: PathBuf,
}

/// The addresses of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceAddresses {
    /// Its cluster address.
    pub v4: Ipv4Addr,
    /// Its cluster address in IPv6.
    pub v6: Ipv6Addr,
}

/// A port of a service.
#[derive(Clone, Copy, Debug)]
pub struct Port<'a> {
    /// Its name, whose beginning names the protocol spoken (`http`, `tcp`).
    pub name: &'a str,
    /// The port of the service.
    pub port: u16,
    /// The port of the pods.
    pub target: u16,
    /// `TCP` or `UDP`.
    pub protocol: &'a str,
}

impl<'a> Port<'a> {
    /// A TCP port that is the same on the service and on its pods.
    pub fn tcp(name: &'a str, port: u16) -> Self {
        Self { name, port, target: port, protocol: "TCP" }
    }

    /// A UDP port that is the same on the service and on its pods.
    pub fn udp(name: &'a str, port: u16) -> Self {
        Self { name, port, target: port, protocol: "UDP" }
    }
}

impl ServiceAddresses {
    /// The address of one family.
    pub fn ip(&self, v6: bool) -> IpAddr {
        if v6 { self.v6.into() } else { self.v4.into() }
    }
}

impl Manifests {
    /// An empty directory in the lab's own.
    pub fn new(lab: &Lab) -> anyhow::Result<Self> {
        Self::create(lab.directory())
    }

    /// An empty directory below `parent`.
    pub fn create(parent: &Path) -> anyhow::Result<Self> {
        let manifests = Self { directory: parent.join("manifests"), beside: parent.join("manifests.new") };
        fs::create_dir(&manifests.directory).context("cannot make the directory of manifests")?;
        fs::create_dir(&manifests.beside)?;
        Ok(manifests)
    }

    /// Where the manifests are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a file, all at once.
    pub fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let new = self.beside.join(file);
        fs::write(&new, text)?;
        fs::rename(&new, self.directory.join(file)).with_context(|| format!("cannot write {file}"))
    }

    /// Removes a file.
    pub fn remove(&self, file: &str) -> anyhow::Result<()> {
        fs::remove_file(self.directory.join(file)).with_context(|| format!("cannot remove {file}"))
    }

    /// The text of a file.
    pub fn read(&self, file: &str) -> anyhow::Result<String> {
        fs::read_to_string(self.directory.join(file)).with_context(|| format!("cannot read {file}"))
    }

    /// Copies a file of manifests in.
    pub fn copy(&self, from: &Path) -> anyhow::Result<()> {
        let name = from.file_name().and_then(|name| name.to_str()).context("the file has no name")?;
        let text = fs::read_to_string(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.write(name, &text)
    }

    /// Writes the lab's nodes, namespaces and pods, as they are now.
    pub fn write_cluster(&self, lab: &Lab) -> anyhow::Result<()> {
        let (mut nodes, mut pods) = (String::new(), String::new());
        let mut namespaces = BTreeSet::new();
        for node in lab.nodes() {
            let own = [node.ip4().into(), node.ip6().into()];
            let ingress = [node.ingress_v4().into(), node.ingress_v6().into()];
            write!(nodes, "{}", node_object(node.name(), &own, &ingress))?;
            for pod in node.pods() {
                namespaces.insert(pod.namespace().to_owned());
                write!(pods, "{}", pod_object(&pod))?;
            }
        }
        for name in namespaces {
            write!(nodes, "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")?;
        }
        self.write("cluster-nodes.yaml", &nodes)?;
        self.write("cluster-pods.yaml", &pods)
    }

    /// Writes a service and its endpoints. `addresses` come from [`Lab::allocate_service`].
    pub fn write_service(
        &self,
        addresses: ServiceAddresses,
        namespace: &str,
        name: &str,
        ports: &[Port<'_>],
        pods: &[&Pod],
    ) -> anyhow::Result<()> {
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  namespace: {namespace}\n  name: {name}\nspec:\n  \
             type: ClusterIP\n  clusterIP: {v4}\n  clusterIPs: [\"{v4}\", \"{v6}\"]\n  ports:\n",
            v4 = addresses.v4,
            v6 = addresses.v6
        );
        for Port { name, port, target, protocol } in ports {
            writeln!(text, "  - {{name: {name}, port: {port}, targetPort: {target}, protocol: {protocol}}}")?;
        }
        let v4: Vec<(IpAddr, &Pod)> = pods.iter().map(|pod| (pod.ip4().into(), *pod)).collect();
        let v6: Vec<(IpAddr, &Pod)> = pods.iter().map(|pod| (pod.ip6().into(), *pod)).collect();
        for (family, endpoints) in [("IPv4", v4), ("IPv6", v6)] {
            write!(
                text,
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  \
                 namespace: {namespace}\n  name: {name}-{}\n  labels: {{kubernetes.io/service-name: {name}}}\n\
                 addressType: {family}\nports:\n",
                family.to_ascii_lowercase()
            )?;
            for Port { name, target, protocol, .. } in ports {
                writeln!(text, "- {{name: {name}, port: {target}, protocol: {protocol}}}")?;
            }
            text.push_str("endpoints:\n");
            for (address, pod) in endpoints {
                writeln!(
                    text,
                    "- addresses: [\"{address}\"]\n  conditions: {{ready: true}}\n  nodeName: {}\n  \
                     targetRef: {{kind: Pod, namespace: {}, name: {}}}",
                    pod.node(),
                    pod.namespace(),
                    pod.name()
                )?;
            }
        }
        self.write(&format!("service-{namespace}-{name}.yaml"), &text)
    }
}

/// Allocates addresses for a service of `lab`.
pub fn allocate(lab: &Lab) -> ServiceAddresses {
    let (v4, v6) = lab.allocate_service();
    ServiceAddresses { v4, v6 }
}

/// A Node object. `ingress` are its addresses for what entered through a Gateway.
pub(crate) fn node_object(name: &str, addresses: &[IpAddr], ingress: &[IpAddr]) -> String {
    let mut text = format!("---\napiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n");
    if !ingress.is_empty() {
        let list: Vec<String> = ingress.iter().map(IpAddr::to_string).collect();
        text.push_str(&format!("  annotations:\n    weft.dev/ingress-addresses: \"{}\"\n", list.join(",")));
    }
    text.push_str("status:\n  addresses:\n");
    for address in addresses {
        text.push_str(&format!("  - {{type: InternalIP, address: \"{address}\"}}\n"));
    }
    text
}

fn pod_object(pod: &Pod) -> String {
    let mut text = format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  namespace: {}\n  name: {}\n  labels:\n    app: {}\n",
        pod.namespace(),
        pod.name(),
        pod.labels().iter().find(|(key, _)| key == "app").map_or(pod.name(), |(_, value)| value)
    );
    for (key, value) in pod.labels().iter().filter(|(key, _)| key != "app") {
        text.push_str(&format!("    {key}: {value}\n"));
    }
    text.push_str(&format!(
        "spec:\n  nodeName: {}\n  serviceAccountName: {}\nstatus:\n  phase: Running\n  podIP: {v4}\n  \
         podIPs: [{{ip: \"{v4}\"}}, {{ip: \"{v6}\"}}]\n",
        pod.node(),
        pod.name(),
        v4 = pod.ip4(),
        v6 = pod.ip6()
    ));
    text
}

/// A file of `examples/canary`: of the working directory's, else of the sources that we were built from.
pub fn example(file: &str) -> anyhow::Result<PathBuf> {
    let folders = ["examples/canary", concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/canary")];
    folders
        .iter()
        .map(|folder| PathBuf::from(folder).join(file))
        .find(|path| path.is_file())
        .with_context(|| format!("examples/canary/{file} is not there: run in the root of the repository"))
}
