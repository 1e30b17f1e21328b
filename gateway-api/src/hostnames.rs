// SPDX-License-Identifier: Apache-2.0
//! The hostnames of a route.

use std::sync::Arc;

use weft_matching::hostname;

use crate::wrong::Wrong;

/// The hostnames of a route. One that cannot be used refuses itself and no other; what a request could
/// name by it is closed.
#[derive(Debug, Default)]
pub(crate) struct Hostnames {
    /// In lower case; with none of them and none refused, the route is for any host.
    pub(crate) served: Vec<Arc<str>>,
    /// Those that are no hostnames and that a request could name all the same, such as `a_b.example.com`.
    pub(crate) closed: Vec<Arc<str>>,
    /// What is wrong, in the order of the object.
    pub(crate) problems: Vec<String>,
}

impl Hostnames {
    pub(crate) fn new(hostnames: &[Arc<str>], wrong: &Wrong<'_>) -> Hostnames {
        let mut found = Hostnames::default();
        found.problems.extend(wrong.unread(|at| at == "spec.hostnames"));
        for (index, name) in hostnames.iter().enumerate() {
            let path = format!("spec.hostnames[{index}]");
            if let Some(message) = wrong.within(&path) {
                found.problems.push(message);
            } else if let Some(name) = hostname::canonical(name) {
                found.served.push(name);
            } else {
                found.problems.push(format!("{path}: `{name}` is no hostname"));
                let lower = name.to_ascii_lowercase();
                let rest = lower.strip_prefix("*.").unwrap_or(&lower);
                let plain = rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*');
                if plain && (1..=253).contains(&rest.len()) {
                    found.closed.push(lower.into());
                }
            }
        }
        found
    }

    /// Whether the route has hostnames and none can be used.
    pub(crate) fn none(&self) -> bool {
        self.served.is_empty() && !self.problems.is_empty()
    }

    /// Whether some host is served by the route and by a listener of this hostname.
    pub(crate) fn fit(&self, listener: &str) -> bool {
        let any = self.served.is_empty() && self.problems.is_empty();
        any || self.served.iter().any(|name| hostname::intersect(listener, name))
    }

    /// Whether some host of a listener has to be closed.
    pub(crate) fn close(&self, listener: &str) -> bool {
        self.closed.iter().any(|name| hostname::intersect(listener, name))
    }
}
