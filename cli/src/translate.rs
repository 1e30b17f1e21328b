// SPDX-License-Identifier: Apache-2.0
//! `weft translate`: what the controller would make of manifests, without a controller.

use std::{io::Write, path::PathBuf, process::ExitCode};

use weft_manifests::Manifests;
use weft_translate::{Preview, PreviewFormat, Problem, Translator};

/// Print the state and the statuses that manifests lead to.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A manifest, or a directory of which every .yaml and .yml file is read.
    #[arg(short, long = "file", value_name = "DIR|FILE", required = true)]
    file: Vec<PathBuf>,

    /// How to print: text (statuses and problems only), yaml or json.
    #[arg(short, long, value_name = "FORMAT", default_value_t)]
    output: PreviewFormat,
}

/// Reads, translates and prints. The exit code is 1 when something could not be read or was rejected: what
/// it says is then not what is printed. The problems of yaml and json go to standard error as well.
///
/// # Errors
/// When the output cannot be written.
pub fn run(args: Args, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let scan = Manifests::new(args.file).scan();
    let unread = scan
        .faults
        .iter()
        .map(|fault| Problem::unread(&fault.path.display().to_string(), fault.line, &fault.reason));
    let texts = scan.changed.iter().map(|(name, text)| (&**name, &**text));
    let preview = Preview::new(&Translator::default(), texts, unread.collect());
    out.write_all(preview.print(args.output)?.as_bytes())?;
    if args.output != PreviewFormat::Text {
        for problem in preview.problems() {
            eprintln!("{problem}");
        }
    }
    Ok(match preview.rejected() {
        0 => ExitCode::SUCCESS,
        rejected => {
            eprintln!("weft: {rejected} rejected");
            ExitCode::FAILURE
        }
    })
}
