// SPDX-License-Identifier: Apache-2.0
//! Which devices packets of established connections may go between past the node's stack.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::{Duration, Instant},
};

use super::{Datapath, DatapathError};
use crate::{
    config::ShortPath,
    firewall,
    hook::DeviceHook,
    network::{Kind, Link},
    others::Others,
    sync::{Tables, Write},
};

/// How often the rules of others are looked at, of which nobody tells.
const LOOK: Duration = Duration::from_secs(30);

/// What is known of the rules of others.
#[derive(Debug, Default)]
pub(super) struct Rules {
    looked: Option<Instant>,
    in_the_way: Option<String>,
}

impl Datapath {
    /// Takes devices out of the short way where others have put something that packets must not miss, and back
    /// in when it is gone. To be called every few seconds: programs and rules come without notice.
    ///
    /// # Errors
    /// Where programs, rules or maps cannot be read; then nothing takes the short way that did not before.
    pub async fn look_around(&mut self) -> Result<(), DatapathError> {
        self.look_at_rules().await;
        let Some(brought) = &self.brought else { return Ok(()) };
        self.settle_short(brought.links(), &self.attached)
    }

    /// Looks whether rules of others stand in the way, if it is time.
    pub(super) async fn look_at_rules(&mut self) {
        if self.config.short_path != ShortPath::Auto
            || self.rules.looked.is_some_and(|looked| looked.elapsed() < LOOK)
        {
            return;
        }
        let found = match firewall::rules_of_others().await {
            Ok(found) => found,
            Err(error) => Some(format!("unknown: {error}")),
        };
        if found != self.rules.in_the_way || self.rules.looked.is_none() {
            match &found {
                Some(rules) => tracing::info!(
                    rules,
                    "forwarding rules of others: packets go through the stack (--short-path on passes them by)"
                ),
                None => tracing::info!("no forwarding rules of others: packets between pods skip the stack"),
            }
        }
        self.rules = Rules { looked: Some(Instant::now()), in_the_way: found };
    }

    /// Enters the devices of the short way. Connections find a new one as they are decided; those of one that
    /// is taken out are decided again.
    ///
    /// # Errors
    /// Where programs or maps cannot be read or written.
    pub(super) fn settle_short(
        &self,
        links: &BTreeMap<u32, Link>,
        hooks: &BTreeSet<(DeviceHook, u32)>,
    ) -> Result<(), DatapathError> {
        let wanted = match self.config.short_path {
            ShortPath::Off => BTreeSet::new(),
            ShortPath::Auto if self.rules.in_the_way.is_some() => BTreeSet::new(),
            _ => quiet_devices(links, hooks)?,
        };
        let table = &self.maps.short_devices;
        let there: BTreeSet<u32> = table.keys()?.into_iter().collect();
        for device in wanted.difference(&there) {
            table.update(device, &1)?;
        }
        let mut lost = false;
        for device in there.difference(&wanted) {
            table.remove(device)?;
            lost |= links.contains_key(device);
        }
        if lost {
            self.maps.write(&Write::Epoch)?;
        }
        Ok(())
    }
}

/// The devices of pods and the uplinks at which nobody but we have anything.
fn quiet_devices(
    links: &BTreeMap<u32, Link>,
    hooks: &BTreeSet<(DeviceHook, u32)>,
) -> io::Result<BTreeSet<u32>> {
    let others = Others::look()?;
    let mut quiet = BTreeSet::new();
    for (hook, device) in hooks {
        // Only of a pair is it known that its other end can be handed a packet.
        let pair = links.get(device).is_some_and(|link| link.kind == Kind::Veth);
        let fits = *hook != DeviceHook::FromPod || pair;
        // One that went away meanwhile is a change of its own.
        if fits && others.leave_alone(*hook, *device).unwrap_or(false) {
            quiet.insert(*device);
        }
    }
    Ok(quiet)
}
