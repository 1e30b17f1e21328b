// SPDX-License-Identifier: Apache-2.0
//! The tests of the redirect once more, with programs attached as on kernels before 6.6. Needs root.

#[path = "redirect.rs"]
mod redirect;
