use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};

pub fn verify(secret: &str, id: &str, sent: &str, signatures: &str, body: &[u8], now: i64) -> bool {
    let Some(key) = secret.strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok()) else { return false };
    let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(&key) else { return false };
    mac.update(format!("{id}.{sent}.").as_bytes());
    mac.update(body);
    let fresh = sent.parse::<i64>().is_ok_and(|sent| (now - sent).abs() <= 300);
    let fits = |given: &str| STANDARD.decode(given).is_ok_and(|given| mac.clone().verify_slice(&given).is_ok());
    fresh && signatures.split(' ').filter_map(|given| given.strip_prefix("v1,")).any(fits)
}
