// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//! The one list of reasons. Kernel drops, proxy errors, logs, metrics and Hubble drop reasons all
//! come from here.
//!
//! Numbers 130 to 255 are those of Cilium's drop reasons, so that Hubble shows the same names. From
//! 256 on the numbers are Weft's own: decisions and failures of the proxy, which Hubble shows as the
//! number that [`Reason::hubble`] gives.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $variant:ident = $number:literal, hubble $hubble:literal, http $http:literal, $name:literal;)*) => {
        /// Why a packet, a connection or a request was dropped, denied or answered with an error.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum Reason { $($(#[doc = $doc])* $variant = $number,)* }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The snake-case name used in metrics and logs.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            /// What the reason means, as one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Reason::$variant => concat!($($doc),*).trim_ascii(),)* }
            }

            /// The number of Hubble's `DropReason` that stands for this reason (0: none).
            pub const fn hubble(self) -> u16 {
                match self { $(Reason::$variant => $hubble,)* }
            }

            /// The status code with which the proxy answers an HTTP request (0: the connection ends).
            pub const fn http_status(self) -> u16 {
                match self { $(Reason::$variant => $http,)* }
            }

            /// The reason with this number.
            pub const fn from_number(number: u16) -> Option<Reason> {
                match number { $($number => Some(Reason::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    /// The source address is not one of the sending pod's.
    InvalidSourceIp = 132, hubble 132, http 0, "invalid_source_ip";
    /// No policy allows it.
    PolicyDenied = 133, hubble 133, http 403, "policy_denied";
    /// The packet is malformed or cut short.
    InvalidPacket = 134, hubble 134, http 0, "invalid_packet";
    /// A frame of a pod that is neither IP nor ARP, which no policy could decide about.
    UnsupportedL3 = 139, hubble 139, http 0, "unsupported_l3";
    /// A layer 4 protocol that the datapath cannot follow, where policy is enforced.
    UnknownL4 = 142, hubble 142, http 0, "unknown_l4";
    /// A connection could not be entered into the connection table.
    ConntrackInsertFailed = 155, hubble 155, http 0, "conntrack_insert_failed";
    /// A fragment of a datagram whose first one was not seen, or of what the proxy would have to take.
    FragmentUnsupported = 157, hubble 157, http 0, "fragment_unsupported";
    /// The service has no endpoint that could take the connection.
    NoServiceBackend = 158, hubble 158, http 503, "no_service_backend";
    /// A packet from the middle of a connection that is not known, where the policy does not allow both ways;
    /// with TCP, who sent it is reset.
    UnknownConnection = 163, hubble 163, http 0, "unknown_connection";
    /// The node has no policy for this workload yet.
    NoPolicyConfig = 165, hubble 165, http 0, "no_policy_config";
    /// A packet to a service address that was not translated at the socket.
    ServiceNotTranslated = 174, hubble 174, http 0, "service_not_translated";
    /// The proxy has no socket for a redirected packet, because it is not running.
    ProxyUnavailable = 178, hubble 178, http 0, "proxy_unavailable";
    /// The kernel refused to hand a redirected packet to the proxy's socket.
    ProxyAssignFailed = 179, hubble 179, http 0, "proxy_assign_failed";
    /// The policy wants a redirect for a protocol that the proxy does not take.
    RedirectUnsupported = 180, hubble 180, http 0, "redirect_unsupported";
    /// A deny rule names it.
    DeniedByRule = 181, hubble 181, http 403, "denied_by_rule";
    /// The policy asks for a peer that has proved who it is, and this one has not.
    AuthenticationRequired = 189, hubble 189, http 403, "authentication_required";
    /// The connection was ended because a new rule must decide its requests one by one.
    PolicyTightened = 256, hubble 133, http 0, "policy_tightened";
    /// No L7 rule allows the request.
    HttpPolicyDenied = 257, hubble 133, http 403, "http_policy_denied";
    /// The local rate limit is used up.
    RateLimited = 258, hubble 0, http 429, "rate_limited";
    /// No route matches the request.
    NoRoute = 259, hubble 0, http 404, "no_route";
    /// The matched route has no backend that exists, or a filter that is not understood.
    InvalidBackend = 260, hubble 0, http 500, "invalid_backend";
    /// Every backend of the matched route has weight 0.
    NoWeight = 261, hubble 0, http 503, "no_weight";
    /// The backend refused the connection or could not be reached.
    UpstreamConnectFailed = 262, hubble 0, http 503, "upstream_connect_failed";
    /// The backend closed or reset the connection before the response was complete.
    UpstreamReset = 263, hubble 0, http 502, "upstream_reset";
    /// The backend's response breaks the protocol.
    UpstreamProtocol = 264, hubble 0, http 502, "upstream_protocol_error";
    /// The backend did not answer within the route's timeout.
    UpstreamTimeout = 265, hubble 0, http 504, "upstream_timeout";
    /// The request breaks the protocol.
    BadRequest = 266, hubble 0, http 400, "bad_request";
    /// The request's header section is larger than allowed.
    HeadersTooLarge = 267, hubble 0, http 431, "headers_too_large";
    /// The request was not complete within the time allowed.
    RequestTimeout = 268, hubble 0, http 408, "request_timeout";
    /// The node has no state yet, or the state for this destination could not be read.
    NoState = 269, hubble 165, http 500, "no_state";
    /// The client went away before the response was complete.
    ClientReset = 270, hubble 0, http 0, "client_reset";
    /// The proxy cannot name the workload behind the connection.
    UnknownSource = 272, hubble 172, http 403, "unknown_source";
    /// The original destination of the connection is not one that the proxy serves.
    UnknownDestination = 273, hubble 151, http 404, "unknown_destination";
    /// The request's target URI is longer than allowed.
    UriTooLong = 274, hubble 0, http 414, "uri_too_long";
    /// An error inside Weft ended the request.
    Internal = 275, hubble 0, http 500, "internal_error";
    /// An ICMP error about no connection of the pod, or from somebody whom its packets do not pass.
    UnrelatedError = 276, hubble 142, http 0, "unrelated_error";
    /// The address is that of a service which has no such port.
    UnknownServicePort = 277, hubble 158, http 0, "unknown_service_port";
    /// The pod's device is not known to be any pod's, or several claim the address.
    UnknownOwner = 278, hubble 172, http 0, "unknown_owner";
    /// The request asks for a tunnel that is not relayed: CONNECT, a protocol other than WebSocket, or a WebSocket
    /// that the backend does not take.
    TunnelUnsupported = 279, hubble 0, http 501, "tunnel_unsupported";
    /// A pod opens a connection that the proxy already has in its name, with the same addresses and ports.
    PortInUse = 280, hubble 0, http 0, "port_in_use";
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}
