//! Rows become examples: by a built-in template or by Jinja templates of the pipeline's own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use serde_json::Value;
use thiserror::Error;

use super::source::Columns;
use super::{DatasetSettings, Example, Prompts, Template};

/// What stands in for an empty original input.
const DEFAULT_PROMPT: &str = "Create engaging content";

/// The most steps that a template may take for one row, so that none runs for ever.
const FUEL: u64 = 100_000;

/// The longest template, in bytes.
const LONGEST: usize = 32_768;

/// The longest text that a template may make of one row, in bytes.
const LARGEST: usize = 8 << 20;

/// Filters and functions that can make a text of any length of a short one.
const GROWING: [&str; 6] = ["replace", "indent", "format", "batch", "slice", "namespace"];

/// The columns of a row that templates ask for, by name; a column without a value is `null`.
pub(super) type Row = BTreeMap<String, Value>;

/// A template that cannot be used.
#[derive(Debug, Error)]
#[error("the template prompts.{template} has an error in line {line}, column {column}: {message}")]
pub struct TemplateError {
    /// `system`, `user` or `assistant`.
    pub template: &'static str,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// Templates that are ready to be rendered.
#[derive(Debug)]
pub(super) enum Compiled {
    /// One of the built-in ones, and where its texts stand.
    BuiltIn(Template, Columns),
    /// The pipeline's own.
    Own(Box<Own>),
}

/// Templates of a pipeline.
#[derive(Debug)]
pub(super) struct Own {
    environment: Environment<'static>,
    system: bool,
}

/// Makes the templates of these settings ready.
pub(super) fn compile(settings: &DatasetSettings) -> Result<Compiled, TemplateError> {
    match &settings.prompts {
        Some(prompts) => Ok(Compiled::Own(Box::new(Own::new(prompts)?))),
        None => Ok(Compiled::BuiltIn(settings.template, settings.source.columns.clone())),
    }
}

impl Compiled {
    /// The columns that the templates ask for.
    #[must_use]
    pub(super) fn columns(&self) -> BTreeSet<String> {
        match self {
            Self::BuiltIn(Template::Hook, columns) => {
                [&columns.original_input, &columns.hook].map(Clone::clone).into()
            }
            Self::BuiltIn(Template::Body, columns) => [&columns.hook, &columns.body].map(Clone::clone).into(),
            Self::Own(own) => own.names().1,
        }
    }

    /// Whether messages may say what no text of the row says, being put together of several columns and of numbers.
    #[must_use]
    pub(super) fn puts_together(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// The functions that the templates use, as far as they are looked up like columns.
    #[must_use]
    pub(super) fn functions(&self) -> BTreeSet<String> {
        match self {
            Self::BuiltIn(..) => BTreeSet::new(),
            Self::Own(own) => own.names().0,
        }
    }

    /// The example that a row makes, or `None` where a part it needs is blank.
    pub(super) fn example(&self, row: Row) -> Result<Option<Example>, TemplateError> {
        match self {
            Self::BuiltIn(template, columns) => Ok(template.example(columns, row)),
            Self::Own(own) => own.example(&row),
        }
    }
}

impl Template {
    fn example(self, columns: &Columns, mut row: Row) -> Option<Example> {
        // One column may have both parts.
        let user = match self {
            Self::Hook => {
                text(&row, &columns.original_input).map_or_else(|| DEFAULT_PROMPT.to_owned(), str::to_owned)
            }
            Self::Body => format!("{}\n\nWrite a detailed post:", text(&row, &columns.hook)?),
        };
        let answer = match self {
            Self::Hook => &columns.hook,
            Self::Body => &columns.body,
        };
        text(&row, answer)?;
        let Some(Value::String(assistant)) = row.remove(answer) else { return None };
        Some(Example { system: None, user, assistant })
    }
}

/// A column's text, unless it is blank.
fn text<'a>(row: &'a Row, column: &str) -> Option<&'a str> {
    row.get(column).and_then(Value::as_str).filter(|text| !text.trim().is_empty())
}

impl Own {
    fn new(prompts: &Prompts) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_debug(true);
        environment.set_fuel(Some(FUEL));
        // A value that is missing in one row is nothing to fail for; names of columns are checked when saved.
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        for name in GROWING {
            environment.remove_filter(name);
            environment.remove_global(name);
        }
        for (name, source) in parts(prompts) {
            refuse_variables(name, source)?;
            environment
                .add_template_owned(name, source.to_owned())
                .map_err(|error| template_error(name, source, &error))?;
        }
        Ok(Self { environment, system: prompts.system.is_some() })
    }

    /// The names that the templates look up: those of functions, and all others.
    fn names(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let functions: BTreeSet<&str> = self.environment.globals().map(|(name, _)| name).collect();
        let names =
            self.environment.templates().flat_map(|(_, template)| template.undeclared_variables(false));
        names.partition(|name| functions.contains(name.as_str()))
    }

    fn example(&self, row: &Row) -> Result<Option<Example>, TemplateError> {
        let values = row.iter().filter(|(_, value)| !value.is_null());
        let values = values
            .map(|(name, value)| (name.as_str(), minijinja::Value::from(minijinja::value::Serde(value))));
        let context = minijinja::Value::from_pairs(values);
        let render = |name: &'static str| -> Result<Option<String>, TemplateError> {
            let template = self.environment.get_template(name);
            let mut text = Limited(Vec::new());
            let text = template.and_then(|template| {
                template.render_captured_to(context.clone(), &mut text)?;
                Ok(String::from_utf8_lossy(&text.0).into_owned())
            });
            let text = text.map_err(|error| {
                let source = error.template_source().unwrap_or_default().to_owned();
                template_error(name, &source, &error)
            })?;
            Ok(Some(text).filter(|text| !text.trim().is_empty()))
        };
        let (Some(user), Some(assistant)) = (render("user")?, render("assistant")?) else { return Ok(None) };
        let system = if self.system { render("system")? } else { None };
        Ok(Some(Example { system, user, assistant }))
    }
}

/// A variable can be doubled in every step (`{% set x = x ~ x %}`), which no count of steps makes harmless.
fn refuse_variables(template: &'static str, source: &str) -> Result<(), TemplateError> {
    const TAGS: [&str; 6] = ["set", "with", "filter", "call", "macro", "do"];
    for (start, _) in source.match_indices("{%") {
        let tag = source[start + 2..].trim_start_matches(['-', '+']).trim_start();
        let name: String = tag.chars().take_while(char::is_ascii_alphanumeric).collect();
        if TAGS.contains(&name.as_str()) {
            let line_start = source[..start].rfind('\n').map_or(0, |end| end + 1);
            return Err(TemplateError {
                template,
                line: source[..start].matches('\n').count() + 1,
                column: source[line_start..start].chars().count() + 1,
                message: format!("the tag {name} is not available; use columns, filters, if and for"),
            });
        }
    }
    Ok(())
}

/// Refuses to grow beyond [`LARGEST`].
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LARGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the text is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn parts(prompts: &Prompts) -> impl Iterator<Item = (&'static str, &str)> {
    let system = prompts.system.as_deref().map(|system| ("system", system));
    system.into_iter().chain([("user", prompts.user.as_str()), ("assistant", prompts.assistant.as_str())])
}

fn template_error(template: &'static str, source: &str, error: &minijinja::Error) -> TemplateError {
    let (line, column) = match error.range().and_then(|range| source.get(..range.start)) {
        Some(before) => {
            let start = before.rfind('\n').map_or(0, |end| end + 1);
            (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
        }
        None => (error.line().unwrap_or(1), 1),
    };
    let message = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    TemplateError { template, line, column, message }
}

/// What is wrong with the templates themselves: fields as JSON pointers below the settings, and sentences.
pub(super) fn faults(settings: &DatasetSettings) -> Vec<(String, String)> {
    let Some(prompts) = &settings.prompts else { return Vec::new() };
    let mut faults = Vec::new();
    for (name, source) in parts(prompts) {
        if source.len() > LONGEST {
            faults.push((format!("/prompts/{name}"), format!("must be at most {LONGEST} bytes long")));
        } else if let Some(error) = fault_of(name, source) {
            faults.push((format!("/prompts/{name}"), error.to_string()));
        }
    }
    faults
}

fn fault_of(name: &'static str, source: &str) -> Option<TemplateError> {
    let alone = Prompts { system: None, user: source.to_owned(), assistant: source.to_owned() };
    let own = match Own::new(&alone) {
        Ok(own) => own,
        Err(error) => return Some(TemplateError { template: name, ..error }),
    };
    // Names of filters, tests and functions are looked up only when they are met. Other errors depend on the
    // row, and no row is at hand.
    let error = own.environment.get_template("user").and_then(|template| template.render(())).err()?;
    let unknown = matches!(
        error.kind(),
        ErrorKind::UnknownFilter
            | ErrorKind::UnknownTest
            | ErrorKind::UnknownFunction
            | ErrorKind::TemplateNotFound
            | ErrorKind::OutOfFuel
    );
    unknown.then(|| template_error(name, source, &error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn built_in(template: Template, input: &str, hook: &str, body: &str) -> Option<(String, String)> {
        let row: Row = [("original_input", input), ("hook", hook), ("body", body)]
            .map(|(name, text)| (name.to_owned(), json!(text)))
            .into();
        let settings = DatasetSettings { template, ..DatasetSettings::default() };
        let example = compile(&settings).unwrap().example(row).unwrap()?;
        assert_eq!(example.system, None);
        Some((example.user, example.assistant))
    }

    fn prompts(user: &str, assistant: &str) -> DatasetSettings {
        let prompts = Prompts { system: None, user: user.into(), assistant: assistant.into() };
        DatasetSettings { prompts: Some(prompts), ..DatasetSettings::default() }
    }

    #[test]
    fn an_empty_input_asks_for_engaging_content() {
        let pair = |user: &str| Some((user.to_owned(), "A hook".to_owned()));
        assert_eq!(built_in(Template::Hook, "About cats", "A hook", ""), pair("About cats"));
        for empty in ["", "  \n"] {
            assert_eq!(built_in(Template::Hook, empty, "A hook", ""), pair("Create engaging content"));
        }
    }

    #[test]
    fn a_body_example_asks_for_a_detailed_post_below_the_hook() {
        let expected = ("A hook\n\nWrite a detailed post:".to_owned(), "The whole story".to_owned());
        assert_eq!(built_in(Template::Body, "ignored", "A hook", "The whole story"), Some(expected));
    }

    #[test]
    fn a_post_without_what_the_model_should_write_makes_no_example() {
        assert_eq!(built_in(Template::Hook, "About cats", " ", "A body"), None);
        assert_eq!(built_in(Template::Body, "About cats", "A hook", ""), None);
        assert_eq!(built_in(Template::Body, "About cats", "", "A body"), None);
    }

    #[test]
    fn own_templates_ask_for_the_columns_they_name_and_print_nothing_for_nulls() {
        let mut settings = prompts(
            "{{ topic | upper }}{% if tone %} in a {{ tone }} tone{% endif %}{{ missing }}",
            "{% for word in words %}{{ word }} {% endfor %}",
        );
        settings.prompts.as_mut().unwrap().system = Some("You are {{ author.name }}.".into());
        let compiled = compile(&settings).unwrap();
        let columns: Vec<String> = compiled.columns().into_iter().collect();
        assert_eq!(columns, ["author", "missing", "tone", "topic", "words"]);
        let row: Row = [
            ("topic", json!("cats")),
            ("tone", Value::Null),
            ("words", json!(["one", "two"])),
            ("author", json!({"name": "Ann"})),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let example = compiled.example(row).unwrap().unwrap();
        assert_eq!(example.system.as_deref(), Some("You are Ann."));
        assert_eq!((example.user.as_str(), example.assistant.as_str()), ("CATS", "one two "));
        assert!(compiled.example(Row::new()).unwrap().is_none(), "blank parts make no example");
    }

    #[test]
    fn a_fault_names_template_line_and_column() {
        let faults = |user: &str| faults(&prompts(user, "{{ hook }}"));
        let found = faults("All good\nbut {{ this is not");
        assert_eq!(found[0].0, "/prompts/user");
        assert!(found[0].1.contains("prompts.user has an error in line 2"), "{found:?}");
        let found = faults("äö {{ hook | shout }}");
        assert!(found[0].1.contains("line 1, column 14") && found[0].1.contains("shout"), "{found:?}");
        assert!(faults("{% include 'other' %}")[0].1.contains("line 1"));
        assert!(faults("{{ a.b.c + 1 }}").is_empty(), "what depends on the row is no fault");
    }

    #[test]
    fn a_template_does_not_run_for_ever() {
        let doubled = format!("{{% set x = topic %}}{}", "{%- set x = x ~ x -%}".repeat(40));
        let faults = |user: &str| super::faults(&prompts(user, "x"));
        assert!(faults(&doubled)[0].1.contains("line 1, column 1: the tag set is not available"));
        assert!(!faults("{{ topic | replace('a', topic) }}").is_empty());
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}";
        let found = faults(endless);
        assert!(found[0].1.contains("fuel"), "{found:?}");
        let compiled = compile(&prompts("{% for a in range(9999) %}{{ topic }}{% endfor %}", "x")).unwrap();
        let row = [("topic".to_owned(), json!("a".repeat(10_000)))].into();
        assert!(compiled.example(row).is_err(), "100 MB of one row");
    }
}
