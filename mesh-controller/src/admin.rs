// SPDX-License-Identifier: Apache-2.0
//! What an operator may ask the controller: is it ready, how far are the nodes, how do the objects stand.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::Instant;
use weft_identity::Registrar;
use weft_ir::{publish::NodeReport, stream::Position};
use weft_runtime::{
    admin::{AdminAddress, AdminResponse, AdminRoutes, AdminServeError, AdminServer, MAX_ATTENTION, Status},
    drain::DrainWatch,
    readiness::{Readiness, ReadinessHandle},
    supervise::Supervisor,
};

use crate::{
    metrics,
    observed::{Objects, Observed},
    serve_ir::{Contested, IrHandle, IrReport, Waiting},
};

/// Serves the endpoint where one is wanted, until the drain begins. The condition that is returned holds
/// once the first state was published.
///
/// # Errors
/// When the address cannot be served.
pub async fn start(
    address: Option<&AdminAddress>,
    nodes: &IrHandle,
    observed: &Observed,
    drain: DrainWatch,
    tasks: &mut Supervisor,
) -> Result<ReadinessHandle, AdminServeError> {
    let readiness = Readiness::new();
    let published = readiness.add("state", "nothing is published yet");
    let Some(address) = address else { return Ok(published) };
    let server = AdminServer::bind(address).await?;
    tracing::info!(address = %server.address(), "serving the admin endpoint");
    let (reports, objects) = (nodes.watch_acks(), observed.watch());
    let (of_nodes, of_objects, names) = (reports.clone(), objects.clone(), nodes.clone());
    let routes = AdminRoutes::new(readiness.clone(), Arc::new(metrics::registry(nodes, observed)))
        .status(readiness, move || {
            let mut status = status(&reports.borrow().clone(), &objects.borrow().clone());
            // These stop nodes, so they come first.
            status.attention.splice(0..0, of_names(names.registrar()));
            status.attention.truncate(MAX_ATTENTION);
            status
        })
        .get("/objects", move |_| {
            let answer = AdminResponse::json(&**of_objects.borrow());
            async move { answer }
        })
        .value("/nodes", move || node_answers(&of_nodes.borrow()));
    tasks.critical("admin endpoint", server.serve(routes, drain));
    Ok(published)
}

fn status(report: &IrReport, objects: &Objects) -> Status {
    let connected = || report.nodes.values().filter(|node| node.connected);
    let counters = [
        ("nodes connected", connected().count()),
        ("nodes behind", report.behind(report.revision).count()),
        ("nodes overdue", report.waiting.values().filter(|waiting| waiting.overdue).count()),
        ("nodes that reject a resource", connected().filter(|node| !node.rejected.is_empty()).count()),
        ("files with a problem", usize::try_from(objects.rejected_files()).unwrap_or(usize::MAX)),
        ("problems", objects.problems.len()),
    ];
    Status {
        daemon: "weft-controller",
        version: env!("CARGO_PKG_VERSION"),
        node: String::new(),
        revision: Position { epoch: report.epoch, revision: report.revision }.to_string(),
        counters: counters.map(|(name, count)| (name.to_owned(), count as u64)).into(),
        attention: attention(report, objects),
    }
}

/// How long it is worth a look that a process was refused which spoke as another: it tries again every one or
/// two minutes.
const CONTESTED: Duration = Duration::from_secs(600);

/// What is wrong with the names of nodes.
fn of_names(registrar: &Registrar) -> Vec<String> {
    let mut lines = registrar.problems();
    let rewritten = registrar.rewritten();
    if rewritten > 0 {
        lines.push(format!(
            "{rewritten} files of names of nodes were removed while the controller ran, and are written again: who \
             has removed them?"
        ));
    }
    lines
}

/// Nodes that do not answer, nodes that reject, and everything that is wrong with files and objects.
fn attention(report: &IrReport, objects: &Objects) -> Vec<String> {
    let overdue = report.waiting.iter().filter(|(_, waiting)| waiting.overdue);
    let overdue = overdue.map(|(node, waiting)| {
        let seconds = age(waiting);
        format!("node {node} has not acknowledged revision {} for {seconds} s", waiting.revision)
    });
    let connected = || report.nodes.iter().filter(|(_, node)| node.connected);
    let contested = report.contested.iter().filter(|(_, contested)| contested.last.elapsed() < CONTESTED);
    let contested = contested.map(|(node, Contested { refused, from, open_from, .. })| {
        format!(
            "two processes speak as node {node}: one has the stream from {open_from}, another from {from} was refused \
             ({refused}x): give each node a name and a --state-dir of its own"
        )
    });
    let ahead = connected().filter_map(|(name, node)| {
        node.ahead.as_ref().map(|reason| format!("node {name} is sent nothing: it {reason}"))
    });
    let rejected = connected().flat_map(|(name, node)| {
        let one = move |rejection: &weft_ir::stream::Rejection| {
            format!("node {name} cannot use {}: {}", rejection.key, rejection.message)
        };
        let more = (node.omitted > 0).then(|| format!("node {name} cannot use {} more", node.omitted));
        node.rejected.iter().map(one).chain(more)
    });
    let problems = objects.problems.iter().map(ToString::to_string);
    let of_disk = objects.disk.iter().cloned();
    let mut all = of_disk.chain(contested).chain(overdue).chain(ahead).chain(rejected).chain(problems);
    let mut lines: Vec<String> = all.by_ref().take(MAX_ATTENTION).collect();
    let more = all.count();
    if more > 0 {
        lines.pop();
        lines.push(format!("and {} more: see /nodes and /objects of the admin endpoint", more + 1));
    }
    lines
}

fn age(waiting: &Waiting) -> u64 {
    Instant::now().saturating_duration_since(waiting.since).as_secs()
}

/// How far a node is.
#[derive(Serialize)]
struct NodeAnswer {
    connected: bool,
    applied: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnected_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<WaitingAnswer>,
    rejected: BTreeMap<Arc<str>, Arc<str>>,
    omitted: u32,
    /// Rejections of what was never sent.
    unknown: u32,
    /// Why it is sent nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    ahead: Option<Arc<str>>,
}

/// What a node has not acknowledged.
#[derive(Serialize)]
struct WaitingAnswer {
    revision: u64,
    seconds: u64,
    overdue: bool,
}

fn node_answers(report: &IrReport) -> BTreeMap<Arc<str>, NodeAnswer> {
    let answer = |(name, node): (&Arc<str>, &NodeReport)| {
        let waiting = report.waiting.get(name).map(|waiting| WaitingAnswer {
            revision: waiting.revision,
            seconds: age(waiting),
            overdue: waiting.overdue,
        });
        let rejected =
            node.rejected.iter().map(|one| (one.key.to_string().into(), one.message.clone())).collect();
        let NodeReport { connected, applied, omitted, unknown, .. } = *node;
        let ahead = node.ahead.clone();
        let gone = report.gone.get(name);
        let disconnected_seconds = gone.map(|gone| gone.elapsed().as_secs());
        let answer = NodeAnswer {
            connected,
            applied,
            disconnected_seconds,
            waiting,
            rejected,
            omitted,
            unknown,
            ahead,
        };
        (name.clone(), answer)
    };
    report.nodes.iter().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use weft_ir::{ResourceKey, stream::Rejection};
    use weft_translate::Problem;

    use super::*;

    fn report() -> IrReport {
        let mut report = IrReport { revision: 7, ..IrReport::default() };
        for (name, connected, applied) in [("a", true, Some(7)), ("b", true, Some(6)), ("c", false, None)] {
            let node = NodeReport { connected, applied, ..Default::default() };
            report.nodes.insert(name.into(), node);
        }
        report
    }

    #[test]
    fn status_counts_the_nodes_that_are_behind() {
        let status = status(&report(), &Objects::default());
        assert_eq!((&*status.revision, status.counters["nodes connected"]), ("0000.7", 2));
        assert_eq!(status.counters["nodes behind"], 1);
        assert!(status.attention.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_and_what_is_rejected_is_named_with_its_reason() {
        let mut report = report();
        let since = Instant::now();
        tokio::time::advance(Duration::from_secs(31)).await;
        report.waiting.insert("b".into(), Waiting { revision: 7, since, overdue: true });
        let rejection = Rejection { key: ResourceKey::parse("service/x/y"), message: "no".into() };
        report.nodes.get_mut("a").unwrap().ahead = Some("was told files 9".into());
        let contested = Contested {
            refused: 3,
            last: Instant::now(),
            from: [10, 0, 0, 2].into(),
            open_from: [10, 0, 0, 1].into(),
        };
        report.contested.insert("c".into(), contested);
        for node in report.nodes.values_mut() {
            node.rejected = vec![rejection.clone()];
        }
        let problems = Arc::new(vec![Problem::unread("a.yaml", 3, "wrong")]);
        let status = status(&report, &Objects { problems, ..Objects::default() });
        assert_eq!(
            status.attention,
            [
                "two processes speak as node c: one has the stream from 10.0.0.1, another from 10.0.0.2 was refused (3x): give each node a name and a --state-dir of its own",
                "node b has not acknowledged revision 7 for 31 s",
                "node a is sent nothing: it was told files 9",
                "node a cannot use service/x/y: no",
                "node b cannot use service/x/y: no",
                "a.yaml:3: wrong",
            ]
        );
        assert_eq!((status.counters["nodes overdue"], status.counters["files with a problem"]), (1, 1));
        let json = serde_json::to_value(node_answers(&report)).unwrap();
        assert_eq!(json["b"]["waiting"]["seconds"], 31);
        assert_eq!(json["a"]["rejected"]["service/x/y"], "no");
    }

    #[test]
    fn what_is_wrong_with_names_of_nodes_and_with_the_disk_is_named() {
        let home = tempfile::tempdir().unwrap();
        let registrar = Registrar::open(home.path(), weft_identity::NODE_LIFETIME).unwrap();
        assert!(of_names(&registrar).is_empty());
        std::fs::write(home.path().join("nodes/a"), "nonsense").unwrap();
        let registrar = Registrar::open(home.path(), weft_identity::NODE_LIFETIME).unwrap();
        let lines = of_names(&registrar);
        assert!(lines.len() == 1 && lines[0].starts_with("nobody can be node a, "), "{lines:?}");
        let disk = Arc::new(vec!["cannot keep the identities".to_owned()]);
        let lines = attention(&report(), &Objects { disk, ..Objects::default() });
        assert_eq!(lines, ["cannot keep the identities"]);
    }

    #[test]
    fn attention_is_bounded_and_says_how_much_it_leaves_out() {
        let problem = |line| Problem::unread("a.yaml", line, "wrong");
        let problems = Arc::new((1..=250).map(problem).collect());
        let lines = attention(&IrReport::default(), &Objects { problems, ..Objects::default() });
        assert_eq!(lines.len(), MAX_ATTENTION);
        assert!(lines[MAX_ATTENTION - 1].starts_with("and 151 more"), "{lines:?}");
    }
}
