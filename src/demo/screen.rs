//! What the demo shows on the terminal: one line per event. Where the output is a terminal, a line that only
//! waits is written over by the next; elsewhere such lines are thinned out.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::answers::Event;
use crate::runs::Step;

/// Text is wrapped to this width.
const WIDTH: usize = 100;
/// Elsewhere than on a terminal, a waiting step shows itself this often.
const SELDOM: Duration = Duration::from_secs(2);
const LABEL: usize = 12;

/// A style of text; none where the output is no terminal, or `NO_COLOR` is set.
#[derive(Clone, Copy)]
pub(super) enum Style {
    Plain,
    Strong,
    Faint,
    Good,
    Poor,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "\u{1b}[1m",
            Self::Faint => "\u{1b}[2m",
            Self::Good => "\u{1b}[32m",
            Self::Poor => "\u{1b}[33m",
        }
    }
}

/// Where the output goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A file or another program: each line stays.
    File,
    /// A terminal.
    Terminal,
    /// A terminal that may show colours.
    Coloured,
}

/// The screen. Its methods fail where standard output is closed.
pub(super) struct Screen<W = io::Stdout> {
    output: W,
    kind: Kind,
    verbose: bool,
    started: Instant,
    /// Whether the last line is to be written over.
    passing: bool,
    /// The step whose waiting was shown last, and when.
    waited: Option<(Step, Instant)>,
}

impl Screen {
    /// Standard output.
    pub(super) fn stdout(verbose: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let moves = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let kind = match io::stdout().is_terminal() && moves {
            false => Kind::File,
            true if set("NO_COLOR") => Kind::Terminal,
            true => Kind::Coloured,
        };
        Self::new(io::stdout(), kind, verbose)
    }
}

impl<W: Write> Screen<W> {
    fn new(output: W, kind: Kind, verbose: bool) -> Self {
        Self { output, kind, verbose, started: Instant::now(), passing: false, waited: None }
    }

    /// A heading with space above it.
    pub(super) fn heading(&mut self, text: &str) -> io::Result<()> {
        self.line("")?;
        let text = self.styled(text, Style::Strong);
        self.line(&text)
    }

    /// A paragraph.
    pub(super) fn paragraph(&mut self, text: &str) -> io::Result<()> {
        self.hanging("  ", text, Style::Plain)
    }

    /// A name and what is said of it.
    pub(super) fn fact(&mut self, name: &str, text: &str, style: Style) -> io::Result<()> {
        self.hanging(&format!("  {name:<LABEL$}  "), text, style)
    }

    /// Something that takes a moment.
    pub(super) fn doing(&mut self, text: &str) -> io::Result<()> {
        let clock = self.clock();
        self.pass(&format!("{clock}  {text}"))
    }

    /// What happened in a run; `aside` is added to what only waits.
    pub(super) fn event(&mut self, event: &Event, aside: &str) -> io::Result<()> {
        let head = self.head(event.step);
        match event.kind.as_str() {
            "entered" if !self.verbose => self.pass(&format!("{head}…"))?,
            "waiting" if !self.verbose && self.is_repeated(event.step) => {
                if self.kind != Kind::File {
                    self.pass(&format!("{head}{}{aside}", event.message))?;
                } else if self.waited.is_none_or(|(_, shown)| shown.elapsed() >= SELDOM) {
                    self.waited = Some((event.step, Instant::now()));
                    self.hanging(&head, &format!("{}{aside}", event.message), Style::Faint)?;
                }
            }
            "waiting" => {
                self.waited = Some((event.step, Instant::now()));
                self.hanging(&head, &event.message, Style::Plain)?;
            }
            "retry" => self.hanging(&head, &format!("trying again: {}", event.message), Style::Poor)?,
            _ => {
                let style = if event.tells_harm() { Style::Poor } else { Style::Plain };
                self.hanging(&head, &event.message, style)?;
            }
        }
        if self.verbose && event.data.as_object().is_some_and(|data| !data.is_empty()) {
            let text = format!("{} {}", event.kind, event.data);
            let indent = " ".repeat(head.chars().count());
            self.hanging(&indent, &text, Style::Faint)?;
        }
        Ok(())
    }

    /// A line of the demo's own about a step; its waiting is shown seldom from here on.
    pub(super) fn note(&mut self, step: Step, text: &str) -> io::Result<()> {
        self.waited = Some((step, Instant::now()));
        let head = self.head(step);
        self.hanging(&head, text, Style::Plain)
    }

    fn head(&self, step: Step) -> String {
        format!("{}  {:<9}  ", self.clock(), step.as_str())
    }

    fn is_repeated(&self, step: Step) -> bool {
        self.waited.is_some_and(|(waiting, _)| waiting == step)
    }

    /// Seconds since the demo began.
    fn clock(&self) -> String {
        format!("  {:>5.1} s", self.started.elapsed().as_secs_f64())
    }

    /// A head, and text that continues below its own beginning.
    fn hanging(&mut self, head: &str, text: &str, style: Style) -> io::Result<()> {
        let indent = head.chars().count();
        let mut head = head.to_owned();
        for line in wrapped(text, WIDTH.saturating_sub(indent)) {
            let text = self.styled(&line, style);
            self.line(&format!("{head}{text}"))?;
            head = " ".repeat(indent);
        }
        Ok(())
    }

    fn styled(&self, text: &str, style: Style) -> String {
        match style.code() {
            "" => text.to_owned(),
            code if self.kind == Kind::Coloured => format!("{code}{text}\u{1b}[0m"),
            _ => text.to_owned(),
        }
    }

    /// A line that stays.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        self.erase()?;
        writeln!(self.output, "{}", text.trim_end())?;
        self.output.flush()
    }

    /// A line that the next one takes the place of; nothing elsewhere than on a terminal.
    fn pass(&mut self, text: &str) -> io::Result<()> {
        if self.kind == Kind::File {
            return Ok(());
        }
        self.erase()?;
        let text = self.styled(text, Style::Faint);
        // What is wider than the terminal is cut off and not wrapped, so that it can be erased.
        write!(self.output, "\u{1b}[?7l{text}\u{1b}[?7h")?;
        self.passing = true;
        self.output.flush()
    }

    /// Removes a line that only passes.
    pub(super) fn erase(&mut self) -> io::Result<()> {
        if self.passing {
            write!(self.output, "\r\u{1b}[K")?;
            self.passing = false;
        }
        Ok(())
    }
}

/// Lines of at most `width` characters, broken between words; one at least.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, message: &str) -> Event {
        Event {
            id: 1,
            step: Step::Test,
            kind: kind.into(),
            message: message.into(),
            data: serde_json::json!({"n": 1}),
        }
    }

    fn shown(kind: Kind, verbose: bool) -> String {
        let mut screen = Screen::new(Vec::new(), kind, verbose);
        screen.event(&event("entered", "test began"), "").unwrap();
        for count in 1..=5 {
            screen.event(&event("waiting", &format!("{count} outcomes")), ", and more").unwrap();
        }
        screen.event(&event("progress", "the test is over"), "").unwrap();
        String::from_utf8(screen.output).unwrap()
    }

    #[test]
    fn elsewhere_than_on_a_terminal_waiting_is_thinned_and_nothing_is_written_over() {
        let text = shown(Kind::File, false);
        let lines: Vec<_> = text.lines().map(|line| line.split("  ").last().unwrap().trim()).collect();
        assert_eq!(lines, ["1 outcomes", "the test is over"]);
        assert!(!text.contains(['\u{1b}', '\r']), "{text:?}");
    }

    #[test]
    fn on_a_terminal_waiting_is_written_over() {
        let text = shown(Kind::Terminal, false);
        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert!(text.contains("5 outcomes, and more"), "{text:?}");
        // The beginning of the step and four later waits.
        assert_eq!(text.matches("\r\u{1b}[K").count(), 5, "{text:?}");
        assert!(!text.contains("\u{1b}[2m"), "{text:?}");
        assert!(shown(Kind::Coloured, false).contains("\u{1b}[2m"));
    }

    #[test]
    fn verbose_shows_every_event_with_its_figures() {
        let text = shown(Kind::File, true);
        assert_eq!(text.lines().count(), 14, "{text}");
        assert!(text.contains(r#"waiting {"n":1}"#), "{text}");
    }

    #[test]
    fn long_text_continues_below_its_beginning() {
        let mut screen = Screen::new(Vec::new(), Kind::File, false);
        screen.fact("Decision", &"word ".repeat(30), Style::Plain).unwrap();
        let text = String::from_utf8(screen.output).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("  Decision      word") && lines[1].starts_with("                word"));
        assert!(lines.iter().all(|line| line.len() <= WIDTH));
    }

    #[test]
    fn a_word_longer_than_the_line_stays_whole() {
        assert_eq!(wrapped("a 123456789 b", 4), ["a", "123456789", "b"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}
