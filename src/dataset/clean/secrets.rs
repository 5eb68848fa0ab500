//! Keys and tokens, by the forms that their issuers document so that scanners find them.

use std::sync::LazyLock;

use regex::Regex;

/// The shortest key that is taken for one, and the parts that tell a secret without a digit.
pub(super) const SHORTEST: usize = 12;
pub(super) const ALWAYS: [&str; 3] = ["PRIVATE KEY", "hf_", "://"];

static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    super::pattern(concat!(
        // PEM and PGP private keys, to their end or that of the text.
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?s:.*?)",
        r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\z)",
        // OpenAI and Anthropic; Stripe.
        r"|(?-u:\b)sk-[A-Za-z0-9_-]{20,}|(?-u:\b)[rsp]k_(?:live|test)_[A-Za-z0-9]{10,}",
        // AWS; Google; GitHub; GitLab; Slack; Hugging Face; npm.
        r"|(?-u:\b)(?:AKIA|ASIA)[A-Z0-9]{16}(?-u:\b)|(?-u:\b)AIza[A-Za-z0-9_-]{35}|(?-u:\b)ya29\.[A-Za-z0-9_-]{20,}",
        r"|(?-u:\b)gh[pousr]_[A-Za-z0-9]{30,}|(?-u:\b)github_pat_[A-Za-z0-9_]{22,}|(?-u:\b)glpat-[A-Za-z0-9_-]{20,}",
        r"|(?-u:\b)xox[a-z]-[A-Za-z0-9-]{10,}|(?-u:\b)xapp-[A-Za-z0-9-]{10,}",
        r"|(?-u:\b)hooks\.slack\.com/services/[A-Za-z0-9/]{20,}",
        r"|(?-u:\b)hf_[A-Za-z]{30,}|(?-u:\b)npm_[A-Za-z0-9]{36}",
        // JSON Web Tokens.
        r"|(?-u:\b)eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
        // A password in a URL; bearer tokens; what is named a key.
        r"|://(?<user>[^\s/:@\[\]]+:[^\s/@\[\]]+)@",
        r"|(?i:(?-u:\b)bearer[ \t]+)(?<bearer>[A-Za-z0-9._~+/=-]{16,})",
        r"|(?i:(?-u:\b)(?:api[_ -]?key|secret[_ -]?(?:access[_ -]?)?key|client[_ -]?secret|access[_ -]?token|password)",
        r#"["']?[ \t]*[:=][ \t]*["']?)(?<named>[A-Za-z0-9._~+/=-]{12,})"#,
    ))
});

pub(super) fn pattern() -> &'static Regex {
    &SECRET
}

/// A key is random: it has digits among its letters, unlike words joined by hyphens.
pub(super) fn is_secret(found: &str, _before: &str) -> Option<usize> {
    let has = |kind: fn(&char) -> bool| found.chars().any(|c| kind(&c));
    let issued = found.starts_with("-----") || found.starts_with("hf_") || found.contains(':');
    (issued || (has(char::is_ascii_digit) && has(char::is_ascii_alphabetic))).then_some(found.len())
}
