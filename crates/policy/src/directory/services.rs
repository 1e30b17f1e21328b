// SPDX-License-Identifier: Apache-2.0
//! The names of services by address and port, for flows.

use std::{net::IpAddr, sync::Arc};

use imbl::OrdMap;
use weft_ir::{ObjectName, Service};

/// An address, a port, and the number of an IP protocol.
type Place = (IpAddr, u16, u8);

/// Services by what they are reached at.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Services(OrdMap<Place, Arc<[Named]>>);

/// A service, and its name as text.
type Named = (ObjectName, Arc<str>);

impl Services {
    /// The name (`namespace/name`) of the service; where several have the address, that of the last by name.
    pub(crate) fn find(&self, address: IpAddr, port: u16, protocol: u8) -> Option<&Arc<str>> {
        self.0.get(&(address, port, protocol))?.last().map(|(_, text)| text)
    }

    pub(crate) fn enter(&mut self, service: &Service) {
        let named = (service.name.clone(), Arc::from(service.name.to_string()));
        for place in places(service) {
            let mut all = self.0.get(&place).map_or_else(Vec::new, |known| known.to_vec());
            if let Err(at) = all.binary_search_by(|(name, _)| name.cmp(&service.name)) {
                all.insert(at, named.clone());
                self.0.insert(place, all.into());
            }
        }
    }

    pub(crate) fn leave(&mut self, service: &Service) {
        for place in places(service) {
            let Some(known) = self.0.get(&place) else { continue };
            let rest: Arc<[Named]> =
                known.iter().filter(|(name, _)| *name != service.name).cloned().collect();
            match rest.is_empty() {
                true => self.0.remove(&place),
                false => self.0.insert(place, rest),
            };
        }
    }
}

fn places(service: &Service) -> impl Iterator<Item = Place> {
    service.addresses.iter().flat_map(|address| {
        let address = address.to_canonical();
        service.ports.iter().map(move |port| (address, port.port, port.protocol.number()))
    })
}
