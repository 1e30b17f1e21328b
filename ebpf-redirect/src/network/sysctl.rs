// SPDX-License-Identifier: Apache-2.0
//! The sysctls that the redirect depends on.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{NetworkError, file};
use crate::config::DEVICE;

/// Sysctls of the namespace that must have a value: early demultiplexing would find the proxy's
/// transparent sockets for packets that are only forwarded, which the stack then drops.
const SYSCTLS: [(&str, &str); 1] = [("net/ipv4/ip_early_demux", "0")];

/// Settings of our own device, which takes packets from local addresses by ways that lead elsewhere.
const OF_DEVICE: [(&str, &str); 2] = [("accept_local", "1"), ("rp_filter", "2")];

/// What is written, or stands for what is: `conf` of our device is below the second once it is made.
pub(crate) const WRITTEN: [&str; 2] = ["net/ipv4/ip_early_demux", "net/ipv4/conf/lo/rp_filter"];

fn saved(state_dir: &Path) -> PathBuf {
    state_dir.join("sysctls.json")
}

/// Sets them, and keeps the values that the first run found.
pub(super) fn set(state_dir: &Path) -> Result<(), NetworkError> {
    let kept = saved(state_dir);
    let mut before = BTreeMap::new();
    for (name, value) in SYSCTLS {
        let path = Path::new("/proc/sys").join(name);
        let old = fs::read_to_string(&path).map_err(file(&path))?;
        before.insert(name, old.trim().to_owned());
        if old.trim() != value {
            fs::write(&path, value).map_err(file(&path))?;
        }
    }
    // The first run saw what others had set; later ones see our own values.
    if !kept.exists() {
        fs::create_dir_all(state_dir).map_err(file(state_dir))?;
        let text = serde_json::to_string(&before).unwrap_or_default();
        fs::write(&kept, text).map_err(file(&kept))?;
    }
    Ok(())
}

/// Writes what has another value, ours of the namespace and of our device: what was changed.
pub(super) fn keep() -> Result<Vec<PathBuf>, NetworkError> {
    let root = Path::new("/proc/sys");
    let of_device = Path::new("net/ipv4/conf").join(DEVICE);
    let all = SYSCTLS.iter().map(|(name, value)| (root.join(name), value));
    let all = all.chain(OF_DEVICE.iter().map(|(name, value)| (root.join(&of_device).join(name), value)));
    let mut changed = Vec::new();
    for (path, value) in all {
        if fs::read_to_string(&path).map_err(file(&path))?.trim() != *value {
            fs::write(&path, value).map_err(file(&path))?;
            changed.push(path);
        }
    }
    Ok(changed)
}

/// Writes back what was kept.
pub(super) fn restore(state_dir: &Path) -> Result<(), NetworkError> {
    let kept = saved(state_dir);
    let Ok(text) = fs::read_to_string(&kept) else { return Ok(()) };
    let before: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
    for (name, value) in before {
        // Only what we set ourselves is ever written back.
        if SYSCTLS.iter().any(|(known, _)| *known == name) {
            let path = Path::new("/proc/sys").join(name);
            fs::write(&path, value).map_err(file(&path))?;
        }
    }
    fs::remove_file(&kept).map_err(file(&kept))
}
