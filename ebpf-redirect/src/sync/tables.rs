// SPDX-License-Identifier: Apache-2.0
//! The tables as a synchronisation sees them: entries that are read once and written one by one.

use std::{collections::BTreeSet, io};

use weft_ebpf_common::{
    Verdict,
    layout::{
        Address, BackendKey, CHANGES, CHANGES_READ, Change, Endpoint, PolicyKey, Service, ServiceCounters,
        ServiceKey, Workload,
    },
};

use super::Changes;
use crate::{bpf::Prefix, maps::Maps};

/// A table that could not be brought to the desired state.
#[derive(Debug, thiserror::Error)]
#[error("kernel table {table}: {source}")]
pub struct SyncError {
    table: &'static str,
    source: io::Error,
}

/// One write of one entry; without a value the entry goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Write {
    Identity(Prefix<Address>, Option<u32>),
    Policy(Prefix<PolicyKey>, Option<Verdict>),
    Backend(BackendKey, Option<Endpoint>),
    /// Counters at zero.
    Counters(u32, Option<()>),
    Service(ServiceKey, Option<Service>),
    Workload(Address, Option<Workload>),
    /// Makes every established connection be decided again at its next packet.
    Epoch,
    /// Makes those with an address of this prefix be decided again.
    Change(Prefix<Address>),
}

/// What is in the tables.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub(crate) identities: Vec<(Prefix<Address>, u32)>,
    pub(crate) policy: Vec<(Prefix<PolicyKey>, Verdict)>,
    pub(crate) backends: Vec<(BackendKey, Endpoint)>,
    pub(crate) counters: Vec<u32>,
    pub(crate) services: Vec<(ServiceKey, Service)>,
    pub(crate) workloads: Vec<(Address, Workload)>,
}

/// The tables that a synchronisation reads and writes.
pub(crate) trait Tables {
    /// Everything that is there.
    ///
    /// # Errors
    /// Names the table.
    fn read(&self) -> Result<Entries, SyncError>;

    /// Does one write.
    ///
    /// # Errors
    /// Where the table is full, or cannot be written.
    fn write(&self, write: &Write) -> io::Result<()>;
}

/// Writes, and counts what it wrote.
pub(crate) struct Writer<'a, T> {
    tables: &'a T,
    pub(crate) changes: Changes,
    /// Of whom established connections must be decided again.
    concerned: BTreeSet<Prefix<Address>>,
}

impl<T: Tables> Writer<'_, T> {
    pub(super) fn new(tables: &T) -> Writer<'_, T> {
        Writer { tables, changes: Changes::default(), concerned: BTreeSet::new() }
    }

    /// Connections with an address of this prefix must be decided again.
    pub(super) fn concern(&mut self, prefix: Prefix<Address>) {
        // So many are as good as all.
        if self.concerned.len() <= CHANGES_READ as usize {
            self.concerned.insert(prefix);
        }
    }

    /// Tells the kernel whose connections must be decided again: after the last change that a decision depends
    /// on, or it would be made with what is about to go.
    pub(super) fn tell(&mut self, all: bool) -> Result<(), SyncError> {
        let concerned = std::mem::take(&mut self.concerned);
        self.changes.recheck = all || !concerned.is_empty();
        if all || concerned.len() > CHANGES_READ as usize {
            return self.write(Write::Epoch);
        }
        concerned.into_iter().try_for_each(|prefix| self.write(Write::Change(prefix)))
    }

    pub(super) fn write(&mut self, write: Write) -> Result<(), SyncError> {
        self.tables.write(&write).map_err(|source| SyncError { table: write.table(), source })?;
        match write.is_removal() {
            None => {}
            Some(true) => self.changes.removed += 1,
            Some(false) => self.changes.written += 1,
        }
        Ok(())
    }
}

impl Write {
    fn table(&self) -> &'static str {
        match self {
            Write::Identity(..) => "identities",
            Write::Policy(..) => "policy",
            Write::Backend(..) => "backends",
            Write::Counters(..) => "service counters",
            Write::Service(..) => "services",
            Write::Workload(..) => "workloads",
            Write::Epoch => "config",
            Write::Change(..) => "changes",
        }
    }

    /// Whether an entry goes; nothing for what is no entry of the desired tables.
    fn is_removal(&self) -> Option<bool> {
        match self {
            Write::Identity(_, value) => Some(value.is_none()),
            Write::Policy(_, value) => Some(value.is_none()),
            Write::Backend(_, value) => Some(value.is_none()),
            Write::Service(_, value) => Some(value.is_none()),
            Write::Workload(_, value) => Some(value.is_none()),
            Write::Counters(..) | Write::Epoch | Write::Change(..) => None,
        }
    }
}

impl Tables for Maps {
    fn read(&self) -> Result<Entries, SyncError> {
        let failed = |table| move |source| SyncError { table, source };
        Ok(Entries {
            identities: self.identities.entries().map_err(failed("identities"))?,
            policy: self.policy.entries().map_err(failed("policy"))?,
            backends: self.backends.entries().map_err(failed("backends"))?,
            counters: self.service_counters.keys().map_err(failed("service counters"))?,
            services: self.services.entries().map_err(failed("services"))?,
            workloads: self.workloads.entries().map_err(failed("workloads"))?,
        })
    }

    fn write(&self, write: &Write) -> io::Result<()> {
        match write {
            Write::Identity(key, Some(number)) => self.identities.update(key, number),
            Write::Identity(key, None) => self.identities.remove(key),
            Write::Policy(key, Some(verdict)) => self.policy.update(key, verdict),
            Write::Policy(key, None) => self.policy.remove(key),
            Write::Backend(key, Some(backend)) => self.backends.update(key, backend),
            Write::Backend(key, None) => self.backends.remove(key),
            Write::Counters(id, Some(())) => self.service_counters.set_all(id, ServiceCounters::default()),
            Write::Counters(id, None) => self.service_counters.remove(id),
            Write::Service(key, Some(service)) => self.services.update(key, service),
            Write::Service(key, None) => self.services.remove(key),
            Write::Workload(key, Some(workload)) => self.workloads.update(key, workload),
            Write::Workload(key, None) => self.workloads.remove(key),
            // Nobody looks at so many changes, and none of them is there.
            Write::Epoch => self.begin_epoch(CHANGES, None),
            Write::Change(prefix) => self.begin_epoch(1, Some(prefix)),
        }
    }
}

impl Maps {
    /// Begins a later epoch; what it begins with is written down before it does.
    fn begin_epoch(&self, later: u32, prefix: Option<&Prefix<Address>>) -> io::Result<()> {
        let mut config = self.config.lookup(&0)?.unwrap_or_default();
        config.epoch = config.epoch.wrapping_add(later);
        if let Some(prefix) = prefix {
            let mask = mask(prefix.length);
            let change = Change { epoch: config.epoch, address: prefix.data, mask };
            self.changes.update(&(config.epoch % CHANGES), &change)?;
        }
        self.config.update(&0, &config)
    }
}

/// The bits of a prefix of this length, in network order.
fn mask(length: u32) -> Address {
    let bits = u128::MAX.checked_shl(128 - length.min(128)).unwrap_or(0).to_be_bytes();
    let word = |at: usize| u32::from_ne_bytes([bits[at], bits[at + 1], bits[at + 2], bits[at + 3]]);
    Address([word(0), word(4), word(8), word(12)])
}
