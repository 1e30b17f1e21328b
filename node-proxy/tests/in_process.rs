// SPDX-License-Identifier: Apache-2.0
//! Our parts over real sockets on the loopback address, without privileges.

#[path = "in_process/by_hand.rs"]
mod by_hand;
#[path = "in_process/bytes.rs"]
mod bytes;
#[path = "in_process/gateway.rs"]
mod gateway;
#[path = "in_process/hostile.rs"]
mod hostile;
#[path = "in_process/mesh.rs"]
mod mesh;
#[path = "in_process/support.rs"]
mod support;
#[path = "in_process/websocket.rs"]
mod websocket;
