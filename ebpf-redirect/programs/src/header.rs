// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Reads IP headers, wherever they start.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes_relative};
use weft_ebpf_common::layout::Address;

/// `BPF_HDR_START_NET` of `bpf_skb_load_bytes_relative`.
const FROM_IP_HEADER: u32 = 1;
/// `IP_OFFSET`: all but the "may be fragmented" bit and the reserved one (RFC 791).
const FRAGMENT: u16 = 0x3fff;
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// Extension headers that are walked; more are an invalid packet.
const MAX_EXTENSIONS: u32 = 6;

/// No fragment.
pub(crate) const WHOLE: u8 = 0;
/// The first fragment of a datagram, with its ports.
pub(crate) const FIRST: u8 = 1;
/// Another fragment.
pub(crate) const LATER: u8 = 2;

/// Reads a value at an offset from the outer IP header.
#[inline(always)]
pub(crate) fn load<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the value is as long as the helper is told to write.
    let done = unsafe {
        bpf_skb_load_bytes_relative(
            skb.cast(),
            offset,
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            FROM_IP_HEADER,
        )
    };
    if done != 0 {
        return None;
    }
    // SAFETY: the helper has written all of it, and only types that any bytes are valid for are loaded.
    Some(unsafe { value.assume_init() })
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4 {
    version_length: u8,
    service: u8,
    length: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv6 {
    version_flow: u32,
    length: u16,
    next: u8,
    hops: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

/// An IP header at some offset: the outer one, or the one inside of an ICMP error.
pub(crate) struct Header {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) protocol: u8,
    /// [`WHOLE`], [`FIRST`] or [`LATER`].
    pub(crate) fragment: u8,
    pub(crate) identification: u32,
    /// How many routers it may still pass.
    pub(crate) hops: u8,
    /// IPv4: the checksum of the header.
    pub(crate) checksum_be: u16,
    /// Where the next header starts.
    pub(crate) next: u32,
    /// Where the packet ends.
    pub(crate) end: u32,
}

/// The IPv4 header at an offset.
#[inline(always)]
pub(crate) fn ipv4(skb: *mut __sk_buff, at: u32) -> Option<Header> {
    let header: Ipv4 = load(skb, at)?;
    let length = u32::from(header.version_length & 15) * 4;
    if header.version_length >> 4 != 4 || length < 20 {
        return None;
    }
    let fragment = u16::from_be(header.fragment);
    Some(Header {
        source: Address::v4(header.source),
        destination: Address::v4(header.destination),
        protocol: header.protocol,
        fragment: match fragment {
            _ if fragment & FRAGMENT_OFFSET != 0 => LATER,
            _ if fragment & FRAGMENT != 0 => FIRST,
            _ => WHOLE,
        },
        identification: u32::from(header.id),
        hops: header.ttl,
        checksum_be: header.checksum,
        next: at + length,
        end: at + u32::from(u16::from_be(header.length)),
    })
}

/// The IPv6 header at an offset, with its extensions.
#[inline(always)]
pub(crate) fn ipv6(skb: *mut __sk_buff, at: u32) -> Option<Header> {
    let header: Ipv6 = load(skb, at)?;
    if u32::from_be(header.version_flow) >> 28 != 6 {
        return None;
    }
    let mut found = Header {
        source: Address(header.source),
        destination: Address(header.destination),
        protocol: header.next,
        fragment: WHOLE,
        identification: 0,
        hops: header.hops,
        checksum_be: 0,
        next: at + 40,
        end: at + 40 + u32::from(u16::from_be(header.length)),
    };
    for _ in 0..MAX_EXTENSIONS {
        // Hop-by-hop, routing, fragment, authentication and destination options (RFC 8200 section 4).
        match found.protocol {
            0 | 43 | 60 => {
                let extension: [u8; 2] = load(skb, found.next)?;
                found.protocol = extension[0];
                found.next += (u32::from(extension[1]) + 1) * 8;
            }
            44 => {
                let extension: [u8; 8] = load(skb, found.next)?;
                let field = u16::from_be_bytes([extension[2], extension[3]]);
                found.protocol = extension[0];
                found.next += 8;
                found.identification =
                    u32::from_ne_bytes([extension[4], extension[5], extension[6], extension[7]]);
                if field & 0xfff8 != 0 {
                    found.fragment = LATER;
                    return Some(found);
                }
                // Offset zero and no more to come is a whole datagram (RFC 6946).
                if field & 1 != 0 {
                    found.fragment = FIRST;
                }
            }
            51 => {
                let extension: [u8; 2] = load(skb, found.next)?;
                found.protocol = extension[0];
                found.next += (u32::from(extension[1]) + 2) * 4;
            }
            _ => return Some(found),
        }
    }
    None
}
