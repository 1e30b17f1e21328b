// SPDX-License-Identifier: Apache-2.0
//! `weft translate`: what the controller would make of manifests, without a controller.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde::Serialize;
use weft_translate::{Identities, ObjectStatus, Store, Translator};

/// Print the state and the statuses that manifests lead to.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A manifest, or a directory of which every .yaml and .yml file is read.
    #[arg(short, long = "file", value_name = "DIR|FILE", required = true)]
    file: Vec<PathBuf>,

    /// How to print.
    #[arg(short, long, value_enum, default_value_t = Format::Yaml)]
    output: Format,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

#[derive(Serialize)]
struct Printed {
    resources: Vec<PrintedResource>,
    statuses: Vec<ObjectStatus>,
}

#[derive(Serialize)]
struct PrintedResource {
    key: String,
    resource: weft_translate::Resource,
}

/// Reads, translates and prints. Problems go to standard error.
///
/// # Errors
/// When a file cannot be read, or has a problem: what it says is then not what is printed.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what the command is for")]
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut files = BTreeSet::new();
    for path in &args.file {
        collect(path, true, &mut files)?;
    }
    let mut store = Store::default();
    for path in &files {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        store.apply(&path.display().to_string(), &text);
    }
    let translation = Translator::default().translate(&store, &mut Identities::default(), 0);
    let printed = Printed {
        resources: translation
            .resources
            .into_iter()
            .map(|(key, resource)| PrintedResource { key: key.to_string(), resource })
            .collect(),
        statuses: translation.statuses,
    };
    match args.output {
        Format::Yaml => print!("{}", weft_translate::to_yaml(&printed).context("cannot print")?),
        Format::Json => println!("{}", serde_json::to_string_pretty(&printed)?),
    }
    for problem in &translation.problems {
        eprintln!("{problem}");
    }
    if !translation.problems.is_empty() {
        bail!("{} problems", translation.problems.len());
    }
    Ok(())
}

/// Collects manifests; a file that is named is read whatever its name.
fn collect(path: &Path, named: bool, files: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    let context = || format!("cannot read {}", path.display());
    if !fs::metadata(path).with_context(context)?.is_dir() {
        let manifest = path.extension().is_some_and(|end| end == "yaml" || end == "yml");
        if named || manifest {
            files.insert(path.to_owned());
        }
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(context)? {
        let entry = entry.with_context(context)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            collect(&entry.path(), false, files)?;
        }
    }
    Ok(())
}
