//! Keys and tokens, by the forms that their issuers document so that scanners find them.

use std::sync::LazyLock;

use regex::Regex;

static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    super::pattern(concat!(
        // PEM and PGP private keys, to their end or that of the text.
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?s:.*?)",
        r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\z)",
        // OpenAI and Anthropic; Stripe.
        r"|\bsk-[A-Za-z0-9_-]{20,}|\b[rsp]k_(?:live|test)_[A-Za-z0-9]{10,}",
        // AWS; Google; GitHub; GitLab; Slack; Hugging Face; npm.
        r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[A-Za-z0-9_-]{35}|\bya29\.[A-Za-z0-9_-]{20,}",
        r"|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{22,}|\bglpat-[A-Za-z0-9_-]{20,}",
        r"|\bxox[a-z]-[A-Za-z0-9-]{10,}|\bxapp-[A-Za-z0-9-]{10,}",
        r"|\bhooks\.slack\.com/services/[A-Za-z0-9/]{20,}",
        r"|\bhf_[A-Za-z]{30,}|\bnpm_[A-Za-z0-9]{36}",
        // JSON Web Tokens.
        r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
        // A password in a URL; bearer tokens; what is named a key.
        r"|://(?<user>[^\s/:@\[\]]+:[^\s/@\[\]]+)@",
        r"|(?i:\bbearer[ \t]+)(?<bearer>[A-Za-z0-9._~+/=-]{16,})",
        r"|(?i:\b(?:api[_ -]?key|secret[_ -]?(?:access[_ -]?)?key|client[_ -]?secret|access[_ -]?token|password)",
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
