// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Services by address and port.

use weft_ebpf_common::layout::{Address, Service, ServiceKey};

use crate::maps::{SERVICE_COUNTERS, SERVICES, get};

/// The service at an address and port.
#[inline(always)]
pub(crate) fn at(address: &Address, port_be: u16, protocol: u8) -> Option<&'static Service> {
    let key = ServiceKey { address: *address, port_be, protocol, pad: 0 };
    get(&SERVICES, &key)
}

/// Whether it is the address of a service, whatever the port.
#[inline(always)]
pub(crate) fn is_address(address: &Address) -> bool {
    at(address, 0, 0).is_some()
}

/// What a counter counts.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Counted {
    Translated,
    Redirected,
    Refused,
}

/// Counts a connection of a service.
#[inline(always)]
pub(crate) fn count(id: u32, what: Counted) {
    if let Some(counters) = SERVICE_COUNTERS.get_ptr_mut(&id) {
        // SAFETY: this CPU's value, which no other program has while this one runs.
        let counters = unsafe { &mut *counters };
        match what {
            Counted::Translated => counters.translated += 1,
            Counted::Redirected => counters.redirected += 1,
            Counted::Refused => counters.refused += 1,
        }
    }
}
