// SPDX-License-Identifier: Apache-2.0
//! The demo without the kernel's part: the Gateway of the example on loopback, without root.

use std::time::Duration;

use anyhow::ensure;

use super::steps::{claim_flow, claim_limit, near, shares};
use super::table::Table;
use crate::loopback::Loopback;
use crate::peer::client;
use crate::wait;

const APPLIED: Duration = Duration::from_secs(5);

/// Runs servers, controller and weft-node as plain processes, and claims what needs no redirect.
pub(super) fn run(keep: bool, table: &mut Table) -> anyhow::Result<()> {
    table.progress("two servers, the controller, and weft-node as a gateway");
    let loopback = Loopback::start()?;
    split(&loopback, table)?;
    change_under_load(&loopback, table)?;
    refusals(&loopback, table)?;
    rate_limit(&loopback, table)?;
    table.print();
    if keep {
        let weft = crate::process::program("weft")?;
        println!("\nTo try:\n  curl -i -H 'Host: shop.example.com' {}", loopback.url());
        println!("  {} observe --server unix:{} -f", weft.display(), loopback.node.admin().display());
        println!("  $EDITOR {}", loopback.manifests.directory().join("gateway.yaml").display());
        super::wait_for_interrupt()?;
    }
    loopback.stop()
}

fn split(loopback: &Loopback, table: &mut Table) -> anyhow::Result<()> {
    table.progress("2000 requests to the Gateway");
    let summary = loopback.requests(&["--requests", "2000", "--concurrency", "4"])?;
    table.claim("canary split", "90 / 10", &shares(&summary), near(&summary, 10.0));
    let all = format!("{} of {} (p50 {} us)", summary.ok(), summary.sent, summary.p50_us);
    table.claim("requests answered 200", "2000 of 2000", &all, summary.ok() == 2000);
    Ok(())
}

fn change_under_load(loopback: &Loopback, table: &mut Table) -> anyhow::Result<()> {
    table.progress("editing the HTTPRoute to 50/50 while requests run");
    let mut load = loopback.load(&["--pause-ms", "1"])?;
    loopback.set_weights(50, 50)?;
    let after = wait::eventually(APPLIED, || {
        let after = loopback.requests(&["--requests", "1000", "--concurrency", "4"])?;
        ensure!(near(&after, 50.0), "still {}", shares(&after));
        Ok(after)
    })?;
    load.stop()?;
    let during: client::Summary = load.answer()?;
    table.claim("split after the edit", "50 / 50", &shares(&after), near(&after, 50.0));
    let failed = during.sent - during.ok();
    let seen = format!("{failed} of {}", during.sent);
    table.claim("failed during the change", "0", &seen, failed == 0 && during.sent > 0);
    Ok(())
}

fn refusals(loopback: &Loopback, table: &mut Table) -> anyhow::Result<()> {
    table.progress("a POST, which the policy does not allow, and a host that no route has");
    let post = loopback.requests(&["--requests", "1", "--method", "POST"])?;
    let seen = post.last.as_ref().map_or_else(
        || format!("{:?}", post.failures),
        |last| format!("{} {}", last.status, last.body.trim()),
    );
    table.claim("POST", "403 Access denied", &seen, seen == "403 Access denied");
    let whole = ["(ingress)", "shop/checkout-", "POST", "/pay", "reason=http_policy_denied"];
    claim_flow(table, &whole, || loopback.node.flows("verdict=DROPPED&last=20"));
    let url = loopback.url();
    let stranger: client::Summary =
        loopback.ask(&["client", &url, "--host", "other.example.com", "--requests", "1"])?;
    let seen = format!("{:?}", stranger.status);
    table.claim("a host that no route has", "404", &seen, stranger.status_count(404) == 1);
    Ok(())
}

fn rate_limit(loopback: &Loopback, table: &mut Table) -> anyhow::Result<()> {
    table.progress("a rate limit of 50 requests a second, with a burst of 100");
    loopback.add_rate_limit()?;
    let summary = wait::eventually(APPLIED, || {
        let summary = loopback.requests(&["--requests", "400", "--concurrency", "2"])?;
        ensure!(summary.status_count(429) > 0, "no 429: {:?}", summary.status);
        Ok(summary)
    })?;
    claim_limit(table, &summary);
    Ok(())
}
