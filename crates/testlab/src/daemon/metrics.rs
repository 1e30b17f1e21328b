// SPDX-License-Identifier: Apache-2.0
//! Reading the text form of metrics.

/// Client connections that a proxy accepted.
pub const PROXY_CONNECTIONS: &str = "weft_node_connections_opened_total";
/// Connections to a service that the kernel sent straight to a backend.
pub(crate) const SERVICE_DIRECT: &str = "weft_ebpf_service_translated_total";
/// Connections to a service that the kernel handed to the proxy.
pub(crate) const SERVICE_REDIRECTED: &str = "weft_ebpf_service_redirected_total";

/// The samples that a daemon showed at one moment.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

impl Metrics {
    /// Reads the samples; comments are left out.
    pub fn parse(text: &str) -> Self {
        Self { samples: text.lines().filter_map(sample).collect() }
    }

    /// The sum of the samples of `name` that have all `labels`; nothing when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let mut found = self
            .samples
            .iter()
            .filter(|sample| sample.name == name && wanted.iter().all(|label| sample.labels.contains(label)))
            .map(|sample| sample.value)
            .peekable();
        found.peek()?;
        Some(found.sum())
    }

    /// Whether there is a sample of `name`, whatever its labels.
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|sample| sample.name == name)
    }

    /// The names that are there.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.samples.iter().map(|sample| &*sample.name).collect();
        names.dedup();
        names
    }
}

fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (name, labels, rest) = match line.split_once('{') {
        Some((name, rest)) => {
            let (labels, rest) = rest.rsplit_once('}')?;
            (name, labels, rest)
        }
        None => {
            let (name, rest) = line.split_once(' ')?;
            (name, "", rest)
        }
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels: labels.to_owned(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_the_labels_that_are_not_asked_for() {
        let text = "# HELP a b\na_total{x=\"1\",y=\"p\"} 2\na_total{x=\"2\",y=\"p\"} 3\nb 4.5\n# EOF\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("a_total", &[]), Some(5.0));
        assert_eq!(metrics.sum("a_total", &[("x", "2"), ("y", "p")]), Some(3.0));
        assert_eq!(metrics.sum("b", &[]), Some(4.5));
        assert_eq!(metrics.sum("a_total", &[("x", "3")]), None);
    }
}
