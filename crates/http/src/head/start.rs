// SPDX-License-Identifier: Apache-2.0
//! The start line of a message: what is asked for and of whom, or the status.
//!
//! Target and authority are there twice: as they were received, which never changes and is what a policy on
//! the client decides about, and as they take effect, which rewrites change and upstreams get.

use super::{Head, Span, Value};
use crate::octets;

/// What a head is the head of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// No head: the fields behind the content.
    #[default]
    Trailers,
    /// A request.
    Request,
    /// A response.
    Response,
}

/// The version that the sender of a message spoke.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
}

/// The scheme of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`
    #[default]
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// The scheme in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The scheme with this text, in any case.
    pub fn of(text: &[u8]) -> Option<Scheme> {
        match text.len() {
            4 if text.eq_ignore_ascii_case(b"http") => Some(Scheme::Http),
            5 if text.eq_ignore_ascii_case(b"https") => Some(Scheme::Https),
            _ => None,
        }
    }
}

macro_rules! methods {
    ($($variant:ident = $text:literal,)*) => {
        /// A method (RFC 9110, section 9; RFC 5789), or any other token.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum Method {
            /// A token that is not in this list; [`Head::method_text`] has it.
            #[default]
            Other,
            $(
                #[doc = concat!("`", $text, "`")]
                $variant,
            )*
        }

        impl Method {
            /// The method with this text; methods are case-sensitive.
            #[inline]
            pub fn of(text: &[u8]) -> Method {
                $(if text == $text.as_bytes() { return Method::$variant; })*
                Method::Other
            }

            /// The text; empty for [`Method::Other`].
            pub const fn text(self) -> &'static str {
                match self {
                    Method::Other => "",
                    $(Method::$variant => $text,)*
                }
            }
        }
    };
}

methods! {
    Get = "GET",
    Post = "POST",
    Head = "HEAD",
    Put = "PUT",
    Delete = "DELETE",
    Patch = "PATCH",
    Options = "OPTIONS",
    Connect = "CONNECT",
    Trace = "TRACE",
}

impl Method {
    /// Whether a second one has no other effect than the first (RFC 9110, section 9.2.2).
    pub const fn is_idempotent(self) -> bool {
        use Method::{Connect, Other, Patch, Post};
        !matches!(self, Other | Post | Patch | Connect)
    }

    /// Whether a request of this method usually has content, so that it says when it has none (RFC 9110,
    /// section 8.6).
    pub const fn expects_content(self) -> bool {
        matches!(self, Method::Post | Method::Put | Method::Patch)
    }
}

/// The start line as ranges; an empty one was not given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) kind: Kind,
    pub(crate) version: Version,
    pub(crate) method: Method,
    pub(crate) scheme: Scheme,
    pub(crate) status: u16,
    pub(crate) method_text: Span,
    pub(crate) received_authority: Span,
    pub(crate) received: Target,
    pub(crate) authority: Span,
    pub(crate) effective: Target,
    pub(crate) protocol: Span,
    pub(crate) upgrade: Span,
}

/// Path and query, and where in them the question mark stands (their length without one).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) text: Span,
    pub(crate) query_at: u32,
}

/// What a start line cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStart {
    /// The method is no token.
    #[error("the method is not a token")]
    Method,
    /// The target is neither `*` nor a path with what a URI allows.
    #[error("the target is not a path and query")]
    Target,
    /// The authority is not a host with an optional port.
    #[error("the authority is not a host with an optional port")]
    Authority,
    /// The status is not from 100 to 599.
    #[error("the status is not from 100 to 599")]
    Status,
    /// There is more text than a head can hold.
    #[error(transparent)]
    TooLarge(#[from] super::TooLarge),
}

impl Head {
    /// Begins a request of our own, over what was there. `authority` is empty where there is none.
    pub fn start_request(
        &mut self,
        method: &[u8],
        target: &[u8],
        authority: &[u8],
    ) -> Result<(), InvalidStart> {
        self.clear();
        if !octets::is_token(method) {
            return Err(InvalidStart::Method);
        }
        self.start.kind = Kind::Request;
        self.start.method = Method::of(method);
        self.start.method_text = self.add_text(method)?;
        self.set_target(target)?;
        if !authority.is_empty() {
            self.set_authority(authority)?;
        }
        self.start.received = self.start.effective;
        self.start.received_authority = self.start.authority;
        Ok(())
    }

    /// Begins a response of our own, over what was there.
    pub fn start_response(&mut self, status: u16) -> Result<(), InvalidStart> {
        self.clear();
        self.start.kind = Kind::Response;
        self.set_status(status)
    }

    /// What this is the head of.
    pub fn kind(&self) -> Kind {
        self.start.kind
    }

    /// The version that its sender spoke.
    pub fn version(&self) -> Version {
        self.start.version
    }

    /// Says which version the sender spoke, of a head that was not read from a connection.
    pub fn set_version(&mut self, version: Version) {
        self.start.version = version;
    }

    /// The method.
    #[inline]
    pub fn method(&self) -> Method {
        self.start.method
    }

    /// The method as it was received.
    #[inline]
    pub fn method_text(&self) -> &[u8] {
        self.start.method_text.of(self.text())
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> Scheme {
        self.start.scheme
    }

    /// Changes the scheme.
    pub fn set_scheme(&mut self, scheme: Scheme) {
        self.start.scheme = scheme;
    }

    /// Host and port as they take effect; none for an HTTP/1.0 request or an empty `Host` (RFC 9110,
    /// section 7.2).
    #[inline]
    pub fn authority(&self) -> Option<&[u8]> {
        given(self.start.authority, self.text())
    }

    /// Host and port as they were received.
    pub fn received_authority(&self) -> Option<&[u8]> {
        given(self.start.received_authority, self.text())
    }

    /// The effective host: the authority without its port, an IPv6 address with its brackets.
    pub fn host(&self) -> &[u8] {
        without_port(self.authority().unwrap_or_default())
    }

    /// Path and query as they take effect (no decoding, no dot removal); `*` for `OPTIONS *`; empty for
    /// CONNECT without `:path`.
    #[inline]
    pub fn target(&self) -> &[u8] {
        self.start.effective.text.of(self.text())
    }

    /// Path and query as they were received. That of an absolute target without path is `/`.
    pub fn received_target(&self) -> &[u8] {
        self.start.received.text.of(self.text())
    }

    /// The received path, without the query.
    #[inline]
    pub fn received_path(&self) -> &[u8] {
        let target = self.received_target();
        target.get(..self.start.received.query_at as usize).unwrap_or(target)
    }

    /// The effective path, without the query.
    #[inline]
    pub fn path(&self) -> &[u8] {
        let target = self.target();
        target.get(..self.start.effective.query_at as usize).unwrap_or(target)
    }

    /// The effective query, without the question mark.
    pub fn query(&self) -> Option<&[u8]> {
        self.target().get(self.start.effective.query_at as usize + 1..)
    }

    /// The protocol of an extended CONNECT (RFC 8441).
    pub fn protocol(&self) -> Option<&[u8]> {
        given(self.start.protocol, self.text())
    }

    /// What the client offers to switch to, or what the server switched to with 101 (RFC 9110, section
    /// 7.8). What is here is sent when the message is written as HTTP/1.1, and only then.
    #[inline]
    pub fn upgrade(&self) -> Option<&[u8]> {
        given(self.start.upgrade, self.text())
    }

    /// The status of a response; 0 of anything else.
    #[inline]
    pub fn status(&self) -> u16 {
        self.start.status
    }

    /// Whether this is an interim response, after which another follows. 101 is none: it is the last of its
    /// connection.
    pub fn is_interim(&self) -> bool {
        matches!(self.start.status, 100 | 102..=199)
    }

    /// Changes the status.
    pub fn set_status(&mut self, status: u16) -> Result<(), InvalidStart> {
        if !(100..=599).contains(&status) {
            return Err(InvalidStart::Status);
        }
        self.start.status = status;
        Ok(())
    }

    /// Rewrites the target; the received one stays.
    pub fn set_target(&mut self, target: &[u8]) -> Result<(), InvalidStart> {
        let query_at = octets::query_at(target).ok_or(InvalidStart::Target)? as u32;
        let text = self.add_text(target)?;
        self.start.effective = Target { text, query_at };
        Ok(())
    }

    /// Rewrites the path: `with` stands where its first `covered` bytes stood, and what is behind them and the
    /// query stay. The received target stays.
    pub fn set_path_start(&mut self, covered: usize, with: &[u8]) -> Result<(), InvalidStart> {
        let (from, end) = (self.start.effective.text.start(), self.start.effective.text.end());
        let rest = from + covered.min(self.start.effective.query_at as usize)..end;
        let at = self.text.len();
        if with.len() + rest.len() > super::MAX_TEXT - at.min(super::MAX_TEXT) {
            return Err(super::TooLarge.into());
        }
        self.text.extend_from_slice(with);
        self.text.extend_from_within(rest);
        let Some(query_at) = octets::query_at(&self.text[at..]) else {
            self.text.truncate(at);
            return Err(InvalidStart::Target);
        };
        self.start.effective = Target { text: Span::new(at, self.text.len()), query_at: query_at as u32 };
        Ok(())
    }

    /// Rewrites the authority; the received one stays.
    pub fn set_authority(&mut self, authority: &[u8]) -> Result<(), InvalidStart> {
        if !octets::is_host_and_port(authority) {
            return Err(InvalidStart::Authority);
        }
        self.start.authority = self.add_text(authority)?;
        Ok(())
    }

    /// Changes what is offered or was switched to; an empty value takes it away.
    pub fn set_upgrade(&mut self, protocols: Value<'_>) -> Result<(), InvalidStart> {
        self.start.upgrade = self.add_text(protocols.as_bytes())?;
        Ok(())
    }
}

fn given(span: Span, text: &[u8]) -> Option<&[u8]> {
    if span.is_empty() { None } else { Some(span.of(text)) }
}

/// An authority without its port.
fn without_port(authority: &[u8]) -> &[u8] {
    let end = match authority {
        [b'[', ..] => memchr::memchr(b']', authority).map(|bracket| bracket + 1),
        _ => memchr::memchr(b':', authority),
    };
    authority.get(..end.unwrap_or(authority.len())).unwrap_or(authority)
}
