// SPDX-License-Identifier: Apache-2.0
//! Heads and trailers, strictly: what RFC 9112 lets a recipient refuse is refused, because a reader
//! behind us may understand it differently (request smuggling, RFC 9112, section 11.2).

use weft_ebpf_common::reason::Reason;

use super::{
    Limits,
    fields::{Framing, Said},
    scan::{Bounds, HEAD_TOO_LARGE, Scan, TARGET_TOO_LONG},
};
use crate::{
    error::Error,
    head::{Head, Kind, Method, Scheme, Span, Target, Version},
    octets,
};

/// What a head says about its message and connection, besides the head itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outline {
    pub(super) framing: Framing,
    /// The connection can carry another message after this one.
    pub(super) keep_alive: bool,
    /// The client waits for `100 Continue`.
    pub(super) expects_continue: bool,
}

/// Longest method that is looked at; the registered ones have at most 17 bytes (RFC 9110, section 16.1.2).
const MAX_METHOD_BYTES: usize = 32;
/// Two spaces, the version and the line end around method and target.
const AROUND_TARGET: usize = 12;

impl Limits {
    pub(super) fn of_request(&self) -> Bounds {
        Bounds {
            first_line: self.target_bytes + MAX_METHOD_BYTES + AROUND_TARGET,
            bytes: self.head_bytes,
            lines: self.fields + 1,
        }
    }

    pub(super) fn of_response(&self) -> Bounds {
        Bounds { first_line: usize::MAX, bytes: self.head_bytes, lines: self.fields + 1 }
    }

    pub(super) fn of_trailers(&self) -> Bounds {
        Bounds { first_line: usize::MAX, bytes: self.trailer_bytes, lines: self.fields }
    }
}

/// Parses a section that may be incomplete: at once if it was not looked at before, else when its end is
/// in sight. `parse` may err on an incomplete section, which then is one; the head is empty unless the
/// section was complete.
pub(super) fn section<T>(
    scan: &mut Scan,
    bounds: &Bounds,
    input: &[u8],
    head: &mut Head,
    parse: impl FnOnce(&[u8], &mut Head) -> Result<(usize, T), Error>,
) -> Result<Option<(usize, T)>, Error> {
    let known = match scan.has_begun() {
        false => None,
        true => match scan.section_len(input, bounds)? {
            None => return Ok(None),
            complete => complete,
        },
    };
    head.clear();
    match parse(&input[..known.unwrap_or(input.len())], head) {
        Ok((len, said)) if len <= bounds.bytes => {
            *scan = Scan::default();
            Ok(Some((len, said)))
        }
        Ok(_) => Err(HEAD_TOO_LARGE),
        Err(error) => {
            head.clear();
            match known {
                Some(_) => Err(error),
                None => scan.section_len(input, bounds)?.map_or(Ok(None), |_| Err(error)),
            }
        }
    }
}

/// Parses the head of a request that starts the input; its bytes and what it says.
pub(super) fn request(
    input: &[u8],
    head: &mut Head,
    limits: &Limits,
    scheme: Scheme,
) -> Result<(usize, Outline), Error> {
    let line = RequestLine::parse(input, limits)?;
    let mut said = Said::default();
    let len = said.read(input, line.end, head, limits.fields)?;
    head.text_mut().extend_from_slice(&input[..len]);
    said.remove_nominated(head);
    let framing = said.framing()?;
    if line.version == Version::Http10 && framing == Framing::Chunked {
        return Err(Error::bad_request("transfer-encoding in an HTTP/1.0 request"));
    }
    if line.version == Version::Http11 && said.host.is_none() {
        return Err(Error::bad_request("an HTTP/1.1 request without host"));
    }
    if line.method == Method::Connect && framing != Framing::Unsaid {
        return Err(Error::bad_request("content in a CONNECT request"));
    }
    let host = said.host.filter(|host| !host.is_empty());
    for authority in [host, line.authority].into_iter().flatten() {
        if !octets::is_host_and_port(authority.of(input)) {
            return Err(Error::bad_request("host is not a host with an optional port"));
        }
    }
    let start = &mut head.start;
    start.kind = Kind::Request;
    start.version = line.version;
    start.method = line.method;
    start.method_text = Span::new(0, line.method_len);
    start.scheme = scheme;
    // The authority of an absolute target replaces Host (RFC 9112, section 3.2.2).
    start.authority = line.authority.or(host).unwrap_or_default();
    start.received_authority = start.authority;
    // Whatever follows an upgrade goes through as bytes. Of what servers offer, `h2c` would hide further
    // requests from routes and policies, and so only WebSocket is passed on (RFC 6455, section 4.1).
    let tunnels = |offer: &Span| offer.of(input).eq_ignore_ascii_case(b"websocket");
    start.upgrade = match line.version {
        Version::Http11 => said.upgrade().filter(tunnels).unwrap_or_default(),
        _ => Span::default(),
    };
    set_target(head, &line.target)?;
    let outline = Outline {
        framing,
        keep_alive: said.keeps_alive(line.version),
        expects_continue: said.expects_continue && line.version == Version::Http11,
    };
    Ok((len, outline))
}

/// Parses the head of a response that starts the input. Every error is the upstream's.
pub(super) fn response(input: &[u8], head: &mut Head, limits: &Limits) -> Result<(usize, Outline), Error> {
    let (version, status, fields_at) = status_line(input)?;
    let mut said = Said::default();
    let len = said.read(input, fields_at, head, limits.fields)?;
    head.text_mut().extend_from_slice(&input[..len]);
    said.remove_nominated(head);
    let framing = said.framing()?;
    if version == Version::Http10 && framing == Framing::Chunked {
        return Err(Error::bad_request("transfer-encoding in an HTTP/1.0 response"));
    }
    head.start.kind = Kind::Response;
    head.start.version = version;
    head.start.status = status;
    head.start.upgrade = said.upgrade().unwrap_or_default();
    Ok((len, Outline { framing, keep_alive: said.keeps_alive(version), expects_continue: false }))
}

/// Parses a trailer section that starts the input. Framing and connection-specific fields are left out:
/// they mean nothing there (RFC 9110, section 6.5.1).
pub(super) fn trailers(input: &[u8], head: &mut Head, limits: &Limits) -> Result<(usize, ()), Error> {
    let mut said = Said::default();
    let len = said.read(input, 0, head, limits.fields)?;
    head.text_mut().extend_from_slice(&input[..len]);
    said.remove_nominated(head);
    head.remove(&crate::head::FieldName::ContentLength.into());
    Ok((len, ()))
}

struct RequestLine {
    method: Method,
    method_len: usize,
    version: Version,
    authority: Option<Span>,
    target: TargetPart,
    /// Where the fields start.
    end: usize,
}

/// Where path and query are: in the received bytes, or spelled out because the target has no path.
enum TargetPart {
    At(Target),
    /// A slash has to stand before it.
    RootWithQuery(Span),
    Root,
    Asterisk,
    /// CONNECT has none.
    None,
}

impl RequestLine {
    fn parse(input: &[u8], limits: &Limits) -> Result<RequestLine, Error> {
        let method_len = octets::run(input, octets::TOKEN);
        if method_len == 0 || input.get(method_len) != Some(&b' ') {
            return Err(Error::bad_request("the request line does not start with a method"));
        }
        if method_len > MAX_METHOD_BYTES {
            return Err(NOT_IMPLEMENTED);
        }
        let method = Method::of(&input[..method_len]);
        let at = method_len + 1;
        let path = at + octets::run(&input[at..], octets::PATH);
        let end = match input.get(path) {
            Some(b'?') => path + octets::run(&input[path..], octets::QUERY),
            _ => path,
        };
        if end == at || input.get(end) != Some(&b' ') {
            return Err(Error::bad_request("the request target has a byte that must be encoded"));
        }
        if end - at > limits.target_bytes {
            return Err(TARGET_TOO_LONG);
        }
        let version = version(input.get(end + 1..).unwrap_or_default())?;
        let (authority, target) = target_form(input, at, path, end, method, limits)?;
        // The space, eight bytes of the version, and the line end.
        Ok(RequestLine { method, method_len, version, authority, target, end: end + 11 })
    }
}

/// The version that ends a request line, with its line end.
fn version(rest: &[u8]) -> Result<Version, Error> {
    match rest.first_chunk::<10>() {
        // As one comparison, which a pattern is not.
        Some(text) if *text == *b"HTTP/1.1\r\n" => Ok(Version::Http11),
        Some(b"HTTP/1.0\r\n") => Ok(Version::Http10),
        Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9', b'\r', b'\n']) => {
            Err(VERSION_NOT_SUPPORTED)
        }
        _ => Err(Error::bad_request("the request line does not end with a version")),
    }
}

/// The four forms of a target (RFC 9112, section 3.2). Its path, if it has one, ends at `path`.
#[inline]
fn target_form(
    input: &[u8],
    at: usize,
    path: usize,
    end: usize,
    method: Method,
    limits: &Limits,
) -> Result<(Option<Span>, TargetPart), Error> {
    if method == Method::Connect {
        return connect(input, at, end, limits);
    }
    if input[at] == b'/' {
        let target = Target { text: Span::new(at, end), query_at: (path - at) as u32 };
        return Ok((None, TargetPart::At(target)));
    }
    let target = &input[at..end];
    if target == b"*" {
        return match method {
            Method::Options => Ok((None, TargetPart::Asterisk)),
            _ => Err(Error::bad_request("a target of * for a method other than OPTIONS")),
        };
    }
    let has_scheme =
        |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|t| t.eq_ignore_ascii_case(scheme));
    let authority = at
        + match () {
            () if has_scheme(b"http://") => 7,
            () if has_scheme(b"https://") => 8,
            () => return Err(Error::bad_request("the request target has no form that is known")),
        };
    let len = input[authority..end].iter().position(|byte| matches!(byte, b'/' | b'?'));
    let rest = authority + len.unwrap_or(end - authority);
    let part = match input[rest..end].first() {
        Some(b'/') => TargetPart::At(Target { text: Span::new(rest, end), query_at: (path - rest) as u32 }),
        Some(_) => TargetPart::RootWithQuery(Span::new(rest, end)),
        // RFC 9112, section 3.2.4: the asterisk form stands for a URI without path.
        None if method == Method::Options => TargetPart::Asterisk,
        None => TargetPart::Root,
    };
    Ok((Some(Span::new(authority, rest)), part))
}

/// The authority form: host and port, both given (RFC 9110, section 9.3.6).
fn connect(
    input: &[u8],
    at: usize,
    end: usize,
    limits: &Limits,
) -> Result<(Option<Span>, TargetPart), Error> {
    if !limits.connect {
        return Err(Error::tunnel("connect is not relayed"));
    }
    let port = memchr::memrchr(b':', &input[at..end]).map(|colon| &input[at + colon + 1..end]);
    if port.is_none_or(|port| port.is_empty() || !port.iter().all(u8::is_ascii_digit)) {
        return Err(Error::bad_request("the target of CONNECT is not a host and a port"));
    }
    Ok((Some(Span::new(at, end)), TargetPart::None))
}

fn set_target(head: &mut Head, part: &TargetPart) -> Result<(), Error> {
    let target = match part {
        TargetPart::At(target) => *target,
        TargetPart::RootWithQuery(query) => {
            let at = head.text().len();
            head.text_mut().push(b'/');
            head.text_mut().extend_from_within(query.start()..query.end());
            Target { text: Span::new(at, head.text().len()), query_at: 1 }
        }
        TargetPart::Root | TargetPart::Asterisk => {
            let text: &[u8] = if matches!(part, TargetPart::Root) { b"/" } else { b"*" };
            Target { text: head.add_text(text).ok().ok_or(HEAD_TOO_LARGE)?, query_at: 1 }
        }
        TargetPart::None => Target::default(),
    };
    head.start.received = target;
    head.start.effective = target;
    Ok(())
}

fn status_line(input: &[u8]) -> Result<(Version, u16, usize), Error> {
    const INVALID: Error = Error::bad_request("the status line is malformed");
    let version = match input.first_chunk::<9>() {
        Some(text) if *text == *b"HTTP/1.1 " => Version::Http11,
        Some(b"HTTP/1.0 ") => Version::Http10,
        _ => return Err(INVALID),
    };
    let status = match input.get(9..12) {
        Some([a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => return Err(INVALID),
    };
    // Some servers leave out the space before an empty reason phrase.
    if !matches!(input.get(12), Some(b' ' | b'\r')) {
        return Err(INVALID);
    }
    let end = 12 + octets::value_len(&input[12..]);
    match input.get(end..end + 2) {
        Some(b"\r\n") => Ok((version, status, end + 2)),
        _ => Err(INVALID),
    }
}

const NOT_IMPLEMENTED: Error = Error::new(Reason::BadRequest, 501, "the method is not supported");

const VERSION_NOT_SUPPORTED: Error =
    Error::new(Reason::BadRequest, 505, "the request line names a version that is not HTTP/1.0 or HTTP/1.1");

#[cfg(test)]
mod tests;
