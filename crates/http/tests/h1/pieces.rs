// SPDX-License-Identifier: Apache-2.0
//! How bytes arrive changes nothing, nothing that arrives panics or loops, and what is written is read as
//! what was meant.

use proptest::{collection::vec, prelude::*};
use weft_http::{
    h1::{Client, Event, Length, Limits, Server},
    head::{Head, Name, Scheme, Value},
};

use crate::{
    corpus::{REQUESTS, RESPONSES, cuts, stream},
    drive::{ask, cut, serve, serve_beside},
    support::{request, response},
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn requests_mean_the_same_in_any_pieces(input in stream(REQUESTS, 3), cuts in cuts()) {
        prop_assert_eq!(serve(&cut(&input, &cuts)), serve(&[&input]));
    }

    /// A worker has one head for many connections: nothing of one is seen in another.
    #[test]
    fn a_head_that_others_use_in_between_changes_nothing(
        input in stream(REQUESTS, 2),
        other in stream(REQUESTS, 3),
        lengths in cuts(),
    ) {
        let alone = serve(&[&input]);
        prop_assert_eq!(&serve_beside(&cut(&input, &lengths), &cut(&other, &[13, 40, 200])), &alone);
        prop_assert_eq!(&serve_beside(&cut(&input, &[1]), &[&other]), &alone);
    }

    #[test]
    fn responses_mean_the_same_in_any_pieces(input in stream(RESPONSES, 3), cuts in cuts(), head in any::<bool>()) {
        let method = if head { "HEAD" } else { "GET" };
        prop_assert_eq!(ask(&cut(&input, &cuts), method), ask(&[&input], method));
    }

    /// Whatever comes, and however changed.
    #[test]
    fn nothing_panics_or_loops(input in stream(REQUESTS, 40), response in stream(RESPONSES, 40), cuts in cuts()) {
        serve(&cut(&input, &cuts));
        serve(&[&response]);
        ask(&cut(&response, &cuts), "GET");
        ask(&[&input], "GET");
    }

    #[test]
    fn any_bytes_do_not_panic(input in vec(any::<u8>(), 0..400), cuts in cuts()) {
        serve(&cut(&input, &cuts));
        ask(&cut(&input, &cuts), "GET");
    }
}

/// Fields that go through, and some that the machines write themselves.
fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop_oneof![
        "[a-z][a-z0-9!#$&*+.^_`|~-]{0,20}",
        proptest::sample::select(vec!["accept", "cookie", "content-type", "te2", "x-forwarded-for", "date"])
            .prop_map(str::to_owned),
    ];
    let own = ["connection", "keep-alive", "upgrade", "host", "te", "expect", "content-length"];
    let name = name.prop_filter("not the machine's own", move |name| !own.contains(&name.as_str()));
    let value = "([!-~\u{80}-\u{ff}]([ -~\t\u{80}-\u{ff}]{0,30}[!-~\u{80}-\u{ff}])?)?";
    vec((name, value), 0..12)
}

fn filled(mut head: Head, fields: &[(String, String)]) -> Head {
    for (name, value) in fields {
        let name = Name::new(name.as_bytes()).expect("a name");
        head.append(&name, Value::new(value.as_bytes()).expect("a value")).expect("room");
    }
    head
}

fn pairs(head: &Head) -> Vec<(Vec<u8>, Vec<u8>)> {
    let kept = |name: &[u8]| !name.eq_ignore_ascii_case(b"content-length");
    head.iter().filter(|(name, _)| kept(name)).map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_a_client_writes_a_server_reads(
        fields in fields(),
        target in "/[!$-;=@-_a-z{-~]{0,30}(\\?[!$-;=?-~]{0,30})?",
        content in vec(any::<u8>(), 0..200),
        chunked in any::<bool>(),
        method in "[A-Z]{1,10}",
    ) {
        prop_assume!(!matches!(&method[..], "CONNECT"));
        let sent = filled(request(&method, &target), &fields);
        let (mut client, mut out) = (Client::new(Limits::default()), Vec::new());
        let length = if chunked { Length::Unknown } else { Length::Bytes(content.len() as u64) };
        client.send_head(&sent, length, &mut out).expect("idle");
        for piece in content.chunks(50) {
            client.send_data(piece, &mut out).expect("as announced");
        }
        client.finish(&mut out).expect("as announced");
        let mut server = Server::new(Limits::default(), Scheme::Http);
        let (mut head, mut trailers) = (Head::new(), Head::new());
        let (mut at, event) = server.receive(&out, &mut head).expect("valid");
        prop_assert_eq!(event, Some(Event::Head));
        prop_assert_eq!(head.method_text(), sent.method_text());
        prop_assert_eq!(head.target(), sent.target());
        prop_assert_eq!((head.path(), head.query()), (sent.path(), sent.query()));
        prop_assert_eq!(head.authority(), sent.authority());
        prop_assert_eq!(pairs(&head), pairs(&sent));
        let mut received = Vec::new();
        while let (used, Some(Event::Data(data))) = server.receive(&out[at..], &mut trailers).expect("valid") {
            received.extend_from_slice(data);
            at += used;
        }
        prop_assert_eq!(received, content);
    }

    #[test]
    fn what_a_server_writes_a_client_reads(
        fields in fields(),
        status in 200..600u16,
        content in vec(any::<u8>(), 0..200),
        trailers in fields(),
        chunked in any::<bool>(),
    ) {
        let (mut server, mut client) = (Server::new(Limits::default(), Scheme::Http), Client::new(Limits::default()));
        let (mut out, mut head) = (Vec::new(), Head::new());
        client.send_head(&request("GET", "/"), Length::Bytes(0), &mut out).expect("idle");
        server.receive(&out, &mut head).expect("valid");
        out.clear();
        let sent = filled(response(status), &fields);
        let length = if chunked { Length::Unknown } else { Length::Bytes(content.len() as u64) };
        server.send_head(&sent, length, &mut out).expect("due");
        for piece in content.chunks(50) {
            server.send_data(piece, &mut out).expect("as announced");
        }
        let trailers = filled(Head::new(), &trailers);
        server.send_trailers(&trailers, &mut out).expect("as announced");
        let none = matches!(status, 204 | 304);
        let (mut at, event) = client.receive(&out, &mut head).expect("valid");
        prop_assert_eq!((event, head.status()), (Some(Event::Head), status));
        prop_assert_eq!(pairs(&head), pairs(&sent));
        let (mut received, mut end) = (Vec::new(), None);
        while let (used, Some(event)) = client.receive(&out[at..], &mut head).expect("valid") {
            at += used;
            match event {
                Event::Data(data) => received.extend_from_slice(data),
                event => end = Some(event == Event::Trailers),
            }
        }
        prop_assert_eq!(at, out.len());
        prop_assert_eq!(received, if none { Vec::new() } else { content });
        prop_assert_eq!(end, Some(chunked && !none && !trailers.is_empty()));
        if end == Some(true) {
            prop_assert_eq!(pairs(&head), pairs(&trailers));
        }
        prop_assert!(client.is_idle());
    }
}
