// SPDX-License-Identifier: Apache-2.0
//! The byte relays.

use crate::peers::{Running, Setup};
use crate::process::{self, PROXY_CORE, Process, beside};

/// Starts this one of them.
pub(crate) fn start(setup: &Setup<'_>, program: &str, options: &[&str]) -> anyhow::Result<Running> {
    let [address, _] = process::free_addresses()?;
    let log = setup.folder.join("relay.log");
    let program = beside(program)?;
    let own = [&*program.to_string_lossy(), &address.to_string(), &setup.origin.to_string()];
    let mut process = Process::start(PROXY_CORE, &[setup.prefix, &own, options].concat(), &log)?;
    process.wait_for(address, &log)?;
    Ok(Running { address, process, _beside: Vec::new() })
}
