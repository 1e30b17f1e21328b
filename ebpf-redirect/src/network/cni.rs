// SPDX-License-Identifier: Apache-2.0
//! What CNI plug-ins have answered, as container runtimes keep it (libcni's cache of results). Nobody writes it
//! but the runtime, so that it says which device was made for which pod.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path};

use ipnet::IpNet;
use serde::Deserialize;
use weft_ir::ObjectName;

/// The node's devices that were made for a pod, by address and pod.
pub(super) type Results = BTreeMap<(IpAddr, ObjectName), Vec<String>>;

/// What `libcni` calls the files that it writes since 0.8.
const KIND: &str = "cniCacheV1";
/// A result is a few hundred bytes with its configuration; more than this is none.
const LONGEST: u64 = 1 << 20;

/// A file of the cache, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cached {
    kind: String,
    #[serde(default)]
    cni_args: Vec<(String, String)>,
    result: Answer,
}

#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Address>,
}

#[derive(Debug, Deserialize)]
struct Interface {
    name: String,
    /// Where it is; the node's own have none.
    #[serde(default)]
    sandbox: String,
}

#[derive(Debug, Deserialize)]
struct Address {
    address: IpNet,
}

/// Reads the results that are there. What is none of a pod, or cannot be read, says nothing; so does a
/// directory that is not there.
pub(super) fn read(directory: &Path) -> Results {
    let mut results = Results::new();
    let Ok(entries) = fs::read_dir(directory) else { return results };
    for entry in entries.flatten() {
        let short = entry.metadata().is_ok_and(|data| data.is_file() && data.len() <= LONGEST);
        let Some(text) = short.then(|| fs::read(entry.path()).ok()).flatten() else { continue };
        match serde_json::from_slice::<Cached>(&text) {
            Ok(cached) if cached.kind == KIND => note(cached, &mut results),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(file = %entry.path().display(), %error, "not the result of a plug-in")
            }
        }
    }
    results
}

fn note(cached: Cached, results: &mut Results) {
    let argument =
        |name: &str| cached.cni_args.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let (Some(namespace), Some(name)) = (argument("K8S_POD_NAMESPACE"), argument("K8S_POD_NAME")) else {
        return;
    };
    let pod = ObjectName::new(namespace, name);
    let own = cached.result.interfaces.into_iter().filter(|interface| interface.sandbox.is_empty());
    let devices: Vec<String> = own.map(|interface| interface.name).collect();
    for address in cached.result.ips {
        let key = (address.address.addr().to_canonical(), pod.clone());
        results.entry(key).or_default().extend(devices.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As libcni 1.1 writes what the bridge plug-in answers.
    const BRIDGE: &str = r#"{"kind":"cniCacheV1","containerId":"3f9c","config":"e30=","ifName":"eth0",
        "networkName":"cbr0","netns":"/var/run/netns/cni-1","cniArgs":[["IgnoreUnknown","1"],
        ["K8S_POD_NAMESPACE","shop"],["K8S_POD_NAME","cart-0"],["K8S_POD_INFRA_CONTAINER_ID","3f9c"]],
        "result":{"cniVersion":"1.0.0","dns":{},"interfaces":[{"mac":"0a:58:0a:f4:01:01","name":"cni0"},
        {"mac":"7a:0e:b8:7f:e2:11","name":"veth1a2b3c4d"},
        {"mac":"0a:58:0a:f4:01:07","name":"eth0","sandbox":"/var/run/netns/cni-1"}],
        "ips":[{"address":"10.244.1.7/24","gateway":"10.244.1.1","interface":2},
        {"address":"fd00:1::7/64","interface":2}],"routes":[{"dst":"0.0.0.0/0"}]}}"#;

    #[test]
    fn a_result_says_which_devices_were_made_for_a_pod() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("a file");
        write("cbr0-3f9c-eth0", BRIDGE);
        write("cbr0-4-eth0", &BRIDGE.replace("cniCacheV1", "another"));
        write("cbr0-5-eth0", &BRIDGE[..100]);
        write("cbr0-6-eth0", &BRIDGE.replace("K8S_POD_NAME\"", "OTHER\""));
        let results = read(directory.path());
        let pod = ObjectName::new("shop", "cart-0");
        let devices = vec!["cni0".to_owned(), "veth1a2b3c4d".to_owned()];
        for address in ["10.244.1.7", "fd00:1::7"] {
            let key = (address.parse().expect("an address"), pod.clone());
            assert_eq!(results.get(&key), Some(&devices));
        }
        assert_eq!(results.len(), 2);
        assert!(read(&directory.path().join("none")).is_empty());
    }
}
