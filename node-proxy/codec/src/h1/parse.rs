// SPDX-License-Identifier: Apache-2.0
//! Heads and trailers, strictly: what RFC 9112 lets a recipient refuse is refused, because a reader
//! behind us may understand it differently (request smuggling, RFC 9112 section 11.2).

use std::ops::Range;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode, Version};
use weft_ebpf_common::reason::Reason;

use super::{
    fields::{Fields, Length, line_end},
    scan::{self, MAX_METHOD_BYTES, TARGET_TOO_LONG},
};
use crate::{
    config::H1Config,
    error::ProtocolError,
    headers::Headers,
    message::{RequestHead, ResponseHead},
};

/// What the head says about its message and connection, besides the head itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framing {
    pub(crate) length: Length,
    /// The connection can carry another message after this one.
    pub(crate) keep_alive: bool,
    /// The client waits for `100 Continue`.
    pub(crate) expects_continue: bool,
}

/// Parses a complete request head.
pub(crate) fn request(
    head: Bytes,
    config: &H1Config,
    scheme: &Scheme,
) -> Result<(RequestHead, Framing), ProtocolError> {
    let line = RequestLine::parse(&head, config)?;
    let fields_at = line.end;
    let fields = Fields::parse(head, fields_at, config.max_headers)?;
    let length = fields.length()?;
    if line.version == Version::HTTP_10 && length == Length::Chunked {
        return Err(ProtocolError::bad_request("transfer-encoding in an HTTP/1.0 request"));
    }
    if line.version == Version::HTTP_11 && fields.host.is_none() {
        return Err(ProtocolError::bad_request("an HTTP/1.1 request without host"));
    }
    let wire = fields.block.wire().clone();
    let from_host = match &fields.host {
        Some(host) if !host.is_empty() => Some(authority(wire.slice(host.clone()))?),
        _ => None,
    };
    let from_target = line.authority.map(|range| authority(wire.slice(range))).transpose()?;
    let target = path_and_query(&wire, line.target)?;
    let framing = Framing {
        length,
        keep_alive: fields.keeps_alive(line.version),
        expects_continue: fields.expects_continue && line.version == Version::HTTP_11,
    };
    // Whatever follows an upgrade goes through as bytes. Of what servers offer, `h2c` would hide further
    // requests from routes and policies, and so only WebSocket is passed on (RFC 6455 section 4.1).
    let tunnels =
        |offer: &Bytes| line.version == Version::HTTP_11 && offer.eq_ignore_ascii_case(b"websocket");
    let upgrade = fields.upgrade(&wire).filter(tunnels);
    let head = RequestHead {
        method: line.method,
        target,
        // The authority of an absolute target replaces Host (RFC 9112 section 3.2.2).
        authority: from_target.or(from_host),
        scheme: scheme.clone(),
        version: line.version,
        headers: Headers::from_block(fields.end_to_end()),
        upgrade,
    };
    Ok((head, framing))
}

/// Parses a complete response head. Every error is the upstream's.
pub(crate) fn response(head: Bytes, config: &H1Config) -> Result<(ResponseHead, Framing), ProtocolError> {
    let (version, status, fields_at) = status_line(&head)?;
    let fields = Fields::parse(head, fields_at, config.max_headers)?;
    let length = fields.length()?;
    if version == Version::HTTP_10 && length == Length::Chunked {
        return Err(ProtocolError::bad_request("transfer-encoding in an HTTP/1.0 response"));
    }
    let framing = Framing { length, keep_alive: fields.keeps_alive(version), expects_continue: false };
    let upgrade = fields.upgrade(fields.block.wire());
    let headers = Headers::from_block(fields.end_to_end());
    Ok((ResponseHead { status, version, headers, upgrade }, framing))
}

/// Parses a complete trailer section. Framing and connection-specific fields are left out: they mean
/// nothing there (RFC 9110 section 6.5.1).
pub(crate) fn trailers(section: Bytes, max_fields: usize) -> Result<Headers, ProtocolError> {
    let fields = Fields::parse(section, 0, max_fields)?;
    let mut headers = Headers::from_block(fields.end_to_end());
    headers.remove(&http::header::CONTENT_LENGTH);
    Ok(headers)
}

struct RequestLine {
    method: Method,
    version: Version,
    authority: Option<Range<usize>>,
    target: TargetPart,
    /// Where the fields start.
    end: usize,
}

/// Where path and query are: in the received bytes, or spelled out because the target has no path.
enum TargetPart {
    At(Range<usize>),
    RootWithQuery(Range<usize>),
    Root,
    Asterisk,
}

impl RequestLine {
    fn parse(head: &[u8], config: &H1Config) -> Result<RequestLine, ProtocolError> {
        let end = line_end(head, 0)?;
        let line = &head[..end];
        let method_len = line.iter().position(|byte| !scan::is_token(*byte)).unwrap_or(line.len());
        if method_len == 0 || line.get(method_len) != Some(&b' ') {
            return Err(ProtocolError::bad_request("the request line does not start with a method"));
        }
        if method_len > MAX_METHOD_BYTES {
            return Err(NOT_IMPLEMENTED);
        }
        let target_at = method_len + 1;
        let target_len = line[target_at..]
            .iter()
            .position(|byte| !scan::is_target(*byte))
            .ok_or(ProtocolError::bad_request("the request line has no version"))?;
        let target = target_at..target_at + target_len;
        if target.is_empty() || line[target.end] != b' ' {
            return Err(ProtocolError::bad_request("the request target has a byte that must be encoded"));
        }
        if target_len > config.max_target_bytes {
            return Err(TARGET_TOO_LONG);
        }
        let version = match &line[target.end + 1..] {
            b"HTTP/1.1" => Version::HTTP_11,
            b"HTTP/1.0" => Version::HTTP_10,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                return Err(VERSION_NOT_SUPPORTED);
            }
            _ => return Err(ProtocolError::bad_request("the request line does not end with a version")),
        };
        let method = Method::from_bytes(&line[..method_len])
            .ok()
            .ok_or(ProtocolError::bad_request("the method is not a token"))?;
        let (authority, target) = target_form(head, target, &method)?;
        Ok(RequestLine { method, version, authority, target, end: end + 2 })
    }
}

/// The four forms of a target (RFC 9112 section 3.2).
fn target_form(
    head: &[u8],
    at: Range<usize>,
    method: &Method,
) -> Result<(Option<Range<usize>>, TargetPart), ProtocolError> {
    if method == Method::CONNECT {
        return Err(NOT_IMPLEMENTED);
    }
    let target = &head[at.clone()];
    if target[0] == b'/' {
        return Ok((None, TargetPart::At(at)));
    }
    if target == b"*" {
        return match *method {
            Method::OPTIONS => Ok((None, TargetPart::Asterisk)),
            _ => Err(ProtocolError::bad_request("a target of * for a method other than OPTIONS")),
        };
    }
    let has_scheme =
        |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|t| t.eq_ignore_ascii_case(scheme));
    let skipped = match () {
        () if has_scheme(b"http://") => 7,
        () if has_scheme(b"https://") => 8,
        () => return Err(ProtocolError::bad_request("the request target has no form that is known")),
    };
    let authority_len = target[skipped..]
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(target.len() - skipped);
    let rest = at.start + skipped + authority_len..at.end;
    let part = match head[rest.clone()].first() {
        Some(b'/') => TargetPart::At(rest),
        Some(_) => TargetPart::RootWithQuery(rest),
        // RFC 9112 section 3.2.4: the asterisk form stands for a URI without path.
        None if *method == Method::OPTIONS => TargetPart::Asterisk,
        None => TargetPart::Root,
    };
    Ok((Some(at.start + skipped..at.start + skipped + authority_len), part))
}

fn path_and_query(wire: &Bytes, part: TargetPart) -> Result<PathAndQuery, ProtocolError> {
    let bytes = match part {
        TargetPart::Root => return Ok(PathAndQuery::from_static("/")),
        TargetPart::Asterisk => return Ok(PathAndQuery::from_static("*")),
        TargetPart::At(range) => wire.slice(range),
        TargetPart::RootWithQuery(range) => [b"/", &wire[range]].concat().into(),
    };
    PathAndQuery::from_maybe_shared(bytes)
        .ok()
        .ok_or(ProtocolError::bad_request("the request target has a byte that must be encoded"))
}

/// Host and optional port; user information is refused (RFC 9110 section 4.2.4).
pub(crate) fn authority(bytes: Bytes) -> Result<Authority, ProtocolError> {
    const INVALID: ProtocolError = ProtocolError::bad_request("host is not a host with an optional port");
    Authority::from_maybe_shared(bytes).ok().filter(is_host_and_port).ok_or(INVALID)
}

/// Whether the authority is a host, and nothing or a colon and a port (which may be empty, RFC 3986
/// section 3.2.3) behind it.
///
/// Of the characters that RFC 3986 allows, those that no name uses (`,`, `;`, `%`, ...) are refused: a
/// reader behind us may split at them.
pub(crate) fn is_host_and_port(authority: &Authority) -> bool {
    let text = authority.as_str().as_bytes();
    let host = match text {
        [b'[', rest @ ..] => match rest.iter().position(|byte| !is_in_literal(*byte)) {
            Some(end) if end > 0 && rest[end] == b']' => end + 2,
            _ => 0,
        },
        _ => text.iter().position(|byte| !is_named(*byte)).unwrap_or(text.len()),
    };
    match text.get(host) {
        _ if host == 0 => false,
        None => true,
        Some(b':') => is_port(&text[host + 1..]),
        Some(_) => false,
    }
}

/// Bytes of an IPv6 address; zone identifiers mean nothing to another host.
const fn is_in_literal(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')
}

const fn is_named(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn is_port(digits: &[u8]) -> bool {
    let value = |sum: u32, digit: &u8| sum * 10 + u32::from(digit.wrapping_sub(b'0'));
    digits.len() <= 5
        && digits.iter().all(u8::is_ascii_digit)
        && digits.iter().fold(0, value) <= u32::from(u16::MAX)
}

fn status_line(head: &[u8]) -> Result<(Version, StatusCode, usize), ProtocolError> {
    const INVALID: ProtocolError = ProtocolError::bad_request("the status line is malformed");
    let end = line_end(head, 0)?;
    let line = &head[..end];
    let version = match line.get(..9) {
        Some(b"HTTP/1.1 ") => Version::HTTP_11,
        Some(b"HTTP/1.0 ") => Version::HTTP_10,
        _ => return Err(INVALID),
    };
    let status = line.get(9..12).and_then(|code| StatusCode::from_bytes(code).ok()).ok_or(INVALID)?;
    // Some servers leave out the space before an empty reason phrase.
    match line.get(12) {
        None | Some(b' ') => Ok((version, status, end + 2)),
        Some(_) => Err(INVALID),
    }
}

const NOT_IMPLEMENTED: ProtocolError =
    ProtocolError::new(Reason::BadRequest, StatusCode::NOT_IMPLEMENTED, "the method is not supported");

const VERSION_NOT_SUPPORTED: ProtocolError = ProtocolError::new(
    Reason::BadRequest,
    StatusCode::HTTP_VERSION_NOT_SUPPORTED,
    "the request line names a version that is not HTTP/1.0 or HTTP/1.1",
);

#[cfg(test)]
mod tests;
