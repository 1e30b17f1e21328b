// SPDX-License-Identifier: Apache-2.0
//! `weft translate`: what the controller would make of manifests, without a controller.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;
use clap::{
    ValueHint,
    builder::{PossibleValuesParser, TypedValueParser},
};
use weft_manifests::{MAX_FILE_BYTES, Manifests};
use weft_translate::{Preview, PreviewFormat, Problem, Translator};

/// Print the state and the statuses that manifests lead to.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// A manifest, `-` for standard input, or a directory of which every .yaml and .yml file is read;
    /// repeat it for several.
    #[arg(short, long = "file", value_name = "DIR|FILE", required = true, value_hint = ValueHint::AnyPath)]
    file: Vec<PathBuf>,

    /// How to print: text (statuses and problems only), yaml or json.
    #[arg(short, long, value_name = "FORMAT", default_value_t, value_parser = formats())]
    output: PreviewFormat,
}

/// What the exit codes mean.
const EXIT_CODES: &str = "\
Exit codes:
  0  everything would be served as it is written (fields that are named as without effect count as served)
  1  something is refused, in whole or in part, names what is not there, or cannot be read
  2  nothing was translated: the command line is wrong, there is no manifest, or the output cannot be written";

/// The exit code where nothing was translated, as clap has it for a wrong command line.
const NOTHING_DONE: u8 = 2;

fn formats() -> impl TypedValueParser<Value = PreviewFormat> {
    PossibleValuesParser::new(["text", "yaml", "json"]).try_map(|text| text.parse::<PreviewFormat>())
}

/// Reads, translates and prints, and says by the exit code what came of it ([`EXIT_CODES`]). The problems of
/// yaml and json go to standard error as well.
///
/// # Errors
/// When the reader of the output went away.
pub(crate) fn run(args: Args, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match translate(args, out) {
        Err(error) if !crate::is_closed_pipe(&error) => {
            eprintln!("weft: {error:#}");
            Ok(ExitCode::from(NOTHING_DONE))
        }
        done => done,
    }
}

fn translate(args: Args, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let (streams, roots): (Vec<PathBuf>, Vec<PathBuf>) =
        args.file.into_iter().partition(|path| is_stream(path));
    let mut scan = Manifests::new(roots).scan();
    let mut unread: Vec<Problem> = scan
        .faults
        .iter()
        .map(|fault| Problem::unread(&fault.path.display().to_string(), fault.line, &fault.reason))
        .collect();
    for stream in streams {
        let name = stream.display().to_string();
        match read_stream(&stream) {
            Ok(text) => scan.changed.push((name, text)),
            Err(error) => unread.push(Problem::unread(&name, 0, &format!("cannot be read: {error}"))),
        }
    }
    if scan.changed.is_empty() && unread.is_empty() {
        bail!("no .yaml or .yml file is there to translate");
    }
    let texts = scan.changed.iter().map(|(name, text)| (&**name, &**text));
    let preview = Preview::new(&Translator::default(), texts, unread);
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

/// Whether a path is read once, to its end: standard input, a pipe (as of `<(...)`) or a device.
fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-" || path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir())
}

fn read_stream(path: &Path) -> io::Result<String> {
    let source: Box<dyn Read> =
        if path.as_os_str() == "-" { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
    let mut text = String::new();
    source.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it is larger than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    Ok(text)
}
