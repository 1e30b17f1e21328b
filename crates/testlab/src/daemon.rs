// SPDX-License-Identifier: Apache-2.0
//! The daemons under test, as processes of a lab.
