// SPDX-License-Identifier: Apache-2.0
//! The committed code of the wire format is what the schema generates.
//!
//! `UPDATE_GOLDEN=1 cargo test -p weft-ir --test generated` writes it again.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{env, fs, path::Path};

#[test]
fn the_generated_code_matches_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join("src/wire/generated.rs");
    let out = env::temp_dir().join(format!("weft-ir-generated-{}", std::process::id()));
    fs::create_dir_all(&out).unwrap();
    let descriptors = protox::compile(["weft/ir/v1/ir.proto"], [root.join("proto")]).unwrap();
    prost_build::Config::new().bytes(["."]).btree_map(["."]).out_dir(&out).compile_fds(descriptors).unwrap();
    let generated = fs::read_to_string(out.join("weft.ir.v1.rs")).unwrap();
    fs::remove_dir_all(&out).unwrap();
    let expected = format!("// SPDX-License-Identifier: Apache-2.0\n{generated}");
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&committed, &expected).unwrap();
    }
    let found = fs::read_to_string(&committed).unwrap_or_default();
    assert!(found == expected, "{} is out of date: run with UPDATE_GOLDEN=1", committed.display());
}
