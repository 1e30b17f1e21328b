// SPDX-License-Identifier: Apache-2.0
//! The arguments of `weft observe`, and the query that they make.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum, ValueHint, builder::PossibleValuesParser};
use weft_flow_export::{
    FlowQuery, Reason, Verdict, event_names,
    serve::{DEFAULT_LAST, encode},
};
use weft_time::Timestamp;

use crate::Servers;

/// Arguments of `weft observe`. Filters that are given several times match any of their values; different
/// filters must all match.
#[derive(Clone, Debug, Args)]
pub(crate) struct ObserveArgs {
    /// Which nodes.
    #[command(flatten)]
    pub(crate) servers: Servers,
    /// Go on with new flows until Ctrl-C
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begin with this many of the last flows that match [default: 20, or 0 with --follow]
    #[arg(long, value_name = "N", conflicts_with = "since", value_hint = ValueHint::Other)]
    pub(crate) last: Option<usize>,
    /// Begin with flows since then: 30s, 5m, 2h, 1d ago, or a time like 2026-11-21T04:05:00Z
    #[arg(long, value_name = "TIME", value_hint = ValueHint::Other)]
    pub(crate) since: Option<String>,
    /// Namespace of either end
    #[arg(short, long, value_name = "NAME", help_heading = "Filters", value_hint = ValueHint::Other)]
    pub(crate) namespace: Vec<String>,
    /// Namespace of the sender
    #[arg(long, value_name = "NAME", help_heading = "Filters", conflicts_with = "namespace", value_hint = ValueHint::Other)]
    pub(crate) from_namespace: Vec<String>,
    /// Namespace of the receiver
    #[arg(long, value_name = "NAME", help_heading = "Filters", conflicts_with = "namespace", value_hint = ValueHint::Other)]
    pub(crate) to_namespace: Vec<String>,
    /// Pod at either end: [NAMESPACE/]PREFIX
    #[arg(long, value_name = "POD", help_heading = "Filters", value_hint = ValueHint::Other)]
    pub(crate) pod: Vec<String>,
    /// Pod that sends: [NAMESPACE/]PREFIX
    #[arg(long, value_name = "POD", help_heading = "Filters", conflicts_with = "pod", value_hint = ValueHint::Other)]
    pub(crate) from_pod: Vec<String>,
    /// Pod that receives: [NAMESPACE/]PREFIX
    #[arg(long, value_name = "POD", help_heading = "Filters", conflicts_with = "pod", value_hint = ValueHint::Other)]
    pub(crate) to_pod: Vec<String>,
    /// Service at either end: [NAMESPACE/]PREFIX
    #[arg(long, value_name = "SERVICE", help_heading = "Filters", value_hint = ValueHint::Other)]
    pub(crate) service: Vec<String>,
    /// Address or prefix of either end
    #[arg(long, value_name = "IP", help_heading = "Filters", value_hint = ValueHint::Other)]
    pub(crate) ip: Vec<String>,
    /// Port of either end
    #[arg(long, value_name = "PORT", help_heading = "Filters", value_hint = ValueHint::Other)]
    pub(crate) port: Vec<String>,
    /// FORWARDED, DROPPED, ERROR, REDIRECTED or TRANSLATED
    #[arg(long, value_name = "VERDICT", help_heading = "Filters", value_parser = verdicts(), ignore_case = true)]
    #[arg(hide_possible_values = true)]
    pub(crate) verdict: Vec<String>,
    /// Why it was refused or failed, like policy_denied or http_policy_denied
    #[arg(long, value_name = "REASON", help_heading = "Filters", value_parser = reasons())]
    #[arg(hide_possible_values = true)]
    pub(crate) reason: Vec<String>,
    /// tcp, udp, sctp, icmp, http, or a protocol number
    #[arg(long, value_name = "PROTOCOL", help_heading = "Filters", value_hint = ValueHint::Other)]
    pub(crate) protocol: Vec<String>,
    /// http-request, http-response, l7, policy-verdict, drop, open, close or service-translation
    #[arg(short = 't', long = "type", value_name = "TYPE", help_heading = "Filters", value_parser = events())]
    #[arg(hide_possible_values = true)]
    pub(crate) kind: Vec<String>,
    /// ingress or egress
    #[arg(long, value_name = "DIRECTION", help_heading = "Filters", value_parser = ["ingress", "egress"])]
    #[arg(ignore_case = true, hide_possible_values = true)]
    pub(crate) traffic_direction: Vec<String>,
    /// HTTP method
    #[arg(long, value_name = "METHOD", help_heading = "Filters", value_hint = ValueHint::Other)]
    pub(crate) http_method: Vec<String>,
    /// Regular expression that the path of a request contains
    #[arg(long, value_name = "REGEX", help_heading = "Filters", value_hint = ValueHint::Other)]
    pub(crate) http_path: Vec<String>,
    /// HTTP status, or its beginning: 404, 5+, 50+
    #[arg(long, value_name = "STATUS", help_heading = "Filters", value_hint = ValueHint::Other)]
    pub(crate) http_status: Vec<String>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
    /// Colours
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: Color,
    /// Name the node in each line (always done with several servers)
    #[arg(long)]
    pub(crate) print_node_name: bool,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Compact,
    /// One JSON object a line
    Json,
}

/// Whether lines have colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Yes
    Always,
    /// No
    Never,
}

impl ObserveArgs {
    /// The query for the daemons, checked here already so that an error is told at once.
    pub(super) fn query(&self, now: Timestamp) -> anyhow::Result<String> {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        if let Some(since) = &self.since {
            pairs.push(("since", parse_since(since, now)?.to_string()));
        }
        if let Some(last) = self.last {
            pairs.push(("last", last.to_string()));
        }
        if self.follow {
            pairs.push(("follow", "true".to_owned()));
        }
        for (name, values) in self.filters() {
            pairs.extend(values.iter().map(|value| (name, value.clone())));
        }
        let encoded: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let query = encoded.join("&");
        FlowQuery::parse(&query)?;
        Ok(query)
    }

    /// How many flows are printed in all; nothing means every one that the daemons send.
    pub(super) fn limit(&self) -> Option<usize> {
        match (self.follow, &self.since) {
            (false, None) => Some(self.last.unwrap_or(DEFAULT_LAST)),
            _ => None,
        }
    }

    fn filters(&self) -> [(&'static str, &[String]); 17] {
        [
            ("namespace", &self.namespace),
            ("from-namespace", &self.from_namespace),
            ("to-namespace", &self.to_namespace),
            ("pod", &self.pod),
            ("from-pod", &self.from_pod),
            ("to-pod", &self.to_pod),
            ("service", &self.service),
            ("ip", &self.ip),
            ("port", &self.port),
            ("verdict", &self.verdict),
            ("reason", &self.reason),
            ("protocol", &self.protocol),
            ("type", &self.kind),
            ("traffic-direction", &self.traffic_direction),
            ("http-method", &self.http_method),
            ("http-path", &self.http_path),
            ("http-status", &self.http_status),
        ]
    }
}

fn verdicts() -> PossibleValuesParser {
    Verdict::ALL.map(Verdict::name).into()
}

fn reasons() -> PossibleValuesParser {
    PossibleValuesParser::new(Reason::ALL.iter().map(|reason| reason.name()))
}

fn events() -> PossibleValuesParser {
    PossibleValuesParser::new(event_names())
}

/// `5m` (ago), or a time.
fn parse_since(text: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    let Some(unit) = text.chars().last().filter(|unit| "smhd".contains(*unit)) else {
        return text.parse().context("--since takes a duration like 30s, 5m, 2h or 1d, or a time");
    };
    let number: u64 = match text.strip_suffix(unit).map(str::parse) {
        Some(Ok(number)) => number,
        _ => bail!("`{text}` is no value for --since: write a duration like 30s, 5m, 2h or 1d, or a time"),
    };
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        _ => 86_400,
    };
    Ok(now.before(Duration::from_secs(number.saturating_mul(seconds))))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{Cli, Command};

    fn parse(arguments: &[&str]) -> anyhow::Result<String> {
        let all = ["weft", "observe"].iter().chain(arguments);
        let Command::Observe(args) = Cli::try_parse_from(all)?.command else { bail!("another command") };
        args.query(Timestamp(3_600_000_000_000))
    }

    #[test]
    fn flags_become_a_query() {
        assert_eq!(parse(&[]).unwrap(), "");
        assert_eq!(
            parse(&["-f", "-n", "shop", "--verdict", "DROPPED", "--http-path", "^/pay.*&x"]).unwrap(),
            "follow=true&namespace=shop&verdict=DROPPED&http-path=%5E%2Fpay.%2A%26x"
        );
        assert_eq!(parse(&["--since", "5m"]).unwrap(), "since=1970-01-01T00%3A55%3A00Z");
        assert_eq!(parse(&["--verdict", "dropped", "-t", "l7"]).unwrap(), "verdict=dropped&type=l7");
        assert_eq!(parse(&["--last", "3"]).unwrap(), "last=3");
    }

    #[test]
    fn wrong_values_are_told_before_a_daemon_is_asked() {
        for (arguments, text) in [
            (["--verdict", "LOST"], "possible values: FORWARDED, DROPPED"),
            (["--reason", "policy_denyed"], "a similar value exists: 'policy_denied'"),
            (["--type", "closed"], "possible values: http-request"),
            (["--since", "yesterday"], "--since"),
            (["--http-status", "9+"], "write a status like 404"),
            (["--http-path", "("], "the expression of the flow filter `http-path` is not valid"),
            (["--port", "http"], "write a port"),
            (["--traffic-direction", "in"], "possible values: ingress, egress"),
            (["--server", "nonsense"], "is no server"),
        ] {
            let error = format!("{:#}", parse(&arguments).unwrap_err());
            assert!(error.contains(text), "{arguments:?}: {error}");
        }
        assert!(parse(&["--pod", "a", "--from-pod", "b"]).is_err());
    }
}
