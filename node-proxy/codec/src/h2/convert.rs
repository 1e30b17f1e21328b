// SPDX-License-Identifier: Apache-2.0
//! Between the heads of `h2` (the `http` crate's) and ours.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use weft_ebpf_common::reason::Reason;

use crate::{
    error::ProtocolError,
    h1,
    headers::Headers,
    message::{RequestHead, ResponseHead},
};

/// Checks what `h2` leaves to its user (RFC 9113 section 8.3.1), and takes the head over.
pub(super) fn request_head(parts: http::request::Parts) -> Result<(RequestHead, Option<u64>), ProtocolError> {
    let http::request::Parts { method, uri, mut headers, .. } = parts;
    if method == Method::CONNECT {
        return Err(ProtocolError::new(
            Reason::BadRequest,
            StatusCode::NOT_IMPLEMENTED,
            "the method is not supported",
        ));
    }
    let uri = uri.into_parts();
    let target = uri.path_and_query.ok_or(ProtocolError::bad_request("a request without path"))?;
    check_target(&target, &method)?;
    let authority = authority(uri.authority, &mut headers)?;
    let length = content_length(&headers)?;
    join_cookies(&mut headers);
    let scheme = match uri.scheme {
        Some(scheme) if scheme == Scheme::HTTP || scheme == Scheme::HTTPS => scheme,
        _ => return Err(ProtocolError::bad_request("a scheme other than http and https")),
    };
    let head = RequestHead {
        method,
        target,
        authority: Some(authority),
        scheme,
        version: Version::HTTP_2,
        headers: Headers::from_map(headers),
        upgrade: None,
    };
    Ok((head, length))
}

/// The same bytes are allowed as in an HTTP/1.1 target, so that none can split a line there.
fn check_target(target: &PathAndQuery, method: &Method) -> Result<(), ProtocolError> {
    let text = target.as_str();
    let form_ok = text.starts_with('/') || (text == "*" && *method == Method::OPTIONS);
    if !form_ok || !text.bytes().all(h1::is_target) {
        return Err(ProtocolError::bad_request("the path has no form that is known"));
    }
    Ok(())
}

/// `:authority`, or `Host` without it; both must agree.
fn authority(pseudo: Option<Authority>, headers: &mut HeaderMap) -> Result<Authority, ProtocolError> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().cloned();
    if hosts.next().is_some() {
        return Err(ProtocolError::bad_request("host is given twice"));
    }
    let Some(host) = host else {
        let pseudo = pseudo.ok_or(ProtocolError::bad_request("a request without authority"))?;
        return check_authority(pseudo);
    };
    headers.remove(HOST);
    match pseudo {
        Some(pseudo) if pseudo.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            check_authority(pseudo)
        }
        Some(_) => Err(ProtocolError::bad_request("host and :authority differ")),
        None => h1::authority(Bytes::copy_from_slice(host.as_bytes())),
    }
}

fn check_authority(authority: Authority) -> Result<Authority, ProtocolError> {
    if h1::is_host_and_port(&authority) {
        Ok(authority)
    } else {
        Err(ProtocolError::bad_request("host is not a host with an optional port"))
    }
}

/// One number or none; `h2` itself compares the first with the content.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, ProtocolError> {
    const INVALID: ProtocolError = ProtocolError::bad_request("content-length is not one number");
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() || !value.as_bytes().iter().all(u8::is_ascii_digit) {
        return Err(INVALID);
    }
    value.to_str().ok().and_then(|text| text.parse().ok()).map(Some).ok_or(INVALID)
}

/// Crumbs become one field (RFC 9113 section 8.2.3), so that a policy sees them as an HTTP/1.1 server does.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(crumbs.join(&b"; "[..]))) {
        headers.insert(COOKIE, joined);
    }
}

/// The head of a request for an upstream. None if it has no authority, which HTTP/2 needs.
pub(super) fn upstream_request(head: &RequestHead, length: Option<u64>) -> Option<http::Request<()>> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(head.scheme.clone());
    parts.authority = Some(head.authority.clone()?);
    parts.path_and_query = Some(head.target.clone());
    let mut request = http::Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    *request.version_mut() = Version::HTTP_2;
    let mut headers = head.headers.clone().into_map();
    // The body is sent at once: nobody waits for an interim response.
    headers.remove(EXPECT);
    set_length(&mut headers, length);
    *request.headers_mut() = headers;
    Some(request)
}

/// The head of a response for a client. `length`: of the content, if known; none keeps no length.
pub(super) fn client_response(
    head: ResponseHead,
    length: Option<u64>,
    keep_length: bool,
) -> http::Response<()> {
    let mut response = http::Response::new(());
    *response.status_mut() = head.status;
    *response.version_mut() = Version::HTTP_2;
    let mut headers = head.headers.into_map();
    if !keep_length {
        set_length(&mut headers, length);
    }
    *response.headers_mut() = headers;
    response
}

/// A length that is known and not zero is said; a zero only where it was said before.
fn set_length(headers: &mut HeaderMap, length: Option<u64>) {
    match length {
        Some(0) if !headers.contains_key(CONTENT_LENGTH) => {}
        Some(length) => {
            let given = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
            if given != Some(length) {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
        None => {
            headers.remove(CONTENT_LENGTH);
        }
    }
}

/// The head of an upstream's response, and the length that it announces.
pub(super) fn response_head(
    parts: http::response::Parts,
) -> Result<(ResponseHead, Option<u64>), ProtocolError> {
    let length = content_length(&parts.headers)?;
    let head = ResponseHead {
        status: parts.status,
        version: Version::HTTP_2,
        headers: Headers::from_map(parts.headers),
        upgrade: None,
    };
    Ok((head, length))
}
