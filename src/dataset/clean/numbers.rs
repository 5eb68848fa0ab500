//! Tells numbers of cards, accounts, addresses and phones from other numbers. Each check takes a match and
//! what stands before it, and gives the length of what is one, in bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The check digit of card numbers (ISO/IEC 7812-1, Luhn's algorithm). Takes digits only.
pub(super) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| {
            let digit = u32::from(digit);
            match (place % 2, digit * 2) {
                (0, _) => digit,
                (_, twice) if twice > 9 => twice - 9,
                (_, twice) => twice,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

pub(super) fn card_length(found: &str, before: &str) -> Option<usize> {
    let digits = digits(found);
    let separators = found.chars().filter(|c| !c.is_ascii_digit()).count();
    // One kind of separator, and groups of four or the 4-6-5 of American Express.
    let grouped = separators == 0
        || [' ', '-'].iter().any(|&separator| {
            let mut groups = found.split(separator);
            let plain = found.chars().all(|c| c.is_ascii_digit() || c == separator);
            plain
                && groups.next().is_some_and(|group| group.len() == 4)
                && groups.all(|group| group.len() >= 3)
        });
    let good = grouped && network(&digits) && luhn(&digits) && !is_decimal(before);
    good.then_some(found.len())
}

/// The ranges and lengths of the networks: Visa, Mastercard, American Express, Discover and `UnionPay`, Diners,
/// JCB, Maestro.
fn network(digits: &[u8]) -> bool {
    let first = |count: usize| digits.iter().take(count).fold(0_u32, |number, &d| number * 10 + u32::from(d));
    match digits.len() {
        13 => first(1) == 4,
        14 => matches!(first(2), 30 | 36 | 38 | 39),
        15 => matches!(first(2), 34 | 37),
        16 => {
            first(1) == 4
                || matches!(first(2), 35 | 51..=55 | 60 | 62 | 64 | 65)
                || (2221..=2720).contains(&first(4))
        }
        17..=19 => {
            matches!(first(2), 62) || matches!(first(4), 5018 | 5020 | 5038 | 6304 | 6759 | 6761..=6763)
        }
        _ => false,
    }
}

/// The length of an international bank account number at the start of the match: its country's length, and
/// the remainder 1 modulo 97 (ISO 13616).
pub(super) fn iban_length(found: &str) -> Option<usize> {
    let country = found.get(..2)?.to_ascii_uppercase();
    let length = IBAN_LENGTHS.split(' ').find_map(|entry| entry.strip_prefix(&country))?;
    let length: usize = length.parse().ok()?;
    let (end, _) = found.char_indices().filter(|(_, c)| c.is_ascii_alphanumeric()).nth(length - 1)?;
    let rest = &found[end + 1..];
    let iban: Vec<u8> = found[..=end].bytes().filter(u8::is_ascii_alphanumeric).collect();
    let whole = !rest.starts_with(|c: char| c.is_ascii_alphanumeric());
    (whole && iban_remainder(&iban) == Some(1)).then_some(end + 1)
}

fn iban_remainder(iban: &[u8]) -> Option<u32> {
    let moved = iban.get(4..)?.iter().chain(iban.get(..4)?);
    moved.copied().try_fold(0, |remainder, byte| {
        let value = char::from(byte).to_digit(36)?;
        Some((remainder * if value > 9 { 100 } else { 10 } + value) % 97)
    })
}

/// The lengths in SWIFT's registry of IBANs.
const IBAN_LENGTHS: &str = "\
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 \
    DK18 DO28 EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 \
    IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 \
    MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 \
    SC31 SD18 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 XK20";

/// An address that may be somebody's: not loopback, unspecified or broadcast, nor part of a longer number.
pub(super) fn ipv4_length(found: &str, before: &str) -> Option<usize> {
    let address: Ipv4Addr = found.parse().ok()?;
    let nobody = address.is_loopback() || address.is_unspecified() || address.is_broadcast();
    // Only the end is looked at: a text may have many addresses.
    let before_it = before.trim_end().as_bytes();
    let word = &before_it[before_it.len().saturating_sub(7)..];
    let version = word.eq_ignore_ascii_case(b"version");
    (!nobody && !version && !is_decimal(before)).then_some(found.len())
}

/// As for IPv4. Paths of C++ and Rust, such as `f32::EPSILON` and `3::int8`, have more letters at either end.
pub(super) fn ipv6_length(found: &str, before: &str) -> Option<usize> {
    if before.ends_with(|c: char| c.is_alphanumeric() || c == ':') {
        return None;
    }
    // A colon after an address is punctuation.
    let address_text = if found.ends_with("::") { found } else { found.strip_suffix(':').unwrap_or(found) };
    let address: Ipv6Addr = address_text.parse().ok()?;
    let groups = address_text.split(':').filter(|group| !group.is_empty()).count();
    let code = !address_text.contains(|c: char| c.is_ascii_digit()) || groups < 2;
    let nobody = address.is_loopback() || address.is_unspecified();
    (!nobody && !code).then_some(address_text.len())
}

/// Whether digits stand for a phone: 7 to 15 of them (E.164), and neither a date, a price nor a range of years.
pub(super) fn phone_length(found: &str, before: &str) -> Option<usize> {
    let digits = digits(found);
    let mut groups = found.split(|c: char| !c.is_ascii_digit()).filter(|group| !group.is_empty());
    let lengths: Vec<usize> = groups.clone().map(str::len).collect();
    // 01.02.2013 (and what follows it), 2013-02-01, 2012-2013: such groups make a date or years.
    let date = matches!(lengths.as_slice(), [1 | 2, 1 | 2, 4, ..] | [4, 2, 2] | [4, 4])
        && groups.any(|group| matches!(group, year if year.len() == 4 && (year.starts_with("19") || year.starts_with("20"))));
    let money = before.ends_with(['$', '€', '£', '#', '=', '/', '_']) && !found.starts_with('+');
    let alphabet = found == "0123456789";
    let word = before.strip_suffix('-').unwrap_or(before);
    let inside = word.ends_with(|c: char| c.is_alphanumeric()) || is_decimal(before);
    let good = (7..=15).contains(&digits.len()) && !date && !money && !inside && !alphabet;
    good.then_some(found.len())
}

/// Whether what comes next are the decimals of a number or a later part of a version.
fn is_decimal(before: &str) -> bool {
    before.strip_suffix(['.', ',']).is_some_and(|number| number.ends_with(|c: char| c.is_ascii_digit()))
}

fn digits(text: &str) -> Vec<u8> {
    text.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luhn_and_networks_of_the_usual_test_numbers() {
        for good in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "5555-5555-5555-4444",
            "378282246310005",
            "3782 822463 10005",
            "6011111111111117",
            "30569309025904",
            "3530111333300000",
            "2223003122003222",
            "6759649826438453",
            "4222222222222",
        ] {
            let length = if good == "6759649826438453" { None } else { Some(good.len()) };
            assert_eq!(card_length(good, ""), length, "{good}");
            assert!(luhn(&digits(good)), "{good}");
        }
        for bad in ["4111111111111112", "1234567812345670", "4111 11111111 1111-", "0000000000000000"] {
            assert_eq!(card_length(bad, ""), None, "{bad}");
        }
        assert!(luhn(&digits("79927398713")) && !luhn(&digits("79927398710")));
    }

    #[test]
    fn ibans_of_the_registry() {
        for good in [
            "GB82 WEST 1234 5698 7654 32",
            "DE89370400440532013000",
            "FR14 2004 1010 0505 0001 3M02 606",
            "NL91ABNA0417164300",
            "NO9386011117947",
            "MT84MALT011000012345MTLCAST001S",
            "ch9300762011623852957",
        ] {
            assert_eq!(iban_length(good), Some(good.len()), "{good}");
        }
        assert_eq!(iban_length("DE89 3704 0044 0532 0130 00 is mine"), Some(27));
        for bad in ["GB82 WEST 1234 5698 7654 33", "DE8937040044053201300", "ZZ82WEST12345698765432"] {
            assert_eq!(iban_length(bad), None, "{bad}");
        }
    }
}
