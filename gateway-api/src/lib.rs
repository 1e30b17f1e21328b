// SPDX-License-Identifier: Apache-2.0
//! Gateway API and GAMMA objects, translated to the IR and to statuses.
//!
//! The crate is pure: objects in, resources and statuses out, with no I/O, no clock and no order of
//! events. What it cannot translate it never drops: a rule that it refuses is programmed to answer
//! 500, and a condition names the field.
//!
//! Read [`input`] first, then [`translate`], `gateway`, `httproute` and `rules`.

mod filters;
mod gateway;
mod httproute;
pub mod input;
mod parents;
mod rules;
pub mod selector;
mod validate;

pub use input::{Input, Item, Output};
pub use validate::{validate_gateway, validate_route};

/// The name of Weft's controller in `GatewayClass.spec.controllerName` and in statuses of routes.
pub const CONTROLLER_NAME: &str = "weft.dev/gateway-controller";

/// Translates every object. The result depends on nothing but the input.
pub fn translate(input: &Input<'_>) -> Output {
    let mut output = Output::default();
    let classes = gateway::classes(input, &mut output);
    gateway::note_missing_classes(input, &mut output);
    let mut gateways = gateway::gateways(input, &classes);
    for route in &input.routes {
        httproute::translate(input, &mut gateways, route, &mut output);
    }
    for gateway in gateways.into_values() {
        gateway.finish(&mut output);
    }
    output
}
