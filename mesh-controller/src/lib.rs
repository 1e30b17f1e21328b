// SPDX-License-Identifier: Apache-2.0
//! `weft-controller`: reads objects, translates them, and serves the state to every node.
//!
//! Read `dir_source` or `kube_source`, [`source`], [`reconcile`], [`serve_ir`] in this order: that is the way of a change.

pub mod admin;
pub mod api_client;
pub mod args;
mod dir_source;
pub mod dry_run;
mod identity_file;
pub mod intake;
mod kube_source;
mod metrics;
pub mod node_accounts;
pub mod observed;
pub mod open_files;
pub mod publish_join;
pub mod reconcile;
pub mod serve_ir;
pub mod source;
mod status;

pub use dir_source::WatchError;
pub use identity_file::IdentityFileError;
