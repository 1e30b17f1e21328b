// SPDX-License-Identifier: Apache-2.0
//! Moves inputs between libFuzzer's folders (`corpus/TARGET/`) and the files that are kept (`kept/TARGET.txt`).

use std::{collections::BTreeSet, fs, io, path::Path, process::ExitCode};

const TARGETS: [&str; 6] = ["h1_server", "h1_client", "h1_proxy", "h2_server", "h2_client", "hpack"];

fn pack(root: &Path, target: &str) -> io::Result<usize> {
    let mut inputs = BTreeSet::new();
    for entry in fs::read_dir(root.join("corpus").join(target))? {
        inputs.insert(weft_http_fuzz::kept::line(&fs::read(entry?.path())?));
    }
    let lines: String = inputs.iter().map(|line| format!("{line}\n")).collect();
    fs::write(root.join("kept").join(format!("{target}.txt")), lines)?;
    Ok(inputs.len())
}

fn unpack(root: &Path, target: &str) -> io::Result<usize> {
    let lines = fs::read_to_string(root.join("kept").join(format!("{target}.txt")))?;
    let folder = root.join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    for (number, line) in lines.lines().enumerate() {
        fs::write(folder.join(format!("kept-{number}")), weft_http_fuzz::kept::input(line))?;
    }
    Ok(lines.lines().count())
}

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let step = match std::env::args().nth(1).as_deref() {
        Some("pack") => pack,
        Some("unpack") => unpack,
        _ => {
            eprintln!("usage: corpus pack|unpack");
            return ExitCode::from(2);
        }
    };
    for target in TARGETS {
        match step(root, target) {
            Ok(inputs) => println!("{target}: {inputs} inputs"),
            Err(error) => {
                eprintln!("corpus: {target}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
