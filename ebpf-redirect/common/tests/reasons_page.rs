// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! `docs/reference/reasons.md` is generated from the list of reasons: `UPDATE_GOLDEN=1` writes it again.
#![allow(clippy::unwrap_used, reason = "a test fails where something is missing")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use weft_ebpf_common::Reason;

fn page() -> String {
    let mut page = String::from(
        "<!-- Generated from ebpf-redirect/common/src/reason.rs; do not edit. -->\n\
         # Reasons\n\n\
         Why a packet, a connection or a request was dropped, denied or answered with an error. The name \
         stands in log lines, metrics and `weft observe`; an HTTP client sees the status. Numbers below \
         256 are those of Hubble's drop reasons; the column Hubble says what a Hubble client is told \
         (0: no drop reason).\n\n\
         | name | number | HTTP status | Hubble | meaning |\n\
         |---|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let status = match reason.http_status() {
            0 => "closed".to_owned(),
            status => status.to_string(),
        };
        let (number, hubble) = (*reason as u16, reason.hubble());
        writeln!(page, "| `{reason}` | {number} | {status} | {hubble} | {} |", reason.meaning()).unwrap();
    }
    page
}

#[test]
fn the_reference_page_lists_every_reason() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/reasons.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, page()).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page(), "{} is out of date: run the test with UPDATE_GOLDEN=1", file.display());
}

#[test]
fn names_and_numbers_are_unique() {
    let names: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    let numbers: BTreeSet<u16> = Reason::ALL.iter().map(|reason| *reason as u16).collect();
    assert_eq!((names.len(), numbers.len()), (Reason::ALL.len(), Reason::ALL.len()));
}

#[test]
fn a_reason_is_found_by_its_number() {
    for reason in Reason::ALL {
        assert_eq!(Reason::from_number(*reason as u16), Some(*reason));
        assert!(reason.meaning().ends_with('.'), "{reason} is not explained by a sentence");
    }
    assert_eq!(Reason::from_number(0), None);
}
