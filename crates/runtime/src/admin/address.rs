// SPDX-License-Identifier: Apache-2.0
//! Where an admin endpoint listens.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use thiserror::Error;

/// A socket of an admin endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `ADDRESS:PORT`.
    Tcp(SocketAddr),
}

/// A text that names no socket.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no admin address: write unix:/path/to/socket, 127.0.0.1:9901 or [::1]:9901")]
pub struct AdminAddressError(String);

impl FromStr for AdminAddress {
    type Err = AdminAddressError;

    fn from_str(text: &str) -> Result<AdminAddress, AdminAddressError> {
        let refuse = || AdminAddressError(text.to_owned());
        match text.strip_prefix("unix:") {
            Some("") => Err(refuse()),
            // `unix://PATH` is what grpc clients write.
            Some(path) => Ok(AdminAddress::Unix(path.strip_prefix("//").unwrap_or(path).into())),
            None => text.parse().map(AdminAddress::Tcp).map_err(|_ignored| refuse()),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            AdminAddress::Tcp(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["unix:/run/weft/admin.sock", "127.0.0.1:9901", "[::1]:9901"] {
            assert_eq!(text.parse::<AdminAddress>().unwrap().to_string(), text);
        }
        assert_eq!("unix:///run/a".parse(), Ok(AdminAddress::Unix("/run/a".into())));
        for text in ["", "unix:", "localhost", "127.0.0.1"] {
            assert!(text.parse::<AdminAddress>().is_err(), "{text}");
        }
    }
}
