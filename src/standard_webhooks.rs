//! Signatures of webhooks after Standard Webhooks (<https://www.standardwebhooks.com>), which OpenAI uses: the HMAC-SHA256 of
//! `id.timestamp.body`, in base64, under a shared secret.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

/// How far a notice's time may be from ours: an old one may be somebody's replay.
const TOLERANCE: TimeDelta = TimeDelta::minutes(5);

/// A shared secret. Its debug output does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(redacted)")
    }
}

/// Not a secret of this form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("whsec_ and base64, as the provider shows its signing secret")]
pub struct WebhookSecretError;

/// Why a notice is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotSigned {
    /// A header is missing or not of its form.
    #[error("webhook-id, webhook-timestamp and webhook-signature must be sent as Standard Webhooks says")]
    Headers,
    /// It was sent too long ago, or will be.
    #[error("webhook-timestamp is more than five minutes from the present; set the clocks right")]
    Time,
    /// No signature fits.
    #[error("no signature in webhook-signature fits; check that the secret is the one the sender signs with")]
    Signature,
}

/// A notice as it arrived.
#[derive(Debug, Clone, Copy)]
pub struct Notice<'a> {
    /// `webhook-id`: the same when it is sent again.
    pub id: &'a str,
    /// `webhook-timestamp`: seconds since 1970.
    pub timestamp: &'a str,
    /// `webhook-signature`: `v1,` and base64, several separated by spaces while a secret is being changed.
    pub signature: &'a str,
    /// The bytes of the body.
    pub body: &'a [u8],
}

impl WebhookSecret {
    /// Reads `whsec_` and base64.
    pub fn new(secret: &str) -> Result<Self, WebhookSecretError> {
        let encoded = secret.trim().strip_prefix("whsec_").ok_or(WebhookSecretError)?;
        let key = STANDARD.decode(encoded).map_err(|_| WebhookSecretError)?;
        if key.is_empty() { Err(WebhookSecretError) } else { Ok(Self(key)) }
    }

    /// Checks a notice's time and signature.
    pub fn verify(&self, notice: Notice<'_>, now: DateTime<Utc>) -> Result<(), NotSigned> {
        let seconds = notice.timestamp.parse().map_err(|_| NotSigned::Headers)?;
        let sent_at = DateTime::from_timestamp(seconds, 0).ok_or(NotSigned::Headers)?;
        if notice.id.is_empty() {
            return Err(NotSigned::Headers);
        }
        if (now - sent_at).abs() > TOLERANCE {
            return Err(NotSigned::Time);
        }
        let mac = self.mac(notice.id, notice.timestamp, notice.body);
        let signatures = notice.signature.split(' ').filter_map(|signature| signature.strip_prefix("v1,"));
        let decoded = signatures.filter_map(|signature| STANDARD.decode(signature).ok());
        // Compared in a time that does not tell how much of it is right.
        let fits = decoded.into_iter().any(|signature| mac.clone().verify_slice(&signature).is_ok());
        if fits { Ok(()) } else { Err(NotSigned::Signature) }
    }

    /// The value of `webhook-signature` for a notice of our own.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        format!("v1,{}", STANDARD.encode(self.mac(id, timestamp, body).finalize().into_bytes()))
    }

    fn mac(&self, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("any length will do");
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZg==";
    /// Computed with Python: `base64.b64encode(hmac.digest(b"0123456789abcdef", b'msg_1.1700000000.{"a":1}', "sha256"))`.
    const SIGNATURE: &str = "41C4mdfM4X7k7EqLRBhc2OjUAQFwQVsqMUoL0CbTfxc=";

    fn notice<'a>(signature: &'a str, body: &'a [u8]) -> Notice<'a> {
        Notice { id: "msg_1", timestamp: "1700000000", signature, body }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn the_signature_is_that_of_another_implementation() {
        let secret = WebhookSecret::new(SECRET).unwrap();
        assert_eq!(secret.sign("msg_1", "1700000000", br#"{"a":1}"#), format!("v1,{SIGNATURE}"));
        let header = format!("v1a,AAAA v1,AAAA v1,{SIGNATURE}");
        assert_eq!(secret.verify(notice(&header, br#"{"a":1}"#), at(299)), Ok(()));
    }

    #[test]
    fn what_was_altered_is_old_or_is_unsigned_is_not_believed() {
        let secret = WebhookSecret::new(SECRET).unwrap();
        let header = format!("v1,{SIGNATURE}");
        let verify = |header: &str, body: &[u8], now| secret.verify(notice(header, body), now);
        assert_eq!(verify(&header, br#"{"a":2}"#, at(0)), Err(NotSigned::Signature));
        assert_eq!(verify(&header, br#"{"a":1}"#, at(301)), Err(NotSigned::Time));
        assert_eq!(verify(&header, br#"{"a":1}"#, at(-301)), Err(NotSigned::Time));
        for unsigned in ["", SIGNATURE, "v1,", "v1,%%", "v2,AAAA"] {
            assert_eq!(verify(unsigned, br#"{"a":1}"#, at(0)), Err(NotSigned::Signature), "{unsigned}");
        }
        let strange = Notice { timestamp: "soon", ..notice(&header, b"") };
        assert_eq!(secret.verify(strange, at(0)), Err(NotSigned::Headers));
        let other = WebhookSecret::new("whsec_b3RoZXI=").unwrap();
        assert_eq!(other.verify(notice(&header, br#"{"a":1}"#), at(0)), Err(NotSigned::Signature));
    }

    #[test]
    fn a_secret_has_its_form_and_is_not_shown() {
        for bad in ["", "whsec_", "MDEy", "whsec_%%%"] {
            assert_eq!(WebhookSecret::new(bad).unwrap_err(), WebhookSecretError, "{bad}");
        }
        assert_eq!(format!("{:?}", WebhookSecret::new(SECRET).unwrap()), "WebhookSecret(redacted)");
    }
}
