// SPDX-License-Identifier: Apache-2.0
//! Label selectors, matched against labels.

use std::{collections::BTreeMap, sync::Arc};

use weft_api::policy::{LabelSelector, SelectorOperator};
use weft_ir::is_label_value;

/// How much of a text that is wrong is shown, in characters.
const MAX_SHOWN: usize = 64;

/// Whether labels satisfy a selector; an empty one matches everything.
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<Arc<str>, Arc<str>>) -> bool {
    let exact = selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
    exact
        && selector.match_expressions.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match requirement.operator {
                SelectorOperator::In => value.is_some_and(|value| requirement.values.contains(value)),
                SelectorOperator::NotIn => value.is_none_or(|value| !requirement.values.contains(value)),
                SelectorOperator::Exists => value.is_some(),
                SelectorOperator::DoesNotExist => value.is_none(),
            }
        })
}

/// What is wrong with a selector: `In` and `NotIn` need values, the others have none; no label has a value that
/// is none, so that nothing would be selected by it. `is_key` tells what may be a key.
pub fn check(selector: &LabelSelector, is_key: impl Fn(&str) -> bool) -> Result<(), String> {
    let shown = |text: &str| text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect::<String>();
    let of_expressions = || selector.match_expressions.iter();
    let mut keys = selector.match_labels.keys().chain(of_expressions().map(|requirement| &requirement.key));
    if let Some(bad) = keys.find(|key| !is_key(key)) {
        return Err(format!("`{}` is no key of a label", shown(bad)));
    }
    let of_expressions = of_expressions().flat_map(|requirement| &requirement.values);
    if let Some(bad) =
        selector.match_labels.values().chain(of_expressions).find(|value| !is_label_value(value))
    {
        return Err(format!("`{}` is no value of a label", shown(bad)));
    }
    for (index, requirement) in selector.match_expressions.iter().enumerate() {
        let needs_values = matches!(requirement.operator, SelectorOperator::In | SelectorOperator::NotIn);
        if needs_values == requirement.values.is_empty() {
            let rule = if needs_values { "needs values" } else { "has no values" };
            return Err(format!("matchExpressions[{index}]: {:?} {rule}", requirement.operator));
        }
    }
    Ok(())
}
