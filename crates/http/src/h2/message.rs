// SPDX-License-Identifier: Apache-2.0
//! From the fields of a header block to a head, by the rules of RFC 9113, section 8.
//!
//! What two readers could understand differently is malformed (section 8.1.1): everything is checked here, once,
//! so that whoever gets the head can write it as HTTP/1.1.

use crate::{
    head::{Field, FieldName, Head, Kind, Method, Scheme, Span, Start, Target, Version},
    hpack::{Entry, Sink},
    octets,
};

/// Fills a head with the fields of one block.
pub(crate) struct Reader<'h> {
    head: &'h mut Head,
    kind: Kind,
    /// Whether `:protocol` is allowed (RFC 8441).
    extended_connect: bool,
    /// The first rule that was broken.
    fault: Option<&'static str>,
    seen: Seen,
    /// A field that is no pseudo-field came.
    fields: bool,
    host: Option<Span>,
    content_length: Option<u64>,
}

/// The pseudo-fields that came.
#[derive(Clone, Copy, Default)]
struct Seen(u8);

impl Seen {
    const METHOD: u8 = 1;
    const SCHEME: u8 = 2;
    const AUTHORITY: u8 = 4;
    const PATH: u8 = 8;
    const PROTOCOL: u8 = 16;
    const STATUS: u8 = 32;

    #[inline]
    fn has(self, field: u8) -> bool {
        self.0 & field != 0
    }
}

impl Sink for Reader<'_> {
    #[inline(always)]
    fn field(&mut self, entry: &Entry<'_>) {
        if self.fault.is_some() {
            return;
        }
        let read = if !entry.valid {
            Err("a field has characters that it must not have")
        } else if entry.text().first() == Some(&b':') {
            self.pseudo(entry)
        } else {
            self.fields = true;
            match RULES[entry.known as usize] {
                Rule::None => self.push(entry),
                rule => self.by_rule(rule, entry),
            }
        };
        if let Err(fault) = read {
            self.fault = Some(fault);
        }
    }
}

/// What there is to look at in a field.
#[derive(Clone, Copy)]
enum Rule {
    None,
    Te,
    Host,
    Length,
    OfConnection,
}

/// The rule of each known name.
const RULES: [Rule; FieldName::ALL.len() + 1] = {
    let mut rules = [Rule::None; FieldName::ALL.len() + 1];
    let mut at = 0;
    while at < FieldName::ALL.len() {
        let name = FieldName::ALL[at];
        rules[name as usize] = match name {
            FieldName::Te => Rule::Te,
            FieldName::Host => Rule::Host,
            FieldName::ContentLength => Rule::Length,
            name if name.is_connection_specific() => Rule::OfConnection,
            _ => Rule::None,
        };
        at += 1;
    }
    rules
};

impl<'h> Reader<'h> {
    /// Clears the head, which will be one of a request, of a response, or trailers.
    pub(crate) fn new(head: &'h mut Head, kind: Kind, extended_connect: bool) -> Reader<'h> {
        head.clear();
        head.start = Start { kind, version: Version::Http2, ..Start::default() };
        let (seen, fields) = (Seen::default(), false);
        Reader { head, kind, extended_connect, fault: None, seen, fields, host: None, content_length: None }
    }

    /// The head is there: checks it as a whole, and returns the length of its content where it says one.
    pub(crate) fn finish(mut self) -> Result<Option<u64>, &'static str> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        match self.kind {
            Kind::Request => self.check_request()?,
            Kind::Response if !self.seen.has(Seen::STATUS) => return Err("a response without status"),
            Kind::Response | Kind::Trailers => {}
        }
        Ok(self.content_length)
    }

    #[inline]
    fn pseudo(&mut self, entry: &Entry<'_>) -> Result<(), &'static str> {
        if self.fields {
            return Err("a pseudo-field behind another field");
        }
        let (field, kind) = match entry.name() {
            b":method" => (Seen::METHOD, Kind::Request),
            b":path" => (Seen::PATH, Kind::Request),
            b":scheme" => (Seen::SCHEME, Kind::Request),
            b":authority" => (Seen::AUTHORITY, Kind::Request),
            b":status" => (Seen::STATUS, Kind::Response),
            b":protocol" if self.extended_connect => (Seen::PROTOCOL, Kind::Request),
            _ => return Err("a pseudo-field that does not exist"),
        };
        if kind != self.kind {
            return Err("a pseudo-field that does not belong here");
        }
        if self.seen.has(field) {
            return Err("a pseudo-field twice");
        }
        self.seen.0 |= field;
        match field {
            Seen::METHOD => self.method(entry.value()),
            Seen::PATH => self.path(entry.value()),
            Seen::SCHEME => self.scheme(entry.value()),
            Seen::AUTHORITY => self.authority(entry.value()),
            Seen::STATUS => self.status(entry.value()),
            _ => self.protocol(entry.value()),
        }
    }

    fn method(&mut self, value: &[u8]) -> Result<(), &'static str> {
        let method = Method::of(value);
        if method == Method::Other && !octets::is_token(value) {
            return Err("the method is not a token");
        }
        self.head.start.method = method;
        self.head.start.method_text = self.text(value)?;
        Ok(())
    }

    fn path(&mut self, value: &[u8]) -> Result<(), &'static str> {
        // Its form was looked at when it came as a literal.
        let query_at = memchr::memchr(b'?', value).unwrap_or(value.len());
        let target = Target { text: self.text(value)?, query_at: query_at as u32 };
        self.head.start.received = target;
        self.head.start.effective = target;
        Ok(())
    }

    fn scheme(&mut self, value: &[u8]) -> Result<(), &'static str> {
        self.head.start.scheme = Scheme::of(value).ok_or("a scheme other than http and https")?;
        Ok(())
    }

    fn authority(&mut self, value: &[u8]) -> Result<(), &'static str> {
        let authority = self.text(value)?;
        self.head.start.authority = authority;
        self.head.start.received_authority = authority;
        Ok(())
    }

    fn protocol(&mut self, value: &[u8]) -> Result<(), &'static str> {
        if !octets::is_token(value) {
            return Err("the protocol is not a token");
        }
        self.head.start.protocol = self.text(value)?;
        Ok(())
    }

    fn status(&mut self, value: &[u8]) -> Result<(), &'static str> {
        let &[hundreds @ b'1'..=b'5', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = value else {
            return Err("the status is not from 100 to 599");
        };
        let digit = |octet: u8| u16::from(octet - b'0');
        let status = 100 * digit(hundreds) + 10 * digit(tens) + digit(ones);
        if status == 101 {
            return Err("a switch of protocols, which http/2 has not");
        }
        self.head.start.status = status;
        Ok(())
    }

    fn by_rule(&mut self, rule: Rule, entry: &Entry<'_>) -> Result<(), &'static str> {
        match rule {
            Rule::None => {}
            Rule::Te if entry.value() == b"trailers" => {}
            Rule::Te => return Err("te other than trailers"),
            Rule::Host => return self.host(entry.value()),
            Rule::OfConnection => return Err("a field of http/1.1 connections"),
            Rule::Length if self.kind == Kind::Trailers => {
                return Err("the length of the content behind it");
            }
            Rule::Length if self.content_length.is_some() => return Err("the length of the content twice"),
            Rule::Length => {
                let length =
                    octets::decimal(entry.value()).ok_or("the length of the content is no number")?;
                self.content_length = Some(length);
            }
        }
        self.push(entry)
    }

    #[inline]
    fn push(&mut self, entry: &Entry<'_>) -> Result<(), &'static str> {
        let text = self.head.text_mut();
        let start = text.len();
        text.extend_from_slice(entry.text());
        let end = text.len();
        let name = end - entry.value().len();
        let mut field = Field {
            name: Span::new(start, name),
            value: Span::new(name, end),
            hash: entry.hash,
            known: entry.known,
            ..Field::default()
        };
        if !entry.huffman.is_empty() {
            text.extend_from_slice(entry.huffman);
            field.huffman = Span::new(end, text.len());
        }
        if entry.sensitive {
            field.flags = Field::SENSITIVE;
        }
        self.head.push(field).map_err(|_error| "more fields than a head can have")
    }

    fn host(&mut self, value: &[u8]) -> Result<(), &'static str> {
        if self.kind != Kind::Request {
            // It says nothing there, and a reader could take it for something.
            return Err("a host where no request is");
        }
        if self.host.is_some() {
            return Err("a host twice");
        }
        self.host = Some(self.text(value)?);
        Ok(())
    }

    /// The pseudo-fields that a request has to have, and that its authority is one (section 8.3.1).
    fn check_request(&mut self) -> Result<(), &'static str> {
        let method = self.head.method();
        let required = match method {
            Method::Connect if !self.seen.has(Seen::PROTOCOL) => {
                if self.seen.has(Seen::SCHEME | Seen::PATH) {
                    return Err("a connect with scheme or path");
                }
                Seen::METHOD | Seen::AUTHORITY
            }
            Method::Connect => Seen::METHOD | Seen::SCHEME | Seen::PATH | Seen::AUTHORITY,
            _ if self.seen.has(Seen::PROTOCOL) => return Err("a protocol without connect"),
            _ => Seen::METHOD | Seen::SCHEME | Seen::PATH,
        };
        if self.seen.0 & required != required {
            return Err("a pseudo-field is missing");
        }
        if required == Seen::METHOD | Seen::AUTHORITY && !self.names_a_port() {
            return Err("a connect without the port that it wants");
        }
        if self.head.target() == b"*" && method != Method::Options {
            return Err("the path has no form that is known");
        }
        self.check_host()
    }

    /// Whether the authority says a port, as that of a tunnel has to (RFC 9110, section 9.3.6).
    fn names_a_port(&self) -> bool {
        let authority = self.head.authority().unwrap_or_default();
        authority.len() > self.head.host().len() + 1
    }

    fn check_host(&mut self) -> Result<(), &'static str> {
        let Some(host) = self.host else { return Ok(()) };
        let text = host.of(self.head.text());
        match self.head.authority() {
            Some(authority) if authority.eq_ignore_ascii_case(text) => Ok(()),
            Some(_) => Err("host and authority differ"),
            None if !octets::is_host_and_port(text) => Err("the host is not one with an optional port"),
            None => {
                self.head.start.authority = host;
                self.head.start.received_authority = host;
                Ok(())
            }
        }
    }

    #[inline]
    fn text(&mut self, value: &[u8]) -> Result<Span, &'static str> {
        self.head.add_text(value).map_err(|_error| "more text than a head can have")
    }
}

/// Drops the fields of a block that is read for the tables' sake only.
pub(crate) struct Nobody;

impl Sink for Nobody {
    fn field(&mut self, _entry: &Entry<'_>) {}
}
