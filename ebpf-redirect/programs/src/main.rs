// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! The kernel programs: one hook per file, over shared modules.
//!
//! Read `header` and `packet` first, then `fragment`, `maps`, `connection`, `tcp`, `share`, `icmp`, `changes`,
//! `policy`, `proxy` and `answer`, then the hooks: `from_pod`, `to_pod`, `unowned`, `from_netdev`, `from_uplink`,
//! `bounced`, and the sockets' `connect`, `datagram`, `bind`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod answer;
mod bind;
mod bounced;
mod changes;
mod connect;
mod connection;
mod context;
mod datagram;
mod event;
mod foreign;
mod fragment;
mod from_netdev;
mod from_pod;
mod from_uplink;
mod header;
mod icmp;
mod maps;
mod packet;
mod policy;
mod proxy;
mod service;
mod share;
mod short;
mod tcp;
mod to_pod;
mod unowned;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers that look up sockets are for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
