// SPDX-License-Identifier: Apache-2.0
//! What a Gateway says to an endpoint about who the client is.

use std::net::IpAddr;

use weft_http::head::{FieldName, Head, Lines, Scheme, TooLarge, Value};

/// What is said of a client that came in the clear and that nobody said anything about before: written once for a
/// connection.
#[derive(Clone, Debug)]
pub(crate) struct ClientText(Lines<2>);

impl ClientText {
    /// The text of an address.
    pub(crate) fn new(client: IpAddr) -> ClientText {
        let text = client.to_string();
        let client = Value::new(text.as_bytes())
            .expect("invariant: addresses have neither blanks nor control characters");
        ClientText(Lines::new([(FieldName::XForwardedFor, client), (FieldName::XForwardedProto, HTTP)]))
    }

    fn value(&self) -> Value<'_> {
        self.0.value(0)
    }
}

const HTTP: Value<'_> = Value::literal("http");
const HTTPS: Value<'_> = Value::literal("https");

/// Says who the client is and by which scheme it came: the client as the last of a list (RFC 7239, section
/// 5.2, has the same order), the scheme in place of what the client said.
pub(crate) fn forwarded(client: &ClientText, head: &mut Head) -> Result<(), TooLarge> {
    let said = head.has(FieldName::XForwardedFor) || head.has(FieldName::XForwardedProto);
    let scheme = match head.scheme() {
        Scheme::Http if !said => return head.append_lines(&client.0),
        Scheme::Http => HTTP,
        Scheme::Https => HTTPS,
    };
    head.extend_list(&FieldName::XForwardedFor.into(), client.value())?;
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
