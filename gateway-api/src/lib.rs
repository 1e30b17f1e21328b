// SPDX-License-Identifier: Apache-2.0
//! Gateway API and GAMMA objects, translated to the IR and to statuses.
//!
//! The crate is pure: objects in, resources and statuses out, with no I/O, no clock and no order of
//! events. A part that it cannot translate is closed alone: a rule that it refuses answers 500 to what it
//! would have matched, and a condition names the field (ADR 0014).
//!
//! One function translates one object of a kind ([`translate_class`], [`translate_gateway`],
//! [`translate_route`]) and asks a [`World`] for the others that it needs; no function looks at all
//! objects, so that results can be kept as long as the answers stay the same.
//!
//! Read `world` first, then `gateway`, `httproute`, `rules` and `matches`.

mod filters;
mod gateway;
mod hostnames;
mod httproute;
mod matches;
mod parents;
mod rules;
pub mod selector;
mod validate;
mod world;
mod wrong;

pub use gateway::{
    GatewayOutput,
    state::{Attached, GatewayState, MAX_STATUS_ADDRESSES},
    translate_class, translate_gateway,
};
pub use httproute::{RouteOutput, translate_route};
pub use validate::{validate_gateway, validate_route};
pub use world::{Item, Lookup, World};

/// The name of Weft's controller in `GatewayClass.spec.controllerName` and in statuses of routes.
pub const CONTROLLER_NAME: &str = "weft.dev/gateway-controller";
