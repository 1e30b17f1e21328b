// SPDX-License-Identifier: Apache-2.0
//! Random requests, and the response that each has to have.

use std::fmt;

use proptest::prelude::*;
use weft_http::head::{Head, Name, Value};

/// One request; a server answers it with what it got: `x-method` and `x-path`, the request's fields, its content
/// and its trailers, and an interim response before that where it asks for one.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Message {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) fields: Fields,
    pub(crate) content: Vec<u8>,
    /// The sizes of the pieces in which content is sent.
    pub(crate) piece: usize,
    pub(crate) trailers: Option<Fields>,
    /// It is given up when so much of its response has come.
    pub(crate) given_up: Option<usize>,
}

pub(crate) type Fields = Vec<(String, Vec<u8>)>;

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Message { method, path, fields, content, piece, trailers, given_up } = self;
        let content = content.len();
        write!(f, "{method} {path} {fields:?} {content}/{piece} {trailers:?} up {given_up:?}")
    }
}

/// What a server answers, as names and values.
pub(crate) fn answer_fields(method: &str, path: &str, fields: &Fields) -> Fields {
    let mut answer = fields.clone();
    answer.push(("x-method".to_owned(), method.as_bytes().to_vec()));
    answer.push(("x-path".to_owned(), path.as_bytes().to_vec()));
    answer
}

/// The fields of a head whose names begin with `x-`.
pub(crate) fn own_fields(head: &Head) -> Fields {
    head.iter()
        .map(|(name, value)| (String::from_utf8(name.to_vec()).unwrap(), value.to_vec()))
        .filter(|(name, _)| name.starts_with("x-"))
        .collect()
}

pub(crate) fn add_fields(head: &mut Head, fields: &Fields) {
    for (name, value) in fields {
        head.append(&Name::new(name.as_bytes()).unwrap(), Value::new(value).unwrap()).unwrap();
    }
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-c]{0,2}".prop_map(String::into_bytes),
        4 => "[!-~]{1,40}".prop_map(String::into_bytes),
        1 => "[a-z]{500,6000}".prop_map(String::into_bytes),
        1 => prop::collection::vec(0x80_u8..=0xff, 1..30),
    ]
}

fn fields() -> impl Strategy<Value = Fields> {
    prop::collection::vec(("x-[a-d]{1,2}", value()), 0..6)
}

pub(crate) fn message() -> impl Strategy<Value = Message> {
    let method = prop_oneof![Just("GET"), Just("POST"), Just("PUT"), Just("PURGE")];
    let content = prop_oneof![
        3 => Just(0_usize),
        3 => 1_usize..200,
        2 => 200_usize..40_000,
        1 => 40_000_usize..200_000,
    ];
    let content = (content, any::<u8>())
        .prop_map(|(length, first)| (0..length).map(|at| (at % 251) as u8 ^ first).collect());
    let given_up = prop_oneof![4 => Just(None), 1 => (0_usize..50_000).prop_map(Some)];
    let trailers = prop::option::of(fields());
    (method, "/[a-z/]{0,30}(\\?[a-z=&]{0,10})?", fields(), content, 1_usize..70_000, trailers, given_up)
        .prop_map(|(method, path, fields, content, piece, trailers, given_up)| Message {
            method: method.to_owned(),
            path,
            fields,
            content,
            piece,
            trailers,
            given_up,
        })
}
