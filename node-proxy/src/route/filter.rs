// SPDX-License-Identifier: Apache-2.0
//! Filters of routes: header changes, redirects and rewrites (Gateway API v1.6, HTTPRouteFilter).

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, StatusCode, header,
    uri::{Authority, PathAndQuery},
};
use weft_codec::{
    body::Body,
    headers::Headers,
    message::{RequestHead, Response, ResponseHead},
};
use weft_ir::{HeaderChanges, PathChange, Redirect};

/// Changes of headers, ready to be done: set, then add, then remove, filter by filter.
#[derive(Debug, Default)]
pub(crate) struct HeaderEdits {
    edits: Vec<Edit>,
    /// The authority that setting `Host` gives to a request.
    host: Option<Authority>,
}

#[derive(Debug)]
enum Edit {
    Set(HeaderName, HeaderValue),
    Add(HeaderName, HeaderValue),
    Remove(HeaderName),
}

impl HeaderEdits {
    /// Appends the changes of one filter; false when a name or a value is not valid in HTTP, or `Host` is
    /// set to what is no authority.
    #[must_use]
    pub(crate) fn extend(&mut self, changes: &HeaderChanges) -> bool {
        let field = |(name, value): &(std::sync::Arc<str>, std::sync::Arc<str>)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value).ok()?))
        };
        let set = changes.set.iter().map(|pair| field(pair).map(|(name, value)| Edit::Set(name, value)));
        let add = changes.add.iter().map(|pair| field(pair).map(|(name, value)| Edit::Add(name, value)));
        let remove =
            changes.remove.iter().map(|name| HeaderName::from_bytes(name.as_bytes()).ok().map(Edit::Remove));
        set.chain(add)
            .chain(remove)
            .try_for_each(|edit| {
                let edit = edit?;
                if let Edit::Set(header::HOST, value) = &edit {
                    self.host = Some(Authority::try_from(value.as_bytes()).ok()?);
                }
                self.edits.push(edit);
                Some(())
            })
            .is_some()
    }

    /// Whether there is nothing to change.
    pub(crate) fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Does the changes. `Host` is the authority too, which only [`apply_to_request`](Self::apply_to_request)
    /// changes.
    pub(crate) fn apply(&self, headers: &mut Headers) {
        for edit in &self.edits {
            match edit {
                Edit::Set(name, value) => headers.set(name, value),
                Edit::Add(name, value) => headers.append(name, value),
                Edit::Remove(name) => {
                    headers.remove(name);
                }
            }
        }
    }

    /// Does the changes of a request.
    pub(crate) fn apply_to_request(&self, head: &mut RequestHead) {
        if let Some(authority) = &self.host {
            head.authority = Some(authority.clone());
        }
        self.apply(&mut head.headers);
    }
}

/// A rewrite of a request on its way to the backend, with nothing left to be read for each.
#[derive(Debug)]
pub(crate) struct Rewrite {
    authority: Option<Authority>,
    path: Option<PathChange>,
}

impl Rewrite {
    /// Nothing where the hostname is no authority.
    pub(crate) fn compile(rewrite: &weft_ir::Rewrite) -> Option<Rewrite> {
        let authority = rewrite.hostname.as_ref().map(|name| Authority::try_from(name.as_str()));
        Some(Rewrite { authority: authority.transpose().ok()?, path: rewrite.path.clone() })
    }

    /// Changes host and path. False when the new target is no valid one, which the controller should
    /// have refused.
    #[must_use]
    pub(crate) fn apply(&self, prefix: Option<usize>, head: &mut RequestHead) -> bool {
        if let Some(authority) = &self.authority {
            head.authority = Some(authority.clone());
        }
        let Some(change) = &self.path else { return true };
        let target = with_query(changed_path(change, prefix, head.path()), head.query());
        match PathAndQuery::from_maybe_shared(Bytes::from(target)) {
            Ok(target) => {
                head.target = target;
                true
            }
            Err(_) => false,
        }
    }
}

/// The answer of a redirect. `port` is the one that the client connected to.
pub(crate) fn redirect(
    redirect: &Redirect,
    prefix: Option<usize>,
    head: &RequestHead,
    port: u16,
) -> Option<Response> {
    let scheme = redirect.scheme.map_or_else(|| head.scheme.as_str(), |scheme| scheme.as_str());
    let host = match &redirect.hostname {
        Some(hostname) => hostname.as_str(),
        None => head.authority.as_ref().map_or("", Authority::host),
    };
    let well_known = if scheme == "https" { 443 } else { 80 };
    let port = match (redirect.port, &redirect.scheme) {
        (Some(port), _) => port,
        (None, Some(_)) => well_known,
        (None, None) => port,
    };
    let mut location = format!("{scheme}://{host}");
    if port != well_known {
        location.push(':');
        location.push_str(&port.to_string());
    }
    let path = match &redirect.path {
        Some(change) => changed_path(change, prefix, head.path()),
        None => head.path().to_owned(),
    };
    location.push_str(&with_query(path, head.query()));
    let mut response = ResponseHead::new(StatusCode::from_u16(redirect.status.into()).ok()?);
    response.headers.set(&header::LOCATION, &HeaderValue::from_maybe_shared(Bytes::from(location)).ok()?);
    Some(Response::new(response, Body::empty()))
}

/// The path after a change; `prefix` is the length of the part that the match covered, its trailing
/// slash left out.
fn changed_path(change: &PathChange, prefix: Option<usize>, path: &str) -> String {
    match change {
        PathChange::Full(path) => path.to_string(),
        PathChange::Prefix(replacement) => {
            let rest = path.get(prefix.unwrap_or(0)..).unwrap_or_default();
            let mut changed = replacement.trim_end_matches('/').to_owned();
            changed.push_str(rest);
            if changed.is_empty() {
                changed.push('/');
            }
            changed
        }
    }
}

fn with_query(mut path: String, query: Option<&str>) -> String {
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    path
}

#[cfg(test)]
mod tests {
    use http::Method;
    use weft_ir::{Hostname, RedirectStatus, Scheme};

    use super::*;

    fn head(authority: &str, target: &str) -> RequestHead {
        let authority = Some(authority.parse().expect("an authority"));
        RequestHead::new(Method::GET, target.parse().expect("a target"), authority)
    }

    /// The table in the documentation of HTTPPathModifier.replacePrefixMatch.
    #[test]
    fn a_prefix_is_replaced_with_exactly_one_slash_between() {
        for (path, prefix, replacement, wanted) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/bar", "/", "/xyz", "/xyz/bar"),
        ] {
            let prefix = Some(prefix.trim_end_matches('/').len());
            let change = PathChange::Prefix(replacement.into());
            assert_eq!(changed_path(&change, prefix, path), wanted, "{path} {replacement}");
        }
    }

    #[test]
    fn a_redirect_leaves_out_the_well_known_port() {
        let plain =
            Redirect { scheme: None, hostname: None, path: None, port: None, status: RedirectStatus::Found };
        let https = Redirect { scheme: Some(Scheme::Https), ..plain.clone() };
        let moved = Redirect {
            hostname: Hostname::new("b.test"),
            path: Some(PathChange::Full("/new".into())),
            ..plain.clone()
        };
        let ported = Redirect { port: Some(443), ..https.clone() };
        for (change, port, wanted) in [
            (&plain, 80, "http://a.test/x?q=1"),
            (&plain, 8080, "http://a.test:8080/x?q=1"),
            (&https, 8080, "https://a.test/x?q=1"),
            (&ported, 8080, "https://a.test/x?q=1"),
            (&moved, 80, "http://b.test/new?q=1"),
        ] {
            let response = redirect(change, None, &head("a.test:8080", "/x?q=1"), port).expect("a response");
            assert_eq!(response.head.headers.get(&header::LOCATION), Some(wanted.as_bytes()));
        }
    }

    #[test]
    fn edits_are_done_in_the_order_set_add_remove() {
        let changes = HeaderChanges {
            set: vec![("x-a".into(), "1".into()), ("host".into(), "other.test".into())],
            add: vec![("x-a".into(), "2".into())],
            remove: vec!["x-b".into()],
        };
        let mut edits = HeaderEdits::default();
        assert!(edits.extend(&changes));
        let mut head = head("a.test", "/");
        let (a, b) = (HeaderName::from_static("x-a"), HeaderName::from_static("x-b"));
        head.headers.append(&a, &HeaderValue::from_static("0"));
        head.headers.append(&b, &HeaderValue::from_static("0"));
        edits.apply_to_request(&mut head);
        assert_eq!(head.headers.get_all(&a).collect::<Vec<_>>(), [b"1", b"2"]);
        assert!(!head.headers.contains(&b));
        assert_eq!(head.authority.expect("an authority"), "other.test");
    }

    #[test]
    fn a_host_that_is_no_authority_is_refused() {
        let changes = HeaderChanges { set: vec![("host".into(), "a b".into())], ..HeaderChanges::default() };
        assert!(!HeaderEdits::default().extend(&changes));
    }

    #[test]
    fn a_header_that_could_not_be_sent_is_refused() {
        let changes =
            HeaderChanges { set: vec![("x-a".into(), "a\r\nb: c".into())], ..HeaderChanges::default() };
        assert!(!HeaderEdits::default().extend(&changes));
    }
}
