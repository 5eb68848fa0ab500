//! The elements of HTML, those of the past among them.

/// Whether a name, in lower case, is an element of HTML, or has the form of a custom or a prefixed one.
pub(super) fn is_element(name: &str) -> bool {
    name.contains(['-', ':']) || is_block(name) || INLINE.binary_search(&name).is_ok()
}

/// Whether an element stands on lines of its own, or breaks the line.
pub(super) fn is_block(name: &str) -> bool {
    BLOCK.binary_search(&name).is_ok()
}

/// In order, to be searched.
const BLOCK: [&str; 61] = [
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "br",
    "caption",
    "center",
    "dd",
    "details",
    "dialog",
    "dir",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "frameset",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "header",
    "hgroup",
    "hr",
    "html",
    "legend",
    "li",
    "listing",
    "main",
    "menu",
    "nav",
    "noframes",
    "ol",
    "optgroup",
    "option",
    "p",
    "plaintext",
    "pre",
    "search",
    "section",
    "select",
    "summary",
    "table",
    "tbody",
    "td",
    "textarea",
    "tfoot",
    "th",
    "thead",
    "title",
    "tr",
    "ul",
    "video",
    "xmp",
];

/// In order, to be searched.
const INLINE: [&str; 80] = [
    "a", "abbr", "acronym", "applet", "area", "audio", "b", "base", "basefont", "bdi", "bdo", "bgsound",
    "big", "blink", "button", "canvas", "cite", "code", "col", "colgroup", "data", "datalist", "del", "dfn",
    "em", "embed", "font", "frame", "g", "i", "iframe", "image", "img", "input", "ins", "kbd", "keygen",
    "label", "link", "map", "mark", "marquee", "math", "meta", "meter", "nobr", "noembed", "noscript",
    "object", "output", "param", "path", "picture", "progress", "q", "rb", "rp", "rt", "rtc", "ruby", "s",
    "samp", "script", "slot", "small", "source", "span", "strike", "strong", "style", "sub", "sup", "svg",
    "template", "time", "track", "tt", "u", "var", "wbr",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_in_order() {
        assert!(BLOCK.is_sorted() && INLINE.is_sorted());
        assert!(is_element("p") && is_element("a") && is_element("o:p") && !is_element("sic"));
    }
}
