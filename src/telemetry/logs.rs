//! Log lines: text for people, or JSON with one event per line.

use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::{Layer, Registry};

use crate::config::LogFormat;

/// Writes each event to `writer` as one line.
pub(super) fn layer<W>(format: LogFormat, coloured: bool, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => layer.with_ansi(coloured).boxed(),
        LogFormat::Json => layer.with_ansi(false).json().flatten_event(true).with_span_list(false).boxed(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `work` logs.
    pub(in crate::telemetry) fn logged(format: LogFormat, work: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let layer = layer(format, false, move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    fn event() {
        let _span = tracing::info_span!("step", run = 7).entered();
        tracing::warn!(attempt = 2, "first line\nsecond line");
    }

    #[test]
    fn json_is_one_object_per_line_with_its_span() {
        let lines = logged(LogFormat::Json, event);
        assert_eq!(lines.lines().count(), 1, "{lines}");
        let event: serde_json::Value = serde_json::from_str(&lines).unwrap();
        assert_eq!(event["level"], "WARN");
        assert_eq!(event["message"], "first line\nsecond line");
        assert_eq!(event["attempt"], 2);
        assert_eq!(event["span"]["name"], "step");
        assert_eq!(event["span"]["run"], 7);
        assert!(event["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn text_is_plain_where_colours_are_off() {
        let text = logged(LogFormat::Text, event);
        assert!(text.contains("WARN") && text.contains("attempt=2") && !text.contains('\u{1b}'), "{text}");
    }
}
