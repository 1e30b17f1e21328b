// SPDX-License-Identifier: Apache-2.0
//! The rules and the table that deliver marked packets to the node itself, whatever their destination.
//!
//! Where the reverse path of a packet is looked up with its mark (`src_valid_mark`, which wg-quick sets), its source
//! would be local too, and so a martian. Such a lookup has the loopback device as its input, which no packet that is
//! handed over has: a rule in front of ours leads it past. What the node itself sends with the mark, since
//! `fwmark_reflect` copies that, goes its way likewise. IPv6 has no such lookup.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};
use rtnetlink::{IpVersion, RouteMessageBuilder};

use super::{Network, NetworkError, ROUTE_PROTOCOL, netlink};
use crate::config::DatapathConfig;

const LOOPBACK: &str = "lo";

/// What a rule of ours does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Leads lookups that no received packet makes to the end.
    Past,
    /// Looks into our table.
    Deliver,
    /// Does nothing: where the first one leads.
    End,
}

impl Step {
    const ALL: [Step; 3] = [Step::Past, Step::Deliver, Step::End];

    /// The steps of a family, in the order in which they are made: nothing is led to where nothing is.
    fn of(version: &IpVersion) -> &'static [Step] {
        match version {
            IpVersion::V4 => &[Step::End, Step::Past, Step::Deliver],
            IpVersion::V6 => &[Step::Deliver],
        }
    }

    fn priority(self, config: &DatapathConfig) -> u32 {
        match self {
            Step::Past => config.rule_priority - 1,
            Step::Deliver => config.rule_priority,
            Step::End => config.rule_priority + 1,
        }
    }

    /// Whether a rule is this one of ours. Others may have made rules of the same priority.
    fn is(self, rule: &RuleMessage, config: &DatapathConfig) -> bool {
        let has = |attribute| rule.attributes.contains(&attribute);
        has(RuleAttribute::Priority(self.priority(config)))
            && match self {
                Step::Past => has(RuleAttribute::Goto(Step::End.priority(config))),
                Step::Deliver => has(RuleAttribute::Table(config.table)),
                Step::End => rule.header.action == RuleAction::Nop,
            }
    }
}

/// The families that this node has now. When IPv6 is switched on, its rule is missing.
fn versions() -> &'static [IpVersion] {
    if has_ipv6() { &[IpVersion::V4, IpVersion::V6] } else { &[IpVersion::V4] }
}

/// Whether IPv6 is switched on: without it devices take no routes of it.
pub(super) fn has_ipv6() -> bool {
    let disabled = fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6");
    disabled.is_ok_and(|disabled| disabled.trim() == "0")
}

impl Network {
    /// Makes what is missing of the rules and the table.
    ///
    /// # Errors
    /// Names what could not be made.
    pub(super) async fn deliver(&self, config: &DatapathConfig) -> Result<(), NetworkError> {
        let links = self.links().await?;
        let lo = links.iter().find(|(_, link)| link.loopback).map(|(index, _)| *index);
        let lo = lo.ok_or(NetworkError::NoDevice(LOOPBACK))?;
        for version in versions() {
            let address: IpAddr = match version {
                IpVersion::V4 => Ipv4Addr::UNSPECIFIED.into(),
                IpVersion::V6 => Ipv6Addr::UNSPECIFIED.into(),
            };
            let message = RouteMessageBuilder::<IpAddr>::new()
                .destination_prefix(address, 0)
                .map_err(|_mixed| NetworkError::Route(address))?
                .output_interface(lo)
                .table_id(config.table)
                .kind(RouteType::Local)
                .scope(RouteScope::Host)
                .protocol(ROUTE_PROTOCOL)
                .build();
            self.handle.route().add(message).replace().execute().await.map_err(netlink("local route"))?;
        }
        self.missing_rules(config, true).await.map(|_| ())
    }

    /// Makes rules and table again where somebody has removed a rule, as network daemons do with what is not their
    /// own; true where that was so.
    ///
    /// # Errors
    /// Names what could not be made.
    pub(super) async fn restore_delivery(&self, config: &DatapathConfig) -> Result<bool, NetworkError> {
        let missing = self.missing_rules(config, false).await?;
        if missing {
            self.deliver(config).await?;
        }
        Ok(missing)
    }

    async fn missing_rules(&self, config: &DatapathConfig, make: bool) -> Result<bool, NetworkError> {
        let mut missing = false;
        for version in versions() {
            let there = self.rules_of(version).await?;
            for step in Step::of(version) {
                if !there.iter().any(|rule| step.is(rule, config)) {
                    missing = true;
                    if make {
                        self.add_rule(config, version, *step).await?;
                    }
                }
            }
        }
        Ok(missing)
    }

    async fn add_rule(
        &self,
        config: &DatapathConfig,
        version: &IpVersion,
        step: Step,
    ) -> Result<(), NetworkError> {
        let mut request = self.handle.rule().add().priority(step.priority(config));
        request = match step {
            Step::Past => request
                .fw_mark(config.mark.to_proxy)
                .input_interface(LOOPBACK.to_owned())
                .action(RuleAction::Goto),
            Step::Deliver => {
                request.fw_mark(config.mark.to_proxy).table_id(config.table).action(RuleAction::ToTable)
            }
            Step::End => request.action(RuleAction::Nop),
        };
        let message = request.message_mut();
        message.header.family = match version {
            IpVersion::V4 => AddressFamily::Inet,
            IpVersion::V6 => AddressFamily::Inet6,
        };
        match step {
            Step::Past => message.attributes.extend([
                RuleAttribute::FwMask(config.mark.mask),
                RuleAttribute::Goto(Step::End.priority(config)),
            ]),
            Step::Deliver => message.attributes.push(RuleAttribute::FwMask(config.mark.mask)),
            Step::End => {}
        }
        request.execute().await.map_err(netlink("rule for marked packets"))
    }

    async fn rules_of(&self, version: &IpVersion) -> Result<Vec<RuleMessage>, NetworkError> {
        self.handle
            .rule()
            .get(version.clone())
            .execute()
            .try_collect()
            .await
            .map_err(netlink("list of rules"))
    }

    /// Our rules that are there.
    ///
    /// # Errors
    /// Those of the netlink request.
    pub(super) async fn rules(&self, config: &DatapathConfig) -> Result<Vec<RuleMessage>, NetworkError> {
        let mut ours = Vec::new();
        // Also of a family that was switched off since.
        for version in [IpVersion::V4, IpVersion::V6] {
            let there = self.rules_of(&version).await?;
            ours.extend(there.into_iter().filter(|rule| Step::ALL.iter().any(|step| step.is(rule, config))));
        }
        Ok(ours)
    }
}
