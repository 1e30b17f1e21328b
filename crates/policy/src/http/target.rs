// SPDX-License-Identifier: Apache-2.0
//! What servers make of a path before they look at it.
//!
//! Servers decode what need not be encoded, resolve `.` and `..`, join `//`, and some take `\`, `%2F` and
//! `%5C` for `/` (RFC 3986 section 6.2 allows the first two, nobody all of them). Requests are passed on as
//! they came, so that a rule for `/public/.*` would open `/public/../admin` on such a server. Cilium has its
//! proxy rewrite paths for this reason (`http-normalize-path`, on by default); here a request is allowed
//! when every reading of its path is.

/// The readings of a target that differ from what is written; usually none. Queries are left as they are.
pub(super) fn readings(target: &[u8]) -> Vec<Vec<u8>> {
    let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
    let (path, query) = target.split_at(end);
    let mut readings: Vec<Vec<u8>> = Vec::new();
    if !path.starts_with(b"/") || !reads_otherwise(path) {
        return readings;
    }
    for slashes in [false, true] {
        let decoded = decoded(path, slashes);
        for joined in [false, true] {
            let mut reading = resolved(&decoded, joined);
            reading.extend_from_slice(query);
            if reading != target && !readings.contains(&reading) {
                readings.push(reading);
            }
        }
    }
    readings
}

/// Whether some server may read this path as another. Cheap, since every request is asked.
fn reads_otherwise(path: &[u8]) -> bool {
    path.iter().any(|byte| matches!(byte, b'%' | b'\\'))
        || path.windows(2).any(|pair| matches!(pair, b"//" | b"/."))
}

/// The path with unreserved characters as they are (RFC 3986 section 6.2.2.2); with `slashes`, whatever
/// may stand for a `/` is one.
fn decoded(path: &[u8], slashes: bool) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, tail)) = rest.split_first() {
        let byte = if first == b'%' { escaped(tail) } else { None };
        match byte {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            Some(b'/' | b'\\') if slashes => {
                decoded.push(b'/');
                rest = &tail[2..];
            }
            Some(_) | None => {
                decoded.push(if slashes && first == b'\\' { b'/' } else { first });
                rest = tail;
            }
        }
    }
    decoded
}

/// The byte of the two hexadecimal digits that a text begins with.
fn escaped(text: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(text.first()?)? << 4 | digit(text.get(1)?)?)
}

/// The path without dot segments (RFC 3986 section 5.2.4), and with `joined` without empty ones. Servlet
/// containers take a segment's parameters off first: there `..;a` is `..`.
fn resolved(path: &[u8], joined: bool) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        match name {
            b"." | b".." => {
                if name == b".." {
                    kept.pop();
                }
                if is_last {
                    kept.push(b"");
                }
            }
            b"" if joined && segment.is_empty() && !is_last => {}
            _ => kept.push(segment),
        }
    }
    let mut path = Vec::new();
    for segment in kept {
        path.push(b'/');
        path.extend_from_slice(segment);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str) -> Vec<String> {
        readings(target.as_bytes()).into_iter().map(|one| String::from_utf8(one).unwrap()).collect()
    }

    #[test]
    fn ordinary_targets_have_one_reading() {
        for target in [
            "/",
            "/a/b",
            "/a/",
            "/a?b=/../c//d%2e",
            "/.well-known/x",
            "/a.b/..c/d..",
            "/a%20b",
            "*",
            "a:80",
            "",
        ] {
            assert_eq!(read(target), [""; 0], "{target}");
        }
    }

    #[test]
    fn dot_segments_slashes_and_encoded_characters_are_read_as_servers_do() {
        for (target, reading) in [
            ("/public/../admin", "/admin"),
            ("/public/./admin", "/public/admin"),
            ("/public/%2e%2E/admin?q", "/admin?q"),
            ("/public/..;x=1/admin", "/admin"),
            ("/public//admin", "/public/admin"),
            ("//admin", "/admin"),
            ("/public/..%2fadmin", "/admin"),
            ("/public/..%5cadmin", "/admin"),
            ("/public/..\\admin", "/admin"),
            ("/%61dmin", "/admin"),
            ("/../..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/public/../secret//../public/x", "/secret/public/x"),
            ("/public/../secret//../public/x", "/public/x"),
        ] {
            assert!(read(target).iter().any(|one| one == reading), "{target}: {:?}", read(target));
        }
    }

    #[test]
    fn what_is_no_escape_stays() {
        for target in ["/%", "/%2", "/%zz", "/%e9", "/a%2"] {
            assert_eq!(read(target), [""; 0], "{target}");
        }
    }
}
