// SPDX-License-Identifier: Apache-2.0
//! `weft`. Ctrl-C ends it at once, as it ends `tail -f`: it holds nothing that must be put in order.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match weft_cli::run(weft_cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weft: {error:#}");
            ExitCode::FAILURE
        }
    }
}
