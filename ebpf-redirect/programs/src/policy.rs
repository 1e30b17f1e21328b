// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Identities and verdicts.

use aya_ebpf::maps::lpm_trie::Key;
use weft_ebpf_common::{
    identity,
    layout::{ANY_IDENTITY, Address, POLICY_PREFIX, PolicyKey, VERDICT_NONE},
};

use crate::maps::{IDENTITIES, POLICY};

/// The identity of an address.
#[inline(never)]
pub(crate) fn identity(address: &Address) -> u32 {
    IDENTITIES.get(Key::new(128, *address)).copied().unwrap_or(identity::UNKNOWN)
}

#[inline(always)]
fn entry(key: PolicyKey) -> u32 {
    POLICY.get(Key::new(POLICY_PREFIX + 16, key)).copied().unwrap_or(VERDICT_NONE)
}

/// The strongest verdict of the entries that match: deny, then allow, then
/// redirect: where a rule without L7 conditions allows, there is nothing left for the proxy to decide.
#[inline(never)]
pub(crate) fn verdict(key: &PolicyKey) -> u32 {
    let mut strongest = entry(*key);
    let mut key = *key;
    let protocol = key.protocol;
    key.protocol = 0;
    strongest = max(strongest, entry(key));
    key.identity = ANY_IDENTITY;
    strongest = max(strongest, entry(key));
    key.protocol = protocol;
    max(strongest, entry(key))
}

#[inline(always)]
fn max(one: u32, other: u32) -> u32 {
    if one > other { one } else { other }
}
