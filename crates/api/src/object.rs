// SPDX-License-Identifier: Apache-2.0
//! Any object: its kind, its key, and how it is read.

use std::{fmt, sync::Arc};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    core::{EndpointSlice, Namespace, Node, Pod, Service},
    decode::{DecodeError, Decoded, decode_as},
    gateway::{self, Gateway, GatewayClass, ReferenceGrant},
    httproute::HttpRoute,
    meta::Metadata,
    parts,
    policy::{CiliumNetworkPolicy, NetworkPolicy},
    ratelimit::{self, RateLimitPolicy},
};

/// The kinds that Weft reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` Namespace.
    Namespace,
    /// `v1` Node.
    Node,
    /// `v1` Pod.
    Pod,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `gateway.networking.k8s.io/v1` GatewayClass.
    GatewayClass,
    /// `gateway.networking.k8s.io/v1` Gateway.
    Gateway,
    /// `gateway.networking.k8s.io/v1` HTTPRoute.
    HttpRoute,
    /// `gateway.networking.k8s.io/v1` ReferenceGrant.
    ReferenceGrant,
    /// `cilium.io/v2` CiliumNetworkPolicy.
    CiliumNetworkPolicy,
    /// `cilium.io/v2` CiliumClusterwideNetworkPolicy, which is read only to be refused.
    CiliumClusterwideNetworkPolicy,
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `weft.dev/v1alpha1` RateLimitPolicy.
    RateLimitPolicy,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 13] = [
        Kind::Namespace,
        Kind::Node,
        Kind::Pod,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::GatewayClass,
        Kind::Gateway,
        Kind::HttpRoute,
        Kind::ReferenceGrant,
        Kind::CiliumNetworkPolicy,
        Kind::CiliumClusterwideNetworkPolicy,
        Kind::NetworkPolicy,
        Kind::RateLimitPolicy,
    ];

    /// The name that `kind` has in an object.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Namespace => "Namespace",
            Kind::Node => "Node",
            Kind::Pod => "Pod",
            Kind::Service => "Service",
            Kind::EndpointSlice => "EndpointSlice",
            Kind::GatewayClass => "GatewayClass",
            Kind::Gateway => "Gateway",
            Kind::HttpRoute => "HTTPRoute",
            Kind::ReferenceGrant => "ReferenceGrant",
            Kind::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            Kind::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            Kind::NetworkPolicy => "NetworkPolicy",
            Kind::RateLimitPolicy => "RateLimitPolicy",
        }
    }

    /// The name of its resource, as paths of the API have it.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Namespace => "namespaces",
            Kind::Node => "nodes",
            Kind::Pod => "pods",
            Kind::Service => "services",
            Kind::EndpointSlice => "endpointslices",
            Kind::GatewayClass => "gatewayclasses",
            Kind::Gateway => "gateways",
            Kind::HttpRoute => "httproutes",
            Kind::ReferenceGrant => "referencegrants",
            Kind::CiliumNetworkPolicy => "ciliumnetworkpolicies",
            Kind::CiliumClusterwideNetworkPolicy => "ciliumclusterwidenetworkpolicies",
            Kind::NetworkPolicy => "networkpolicies",
            Kind::RateLimitPolicy => "ratelimitpolicies",
        }
    }

    /// Its API group; empty for the oldest kinds.
    pub fn group(self) -> &'static str {
        match self {
            Kind::Namespace | Kind::Node | Kind::Pod | Kind::Service => "",
            Kind::EndpointSlice => "discovery.k8s.io",
            Kind::GatewayClass | Kind::Gateway | Kind::HttpRoute | Kind::ReferenceGrant => gateway::GROUP,
            Kind::CiliumNetworkPolicy | Kind::CiliumClusterwideNetworkPolicy => "cilium.io",
            Kind::NetworkPolicy => "networking.k8s.io",
            Kind::RateLimitPolicy => ratelimit::GROUP,
        }
    }

    /// The versions that are read, the preferred one first. They have the same fields.
    pub fn versions(self) -> &'static [&'static str] {
        match self.group() {
            gateway::GROUP => &["v1", "v1beta1"],
            ratelimit::GROUP => &["v1alpha1"],
            "cilium.io" => &["v2"],
            _ => &["v1"],
        }
    }

    /// Group and version, the preferred one.
    pub fn api_version(self) -> String {
        let version = self.versions().first().copied().unwrap_or_default();
        match self.group() {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }

    /// Whether its objects live in namespaces.
    pub fn namespaced(self) -> bool {
        !matches!(
            self,
            Kind::Namespace | Kind::Node | Kind::GatewayClass | Kind::CiliumClusterwideNetworkPolicy
        )
    }
}

/// Kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The kind.
    pub kind: Kind,
    /// The namespace; empty for objects of the cluster.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind.name(), self.name)
        } else {
            write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
        }
    }
}

/// An object that was read.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the kinds")]
pub enum Object {
    Namespace(Namespace),
    Node(Node),
    Pod(Pod),
    Service(Service),
    EndpointSlice(EndpointSlice),
    GatewayClass(GatewayClass),
    Gateway(Gateway),
    HttpRoute(HttpRoute),
    ReferenceGrant(ReferenceGrant),
    CiliumNetworkPolicy(CiliumNetworkPolicy),
    NetworkPolicy(NetworkPolicy),
    RateLimitPolicy(RateLimitPolicy),
}

impl Object {
    /// Its `metadata`.
    pub fn metadata(&self) -> &Metadata {
        match self {
            Object::Namespace(object) => &object.metadata,
            Object::Node(object) => &object.metadata,
            Object::Pod(object) => &object.metadata,
            Object::Service(object) => &object.metadata,
            Object::EndpointSlice(object) => &object.metadata,
            Object::GatewayClass(object) => &object.metadata,
            Object::Gateway(object) => &object.metadata,
            Object::HttpRoute(object) => &object.metadata,
            Object::ReferenceGrant(object) => &object.metadata,
            Object::CiliumNetworkPolicy(object) => &object.metadata,
            Object::NetworkPolicy(object) => &object.metadata,
            Object::RateLimitPolicy(object) => &object.metadata,
        }
    }
}

/// Reads an object of a kind other than [`Kind::CiliumClusterwideNetworkPolicy`].
///
/// Errors name the first field that has a wrong type or value.
pub fn decode(kind: Kind, value: &Value) -> Result<Decoded<Object>, DecodeError> {
    match kind {
        Kind::Namespace => of(value, Object::Namespace),
        Kind::Node => of(value, Object::Node),
        Kind::Pod => of(value, Object::Pod),
        Kind::Service => of(value, Object::Service),
        Kind::EndpointSlice => of(value, Object::EndpointSlice),
        Kind::GatewayClass => of(value, Object::GatewayClass),
        Kind::Gateway => {
            let (Decoded { object, unknown }, unread) = parts::decode(value, parts::of_gateway)?;
            Ok(Decoded { object: Object::Gateway(Gateway { unread, ..object }), unknown })
        }
        Kind::HttpRoute => {
            let (Decoded { object, unknown }, unread) = parts::decode(value, parts::of_route)?;
            Ok(Decoded { object: Object::HttpRoute(HttpRoute { unread, ..object }), unknown })
        }
        Kind::ReferenceGrant => of(value, Object::ReferenceGrant),
        Kind::CiliumNetworkPolicy => of(value, Object::CiliumNetworkPolicy),
        Kind::CiliumClusterwideNetworkPolicy => {
            Err(DecodeError::new("kind", "CiliumClusterwideNetworkPolicy is not supported"))
        }
        Kind::NetworkPolicy => of(value, Object::NetworkPolicy),
        Kind::RateLimitPolicy => of(value, Object::RateLimitPolicy),
    }
}

fn of<T: DeserializeOwned>(value: &Value, wrap: fn(T) -> Object) -> Result<Decoded<Object>, DecodeError> {
    decode_as(value).map(|decoded| Decoded { object: wrap(decoded.object), unknown: decoded.unknown })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::meta;

    #[test]
    fn unknown_fields_are_returned_by_path() {
        let value = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "r", "managedFields": []},
            "spec": {"rules": [{"filters": [{"type": "CORS", "cors": {}}], "sessionPersistence": {}}]},
            "status": {"parents": []},
        });
        let decoded = decode(Kind::HttpRoute, &value).unwrap();
        let unknown: Vec<&str> = decoded.unknown.iter().map(AsRef::as_ref).collect();
        assert_eq!(unknown, ["spec.rules[0].filters[0].cors", "spec.rules[0].sessionPersistence"]);
    }

    #[test]
    fn fields_of_metadata_that_kubernetes_does_not_have_are_unknown() {
        let fields = meta::FIELDS.map(|field| (field.to_owned(), json!(null)));
        let mut metadata: serde_json::Map<String, Value> = fields.into_iter().collect();
        metadata.retain(|field, _| !matches!(field.as_str(), "name" | "namespace"));
        for field in ["labels", "annotations"] {
            metadata.insert(field.to_owned(), json!({"namspace": "x", "a.b/c": "y"}));
        }
        metadata.insert("ownerReferences".to_owned(), json!([{"uid": "u", "blockOwnerDeletion": true}]));
        metadata.insert("managedFields".to_owned(), json!([{"spec": {"a": 1}}]));
        let unknown = |metadata: &serde_json::Map<String, Value>| {
            let value = json!({"metadata": metadata, "spec": {"podSelector": {}}});
            decode(Kind::NetworkPolicy, &value).unwrap().unknown
        };
        assert_eq!(unknown(&metadata), [] as [Arc<str>; 0]);
        for (field, path) in [
            ("namspace", "metadata.namspace"),
            ("lables", "metadata.lables"),
            ("spec", "metadata.spec"),
            ("Namespace", "metadata.Namespace"),
            ("labels.app", "metadata[labels.app]"),
        ] {
            let mut metadata = metadata.clone();
            metadata.insert(field.to_owned(), json!({"a": 1}));
            assert_eq!(unknown(&metadata), [Arc::from(path)]);
        }
    }

    #[test]
    fn an_error_names_the_field() {
        let value = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}, {"port": 99999}]}});
        let error = decode(Kind::Service, &value).unwrap_err();
        assert_eq!(&*error.path, "spec.ports[1].port");
        let value = json!({"metadata": {"name": "r", "labels": {"app.kubernetes.io/name": 1}}});
        let error = decode(Kind::Pod, &value).unwrap_err();
        assert_eq!(&*error.path, "metadata.labels[app.kubernetes.io/name]");
    }
}
