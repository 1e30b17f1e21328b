// SPDX-License-Identifier: Apache-2.0
//! What manifests would become, printed: behind `weft translate` and `weft-controller --dry-run`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde::Serialize;
use weft_api::object::ObjectKey;
use weft_ir::{Resource, ResourceKey};

use crate::{
    Identities, ObjectStatus, Problem, Severity, Store, Translation, Translator, plain::Plain, report,
};

/// How a preview is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PreviewFormat {
    /// A line for each status and problem, and how many resources there are of each kind.
    Text,
    /// Everything, as YAML.
    #[default]
    Yaml,
    /// Everything, as JSON.
    Json,
}

/// A text that names no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no output format: write text, yaml or json")]
pub struct UnknownFormat(String);

/// Why a preview cannot be printed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// Not as YAML.
    #[error("cannot print it as YAML")]
    Yaml(#[from] serde_saphyr::SerializeError),
    /// Not as JSON.
    #[error("cannot print it as JSON")]
    Json(#[from] serde_json::Error),
}

/// What nodes would be served, what the statuses would say, and what is rejected.
#[derive(Clone, Debug, Serialize)]
pub struct Preview {
    resources: Vec<Keyed>,
    statuses: Vec<ObjectStatus>,
    problems: Vec<Problem>,
    /// How many objects are none of Weft's business, by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    foreign: BTreeMap<String, usize>,
}

#[derive(Clone, Debug, Serialize)]
struct Keyed {
    key: ResourceKey,
    resource: Resource,
}

impl Preview {
    /// Translates once. Identities have the numbers of a new mesh; `unread` is what could not be read.
    pub fn new<'a>(
        translator: &Translator,
        texts: impl IntoIterator<Item = (&'a str, &'a str)>,
        unread: Vec<Problem>,
    ) -> Preview {
        let mut store = Store::default();
        store.apply_all(texts, []);
        let mut translation = Translation::new(translator.clone(), Identities::default());
        let delta = translation.update(&mut store, 0);
        let mut problems = unread;
        problems.extend(delta.problems.into_iter().flatten());
        problems.sort();
        let resources: BTreeMap<ResourceKey, Resource> =
            delta.change.upserts.into_iter().map(|resource| (resource.key(), resource)).collect();
        let resources = resources.into_iter().map(|(key, resource)| Keyed { key, resource }).collect();
        let foreign = store.foreign().into_iter();
        let foreign = foreign.map(|((api_version, kind), count)| (format!("{kind} of {api_version}"), count));
        Preview {
            resources,
            statuses: translation.statuses().collect(),
            problems,
            foreign: foreign.collect(),
        }
    }

    /// What is wrong, in the order of the files.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many objects are not served as they are written, and how many other problems there are; an object
    /// counts once, and one of which a field is only named as without effect does not count.
    pub fn rejected(&self) -> usize {
        let problems = self.problems.iter().filter(|problem| problem.severity > Severity::Note);
        let (of_objects, others): (Vec<_>, Vec<_>) = problems.partition(|problem| problem.object.is_some());
        let of_statuses = self.statuses.iter().filter(|one| report::is_rejected(&one.status));
        let objects: BTreeSet<&ObjectKey> = of_objects
            .into_iter()
            .filter_map(|problem| problem.object.as_ref())
            .chain(of_statuses.map(|one| &one.object))
            .collect();
        objects.len() + others.len()
    }

    /// The whole as text that ends with a line break.
    ///
    /// # Errors
    /// When a value cannot be said in the format.
    pub fn print(&self, format: PreviewFormat) -> Result<String, PrintError> {
        match format {
            PreviewFormat::Text => Ok(self.text()),
            PreviewFormat::Yaml => Ok(crate::to_yaml(self)?),
            PreviewFormat::Json => Ok(serde_json::to_string_pretty(self)? + "\n"),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for status in &self.statuses {
            text.push_str(&report::line(&status.object, &status.status));
            text.push('\n');
        }
        for problem in &self.problems {
            text.push_str(&format!("{problem}\n"));
        }
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        for one in &self.resources {
            *kinds.entry(one.key.resource_kind()).or_default() += 1;
        }
        let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        text.push_str(&format!("{} resources: {}\n", self.resources.len(), kinds.join(", ")));
        if !self.foreign.is_empty() {
            let foreign = self.foreign.iter().map(|(kind, count)| format!("{count} {}", Plain(kind)));
            text.push_str(&format!("left out: {}\n", foreign.collect::<Vec<_>>().join(", ")));
        }
        text
    }
}

impl FromStr for PreviewFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<PreviewFormat, UnknownFormat> {
        match text {
            "text" => Ok(PreviewFormat::Text),
            "yaml" => Ok(PreviewFormat::Yaml),
            "json" => Ok(PreviewFormat::Json),
            other => Err(UnknownFormat(other.to_owned())),
        }
    }
}

impl fmt::Display for PreviewFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PreviewFormat::Text => "text",
            PreviewFormat::Yaml => "yaml",
            PreviewFormat::Json => "json",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str =
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:\n  - port: 80\n";
    const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n\
                         spec: {parentRefs: [{name: none}]}\n";

    fn preview(texts: &[(&str, &str)]) -> Preview {
        Preview::new(&Translator::default(), texts.iter().copied(), Vec::new())
    }

    #[test]
    fn what_is_good_has_no_rejection_and_every_format_names_it() {
        let preview = preview(&[("a.yaml", SERVICE)]);
        assert_eq!(preview.rejected(), 0);
        assert_eq!(preview.print(PreviewFormat::Text).unwrap(), "2 resources: 1 meshdefaults, 1 service\n");
        for format in ["yaml", "json"] {
            let text = preview.print(format.parse().unwrap()).unwrap();
            assert!(text.contains("service/default/a"), "{text}");
        }
        assert!("xml".parse::<PreviewFormat>().is_err());
    }

    #[test]
    fn a_rejected_object_is_named_with_file_line_and_reason_and_counts_once() {
        let preview = preview(&[("a.yaml", &SERVICE.replace("80", "eighty"))]);
        assert_eq!(preview.rejected(), 1);
        let text = preview.print(PreviewFormat::Text).unwrap();
        assert!(text.starts_with("a.yaml:6: Service default/a: spec.ports[0].port: "), "{text}");
        let json: serde_json::Value =
            serde_json::from_str(&preview.print(PreviewFormat::Json).unwrap()).unwrap();
        assert_eq!(
            (&json["problems"][0]["line"], &json["problems"][0]["object"]),
            (&6.into(), &"Service default/a".into())
        );
    }

    #[test]
    fn a_note_is_printed_and_rejects_nothing() {
        let affinity = SERVICE.replace("spec:\n", "spec:\n  sessionAffinity: ClientIP\n");
        let preview = preview(&[("a.yaml", &affinity)]);
        assert_eq!(preview.rejected(), 0);
        let text = preview.print(PreviewFormat::Text).unwrap();
        let note = "a.yaml:5: Service default/a: has no effect: spec.sessionAffinity (ClientIP)\n";
        assert!(text.starts_with(note), "{text}");
    }

    #[test]
    fn what_is_left_out_is_counted_and_what_is_not_enforced_is_rejected() {
        let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n";
        let ingress =
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web, namespace: shop}\n";
        let preview = preview(&[("a.yaml", &format!("{deployment}---\n{deployment}---\n{ingress}"))]);
        assert_eq!(preview.rejected(), 1);
        let expected = "a.yaml:9: Ingress shop/web of networking.k8s.io/v1 is not supported: nothing of it takes \
                        effect\n1 resources: 1 meshdefaults\nleft out: 2 Deployment of apps/v1\n";
        assert_eq!(preview.print(PreviewFormat::Text).unwrap(), expected);
    }

    #[test]
    fn no_text_of_a_user_ends_a_line_or_speaks_to_the_terminal() {
        let odd = |group: &str| {
            format!("apiVersion: {group}\nkind: \"A\\x1b[31m\\nB\"\nmetadata: {{name: \"n\\nm\"}}\n")
        };
        let text = format!("{}---\n{}---\n{ROUTE}", odd("x.test/v1"), odd("networking.k8s.io/v1"));
        let text = text.replace("name: none", "name: \"g\\ng\"");
        let printed = preview(&[("a\n.yaml", &text)]).print(PreviewFormat::Text).unwrap();
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines.len(), 4, "two problems, the resources, what is left out: {printed}");
        assert!(
            !printed.contains('\u{1b}') && lines.iter().take(2).all(|line| line.starts_with("a\\n.yaml:"))
        );
    }

    #[test]
    fn a_route_that_no_gateway_takes_is_rejected() {
        let preview = preview(&[("r.yaml", ROUTE)]);
        assert_eq!(preview.rejected(), 1, "{preview:?}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_problem_without_a_line() {
        let unread = Problem::unread("b.yaml", 0, "is larger than 16 MiB");
        let preview = Preview::new(&Translator::default(), [("a.yaml", SERVICE)], vec![unread]);
        assert_eq!(preview.rejected(), 1);
        assert!(preview.print(PreviewFormat::Text).unwrap().starts_with("b.yaml: is larger"));
    }
}
