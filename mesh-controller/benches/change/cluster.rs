// SPDX-License-Identifier: Apache-2.0
//! Manifests of a cluster of any size: for each pod half a Service, two endpoints, and a fifth of a route
//! and of a policy.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

/// Pods behind each Service; its slice lists twice as many, half of them those of the next Service.
const PODS: u32 = 2;
/// Services of a namespace.
const SERVICES: u32 = 100;
/// Services for each route and for each policy: 2.5, as halves.
const HALVES: u32 = 5;
/// Pods of a node: the most that a kubelet takes by default (`maxPods`).
const PODS_OF_A_NODE: u32 = 110;

/// The kinds of which one is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    Pod,
    Service,
    EndpointSlice,
    HttpRoute,
    Policy,
}

impl Changed {
    pub const ALL: [Changed; 5] =
        [Changed::Pod, Changed::Service, Changed::EndpointSlice, Changed::HttpRoute, Changed::Policy];
}

/// A cluster of so many pods.
#[derive(Clone, Copy, Debug)]
pub struct Cluster {
    pub pods: u32,
}

impl Cluster {
    pub fn services(self) -> u32 {
        self.pods / PODS
    }

    pub fn routes(self) -> u32 {
        self.services() * 2 / HALVES
    }

    pub fn policies(self) -> u32 {
        self.services() * 2 / HALVES
    }

    pub fn nodes(self) -> u32 {
        self.pods.div_ceil(PODS_OF_A_NODE)
    }

    fn count(self, kind: Changed) -> u32 {
        match kind {
            Changed::Pod => self.pods,
            Changed::Service | Changed::EndpointSlice => self.services(),
            Changed::HttpRoute => self.routes(),
            Changed::Policy => self.policies(),
        }
    }

    /// Writes every manifest below a directory: a file for each object, but one for a Service and its slice.
    pub fn write(self, root: &Path) -> io::Result<()> {
        for directory in ["pods", "services", "routes", "policies"] {
            fs::create_dir_all(root.join(directory))?;
        }
        fs::write(root.join("base.yaml"), self.base())?;
        for kind in [Changed::Pod, Changed::Service, Changed::HttpRoute, Changed::Policy] {
            for number in 0..self.count(kind) {
                let (path, text) = self.file(kind, number, 0);
                fs::write(root.join(path), text)?;
            }
        }
        Ok(())
    }

    /// The file of an object below the root, and its text after so many changes.
    pub fn file(self, kind: Changed, number: u32, version: u32) -> (PathBuf, String) {
        let number = number % self.count(kind);
        let (directory, text) = match kind {
            Changed::Pod => ("pods", self.pod(number, version)),
            Changed::Service => ("services", self.service(number, version) + &self.slice(number, 0)),
            Changed::EndpointSlice => ("services", self.service(number, 0) + &self.slice(number, version)),
            Changed::HttpRoute => ("routes", self.route(number, version)),
            Changed::Policy => ("policies", self.policy(number, version)),
        };
        (Path::new(directory).join(format!("{number:06}.yaml")), text)
    }

    fn base(self) -> String {
        let mut text = String::from(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: weft}\n\
             spec: {controllerName: weft.dev/gateway-controller}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: public, namespace: edge}\n\
             spec:\n  gatewayClassName: weft\n  listeners:\n  - {name: http, port: 80, protocol: HTTP, \
             allowedRoutes: {namespaces: {from: All}}}\n---\n\
             apiVersion: v1\nkind: Namespace\nmetadata: {name: edge}\n",
        );
        for namespace in 0..self.services().div_ceil(SERVICES) {
            writeln!(
                text,
                "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: ns{namespace}, labels: {{team: t{}}}}}",
                namespace % 10
            )
            .unwrap();
        }
        for node in 0..self.nodes() {
            writeln!(
                text,
                "---\napiVersion: v1\nkind: Node\nmetadata: {{name: n{node}}}\n\
                 status: {{addresses: [{{type: InternalIP, address: 192.168.{}.{}}}]}}",
                node >> 8,
                node & 255
            )
            .unwrap();
        }
        text
    }

    fn pod(self, number: u32, version: u32) -> String {
        let service = number / PODS;
        let second = if version > 0 { format!(", {{ip: \"fd01::{version:x}\"}}") } else { String::new() };
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: s{service}-{number}\n  namespace: ns{}\n\
             \x20 labels: {{app: s{service}, pod-template-hash: 5d8c7b}}\n\
             \x20 ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: s{service}-5d8c7b, controller: true, uid: u}}]\n\
             spec:\n  nodeName: n{}\n  serviceAccountName: s{service}\n  containers:\n\
             \x20 - name: app\n    image: registry.example.com/s{service}:1.2.3\n    ports: [{{name: http, containerPort: 8080}}]\n\
             status: {{phase: Running, podIP: {ip}, podIPs: [{{ip: {ip}}}{second}]}}\n",
            service / SERVICES,
            number % self.nodes(),
            ip = address(number)
        )
    }

    fn service(self, number: u32, version: u32) -> String {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s{number}, namespace: ns{}}}\nspec:\n\
             \x20 clusterIP: 172.{}.{}.{}\n  selector: {{app: s{number}}}\n  ports:\n\
             \x20 - {{name: http, port: 80, targetPort: 8080, appProtocol: http}}\n\
             \x20 - {{name: admin, port: {}, targetPort: 9090}}\n---\n",
            number / SERVICES,
            16 + (number >> 16),
            (number >> 8) & 255,
            number & 255,
            9_000 + version,
        )
    }

    fn slice(self, number: u32, version: u32) -> String {
        let mut text = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: s{number}-a\n  namespace: ns{}\n\
             \x20 labels: {{kubernetes.io/service-name: s{number}}}\naddressType: IPv4\n\
             ports:\n- {{name: http, port: 8080}}\n- {{name: admin, port: 9090}}\nendpoints:\n",
            number / SERVICES
        );
        for endpoint in 0..2 * PODS {
            let pod = (number * PODS + endpoint) % self.pods;
            writeln!(
                text,
                "- {{addresses: [{}], nodeName: n{}, conditions: {{ready: {}}}}}",
                address(pod),
                pod % self.nodes(),
                version == 0 || endpoint > 0,
            )
            .unwrap();
        }
        text
    }

    /// Every second route is for a Gateway, the others for a Service.
    fn route(self, number: u32, version: u32) -> String {
        let service = number * HALVES / 2;
        let other = service - service % SERVICES;
        let (parent, host) = if number.is_multiple_of(2) {
            ("{name: public, namespace: edge}".to_owned(), format!("  hostnames: [s{service}.example.com]\n"))
        } else {
            (format!("{{group: \"\", kind: Service, name: s{service}, port: 80}}"), String::new())
        };
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{number}, namespace: ns{}}}\n\
             spec:\n  parentRefs: [{parent}]\n{host}  rules:\n\
             \x20 - matches: [{{path: {{type: RegularExpression, value: \"/v[0-9]+/items/[a-z0-9-]{{1,32}}\"}}}}]\n\
             \x20   backendRefs: [{{name: s{service}, port: 80, weight: {}}}, {{name: s{other}, port: 80, weight: 5}}]\n\
             \x20 - backendRefs: [{{name: s{service}, port: 80}}]\n",
            service / SERVICES,
            90 + version,
        )
    }

    fn policy(self, number: u32, version: u32) -> String {
        let service = number * HALVES / 2;
        let namespace = service / SERVICES;
        let from = service - service % SERVICES;
        let port = 8_080 + version;
        if number.is_multiple_of(2) {
            format!(
                "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p{number}, namespace: ns{namespace}}}\n\
                 spec:\n  endpointSelector: {{matchLabels: {{app: s{service}}}}}\n  ingress:\n\
                 \x20 - fromEndpoints: [{{matchLabels: {{app: s{from}}}}}]\n    toPorts:\n\
                 \x20   - ports: [{{port: \"{port}\", protocol: TCP}}]\n\
                 \x20     rules: {{http: [{{method: GET, path: \"/v[0-9]+/items/[a-z0-9-]{{1,32}}\"}}, {{method: POST, path: \"/v1/.*\"}}]}}\n"
            )
        } else {
            format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p{number}, namespace: ns{namespace}}}\n\
                 spec:\n  podSelector: {{matchLabels: {{app: s{service}}}}}\n  ingress:\n\
                 \x20 - from: [{{podSelector: {{matchLabels: {{app: s{from}}}}}}}, {{ipBlock: {{cidr: 203.0.113.0/24}}}}]\n\
                 \x20   ports: [{{port: {port}}}]\n"
            )
        }
    }
}

fn address(pod: u32) -> String {
    format!("10.{}.{}.{}", 64 + (pod >> 16), (pod >> 8) & 255, pod & 255)
}
