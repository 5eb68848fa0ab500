//! Control characters and white space.

use std::borrow::Cow;

/// Whether a text is of a kind that no step of cleaning changes or finds anything in: words of ASCII with one space between them,
/// without what markup, entities, addresses, numbers or keys must have. Most headlines are.
pub(super) fn is_plain(text: &str) -> bool {
    let mut before = b' ';
    text.bytes().all(|byte| {
        let plain = PLAIN[usize::from(byte)] && !(byte == b' ' && before == b' ');
        before = byte;
        plain
    }) && (before != b' ' || text.is_empty())
}

const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        plain[byte as usize] =
            !(byte.is_ascii_digit() || matches!(byte, b'<' | b'&' | b'@' | b':' | b'_' | b'-'));
        byte += 1;
    }
    plain
};

/// Removes control and invisible format characters, keeping `\n` and `\t`. Other ways to end a line become
/// `\n`. Joiners and direction marks stay: emoji and right-to-left scripts need them.
pub(super) fn without_controls(text: &str) -> Cow<'_, str> {
    let keeps = |byte: u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t');
    if text.bytes().all(keeps) || !text.chars().any(|c| is_line_end(c) || is_invisible(c)) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut after_return = false;
    for c in text.chars() {
        if is_line_end(c) {
            clean.push('\n');
        } else if !(is_invisible(c) || (c == '\n' && after_return)) {
            clean.push(c);
        }
        after_return = c == '\r';
    }
    Cow::Owned(clean)
}

/// Line ends that are not `\n`: vertical tab, form feed, return, next line, line and paragraph separator.
fn is_line_end(c: char) -> bool {
    matches!(c, '\u{b}' | '\u{c}' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_invisible(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        // Soft hyphen, zero-width space, embeddings and overrides of direction, word joiner and invisible
        // operators, isolates, byte order mark, interlinear annotation, noncharacters.
        '\u{ad}'
        | '\u{200b}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{fdd0}'..='\u{fdef}' => true,
        _ => c.is_control() || u32::from(c) & 0xfffe == 0xfffe,
    }
}

/// Trims, collapses runs of spaces to one and of line breaks to a single blank line.
pub(super) fn collapsed(text: &str) -> Cow<'_, str> {
    if is_collapsed(text) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let (mut breaks, mut space) = (0_u8, false);
    for c in text.chars() {
        if c == '\n' {
            breaks = breaks.saturating_add(1);
        } else if c.is_whitespace() {
            space = true;
        } else {
            if !clean.is_empty() {
                match breaks {
                    0 if space => clean.push(' '),
                    0 => {}
                    1 => clean.push('\n'),
                    _ => clean.push_str("\n\n"),
                }
            }
            (breaks, space) = (0, false);
            clean.push(c);
        }
    }
    Cow::Owned(clean)
}

fn is_collapsed(text: &str) -> bool {
    // What stands before the character: as at the start of a text, white space may not follow a space.
    let mut before = ['\n', '\n'];
    for c in text.chars() {
        let good = match c {
            '\n' => before[1] != ' ' && before != ['\n', '\n'],
            ' ' => !matches!(before[1], ' ' | '\n'),
            other => !other.is_whitespace(),
        };
        if !good {
            return false;
        }
        before = [before[1], c];
    }
    text.is_empty() || !matches!(before[1], ' ' | '\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_go_and_line_ends_become_one_kind() {
        assert_eq!(without_controls("a\0b\u{200b}c\r\nd\re\tf\u{2028}g"), "abc\nd\ne\tf\ng");
        assert_eq!(without_controls("👩\u{200d}💻"), "👩\u{200d}💻", "the joiner makes it one emoji");
        assert!(matches!(without_controls("a\n\tb"), Cow::Borrowed(_)));
    }

    #[test]
    fn white_space_is_collapsed() {
        assert_eq!(collapsed("  a \t b\u{a0}c \n \n\n  d\n e \n"), "a b c\n\nd\ne");
        assert_eq!(collapsed(" \n\t"), "");
        for good in ["", "a", "a b\nc\n\nd"] {
            assert!(matches!(collapsed(good), Cow::Borrowed(_)), "{good:?}");
        }
        for bad in [" a", "a ", "a\n", "\na", "a  b", "a \nb", "a\n b", "a\n\n\nb", "a\tb", "a\u{a0}b"] {
            assert!(matches!(collapsed(bad), Cow::Owned(_)), "{bad:?}");
        }
    }
}
