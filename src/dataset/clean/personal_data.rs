//! Personal data and secrets, each replaced by its kind.
//!
//! What has a check sum or a grammar is checked against it (Luhn, ISO 13616, IP addresses); the rest is
//! taken by its form. Years, prices, dates and counts are no phone numbers.

use std::borrow::Cow;
use std::ops::AddAssign;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::pattern;
use super::{numbers, secrets};

/// How many of each kind were found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Findings {
    /// E-mail addresses.
    pub email: u64,
    /// Phone numbers: international, and the common national forms.
    pub phone: u64,
    /// Payment card numbers.
    pub card: u64,
    /// International bank account numbers.
    pub iban: u64,
    /// IPv4 and IPv6 addresses.
    pub ip: u64,
    /// API keys, tokens, passwords in URLs and private keys.
    pub secret: u64,
}

impl Findings {
    /// All kinds together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.email + self.phone + self.card + self.iban + self.ip + self.secret
    }

    fn count(&mut self, kind: Kind) {
        let count = match kind {
            Kind::Email => &mut self.email,
            Kind::Phone => &mut self.phone,
            Kind::Card => &mut self.card,
            Kind::Iban => &mut self.iban,
            Kind::Ip => &mut self.ip,
            Kind::Secret => &mut self.secret,
        };
        *count += 1;
    }
}

impl AddAssign for Findings {
    fn add_assign(&mut self, other: Self) {
        self.email += other.email;
        self.phone += other.phone;
        self.card += other.card;
        self.iban += other.iban;
        self.ip += other.ip;
        self.secret += other.secret;
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Email,
    Phone,
    Card,
    Iban,
    Ip,
    Secret,
}

impl Kind {
    fn placeholder(self) -> &'static str {
        match self {
            Self::Email => "[EMAIL]",
            Self::Phone => "[PHONE]",
            Self::Card => "[CARD]",
            Self::Iban => "[IBAN]",
            Self::Ip => "[IP]",
            Self::Secret => "[SECRET]",
        }
    }
}

/// The text with every finding replaced. Secrets first, since they may hold what looks like something else.
pub(super) fn redacted(text: &str) -> (Cow<'_, str>, Findings) {
    let mut findings = Findings::default();
    let looks = Looks::of(text);
    let mut text = Cow::Borrowed(text);
    let mut replace = |kind: Kind, pattern: &Regex, is_one: Check| {
        if let Some(redacted) = replaced(&text, pattern, kind, is_one, &mut findings) {
            text = Cow::Owned(redacted);
        }
    };
    if looks.secret {
        replace(Kind::Secret, secrets::pattern(), secrets::is_secret);
    }
    if looks.email {
        replace(Kind::Email, &EMAIL, is_email);
    }
    if looks.digits >= 6 {
        replace(Kind::Iban, &IBAN, |found, _| numbers::iban_length(found));
    }
    if looks.colons {
        replace(Kind::Ip, &IPV6, numbers::ipv6_length);
    }
    if looks.digits >= 4 && looks.dots >= 3 {
        replace(Kind::Ip, &IPV4, numbers::ipv4_length);
    }
    if looks.together >= 13 {
        replace(Kind::Card, &CARD, numbers::card_length);
    }
    if looks.together >= 7 {
        replace(Kind::Phone, &PHONE, numbers::phone_length);
    }
    (text, findings)
}

/// What a text could hold at all, by one look at its bytes: most texts hold none of it, and the patterns cost
/// more than everything else in cleaning.
#[derive(Default)]
struct Looks {
    email: bool,
    secret: bool,
    colons: bool,
    dots: usize,
    /// ASCII digits in all.
    digits: usize,
    /// The most digits with at most three bytes between two of them, which is what separates a number's groups.
    together: usize,
}

impl Looks {
    fn of(text: &str) -> Self {
        let mut looks = Self { email: text.contains('@'), ..Self::default() };
        let (mut together, mut gap) = (0, 0);
        let (mut token, mut token_digits) = (0, false);
        let mut colons = 0;
        for byte in text.bytes() {
            if byte.is_ascii_digit() {
                looks.digits += 1;
                together = if gap <= 3 { together + 1 } else { 1 };
                looks.together = looks.together.max(together);
                gap = 0;
            } else {
                gap += 1;
            }
            colons += usize::from(byte == b':');
            looks.dots += usize::from(byte == b'.');
            if byte.is_ascii_alphanumeric() || b"._~+/=-".contains(&byte) {
                token += 1;
                token_digits |= byte.is_ascii_digit();
                looks.secret |= token_digits && token >= secrets::SHORTEST;
            } else {
                (token, token_digits) = (0, false);
            }
        }
        looks.colons = colons >= 7 || (colons >= 2 && text.contains("::"));
        looks.secret |= secrets::ALWAYS.iter().any(|part| text.contains(part));
        looks
    }
}

/// How many bytes of a match are what is looked for; `None` where it only looks like it. The second text is
/// all that stands before the match.
type Check = fn(&str, &str) -> Option<usize>;

fn replaced(
    text: &str,
    pattern: &Regex,
    kind: Kind,
    check: Check,
    findings: &mut Findings,
) -> Option<String> {
    let mut redacted = String::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(found) = pattern.captures_at(text, at) {
        let (start, matched, end) = span(&found)?;
        match check(matched, &text[..start]) {
            Some(length) if length > 0 => {
                redacted.push_str(&text[copied..start]);
                redacted.push_str(kind.placeholder());
                findings.count(kind);
                copied = start + length;
                at = copied;
            }
            // What has no digits has none in any part, and what ends like a file's name does so wherever it begins.
            _ if matches!(kind, Kind::Secret | Kind::Email) => at = end,
            // It may begin later in what was matched, after a number that only stands before it.
            _ => at = next_start(text, start, end),
        }
    }
    (copied > 0).then(|| redacted + &text[copied..])
}

/// The part of a match that is replaced: its named group, or all.
fn span<'t>(found: &Captures<'t>) -> Option<(usize, &'t str, usize)> {
    // Only named groups capture: all others are written `(?:…)`.
    let part = found.iter().skip(1).flatten().next().or_else(|| found.get(0))?;
    Some((part.start(), part.as_str(), part.end()))
}

/// Where the next word of a refused match begins.
fn next_start(text: &str, start: usize, end: usize) -> usize {
    let matched = &text[start..end];
    let word = matched.find(|c: char| !c.is_alphanumeric()).unwrap_or(matched.len());
    let next = start + word.max(matched.chars().next().map_or(1, char::len_utf8));
    next.min(end.max(start + 1))
}

static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"[\p{L}\p{N}._%+'-]*[\p{L}\p{N}_%+-]@(?:[\p{L}\p{N}](?:[\p{L}\p{N}-]*[\p{L}\p{N}])?\.)+\p{L}{2,24}",
    )
});

/// `logo@2x.png` is a file name.
fn is_email(found: &str, _before: &str) -> Option<usize> {
    let extension = found.rsplit('.').next()?.to_ascii_lowercase();
    let image = matches!(extension.as_str(), "png" | "jpg" | "jpeg" | "gif" | "webp" | "svg");
    (!image).then_some(found.len())
}

static IBAN: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?-u:\b)[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}"));

static IPV6: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?:(?-u:\b)[0-9A-Fa-f]{1,4}|:)(?::[0-9A-Fa-f]{0,4}){2,7}(?:[0-9]{0,2}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})?[0-9A-Za-z_:]*",
    )
});

static IPV4: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?-u:\b)[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?-u:\b)(?:\.[0-9])?"));

static CARD: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?-u:\b)[2-6][0-9](?:[ -]?[0-9]){11,17}(?-u:\b)(?:[.,][0-9])?"));

/// International (`+49 30 123456`, `0049…`), North American (`(555) 123-4567`), with a trunk zero
/// (`020 7946 0958`, `030/1234567`), or any digits that a word such as `phone` announces.
static PHONE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"\+[0-9(](?:[ ()./-]{0,3}[0-9]){6,16}",
        r"|(?-u:\b)00[1-9](?:[ ()./-]{0,2}[0-9]){7,14}(?-u:\b)",
        r"|(?:(?-u:\b)1[ .-]{1,2})?\([2-9][0-9]{2}\) ?[2-9][0-9]{2}[ .-]?[0-9]{4}(?-u:\b)",
        r"|(?-u:\b)(?:1[ .-])?[2-9][0-9]{2}(?:-[2-9][0-9]{2}-|\.[2-9][0-9]{2}\.| [2-9][0-9]{2}[ -])[0-9]{4}(?-u:\b)",
        r"|\(0[0-9]{1,5}\)(?:[ /.-]?[0-9]){5,9}(?-u:\b)",
        r"|(?-u:\b)0[1-9](?:[ /.-]{0,3}[0-9]){7,9}(?-u:\b)",
        r"|(?i:(?-u:\b)(?:call|dial|fax|mobile|cell|phone|tel|telephone|telefon|tel\.|ring|text|whatsapp|sms)(?-u:\b))",
        r"(?:[ :.#]{0,3}(?i:us|me|at|on|no|number|now|is)(?-u:\b)){0,2}[ :.#]{0,3}",
        r"(?<it>[0-9(](?:[ ()./-]{0,2}[0-9]){6,14})(?-u:\b)",
    ))
});
