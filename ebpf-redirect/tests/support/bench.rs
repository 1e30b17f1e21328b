// SPDX-License-Identifier: Apache-2.0
//! Runs single programs on single packets: packet in, verdict, mark and counters out.
#![allow(dead_code, reason = "each test uses a part")]

use std::net::IpAddr;

use weft_ebpf_common::{
    Reason, Verdict,
    connection::{Connection, ConnectionKey},
    layout::{
        Address, Config, METRIC_DROP, METRICS, POLICY_PREFIX, PolicyKey, Service, ServiceKey,
        WORKLOAD_EGRESS_OPEN, WORKLOAD_INGRESS_OPEN, Workload, metric_of,
    },
    verdict::{Level, TIER_NORMAL},
};
use weft_ebpf_redirect::{
    DEFAULT_MARK,
    bpf::{self, Prefix},
    desired::address_prefix,
    load::Programs,
    maps::Maps,
};

/// Verdicts of tc: let others decide, drop, redirected elsewhere.
pub(crate) const PASS: i32 = -1;
pub(crate) const DROP: i32 = 2;
pub(crate) const BOUNCE: i32 = 7;
/// Programs run as if on the loopback device.
pub(crate) const DEVICE: u32 = 1;
pub(crate) const POD: usize = 0;
pub(crate) const PEER: usize = 1;
pub(crate) const VIP: usize = 2;
pub(crate) const NODE: usize = 3;
pub(crate) const ADDRESSES: [[&str; 2]; 4] = [
    ["10.244.9.2", "fd00:9::2"],
    ["10.244.7.7", "fd00:7::7"],
    ["10.96.0.10", "fd00:96::10"],
    ["172.30.9.1", "fd00:30::1"],
];
pub(crate) const POD_IDENTITY: u32 = 1000;
pub(crate) const PEER_IDENTITY: u32 = 1001;
pub(crate) const SET: u32 = 5;
pub(crate) const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// Programs and maps of a test, in one address family.
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    pub(crate) maps: Maps,
    pub(crate) bpffs: std::path::PathBuf,
    pub(crate) v6: bool,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(self.bpffs.join("maps"));
        let _gone = std::fs::remove_dir_all(self.bpffs.join("links"));
        let _gone = std::fs::remove_dir(&self.bpffs);
    }
}

/// What a run gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) verdict: i32,
    pub(crate) mark: u32,
    /// The reason whose counter went up.
    pub(crate) reason: Option<Reason>,
}

impl Bench {
    pub(crate) fn new(v6: bool, flags: u32) -> Bench {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("/sys/fs/bpf/weft-run-{}-{count}", std::process::id());
        let bpffs = std::path::PathBuf::from(name);
        let programs = Programs::load(&bpffs).expect("the programs load (this test needs root)");
        let maps = Maps::open(&bpffs.join("maps")).unwrap();
        let bench = Bench { programs, maps, bpffs, v6 };
        bench.configure(|_| {});
        bench.workload(flags);
        for (who, identity) in [(POD, POD_IDENTITY), (PEER, PEER_IDENTITY), (NODE, 1)] {
            bench.maps.identities.update(&address_prefix(bench.ip(who).into()), &identity).unwrap();
        }
        bench
    }

    pub(crate) fn configure(&self, change: impl FnOnce(&mut Config)) {
        let mut config = self.maps.config.lookup(&0).unwrap().unwrap();
        if config.mark_mask == 0 {
            config = Config {
                mark_mask: DEFAULT_MARK.mask,
                to_proxy: DEFAULT_MARK.to_proxy,
                from_proxy: DEFAULT_MARK.from_proxy,
                device: DEVICE,
                first_port: 61_000,
                last_port: 65_535,
                datagram_idle_s: 60,
                stream_idle_s: 3600,
                half_open_s: 30,
                closed_s: 10,
                half_open_places: 64,
                events_per_second: 100,
                ..Config::default()
            };
        }
        change(&mut config);
        self.maps.config.update(&0, &config).unwrap();
    }

    pub(crate) fn workload(&self, flags: u32) {
        let rest = match flags & (CLOSED | UNKNOWN | GUARDED) {
            CLOSED => Verdict::deny(Level::last(TIER_NORMAL), 14, Reason::PolicyDenied as u16),
            UNKNOWN => Verdict::deny(Level::NONE, 0, Reason::NoPolicyConfig as u16),
            _ => Verdict::allow(Level::NONE, 0),
        };
        let open = WORKLOAD_EGRESS_OPEN | WORKLOAD_INGRESS_OPEN;
        let flags = if flags & (CLOSED | UNKNOWN | GUARDED) == 0 { flags | open } else { flags };
        let workload = Workload {
            id: 9,
            ifindex: DEVICE,
            identity: POD_IDENTITY,
            policy: SET,
            flags,
            egress: rest,
            ingress: rest,
        };
        self.maps.workloads.update(&self.address(POD), &workload).unwrap();
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of an entry, in their order")]
    pub(crate) fn rule(
        &self,
        direction: u8,
        identity: u32,
        protocol: u8,
        port: u16,
        bits: u32,
        verdict: Verdict,
    ) {
        let data = PolicyKey { set: SET, identity, direction, protocol, port_be: port.to_be() };
        self.maps.policy.update(&Prefix { length: POLICY_PREFIX + bits, data }, &verdict).unwrap();
    }

    pub(crate) fn service(&self, port: u16, protocol: u8, flags: u32) {
        self.service_with(port, protocol, flags, 1);
    }

    pub(crate) fn service_with(&self, port: u16, protocol: u8, flags: u32, backends: u32) {
        let address = self.address(VIP);
        for (port, protocol, id) in [(port, protocol, 3), (0, 0, 0)] {
            let key = ServiceKey { address, port_be: port.to_be(), protocol, pad: 0 };
            self.maps.services.update(&key, &Service { id, list: 0, backends, flags }).unwrap();
        }
    }

    pub(crate) fn ip(&self, who: usize) -> IpAddr {
        ADDRESSES[who][usize::from(self.v6)].parse().unwrap()
    }

    pub(crate) fn address(&self, who: usize) -> Address {
        self.ip(who).into()
    }

    pub(crate) fn tcp(&self, from: usize, to: usize, ports: (u16, u16), flags: u8) -> Vec<u8> {
        let mut segment = vec![0; 20];
        segment[..2].copy_from_slice(&ports.0.to_be_bytes());
        segment[2..4].copy_from_slice(&ports.1.to_be_bytes());
        segment[12] = 0x50;
        segment[13] = flags;
        self.packet(from, to, TCP, &segment)
    }

    pub(crate) fn udp(&self, from: usize, to: usize, ports: (u16, u16)) -> Vec<u8> {
        let mut datagram = vec![0; 8];
        datagram[..2].copy_from_slice(&ports.0.to_be_bytes());
        datagram[2..4].copy_from_slice(&ports.1.to_be_bytes());
        self.packet(from, to, UDP, &datagram)
    }

    pub(crate) fn icmp(&self, from: usize, to: usize, kind: (u8, u8), code: u8, rest: &[u8]) -> Vec<u8> {
        let (kind, protocol) = if self.v6 { (kind.1, 58) } else { (kind.0, 1) };
        let mut message = vec![kind, code, 0, 0];
        message.extend_from_slice(rest);
        self.packet(from, to, protocol, &message)
    }

    pub(crate) fn echo(&self, from: usize, to: usize, request: bool) -> Vec<u8> {
        let kind = if request { (8, 128) } else { (0, 129) };
        self.icmp(from, to, kind, 0, &[0x12, 0x34, 0, 1])
    }

    pub(crate) fn packet(&self, from: usize, to: usize, protocol: u8, payload: &[u8]) -> Vec<u8> {
        // To the loopback device's address, or it would be a frame for somebody else.
        let mut frame = vec![0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2];
        frame.extend_from_slice(if self.v6 { &[0x86, 0xdd] } else { &[8, 0] });
        frame.extend(self.header(from, to, protocol, payload.len()));
        frame.extend_from_slice(payload);
        frame
    }

    pub(crate) fn header(&self, from: usize, to: usize, protocol: u8, length: usize) -> Vec<u8> {
        match (self.ip(from), self.ip(to)) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header = vec![0x45, 0, 0, (20 + length) as u8, 0, 0, 0, 0, 64, protocol, 0, 0];
                header.extend(from.octets());
                header.extend(to.octets());
                header
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut header = vec![0x60, 0, 0, 0, 0, length as u8, protocol, 64];
                header.extend(from.octets());
                header.extend(to.octets());
                header
            }
            _ => unreachable!("both are of one family"),
        }
    }

    /// A part of a datagram: its offset in units of 8 bytes, whether there is more, and the datagram's number.
    pub(crate) fn part(
        &self,
        from: usize,
        to: usize,
        protocol: u8,
        payload: &[u8],
        (offset, more, id): (u16, bool, u8),
    ) -> Vec<u8> {
        if self.v6 {
            let field = (offset << 3 | u16::from(more)).to_be_bytes();
            let header = [protocol, 0, field[0], field[1], 0, 0, 0, id];
            return self.packet(from, to, 44, &[&header, payload].concat());
        }
        let mut frame = self.packet(from, to, protocol, payload);
        frame[18..20].copy_from_slice(&[0, id]);
        frame[20..22].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
        frame
    }

    /// The first fragment of a datagram.
    pub(crate) fn fragment(&self, from: usize, to: usize) -> Vec<u8> {
        let whole = self.udp(from, to, (5000, 53));
        if !self.v6 {
            let mut frame = whole;
            frame[20] = 0x20;
            return frame;
        }
        self.packet(from, to, 44, &[&[UDP, 0, 0, 1, 0, 0, 0, 7], &whole[54..]].concat())
    }

    /// The entry of the connection of which a packet from one to the other is part.
    pub(crate) fn connection(
        &self,
        (from, to): (usize, usize),
        ports: (u16, u16),
        protocol: u8,
    ) -> Option<Connection> {
        let ends = ((self.address(from), ports.0.to_be()), (self.address(to), ports.1.to_be()));
        self.maps.connections.lookup(&ConnectionKey::of(ends.0, ends.1, protocol).0).unwrap()
    }

    /// Forgets every connection.
    pub(crate) fn forget(&self) {
        self.maps.connections.keys().unwrap().iter().for_each(|key| {
            self.maps.connections.remove(key).unwrap();
        });
    }

    pub(crate) fn drops(&self) -> Vec<(u16, u8, u64)> {
        let mut drops = Vec::new();
        for index in 0..METRICS {
            let (reason, outcome, direction) = metric_of(index);
            if outcome == METRIC_DROP {
                let values = self.maps.metrics.lookup(&index).unwrap().unwrap();
                drops.push((reason, direction, values.iter().map(|value| value.packets).sum()));
            }
        }
        drops
    }

    pub(crate) fn run(&self, program: &str, frame: &[u8], mark: u32) -> Run {
        let before = self.drops();
        // `struct __sk_buff`, of which mark and ifindex are given.
        let mut context = [0_u8; 192];
        context[8..12].copy_from_slice(&mark.to_ne_bytes());
        context[40..44].copy_from_slice(&DEVICE.to_ne_bytes());
        let fd = self.programs.fd(program).unwrap();
        let (verdict, out) = bpf::test_run(fd, frame, &mut context).unwrap();
        assert_eq!(out, frame, "no hook of devices changes a packet");
        let reason = self
            .drops()
            .into_iter()
            .find(|drop| !before.contains(drop))
            .map(|(number, ..)| Reason::from_number(number).unwrap());
        let mark = u32::from_ne_bytes(context[8..12].try_into().unwrap());
        Run { verdict, mark, reason }
    }

    /// Runs a program that is to make an answer of the packet: its verdict, the reason that it counted, and the
    /// answer.
    pub(crate) fn answer(&self, program: &str, frame: &[u8]) -> (i32, Option<Reason>, Vec<u8>) {
        let before = self.drops();
        let mut context = [0_u8; 192];
        context[40..44].copy_from_slice(&DEVICE.to_ne_bytes());
        let (verdict, out) = bpf::test_run(self.programs.fd(program).unwrap(), frame, &mut context).unwrap();
        let counted = self.drops().into_iter().find(|drop| !before.contains(drop));
        (verdict, counted.map(|(number, ..)| Reason::from_number(number).unwrap()), out)
    }

    /// Runs a program on a packet that must pass, without a look at the counters.
    pub(crate) fn sends(&self, program: &str, frame: &[u8]) {
        let mut context = [0_u8; 192];
        context[40..44].copy_from_slice(&DEVICE.to_ne_bytes());
        let (verdict, _) = bpf::test_run(self.programs.fd(program).unwrap(), frame, &mut context).unwrap();
        assert_eq!(verdict, PASS, "v6 {}", self.v6);
    }

    pub(crate) fn passes(&self, program: &str, frame: &[u8]) {
        assert_eq!(
            self.run(program, frame, 0),
            Run { verdict: PASS, mark: 0, reason: None },
            "v6 {}",
            self.v6
        );
    }

    pub(crate) fn drops_for(&self, program: &str, frame: &[u8], reason: Reason) {
        let run = self.run(program, frame, 0);
        assert_eq!((run.verdict, run.reason), (DROP, Some(reason)), "v6 {}", self.v6);
    }
}

pub(crate) fn both(flags: u32, test: impl Fn(&Bench)) {
    for v6 in [false, true] {
        test(&Bench::new(v6, flags));
    }
}

/// What no entry names is denied.
pub(crate) const CLOSED: u32 = 1 << 16;
/// The policy is not known.
pub(crate) const UNKNOWN: u32 = 1 << 17;
/// What no entry names passes, but there are entries.
pub(crate) const GUARDED: u32 = 1 << 18;
const LEVEL: Level = Level::new(TIER_NORMAL, 0);
pub(crate) const ALLOW: Verdict = Verdict::allow(LEVEL, 11);
pub(crate) const DENY: Verdict = Verdict::deny(LEVEL, 12, Reason::DeniedByRule as u16);
pub(crate) const REDIRECT: Verdict = Verdict::redirect(LEVEL, 13);
pub(crate) const PORTS: (u16, u16) = (40_000, 8080);
pub(crate) const BACK: (u16, u16) = (8080, 40_000);
