// SPDX-License-Identifier: Apache-2.0
//! GatewayClass, Gateway and ReferenceGrant of `gateway.networking.k8s.io`.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{decode::DecodeError, meta::Metadata, policy::LabelSelector};

/// The group of the Gateway API.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// GatewayClass.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GatewayClass {
    /// Its name.
    pub metadata: Metadata,
    /// What is asked for.
    pub spec: GatewayClassSpec,
}

/// `spec` of a GatewayClass.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayClassSpec {
    /// Who implements the class.
    pub controller_name: Arc<str>,
    /// Free text.
    pub description: Option<Arc<str>>,
}

/// Gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Gateway {
    /// Its name.
    pub metadata: Metadata,
    /// What is asked for.
    pub spec: GatewaySpec,
    /// Listeners of which only the name could be read, where and why.
    #[serde(skip)]
    pub unread: Vec<DecodeError>,
}

/// `spec` of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewaySpec {
    /// The class.
    pub gateway_class_name: Arc<str>,
    /// 1 to 64 listeners with different names.
    pub listeners: Vec<Listener>,
    /// Addresses that are asked for.
    pub addresses: Vec<GatewayAddress>,
}

/// A listener of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// The hostname that requests must have; any when absent.
    pub hostname: Option<Arc<str>>,
    /// The port.
    pub port: u16,
    /// `HTTP`, `HTTPS`, `TLS`, `TCP`, `UDP` or a name with a domain.
    pub protocol: Arc<str>,
    /// Which routes may attach.
    pub allowed_routes: AllowedRoutes,
}

/// Which routes may attach to a listener.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AllowedRoutes {
    /// Where they may live.
    pub namespaces: RouteNamespaces,
    /// Of which kinds they may be; what the protocol allows when empty.
    pub kinds: Vec<RouteGroupKind>,
}

/// `allowedRoutes.namespaces`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RouteNamespaces {
    /// How namespaces are chosen.
    pub from: FromNamespaces,
    /// Labels of the namespaces, for `Selector`.
    pub selector: Option<LabelSelector>,
}

/// `All`, `Same` (the default), `Selector` or `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum FromNamespaces {
    /// Every namespace.
    All,
    /// The Gateway's namespace.
    #[default]
    Same,
    /// Namespaces with the labels of `selector`.
    Selector,
    /// No namespace.
    None,
}

/// Group and kind of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteGroupKind {
    /// The group.
    #[serde(default = "gateway_group")]
    pub group: Arc<str>,
    /// The kind.
    pub kind: Arc<str>,
}

fn gateway_group() -> Arc<str> {
    GROUP.into()
}

/// An address of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayAddress {
    /// `IPAddress` (the default), `Hostname` or a name with a domain.
    #[serde(default, rename = "type")]
    pub kind: Option<Arc<str>>,
    /// The address; empty asks for one of this type.
    #[serde(default)]
    pub value: Arc<str>,
}

/// ReferenceGrant: allows references from other namespaces to objects of its own.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ReferenceGrant {
    /// Its name.
    pub metadata: Metadata,
    /// What is allowed.
    pub spec: ReferenceGrantSpec,
}

/// `spec` of a ReferenceGrant.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    pub from: Vec<GrantFrom>,
    /// To what.
    pub to: Vec<GrantTo>,
}

/// Who may refer.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct GrantFrom {
    /// Group of the referring object; empty is the group of Pod and Service.
    pub group: Arc<str>,
    /// Kind of the referring object.
    pub kind: Arc<str>,
    /// Namespace of the referring object.
    pub namespace: Arc<str>,
}

/// To what.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct GrantTo {
    /// Group of the object.
    pub group: Arc<str>,
    /// Kind of the object.
    pub kind: Arc<str>,
    /// One name, or every name.
    #[serde(default)]
    pub name: Option<Arc<str>>,
}

/// Labels of a namespace, as selectors see them.
pub type NamespaceLabels = BTreeMap<Arc<str>, Arc<str>>;
