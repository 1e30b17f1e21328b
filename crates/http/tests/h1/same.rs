// SPDX-License-Identifier: Apache-2.0
//! Compares what we accept with what others make of it.

use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use weft_http::{
    h1::{Client, Event, Length, Limits, Server},
    head::{Head, Scheme, Version},
};

use crate::{
    proxy::proxy,
    support::{request, text},
};

/// The fields that are left of theirs when those are gone which a machine keeps for itself.
fn same_fields(ours: &Head, theirs: &[httparse::Header<'_>]) {
    let own = ["host", "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te"];
    let options: Vec<String> = theirs
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("connection"))
        .flat_map(|field| field.value.split(|byte| *byte == b','))
        .map(|option| text(option.trim_ascii()).to_lowercase())
        .filter(|option| option != "content-length")
        .collect();
    let kept = |name: &str| {
        let name = name.to_lowercase();
        !own.contains(&name.as_str()) && !options.contains(&name)
    };
    let theirs: Vec<(String, Vec<u8>)> = theirs
        .iter()
        .filter(|field| kept(field.name))
        .map(|field| (field.name.to_owned(), field.value.to_vec()))
        .collect();
    let te = |name: &[u8]| name.eq_ignore_ascii_case(b"te");
    let ours: Vec<(String, Vec<u8>)> =
        ours.iter().filter(|(name, _)| !te(name)).map(|(name, value)| (text(name), value.to_vec())).collect();
    assert_eq!(ours, theirs);
}

fn known_to_http(head: &Head) {
    for (name, value) in head.iter() {
        let theirs = HeaderName::from_bytes(name).expect("a name");
        assert!(theirs.as_str().as_bytes().eq_ignore_ascii_case(name));
        let theirs = HeaderValue::from_bytes(value).expect("a value");
        assert_eq!(theirs.as_bytes(), value);
    }
}

/// Whether we take the input for the head of a request; then so do they, for the same.
pub(crate) fn same_request(input: &[u8]) -> bool {
    let mut server = Server::new(Limits::default(), Scheme::Http);
    let mut head = Head::new();
    let Ok((used, Some(Event::Head))) = server.receive(input, &mut head) else { return false };
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut theirs = httparse::Request::new(&mut fields);
    let parsed = theirs.parse(input);
    assert!(
        matches!(parsed, Ok(httparse::Status::Complete(len)) if len == used),
        "{:?} {:?}",
        parsed,
        text(input)
    );
    assert_eq!(theirs.method.map(str::as_bytes), Some(head.method_text()));
    assert_eq!(theirs.version, Some(u8::from(head.version() == Version::Http11)));
    let target = theirs.path.expect("a target").as_bytes();
    assert!(
        target.ends_with(head.target()) || matches!(head.target(), b"/" | b"*") || target.contains(&b'?')
    );
    let method = Method::from_bytes(head.method_text()).expect("a method");
    assert_eq!(method.as_str().as_bytes(), head.method_text());
    let uri = Uri::try_from(target).expect("a uri");
    if target != b"*" && head.target() != b"*" {
        let theirs = uri.path_and_query().expect("a path").as_str();
        // They leave the path of a URI that has none empty.
        let theirs = if theirs.starts_with('?') { format!("/{theirs}") } else { theirs.to_owned() };
        assert_eq!(theirs.as_bytes(), head.target());
        assert_eq!(uri.path().as_bytes(), head.path());
        assert_eq!(uri.query().map(str::as_bytes), head.query());
    }
    if let Some(authority) = uri.authority() {
        assert_eq!(Some(authority.as_str().as_bytes()), head.authority());
    }
    same_fields(&head, theirs.headers);
    known_to_http(&head);
    true
}

/// Whether we take the input for the head of a response; then so do they, for the same.
pub(crate) fn same_response(input: &[u8]) -> bool {
    let mut client = Client::new(Limits::default());
    client.send_head(&request("GET", "/"), Length::Bytes(0), &mut Vec::new()).expect("idle");
    let mut head = Head::new();
    let Ok((used, Some(Event::Head))) = client.receive(input, &mut head) else { return false };
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut theirs = httparse::Response::new(&mut fields);
    let parsed = theirs.parse(input);
    assert!(
        matches!(parsed, Ok(httparse::Status::Complete(len)) if len == used),
        "{:?} {:?}",
        parsed,
        text(input)
    );
    assert_eq!(theirs.code, Some(head.status()));
    assert_eq!(theirs.version, Some(u8::from(head.version() == Version::Http11)));
    assert!(StatusCode::from_u16(head.status()).is_ok());
    same_fields(&head, theirs.headers);
    known_to_http(&head);
    true
}

/// What goes upstream, another reader takes for as many requests as we did. A proxy's client sends the
/// input in pieces of this many bytes.
pub(crate) fn same_requests_upstream(input: &[u8], piece: usize) {
    let outcome = proxy(input, piece);
    let mut rest = &outcome.upstream[..];
    let mut complete = 0;
    while let Some(len) = request_len(rest) {
        rest = &rest[len..];
        complete += 1;
    }
    let unfinished = outcome.requests - outcome.complete;
    assert_eq!(complete, outcome.complete, "{:?}", text(&outcome.upstream));
    assert!(unfinished <= 1 && (unfinished == 1 || rest.is_empty()), "{:?}", text(&outcome.upstream));
}

/// The bytes of the complete request that starts the input, as `httparse` reads it.
fn request_len(input: &[u8]) -> Option<usize> {
    let mut fields = [httparse::EMPTY_HEADER; 160];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(head) = request.parse(input).expect("written by us") else { return None };
    let one = |name: &str| {
        let mut values = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        let value = values.next().map(|field| text(field.value));
        assert!(values.next().is_none(), "{name} twice");
        value
    };
    assert!(one("host").is_some(), "no host");
    let (length, coding) = (one("content-length"), one("transfer-encoding"));
    assert!(length.is_none() || coding.is_none(), "two framings");
    if let Some(length) = length {
        let end = head + length.parse::<usize>().ok()?;
        return (end <= input.len()).then_some(end);
    }
    match coding {
        None => Some(head),
        Some(coding) => {
            assert_eq!(coding, "chunked");
            chunked_len(&input[head..]).map(|len| head + len)
        }
    }
}

fn chunked_len(input: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let size = httparse::parse_chunk_size(&input[at..]).expect("written by us");
        let httparse::Status::Complete((line, size)) = size else { return None };
        at += line;
        if size == 0 {
            let mut fields = [httparse::EMPTY_HEADER; 160];
            return match httparse::parse_headers(&input[at..], &mut fields).expect("written by us") {
                httparse::Status::Complete((len, _)) => Some(at + len),
                httparse::Status::Partial => None,
            };
        }
        at = at.checked_add(usize::try_from(size).ok()?)?.checked_add(2)?;
        if at > input.len() {
            return None;
        }
        assert_eq!(&input[at - 2..at], b"\r\n", "a chunk of another length");
    }
}
