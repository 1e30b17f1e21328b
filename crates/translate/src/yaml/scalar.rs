// SPDX-License-Identifier: Apache-2.0
//! What a scalar means.

use granit_parser::{ScalarStyle, Tag};
use serde_json::{Number, Value};

/// The value of a scalar.
pub(super) fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let plain = matches!(style, ScalarStyle::Plain);
    let tagged = match tag {
        None if plain => return Ok(of_plain(text)),
        None => return Ok(Value::String(text.to_owned())),
        Some(tag) => core_tag(tag)?,
    };
    let value = of_plain(text);
    let fits = match tagged {
        "str" => return Ok(Value::String(text.to_owned())),
        "null" => value.is_null(),
        "bool" => value.is_boolean(),
        "int" => value.is_i64(),
        "float" => value.is_number(),
        _ => false,
    };
    if fits { Ok(value) } else { Err(format!("the value does not have the type `{tagged}` of its tag")) }
}

/// The name of a tag of the core schema (YAML 1.2.2, section 10.3.1).
pub(super) fn core_tag(tag: &Tag) -> Result<&str, String> {
    tag.core_suffix().ok_or_else(|| format!("the tag `{}` is not supported", tag.original()))
}

/// The core schema of YAML 1.2 (section 10.3.2).
fn of_plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let numeric = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    let leading_zero = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    if numeric && !leading_zero {
        if let Ok(number) = text.parse::<i64>() {
            return Value::Number(number.into());
        }
        if let Some(number) = text.parse::<f64>().ok().and_then(Number::from_f64) {
            return Value::Number(number);
        }
    }
    Value::String(text.to_owned())
}
