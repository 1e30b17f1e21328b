// SPDX-License-Identifier: Apache-2.0
//! The join token: all that a node must be given besides the controller's address.
//!
//! `weft1.<fingerprint>.<secret>`: the SHA-256 of the controller's CA certificate, by which the node
//! knows the controller, and 32 random bytes, by which the controller knows the node. Both are
//! base64url without padding. Without the secret it only says which controller it is, for nodes that show
//! something else.

use std::{fmt, str::FromStr};

use aws_lc_rs::{constant_time, digest, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// A join token. `Debug` shows the fingerprint, never the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    fingerprint: [u8; 32],
    secret: Option<[u8; 32]>,
}

/// Why a text is no join token. The text itself is never part of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing but white space.
    #[error("it is empty: has the controller written it yet, and is this the file?")]
    Empty,
    /// Not three parts, or another version.
    #[error("not a join token: expected weft1.<fingerprint>.<secret>, as the controller wrote it")]
    Format,
    /// A part is not 32 bytes in base64url.
    #[error("the join token's {0} is damaged: copy the whole token again, as one line")]
    Damaged(&'static str),
    /// The system has no random numbers to give.
    #[error("no random bytes from the system")]
    Random,
}

const VERSION: &str = "weft1";

impl JoinToken {
    /// A token with a new secret, for the controller with this CA certificate.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn generate(ca_certificate: &[u8]) -> Result<JoinToken, TokenError> {
        let mut secret = [0; 32];
        rand::fill(&mut secret).or(Err(TokenError::Random))?;
        Ok(JoinToken { fingerprint: fingerprint(ca_certificate), secret: Some(secret) })
    }

    /// The text to give to a node. It holds the secret: write it nowhere else.
    pub fn expose(&self) -> String {
        let fingerprint = URL_SAFE_NO_PAD.encode(self.fingerprint);
        match self.secret {
            Some(secret) => format!("{VERSION}.{fingerprint}.{}", URL_SAFE_NO_PAD.encode(secret)),
            None => format!("{VERSION}.{fingerprint}"),
        }
    }

    /// What of the token everybody may know: by what a node knows the controller.
    pub fn without_secret(&self) -> JoinToken {
        JoinToken { fingerprint: self.fingerprint, secret: None }
    }

    /// Whether it is enough to join with.
    pub fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// The value of the `authorization` header that a node sends. It holds the secret.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.expose())
    }

    /// Whether the value of an `authorization` header carries this token, compared in constant time.
    pub fn authorizes(&self, authorization: &[u8]) -> bool {
        self.has_secret()
            && constant_time::verify_slices_are_equal(authorization, self.authorization().as_bytes()).is_ok()
    }

    /// Whether this is the certificate of the controller's CA.
    pub(crate) fn is_for(&self, ca_certificate: &[u8]) -> bool {
        self.fingerprint == fingerprint(ca_certificate)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<JoinToken, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        let mut parts = text.split('.');
        let (Some(VERSION), Some(fingerprint), secret, None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Format);
        };
        let secret = secret.map(|secret| part(secret, "secret")).transpose()?;
        Ok(JoinToken { fingerprint: part(fingerprint, "fingerprint")?, secret })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({VERSION}.{}.<redacted>)", URL_SAFE_NO_PAD.encode(self.fingerprint))
    }
}

fn part(text: &str, name: &'static str) -> Result<[u8; 32], TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).or(Err(TokenError::Damaged(name)))?;
    bytes.try_into().or(Err(TokenError::Damaged(name)))
}

fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text() {
        let token = JoinToken::generate(b"certificate").unwrap();
        assert_eq!(token.expose().parse(), Ok(token.clone()));
        assert_eq!(format!(" {}\n", token.expose()).parse(), Ok(token));
    }

    #[test]
    fn a_tampered_token_is_refused() {
        let text = JoinToken::generate(b"certificate").unwrap().expose();
        assert_eq!(text.replace("weft1", "weft2").parse::<JoinToken>(), Err(TokenError::Format));
        assert_eq!(format!("{text}.more").parse::<JoinToken>(), Err(TokenError::Format));
        assert_eq!(" \n".parse::<JoinToken>(), Err(TokenError::Empty));
        let broken = format!("{}\n{}", &text[..60], &text[60..]);
        assert_eq!(broken.parse::<JoinToken>(), Err(TokenError::Damaged("secret")));
        assert_eq!(text[..text.len() - 2].parse::<JoinToken>(), Err(TokenError::Damaged("secret")));
        assert_eq!(text.replacen('.', ".!", 1).parse::<JoinToken>(), Err(TokenError::Damaged("fingerprint")));
    }

    #[test]
    fn only_the_exact_secret_authorizes() {
        let token = JoinToken::generate(b"certificate").unwrap();
        let other = JoinToken::generate(b"certificate").unwrap();
        assert!(token.authorizes(token.authorization().as_bytes()));
        assert!(!token.authorizes(other.authorization().as_bytes()));
        assert!(!token.authorizes(token.expose().as_bytes()));
        assert!(!token.authorizes(b""));
    }

    #[test]
    fn without_the_secret_it_knows_the_controller_and_authorizes_nobody() {
        let token = JoinToken::generate(b"certificate").unwrap();
        let public: JoinToken = token.without_secret().expose().parse().unwrap();
        assert!(public.is_for(b"certificate") && !public.is_for(b"other") && !public.has_secret());
        assert!(!token.authorizes(public.authorization().as_bytes()));
        assert!(!public.authorizes(public.authorization().as_bytes()));
        assert!(token.expose().starts_with(&public.expose()));
    }

    #[test]
    fn debug_hides_the_secret() {
        let token = JoinToken::generate(b"certificate").unwrap();
        let secret = token.expose().rsplit('.').next().unwrap().to_owned();
        assert!(!format!("{token:?}").contains(&secret));
    }
}
