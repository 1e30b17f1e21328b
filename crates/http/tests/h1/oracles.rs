// SPDX-License-Identifier: Apache-2.0
//! What we accept, other parsers accept with the same meaning: `httparse`, which hyper reads with, and the
//! types of the `http` crate. What we write, they read as what it was.

use proptest::prelude::*;

use crate::{
    corpus::{REQUESTS, RESPONSES, stream},
    same::{same_request, same_requests_upstream, same_response},
};

#[test]
fn valid_messages_mean_the_same_to_all() {
    for request in REQUESTS {
        assert!(same_request(request.as_bytes()), "{request:?}");
    }
    for response in RESPONSES {
        assert!(same_response(response.as_bytes()), "{response:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_we_take_for_a_request_they_take_for_the_same(input in stream(REQUESTS, 2)) {
        same_request(&input);
    }

    #[test]
    fn what_we_take_for_a_response_they_take_for_the_same(input in stream(RESPONSES, 2)) {
        same_response(&input);
    }

    #[test]
    fn what_goes_upstream_others_take_for_as_many_requests(input in stream(REQUESTS, 4), piece in 1..80usize) {
        same_requests_upstream(&input, piece);
    }
}
