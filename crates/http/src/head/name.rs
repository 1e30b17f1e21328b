// SPDX-License-Identifier: Apache-2.0
//! Names of fields: the ones that a proxy needs as small numbers, any other as text.

use crate::octets;

macro_rules! names {
    ($($variant:ident = $text:literal,)*) => {
        /// A field's name that the proxy knows, or that it does not.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum FieldName {
            /// A name that is not in this list.
            #[default]
            Other,
            $(
                #[doc = concat!("`", $text, "`")]
                $variant,
            )*
        }

        impl FieldName {
            /// Every name in the list.
            pub const ALL: &'static [FieldName] = &[$(FieldName::$variant,)*];

            /// The name in lower case; empty for [`FieldName::Other`].
            pub const fn text(self) -> &'static str {
                match self {
                    FieldName::Other => "",
                    $(FieldName::$variant => $text,)*
                }
            }
        }
    };
}

names! {
    Te = "te",
    Via = "via",
    Host = "host",
    Date = "date",
    Accept = "accept",
    Cookie = "cookie",
    Expect = "expect",
    Server = "server",
    Upgrade = "upgrade",
    Trailer = "trailer",
    Location = "location",
    Forwarded = "forwarded",
    Connection = "connection",
    KeepAlive = "keep-alive",
    Tracestate = "tracestate",
    SetCookie = "set-cookie",
    UserAgent = "user-agent",
    Traceparent = "traceparent",
    GrpcStatus = "grpc-status",
    RetryAfter = "retry-after",
    ContentType = "content-type",
    GrpcTimeout = "grpc-timeout",
    GrpcMessage = "grpc-message",
    XRequestId = "x-request-id",
    Authorization = "authorization",
    ContentLength = "content-length",
    AcceptEncoding = "accept-encoding",
    XForwardedFor = "x-forwarded-for",
    ContentEncoding = "content-encoding",
    ProxyConnection = "proxy-connection",
    XForwardedHost = "x-forwarded-host",
    SecWebsocketKey = "sec-websocket-key",
    TransferEncoding = "transfer-encoding",
    XForwardedProto = "x-forwarded-proto",
    ProxyAuthorization = "proxy-authorization",
    SecWebsocketAccept = "sec-websocket-accept",
}

/// Names in the list and the one that is not.
pub(super) const COUNT: usize = FieldName::ALL.len() + 1;

/// The longest name in the list, and one.
const LENGTHS: usize = 21;
/// Names of one length; a build that has more fails.
const SAME_LENGTH: usize = 5;

/// The names of each length, so that at most a few are compared.
const BY_LENGTH: [[FieldName; SAME_LENGTH]; LENGTHS] = {
    let mut table = [[FieldName::Other; SAME_LENGTH]; LENGTHS];
    let mut at = 0;
    while at < FieldName::ALL.len() {
        let name = FieldName::ALL[at];
        let row = name.text().len();
        let mut free = 0;
        while !matches!(table[row][free], FieldName::Other) {
            free += 1;
        }
        table[row][free] = name;
        at += 1;
    }
    table
};

impl FieldName {
    /// Which name of the list this is, whatever its case. The bytes are a token.
    #[inline]
    pub fn of(name: &[u8]) -> FieldName {
        let (Some(row), Some(last)) = (BY_LENGTH.get(name.len()), name.last()) else {
            return FieldName::Other;
        };
        let (first, last) = (name[0] | 0x20, last | 0x20);
        for known in row {
            let text = known.text().as_bytes();
            // The ends differ for nearly every other name.
            if text.first() == Some(&first) && text.last() == Some(&last) && name.eq_ignore_ascii_case(text) {
                return *known;
            }
        }
        FieldName::Other
    }

    /// Whether the field belongs to one connection, and so is never passed on as it came (RFC 9110,
    /// section 7.6.1; RFC 9113, section 8.2.2).
    #[inline]
    pub const fn is_connection_specific(self) -> bool {
        matches!(
            self,
            FieldName::Connection
                | FieldName::KeepAlive
                | FieldName::ProxyConnection
                | FieldName::TransferEncoding
                | FieldName::Upgrade
        )
    }
}

/// A name to look up or to write: checked and in lower case, once, when it is made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// One of the list.
    Known(FieldName),
    /// Any other.
    Other(Box<[u8]>),
}

/// What is not the name of a field: empty, or with a byte that no token has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a field")]
pub struct InvalidName;

impl Name {
    /// Checks a name; its case does not matter.
    pub fn new(text: &[u8]) -> Result<Name, InvalidName> {
        if !octets::is_token(text) {
            return Err(InvalidName);
        }
        Ok(match FieldName::of(text) {
            FieldName::Other => Name::Other(text.to_ascii_lowercase().into()),
            known => Name::Known(known),
        })
    }

    /// The name in lower case.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Name::Known(known) => known.text().as_bytes(),
            Name::Other(text) => text,
        }
    }

    /// Which of the list it is.
    pub fn known(&self) -> FieldName {
        match self {
            Name::Known(known) => *known,
            Name::Other(_) => FieldName::Other,
        }
    }
}

impl From<FieldName> for Name {
    /// `FieldName::Other` is a name without text, which no field has.
    fn from(known: FieldName) -> Name {
        Name::Known(known)
    }
}

/// A field's value to write: checked, so that it can end no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a>(&'a [u8]);

/// What is not the value of a field: a control byte other than HTAB, or a blank at its start or end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the value of a field")]
pub struct InvalidValue;

impl<'a> Value<'a> {
    /// Checks a value.
    pub fn new(text: &'a [u8]) -> Result<Value<'a>, InvalidValue> {
        if octets::is_value(text) { Ok(Value(text)) } else { Err(InvalidValue) }
    }

    /// A value that is in the source; one that is not valid does not compile where it is a constant.
    pub const fn literal(text: &'static str) -> Value<'static> {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            assert!(
                matches!(bytes[at], 0x21..=0x7e) || (bytes[at] == b' ' && at > 0 && at + 1 < bytes.len())
            );
            at += 1;
        }
        Value(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_list_is_recognised_in_any_case() {
        for known in FieldName::ALL {
            let text = known.text();
            assert_eq!(FieldName::of(text.as_bytes()), *known);
            assert_eq!(FieldName::of(text.to_ascii_uppercase().as_bytes()), *known);
            let mut other = text.as_bytes().to_vec();
            other[1] = b'!';
            assert_eq!(FieldName::of(&other), FieldName::Other, "{text}");
        }
        for other in [&b""[..], b"x", b"x-one", b"a-name-that-is-longer-than-any-in-the-list"] {
            assert_eq!(FieldName::of(other), FieldName::Other);
        }
    }

    #[test]
    fn names_and_values_that_could_end_a_line_are_none() {
        for bad in [&b""[..], b"a b", b"a:", b"a\r", b"\xc3\xa4", b":path"] {
            assert_eq!(Name::new(bad), Err(InvalidName));
        }
        assert_eq!(Name::new(b"X-One").expect("a name").as_bytes(), b"x-one");
        assert_eq!(Name::new(b"HOST"), Ok(Name::Known(FieldName::Host)));
        for bad in [&b"a\r\nb"[..], b"\n", b"\0", b" a", b"a\t", b"\x7f"] {
            assert_eq!(Value::new(bad), Err(InvalidValue));
        }
        assert_eq!(Value::new(b"a\tb \xff").expect("a value").as_bytes(), b"a\tb \xff");
        assert_eq!(Value::new(b"").expect("a value").as_bytes(), b"");
    }
}
