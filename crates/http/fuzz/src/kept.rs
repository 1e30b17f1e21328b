// SPDX-License-Identifier: Apache-2.0
//! One input as one line of text, so that what is kept can be read and compared.

/// The line of an input.
pub fn line(input: &[u8]) -> String {
    input.escape_ascii().to_string()
}

/// The input of a line that [`line`] wrote.
pub fn input(line: &str) -> Vec<u8> {
    let mut bytes = line.bytes();
    let mut input = Vec::new();
    while let Some(byte) = bytes.next() {
        input.push(if byte == b'\\' { escaped(&mut bytes) } else { byte });
    }
    input
}

fn escaped(bytes: &mut impl Iterator<Item = u8>) -> u8 {
    match bytes.next() {
        Some(b'r') => b'\r',
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'x') => {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).unwrap_or(0);
            u8::try_from(digit(bytes.next()) * 16 + digit(bytes.next())).expect("invariant: two digits")
        }
        Some(byte) => byte,
        None => b'\\',
    }
}
