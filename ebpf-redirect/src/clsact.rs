// SPDX-License-Identifier: Apache-2.0
//! Programs on devices where the kernel has no tcx links (before 6.6): `bpf` filters in direct-action
//! mode on the `clsact` queueing discipline of the device.
//!
//! What is attached lives in the kernel, as links do: it outlives the process, and is found again by
//! priority, handle and name. Replacing the program of a filter is one step for the packets.
//!
//! Order: filters run by priority, the lowest number first, and ours have the lowest there is, so that
//! no filter of others passes or redirects a packet that ours have not seen; tcx links run before all
//! filters, too. Of filters with the same priority the one that was added last runs first. What we do
//! not decide (`TC_ACT_UNSPEC`) goes on to the filters of others.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
};

use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage, TcOption},
};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use crate::hook::{DeviceHook, Side};

mod request;

use request::Requests;

/// Before everybody else's: the kernel gives filters without a priority numbers from 49152 downwards.
const PRIORITY: u32 = 1;
/// The first of our handles; what follows is the hook.
const HANDLE: u32 = 0x7765_6674;
/// What the names of our filters begin with, as `tc filter show` has them.
const NAME: &str = "weft_";
/// `ETH_P_ALL` in network byte order.
const ALL_PROTOCOLS: u32 = 0x0003_u16.to_be() as u32;
const QDISC: &str = "clsact";
/// What a device has whose packets wait nowhere.
const NO_QUEUE: &str = "noqueue";
/// A queueing discipline with one side only, at the same place as `clsact`.
const ONE_SIDED: &str = "ingress";

fn parent(side: Side) -> TcHandle {
    let minor = match side {
        Side::Ingress => TcHandle::MIN_INGRESS,
        Side::Egress => TcHandle::MIN_EGRESS,
    };
    TcHandle { minor, ..TcHandle::CLSACT }
}

/// Attaches a program to a device, or replaces the one that is attached for this hook. `records` is
/// where the devices are noted whose queueing discipline is ours.
///
/// # Errors
/// `ENODEV` where the device is gone; otherwise the kernel's reason, or what is in the way.
pub(crate) fn attach(
    hook: DeviceHook,
    ifindex: u32,
    program: BorrowedFd<'_>,
    records: &Path,
) -> io::Result<()> {
    let mut requests = Requests::open()?;
    let filter = RouteNetlinkMessage::NewTrafficFilter(filter(hook, ifindex, Some(program)));
    // One that is there stands where it was put with the checks below.
    if requests.change(filter.clone(), NLM_F_REPLACE).is_ok() {
        return Ok(());
    }
    let qdisc = RouteNetlinkMessage::NewQueueDiscipline(qdisc(ifindex));
    match requests.change(qdisc, NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) => fs::create_dir_all(record(records, ifindex))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            check_qdisc(&mut requests, hook, ifindex)?;
        }
        Err(error) => return Err(error),
    }
    requests.change(filter, NLM_F_CREATE).map_err(|error| match error.raw_os_error() {
        // The kernel's word for a filter of another kind at the same priority.
        Some(libc::EINVAL) => io::Error::other(format!(
            "device {ifindex} has a filter at priority {PRIORITY} that is no program; remove it (tc filter)"
        )),
        _ => error,
    })
}

/// Detaches the filter of a hook, if it is attached, and the queueing discipline with our last filter.
///
/// # Errors
/// Those of the requests; that there is no such device or filter is none.
pub(crate) fn detach(hook: DeviceHook, ifindex: u32, records: &Path) -> io::Result<()> {
    let mut requests = Requests::open()?;
    let message = RouteNetlinkMessage::DelTrafficFilter(filter(hook, ifindex, None));
    absent(requests.change(message, 0))?;
    drop_qdisc(&mut requests, ifindex, records)
}

/// The hooks and devices that have a filter of ours.
///
/// # Errors
/// Those of the requests.
pub(crate) fn attached() -> io::Result<BTreeSet<(DeviceHook, u32)>> {
    let mut requests = Requests::open()?;
    let mut attached = BTreeSet::new();
    for ifindex in devices(&mut requests)? {
        for side in Side::BOTH {
            let filters = filters(&mut requests, ifindex, side)?;
            attached.extend(filters.iter().filter_map(ours).map(|hook| (hook, ifindex)));
        }
    }
    Ok(attached)
}

/// The devices and sides that have a filter which is not ours.
///
/// # Errors
/// Those of the requests.
pub(crate) fn others() -> io::Result<BTreeSet<(u32, Side)>> {
    let mut requests = Requests::open()?;
    let mut found = BTreeSet::new();
    for ifindex in devices(&mut requests)? {
        for side in Side::BOTH {
            if filters(&mut requests, ifindex, side)?.iter().any(|filter| ours(filter).is_none()) {
                found.insert((ifindex, side));
            }
        }
    }
    Ok(found)
}

/// The devices whose outgoing packets wait in a queueing discipline.
///
/// # Errors
/// Those of the request.
pub(crate) fn shaped() -> io::Result<BTreeSet<u32>> {
    let mut requests = Requests::open()?;
    let mut found = requests.list(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()))?;
    found.retain(|qdisc| qdisc.header.parent == TcHandle::ROOT && kind(qdisc) != Some(NO_QUEUE));
    Ok(found.into_iter().map(|qdisc| qdisc.header.index.cast_unsigned()).collect())
}

/// Detaches every filter of ours from the devices of this network namespace, and removes the queueing
/// disciplines that are ours.
///
/// # Errors
/// The first failure, after everything was tried.
pub(crate) fn detach_all(records: &Path) -> io::Result<()> {
    let mut requests = Requests::open()?;
    let mut done = Ok(());
    for (hook, ifindex) in attached()? {
        done = done.and(detach(hook, ifindex, records));
    }
    for ifindex in recorded(records)? {
        done = done.and(drop_qdisc(&mut requests, ifindex, records));
    }
    done
}

/// The devices whose queueing discipline is ours.
fn recorded(records: &Path) -> io::Result<Vec<u32>> {
    let entries = match fs::read_dir(records) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let index = |name: &str| name.strip_prefix(QDISC)?.strip_prefix('-')?.parse().ok();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| index(&name)).collect())
}

/// A directory, which a bpf file system can hold: it goes when the machine restarts, as the queueing
/// discipline does.
fn record(records: &Path, ifindex: u32) -> PathBuf {
    records.join(format!("{QDISC}-{ifindex}"))
}

fn check_qdisc(requests: &mut Requests, hook: DeviceHook, ifindex: u32) -> io::Result<()> {
    let qdiscs = qdiscs(requests)?;
    let found = qdiscs.iter().find(|found| found.header.index.cast_unsigned() == ifindex);
    match found.and_then(kind) {
        Some(QDISC) => Ok(()),
        // The kernel would take a filter for its egress side, and run it at ingress.
        Some(ONE_SIDED) if hook.side() == Side::Ingress => Ok(()),
        kind => Err(io::Error::other(format!(
            "device {ifindex} has a queueing discipline {}, where {QDISC} is needed (tc qdisc replace dev … {QDISC})",
            kind.unwrap_or("of an unknown kind")
        ))),
    }
}

/// Removes the queueing discipline if we made it and nobody has filters on it.
fn drop_qdisc(requests: &mut Requests, ifindex: u32, records: &Path) -> io::Result<()> {
    let record = record(records, ifindex);
    if !record.exists() {
        return Ok(());
    }
    for side in Side::BOTH {
        if !filters(requests, ifindex, side)?.is_empty() {
            return Ok(());
        }
    }
    absent(requests.change(RouteNetlinkMessage::DelQueueDiscipline(qdisc(ifindex)), 0))?;
    fs::remove_dir(record)
}

/// The devices that can have filters.
fn devices(requests: &mut Requests) -> io::Result<BTreeSet<u32>> {
    Ok(qdiscs(requests)?.into_iter().map(|qdisc| qdisc.header.index.cast_unsigned()).collect())
}

/// The queueing disciplines at the place of `clsact`, of all devices.
fn qdiscs(requests: &mut Requests) -> io::Result<Vec<TcMessage>> {
    let mut found = requests.list(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()))?;
    found.retain(|qdisc| qdisc.header.parent == TcHandle::CLSACT);
    Ok(found)
}

fn filters(requests: &mut Requests, ifindex: u32, side: Side) -> io::Result<Vec<TcMessage>> {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = parent(side);
    match requests.list(RouteNetlinkMessage::GetTrafficFilter(message)) {
        // The kernel also lists each group of filters of one priority, without a handle.
        Ok(found) => {
            Ok(found.into_iter().filter(|filter| filter.header.handle != TcHandle::UNSPEC).collect())
        }
        Err(error) => absent(Err(error)).map(|()| Vec::new()),
    }
}

/// What is not there needs no removal.
fn absent(done: io::Result<()>) -> io::Result<()> {
    match done {
        // EINVAL: the device has no queueing discipline of this kind.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::EINVAL)) => {
            Ok(())
        }
        done => done,
    }
}

fn kind(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    })
}

/// The hook of a filter, if it is one of ours.
fn ours(message: &TcMessage) -> Option<DeviceHook> {
    let hook = DeviceHook::ALL.into_iter().find(|hook| message.header.handle == handle(*hook).into())?;
    let named = message.attributes.iter().any(|attribute| match attribute {
        TcAttribute::Options(options) => options.contains(&name(hook)),
        _ => false,
    });
    (named && message.header.info == PRIORITY << 16 | ALL_PROTOCOLS).then_some(hook)
}

fn handle(hook: DeviceHook) -> u32 {
    HANDLE + hook.number()
}

fn name(hook: DeviceHook) -> TcOption {
    TcOption::Bpf(TcFilterBpfOption::ProgName(format!("{NAME}{}", hook.program())))
}

fn header(ifindex: u32, handle: u32, parent: TcHandle, info: u32) -> TcHeader {
    TcHeader { index: ifindex.cast_signed(), handle: handle.into(), parent, info, ..TcHeader::default() }
}

fn qdisc(ifindex: u32) -> TcMessage {
    let handle = TcHandle { minor: 0, ..TcHandle::CLSACT };
    let header = header(ifindex, handle.into(), TcHandle::CLSACT, 0);
    TcMessage::from_parts(header, vec![TcAttribute::Kind(QDISC.into())])
}

fn filter(hook: DeviceHook, ifindex: u32, program: Option<BorrowedFd<'_>>) -> TcMessage {
    let header = header(ifindex, handle(hook), parent(hook.side()), PRIORITY << 16 | ALL_PROTOCOLS);
    let mut attributes = vec![TcAttribute::Kind(TcFilterBpf::KIND.into())];
    if let Some(program) = program {
        attributes.push(TcAttribute::Options(vec![
            TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned())),
            name(hook),
            TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
        ]));
    }
    TcMessage::from_parts(header, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A filter as the kernel lists it.
    fn listed(hook: DeviceHook) -> TcMessage {
        let mut message = filter(hook, 7, None);
        message.attributes.push(TcAttribute::Options(vec![name(hook)]));
        message
    }

    #[test]
    fn each_hook_is_known_again_by_its_filter() {
        for hook in DeviceHook::ALL {
            assert_eq!(ours(&listed(hook)), Some(hook));
        }
    }

    #[test]
    fn filters_of_others_are_not_ours() {
        let hook = DeviceHook::FromPod;
        let changes: [fn(&mut TcMessage); 3] = [
            |message| message.header.info = 2 << 16 | ALL_PROTOCOLS,
            |message| message.header.handle = 1.into(),
            |message| {
                message.attributes.pop();
            },
        ];
        for change in changes {
            let mut message = listed(hook);
            change(&mut message);
            assert_eq!(ours(&message), None, "{message:?}");
        }
    }
}
