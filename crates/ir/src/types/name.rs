// SPDX-License-Identifier: Apache-2.0
//! Names of Kubernetes objects, and which texts are one.

use std::{borrow::Cow, fmt, net::Ipv4Addr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// The longest label (RFC 1123), in bytes.
const MAX_LABEL_BYTES: usize = 63;

/// The longest subdomain (RFC 1123), in bytes.
pub(crate) const MAX_SUBDOMAIN_BYTES: usize = 253;

/// Namespace and name of a Kubernetes object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// The namespace; empty for objects of the cluster.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// Both parts, as given.
    pub fn new(namespace: &str, name: &str) -> ObjectName {
        ObjectName { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether a text is a DNS label of RFC 1123, which namespaces and Services must have as their name.
pub fn is_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= MAX_LABEL_BYTES
        && !text.is_empty()
        && text.bytes().all(inside)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether a text is a DNS subdomain of RFC 1123, which most objects and the sections of a Gateway must
/// have as their name. As in Kubernetes, only the whole has a length, not each label.
pub fn is_subdomain(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(inside) && !part.starts_with('-') && !part.ends_with('-')
    };
    text.len() <= MAX_SUBDOMAIN_BYTES && text.split('.').all(is_part)
}

/// The longest value of a label, and the longest name in its key, in bytes (`LabelValueMaxLength` and
/// `qualifiedNameMaxLength` of Kubernetes).
const MAX_LABEL_TEXT_BYTES: usize = 63;

/// Whether a text is the key of a label of Kubernetes: a name, or a subdomain, `/` and a name.
pub fn is_label_key(text: &str) -> bool {
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name)
}

/// Whether a text is the value of a label of Kubernetes, which may be empty.
pub fn is_label_value(text: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    text.len() <= MAX_LABEL_TEXT_BYTES
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && is_end(text.bytes().next())
        && is_end(text.bytes().next_back())
}

/// The name of one host: no wildcard, no address, no port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Hostname(Arc<str>);

impl Hostname {
    /// Takes a DNS subdomain that is no IPv4 address.
    pub fn new(text: &str) -> Option<Hostname> {
        let is_name = is_subdomain(text) && text.parse::<Ipv4Addr>().is_err();
        is_name.then(|| Hostname(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Hostname {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hostname, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Hostname::new(&text).ok_or_else(|| D::Error::custom("not a hostname"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_kubernetes_takes() {
        for good in ["a", "0", "a-b", "a--b", &"x".repeat(63)] {
            assert!(is_label(good) && is_subdomain(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "a b", "ä", "a\0"] {
            assert!(!is_label(bad) && !is_subdomain(bad), "{bad}");
        }
        let long = ["x".repeat(63).as_str(); 4].join(".");
        assert!(!is_label("a.b") && is_subdomain("a.b") && !is_label(&"x".repeat(64)));
        assert!(is_subdomain(&long[..253]) && !is_subdomain(&long[..254]));
        assert!(!is_subdomain("a..b") && !is_subdomain(".a") && !is_subdomain("a.-b"));
    }

    #[test]
    fn keys_and_values_of_labels_are_those_of_kubernetes() {
        for good in ["app", "App.kubernetes_io-x", "app.kubernetes.io/name", "a/B_c", "0"] {
            assert!(is_label_key(good), "{good}");
        }
        for bad in ["", "a b", "a/", "/a", "a/b/c", "A_b/c", "-a", "a.", "k8s:app", "app\n", "ä"] {
            assert!(!is_label_key(bad), "{bad}");
        }
        assert!(is_label_key(&"x".repeat(63)) && !is_label_key(&"x".repeat(64)));
        for good in ["", "a", "V1.2_x-y"] {
            assert!(is_label_value(good), "{good}");
        }
        for bad in ["a b", "a/b", "-a", "a_", "a\u{1b}", &"x".repeat(64)] {
            assert!(!is_label_value(bad), "{bad}");
        }
    }
}
