//! Errors in words: what went wrong and what that was caused by.

use std::error::Error;

/// An error and its causes in one line, each told once: some libraries repeat their causes in their own message.
#[must_use]
pub fn in_one_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !line.contains(&words) {
            line = format!("{line}: {words}");
        }
        next = cause.source();
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The last and most specific cause, such as `Connection refused (os error 111)`.
#[must_use]
pub fn last(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Layer {
        words: &'static str,
        #[source]
        cause: Option<Box<Self>>,
    }

    fn layers(words: &[&'static str]) -> Layer {
        let (first, rest) = words.split_first().unwrap();
        Layer { words: first, cause: (!rest.is_empty()).then(|| Box::new(layers(rest))) }
    }

    #[test]
    fn each_cause_is_told_once_in_one_line() {
        let error = layers(&["cannot call: timed out", "timed out", "socket\n closed"]);
        assert_eq!(in_one_line(&error), "cannot call: timed out: socket closed");
        assert_eq!(in_one_line(&layers(&["alone"])), "alone");
    }

    #[test]
    fn the_last_cause_is_the_innermost() {
        assert_eq!(last(&layers(&["a", "b", "c"])), "c");
        assert_eq!(last(&layers(&["a"])), "a");
    }
}
