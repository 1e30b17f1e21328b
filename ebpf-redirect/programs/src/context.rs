// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! What the programs read of the packet's context, of sockets and of the kernel itself. The pointers come
//! from the kernel, and the verifier refuses a program that reads behind a field or without a null check.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock, bpf_sock_addr},
    helpers::generated::{
        bpf_get_listener_sock, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_ktime_get_ns,
        bpf_redirect_peer, bpf_sk_assign, bpf_sk_fullsock, bpf_sk_release, bpf_skb_change_type,
        bpf_skb_store_bytes,
    },
};

/// Nanoseconds of the monotonic clock.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper takes nothing and writes nothing.
    unsafe { bpf_ktime_get_ns() }
}

/// A random number.
#[inline(always)]
pub(crate) fn random() -> u32 {
    // SAFETY: the helper takes nothing and writes nothing.
    unsafe { bpf_get_prandom_u32() }
}

macro_rules! fields {
    ($($(#[doc = $doc:literal])* $name:ident($from:ty) -> $type:ty = $($field:ident).+;)*) => {$(
        $(#[doc = $doc])*
        #[inline(always)]
        pub(crate) fn $name(from: *mut $from) -> $type {
            // SAFETY: the kernel gave the pointer to this program, and the verifier checks the access.
            unsafe { (*from).$($field).+ }
        }
    )*};
}

fields! {
    /// Index of the packet's device.
    ifindex(__sk_buff) -> u32 = ifindex;
    /// Index of the device by which the packet came to the node; 0 if the node itself sends it.
    ingress_ifindex(__sk_buff) -> u32 = ingress_ifindex;
    /// Whom the frame is for (`PACKET_*`).
    packet_type(__sk_buff) -> u32 = pkt_type;
    /// Whether the frame has a VLAN tag that no device has taken off.
    vlan_present(__sk_buff) -> u32 = vlan_present;
    /// Length of the packet, as the device has it.
    length(__sk_buff) -> u32 = len;
    /// EtherType, in network order.
    ethertype(__sk_buff) -> u32 = protocol;
    /// The packet's mark.
    mark(__sk_buff) -> u32 = mark;
    /// The socket that sends the packet, or null.
    socket(__sk_buff) -> *mut bpf_sock = __bindgen_anon_2.sk;
    /// The socket's TCP state.
    state(bpf_sock) -> u32 = state;
    /// The socket's own mark; full sockets only.
    socket_mark(bpf_sock) -> u32 = mark;
    /// The socket's type (`SOCK_*`); full sockets only.
    socket_type(bpf_sock) -> u32 = type_;
}

/// Sets bits of the packet's mark.
#[inline(always)]
pub(crate) fn set_mark(skb: *mut __sk_buff, mask: u32, value: u32) {
    let mark = mark(skb) & !mask | value;
    // SAFETY: as above; the mark is one of the fields that a classifier may write.
    unsafe { (*skb).mark = mark }
}

/// `PACKET_HOST`: the frame is for this machine.
pub(crate) const PACKET_HOST: u32 = 0;
/// `PACKET_OTHERHOST`: the frame is for another machine.
pub(crate) const PACKET_OTHERHOST: u32 = 3;

/// Says that the frame is for whom it comes to, whatever address it has.
#[inline(always)]
pub(crate) fn set_for_host(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context and a number.
    unsafe { bpf_skb_change_type(skb, PACKET_HOST) == 0 }
}

/// Writes bytes at an offset from the start of the frame.
#[inline(always)]
pub(crate) fn store<T: Copy>(skb: *mut __sk_buff, offset: u32, value: &T, flags: u64) -> bool {
    let from = core::ptr::from_ref(value).cast();
    // SAFETY: the value is as long as the helper is told to read.
    unsafe { bpf_skb_store_bytes(skb, offset, from, size_of::<T>() as u32, flags) == 0 }
}

/// The verdict that hands the packet to the pod behind a device, as if it had come by the pod's own.
#[inline(always)]
pub(crate) fn redirect_peer(device: u32) -> i32 {
    // SAFETY: the helper takes numbers only.
    unsafe { bpf_redirect_peer(device, 0) as i32 }
}

/// The socket as a full one, or null: requests and sockets in TIME_WAIT are none.
#[inline(always)]
pub(crate) fn full(sk: *mut bpf_sock) -> *mut bpf_sock {
    // SAFETY: the pointer is a socket that was looked up, and not null.
    unsafe { bpf_sk_fullsock(sk) }
}

/// The listener of a request, or null.
#[inline(always)]
pub(crate) fn listener(sk: *mut bpf_sock) -> *mut bpf_sock {
    // SAFETY: the pointer is a socket that was looked up, and not null.
    unsafe { bpf_get_listener_sock(sk) }
}

/// Hands the packet to a socket.
#[inline(always)]
pub(crate) fn assign(skb: *mut __sk_buff, sk: *mut bpf_sock) -> bool {
    // SAFETY: both pointers come from the kernel; the socket is held until it is released.
    unsafe { bpf_sk_assign(skb.cast(), sk.cast(), 0) == 0 }
}

/// Gives back a socket that was looked up.
#[inline(always)]
pub(crate) fn release(sk: *mut bpf_sock) {
    // SAFETY: the socket was looked up and is not used after this.
    let _done = unsafe { bpf_sk_release(sk.cast()) };
}

/// The cookie of the socket that a call is made on.
#[inline(always)]
pub(crate) fn cookie(sock_addr: *mut bpf_sock_addr) -> u64 {
    // SAFETY: the pointer is the program's context.
    unsafe { bpf_get_socket_cookie(sock_addr.cast()) }
}

/// Reads a word of a context whose fields the verifier wants to be read one by one.
#[inline(always)]
pub(crate) fn word(at: *const u32) -> u32 {
    // SAFETY: the address is that of a field of the program's context.
    unsafe { at.read_volatile() }
}

/// Writes a word of such a context.
#[inline(always)]
pub(crate) fn set_word(at: *mut u32, value: u32) {
    // SAFETY: the address is that of a field of the program's context which programs may write.
    unsafe { at.write_volatile(value) }
}

/// The address of a field of a context.
macro_rules! field {
    ($context:expr, $($field:ident).+) => {
        // SAFETY: the pointer is the program's context; nothing is read here.
        unsafe { &raw mut (*$context).$($field).+ }
    };
}
pub(crate) use field;
