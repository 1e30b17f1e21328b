// SPDX-License-Identifier: Apache-2.0
//! Label selectors, matched against labels.

use std::{collections::BTreeMap, sync::Arc};

use weft_api::policy::{LabelSelector, SelectorOperator};

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

/// What is wrong with a selector: `In` and `NotIn` need values, the others have none.
pub fn check(selector: &LabelSelector) -> Result<(), String> {
    for (index, requirement) in selector.match_expressions.iter().enumerate() {
        let needs_values = matches!(requirement.operator, SelectorOperator::In | SelectorOperator::NotIn);
        if needs_values == requirement.values.is_empty() {
            let rule = if needs_values { "needs values" } else { "has no values" };
            return Err(format!("matchExpressions[{index}]: {:?} {rule}", requirement.operator));
        }
        if requirement.key.is_empty() {
            return Err(format!("matchExpressions[{index}]: the key is empty"));
        }
    }
    Ok(())
}
