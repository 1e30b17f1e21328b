// SPDX-License-Identifier: Apache-2.0
//! Why a condition is as it is: for each type of condition the words that its API has for it.

/// The reasons of one type of condition.
pub trait Reason: Copy {
    /// The condition's `type`.
    const CONDITION: &'static str;
    /// Whether the condition is good when it does not hold.
    const NEGATIVE: bool;
    /// The word that is printed.
    fn word(self) -> &'static str;
}

macro_rules! reasons {
    ($(#[$about:meta])* $name:ident is $condition:literal, negative $negative:literal:
     $($(#[$doc:meta])* $reason:ident),+) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$doc])* $reason,)+
        }

        impl Reason for $name {
            const CONDITION: &'static str = $condition;
            const NEGATIVE: bool = $negative;

            fn word(self) -> &'static str {
                match self {
                    $($name::$reason => stringify!($reason),)+
                }
            }
        }
    };
}

reasons! {
    /// `Accepted` of a GatewayClass (`GatewayClassConditionReason`).
    ClassAccepted is "Accepted", negative false:
    /// Weft serves the class.
    Accepted,
    /// It asks for what Weft does not have.
    InvalidParameters
}

reasons! {
    /// `Accepted` of a Gateway (`GatewayConditionReason`).
    GatewayAccepted is "Accepted", negative false:
    /// Every listener is valid.
    Accepted,
    /// Some listeners are not; true where others are.
    ListenersNotValid,
    /// It cannot be understood, or asks for what Weft does not have.
    Invalid,
    /// It asks for an address of a type that Weft does not have.
    UnsupportedAddress
}

reasons! {
    /// `Programmed` of a Gateway (`GatewayConditionReason`).
    GatewayProgrammed is "Programmed", negative false:
    /// Every connected node serves it.
    Programmed,
    /// It is not accepted.
    Invalid,
    /// Some node has not answered yet.
    Pending,
    /// It asks for an address without saying which.
    AddressNotAssigned,
    /// A node cannot listen where it should.
    AddressNotUsable
}

reasons! {
    /// `Accepted` of a listener (`ListenerConditionReason`).
    ListenerAccepted is "Accepted", negative false:
    /// It is valid.
    Accepted,
    /// Weft does not speak its protocol.
    UnsupportedProtocol,
    /// It has a value or a field that Weft does not know.
    UnsupportedValue,
    /// Another listener has its port and hostname.
    HostnameConflict,
    /// Another listener has its port and a different protocol.
    ProtocolConflict
}

reasons! {
    /// `ResolvedRefs` of a listener (`ListenerConditionReason`).
    ListenerResolvedRefs is "ResolvedRefs", negative false:
    /// Everything that it names exists.
    ResolvedRefs,
    /// It allows routes of kinds that cannot attach.
    InvalidRouteKinds
}

reasons! {
    /// `Programmed` of a listener (`ListenerConditionReason`).
    ListenerProgrammed is "Programmed", negative false:
    /// Every connected node serves it.
    Programmed,
    /// It is not accepted, or a node cannot serve it.
    Invalid,
    /// Some node has not answered yet.
    Pending
}

reasons! {
    /// `Conflicted` of a listener (`ListenerConditionReason`).
    ListenerConflicted is "Conflicted", negative true:
    /// Another listener has its port and hostname.
    HostnameConflict,
    /// Another listener has its port and a different protocol.
    ProtocolConflict,
    /// No other listener is in its way.
    NoConflicts
}

reasons! {
    /// `Accepted` of a route at a parent (`RouteConditionReason`).
    RouteAccepted is "Accepted", negative false:
    /// It is attached.
    Accepted,
    /// No listener takes routes of its kind and namespace.
    NotAllowedByListeners,
    /// No listener has a hostname that fits.
    NoMatchingListenerHostname,
    /// The parent has no such listener or port, or does not exist.
    NoMatchingParent,
    /// It has a value or a field that Weft does not know.
    UnsupportedValue,
    /// Its filters exclude each other.
    IncompatibleFilters
}

reasons! {
    /// `ResolvedRefs` of a route at a parent (`RouteConditionReason`).
    RouteResolvedRefs is "ResolvedRefs", negative false:
    /// Everything that it names exists.
    ResolvedRefs,
    /// No ReferenceGrant allows a backend of another namespace.
    RefNotPermitted,
    /// A backend is of a kind that Weft does not have.
    InvalidKind,
    /// A backend does not exist.
    BackendNotFound,
    /// A backend wants a protocol that Weft does not speak.
    UnsupportedProtocol
}

reasons! {
    /// `PartiallyInvalid` of a route at a parent (`RouteConditionReason`).
    RoutePartiallyInvalid is "PartiallyInvalid", negative true:
    /// It has a value or a field that Weft does not know.
    UnsupportedValue,
    /// Its filters exclude each other.
    IncompatibleFilters
}

reasons! {
    /// `Valid` of a network policy (Cilium's condition; NetworkPolicy has none of its own).
    PolicyValid is "Valid", negative false:
    /// It is enforced as written.
    Valid,
    /// It is refused.
    Invalid,
    /// A node cannot enforce it.
    RejectedByNode
}

reasons! {
    /// `Accepted` of a RateLimitPolicy (`PolicyConditionReason`, GEP-713).
    RateLimitAccepted is "Accepted", negative false:
    /// It holds its target back.
    Accepted,
    /// It is refused.
    Invalid,
    /// Its target does not exist.
    TargetNotFound,
    /// Another policy has its target.
    Conflicted,
    /// A node cannot carry it out.
    RejectedByNode
}
