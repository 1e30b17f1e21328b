// SPDX-License-Identifier: Apache-2.0
//! `weft observe`: flows of one or several nodes, merged by time.

mod args;
mod merge;
mod source;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::bail;
use weft_flow_export::{
    Flow,
    print::{Compact, json_line},
};
use weft_time::Timestamp;

pub(crate) use args::{Color, ObserveArgs, Output};
use merge::Merge;
use source::{News, Sources};

/// Prints the flows that the arguments ask for.
///
/// # Errors
/// When the arguments contradict each other, no daemon answers, or the output cannot be written.
pub(crate) async fn run(args: &ObserveArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let now = Timestamp::from(std::time::SystemTime::now());
    let query = args.query(now)?;
    let printer = Printer::new(args);
    let mut sources = Sources::open(&args.servers.servers, &query, args.follow);
    let mut merge = Merge::new(args.follow, args.servers.servers.len());
    let mut failed = 0;
    loop {
        let news = tokio::select! {
            news = sources.next() => news,
            () = merge.due() => {
                write_all(&printer, &mut merge, out)?;
                continue;
            }
        };
        match news {
            Some(News::Flow(flow)) => merge.push(*flow),
            Some(News::Lost(count)) => {
                eprintln!("weft: {count} flows were lost, because they came faster than they were read");
            }
            Some(News::Trouble(text)) => eprintln!("weft: {text}"),
            Some(News::Failed(error)) => {
                failed += 1;
                eprintln!("weft: {error:#}");
            }
            None => break,
        }
        if sources.is_quiet() {
            write_all(&printer, &mut merge, out)?;
        }
    }
    merge.finish(args.limit());
    write_all(&printer, &mut merge, out)?;
    if failed == args.servers.servers.len() {
        bail!("no daemon answered");
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write_all(printer: &Printer, merge: &mut Merge, out: &mut impl Write) -> io::Result<()> {
    let mut text = String::new();
    while let Some(flow) = merge.pop() {
        text += &printer.line(&flow)?;
        text.push('\n');
    }
    if text.is_empty() {
        return Ok(());
    }
    out.write_all(text.as_bytes())?;
    out.flush()
}

struct Printer {
    output: Output,
    compact: Compact,
}

impl Printer {
    fn new(args: &ObserveArgs) -> Printer {
        let color = match args.color {
            Color::Always => true,
            Color::Never => false,
            // https://no-color.org: any value that is not empty turns colours off.
            Color::Auto => {
                io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        };
        let node = args.print_node_name || args.servers.servers.len() > 1;
        Printer { output: args.output, compact: Compact { color, node } }
    }

    fn line(&self, flow: &Flow) -> io::Result<String> {
        match self.output {
            Output::Compact => Ok(self.compact.line(flow)),
            Output::Json => Ok(json_line(flow)?),
        }
    }
}
