use proptest::prelude::*;

use super::*;

fn cleaner() -> Cleaner {
    Cleaner::new(&CleaningSettings::default())
}

fn clean(text: &str) -> String {
    cleaner().text(text).text.into_owned()
}

#[test]
fn each_step_is_told_and_can_be_switched_off() {
    let text = "<b>e\u{301}</b>\0  a@example.com";
    let cleaned = cleaner().text(text);
    assert_eq!(cleaned.text, "é [EMAIL]");
    assert_eq!(cleaned.changed.iter().count(), Step::ALL.len());
    assert_eq!(cleaned.findings, Findings { email: 1, ..Findings::default() });

    let off = CleaningSettings {
        html: false,
        unicode: false,
        control_characters: false,
        white_space: false,
        personal_data: PersonalData::Off,
        ..CleaningSettings::default()
    };
    for step in Step::ALL {
        let mut settings = off.clone();
        match step {
            Step::Html => settings.html = true,
            Step::Unicode => settings.unicode = true,
            Step::ControlCharacters => settings.control_characters = true,
            Step::WhiteSpace => settings.white_space = true,
            Step::PersonalData => settings.personal_data = PersonalData::Redact,
        }
        let cleaned = Cleaner::new(&settings).text(text);
        assert_eq!(cleaned.changed.iter().collect::<Vec<_>>(), [step]);
        assert_ne!(cleaned.text, text);
    }
    let cleaned = Cleaner::new(&off).text(text);
    assert!(matches!(cleaned.text, Cow::Borrowed(same) if same == text));
    assert_eq!(cleaned.changed, Steps::default());
}

#[test]
fn personal_data_can_drop_the_example_instead() {
    let settings = CleaningSettings { personal_data: PersonalData::Drop, ..CleaningSettings::default() };
    let dropping = Cleaner::new(&settings);
    let cleaned = dropping.text("Write to a@example.com");
    assert!(cleaned.drop && cleaned.changed.contains(Step::PersonalData));
    assert_eq!(cleaned.text, "Write to a@example.com");
    assert!(!dropping.text("Write to me").drop);
    assert!(!cleaner().text("Write to a@example.com").drop, "it is redacted");
}

#[test]
fn a_text_is_plain_that_has_words_and_single_spaces() {
    for plain in ["", "a", "Don't panic (yet)!", "A b c."] {
        assert!(characters::is_plain(plain), "{plain}");
    }
    for other in
        [" ", " a", "a ", "a  b", "a\nb", "é", "a<b", "a&b", "7", "a@b", "a:b", "a_b", "a-b", "a\u{7f}"]
    {
        assert!(!characters::is_plain(other), "{other}");
    }
}

#[test]
fn a_completion_can_be_too_short() {
    assert!(cleaner().too_short("") && cleaner().too_short(" \n") && !cleaner().too_short("é"));
    let settings = CleaningSettings { minimum_characters: 3, ..CleaningSettings::default() };
    assert!(Cleaner::new(&settings).too_short("éé") && !Cleaner::new(&settings).too_short("ééé"));
}

#[test]
fn an_unknown_setting_is_refused() {
    assert!(serde_json::from_str::<CleaningSettings>(r#"{"htlm": true}"#).is_err());
    let settings: CleaningSettings = serde_json::from_str(r#"{"personal_data": "off"}"#).unwrap();
    assert!(settings.html && settings.personal_data == PersonalData::Off);
}

#[test]
fn what_was_escaped_twice_is_cleaned_too() {
    assert_eq!(clean("&lt;p&gt;a&amp;amp;nbsp;b&lt;/p&gt;"), "a b");
    assert_eq!(clean("<\0p>a<<b>i>b"), "ab");
    let nested = format!("{}a{}", "<".repeat(500), "b>".repeat(500));
    assert_eq!(clean(&clean(&nested)), clean(&nested));
    assert!(!clean(&"&amp;".repeat(10_000)).contains("amp"));
}

#[test]
fn personal_data_and_secrets_are_replaced_by_their_kind() {
    let key = "Ab3dEf6hIj9lMn2pQr5tUv8x";
    for (text, clean_text) in [
        ("Mail joe.o'neil+x@mail.example.co.uk.", "Mail [EMAIL]."),
        ("<joe@example.com>", "<[EMAIL]>"),
        ("jörg@müller.de", "[EMAIL]"),
        ("Call +49 (0)30 1234-5678!", "Call [PHONE]!"),
        ("+14155552671", "[PHONE]"),
        ("0049 30 12345678", "[PHONE]"),
        ("(415) 555-2671 or 415-555-2671", "[PHONE] or [PHONE]"),
        ("1-800-555-2671", "[PHONE]"),
        ("415.555.2671", "[PHONE]"),
        ("020 7946 0958", "[PHONE]"),
        ("030/1234567", "[PHONE]"),
        ("06 12 34 56 78", "[PHONE]"),
        ("01711234567", "[PHONE]"),
        ("Tel: 555-1234", "Tel: [PHONE]"),
        ("Text me at 4155552671", "Text me at [PHONE]"),
        ("Card 4111 1111 1111 1111.", "Card [CARD]."),
        ("378282246310005", "[CARD]"),
        ("IBAN DE89 3704 0044 0532 0130 00, thanks", "IBAN [IBAN], thanks"),
        ("pay GB82WEST12345698765432 now", "pay [IBAN] now"),
        ("from 93.184.216.34:80", "from [IP]:80"),
        ("host 2001:db8::8a2e:370:7334 up", "host [IP] up"),
        ("fe80::1", "[IP]"),
        ("Version 1.2.3.4, then 93.184.216.34", "Version 1.2.3.4, then [IP]"),
        ("2001:0db8:85a3:0000:0000:8a2e:0370:7334", "[IP]"),
        ("::ffff:192.0.2.128", "[IP]"),
        ("OPENAI=sk-proj-KEY", "OPENAI=[SECRET]"),
        ("sk-KEY", "[SECRET]"),
        ("AKIAIOSFODNN7EXAMPLE", "[SECRET]"),
        ("ghp_KEYKEY", "[SECRET]"),
        ("xoxb-123456789012-KEY", "[SECRET]"),
        ("AIzaSyKEY012345678", "[SECRET]"),
        ("Authorization: Bearer KEY", "Authorization: Bearer [SECRET]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.KEY", "[SECRET]"),
        ("https://joe:pa55@example.com/", "https://[SECRET]@example.com/"),
        ("api_key = \"KEY\"", "api_key = \"[SECRET]\""),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- ok", "[SECRET] ok"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE", "[SECRET]"),
    ] {
        assert_eq!(
            clean(&text.replace("KEY", key).replace("PRIVATE Ab3dEf6hIj9lMn2pQr5tUv8x", "PRIVATE KEY")),
            clean_text
        );
    }
}

#[test]
fn other_numbers_and_words_stay() {
    for text in [
        "In 2012-2013 and 1999 2000 2001",
        "On 01.02.2013 10:30, 2013-02-01 and 01/02/2013",
        "$1,234,567.89 or $15000000000 or 1 000 000 000",
        "Engagement 0.0612345678, 1234567 clicks, 10151234567890 views",
        "4111 1111 1111 1112 is no card",
        "1234567812345670",
        "127.0.0.1 and version 1.2.3.4 and 1.2.3 and 300.1.1.1",
        "at 10:30:45 std::vec::Vec a::b f32::EPSILON num::f32::ANY $3::int8[] f64::consts",
        "docs/cd/E19957-01/806-3568/a.html",
        "sk-is-what-risk-begins-without-its-ri",
        "the bearer of counterintelligence",
        "logo@2x.png, @handle, me @ home",
        "ISBN 978-3-16-148410-0",
        "Call me in 2013",
        "9 out of 10, 24/7, 50-50, 1-2-3",
        "3.14159265358979",
        "#1234567890",
        "one_of(\"0123456789\")",
        "1-800-273-TALK",
        "10... 9... 8... 7...",
        "November 22, 1963. 1:30 at 2:04, 2:33, 24/7/365",
        "48,000,000 of 3,000-4,000 in 2009, 2010, 2011, 2012",
    ] {
        assert_eq!(clean(text), text);
    }
}

#[test]
fn long_texts_of_numbers_and_addresses_take_time_in_proportion_to_their_length() {
    // What looks at all that stands before each of them would take minutes.
    for piece in ["1.1.1.1 ", "1.1.1.", "300.1.1.1 ", "a.b@c.png ", "a.", "+1 ", "10.20.30.40\n"] {
        let text = piece.repeat(400_000 / piece.len());
        let begun = std::time::Instant::now();
        let _ = personal_data::redacted(&format!("{text}a@b.png"));
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{piece}: {:?}", begun.elapsed());
    }
}

/// Pieces that mean something to one of the steps.
fn nasty() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<"),
        Just(">"),
        Just("</"),
        Just("&"),
        Just("&amp;"),
        Just("&lt;"),
        Just("&gt;"),
        Just("&#60;"),
        Just("lt;"),
        Just(";"),
        Just("#"),
        Just("p"),
        Just("b"),
        Just("script"),
        Just("<script>"),
        Just("</script>"),
        Just("<!--"),
        Just("-->"),
        Just("<p class=\""),
        Just("\""),
        Just("'"),
        Just("<br/>"),
        Just("<pre>"),
        Just("<textarea>"),
        Just("<plaintext>"),
        Just("</title>"),
        Just("<title>"),
        Just("<x "),
        Just("a="),
        Just("<![CDATA["),
        Just("]]>"),
        Just("]"),
        Just("&nbsp;"),
        Just("&#0;"),
        Just("&#38;"),
        Just("amp;"),
        Just("\0"),
        Just("\u{200b}"),
        Just("\r"),
        Just("\n"),
        Just("\t"),
        Just(" "),
        Just("\u{301}"),
        Just("e"),
        Just("\u{37e}"),
        Just("\u{338}"),
        Just("joe"),
        Just("@"),
        Just("example.com"),
        Just("4111111111111111"),
        Just("+49"),
        Just("30"),
        Just("1234"),
        Just("-"),
        Just("."),
        Just(":"),
        Just("://"),
        Just("2001:db8::1"),
        Just("93.184.216.34"),
        Just("DE89370400440532013000"),
        Just("AKIAIOSFODNN7EXAMPLE"),
        Just("call "),
        Just("-----BEGIN PRIVATE KEY-----"),
        Just("password="),
        Just("[EMAIL]"),
        Just("é"),
        Just("字"),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn no_controls(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t')
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn cleaning_a_clean_text_changes_nothing(text in prop_oneof![nasty(), any::<String>(), "\\PC*"]) {
        let once = cleaner().text(&text);
        let again = cleaner();
        let twice = again.text(&once.text);
        prop_assert_eq!(&twice.text, &once.text);
        prop_assert_eq!(twice.changed, Steps::default());
        prop_assert_eq!(twice.findings, Findings::default());
        prop_assert!(no_controls(&once.text));
        prop_assert!(once.changed != Steps::default() || once.text == text);
        // What is written as JSON reads back the same.
        let json = serde_json::to_string(&once.text).unwrap();
        prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), once.text);
    }

    #[test]
    fn no_step_does_anything_to_a_plain_text(text in prop_oneof![nasty(), any::<String>(), "( ?[!-~]{0,6}){0,5}", "( ?[A-Za-z.!?']{1,8}){0,5}"]) {
        if characters::is_plain(&text) {
            let mut cleaned = Cleaned {
                text: Cow::Borrowed(&text), changed: Steps::default(), findings: Findings::default(), drop: false,
            };
            prop_assert!(!cleaner().round(&mut cleaned), "{:?}", cleaned);
        }
    }

    #[test]
    fn each_step_alone_is_idempotent(text in prop_oneof![nasty(), any::<String>()]) {
        let (redacted, findings) = personal_data::redacted(&text);
        prop_assert_eq!(findings.total() > 0, *redacted != *text);
        for clean in [characters::without_controls, characters::collapsed] {
            let once = clean(&text);
            prop_assert_eq!(&clean(&once), &once);
        }
    }

    #[test]
    fn of_tags_only_the_text_is_left(
        pieces in prop::collection::vec(("[a-z]{1,8}", prop::sample::select(vec![
            "p", "a", "b", "div", "span", "em", "strong", "h1", "ul", "li", "td", "blockquote", "font", "img", "br",
        ]), "[a-z \"'<>&=]{0,12}"), 1..12),
    ) {
        let tagged = |(word, tag, value): &(String, &str, String)| {
            format!("<{tag} title=\"{}\" hidden>{word}</{tag}>", value.replace('"', "&quot;"))
        };
        let html = pieces.iter().map(tagged).collect::<Vec<_>>().concat();
        let words: String = pieces.iter().map(|(word, ..)| word.as_str()).collect();
        let text = clean(&html);
        prop_assert!(!text.contains(['<', '>', '&']), "{}", text);
        prop_assert_eq!(text.split_whitespace().collect::<String>(), words);
    }

    #[test]
    fn a_text_without_markup_keeps_all_its_words(text in "([a-zA-Z0-9>& .,!?']{1,5}(< |<[0-9]|<=|<<|<)?){0,12}") {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let settings = CleaningSettings { personal_data: PersonalData::Off, ..CleaningSettings::default() };
        // Not even where the next letter makes it look like a tag, as long as it is not the name of one.
        let text = regex::Regex::new("<<*([a-zA-Z])").unwrap().replace_all(&text, "<zz$1").into_owned();
        prop_assert_eq!(words(&Cleaner::new(&settings).text(&text).text), words(&text));
    }
}
