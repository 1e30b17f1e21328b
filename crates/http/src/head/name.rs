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
    Age = "age",
    Via = "via",
    Host = "host",
    Date = "date",
    Etag = "etag",
    Link = "link",
    Vary = "vary",
    Range = "range",
    Accept = "accept",
    Cookie = "cookie",
    Expect = "expect",
    Origin = "origin",
    Server = "server",
    Upgrade = "upgrade",
    Referer = "referer",
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
    LastModified = "last-modified",
    CacheControl = "cache-control",
    XRequestId = "x-request-id",
    Authorization = "authorization",
    ContentLength = "content-length",
    AcceptEncoding = "accept-encoding",
    AcceptLanguage = "accept-language",
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

/// The first 16 bytes of a name, zeros behind a shorter one, and where they are letters, which are the same
/// in either case.
#[derive(Clone, Copy)]
struct Key {
    words: [u64; 2],
    letters: [u64; 2],
    len: u8,
}

/// The bit that makes a letter lower-case.
const LOWER: u64 = 0x2020_2020_2020_2020;

impl Key {
    const fn of(text: &[u8]) -> Key {
        let (words, mut letters) = (words(text), [0; 2]);
        let mut at = 0;
        while at < text.len() && at < 16 {
            if text[at].is_ascii_lowercase() {
                letters[at / 8] |= 0x20 << (at % 8 * 8);
            }
            at += 1;
        }
        Key { words, letters, len: text.len() as u8 }
    }

    /// Whether a name of this length that starts with these words is this one, as far as they tell.
    #[inline(always)]
    fn fits(&self, words: [u64; 2], len: usize) -> bool {
        let [a, b] = [0, 1].map(|at| (words[at] ^ self.words[at]) & !self.letters[at]);
        (a | b == 0) & (usize::from(self.len) == len)
    }
}

const fn words(name: &[u8]) -> [u64; 2] {
    let mut words = [0; 2];
    let mut at = 0;
    while at < name.len() && at < 16 {
        words[at / 8] |= (name[at] as u64) << (at % 8 * 8);
        at += 1;
    }
    words
}

const SLOT_BITS: u32 = 9;
const SLOTS: usize = 1 << SLOT_BITS;

#[inline(always)]
const fn slot(words: [u64; 2], multiplier: u64) -> usize {
    let mixed = (words[0] | LOWER) ^ (words[1] | LOWER).rotate_left(29);
    (mixed.wrapping_mul(multiplier) >> (64 - SLOT_BITS)) as usize
}

/// So many bits from the lowest one, of less than 64.
#[inline(always)]
const fn low(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// A multiplier that gives each name a slot of its own, and the slots. A list for which none is found soon
/// does not compile.
const fn place() -> (u64, [FieldName; SLOTS]) {
    let mut multiplier: u64 = 0x9e37_79b9_7f4a_7c15;
    loop {
        let mut slots = [FieldName::Other; SLOTS];
        let mut at = 0;
        while at < FieldName::ALL.len() {
            let name = FieldName::ALL[at];
            let slot = slot(words(name.text().as_bytes()), multiplier);
            if !matches!(slots[slot], FieldName::Other) {
                break;
            }
            slots[slot] = name;
            at += 1;
        }
        if at == FieldName::ALL.len() {
            return (multiplier, slots);
        }
        // The next of a sequence of odd numbers without pattern.
        multiplier = multiplier.wrapping_mul(0xd134_2543_de82_ef95) | 1;
    }
}

const PLACED: (u64, [FieldName; SLOTS]) = place();
static SLOT_NAMES: [FieldName; SLOTS] = PLACED.1;

static KEYS: [Key; COUNT] = {
    let mut keys = [Key::of(b""); COUNT];
    let mut at = 0;
    while at < FieldName::ALL.len() {
        keys[FieldName::ALL[at] as usize] = Key::of(FieldName::ALL[at].text().as_bytes());
        at += 1;
    }
    keys
};

impl FieldName {
    /// Which name of the list this is, whatever its case. What is no token is none of them.
    pub fn of(name: &[u8]) -> FieldName {
        FieldName::find(words(name), name)
    }

    /// The name that a line starts with, and its length; what follows it is a colon. None without a colon.
    #[inline(always)]
    pub(crate) fn of_line(line: &[u8]) -> Option<(FieldName, usize)> {
        if let Some((first, rest)) = line.split_first_chunk::<8>()
            && let Some(second) = rest.first_chunk::<8>()
        {
            let [a, b] = [u64::from_le_bytes(*first), u64::from_le_bytes(*second)];
            let colon = octets::same(a, b':');
            if colon != 0 {
                let bits = colon.trailing_zeros() & !7;
                let len = (bits / 8) as usize;
                return Some((FieldName::find([a & low(bits), 0], &first[..len]), len));
            }
            let colon = octets::same(b, b':');
            if colon != 0 {
                let bits = colon.trailing_zeros() & !7;
                let len = (bits / 8) as usize + 8;
                return Some((FieldName::find([a, b & low(bits)], &line[..len]), len));
            }
        }
        let len = octets::find(line, b':')?;
        Some((FieldName::of(&line[..len]), len))
    }

    #[inline(always)]
    fn find(words: [u64; 2], name: &[u8]) -> FieldName {
        let known = SLOT_NAMES[slot(words, PLACED.0)];
        // The words leave the rest of a long name open.
        let same = KEYS[known as usize].fits(words, name.len())
            && (name.len() <= 16 || name.eq_ignore_ascii_case(known.text().as_bytes()));
        if same { known } else { FieldName::Other }
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
pub struct Value<'a>(pub(super) &'a [u8]);

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
            for line in
                [format!("{text}:"), format!("{text}: a value"), format!("{text}:{}", "x:".repeat(20))]
            {
                assert_eq!(FieldName::of_line(line.as_bytes()), Some((*known, text.len())));
            }
            assert_eq!(FieldName::of_line(text.as_bytes()), None);
            let mut other = text.as_bytes().to_vec();
            for at in 0..text.len() {
                let byte = other[at];
                // All that differ from the byte in a bit or two, which is how case differs.
                for bits in (0..64).map(|at| 1u8 << (at % 8) | 1 << (at / 8)) {
                    other[at] = byte ^ bits;
                    let same = other.eq_ignore_ascii_case(text.as_bytes());
                    let wanted = if same { *known } else { FieldName::Other };
                    let found = FieldName::of(&other);
                    let is_found = other.eq_ignore_ascii_case(found.text().as_bytes());
                    assert!(found == wanted || is_found, "{text}: {other:?}");
                }
                other[at] = byte;
            }
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
