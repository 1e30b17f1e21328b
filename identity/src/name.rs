// SPDX-License-Identifier: Apache-2.0
//! The name of a node, as it stands in its certificate.

use std::{fmt, str::FromStr, sync::Arc};

/// What every node's identity begins with: a SPIFFE ID of the control plane's own trust domain, so that
/// no certificate of a workload is ever one of a node.
const PREFIX: &str = "spiffe://weft.internal/weft/node/";

/// The longest name, in bytes (RFC 1123 subdomain, as Kubernetes names nodes).
const MAX_BYTES: usize = 253;

/// The name of a node: labels of lower-case letters, digits and `-`, with dots between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

/// A text is no name of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a node's name has 1 to {MAX_BYTES} lower-case letters, digits, `-` and `.`, and each part between dots begins and ends with a letter or digit"
)]
pub struct NodeNameError;

impl NodeName {
    /// The identity that a certificate of this node carries.
    pub(crate) fn spiffe_id(&self) -> String {
        format!("{PREFIX}{}", self.0)
    }

    /// The node whose identity this is.
    pub(crate) fn from_spiffe_id(id: &str) -> Option<NodeName> {
        id.strip_prefix(PREFIX)?.parse().ok()
    }

    /// The name, shared.
    pub fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NodeNameError;

    fn from_str(text: &str) -> Result<NodeName, NodeNameError> {
        let alphanumeric =
            |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let label = |label: &str| {
            let bytes = label.as_bytes();
            alphanumeric(bytes.first())
                && alphanumeric(bytes.last())
                && bytes.iter().all(|byte| alphanumeric(Some(byte)) || *byte == b'-')
        };
        match text.len() <= MAX_BYTES && text.split('.').all(label) {
            true => Ok(NodeName(text.into())),
            false => Err(NodeNameError),
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_kubernetes_nodes_are_names() {
        for name in ["a", "node-1", "ip-10-0-0-1.eu.internal", &"a".repeat(253)] {
            assert!(name.parse::<NodeName>().is_ok(), "{name}");
        }
        for name in ["", ".", "..", "a..b", "-a", "a-", "A", "a/b", "../a", "a b", "\u{e9}", &"a".repeat(254)]
        {
            assert!(name.parse::<NodeName>().is_err(), "{name}");
        }
    }

    #[test]
    fn an_identity_names_its_node_and_nothing_else_does() {
        let name: NodeName = "node-1".parse().unwrap();
        assert_eq!(name.spiffe_id(), "spiffe://weft.internal/weft/node/node-1");
        assert_eq!(NodeName::from_spiffe_id(&name.spiffe_id()), Some(name));
        for id in [
            "spiffe://weft.internal/weft/node/",
            "spiffe://weft.internal/weft/node/a/b",
            "spiffe://other/weft/node/a",
            "spiffe://weft.internal/ns/a/sa/b",
            "node-1",
        ] {
            assert_eq!(NodeName::from_spiffe_id(id), None, "{id}");
        }
    }
}
