// SPDX-License-Identifier: Apache-2.0
//! What a Gateway says to an endpoint about who the client is.

use std::{io::Write, net::IpAddr};

use weft_http::head::{FieldName, Head, Scheme, TooLarge, Value};

/// The longest text of an address: an IPv6 address without a run of zeros.
const LONGEST: usize = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".len();

/// A client's address as a header says it: made once for a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientText {
    text: [u8; LONGEST],
    len: u8,
}

impl ClientText {
    /// The text of an address.
    pub(crate) fn new(client: IpAddr) -> ClientText {
        let mut text = [0; LONGEST];
        let mut free = &mut text[..];
        write!(free, "{client}").expect("invariant: no address has a longer text");
        let len = LONGEST - free.len();
        ClientText { text, len: len as u8 }
    }

    fn value(&self) -> Value<'_> {
        let text = &self.text[..usize::from(self.len)];
        Value::new(text).expect("invariant: addresses have neither blanks nor control characters")
    }
}

/// Says who the client is and by which scheme it came: the client as the last of a list (RFC 7239, section
/// 5.2, has the same order), the scheme in place of what the client said.
pub(crate) fn forwarded(client: &ClientText, head: &mut Head) -> Result<(), TooLarge> {
    head.extend_list(&FieldName::XForwardedFor.into(), client.value())?;
    let scheme = match head.scheme() {
        Scheme::Http => Value::literal("http"),
        Scheme::Https => Value::literal("https"),
    };
    head.set(&FieldName::XForwardedProto.into(), scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Head {
        let mut head = Head::new();
        head.start_request(b"GET", b"/", b"a.test").expect("a request");
        head
    }

    #[test]
    fn the_client_is_the_last_of_the_list_and_the_scheme_is_not_the_clients_to_say() {
        let client = ClientText::new(IpAddr::from([192, 0, 2, 1]));
        let mut head = request();
        forwarded(&client, &mut head).expect("room");
        assert_eq!(head.known(FieldName::XForwardedFor), Some(&b"192.0.2.1"[..]));
        assert_eq!(head.known(FieldName::XForwardedProto), Some(&b"http"[..]));
        let mut head = request();
        head.set_scheme(Scheme::Https);
        for (name, value) in [
            (FieldName::XForwardedFor, "203.0.113.7, 10.0.0.1"),
            (FieldName::XForwardedProto, "http"),
            (FieldName::XForwardedFor, "10.0.0.2"),
            (FieldName::XForwardedProto, "ftp"),
        ] {
            head.append(&name.into(), Value::literal(value)).expect("room");
        }
        forwarded(&client, &mut head).expect("room");
        let fields: Vec<_> = head.iter().collect();
        let list: (&[u8], &[u8]) = (b"x-forwarded-for", b"203.0.113.7, 10.0.0.1, 10.0.0.2, 192.0.2.1");
        assert_eq!(fields, [list, (b"x-forwarded-proto", b"https")]);
    }

    #[test]
    fn the_longest_addresses_have_room() {
        for address in ["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::ffff:255.255.255.255", "::", "0.0.0.0"]
        {
            let client = ClientText::new(address.parse().expect("an address"));
            assert_eq!(client.value().as_bytes(), address.as_bytes());
        }
    }
}
