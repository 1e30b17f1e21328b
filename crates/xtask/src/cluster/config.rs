// SPDX-License-Identifier: Apache-2.0
//! What the parts of the cluster are told: files and command lines, as texts. Nothing here touches the machine.

use std::fmt;

use serde_json::{Value, json};

use crate::cli::{Cni, Families};

use super::layout::{
    API_PORT, DNS_SERVICE, Layout, Machine, SERVICES_IPV4, SERVICES_IPV6, control, nodes, text,
};

/// How a cluster is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) cni: Cni,
    pub(crate) families: Families,
    pub(crate) kube_proxy: bool,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cni = match self.cni {
            Cni::Ptp => "ptp",
            Cni::Bridge => "bridge",
        };
        let families = if self.is_dual() { "dual" } else { "ipv4" };
        let proxy = if self.kube_proxy { "with" } else { "without" };
        write!(f, "pods by {cni}, {families}, {proxy} kube-proxy")
    }
}

impl Settings {
    pub(super) fn is_dual(self) -> bool {
        self.families == Families::Dual
    }

    fn both(self, ipv4: String, ipv6: String) -> String {
        if self.is_dual() { format!("{ipv4},{ipv6}") } else { ipv4 }
    }

    fn services(self) -> String {
        self.both(SERVICES_IPV4.into(), SERVICES_IPV6.into())
    }

    /// The prefixes of a node's pods.
    pub(super) fn pods(self, node: Machine) -> Vec<String> {
        let ipv6 = self.is_dual().then(|| node.pods_ipv6());
        std::iter::once(node.pods_ipv4()).chain(ipv6).collect()
    }
}

/// What all machines begin and end with.
const BEGIN: &str = include_str!("machine.sh");
const END: &str = include_str!("end.sh");

/// The script of a machine's first process. `groups` says how the host mounts cgroups.
pub(super) fn script(
    layout: &Layout,
    machine: Machine,
    settings: Settings,
    groups: &str,
) -> anyhow::Result<String> {
    let (state, dir, bin) = (layout.state(), layout.machine(machine), layout.bin());
    let (state, dir, bin) = (text(&state)?, text(&dir)?, text(&bin)?);
    let name = machine.name;
    let head =
        format!("name={name}\nstate={state}\ndir={dir}\nbin={bin}\npki={state}/pki\ngroups='{groups}'\n");
    let body = match machine.is_node {
        true => {
            let images = layout.images();
            of_node(machine, settings, text(&images)?)
        }
        false => of_control(settings),
    };
    Ok(format!("{head}{BEGIN}{body}{END}"))
}

/// Addresses and routes of a machine on a device that is there already.
fn network(machine: Machine, device: &str, settings: Settings) -> String {
    let mut text = format!("ip addr add {}/24 dev {device}\n", machine.ipv4());
    if settings.is_dual() {
        text.push_str(&format!("ip addr add {}/64 dev {device} nodad\n", machine.ipv6()));
    }
    text.push_str(&format!("ip link set {device} up\n"));
    for other in nodes().filter(|other| *other != machine) {
        text.push_str(&format!("ip route add {} via {}\n", other.pods_ipv4(), other.ipv4()));
        if settings.is_dual() {
            text.push_str(&format!("ip -6 route add {} via {}\n", other.pods_ipv6(), other.ipv6()));
        }
    }
    text
}

fn of_control(settings: Settings) -> String {
    let (address, services) = (control().ipv4(), settings.services());
    let network = network(control(), "nodes", settings);
    format!(
        r#"ip link add nodes type bridge
{network}
start etcd etcd --data-dir /run/etcd --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
start apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --secure-port={API_PORT} \
    --advertise-address={address} --service-cluster-ip-range={services} --allow-privileged=true \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$pki/accounts.pub" \
    --service-account-signing-key-file="$pki/accounts.key" --authorization-mode=Node,RBAC \
    --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" \
    --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP
until_true "$bin/kubectl" --kubeconfig "$pki/admin.conf" get --raw /readyz
start controller-manager "$bin/kube-controller-manager" --kubeconfig="$pki/controller-manager.conf" \
    --service-account-private-key-file="$pki/accounts.key" --root-ca-file="$pki/ca.crt" \
    --use-service-account-credentials=true --leader-elect=false
start scheduler "$bin/kube-scheduler" --kubeconfig="$pki/scheduler.conf" --leader-elect=false
"#
    )
}

fn of_node(node: Machine, settings: Settings, images: &str) -> String {
    let address = settings.both(node.ipv4(), node.ipv6());
    let network = network(node, "eth0", settings);
    let name = node.name;
    let proxy = match settings.kube_proxy {
        true => "start kube-proxy \"$bin/kube-proxy\" --config=\"$dir/kube-proxy.yaml\"\n",
        false => "",
    };
    format!(
        r#"until_true ip link show eth0
{network}
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
cp "$dir/10-pods.conflist" /etc/cni/net.d/
mkdir -p /opt/cni/bin
ln -s /usr/lib/cni/* /opt/cni/bin/
start containerd containerd -c "$dir/containerd.toml"
until_true ctr version
for image in {images}/*.tar; do
    ctr -n k8s.io images import "$image" > "$dir/log/images" 2>&1
done
start kubelet "$bin/kubelet" --config="$dir/kubelet.yaml" --kubeconfig="$pki/{name}.conf" \
    --hostname-override={name} --node-ip={address}
{proxy}"#
    )
}

/// How a node's runtime connects pods.
pub(super) fn conflist(node: Machine, settings: Settings) -> String {
    let range = |subnet: &String| json!([{"subnet": subnet}]);
    let ranges: Vec<Value> = settings.pods(node).iter().map(range).collect();
    let route = |destination: &str| json!({"dst": destination});
    let mut routes = vec![route("0.0.0.0/0")];
    routes.extend(settings.is_dual().then(|| route("::/0")));
    let ipam = json!({"type": "host-local", "dataDir": "/run/ipam", "ranges": ranges, "routes": routes});
    let plugin = match settings.cni {
        Cni::Ptp => json!({"type": "ptp", "ipMasq": false, "ipam": ipam}),
        Cni::Bridge => json!({
            "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": false,
            "ipam": ipam,
        }),
    };
    format!("{:#}\n", json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]}))
}

/// The runtime's configuration: the same on every node, since each has a root of its own.
pub(super) const CONTAINERD: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Without CAP_SYS_RESOURCE nobody may lower the score of a process.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"#;

/// The kubelet's configuration.
pub(super) fn kubelet(node: Machine, pki: &str) -> String {
    let name = node.name;
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {pki}/ca.crt}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {pki}/{name}.crt
tlsPrivateKeyFile: {pki}/{name}.key
clusterDomain: cluster.local
clusterDNS: [{DNS_SERVICE}]
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
localStorageCapacityIsolation: false
evictionHard: {{memory.available: 100Mi}}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
maxPods: 200
"
    )
}

/// kube-proxy's configuration. Zero leaves the host's limits of connection tracking alone.
pub(super) fn kube_proxy(node: Machine, pki: &str) -> String {
    let name = node.name;
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: {name}
clientConnection: {{kubeconfig: {pki}/kube-proxy.conf}}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
"
    )
}

/// With what a part reaches the API server.
pub(super) fn client(pki: &str, name: &str) -> String {
    let address = control().ipv4();
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: weft
  cluster: {{server: 'https://{address}:{API_PORT}', certificate-authority: {pki}/ca.crt}}
users:
- name: {name}
  user: {{client-certificate: {pki}/{name}.crt, client-key: {pki}/{name}.key}}
contexts:
- name: weft
  context: {{cluster: weft, user: {name}}}
current-context: weft
"
    )
}

/// Names for pods: CoreDNS, which finds the API server without any Service.
pub(super) fn dns() -> String {
    let address = control().ipv4();
    include_str!("dns.yaml")
        .replace("API_SERVER_ADDRESS", &address)
        .replace("API_SERVER_PORT", &API_PORT.to_string())
        .replace("DNS_ADDRESS", DNS_SERVICE)
}

#[cfg(test)]
mod tests;
