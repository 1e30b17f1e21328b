// SPDX-License-Identifier: Apache-2.0
//! Request shapes that two readers could understand differently (RFC 9112, section 11.2), sent through a
//! server's and a client's machine as a proxy does: refused, with what is answered, or the exact bytes that
//! go upstream. Behind each shape stands a request that must not be reached, or be a request of its own.

use weft_ebpf_common::reason::Reason;
use weft_http::{
    h1::{Client, Length, Limits},
    head::Head,
};

use crate::{proxy::proxy, support::text};

const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
const HIDDEN_SENT: &str = "GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n";

/// The request is refused with this status, whatever pieces it comes in; what is behind it is not reached.
fn refused(count: &mut usize, status: u16, request: &str) {
    *count += 1;
    let input = [request.as_bytes(), HIDDEN.as_bytes()].concat();
    for piece in [input.len(), 1, 7] {
        let outcome = proxy(&input, piece);
        let error =
            outcome.refused.unwrap_or_else(|| panic!("taken: {request:?}: {}", text(&outcome.upstream)));
        assert_eq!(error.status, Some(status), "{request:?}: {error}");
        let reason = match status {
            414 => Reason::UriTooLong,
            431 => Reason::HeadersTooLarge,
            501 if request.starts_with("CONNECT ") => Reason::TunnelUnsupported,
            _ => Reason::BadRequest,
        };
        assert_eq!(error.reason, reason, "{request:?}");
        let upstream = text(&outcome.upstream);
        assert!(!upstream.contains("hidden") && !upstream.ends_with("0\r\n\r\n"), "{request:?}: {upstream}");
        let answers = text(&outcome.answers);
        assert!(answers.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {answers}");
        assert_eq!(answers.matches("HTTP/1.1").count(), 1, "{request:?}: {answers}");
    }
}

/// The request goes upstream as exactly this, and what is behind it is a request of its own.
fn sent(count: &mut usize, request: &str, expected: &str) {
    *count += 1;
    let input = [request.as_bytes(), HIDDEN.as_bytes()].concat();
    let outcome = proxy(&input, input.len());
    assert_eq!(outcome.refused, None, "{request:?}");
    assert_eq!(text(&outcome.upstream), format!("{expected}{HIDDEN_SENT}"), "{request:?}");
    assert_eq!(outcome.requests, 2, "{request:?}");
    // In pieces, chunks may be others, and nothing else.
    let pieces = proxy(&input, 1);
    assert_eq!((pieces.refused, pieces.requests), (None, 2), "{request:?}");
}

#[test]
fn every_shape_is_refused_or_has_one_meaning() {
    let mut count = 0;
    framing(&mut count);
    lines(&mut count);
    request_lines(&mut count);
    hosts(&mut count);
    chunks(&mut count);
    normalised(&mut count);
    normalised_fields(&mut count);
    assert!(count >= 180, "{count} shapes");
}

/// Two framings, or one that is not clear (RFC 9112, sections 6.1 and 6.3).
fn framing(count: &mut usize) {
    for fields in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nX: 1\r\nContent-Length: 0",
        "content-length: 3\r\ntransfer-encoding: CHUNKED",
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3\r\nX: 1\r\ncontent-length: 3",
        "Content-Length: 0\r\nCONTENT-LENGTH: 3",
        "Content-Length: 3, 3",
        "Content-Length: 3,4",
        "Content-Length: 3 4",
        "Content-Length: 3;4",
        "Content-Length: +3",
        "Content-Length: -3",
        "Content-Length: -0",
        "Content-Length: 0x3",
        "Content-Length: 3h",
        "Content-Length: 3.0",
        "Content-Length: 3e0",
        "Content-Length: 1_000",
        "Content-Length: \"3\"",
        "Content-Length: '3'",
        "Content-Length: three",
        "Content-Length:",
        "Content-Length: ",
        "Content-Length: ,",
        "Content-Length: 18446744073709551616",
        "Content-Length: 18446744073709551615",
        "Content-Length: 9223372036854775808",
        "Content-Length: 99999999999999999999999999999999",
        "Content-Length: \u{663}",
        "Content-Length: 3\u{b}",
        "Content-Length: \u{c}3",
        "Content-Length: 3\u{0}",
        "Content-Length : 3",
        "Content-Length\t: 3",
        " Content-Length: 3",
        "X: 1\r\n\tContent-Length: 3",
        "Content-Length\u{b}: 3",
        "Content\u{0}-Length: 3",
        "Content\rLength: 3",
        "Content Length: 3",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked,chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding:",
        "Transfer-Encoding: ,",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: chunk",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: chunked foo",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: chunked\u{b}",
        "Transfer-Encoding: \u{0}chunked",
        "Transfer-Encoding: ch\u{0}unked",
        "Transfer-Encoding: \u{ff}chunked",
        "Transfer-Encoding: c\u{130}hunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding:\nchunked",
        "Transfer-Encoding\u{0}: chunked",
        "Transfer\rEncoding: chunked",
        "X: 1\nTransfer-Encoding: chunked",
        "X: 1\rTransfer-Encoding: chunked",
        "X: 1\r\rTransfer-Encoding: chunked",
        "X: 1\u{85}Transfer-Encoding : chunked\r\nTransfer-Encoding : chunked",
    ] {
        refused(count, 400, &format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\nabc"));
    }
    for coding in ["gzip, chunked", "deflate,chunked", "foo , chunked", "identity, chunked"] {
        let fields = format!("Transfer-Encoding: {coding}");
        refused(count, 501, &format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n"));
    }
    for fields in ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nConnection: keep-alive"] {
        refused(count, 400, &format!("POST / HTTP/1.0\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n"));
    }
}

/// Lines and names (sections 2.2, 5.1 and 5.2).
fn lines(count: &mut usize) {
    for head in [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\r\n\r\n",
        "GET / HTTP/1.1\rHost: a\r\r\r\n\r\n",
        "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\tX: folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n \r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\u{0}Y: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\u{0}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\u{7f}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \u{1b}[1m\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\u{e4}: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\"X\": 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX[1]: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX/Y: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n(X): 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: a\r\nUpgrade: b\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        " \r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        refused(count, 400, head);
    }
    refused(count, 431, &format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(128)));
    refused(count, 431, &format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000)));
    refused(count, 400, &format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", ["x"; 40].join(",")));
}

/// The request line (section 3).
fn request_lines(count: &mut usize) {
    for line in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET\u{b}/ HTTP/1.1",
        "G@T / HTTP/1.1",
        "GET: / HTTP/1.1",
        "GET\u{0} / HTTP/1.1",
        "GET /",
        "GET / ",
        "GET",
        "/ HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/1.10",
        "GET / HTTP/11",
        "GET / HTTP/1",
        "GET / HTTP/01.1",
        "GET / HTTP 1.1",
        "GET / HTTPS/1.1",
        "GET / HTTP/1.1,HTTP/1.0",
        "GET / HTTP/1.1 X: 1",
        "GET / X HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /\u{1} HTTP/1.1",
        "GET /\u{0} HTTP/1.1",
        "GET /\u{e4} HTTP/1.1",
        "GET /#f HTTP/1.1",
        "GET /?q#f HTTP/1.1",
        "GET /<x> HTTP/1.1",
        "GET /?\"x\" HTTP/1.1",
        "GET a HTTP/1.1",
        "GET ../x HTTP/1.1",
        "GET ?x HTTP/1.1",
        "GET * HTTP/1.1",
        "OPTIONS ** HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET file:///etc HTTP/1.1",
        "GET javascript:x HTTP/1.1",
        "GET http:/a HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET http://u@a/ HTTP/1.1",
        "GET http://a\\b/ HTTP/1.1",
        "GET http://a:b/ HTTP/1.1",
        "GET http://[::1/ HTTP/1.1",
        "GET http://a,b/ HTTP/1.1",
        "GET http://a#b/ HTTP/1.1",
    ] {
        refused(count, 400, &format!("{line}\r\nHost: a\r\n\r\n"));
    }
    for line in ["GET / HTTP/2.0", "GET / HTTP/1.2", "GET / HTTP/0.9", "GET / HTTP/3.0", "PRI * HTTP/2.0"] {
        refused(count, 505, &format!("{line}\r\nHost: a\r\n\r\n"));
    }
    refused(count, 501, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n");
    refused(count, 501, &format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(48)));
    refused(count, 414, &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(17_000)));
}

/// Host (section 3.2).
fn hosts(count: &mut usize) {
    for fields in [
        "X: 1",
        "Host: a\r\nHost: a",
        "Host: a\r\nHost: b",
        "Host: a\r\nX: 1\r\nhOST: b",
        "Host: a b",
        "Host: a/b",
        "Host: a?b",
        "Host: a#b",
        "Host: a\\b",
        "Host: u@a",
        "Host: u:p@a",
        "Host: a:b",
        "Host: a:80:80",
        "Host: a:99999",
        "Host: a:-1",
        "Host: a:+80",
        "Host: a: 80",
        "Host: :80",
        "Host: a,b",
        "Host: a;b",
        "Host: a%00",
        "Host: a%2eb",
        "Host: \u{e4}",
        "Host: a\u{0}",
        "Host: [::1]x",
        "Host: [::1,b]",
        "Host: [::1",
        "Host: ::1",
        "Host: []",
        "Host: [::1%25eth0]",
        "Host: http://a",
        "Host: \"a\"",
        "Host: a\tb",
        "Host: (a)",
    ] {
        refused(count, 400, &format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n"));
    }
    refused(count, 400, "GET http://a/ HTTP/1.1\r\n\r\n");
    refused(count, 400, "GET http://a/ HTTP/1.1\r\nHost: b,c\r\n\r\n");
    refused(count, 400, "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n");
    refused(count, 400, "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n");
}

/// Chunked content (section 7.1).
fn chunks(count: &mut usize) {
    let long_extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(300));
    let extensions = format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "a".repeat(200)).repeat(30));
    let trailers = format!("0\r\n{}\r\n", "X: 1\r\n".repeat(200));
    let long_trailers = format!("0\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    for content in [
        "\r\n",
        "x\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\t\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-1\r\n",
        "-0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3h\r\nabc\r\n0\r\n\r\n",
        "3.\r\nabc\r\n0\r\n\r\n",
        "3,\r\nabc\r\n0\r\n\r\n",
        "\"3\"\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "3\r\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\r0\r\n\r\n",
        "3\r\nabc\r\r\n0\r\n\r\n",
        "3\r\nabc \r\n0\r\n\r\n",
        "3;\u{0}\r\nabc\r\n0\r\n\r\n",
        "3;a\rb\r\nabc\r\n0\r\n\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3 ;a\r\nabc\r\n0\r\n\r\n",
        "3 a\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffff\r\n",
        "10000000000000000\r\nabc",
        "0000000000000003\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "0\r\nX : 1\r\n\r\n",
        "0\r\n X: 1\r\n\r\n",
        "0\r\nX: 1\n\r\n",
        "0\r\nX: 1\r\n\n",
        "0\r\n\n",
        "0\n\r\n",
        "0\r\n\rX",
        "0\r\nno colon\r\n\r\n",
        "0\r\nX: \u{0}\r\n\r\n",
        "0\r\nContent-Length: x\r\n\r\n",
        "0\r\nTransfer-Encoding: gzip\r\n\r\n",
        &long_extension,
        &extensions,
        &trailers,
        &long_trailers,
    ] {
        refused(
            count,
            400,
            &format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{content}"),
        );
    }
}

/// What is taken is written anew: one framing, one host, nothing of the connection.
fn normalised(count: &mut usize) {
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
        ("GET / HTTP/1.1\r\nHOST:a\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
        ("GET / HTTP/1.1\r\nhost: \t a \t\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET / HTTP/1.1\r\nhost: \r\n\r\n".to_owned()),
        (
            "GET / HTTP/1.1\r\nHost: [fd00::1]:80\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: [fd00::1]:80\r\n\r\n".to_owned(),
        ),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", "get / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
        ("GET http://b/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET /x?y HTTP/1.1\r\nhost: b\r\n\r\n".to_owned()),
        ("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nhost: b\r\n\r\n".to_owned()),
        ("GET http://b?y HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?y HTTP/1.1\r\nhost: b\r\n\r\n".to_owned()),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n".to_owned()),
        ("OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\nhost: b\r\n\r\n".to_owned()),
        (
            "GET //x/../y%2f HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET //x/../y%2f HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        ),
    ] {
        sent(count, request, &expected);
    }
}

/// The same for content and for fields of the connection.
fn normalised_fields(count: &mut usize) {
    let chunked = "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for (request, expected) in [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nhost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabc",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc".to_owned(),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:3 \t\r\n\r\nabc",
            "POST / HTTP/1.1\r\nhost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            "GET / HTTP/1.1\r\nhost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            format!("POST / HTTP/1.1\r\nhost: a\r\n{chunked}"),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING:\tChunked \r\n\r\n003;x=\"y\"\r\nabc\r\n0;z\r\n\r\n",
            format!("POST / HTTP/1.1\r\nhost: a\r\n{chunked}"),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\
             Content-Length: 9\r\nHost: b\r\nConnection: X-A\r\nX-A: 1\r\nX-T: 2\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 2\r\n\r\n"
                .to_owned(),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-A, keep-alive\r\nX-A: 1\r\nx-a: 2\r\nX-B: 3\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nX-B: 3\r\n\r\n".to_owned(),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length, host, transfer-encoding\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nhost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nTE: trailers\r\nconnection: te\r\n\r\n".to_owned(),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 9\r\nTransfer_Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nContent_Length: 9\r\nTransfer_Encoding: chunked\r\n\r\n".to_owned(),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX: 1:2:Content-Length: 3\r\nY:\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nX: 1:2:Content-Length: 3\r\nY:\r\n\r\n".to_owned(),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX: \u{e4}\tb \t\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nX: \u{e4}\tb\r\n\r\n".to_owned(),
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
            "GET / HTTP/1.1\r\nhost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        ),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET / HTTP/1.1\r\nhost: \r\n\r\n".to_owned()),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nhost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        ),
    ] {
        sent(count, request, &expected);
    }
}

/// A request that ends its connection hides nothing: what follows it is not read.
#[test]
fn nothing_follows_the_last_request_of_a_connection() {
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let outcome = proxy(&[request, HIDDEN].concat().into_bytes(), usize::MAX);
        assert_eq!((outcome.requests, outcome.refused), (1, None), "{request:?}");
        assert!(text(&outcome.answers).contains("connection: close"), "{request:?}");
    }
}

/// An upgrade that was not answered leaves the connection HTTP.
#[test]
fn an_offer_that_is_not_taken_hides_nothing() {
    let offer = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let outcome = proxy(&[offer, HIDDEN].concat().into_bytes(), usize::MAX);
    let upstream = text(&outcome.upstream);
    assert_eq!(outcome.requests, 2);
    let expected = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    assert_eq!(upstream, format!("{expected}{HIDDEN_SENT}"));
}

#[test]
fn content_without_a_known_length_is_never_written_as_one() {
    let mut client = Client::new(Limits::default());
    let mut head = Head::new();
    head.start_request(b"POST", b"/", b"a").expect("valid");
    let mut out = Vec::new();
    client.send_head(&head, Length::Unknown, &mut out).expect("idle");
    client.send_data(b"0\r\n\r\n", &mut out).expect("content");
    client.finish(&mut out).expect("complete");
    assert!(text(&out).ends_with("\r\n\r\n5\r\n0\r\n\r\n\r\n0\r\n\r\n"));
}
