// SPDX-License-Identifier: Apache-2.0
//! Checks that the examples translate and that commands in the documentation exist.
//!
//! Every command of ours in a fenced `sh` block must be one that its program understands, with its
//! flags: the program is called with the same words and `--help` behind them, which parses the line and
//! does nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::outcome::Outcome;
use crate::workspace;

/// Programs of the workspace that documentation may call.
const PROGRAMS: [&str; 5] = ["weft", "weft-node", "weft-controller", "weft-lab", "weft-bench"];

/// Runs both checks. Needs the binaries in `target/debug`.
pub(crate) fn check() -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    for example in folders(&workspace::root().join("examples"))? {
        record(&mut outcome, &format!("weft translate -f {}", example.display()), translates(&example));
    }
    for page in pages()? {
        let text = fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
        for line in shell_lines(&text) {
            let Some(words) = own_command(&line) else { continue };
            record(
                &mut outcome,
                &format!("{}: {line}", page.strip_prefix(workspace::root()).unwrap_or(&page).display()),
                is_understood(&words),
            );
        }
    }
    if outcome.passed + outcome.failed() == 0 {
        bail!("no example and no documented command was found");
    }
    Ok(outcome)
}

fn record(outcome: &mut Outcome, name: &str, result: anyhow::Result<()>) {
    match result {
        Ok(()) => {
            println!("ok      {name}");
            outcome.passed += 1;
        }
        Err(error) => {
            println!("FAILED  {name}: {error:#}");
            outcome.failures.push(name.to_owned());
        }
    }
}

/// `weft translate` ends with success only when every object of the folder was understood.
fn translates(example: &Path) -> anyhow::Result<()> {
    let mut weft = Command::new(workspace::binary("weft", "dev"));
    quietly(weft.arg("translate").arg("-f").arg(example))
}

/// Calls the program with the words and `--help`: a word that it does not know is an error.
fn is_understood(words: &[String]) -> anyhow::Result<()> {
    let [program, arguments @ ..] = words else { bail!("an empty command") };
    let file = match program.as_str() {
        // Our own file may have been replaced since we started: cargo builds it again with the tests.
        "cargo" => workspace::binary("xtask", "dev"),
        name => workspace::binary(name, "dev"),
    };
    let arguments = if program == "cargo" { &arguments[1..] } else { arguments };
    // A bare `--` hands the rest to another program: what stands behind it is that program's own.
    let own: Vec<&String> = arguments.iter().take_while(|word| *word != "--").collect();
    // The demo's and the harness's arguments are passed on; ask the program that parses them.
    let (file, own) = match own.split_first() {
        Some((first, rest)) if program == "cargo" && first.as_str() == "demo" => {
            (workspace::binary("weft-lab", "dev"), [&[*first], rest].concat())
        }
        Some((first, rest)) if program == "cargo" && first.as_str() == "bench" => {
            (workspace::binary("weft-bench", "dev"), rest.to_vec())
        }
        _ => (file, own),
    };
    quietly(Command::new(file).args(own).arg("--help"))
}

fn quietly(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    bail!("{}: {}", output.status, text.lines().next().unwrap_or("no message"))
}

/// README.md and its neighbours, `docs/`, and the README of each example and of the benchmarks.
fn pages() -> anyhow::Result<Vec<PathBuf>> {
    let root = workspace::root();
    let mut pages: Vec<PathBuf> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "benches/README.md"]
        .map(|page| root.join(page))
        .into();
    for example in folders(&root.join("examples"))? {
        pages.push(example.join("README.md"));
    }
    for folder in [root.join("docs"), root.join("docs/adr"), root.join("docs/reference")] {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            pages.push(entry?.path());
        }
    }
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    Ok(pages)
}

fn folders(parent: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(parent).with_context(|| format!("cannot read {}", parent.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// The commands in fenced `sh` blocks: a line that ends in a backslash goes on in the next one.
fn shell_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut inside = false;
    let mut begun = String::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with("```") {
            inside = !inside && matches!(line, "```sh" | "```console" | "```bash");
            continue;
        }
        if !inside || line.starts_with('#') || line.is_empty() {
            continue;
        }
        let line = line.strip_prefix("$ ").unwrap_or(line);
        match line.strip_suffix('\\') {
            Some(part) => begun.push_str(part),
            None => lines.push(format!("{}{line}", std::mem::take(&mut begun))),
        }
    }
    lines
}

/// The words of a command of ours: up to a pipe, redirect, separator or comment, without `sudo`,
/// variables set in front of it, and the folder of the program.
fn own_command(line: &str) -> Option<Vec<String>> {
    let words = line
        .split_whitespace()
        .skip_while(|word| *word == "sudo" || word.contains('=') && !word.starts_with('-'))
        .take_while(|word| !word.starts_with(['|', '>', '&', '#', ';']))
        .map(|word| word.trim_matches(['"', '\'']).to_owned());
    let mut words: Vec<String> = words.collect();
    let first = words.first_mut()?;
    let name = first.rsplit('/').next().unwrap_or(first).to_owned();
    *first = name;
    let xtask = first == "cargo" && words.get(1).is_some_and(|word| word == "xtask");
    (xtask || PROGRAMS.contains(&words[0].as_str())).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_shell_blocks_only() {
        let text = "cargo xtask not-this\n```sh\n# comment\n$ cargo xtask demo \\\n  --keep\nls\n```\n```yaml\nweft x\n```\n";
        assert_eq!(shell_lines(text), ["cargo xtask demo --keep", "ls"]);
    }

    #[test]
    fn a_command_of_ours_is_taken_apart() {
        let words = own_command("sudo RUST_LOG=debug target/debug/weft observe --follow | grep x").unwrap();
        assert_eq!(words, ["weft", "observe", "--follow"]);
        assert_eq!(
            own_command("cargo xtask demo --keep # stays").unwrap(),
            ["cargo", "xtask", "demo", "--keep"]
        );
        assert!(own_command("cargo build").is_none());
        assert!(own_command("curl http://localhost").is_none());
    }
}
