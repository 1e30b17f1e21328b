// SPDX-License-Identifier: Apache-2.0
//! Which object a value is.

use std::sync::Arc;

use serde_json::Value;
use weft_api::{
    object::{Kind, ObjectKey},
    recognize::is_near,
};
use weft_ir::{is_label, is_subdomain};

/// How much of a name that is none is shown.
pub(crate) const MAX_SHOWN: usize = 64;

/// Kind, namespace and name of an object. The error says what is wrong with them, so that nobody can tell
/// which object it is.
pub(crate) fn key(kind: Kind, value: &Value) -> Result<ObjectKey, String> {
    let text = |field: &str| match value.get("metadata").and_then(|metadata| metadata.get(field)) {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{}: metadata.{field} must be a text: write it in quotes", kind.name())),
    };
    let name = text("name")?.ok_or_else(|| format!("{}: metadata.name is required", kind.name()))?;
    let has_label = matches!(kind, Kind::Namespace | Kind::Service);
    let (is_name, longest) = if has_label { (is_label(name), 63) } else { (is_subdomain(name), 253) };
    if !is_name {
        return Err(wrong(kind, "name", name, longest));
    }
    if kind.namespaced()
        && let Some(field) = meant_namespace(value)
    {
        let kind = kind.name();
        return Err(format!(
            "{kind}: {field} is not known, and may be meant to say the namespace: write metadata.namespace"
        ));
    }
    let namespace: Arc<str> = match (kind.namespaced(), text("namespace")?) {
        (false, _) => "".into(),
        (true, None) => "default".into(),
        (true, Some(namespace)) if is_label(namespace) => namespace.as_str().into(),
        (true, Some(namespace)) => return Err(wrong(kind, "namespace", namespace, 63)),
    };
    Ok(ObjectKey { kind, namespace, name: name.as_str().into() })
}

/// A field that may have been meant to say the namespace: one of `metadata` with nearly its name, or, where
/// `metadata` has none, one beside it.
fn meant_namespace(value: &Value) -> Option<String> {
    let is_meant = |name: &str| is_near(name, "namespace") || name.eq_ignore_ascii_case("ns");
    let first = |of: Option<&Value>, path: &str, known: &str| {
        let mut names = of?.as_object()?.keys();
        names.find(|name| *name != known && is_meant(name)).map(|name| format!("{path}{name}"))
    };
    let slip = first(value.get("metadata"), "metadata.", "namespace");
    if slip.is_some() || value.pointer("/metadata/namespace").is_some() {
        return slip;
    }
    first(Some(value), "", "").or_else(|| first(value.get("spec"), "spec.", ""))
}

fn wrong(kind: Kind, field: &str, text: &str, longest: usize) -> String {
    let shown: String = text.chars().take(MAX_SHOWN).collect();
    let dots = if longest > 63 { ", `.`" } else { "" };
    format!(
        "{}: metadata.{field} `{}` is no name: it may have lower-case letters, digits{dots} and `-` inside, and \
         at most {longest} characters",
        kind.name(),
        shown.escape_debug(),
    )
}
