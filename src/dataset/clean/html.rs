//! HTML to running text.
//!
//! The tokenizer follows the WHATWG standard, which makes markup of everything that could be: of `a <b` it
//! leaves `a`, of `?a=1&copy=2` it makes `?a=1©=2`. People write such text, so [`guarded`] first decides what
//! is markup and escapes the rest; the tokenizer then decodes entities and skips scripts and styles.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::collections::HashSet;
use std::sync::LazyLock;

use html5gum::emitters::callback::{Callback, CallbackEmitter, CallbackEvent};
use html5gum::{Span, Tokenizer};
use regex::{Captures, Regex};

use super::pattern;
use super::tags::{is_block, is_element};

/// The text of a piece of HTML: a line break for `<br>`, a blank line between paragraphs, the text of links,
/// nothing of scripts, styles and comments. Text without markup stays as it is.
pub(super) fn text(html: &str) -> Cow<'_, str> {
    if !html.contains(['<', '&']) {
        return Cow::Borrowed(html);
    }
    let guarded = guarded(html);
    let sink = Sink { blocks: guarded.blocks, ..Sink::default() };
    let mut emitter = CallbackEmitter::new(sink);
    emitter.naively_switch_states(true);
    let pieces = Tokenizer::new_with_emitter(guarded.html.as_str(), emitter);
    let text: String = pieces.map(|Ok(piece)| piece).collect();
    if text == html { Cow::Borrowed(html) } else { Cow::Owned(text) }
}

/// HTML in which every `<` and `&` is markup.
struct Guarded {
    html: String,
    /// Whether a tag tells lines or paragraphs apart. If so, line breaks in the text are mere spaces.
    blocks: bool,
}

/// The start of a comment, a declaration, a whole tag, a tag with an unclosed quote, a tag that was cut off in its
/// attributes, or an entity with its semicolon.
static MARKUP: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"<!--|<!\[CDATA\[|\]\]>|(?i:<!doctype|<!\[(?:if|endif)|<\?(?:xml|php))\b[^<>]*>",
        r#"|<(?<close>/?)(?<name>[A-Za-z][A-Za-z0-9]*(?:[:-][A-Za-z0-9]+)*)(?:"#,
        r#"(?<rest>(?:[\s/](?:[^<>"']|"[^"]*"|'[^']*')*)?)>"#,
        r"|(?<loose>[\s/][^<>]*)>",
        r#"|(?<cut>(?:\s+[A-Za-z-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+))*"#,
        r#"\s+[A-Za-z-]+\s*=\s*(?:"[^"<>]*"?|'[^'<>]*'?|[^\s"'<>]+)))"#,
        r"|&(?:(?:amp|AMP|#0*38|#[xX]0*26);)+|&(?:[A-Za-z][A-Za-z0-9]*|#[0-9]+|#[xX][0-9A-Fa-f]+);",
        r"|[<&]",
    ))
});

fn guarded(html: &str) -> Guarded {
    let mut guarded = Guarded { html: String::with_capacity(html.len()), blocks: false };
    let names = LazyCell::new(|| Names::of(html));
    let last_comment_end = html.rfind("-->").unwrap_or(0);
    let mut at = 0;
    loop {
        if let Some((before, close, name, end)) = plain_tag(html, at) {
            guarded.html.push_str(&html[at..before]);
            guarded.tag(close, name, &names);
            at = end;
            continue;
        }
        let Some(found) = MARKUP.captures_at(html, at) else { break };
        let (Some(all), name) = (found.get(0), found.name("name")) else { break };
        guarded.html.push_str(&html[at..all.start()]);
        at = all.end();
        if let Some(name) = name {
            let name = name.as_str().to_ascii_lowercase();
            if is_element(&name) || has_attributes(&found) || names.is_pair(&name) {
                guarded.tag(&found["close"], &name, &names);
            } else {
                guarded.html.push_str("&lt;");
                at = all.start() + 1;
            }
            continue;
        }
        match all.as_str() {
            "<!--" if at <= last_comment_end => at += html[at..].find("-->").map_or(0, |end| end + 3),
            "<!--" => guarded.html.push_str("&lt;!--"),
            "<" => guarded.html.push_str("&lt;"),
            "&" => guarded.html.push_str("&amp;"),
            entity if entity.starts_with('&') => guarded.html.push_str(one_ampersand(entity)),
            // A declaration, or the edge of a section of an RSS feed, whose content is HTML.
            _ => {}
        }
    }
    guarded.html.push_str(&html[at..]);
    guarded
}

/// The next piece of markup where that is the tag of a known element in lower case without attributes: where it begins, its slash, its
/// name and where it ends. Most markup is; the pattern would find the same.
fn plain_tag(html: &str, at: usize) -> Option<(usize, &str, &str, usize)> {
    let begin = at + html[at..].find(['<', '&', ']'])?;
    let tag = html[begin..].strip_prefix('<')?;
    let (close, rest) = tag.split_at(usize::from(tag.starts_with('/')));
    let end = rest.bytes().take_while(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()).count();
    let name = &rest[..end];
    let plain = rest[end..].starts_with('>') && is_element(name);
    plain.then(|| (begin, close, name, begin + 1 + close.len() + end + 1))
}

/// Whether a tag has something like `name=`.
fn has_attributes(found: &Captures<'_>) -> bool {
    let parts = ["rest", "loose", "cut"].into_iter().filter_map(|part| found.name(part));
    let mut names = parts.flat_map(|part| part.as_str().split('=').rev().skip(1));
    names.any(|before| before.trim_end().ends_with(|c: char| c.is_ascii_alphanumeric()))
}

impl Guarded {
    /// Adds a tag without its attributes: nothing of them is text.
    fn tag(&mut self, close: &str, name: &str, names: &LazyCell<Names, impl FnOnce() -> Names>) {
        self.blocks |= is_block(name);
        // A script that is never closed would swallow the rest of the text.
        if close.is_empty() && is_raw(name) && !names.closed.contains(name) {
            return;
        }
        for part in ["<", close, name, ">"] {
            self.html.push_str(part);
        }
    }
}

/// Text that was escaped more than once has `&amp;amp;lt;`: all its ampersands are decoded in one go.
fn one_ampersand(entity: &str) -> &str {
    let name = entity.trim_start_matches('&').trim_end_matches(';');
    let is_ampersand = |name: &str| {
        let number = name.strip_prefix('#').map(|n| match n.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16),
            None => n.parse(),
        });
        name.eq_ignore_ascii_case("amp") || number == Some(Ok(38))
    };
    if name.split(';').all(is_ampersand) { "&amp;" } else { entity }
}

fn is_raw(name: &str) -> bool {
    matches!(name, "script" | "style" | "title" | "textarea" | "xmp" | "iframe" | "noembed" | "noframes")
        || matches!(name, "noscript" | "plaintext")
}

/// The names of the tags in a text, to tell `<sic>` from an element that the standard does not know.
struct Names {
    opened: HashSet<String>,
    closed: HashSet<String>,
}

impl Names {
    fn of(html: &str) -> Self {
        static NAME: LazyLock<Regex> =
            LazyLock::new(|| pattern(r"<(/?)([A-Za-z][A-Za-z0-9]*(?:[:-][A-Za-z0-9]+)*)[\s/>]"));
        let mut names = Self { opened: HashSet::new(), closed: HashSet::new() };
        for found in NAME.captures_iter(html) {
            let set = if found[1].is_empty() { &mut names.opened } else { &mut names.closed };
            set.insert(found[2].to_ascii_lowercase());
        }
        names
    }

    fn is_pair(&self, name: &str) -> bool {
        self.opened.contains(name) && self.closed.contains(name)
    }
}

/// Takes the tokenizer's events and gives pieces of text.
#[derive(Default)]
struct Sink {
    blocks: bool,
    preformatted: usize,
    hidden: bool,
}

impl Callback<String, ()> for Sink {
    fn handle_event(&mut self, event: CallbackEvent<'_>, _span: Span<()>) -> Option<String> {
        match event {
            CallbackEvent::OpenStartTag { name } => {
                self.preformatted += usize::from(name == b"pre");
                self.hidden |= name == b"script" || name == b"style";
                separator(name)
            }
            CallbackEvent::EndTag { name } => {
                self.preformatted = self.preformatted.saturating_sub(usize::from(name == b"pre"));
                self.hidden &= !(name == b"script" || name == b"style");
                // `</br>` breaks the line as `<br>` does; after a cell or an item comes the next or the end.
                separator(name).filter(|_| !matches!(name, b"td" | b"th" | b"li"))
            }
            CallbackEvent::String { value } if !self.hidden => {
                let text = String::from_utf8_lossy(value);
                Some(if self.blocks && self.preformatted == 0 { flowed(&text) } else { text.into_owned() })
            }
            _ => None,
        }
    }
}

fn separator(name: &[u8]) -> Option<String> {
    let separator = match name {
        b"br" | b"li" | b"tr" | b"dt" | b"dd" | b"option" => "\n",
        b"td" | b"th" => " ",
        name if std::str::from_utf8(name).is_ok_and(is_block) => "\n\n",
        _ => return None,
    };
    Some(separator.to_owned())
}

/// Between block elements a line break is a space like any other.
fn flowed(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::super::characters::collapsed;

    fn text(html: &str) -> String {
        collapsed(&super::text(html)).into_owned()
    }

    #[test]
    fn html_becomes_running_text() {
        let html = "<p>One &amp;\n<a href=\"http://a.b/?c>d\" target=_blank>two</a>.</p><p>\n<em>Three</em><br/>four\
                    <!-- no --><script>if (a < b) {}</script><style>p{}</style></p><ul><li>x</li><li>y</ul>";
        assert_eq!(text(html), "One & two.\n\nThree\nfour\n\nx\ny");
    }

    #[test]
    fn what_is_not_markup_stays() {
        for plain in [
            "a < b and c > d",
            "I <3 you & me",
            "x <y and z",
            "a<b",
            "see <joe@example.com> or <http://example.com/a>",
            "?lang=en&region=us&copy=1",
            "<sic> and <your name here>",
            "AT&T; R&D",
            "a\nb\n\nc",
            "5 <!-- 6",
        ] {
            assert_eq!(super::text(plain), plain);
        }
    }

    #[test]
    fn malformed_html_loses_no_text() {
        assert_eq!(text("<p>a < b</p> & c"), "a < b\n\n& c");
        assert_eq!(text("<p class=\"x>one</p>two"), "one\n\ntwo");
        assert_eq!(text("<p>one <a href=\"http://a.b"), "one");
        assert_eq!(text("<script>one"), "one");
        assert_eq!(text("<p don't>one</p>"), "one");
        assert_eq!(text("<b>one</i> <p>two"), "one\n\ntwo");
        assert_eq!(text("<font-awesome x=1>a</font-awesome><o:p>b</o:p>"), "ab");
        assert_eq!(text("<![CDATA[<p>one</p>]]>"), "one");
    }

    #[test]
    fn entities_become_characters() {
        assert_eq!(
            text("&lt;3 &quot;q&quot; &#8212; &#x2014; a&nbsp;b &hearts; &amp;amp;amp; c"),
            "<3 \"q\" — — a b ♥ & c"
        );
    }

    #[test]
    fn without_blocks_line_breaks_stay() {
        assert_eq!(text("a <b>b</b>\nc"), "a b\nc");
        assert_eq!(text("<p>a\nb</p><pre>c\nd</pre>"), "a b\n\nc\nd");
    }
}
