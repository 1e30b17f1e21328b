// SPDX-License-Identifier: Apache-2.0
//! Filters of routes: header changes, redirects and rewrites (Gateway API v1.6, HTTPRouteFilter).

use weft_http::head::{FieldName, Head, InvalidStart, Name, Scheme, TooLarge, Value};
use weft_ir::{HeaderChanges, PathChange, Redirect};

/// Changes of headers, ready to be done: set, then add, then remove, filter by filter.
#[derive(Debug, Default)]
pub(crate) struct HeaderEdits {
    edits: Vec<Edit>,
    /// The authority that setting `Host` gives to a request.
    host: Option<Box<[u8]>>,
}

#[derive(Debug)]
enum Edit {
    Set(Name, Checked),
    Add(Name, Checked),
    Remove(Name),
}

/// A value that was found to be one.
#[derive(Debug)]
struct Checked(Box<[u8]>);

impl Checked {
    /// Blanks around a value are no part of it (RFC 9110, section 5.5).
    fn new(text: &str) -> Option<Checked> {
        let text = text.trim_matches([' ', '\t']).as_bytes();
        Value::new(text).ok().map(|_| Checked(text.into()))
    }

    fn value(&self) -> Value<'_> {
        Value::new(&self.0).expect("invariant: checked when it was made")
    }
}

impl HeaderEdits {
    /// Appends the changes of one filter; false when a name or a value is not valid in HTTP, or `Host` is
    /// set to what is no authority.
    #[must_use]
    pub(crate) fn extend(&mut self, changes: &HeaderChanges) -> bool {
        let name = |text: &str| Name::new(text.as_bytes()).ok();
        let set = changes.set.iter().map(|(key, text)| Some(Edit::Set(name(key)?, Checked::new(text)?)));
        let add = changes.add.iter().map(|(key, text)| Some(Edit::Add(name(key)?, Checked::new(text)?)));
        let remove = changes.remove.iter().map(|key| name(key).map(Edit::Remove));
        set.chain(add).chain(remove).try_for_each(|edit| self.push(edit?)).is_some()
    }

    fn push(&mut self, edit: Edit) -> Option<()> {
        match edit {
            // The authority is no field: it can be set, and neither added to nor removed.
            Edit::Set(Name::Known(FieldName::Host), text) => {
                self.host = Some(authority(&text.0)?);
            }
            Edit::Add(Name::Known(FieldName::Host), _) | Edit::Remove(Name::Known(FieldName::Host)) => {}
            edit => self.edits.push(edit),
        }
        Some(())
    }

    /// Whether there is nothing to change.
    pub(crate) fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.host.is_none()
    }

    /// Does the changes of a response.
    pub(crate) fn apply(&self, head: &mut Head) -> Result<(), TooLarge> {
        for edit in &self.edits {
            match edit {
                Edit::Set(name, text) => head.set(name, text.value())?,
                Edit::Add(name, text) => head.append(name, text.value())?,
                Edit::Remove(name) => {
                    head.remove(name);
                }
            }
        }
        Ok(())
    }

    /// Does the changes of a request.
    pub(crate) fn apply_to_request(&self, head: &mut Head) -> Result<(), InvalidStart> {
        if let Some(authority) = &self.host {
            head.set_authority(authority)?;
        }
        Ok(self.apply(head)?)
    }
}

/// A rewrite of a request on its way to the backend, with nothing left to be read for each.
#[derive(Debug)]
pub(crate) struct Rewrite {
    authority: Option<Box<[u8]>>,
    path: Option<PathChange>,
}

impl Rewrite {
    /// Nothing where the hostname is no authority.
    pub(crate) fn compile(rewrite: &weft_ir::Rewrite) -> Option<Rewrite> {
        let host = match &rewrite.hostname {
            Some(name) => Some(authority(name.as_str().as_bytes())?),
            None => None,
        };
        Some(Rewrite { authority: host, path: rewrite.path.clone() })
    }

    /// Changes host and path as they take effect; what was received stays. Fails when the new target is no
    /// valid one, which the controller should have refused.
    pub(crate) fn apply(&self, prefix: Option<usize>, head: &mut Head) -> Result<(), InvalidStart> {
        if let Some(authority) = &self.authority {
            head.set_authority(authority)?;
        }
        match &self.path {
            None => Ok(()),
            Some(change) => {
                let (covered, with) = change_of(change, prefix, head.path());
                head.set_path_start(covered, with)
            }
        }
    }
}

/// The text, if it is a host with an optional port.
fn authority(text: &[u8]) -> Option<Box<[u8]>> {
    Head::new().set_authority(text).is_ok().then(|| text.into())
}

/// Writes the answer of a redirect over `response`. `port` is the one that the client connected to. Nothing
/// where it could not be sent, which the controller should have refused.
pub(crate) fn redirect(
    redirect: &Redirect,
    prefix: Option<usize>,
    request: &Head,
    port: u16,
    response: &mut Head,
) -> Option<()> {
    let scheme = redirect.scheme.map_or_else(|| request.scheme().as_str(), |scheme| scheme.as_str());
    let well_known = if scheme == Scheme::Https.as_str() { 443 } else { 80 };
    let port = match (redirect.port, &redirect.scheme) {
        (Some(port), _) => port,
        (None, Some(_)) => well_known,
        (None, None) => port,
    };
    let mut location = [scheme, "://"].concat().into_bytes();
    match &redirect.hostname {
        Some(hostname) => location.extend_from_slice(hostname.as_str().as_bytes()),
        None => location.extend_from_slice(request.host()),
    }
    if port != well_known {
        location.push(b':');
        location.extend_from_slice(port.to_string().as_bytes());
    }
    let (covered, with) = match &redirect.path {
        Some(change) => change_of(change, prefix, request.path()),
        None => (0, &[][..]),
    };
    location.extend_from_slice(with);
    location.extend_from_slice(request.target().get(covered..)?);
    response.start_response(redirect.status.into()).ok()?;
    response.append(&FieldName::Location.into(), Value::new(&location).ok()?).ok()
}

/// How a path is changed: how many of its bytes go, and what stands there instead. `prefix` is the length of
/// the part that the match covered, its trailing slash left out.
fn change_of<'a>(change: &'a PathChange, prefix: Option<usize>, path: &[u8]) -> (usize, &'a [u8]) {
    match change {
        PathChange::Full(new) => (path.len(), new.as_bytes()),
        PathChange::Prefix(replacement) => {
            let covered = prefix.unwrap_or(0).min(path.len());
            match replacement.trim_end_matches('/') {
                "" if covered == path.len() => (covered, b"/"),
                replacement => (covered, replacement.as_bytes()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_ir::{Hostname, RedirectStatus};

    use super::*;

    fn head(authority: &str, target: &str) -> Head {
        let mut head = Head::new();
        head.start_request(b"GET", target.as_bytes(), authority.as_bytes()).expect("valid");
        head
    }

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).expect("a name")
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
            let path_change = Some(PathChange::Prefix(replacement.into()));
            let rewrite = weft_ir::Rewrite { hostname: None, path: path_change };
            for query in ["", "?q=/foo"] {
                let target = format!("{path}{query}");
                let mut head = head("a.test", &target);
                let rewrite = Rewrite::compile(&rewrite).expect("a rewrite");
                rewrite.apply(prefix, &mut head).expect("a target");
                assert_eq!(head.target(), format!("{wanted}{query}").as_bytes(), "{path} {replacement}");
                assert_eq!(head.received_target(), target.as_bytes());
            }
        }
    }

    #[test]
    fn a_rewrite_changes_host_and_path_and_fails_where_it_is_none() {
        let of = |host: &str, path: &str| {
            Rewrite::compile(&weft_ir::Rewrite {
                hostname: Hostname::new(host),
                path: Some(PathChange::Full(path.into())),
            })
        };
        let mut head = head("a.test:8080", "/x?q=1");
        of("b.test", "/new").expect("a rewrite").apply(None, &mut head).expect("a target");
        assert_eq!((head.target(), head.authority()), (&b"/new?q=1"[..], Some(&b"b.test"[..])));
        assert_eq!(head.received_authority(), Some(&b"a.test:8080"[..]));
        let bad = of("b.test", "new").expect("a rewrite").apply(None, &mut head);
        assert_eq!((bad, head.target()), (Err(InvalidStart::Target), &b"/new?q=1"[..]));
    }

    #[test]
    fn a_redirect_leaves_out_the_well_known_port() {
        let plain =
            Redirect { scheme: None, hostname: None, path: None, port: None, status: RedirectStatus::Found };
        let https = Redirect { scheme: Some(weft_ir::Scheme::Https), ..plain.clone() };
        let moved = Redirect {
            hostname: Hostname::new("b.test"),
            path: Some(PathChange::Full("/new".into())),
            ..plain.clone()
        };
        let ported = Redirect { port: Some(443), ..https.clone() };
        let mut response = Head::new();
        for (change, port, wanted) in [
            (&plain, 80, "http://a.test/x?q=1"),
            (&plain, 8080, "http://a.test:8080/x?q=1"),
            (&https, 8080, "https://a.test/x?q=1"),
            (&ported, 8080, "https://a.test/x?q=1"),
            (&moved, 80, "http://b.test/new?q=1"),
        ] {
            let request = head("a.test:8080", "/x?q=1");
            redirect(change, None, &request, port, &mut response).expect("a response");
            assert_eq!(response.known(FieldName::Location), Some(wanted.as_bytes()));
            assert_eq!((response.status(), response.len()), (302, 1));
        }
        let split = Redirect { path: Some(PathChange::Full("/a\r\nb: c".into())), ..plain };
        assert!(redirect(&split, None, &head("a.test", "/"), 80, &mut response).is_none());
    }

    #[test]
    fn edits_are_done_in_the_order_set_add_remove() {
        let changes = HeaderChanges {
            set: vec![("x-a".into(), "1".into()), ("host".into(), "other.test".into())],
            add: vec![("X-A".into(), "2".into())],
            remove: vec!["x-b".into()],
        };
        let mut edits = HeaderEdits::default();
        assert!(edits.extend(&changes));
        let mut head = head("a.test", "/");
        let (a, b) = (name("x-a"), name("x-b"));
        head.append(&a, Value::literal("0")).expect("room");
        head.append(&b, Value::literal("0")).expect("room");
        edits.apply_to_request(&mut head).expect("room");
        assert_eq!(head.values(&a).collect::<Vec<_>>(), [b"1", b"2"]);
        assert!(head.get(&b).is_none());
        assert_eq!(head.authority(), Some(&b"other.test"[..]));
        assert_eq!(head.received_authority(), Some(&b"a.test"[..]));
    }

    #[test]
    fn the_host_can_be_set_alone_and_is_never_a_field() {
        let host = |value: &str| vec![("Host".into(), value.into())];
        let mut edits = HeaderEdits::default();
        assert!(edits.extend(&HeaderChanges { set: host("b.test"), ..HeaderChanges::default() }));
        assert!(!edits.is_empty());
        assert!(edits.extend(&HeaderChanges { add: host("c.test"), ..HeaderChanges::default() }));
        assert!(edits.extend(&HeaderChanges { remove: vec!["host".into()], ..HeaderChanges::default() }));
        let mut head = head("a.test", "/");
        edits.apply_to_request(&mut head).expect("room");
        assert_eq!((head.authority(), head.len()), (Some(&b"b.test"[..]), 0));
        assert!(!edits.extend(&HeaderChanges { set: host("a b"), ..HeaderChanges::default() }));
    }

    #[test]
    fn a_header_that_could_not_be_sent_is_refused_and_blanks_around_a_value_are_left_out() {
        let set = |value: &str| HeaderChanges {
            set: vec![("x-a".into(), value.into())],
            ..HeaderChanges::default()
        };
        assert!(!HeaderEdits::default().extend(&set("a\r\nb: c")));
        let mut edits = HeaderEdits::default();
        assert!(edits.extend(&set(" \tgr\u{fc}n ")));
        let mut head = head("a.test", "/");
        edits.apply(&mut head).expect("room");
        assert_eq!(head.get(&name("x-a")), Some("gr\u{fc}n".as_bytes()));
    }
}
