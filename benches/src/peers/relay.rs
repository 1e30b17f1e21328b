// SPDX-License-Identifier: Apache-2.0
//! The byte relay, `weft-bench-relay`.

use crate::peers::{Running, Setup};
use crate::process::{self, PROXY_CORE, Process, beside};

/// Starts the relay.
pub(crate) fn start(setup: &Setup<'_>) -> anyhow::Result<Running> {
    let [address, _] = process::free_addresses()?;
    let log = setup.folder.join("relay.log");
    let program = beside("weft-bench-relay")?;
    let own = [&*program.to_string_lossy(), &address.to_string(), &setup.origin.to_string()];
    let mut process = Process::start(PROXY_CORE, &[setup.prefix, &own].concat(), &log)?;
    process.wait_for(address, &log)?;
    Ok(Running { address, process, _beside: Vec::new() })
}
