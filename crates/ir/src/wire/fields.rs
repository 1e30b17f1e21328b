// SPDX-License-Identifier: Apache-2.0
//! Fields that many messages share.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use ipnet::IpNet;

use super::{WireError, generated as pb};
use crate::{ObjectName, Protocol, is_label, is_subdomain};

/// What must be there.
pub(super) fn required<T>(value: Option<T>, field: &'static str) -> Result<T, WireError> {
    value.ok_or(WireError::Missing { field })
}

/// Every element through a conversion that can fail.
pub(super) fn all<A, B>(
    from: Vec<A>,
    convert: impl FnMut(A) -> Result<B, WireError>,
) -> Result<Vec<B>, WireError> {
    from.into_iter().map(convert).collect()
}

pub(super) fn strings(from: &[Arc<str>]) -> Vec<String> {
    from.iter().map(|s| s.to_string()).collect()
}

pub(super) fn shared(from: Vec<String>) -> Vec<Arc<str>> {
    from.into_iter().map(Arc::from).collect()
}

pub(super) fn string(from: &Option<Arc<str>>) -> Option<String> {
    from.as_ref().map(|s| s.to_string())
}

pub(super) fn share(from: Option<String>) -> Option<Arc<str>> {
    from.map(Arc::from)
}

pub(super) fn object_name(from: &ObjectName) -> Option<pb::ObjectName> {
    Some(pb::ObjectName { namespace: from.namespace.to_string(), name: from.name.to_string() })
}

pub(super) fn parse_object_name(
    from: Option<pb::ObjectName>,
    field: &'static str,
) -> Result<ObjectName, WireError> {
    let from = required(from, field)?;
    let namespace = checked(from.namespace, is_label, field)?;
    Ok(ObjectName { namespace, name: checked(from.name, is_subdomain, field)? })
}

/// The name of a Service, which has no dots.
pub(super) fn parse_service_name(
    from: Option<pb::ObjectName>,
    field: &'static str,
) -> Result<ObjectName, WireError> {
    let name = parse_object_name(from, field)?;
    if is_label(&name.name) { Ok(name) } else { Err(WireError::Name { field }) }
}

/// A name that must be of this form.
pub(super) fn checked(
    from: String,
    form: fn(&str) -> bool,
    field: &'static str,
) -> Result<Arc<str>, WireError> {
    if form(&from) { Ok(from.into()) } else { Err(WireError::Name { field }) }
}

pub(super) fn address(from: &IpAddr) -> Bytes {
    match from {
        IpAddr::V4(v4) => Bytes::copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => Bytes::copy_from_slice(&v6.octets()),
    }
}

pub(super) fn addresses(from: &[IpAddr]) -> Vec<Bytes> {
    from.iter().map(address).collect()
}

pub(super) fn parse_address(from: &[u8], field: &'static str) -> Result<IpAddr, WireError> {
    if let Ok(v4) = <[u8; 4]>::try_from(from) {
        return Ok(IpAddr::from(v4));
    }
    match <[u8; 16]>::try_from(from) {
        Ok(v6) => Ok(IpAddr::from(v6)),
        Err(_) => Err(WireError::Address { field, length: from.len() }),
    }
}

pub(super) fn parse_addresses(from: Vec<Bytes>, field: &'static str) -> Result<Vec<IpAddr>, WireError> {
    all(from, |bytes| parse_address(&bytes, field))
}

pub(super) fn cidr(from: &IpNet) -> pb::Cidr {
    pb::Cidr { address: address(&from.addr()), prefix: u32::from(from.prefix_len()) }
}

pub(super) fn parse_cidr(from: pb::Cidr, field: &'static str) -> Result<IpNet, WireError> {
    let out_of_range = WireError::OutOfRange { field, value: u64::from(from.prefix) };
    let Ok(prefix) = u8::try_from(from.prefix) else { return Err(out_of_range) };
    IpNet::new(parse_address(&from.address, field)?, prefix).or(Err(out_of_range))
}

pub(super) fn port(from: u32, field: &'static str) -> Result<u16, WireError> {
    match u16::try_from(from) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(WireError::OutOfRange { field, value: u64::from(from) }),
    }
}

pub(super) fn small(from: u32, field: &'static str) -> Result<u16, WireError> {
    u16::try_from(from).or(Err(WireError::OutOfRange { field, value: u64::from(from) }))
}

pub(super) fn protocol(from: Protocol) -> i32 {
    match from {
        Protocol::Tcp => pb::Protocol::Tcp,
        Protocol::Udp => pb::Protocol::Udp,
        Protocol::Sctp => pb::Protocol::Sctp,
    }
    .into()
}

pub(super) fn parse_protocol(from: i32, field: &'static str) -> Result<Protocol, WireError> {
    match pb::Protocol::try_from(from) {
        Ok(pb::Protocol::Tcp) => Ok(Protocol::Tcp),
        Ok(pb::Protocol::Udp) => Ok(Protocol::Udp),
        Ok(pb::Protocol::Sctp) => Ok(Protocol::Sctp),
        Ok(pb::Protocol::Unspecified) | Err(_) => Err(WireError::UnknownEnum { field, value: from }),
    }
}

pub(super) fn duration(from: &Option<Duration>) -> Option<pb::Duration> {
    from.map(|from| pb::Duration { seconds: from.as_secs(), nanos: from.subsec_nanos() })
}

pub(super) fn parse_duration(from: pb::Duration, field: &'static str) -> Result<Duration, WireError> {
    if from.nanos > 999_999_999 {
        return Err(WireError::OutOfRange { field, value: u64::from(from.nanos) });
    }
    Ok(Duration::new(from.seconds, from.nanos))
}

pub(super) fn parse_optional_duration(
    from: Option<pb::Duration>,
    field: &'static str,
) -> Result<Option<Duration>, WireError> {
    from.map(|from| parse_duration(from, field)).transpose()
}
