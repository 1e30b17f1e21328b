// SPDX-License-Identifier: Apache-2.0
//! What we accept, other parsers accept with the same meaning: `httparse`, which hyper reads with, and the
//! types of the `http` crate.

use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use proptest::prelude::*;
use weft_http::{
    h1::{Client, Event, Length, Limits, Server},
    head::{Head, Scheme, Version},
};

use crate::{
    corpus::{REQUESTS, RESPONSES, stream},
    support::{request, text},
};

/// The fields that are left of theirs when those are gone which a machine keeps for itself.
fn same_fields(ours: &Head, theirs: &[httparse::Header<'_>]) -> Result<(), TestCaseError> {
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
    prop_assert_eq!(ours, theirs);
    Ok(())
}

fn known_to_http(head: &Head) -> Result<(), TestCaseError> {
    for (name, value) in head.iter() {
        let theirs = HeaderName::from_bytes(name).expect("a name");
        prop_assert!(theirs.as_str().as_bytes().eq_ignore_ascii_case(name));
        let theirs = HeaderValue::from_bytes(value).expect("a value");
        prop_assert_eq!(theirs.as_bytes(), value);
    }
    Ok(())
}

fn same_request(input: &[u8]) -> Result<bool, TestCaseError> {
    let mut server = Server::new(Limits::default(), Scheme::Http);
    let mut head = Head::new();
    let Ok((used, Some(Event::Head))) = server.receive(input, &mut head) else { return Ok(false) };
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut theirs = httparse::Request::new(&mut fields);
    let parsed = theirs.parse(input);
    prop_assert!(
        matches!(parsed, Ok(httparse::Status::Complete(len)) if len == used),
        "{:?} {:?}",
        parsed,
        text(input)
    );
    prop_assert_eq!(theirs.method.map(str::as_bytes), Some(head.method_text()));
    prop_assert_eq!(theirs.version, Some(u8::from(head.version() == Version::Http11)));
    let target = theirs.path.expect("a target").as_bytes();
    prop_assert!(
        target.ends_with(head.target()) || matches!(head.target(), b"/" | b"*") || target.contains(&b'?')
    );
    let method = Method::from_bytes(head.method_text()).expect("a method");
    prop_assert_eq!(method.as_str().as_bytes(), head.method_text());
    let uri = Uri::try_from(target).expect("a uri");
    if target != b"*" && head.target() != b"*" {
        prop_assert_eq!(uri.path_and_query().expect("a path").as_str().as_bytes(), head.target());
        prop_assert_eq!(uri.path().as_bytes(), head.path());
        prop_assert_eq!(uri.query().map(str::as_bytes), head.query());
    }
    if let Some(authority) = uri.authority() {
        prop_assert_eq!(Some(authority.as_str().as_bytes()), head.authority());
    }
    same_fields(&head, theirs.headers)?;
    known_to_http(&head)?;
    Ok(true)
}

fn same_response(input: &[u8]) -> Result<bool, TestCaseError> {
    let mut client = Client::new(Limits::default());
    client.send_head(&request("GET", "/"), Length::Bytes(0), &mut Vec::new()).expect("idle");
    let mut head = Head::new();
    let Ok((used, Some(Event::Head))) = client.receive(input, &mut head) else { return Ok(false) };
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut theirs = httparse::Response::new(&mut fields);
    let parsed = theirs.parse(input);
    prop_assert!(
        matches!(parsed, Ok(httparse::Status::Complete(len)) if len == used),
        "{:?} {:?}",
        parsed,
        text(input)
    );
    prop_assert_eq!(theirs.code, Some(head.status()));
    prop_assert_eq!(theirs.version, Some(u8::from(head.version() == Version::Http11)));
    prop_assert!(StatusCode::from_u16(head.status()).is_ok());
    same_fields(&head, theirs.headers)?;
    known_to_http(&head)?;
    Ok(true)
}

#[test]
fn valid_messages_mean_the_same_to_all() {
    for request in REQUESTS {
        assert!(same_request(request.as_bytes()).expect("the same"), "{request:?}");
    }
    for response in RESPONSES {
        assert!(same_response(response.as_bytes()).expect("the same"), "{response:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_we_take_for_a_request_they_take_for_the_same(input in stream(REQUESTS, 2)) {
        same_request(&input)?;
    }

    #[test]
    fn what_we_take_for_a_response_they_take_for_the_same(input in stream(RESPONSES, 2)) {
        same_response(&input)?;
    }
}
