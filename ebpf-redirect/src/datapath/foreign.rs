// SPDX-License-Identifier: Apache-2.0
//! Connections that others have translated before the sockets' hooks knew their service go on, held to the policy
//! of where they lead.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use imbl::ordmap::DiffItem;
use weft_ebpf_common::{
    connection::ConnectionKey,
    layout::{Endpoint, ServiceKey},
};

use super::{Datapath, DatapathError};
use crate::{conntrack, desired::Desired};

/// How long what was read of connection tracking holds: a datagram of an old socket that is led elsewhere since is
/// judged by where it was led before.
const RENEWAL: Duration = Duration::from_secs(60);

impl Datapath {
    /// Tells the kernel of translated connections before it knows new addresses of services, since it takes what
    /// is sent there untranslated for an error.
    pub(super) fn learn_foreign(
        &mut self,
        last: Option<&Desired>,
        desired: &Desired,
    ) -> Result<(), DatapathError> {
        let is_new = match last {
            None => !desired.services.is_empty(),
            Some(last) => last.services.diff(&desired.services).any(|item| matches!(item, DiffItem::Add(..))),
        };
        if is_new { self.write_foreign(desired) } else { Ok(()) }
    }

    /// Forgets connections that ended, and learns where datagrams of old sockets are led now. To be called now and
    /// then.
    ///
    /// # Errors
    /// Where connection tracking or the map cannot be read.
    pub(super) fn renew_foreign(&mut self) -> Result<(), DatapathError> {
        if self.foreign == 0 || self.foreign_read.elapsed() < RENEWAL {
            return Ok(());
        }
        let desired = self.desired.clone();
        self.write_foreign(&desired)
    }

    fn write_foreign(&mut self, desired: &Desired) -> Result<(), DatapathError> {
        let is_service = |asked: IpAddr| {
            desired.services.contains_key(&ServiceKey {
                address: asked.into(),
                port_be: 0,
                protocol: 0,
                pad: 0,
            })
        };
        let found = conntrack::translated()?;
        let of_services = found.iter().filter(|found| is_service(found.asked));
        let wanted: BTreeMap<ConnectionKey, Endpoint> =
            of_services.map(|found| (found.key, found.backend)).collect();
        let there = self.maps.foreign.keys()?;
        for key in there.iter().filter(|key| !wanted.contains_key(key)) {
            self.maps.foreign.remove(key)?;
        }
        let mut changed = false;
        for (key, backend) in &wanted {
            if self.maps.foreign.lookup(key)?.as_ref() != Some(backend) {
                self.maps.foreign.update(key, backend)?;
                changed = true;
            }
        }
        if changed {
            self.decide_again()?;
        }
        if wanted.len() != self.foreign {
            tracing::info!(connections = wanted.len(), "connections to services that others translate");
        }
        self.foreign = wanted.len();
        self.foreign_read = Instant::now();
        Ok(())
    }

    /// What was let in as a connection to an address outside is one to a backend.
    fn decide_again(&self) -> Result<(), DatapathError> {
        let mut config = self.maps.config.lookup(&0)?.unwrap_or_default();
        config.epoch = config.epoch.wrapping_add(1);
        Ok(self.maps.config.update(&0, &config)?)
    }
}
