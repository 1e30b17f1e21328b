// SPDX-License-Identifier: Apache-2.0
//! From the handshake of a WebSocket in one version of HTTP to that in the other: an offer to switch (RFC
//! 6455, section 4) and an extended CONNECT (RFC 8441, section 5). All other fields of the handshake are the
//! same in both.
//!
//! HTTP/1.1 proves that its server understood by a key and its answer, which is the SHA-1 of the key with a
//! fixed text. HTTP/2 has neither. Who stands between them makes the key, or keeps the client's, and answers
//! or checks it. Lengths of content mean nothing on either side, and are left out.

mod accept;

pub use accept::{accept, key};

use crate::head::{FieldName, Head, InvalidStart, Method, Span, Value};

const PROTOCOL: &[u8] = b"websocket";

/// Makes of an offer of HTTP/1.1 an extended CONNECT, without its key. False, and nothing is changed, if the
/// request does not offer to switch to WebSocket.
pub fn offer_to_connect(head: &mut Head) -> Result<bool, InvalidStart> {
    if !is_websocket(head.upgrade()) || head.method() != Method::Get {
        return Ok(false);
    }
    set_method(head, Method::Connect)?;
    head.start.protocol = head.add_text(PROTOCOL)?;
    head.start.upgrade = Span::default();
    head.remove(&FieldName::SecWebsocketKey.into());
    head.remove(&FieldName::ContentLength.into());
    Ok(true)
}

/// Makes of an extended CONNECT an offer of HTTP/1.1 with this key, which is 16 random bytes in base64. False,
/// and nothing is changed, if the request does not ask for a WebSocket.
pub fn connect_to_offer(head: &mut Head, key: Value<'_>) -> Result<bool, InvalidStart> {
    if !is_websocket(head.protocol()) || head.method() != Method::Connect {
        return Ok(false);
    }
    set_method(head, Method::Get)?;
    head.start.upgrade = head.add_text(PROTOCOL)?;
    head.start.protocol = Span::default();
    head.set(&FieldName::SecWebsocketKey.into(), key)?;
    head.remove(&FieldName::ContentLength.into());
    Ok(true)
}

/// Makes of a switch of HTTP/1.1 the answer to an extended CONNECT. False, and nothing is changed, of any
/// other response: a refusal is the same in both versions.
pub fn switch_to_accepted(head: &mut Head) -> Result<bool, InvalidStart> {
    if head.status() != 101 || !is_websocket(head.upgrade()) {
        return Ok(false);
    }
    head.set_status(200)?;
    head.start.upgrade = Span::default();
    head.remove(&FieldName::SecWebsocketAccept.into());
    head.remove(&FieldName::ContentLength.into());
    Ok(true)
}

/// Makes of the answer to an extended CONNECT a switch of HTTP/1.1 with this answer to the client's key. False,
/// and nothing is changed, of a refusal.
pub fn accepted_to_switch(head: &mut Head, accept: Value<'_>) -> Result<bool, InvalidStart> {
    if !(200..=299).contains(&head.status()) {
        return Ok(false);
    }
    head.set_status(101)?;
    head.start.upgrade = head.add_text(PROTOCOL)?;
    head.set(&FieldName::SecWebsocketAccept.into(), accept)?;
    head.remove(&FieldName::ContentLength.into());
    Ok(true)
}

/// Whether this is the protocol.
pub fn is_websocket(protocol: Option<&[u8]>) -> bool {
    protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(PROTOCOL))
}

fn set_method(head: &mut Head, method: Method) -> Result<(), InvalidStart> {
    head.start.method_text = head.add_text(method.text().as_bytes())?;
    head.start.method = method;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        h1::{Client, Length, Limits, Server},
        head::Scheme,
    };

    const OFFER: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    fn received(offer: &str) -> (Server, Head) {
        let (mut server, mut head) = (Server::new(Limits::default(), Scheme::Http), Head::new());
        server.receive(offer.as_bytes(), &mut head).expect("valid");
        (server, head)
    }

    #[test]
    fn an_offer_goes_over_http_2_and_back() {
        let (_, mut head) =
            received(&OFFER.replace("Sec-WebSocket-V", "Content-Length: 0\r\nSec-WebSocket-V"));
        assert_eq!(offer_to_connect(&mut head), Ok(true));
        assert!(!head.has(FieldName::ContentLength));
        assert_eq!((head.method(), head.protocol(), head.upgrade()), (Method::Connect, Some(PROTOCOL), None));
        assert_eq!((head.target(), head.authority()), (&b"/chat"[..], Some(&b"a"[..])));
        assert!(!head.has(FieldName::SecWebsocketKey));
        assert_eq!(offer_to_connect(&mut head), Ok(false));
        let mut out = Vec::new();
        let mut client = Client::new(Limits::default());
        assert!(client.send_head(&head, Length::Bytes(0), &mut out).is_err());
        assert_eq!(connect_to_offer(&mut head, Value::literal("a2V5")), Ok(true));
        client.send_head(&head, Length::Bytes(0), &mut out).expect("idle");
        assert_eq!(
            String::from_utf8_lossy(&out),
            "GET /chat HTTP/1.1\r\nhost: a\r\nSec-WebSocket-Version: 13\r\nsec-websocket-key: a2V5\r\n\
             connection: upgrade\r\nupgrade: websocket\r\n\r\n"
        );
    }

    #[test]
    fn the_answer_goes_over_http_2_and_back() {
        let (mut server, _) = received(OFFER);
        let mut head = Head::new();
        head.start_response(101).expect("a status");
        head.set_upgrade(Value::literal("websocket")).expect("room");
        let accept = FieldName::SecWebsocketAccept.into();
        head.append(&accept, Value::literal("upstream")).expect("room");
        assert_eq!(switch_to_accepted(&mut head), Ok(true));
        assert_eq!(
            (head.status(), head.upgrade(), head.has(FieldName::SecWebsocketAccept)),
            (200, None, false)
        );
        assert_eq!(accepted_to_switch(&mut head, Value::literal("ours")), Ok(true));
        let mut out = Vec::new();
        server.send_head(&head, Length::Bytes(0), &mut out).expect("offered");
        assert_eq!(
            String::from_utf8_lossy(&out),
            "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: ours\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\n\r\n"
        );
        assert!(server.is_tunnel());
    }

    #[test]
    fn what_is_no_handshake_stays_as_it_is() {
        let (_, mut head) = received("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(offer_to_connect(&mut head), Ok(false));
        assert_eq!(connect_to_offer(&mut head, Value::literal("a2V5")), Ok(false));
        let (_, mut head) = received(&OFFER.replace("GET", "POST"));
        assert_eq!(offer_to_connect(&mut head), Ok(false));
        let mut head = Head::new();
        head.start_response(403).expect("a status");
        assert_eq!(switch_to_accepted(&mut head), Ok(false));
        assert_eq!(accepted_to_switch(&mut head, Value::literal("ours")), Ok(false));
        assert_eq!((head.status(), head.is_empty()), (403, true));
    }
}
