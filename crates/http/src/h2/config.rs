// SPDX-License-Identifier: Apache-2.0
//! What an HTTP/2 connection offers its peer.

use super::frame::{MAX_WINDOW, write_settings};

/// The window that every stream and connection begins with (RFC 9113, section 6.9.2).
pub(crate) const DEFAULT_WINDOW: u32 = 65_535;

/// The table that every decoder begins with (RFC 9113, section 6.5.2).
pub(crate) const DEFAULT_TABLE: u32 = 4096;

/// Names of settings (RFC 9113, section 6.5.2; RFC 8441, section 3).
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We answer.
    Server,
    /// We ask.
    Client,
}

/// Limits of a connection.
#[derive(Clone, Debug)]
pub struct Config {
    /// Streams that the peer may have open (SETTINGS_MAX_CONCURRENT_STREAMS); a client allows none. 100 is
    /// the least that RFC 9113, section 6.5.2, recommends.
    pub max_streams: u32,
    /// Octets that a stream may hold here before they are released; at least 65,535, with which it begins.
    pub stream_window: u32,
    /// Octets that all streams of the connection may hold here before they are released: its budget. At least
    /// four times the window of a stream, so that no one stream that nobody reads stops the others.
    pub connection_window: u32,
    /// Octets of a list of fields (SETTINGS_MAX_HEADER_LIST_SIZE).
    pub max_header_list: u32,
    /// Octets of the table for what the peer sends (SETTINGS_HEADER_TABLE_SIZE).
    pub header_table: u32,
    /// Whether clients may use the extended CONNECT of RFC 8441.
    pub extended_connect: bool,
}

impl Default for Config {
    /// 256 streams, 256 KiB for each, 1 MiB for all, 64 KiB of fields.
    fn default() -> Config {
        Config {
            max_streams: 256,
            stream_window: 256 << 10,
            connection_window: 1 << 20,
            max_header_list: 64 << 10,
            header_table: DEFAULT_TABLE,
            extended_connect: true,
        }
    }
}

impl Config {
    /// The same within what the protocol allows.
    pub(crate) fn bounded(&self) -> Config {
        let stream_window = self.stream_window.clamp(DEFAULT_WINDOW, MAX_WINDOW / 4);
        Config {
            stream_window,
            connection_window: self.connection_window.clamp(4 * stream_window, MAX_WINDOW),
            header_table: self.header_table.min(crate::hpack::LARGEST_DECODER_TABLE),
            ..self.clone()
        }
    }

    /// Appends the SETTINGS frame that a connection begins with.
    pub(crate) fn write(&self, role: Role, out: &mut Vec<u8>) {
        let role_specific = match role {
            Role::Server => (setting::MAX_CONCURRENT_STREAMS, self.max_streams),
            Role::Client => (setting::ENABLE_PUSH, 0),
        };
        let mut entries = vec![
            role_specific,
            (setting::INITIAL_WINDOW_SIZE, self.stream_window),
            (setting::MAX_HEADER_LIST_SIZE, self.max_header_list),
        ];
        if self.header_table != DEFAULT_TABLE {
            entries.push((setting::HEADER_TABLE_SIZE, self.header_table));
        }
        if role == Role::Server && self.extended_connect {
            entries.push((setting::ENABLE_CONNECT_PROTOCOL, 1));
        }
        write_settings(&entries, out);
    }
}
