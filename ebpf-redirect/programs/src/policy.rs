// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! Identities and verdicts.

use aya_ebpf::maps::lpm_trie::Key;
use weft_ebpf_common::{
    Verdict, identity,
    layout::{ANY_IDENTITY, Address, POLICY_PREFIX, PolicyKey},
};

use crate::maps::{IDENTITIES, POLICY};

/// The identity of an address.
#[inline(never)]
pub(crate) fn identity(address: &Address) -> u32 {
    IDENTITIES.get(Key::new(128, *address)).copied().unwrap_or(identity::UNKNOWN)
}

/// Takes over what an entry says, where that is stronger. Compared by its number and copied whole.
#[inline(always)]
fn add(key: PolicyKey, found: &mut Verdict) {
    if let Some(entry) = POLICY.get(Key::new(POLICY_PREFIX + 16, key))
        && entry.precedence > found.precedence
    {
        *found = *entry;
    }
}

/// The strongest verdict of the entries that match, if it is stronger than what was found before. At one
/// level a denial is, then an allow, then a redirect: where a rule without L7 conditions allows, there is
/// nothing left for the proxy to decide.
#[inline(never)]
pub(crate) fn verdict(key: &PolicyKey, found: &mut Verdict) {
    add(*key, found);
    let mut key = *key;
    let protocol = key.protocol;
    key.protocol = 0;
    add(key, found);
    key.identity = ANY_IDENTITY;
    key.protocol = protocol;
    add(key, found);
    key.protocol = 0;
    add(key, found);
}
