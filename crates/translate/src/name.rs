// SPDX-License-Identifier: Apache-2.0
//! Which object a value is.

use std::sync::Arc;

use serde_json::Value;
use weft_api::object::{Kind, ObjectKey};
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
    let namespace: Arc<str> = match (kind.namespaced(), text("namespace")?) {
        (false, _) => "".into(),
        (true, None) => "default".into(),
        (true, Some(namespace)) if is_label(namespace) => namespace.as_str().into(),
        (true, Some(namespace)) => return Err(wrong(kind, "namespace", namespace, 63)),
    };
    Ok(ObjectKey { kind, namespace, name: name.as_str().into() })
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
