// SPDX-License-Identifier: Apache-2.0
//! Where log lines go, and in which form.

use std::{fmt, io::IsTerminal, str::FromStr};

use thiserror::Error;
use tracing_subscriber::{EnvFilter, filter::ParseError, fmt as lines, prelude::*, util::TryInitError};

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; with colours on a terminal.
    #[default]
    Text,
    /// One JSON object a line, its fields at the top.
    Json,
}

/// Why logging could not begin.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is not understood.
    #[error("`{filter}` is no log filter: write a level, or target=level pairs like `info,weft_ir=debug`")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// The format is not known.
    #[error("`{0}` is no log format: write text or json")]
    Format(String),
    /// Logging had begun before.
    #[error("logging was set up twice")]
    Again(#[from] TryInitError),
}

/// Sends log lines to standard error from now on. `filter` is a level (`info`) or target=level pairs.
///
/// # Errors
/// When the filter is not understood, or logging had begun before.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let parsed = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    let registry = tracing_subscriber::registry().with(parsed);
    let layer = lines::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => registry.with(layer).try_init()?,
        LogFormat::Json => {
            registry
                .with(layer.json().flatten_event(true).with_ansi(false).with_current_span(false))
                .try_init()?;
        }
    }
    Ok(())
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

impl FromStr for LogFormat {
    type Err = TelemetryError;

    fn from_str(text: &str) -> Result<LogFormat, TelemetryError> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(TelemetryError::Format(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_filter_or_format_is_named() {
        let error = init(LogFormat::Text, "weft=loud").unwrap_err();
        assert!(error.to_string().starts_with("`weft=loud` is no log filter"));
        assert_eq!(
            "xml".parse::<LogFormat>().unwrap_err().to_string(),
            "`xml` is no log format: write text or json"
        );
    }
}
