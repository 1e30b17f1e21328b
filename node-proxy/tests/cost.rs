// SPDX-License-Identifier: Apache-2.0
//! What a request and an idle connection cost a worker in memory, counted where it is allocated.
#![allow(unsafe_code, reason = "a global allocator is unsafe to write")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

#[path = "cost/lab.rs"]
mod lab;

use lab::{Lab, Protocol};

/// Counts while a worker has its turn; every thread for itself.
struct Counting;

thread_local! {
    static COUNTS: Cell<bool> = const { Cell::new(false) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    if COUNTS.get() {
        CALLS.set(CALLS.get() + 1);
        BYTES.set(BYTES.get() + bytes);
    }
}

// SAFETY: everything is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Does something of the worker's; its calls of the allocator and what it holds more than before.
pub(crate) fn counted<T>(does: impl FnOnce() -> T) -> (T, usize, isize) {
    let (calls, bytes) = (CALLS.get(), BYTES.get());
    COUNTS.set(true);
    let done = does();
    COUNTS.set(false);
    (done, CALLS.get() - calls, BYTES.get() - bytes)
}

/// Requests until every buffer has grown to what these need.
const WARM_UP: usize = 40;

#[test]
fn a_request_on_an_open_connection_allocates_nothing() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut lab = Lab::new(protocol);
        let mut client = lab.connect();
        (0..WARM_UP).for_each(|_| lab.ask(&mut client));
        lab.calls = 0;
        (0..100).for_each(|_| lab.ask(&mut client));
        assert_eq!(lab.calls, 0, "{protocol:?}: calls of the allocator in 100 requests");
    }
}

#[test]
fn an_idle_connection_is_small() {
    /// As many as tables that double have room for.
    const CONNECTIONS: usize = 1024;
    for (protocol, most) in [(Protocol::Http1, 1536), (Protocol::Http2, 4096)] {
        let mut lab = Lab::new(protocol);
        // One more would make every table larger than it need be.
        let mut clients: Vec<_> = (0..CONNECTIONS / 2).map(|_| lab.open()).collect();
        lab.bytes = 0;
        clients.extend((CONNECTIONS / 2..CONNECTIONS).map(|_| lab.open()));
        let each = lab.bytes / (CONNECTIONS / 2) as isize;
        assert!(each <= most, "{protocol:?}: {each} bytes for an idle connection");
    }
}
