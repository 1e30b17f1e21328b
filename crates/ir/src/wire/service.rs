// SPDX-License-Identifier: Apache-2.0
//! Services, endpoints and listeners.

use super::{
    WireError,
    fields::{
        address, addresses, all, checked, object_name, parse_address, parse_addresses, parse_object_name,
        parse_protocol, parse_service_name, port, protocol, required,
    },
    generated as pb,
};
use crate::{
    AppProtocol, Endpoint, EndpointPort, Endpoints, Listener, ListenerParent, ListenerParentKind, Service,
    ServicePort, is_label, is_subdomain,
};

pub(super) fn service_to_wire(from: &Service) -> pb::Service {
    pb::Service {
        name: object_name(&from.name),
        addresses: addresses(&from.addresses),
        ports: from
            .ports
            .iter()
            .map(|port| pb::ServicePort {
                name: port.name.to_string(),
                port: port.port.into(),
                protocol: protocol(port.protocol),
                app_protocol: app_protocol(port.app_protocol),
            })
            .collect(),
    }
}

pub(super) fn parse_service(from: pb::Service) -> Result<Service, WireError> {
    Ok(Service {
        name: parse_service_name(from.name, "service.name")?,
        addresses: parse_addresses(from.addresses, "service.addresses")?,
        ports: all(from.ports, |from| {
            Ok(ServicePort {
                name: from.name.into(),
                port: port(from.port, "service_port.port")?,
                protocol: parse_protocol(from.protocol, "service_port.protocol")?,
                app_protocol: parse_app_protocol(from.app_protocol)?,
            })
        })?,
    })
}

pub(super) fn endpoints_to_wire(from: &Endpoints) -> pb::Endpoints {
    let ports = from.ports.iter().map(|port| pb::EndpointPort {
        name: port.name.to_string(),
        port: port.port.into(),
        protocol: protocol(port.protocol),
    });
    let endpoints = from.endpoints.iter().map(|endpoint| pb::Endpoint {
        address: address(&endpoint.address),
        ready: endpoint.ready,
        serving: endpoint.serving,
        terminating: endpoint.terminating,
    });
    pb::Endpoints {
        name: object_name(&from.name),
        service: from.service.to_string(),
        ports: ports.collect(),
        endpoints: endpoints.collect(),
    }
}

pub(super) fn parse_endpoints(from: pb::Endpoints) -> Result<Endpoints, WireError> {
    Ok(Endpoints {
        name: parse_object_name(from.name, "endpoints.name")?,
        service: checked(from.service, is_label, "endpoints.service")?,
        ports: all(from.ports, |from| {
            Ok(EndpointPort {
                name: from.name.into(),
                port: port(from.port, "endpoint_port.port")?,
                protocol: parse_protocol(from.protocol, "endpoint_port.protocol")?,
            })
        })?,
        endpoints: all(from.endpoints, |from| {
            Ok(Endpoint {
                address: parse_address(&from.address, "endpoint.address")?,
                ready: from.ready,
                serving: from.serving,
                terminating: from.terminating,
            })
        })?,
    })
}

pub(super) fn listener_to_wire(from: &Listener) -> pb::Listener {
    pb::Listener {
        parent: Some(listener_parent(&from.parent)),
        name: from.name.to_string(),
        addresses: addresses(&from.addresses),
        port: from.port.into(),
        hostname: from.hostname.to_string(),
    }
}

pub(super) fn parse_listener(from: pb::Listener) -> Result<Listener, WireError> {
    Ok(Listener {
        parent: parse_listener_parent(from.parent)?,
        name: checked(from.name, is_subdomain, "listener.name")?,
        addresses: parse_addresses(from.addresses, "listener.addresses")?,
        port: port(from.port, "listener.port")?,
        hostname: from.hostname.into(),
    })
}

pub(super) fn listener_parent(from: &ListenerParent) -> pb::ListenerParent {
    let kind = match from.kind {
        ListenerParentKind::Gateway => pb::ListenerParentKind::Gateway,
        ListenerParentKind::ListenerSet => pb::ListenerParentKind::ListenerSet,
    };
    pb::ListenerParent { kind: kind.into(), name: object_name(&from.name) }
}

pub(super) fn parse_listener_parent(from: Option<pb::ListenerParent>) -> Result<ListenerParent, WireError> {
    let from = required(from, "listener.parent")?;
    let kind = match pb::ListenerParentKind::try_from(from.kind) {
        Ok(pb::ListenerParentKind::Gateway) => ListenerParentKind::Gateway,
        Ok(pb::ListenerParentKind::ListenerSet) => ListenerParentKind::ListenerSet,
        Ok(pb::ListenerParentKind::Unspecified) | Err(_) => {
            return Err(WireError::UnknownEnum { field: "listener_parent.kind", value: from.kind });
        }
    };
    Ok(ListenerParent { kind, name: parse_object_name(from.name, "listener_parent.name")? })
}

fn app_protocol(from: AppProtocol) -> i32 {
    match from {
        AppProtocol::Unknown => pb::AppProtocol::Unknown,
        AppProtocol::Http => pb::AppProtocol::Http,
        AppProtocol::Http2 => pb::AppProtocol::Http2,
        AppProtocol::Tcp => pb::AppProtocol::Tcp,
    }
    .into()
}

fn parse_app_protocol(from: i32) -> Result<AppProtocol, WireError> {
    match pb::AppProtocol::try_from(from) {
        Ok(pb::AppProtocol::Unknown) => Ok(AppProtocol::Unknown),
        Ok(pb::AppProtocol::Http) => Ok(AppProtocol::Http),
        Ok(pb::AppProtocol::Http2) => Ok(AppProtocol::Http2),
        Ok(pb::AppProtocol::Tcp) => Ok(AppProtocol::Tcp),
        Ok(pb::AppProtocol::Unspecified) | Err(_) => {
            Err(WireError::UnknownEnum { field: "service_port.app_protocol", value: from })
        }
    }
}
