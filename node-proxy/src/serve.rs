// SPDX-License-Identifier: Apache-2.0
//! The threads that carry data: what they accept, and how each connection is served.

pub(crate) mod accept;
pub(crate) mod thread;
