//! Named parameters of a query: `:since`, `:until` and `:threshold` outside of literals, quoted names and comments.

use super::Parameter;

/// A piece of a query.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece<'a> {
    /// Text that goes to the database as it is.
    Text(&'a str),
    /// A value.
    Value(Parameter),
}

/// Takes a query apart. A semicolon at its end is dropped.
///
/// The error is the end of the sentence "the query …".
pub(super) fn parse(query: &str) -> Result<Vec<Piece<'_>>, String> {
    let query = query.trim_end_matches(|c: char| c.is_whitespace() || c == ';');
    if query.trim().is_empty() {
        return Err("must be a SELECT".into());
    }
    if query.contains('\0') {
        return Err("must not contain the character NUL".into());
    }
    let bytes = query.as_bytes();
    let (mut pieces, mut begun, mut at, mut depth) = (Vec::new(), 0, 0, 0_i32);
    while at < bytes.len() {
        let rest = &query[at..];
        if let Some(length) = opaque(rest)? {
            at += length;
            continue;
        }
        match bytes[at] {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b';' => return Err("must be one statement".into()),
            b'$' if digit(bytes.get(at + 1)) && !word_before(query, at) => {
                return Err("must use the named parameters :since, :until and :threshold, not $1".into());
            }
            b':' if bytes.get(at + 1) == Some(&b':') => at += 1,
            b':' if bytes.get(at + 1).is_some_and(u8::is_ascii_alphabetic) => {
                let name: &str =
                    rest[1..].split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or("");
                let value = Parameter::named(name).ok_or_else(|| {
                    format!("has no parameter :{name}; there are :since, :until and :threshold")
                })?;
                pieces.extend([Piece::Text(&query[begun..at]), Piece::Value(value)]);
                at += 1 + name.len();
                begun = at;
                continue;
            }
            _ => {}
        }
        if depth < 0 {
            break;
        }
        at += 1;
    }
    if depth != 0 {
        return Err("has parentheses that do not match".into());
    }
    pieces.push(Piece::Text(&query[begun..]));
    Ok(pieces)
}

fn digit(byte: Option<&u8>) -> bool {
    byte.is_some_and(u8::is_ascii_digit)
}

/// Whether a character may stand in a name: to Postgres, whatever is not ASCII is a letter.
fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii()
}

/// Whether another text follows after white space and comments. To Postgres it belongs to the text before if a line ends between the two,
/// and has its backslashes.
fn goes_on(mut text: &str) -> Result<bool, String> {
    loop {
        text = text.trim_start();
        if !text.starts_with("--") {
            return Ok(text.starts_with('\''));
        }
        text = &text[opaque(text)?.unwrap_or(text.len())..];
    }
}

/// Whether the character before belongs to a name, in which `$` may stand.
fn word_before(query: &str, at: usize) -> bool {
    query[..at].chars().next_back().is_some_and(|c| in_name(c) || c == '$')
}

/// The length of the literal, quoted name or comment that the text begins with, or of a name with an `E'…'` literal
/// behind it.
fn opaque(text: &str) -> Result<Option<usize>, String> {
    let unended = |what: &str| format!("has a {what} without an end");
    let first = text.as_bytes()[0];
    let length = match first {
        b'\'' => quoted(text, b'\'', false).ok_or_else(|| unended("text"))?,
        b'"' => quoted(text, b'"', false).ok_or_else(|| unended("quoted name"))?,
        b'-' if text.starts_with("--") => text.find(['\n', '\r']).unwrap_or(text.len()),
        b'/' if text.starts_with("/*") => comment(text).ok_or_else(|| unended("comment"))?,
        b'$' => match dollar_tag(text) {
            Some(tag) => {
                let end = text[tag.len()..].find(tag).ok_or_else(|| unended("text"))?;
                end + 2 * tag.len()
            }
            None => return Ok(None),
        },
        _ if first.is_ascii_alphabetic() || first == b'_' || !first.is_ascii() => {
            let name = text.find(|c| !in_name(c) && c != '$').unwrap_or(text.len());
            if text[..name].eq_ignore_ascii_case("e") && text[name..].starts_with('\'') {
                let end = name + quoted(&text[name..], b'\'', true).ok_or_else(|| unended("text"))?;
                if goes_on(&text[end..])? {
                    return Err("has a text E'…' that goes on in another line; write it in one".into());
                }
                end
            } else {
                name
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(length))
}

/// The length of what stands in quotes, which are doubled to stand for themselves.
fn quoted(text: &str, quote: u8, backslashes: bool) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if backslashes => at += 1,
            byte if byte == quote && bytes.get(at + 1) == Some(&quote) => at += 1,
            byte if byte == quote => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// The length of a comment; comments nest.
fn comment(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// `$$` or `$tag$`.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 2;
    let name = &text[1..end - 1];
    let valid = name.chars().all(in_name) && !name.chars().next().is_some_and(|c| c.is_ascii_digit());
    valid.then(|| &text[..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The query with its parameters in braces.
    fn parsed(query: &str) -> Result<String, String> {
        let pieces = parse(query)?;
        Ok(pieces
            .into_iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.to_owned(),
                Piece::Value(value) => format!("{{{}}}", value.name()),
            })
            .collect())
    }

    #[test]
    fn parameters_are_found_where_they_are_values() {
        let same = |query: &str| assert_eq!(parsed(query).as_deref(), Ok(query));
        assert_eq!(
            parsed("SELECT a::text FROM p WHERE t>=:since AND t<(:until) AND e > :threshold ;\n"),
            Ok("SELECT a::text FROM p WHERE t>={since} AND t<({until}) AND e > {threshold}".into())
        );
        for literal in [
            "':since'",
            "'it''s :since'",
            "E'\\':since'",
            "\":since\"",
            "$$:since;($$",
            "$a$ $$ :x $a$",
            "e'\\\\'",
        ] {
            same(&format!("SELECT {literal} AS x"));
        }
        same("SELECT 1 -- :since (\n + 2 /* :x /* nested ( */ ; */");
        same("SELECT 1 -- (\r + 2 -- '\r\n + 3");
        same("SELECT 1 AS —e'\\' /* :x */ || '('");
        same("SELECT E'a'\n AS x, 'b'\n 'c'");
        same("SELECT tone'x', größe$1 FROM \"a b\"");
    }

    #[test]
    fn what_is_no_single_statement_with_our_parameters_is_refused() {
        for (query, part) in [
            ("", "must be a SELECT"),
            (" ; ", "must be a SELECT"),
            ("SELECT 1; DROP TABLE posts", "one statement"),
            ("SELECT 1) AS s; --", "parentheses"),
            ("SELECT 1) x, (SELECT 2", "parentheses"),
            ("SELECT (1", "parentheses"),
            ("SELECT $1", "named parameters"),
            ("SELECT :limit", "no parameter :limit"),
            ("SELECT 1 -- \r; DROP TABLE posts", "one statement"),
            ("SELECT E'a' -- b\n '\\' ; --'", "goes on"),
            ("SELECT 'a", "text without an end"),
            ("SELECT /* a", "comment without an end"),
            ("SELECT \"a", "quoted name without an end"),
            ("SELECT $x$ a $$", "text without an end"),
        ] {
            let error = parsed(query).expect_err(query);
            assert!(error.contains(part), "{query}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_or_refused(query in ".{0,60}") {
            let _ = parse(&query);
        }
    }
}
