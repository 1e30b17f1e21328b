// SPDX-License-Identifier: Apache-2.0
//! Against the crate `h2`, in both roles, over a pipe that gives what it has in pieces.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use weft_http::h2::{Config, ErrorCode};

use crate::{
    ends::{Answer, Asker, Echo, End, check},
    exchange::{Fields, Message, answer_fields, message},
};

/// What both sides choose.
#[derive(Clone, Copy, Debug)]
struct Choices {
    /// Octets that the pipe holds, and that are read at once.
    pipe: usize,
    read: usize,
    /// Of `h2`.
    stream_window: u32,
    connection_window: u32,
    table: u32,
    frame: u32,
    streams: u32,
    /// Ours.
    our_window: u32,
    our_table: u32,
    our_streams: u32,
    pings: bool,
}

fn choices() -> impl Strategy<Value = Choices> {
    let pipe = prop_oneof![1_usize..100, 100_usize..100_000];
    let read = prop_oneof![1_usize..20, 20_usize..70_000];
    let windows = (prop_oneof![1000_u32..9000, Just(65_535), Just(1 << 20)], 65_535_u32..1_000_000);
    let table = prop_oneof![Just(0_u32), 1_u32..200, Just(4096), Just(65_536)];
    let own_table = prop_oneof![Just(0_u32), 1_u32..200, Just(4096), Just(65_535)];
    let sizes = (table, 16_384_u32..40_000, 1_u32..20);
    let ours = (65_535_u32..200_000, own_table, 1_u32..20);
    (pipe, read, windows, sizes, ours, any::<bool>()).prop_map(
        |(pipe, read, (stream_window, connection_window), (table, frame, streams), ours, pings)| Choices {
            pipe,
            read,
            stream_window,
            connection_window,
            table,
            frame,
            streams,
            our_window: ours.0,
            our_table: ours.1,
            our_streams: ours.2,
            pings,
        },
    )
}

impl Choices {
    /// The messages without content that small pieces would make long to carry.
    fn shorten(&self, mut messages: Vec<Message>) -> Vec<Message> {
        for message in &mut messages {
            message.content.truncate(300 * self.pipe.min(self.read));
        }
        messages
    }

    fn config(&self) -> Config {
        Config {
            max_streams: self.our_streams,
            stream_window: self.our_window,
            connection_window: 4 * self.our_window,
            header_table: self.our_table,
            ..Config::default()
        }
    }
}

/// Moves octets between an end and a pipe until the end is done or the pipe closes.
async fn drive(end: &mut impl End, pipe: DuplexStream, read: usize) {
    let (mut reader, mut writer) = tokio::io::split(pipe);
    let (mut input, mut piece) = (Vec::new(), vec![0; read]);
    end.start();
    loop {
        let consumed = end.take(&input);
        input.drain(..consumed);
        let (_, _, out) = end.connection();
        let waiting = std::mem::take(out);
        if waiting.is_empty() && end.is_done() {
            return;
        }
        tokio::select! {
            biased;
            written = writer.write(&waiting), if !waiting.is_empty() => {
                let Ok(written) = written else { return };
                let (_, _, out) = end.connection();
                out.splice(..0, waiting[written..].iter().copied());
            }
            there = reader.read(&mut piece) => {
                let (_, _, out) = end.connection();
                out.splice(..0, waiting.iter().copied());
                match there {
                    Ok(0) | Err(_) => return,
                    Ok(there) => input.extend_from_slice(&piece[..there]),
                }
            }
        }
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("it does not hang");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_client_of_the_crate_gets_from_our_server_what_it_asked_for(
        messages in prop::collection::vec(message(), 1..12), choices in choices()
    ) {
        let messages = choices.shorten(messages);
        run(async move {
            let (ours, theirs) = tokio::io::duplex(choices.pipe);
            let mut server = Echo::new(&choices.config());
            let client = ask_with_h2(messages.clone(), theirs, choices);
            let answers = tokio::select! {
                answers = client => answers,
                () = drive(&mut server, ours, choices.read) => panic!("our server ended: {:?}", server.failure),
            };
            check(&messages, &answers);
        });
    }

    #[test]
    fn our_client_gets_from_a_server_of_the_crate_what_it_asked_for(
        messages in prop::collection::vec(message(), 1..12), choices in choices()
    ) {
        let messages = choices.shorten(messages);
        run(async move {
            let (ours, theirs) = tokio::io::duplex(choices.pipe);
            let mut client = Asker::new(&choices.config(), messages.clone());
            tokio::select! {
                () = echo_with_h2(theirs, choices) => panic!("their server ended"),
                () = drive(&mut client, ours, choices.read) => {}
            }
            assert_eq!(client.failure, None);
            check(&messages, &client.answers);
        });
    }
}

async fn ask_with_h2(messages: Vec<Message>, pipe: DuplexStream, choices: Choices) -> Vec<Answer> {
    let (mut requests, mut connection) = h2::client::Builder::new()
        .initial_window_size(choices.stream_window)
        .initial_connection_window_size(choices.connection_window)
        .header_table_size(choices.table)
        .initial_max_send_streams(1)
        .max_frame_size(choices.frame)
        .max_header_list_size(1 << 20)
        .handshake::<_, Bytes>(pipe)
        .await
        .unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let asking = async {
        let mut running = Vec::new();
        for message in messages {
            requests = requests.ready().await.unwrap();
            let mut request = http::Request::builder()
                .method(message.method.as_str())
                .uri(format!("http://a.test{}", message.path));
            for (name, value) in &message.fields {
                request = request.header(name, &value[..]);
            }
            let end = message.content.is_empty() && message.trailers.is_none();
            let request = request.body(()).unwrap();
            let (response, content) = requests.send_request(request, end).unwrap();
            if choices.pings {
                pings.ping(h2::Ping::opaque()).await.unwrap();
            }
            let answer = answer(response, message.given_up);
            // It runs while others wait for a place.
            running.push(tokio::spawn(async move {
                let mut sending = Box::pin(send(content, message, end));
                let mut answering = Box::pin(answer);
                tokio::select! {
                    // What is given up is not sent to its end: nobody reads what comes back.
                    answer = &mut answering => {
                        if !answer.given_up {
                            sending.await;
                        }
                        answer
                    }
                    () = &mut sending => answering.await,
                }
            }));
        }
        let mut answers = Vec::new();
        for one in running {
            answers.push(one.await.unwrap());
        }
        answers
    };
    tokio::select! {
        answers = asking => answers,
        ended = connection => panic!("their connection ended: {ended:?}"),
    }
}

/// Sends content, as the windows allow. That it is no longer wanted is no failure.
async fn send(mut stream: h2::SendStream<Bytes>, message: Message, end: bool) {
    if end {
        return;
    }
    for piece in message.content.chunks(message.piece) {
        if send_piece(&mut stream, Bytes::copy_from_slice(piece)).await.is_none() {
            return;
        }
    }
    drop(match message.trailers {
        Some(fields) => stream.send_trailers(map(&fields)),
        None => stream.send_data(Bytes::new(), true),
    });
}

async fn send_piece(stream: &mut h2::SendStream<Bytes>, mut piece: Bytes) -> Option<()> {
    while !piece.is_empty() {
        stream.reserve_capacity(piece.len());
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
        stream.send_data(piece.split_to(capacity.min(piece.len())), false).ok()?;
    }
    Some(())
}

fn map(fields: &Fields) -> http::HeaderMap {
    let mut map = http::HeaderMap::new();
    for (name, value) in fields {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, http::HeaderValue::from_bytes(value).unwrap());
    }
    map
}

fn fields(map: &http::HeaderMap) -> Fields {
    map.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

async fn answer(response: h2::client::ResponseFuture, given_up: Option<usize>) -> Answer {
    let response = response.await.unwrap();
    let mut answer = Answer {
        status: response.status().as_u16(),
        fields: fields(response.headers()),
        ..Answer::default()
    };
    let mut content = response.into_body();
    while let Some(piece) = content.data().await {
        let piece = piece.unwrap();
        content.flow_control().release_capacity(piece.len()).unwrap();
        answer.content.extend_from_slice(&piece);
        if given_up.is_some_and(|after| answer.content.len() > after) {
            answer.given_up = true;
            return answer;
        }
    }
    answer.trailers = content.trailers().await.unwrap().map(|map| fields(&map));
    answer.complete = true;
    answer
}

async fn echo_with_h2(pipe: DuplexStream, choices: Choices) {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(choices.stream_window)
        .initial_connection_window_size(choices.connection_window)
        .max_frame_size(choices.frame)
        .max_header_list_size(1 << 20)
        .max_concurrent_streams(choices.streams)
        .handshake::<_, Bytes>(pipe)
        .await
        .unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let mut running = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => drop(running.spawn(echo_one(request, respond))),
                Some(Err(error)) => panic!("their server: {error:?}"),
                None => return,
            },
            Some(echoed) = running.join_next() => {
                let _given_up = echoed.unwrap();
                if choices.pings {
                    // The answer is awaited by the connection.
                    drop(pings.send_ping(h2::Ping::opaque()));
                }
            }
        }
    }
}

async fn echo_one(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) -> Option<()> {
    let (parts, mut content) = request.into_parts();
    let path = parts.uri.path_and_query().unwrap().as_str();
    let mut response = http::Response::new(());
    let own = fields(&parts.headers).into_iter().filter(|(name, _)| name.starts_with("x-")).collect();
    *response.headers_mut() = map(&answer_fields(parts.method.as_str(), path, &own));
    let mut stream = respond.send_response(response, content.is_end_stream()).ok()?;
    if content.is_end_stream() {
        return Some(());
    }
    while let Some(piece) = content.data().await {
        let piece = piece.ok()?;
        let length = piece.len();
        send_piece(&mut stream, piece).await?;
        content.flow_control().release_capacity(length).ok()?;
    }
    match content.trailers().await.ok()? {
        Some(trailers) => stream.send_trailers(trailers).ok()?,
        None => stream.send_data(Bytes::new(), true).ok()?,
    }
    Some(())
}

/// What `h2` takes for an error we take for one, with the same code.
#[test]
fn both_close_the_connection_for_the_same_frames() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let frames: [(&str, &[u8], u32); 6] = [
        ("a window of nothing", b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0", 1),
        ("content on no stream", b"\0\0\0\0\0\0\0\0\0", 1),
        ("a ping on a stream", b"\0\0\x08\x06\0\0\0\0\x01\0\0\0\0\0\0\0\0", 1),
        ("a reset of an idle stream", b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\0", 1),
        ("a continuation of nothing", b"\0\0\0\x09\x04\0\0\0\x01", 1),
        ("a window that is too large", b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\xff\xff", 3),
    ];
    for (name, frame, code) in frames {
        let mut ours = Echo::new(&Config::default());
        ours.take(&[PREFACE, frame].concat());
        assert_eq!(ours.failure, Some(ErrorCode(code)), "{name}");
        run(async move {
            let (mut raw, theirs) = tokio::io::duplex(1 << 16);
            raw.write_all(&[PREFACE, frame].concat()).await.unwrap();
            let mut connection = h2::server::handshake(theirs).await.unwrap();
            let ended = connection.accept().await.unwrap();
            let reason = ended.err().and_then(|error| error.reason());
            assert_eq!(reason, Some(h2::Reason::from(code)), "{name}");
        });
    }
}
