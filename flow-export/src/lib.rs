// SPDX-License-Identifier: Apache-2.0
//! Flows: what happened to connections and requests, who took part, and why something was refused.
//!
//! Data workers keep what happened in bounded memory of their own and never wait: what does not fit is
//! counted as lost. It moves into one ring per node when somebody asks or half of that memory is taken, and
//! becomes a flow, with names, when somebody looks at it. Nothing here blocks the data path.
//!
//! Read [`flow`] first, then `ring`, `filter`, `serve`; `enrich` makes flows of kernel events, `print`
//! makes lines of flows.

pub mod enrich;
mod filter;
pub mod flow;
pub mod print;
mod ring;
pub mod serve;

pub use filter::{Filter, FilterError, event_names};
pub use flow::{Event, Flow, FlowEndpoint, Http, IpProtocol, L4, TcpFlags, Verdict};
pub use ring::{DEFAULT_CAPACITY, FlowBatch, FlowReader, FlowRing, FlowSource, Read, Taken};
pub use serve::{FlowQuery, QueryError};
pub use weft_ebpf_common::reason::Reason;
pub use weft_ir::{Direction, stream::Position};
