// SPDX-License-Identifier: Apache-2.0
//! Moves the bytes: threads, turns, connections. What is to be done with them is asked of
//! [`crate::request`].
//!
//! Read `engine` first: what a worker has open, and a turn. Then the way of a request: `accept`, `downstream`
//! (clients), `exchanges` (from its head to its end), `asking` (to the endpoint), `onward` (connections to
//! endpoints), `answering` (back), `switch` (to a WebSocket); then `relay` (bytes), `resume` (who was held up),
//! `closing`, `expire` (deadlines), `thread`.

mod accept;
mod answering;
mod asking;
mod client;
mod closing;
mod content;
mod downstream;
mod engine;
mod exchanges;
mod expire;
mod held;
mod listening;
mod onward;
mod owners;
mod relay;
mod resume;
mod running;
mod switch;
pub(crate) mod thread;
mod tunnel;
