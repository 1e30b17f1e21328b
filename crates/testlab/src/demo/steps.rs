// SPDX-License-Identifier: Apache-2.0
//! What the demo claims, one function each.

use std::time::Duration;

use anyhow::{Context, ensure};
use weft_flow_export::Flow;
use weft_flow_export::print::Compact;

use super::shop::Shop;
use super::table::Table;
use crate::daemon::metrics;
use crate::manifests::example;
use crate::peer::{client, http, tcp};
use crate::wait;

/// How long a change of a manifest may take until requests follow it.
const APPLIED: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(30);
/// By how many points of a hundred a split may miss what was asked: four standard deviations of 2000
/// requests, rounded up.
const TOLERANCE: f64 = 4.5;
/// What the example's route begins with, and what the demo makes of it.
const WEIGHTS: [(&str, &str); 2] = [("weight: 90", "weight: 50"), ("weight: 10", "weight: 50")];

/// Runs every step; an error is one that leaves nothing to claim.
pub(super) fn run(shop: &Shop, table: &mut Table) -> anyhow::Result<()> {
    first_split(shop, table)?;
    change_under_load(shop, table)?;
    denied(shop, table)?;
    strangers(shop, table)?;
    plain_tcp(shop, table)?;
    rate_limit(shop, table)?;
    retries(shop, table)?;
    from_outside(shop, table)
}

/// The route that the demo starts with, and the address that the application sees.
fn first_split(shop: &Shop, table: &mut Table) -> anyhow::Result<()> {
    table.progress("2000 requests of the client to the Service checkout");
    wait::eventually(APPLIED, || {
        let one = shop.requests(&shop.client, &["--requests", "1"])?;
        ensure!(one.ok() == 1, "the first request: {:?} {:?}", one.status, one.failures);
        Ok(())
    })?;
    let summary = shop.requests(&shop.client, &["--requests", "2000", "--concurrency", "4"])?;
    table.claim("canary split", "90 / 10", &shares(&summary), near(&summary, 10.0));
    let all = format!("{} of {} (p50 {} us)", summary.ok(), summary.sent, summary.p50_us);
    table.claim("requests answered 200", "2000 of 2000", &all, summary.ok() == 2000);
    let seen = summary.seen()?;
    let address = seen.client.ip();
    table.claim(
        "client address seen by the application",
        &shop.client.ip4().to_string(),
        &address.to_string(),
        address == shop.client.ip4(),
    );
    Ok(())
}

/// 50/50 by editing the HTTPRoute while requests run: none may fail.
fn change_under_load(shop: &Shop, table: &mut Table) -> anyhow::Result<()> {
    table.progress("editing the HTTPRoute to 50/50 while requests run");
    let url = shop.url();
    let mut load = shop.client.start(&["client", &url, "--concurrency", "4", "--pause-ms", "1"])?;
    edit_route(shop, &WEIGHTS)?;
    wait::eventually(APPLIED, || {
        let summary = shop.requests(&shop.client, &["--requests", "200"])?;
        ensure!(near_by(&summary, 50.0, 15.0), "still {}", shares(&summary));
        Ok(())
    })?;
    let after = shop.requests(&shop.client, &["--requests", "2000", "--concurrency", "4"])?;
    load.stop()?;
    let during: client::Summary = load.answer()?;
    table.claim("split after the edit", "50 / 50", &shares(&after), near(&after, 50.0));
    let failed = during.sent - during.ok() + after.sent - after.ok();
    let sent = during.sent + after.sent;
    let seen = format!("{failed} of {sent}{}", failures(&during));
    table.claim("failed during the change", "0", &seen, failed == 0 && during.sent > 100);
    Ok(())
}

/// The policy allows GET and HEAD only.
fn denied(shop: &Shop, table: &mut Table) -> anyhow::Result<()> {
    table.progress("a POST, which the policy does not allow");
    let summary = shop.requests(&shop.client, &["--requests", "1", "--method", "POST"])?;
    let last = summary.last.as_ref().with_context(|| format!("no answer: {:?}", summary.failures))?;
    let seen = format!("{} {}", last.status, last.body.trim());
    table.claim("POST", "403 Access denied", &seen, seen == "403 Access denied");
    let whole = ["shop/client", "POST", "/pay", "reason=http_policy_denied"];
    claim_flow(table, &whole, || shop.mesh.flows("verdict=DROPPED&last=20"));
    Ok(())
}

/// Claims that a flow of the POST comes, whose line has every `part`.
pub(super) fn claim_flow(table: &mut Table, parts: &[&str], flows: impl Fn() -> anyhow::Result<Vec<Flow>>) {
    let flow = wait::eventually(APPLIED, || {
        let is_post = |flow: &Flow| flow.http.as_ref().is_some_and(|http| &*http.method == "POST");
        flows()?.into_iter().rev().find(is_post).context("no flow of the POST")
    });
    match flow {
        Ok(flow) => {
            let line = Compact::default().line(&flow);
            let holds = parts.iter().all(|part| line.contains(part));
            table.claim("flow of the POST", "who, what, why", "see below", holds);
            table.below(format!("weft observe: {line}"));
        }
        Err(error) => table.claim("flow of the POST", "who, what, why", &format!("{error:#}"), false),
    }
}

/// The policy names the client only.
fn strangers(shop: &Shop, table: &mut Table) -> anyhow::Result<()> {
    table.progress("requests of another pod, which the policy does not name");
    let service =
        shop.requests(&shop.other, &["--requests", "5", "--mode", "close", "--timeout-ms", "500"])?;
    let url = format!("http://{}:8080/pay", shop.v2.ip4());
    let arguments = ["client", &url, "--requests", "2", "--mode", "close", "--timeout-ms", "500"];
    let direct: client::Summary = shop.other.ask(&arguments, DEADLINE)?;
    let through = service.ok() + direct.ok();
    let seen = format!("{through} of {} {:?}", service.sent + direct.sent, service.status);
    table.claim("another pod gets through", "0", &seen, through == 0);
    Ok(())
}

/// No rule names the ledger: the kernel carries its connections alone.
fn plain_tcp(shop: &Shop, table: &mut Table) -> anyhow::Result<()> {
    table.progress("200 connections to the plain TCP service ledger");
    let proxied = || shop.mesh.sum(metrics::PROXY_CONNECTIONS, &[]);
    let service = [("service", "shop/ledger")];
    let in_kernel = || shop.mesh.sum(metrics::SERVICE_DIRECT, &service);
    let (before, direct) = (proxied()?, in_kernel()?);
    let address = format!("{}:5000", shop.ledger.v4);
    let summary: tcp::Summary =
        shop.client.ask(&["tcp-client", &address, "--connections", "200"], DEADLINE)?;
    let client = format!("ledger {}", shop.client.ip4());
    let echoed = summary.seen.get(&client).copied().unwrap_or(0);
    let text = format!("{echoed}{}", if summary.failures.is_empty() { "" } else { " (failures)" });
    table.claim("ledger: connections answered", "200", &text, echoed == 200);
    let (proxied, direct) = (proxied()? - before, in_kernel()? - direct);
    let redirected = shop.mesh.sum(metrics::SERVICE_REDIRECTED, &service)?;
    table.claim("ledger: balanced in the kernel", "200", &direct.to_string(), direct >= 200.0);
    let seen = format!("{proxied} (kernel says {redirected})");
    table.claim("ledger: in the proxy", "0", &seen, proxied == 0.0 && redirected == 0.0);
    Ok(())
}

/// The example's limit, put in while everything runs, and taken out again.
fn rate_limit(shop: &Shop, table: &mut Table) -> anyhow::Result<()> {
    table.progress("a rate limit of 50 requests a second, with a burst of 100");
    shop.mesh.manifests.copy(&example("ratelimit.yaml")?)?;
    let summary = wait::eventually(APPLIED, || {
        let summary = shop.requests(&shop.client, &["--requests", "400", "--concurrency", "2"])?;
        ensure!(summary.status_count(429) > 0, "no 429: {:?}", summary.status);
        Ok(summary)
    })?;
    claim_limit(table, &summary);
    shop.mesh.manifests.remove("ratelimit.yaml")?;
    wait::eventually(APPLIED, || {
        let summary = shop.requests(&shop.client, &["--requests", "120", "--concurrency", "2"])?;
        ensure!(summary.ok() == 120, "still limited: {:?}", summary.status);
        Ok(())
    })
}

/// Claims about 400 requests under the example's limit.
pub(super) fn claim_limit(table: &mut Table, summary: &client::Summary) {
    let limited = summary.status_count(429);
    let retry_after = summary.last_refused.as_ref().and_then(|last| last.headers.get("retry-after"));
    let seen = format!("{} passed, {limited} with 429", summary.ok());
    let holds = limited + summary.ok() == 400 && summary.ok() < 300;
    table.claim("400 requests at once", "about 100 pass", &seen, holds);
    let after = retry_after.map_or_else(|| "none".to_owned(), |after| format!("{after} s"));
    table.claim("retry-after of a 429", "1 s", &after, after == "1 s");
}

/// v2 fails now and then; the route retries, so that no client sees it.
fn retries(shop: &Shop, table: &mut Table) -> anyhow::Result<()> {
    table.progress("v2 fails every fifth request; the route retries");
    let _failing =
        shop.v2.serve(&["http", "--version", "v2", "--listen", "[::]:8081", "--fail-every", "5"])?;
    let route = shop.mesh.manifests.read("service-shop-checkout-v2.yaml")?;
    let slow = route.replace("targetPort: 8080", "targetPort: 8081").replace("port: 8080", "port: 8081");
    // The policy names port 8080, so the failing server takes that port's place only with leave.
    let policy = shop.mesh.manifests.read("policy.yaml")?;
    let wider = policy.replace(
        "    - ports:\n      - port: \"8080\"\n        protocol: TCP\n",
        "    - ports:\n      - port: \"8080\"\n        protocol: TCP\n      - port: \"8081\"\n        protocol: TCP\n",
    );
    shop.mesh.manifests.write("policy.yaml", &wider)?;
    shop.mesh.manifests.write("service-shop-checkout-v2.yaml", &slow)?;
    let failed_before = failed_at(shop).unwrap_or_default();
    let summary = wait::eventually(APPLIED, || {
        let summary = shop.requests(&shop.client, &["--requests", "200"])?;
        let failed = failed_at(shop)?;
        ensure!(failed.failed > failed_before.failed, "v2 failed nothing yet");
        Ok(summary)
    })?;
    let failed = failed_at(shop)?.failed - failed_before.failed;
    let seen = format!("{} of 200, {failed} failures of v2 rescued", summary.ok());
    table.claim("200s although v2 fails", "200 of 200", &seen, summary.ok() == 200 && failed > 0);
    shop.mesh.manifests.write("service-shop-checkout-v2.yaml", &route)?;
    // What follows is to be answered by the sound server alone.
    wait::eventually(APPLIED, || {
        let before = failed_at(shop)?.requests;
        shop.requests(&shop.client, &["--requests", "100"])?;
        // The question itself is counted too.
        let more = failed_at(shop)?.requests - before;
        ensure!(more <= 1, "{more} requests still go to the failing server");
        Ok(())
    })?;
    shop.mesh.manifests.write("policy.yaml", &policy)
}

/// The Gateway listener on the node's address.
fn from_outside(shop: &Shop, table: &mut Table) -> anyhow::Result<()> {
    table.progress("requests from outside through the Gateway");
    let node = &shop.mesh.lab.nodes()[0];
    let url = format!("http://{}:8080/pay", node.ip4());
    let arguments = ["client", &url, "--host", "shop.example.com", "--requests", "200"];
    let summary = wait::eventually(APPLIED, || {
        let summary: client::Summary = shop.mesh.lab.world_place().ask("outside", &arguments, DEADLINE)?;
        ensure!(summary.ok() > 0, "{:?} {:?}", summary.status, summary.failures);
        Ok(summary)
    });
    match summary {
        Ok(summary) => {
            let holds = summary.ok() == 200 && summary.version_count("v1") > summary.version_count("v2");
            let seen = format!("{} of 200, {}", summary.ok(), shares(&summary));
            table.claim("from outside, through the Gateway", "200 of 200, 90 / 10", &seen, holds);
        }
        Err(error) => {
            table.claim("from outside, through the Gateway", "200 of 200", &format!("{error:#}"), false);
        }
    }
    Ok(())
}

/// What the failing server of v2 counted, asked from its own pod, where no policy holds.
fn failed_at(shop: &Shop) -> anyhow::Result<http::Stats> {
    let answer: client::Summary =
        shop.v2.ask(&["client", "http://127.0.0.1:8081/stats", "--requests", "1"], DEADLINE)?;
    let last = answer.last.with_context(|| format!("no statistics: {:?}", answer.failures))?;
    Ok(serde_json::from_str(&last.body)?)
}

fn edit_route(shop: &Shop, edits: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut text = shop.mesh.manifests.read("route.yaml")?;
    for (from, to) in edits {
        ensure!(text.contains(from), "the example's route has no {from:?}");
        text = text.replace(from, to);
    }
    shop.mesh.manifests.write("route.yaml", &text)
}

/// v1 / v2 in percent.
pub(super) fn shares(summary: &client::Summary) -> String {
    let share = share_of_v2(summary);
    format!("{:.1} / {share:.1}", 100.0 - share)
}

/// Whether v2's part is as asked.
pub(super) fn near(summary: &client::Summary, asked: f64) -> bool {
    near_by(summary, asked, TOLERANCE)
}

fn near_by(summary: &client::Summary, asked: f64, tolerance: f64) -> bool {
    summary.answered > 0 && (share_of_v2(summary) - asked).abs() <= tolerance
}

fn share_of_v2(summary: &client::Summary) -> f64 {
    summary.version_count("v2") as f64 * 100.0 / summary.answered.max(1) as f64
}

pub(super) fn failures(summary: &client::Summary) -> String {
    if summary.failures.is_empty() { String::new() } else { format!(" {:?}", summary.failures) }
}
