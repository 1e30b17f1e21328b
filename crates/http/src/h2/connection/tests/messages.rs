// SPDX-License-Identifier: Apache-2.0
//! What is a message (RFC 9113, section 8; RFC 8441).

use super::*;
use crate::head::{FieldName, Method};

/// What a server says about one request, and the head that it got.
fn request(fields: &[(&str, &str)]) -> (String, Head) {
    let mut end = End::server();
    let bytes = end.head(1, true, fields);
    let events = end.feed(&bytes);
    assert_eq!(events.len(), 1, "{fields:?}");
    if events[0].starts_with("rejected") {
        assert_eq!(end.sent(), ["RST_STREAM 1 1"], "{fields:?}");
    }
    (events[0].clone(), end.head)
}

#[track_caller]
fn malformed(fields: &[(&str, &str)]) {
    assert_eq!(request(fields).0, "rejected 0 400", "{fields:?}");
}

#[track_caller]
fn fine(fields: &[(&str, &str)]) -> Head {
    let (event, head) = request(fields);
    assert_eq!(event, "head 1 end", "{fields:?}");
    head
}

fn with(fields: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [GET, fields].concat()
}

/// The request with one field put first, left out, or changed.
fn changed(name: &str, value: Option<&'static str>) -> Vec<(&'static str, &'static str)> {
    let mut fields = GET.to_vec();
    let at = fields.iter().position(|field| field.0 == name).unwrap();
    match value {
        Some(value) => fields[at].1 = value,
        None => drop(fields.remove(at)),
    }
    fields
}

#[test]
fn a_head_has_the_parts_of_its_request() {
    let head = fine(&[
        (":method", "OPTIONS"),
        (":scheme", "https"),
        (":authority", "a.test:8443"),
        (":path", "/a?b=c"),
        ("te", "trailers"),
        ("content-length", "0"),
        ("x-one", "1"),
        ("cookie", "a=b"),
        ("cookie", "c=d"),
    ]);
    assert_eq!((head.method(), head.method_text()), (Method::Options, &b"OPTIONS"[..]));
    assert_eq!((head.scheme().as_str(), head.authority()), ("https", Some(&b"a.test:8443"[..])));
    assert_eq!((head.path(), head.query()), (&b"/a"[..], Some(&b"b=c"[..])));
    assert_eq!((head.received_target(), head.host()), (&b"/a?b=c"[..], &b"a.test"[..]));
    assert_eq!(head.iter().count(), 5);
    assert_eq!(head.version(), crate::head::Version::Http2);
    let mut scratch = Vec::new();
    let cookie = FieldName::Cookie.into();
    assert_eq!(head.combined(&cookie, &mut scratch), Some(&b"a=b; c=d"[..]));
}

#[test]
fn a_request_has_each_of_its_pseudo_fields_once_and_first() {
    for missing in [":method", ":scheme", ":path"] {
        malformed(&changed(missing, None));
    }
    for twice in [GET[0], GET[1], GET[2], GET[3]] {
        malformed(&with(&[twice]));
    }
    malformed(&[("x-one", "1"), GET[0], GET[1], GET[2], GET[3]]);
    malformed(&with(&[(":status", "200")]));
    malformed(&with(&[(":other", "1")]));
    malformed(&with(&[(":", "1")]));
    fine(&changed(":authority", None));
}

#[test]
fn pseudo_fields_have_values_that_can_be_sent_on() {
    for method in ["", "a b", "GET\u{e9}"] {
        malformed(&changed(":method", Some(method)));
    }
    for path in ["", "a", "*", "//\u{e9}", "/a b", "/#a"] {
        malformed(&changed(":path", Some(path)));
    }
    for scheme in ["", "ftp", "http:"] {
        malformed(&changed(":scheme", Some(scheme)));
    }
    for authority in ["", "a@b", "a b", "a,b", "a:b"] {
        malformed(&changed(":authority", Some(authority)));
    }
    let mut star = changed(":path", Some("*"));
    star[0].1 = "OPTIONS";
    assert_eq!(fine(&star).target(), b"*");
}

#[test]
fn names_and_values_have_only_characters_that_are_allowed() {
    for name in ["X-One", "x one", "x:one", "x\u{e9}", "x\u{7f}", ""] {
        malformed(&[GET, &[(name, "1")]].concat());
    }
    for value in ["a\nb", "a\r", "\0", " a", "a ", "a\t", "a\u{7f}"] {
        malformed(&[GET, &[("x-one", value)]].concat());
    }
    fine(&with(&[("x-one", "a\tb \u{e9}"), ("x-two", "")]));
}

#[test]
fn fields_of_a_connection_do_not_exist() {
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        malformed(&[GET, &[(name, "close")]].concat());
    }
    malformed(&with(&[("te", "gzip")]));
    malformed(&with(&[("te", "trailers, gzip")]));
}

#[test]
fn host_and_authority_say_the_same_and_host_is_no_field() {
    let head = fine(&with(&[("host", "A.test")]));
    assert_eq!((head.authority(), head.iter().count()), (Some(&b"a.test"[..]), 0));
    let mut only_host = changed(":authority", None);
    only_host.push(("host", "b.test"));
    let head = fine(&only_host);
    assert_eq!((head.authority(), head.received_authority()), (Some(&b"b.test"[..]), Some(&b"b.test"[..])));
    malformed(&with(&[("host", "b.test")]));
    malformed(&with(&[("host", "a.test"), ("host", "a.test")]));
    only_host[3].1 = "b,test";
    malformed(&only_host);
}

#[test]
fn a_connect_names_its_destination_and_nothing_else() {
    let head = fine(&[(":method", "CONNECT"), (":authority", "10.0.0.1:80")]);
    assert_eq!(
        (head.authority(), head.target(), head.protocol()),
        (Some(&b"10.0.0.1:80"[..]), &b""[..], None)
    );
    malformed(&[(":method", "CONNECT")]);
    for no_port in ["a", "a:", "[::1]", "[::1]:"] {
        malformed(&[(":method", "CONNECT"), (":authority", no_port)]);
    }
    fine(&[(":method", "CONNECT"), (":authority", "[::1]:1")]);
    malformed(&[(":method", "CONNECT"), (":authority", "a:80"), (":path", "/")]);
    malformed(&[(":method", "CONNECT"), (":authority", "a:80"), (":scheme", "http")]);
}

#[test]
fn an_extended_connect_has_all_parts_of_a_request() {
    let mut fields = with(&[(":protocol", "websocket")]);
    fields[0].1 = "CONNECT";
    let head = fine(&fields);
    assert_eq!((head.protocol(), head.target()), (Some(&b"websocket"[..]), &b"/"[..]));
    malformed(&with(&[(":protocol", "websocket")]));
    for missing in [1, 2, 3] {
        let mut fields = fields.clone();
        fields.remove(missing);
        malformed(&fields);
    }
    // What follows it is no content, whatever it says of that.
    let mut end = End::server();
    let mut with_length = fields.clone();
    with_length.push(("content-length", "1"));
    let bytes = [end.head(1, false, &with_length), data(1, b"more", false)].concat();
    assert_eq!(end.feed(&bytes), ["head 1", "data 1 more"]);
    let mut end = End::server_with(&Config { extended_connect: false, ..config() });
    let bytes = end.head(1, false, &fields);
    assert_eq!(end.feed(&bytes), ["rejected 0 400"]);
}

#[test]
fn content_is_as_long_as_its_length_says() {
    let with_length = |length: &str, end: bool| {
        let mut server = End::server();
        let fields = [POST, &[("content-length", length)]].concat();
        let head = server.head(1, end, &fields);
        (server, head)
    };
    for length in ["x", "-1", "1, 1", "", "99999999999999999999"] {
        let (mut end, head) = with_length(length, true);
        assert_eq!(end.feed(&head), ["rejected 0 400"], "{length}");
    }
    let (mut end, head) = with_length("1", true);
    assert_eq!(end.feed(&head), ["rejected 0 400"]);
    let (mut end, head) = with_length("3", false);
    assert_eq!(end.feed(&[head, data(1, b"abc", true)].concat()), ["head 1", "data 1 abc end"]);
    let (mut end, head) = with_length("3", false);
    assert_eq!(end.feed(&[head, data(1, b"abcd", true)].concat()), ["head 1", "reset 1 1"]);
    assert_eq!(end.sent(), ["RST_STREAM 1 1"]);
    let (mut end, head) = with_length("3", false);
    assert_eq!(end.feed(&[head, data(1, b"ab", true)].concat()), ["head 1", "reset 1 1"]);
    let (mut end, head) = with_length("3", false);
    let trailers = end.head(1, true, &[("x-one", "1")]);
    assert_eq!(
        end.feed(&[head, data(1, b"ab", false), trailers].concat()),
        ["head 1", "data 1 ab", "reset 1 1"]
    );
    malformed(&with(&[("content-length", "0"), ("content-length", "0")]));
}

#[test]
fn trailers_end_the_stream_and_have_no_pseudo_fields() {
    let trailers = |end: bool, fields: &[(&str, &str)]| {
        let mut server = End::server();
        let bytes = [server.post(1), server.head(1, end, fields)].concat();
        server.feed(&bytes).last().unwrap().clone()
    };
    assert_eq!(trailers(true, &[("x-one", "1")]), "trailers 1");
    assert_eq!(trailers(true, &[]), "trailers 1");
    assert_eq!(trailers(false, &[("x-one", "1")]), "reset 1 1");
    for bad in
        [(":path", "/"), (":status", "200"), ("content-length", "0"), ("host", "a"), ("connection", "x")]
    {
        assert_eq!(trailers(true, &[bad]), "reset 1 1", "{bad:?}");
    }
}

/// What a client says about a response with this head.
fn response(method: &[u8], end: bool, fields: &[(&str, &str)], content: &[u8]) -> Vec<String> {
    let mut client = End::client();
    client.ask(method, true, 0);
    let mut bytes = client.head(1, end, fields);
    if !end {
        bytes.extend(data(1, content, true));
    }
    client.feed(&bytes)
}

#[test]
fn a_response_has_one_status_that_exists() {
    for status in ["99", "600", "20", "2000", "2x0", "101", ""] {
        assert_eq!(response(b"GET", true, &[(":status", status)], b""), ["reset 1 1"], "{status}");
    }
    assert_eq!(response(b"GET", true, &[("x-one", "1")], b""), ["reset 1 1"]);
    assert_eq!(response(b"GET", true, &[(":status", "200"), (":status", "200")], b""), ["reset 1 1"]);
    assert_eq!(response(b"GET", true, &[(":status", "200"), (":path", "/")], b""), ["reset 1 1"]);
    assert_eq!(response(b"GET", true, &[(":status", "599")], b""), ["head 1 end"]);
    assert_eq!(response(b"GET", true, &[(":status", "100")], b""), ["reset 1 1"]);
}

#[test]
fn responses_to_head_and_those_of_204_and_304_have_no_content() {
    let length = [(":status", "200"), ("content-length", "5")];
    assert_eq!(response(b"HEAD", true, &length, b""), ["head 1 end"]);
    assert_eq!(response(b"HEAD", false, &length, b""), ["head 1", "data 1  end"]);
    assert_eq!(response(b"HEAD", false, &length, b"hello"), ["head 1", "reset 1 1"]);
    assert_eq!(response(b"GET", true, &length, b""), ["reset 1 1"]);
    assert_eq!(response(b"GET", false, &length, b"hello"), ["head 1", "data 1 hello end"]);
    for status in ["204", "304"] {
        let length = [(":status", status), ("content-length", "5")];
        assert_eq!(response(b"GET", true, &length, b""), ["head 1 end"]);
        assert_eq!(response(b"GET", false, &length, b"hello"), ["head 1", "reset 1 1"]);
    }
}

#[test]
fn content_before_the_response_is_an_error() {
    let mut client = End::client();
    client.ask(b"GET", true, 0);
    assert_eq!(client.feed(&data(1, b"x", true)), ["reset 1 1"]);
}

#[test]
fn a_tunnel_has_no_length() {
    let mut client = End::client();
    let mut head = Head::new();
    head.start_request(b"CONNECT", b"*", b"a.test:80").unwrap();
    let id = client.connection.open(&head, false, 0, &mut client.out).unwrap();
    let head = client.head(1, false, &[(":status", "200"), ("content-length", "1")]);
    assert_eq!(client.feed(&[head, data(1, b"more", false)].concat()), ["head 1", "data 1 more"]);
    assert_eq!(client.connection.send_data(id, b"and back", true, &mut client.out), Ok(8));
}

#[test]
fn a_list_that_is_too_large_can_be_answered() {
    let mut end = End::server_with(&Config { max_header_list: 1000, ..config() });
    let long = "v".repeat(1000);
    let bytes = end.head(1, false, &[POST, &[("x-long", &long)]].concat());
    assert_eq!(end.feed(&bytes), ["rejected 1 431"]);
    assert_eq!(end.head.path(), b"/", "what was read is there for the record");
    assert_eq!(end.feed(&data(1, b"unwanted", false)), NOTHING);
    end.answer(1, 431, true);
    assert_eq!(end.sent(), ["HEADERS 1 5", "RST_STREAM 1 0"]);
    assert_eq!(end.feed(&data(1, b"unwanted", true)), NOTHING);
    let get = end.get(3);
    assert_eq!(end.feed(&get), ["head 3 end"]);
}

#[test]
fn what_goes_out_is_what_came_in() {
    let mut fields = with(&[
        ("te", "trailers"),
        ("x-request-id", "1"),
        ("cookie", "a=b"),
        ("authorization", "secret"),
        ("x-one", "1"),
    ]);
    fields[2].1 = "/p?q";
    let head = fine(&fields);
    let mut client = End::client();
    client.connection.open(&head, true, 0, &mut client.out).unwrap();
    let mut server = End::server();
    assert_eq!(server.feed(&client.out), ["head 1 end"]);
    let lines = |head: &Head| -> Vec<(Vec<u8>, Vec<u8>)> {
        head.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
    };
    assert_eq!(lines(&server.head), lines(&head));
    assert_eq!((server.head.target(), server.head.authority()), (head.target(), head.authority()));
}

#[test]
fn a_head_of_http_1_goes_out_in_lower_case_and_without_its_connection() {
    use crate::head::{Name, Value};
    let mut head = Head::new();
    head.start_request(b"PURGE", b"/a", b"a.test").unwrap();
    for (name, value) in
        [("X-One", "1"), ("TE", "gzip, Trailers"), ("Upgrade", "x"), ("Host", "b"), ("Connection", "te")]
    {
        let name = Name::new(name.as_bytes()).unwrap();
        head.append(&name, Value::new(value.as_bytes()).unwrap()).unwrap();
    }
    let mut client = End::client();
    client.connection.open(&head, true, 0, &mut client.out).unwrap();
    let mut server = End::server();
    assert_eq!(server.feed(&client.out), ["head 1 end"]);
    assert_eq!((server.head.method_text(), server.head.authority()), (&b"PURGE"[..], Some(&b"a.test"[..])));
    let lines: Vec<_> = server.head.iter().collect();
    assert_eq!(lines, [(&b"x-one"[..], &b"1"[..]), (b"te", b"trailers")]);
}

#[test]
fn a_head_is_not_sent_to_who_would_not_read_it() {
    let mut client = End::client();
    client.feed(&settings(&[(6, 300)]));
    let mut head = Head::new();
    head.start_request(b"GET", b"/", b"a.test").unwrap();
    assert!(client.connection.open(&head, true, 0, &mut client.out).is_ok());
    head.start_request(b"GET", format!("/{}", "x".repeat(300)).as_bytes(), b"a.test").unwrap();
    client.out.clear();
    assert_eq!(client.connection.open(&head, true, 0, &mut client.out), Err(OpenError::TooLarge));
    head.start_request(b"CONNECT", b"/", b"a.test").unwrap();
    head.start.protocol = head.add_text(b"websocket").unwrap();
    assert_eq!(client.connection.open(&head, true, 0, &mut client.out), Err(OpenError::NoExtendedConnect));
    assert_eq!(client.out, b"");
}
