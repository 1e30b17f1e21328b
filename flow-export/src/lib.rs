// SPDX-License-Identifier: Apache-2.0
//! Flows: what happened to connections and requests, who took part, and why something was refused.
//!
//! Data workers hand flows to a bounded queue of their own and never wait: what does not fit is counted
//! as lost. The control thread moves them into one ring per node, from which any number of readers
//! copies at its own pace. Nothing here blocks the data path.
//!
//! Read [`flow`] first, then `ring`, `filter`, `serve`; `enrich` makes flows of kernel events, `print`
//! makes lines of flows.

pub mod enrich;
mod filter;
pub mod flow;
pub mod print;
mod ring;
pub mod serve;
mod time;

pub use filter::{Filter, FilterError, event_names};
pub use flow::{Event, Flow, FlowEndpoint, Http, L4, Protocol, TcpFlags, Verdict};
pub use ring::{DEFAULT_CAPACITY, FlowProducer, FlowQueue, FlowReader, FlowRing, Read};
pub use serve::{FlowQuery, QueryError};
pub use time::{Timestamp, TimestampError};
pub use weft_ebpf_common::reason::Reason;
pub use weft_ir::{Direction, stream::Position};
