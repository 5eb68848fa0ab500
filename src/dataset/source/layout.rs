//! How the columns of a source are read, found out from their types.

use std::collections::BTreeMap;

use sqlx::{Column, TypeInfo};

use super::SourceSettings;
use super::sql::quoted;
use crate::dataset::DatasetSettings;
use crate::dataset::prompts::Compiled;

/// Expressions over the source, as SQL.
#[derive(Debug, Clone)]
pub(in crate::dataset) struct Layout {
    pub(super) id: String,
    pub(super) engagement: String,
    pub(super) created_at: String,
    pub(super) impressions: Option<String>,
    /// What is selected: time, persona, group, engagement, id, then one for each variable.
    pub(super) selected: Vec<String>,
    /// The variables of the templates in the order in which they are selected, and whether each is text.
    pub(in crate::dataset) variables: Vec<(String, bool)>,
}

/// What is read before the variables: time, persona, group, engagement and id.
pub(in crate::dataset) const LEADING: usize = 5;
/// Where among them the id stands, as text.
pub(in crate::dataset) const ID: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Instant,
    /// A timestamp without a time zone.
    LocalTime,
    Other,
}

fn kind(name: &str) -> Kind {
    match name.to_ascii_uppercase().as_str() {
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" | "CITEXT" => Kind::Text,
        "INT2" | "INT4" | "INT8" | "FLOAT4" | "FLOAT8" | "NUMERIC" => Kind::Number,
        "TIMESTAMPTZ" => Kind::Instant,
        "TIMESTAMP" => Kind::LocalTime,
        _ => Kind::Other,
    }
}

impl Layout {
    /// Finds the columns that the settings and templates need. Errs with every column that is missing or has the
    /// wrong type, as fields below the dataset's settings.
    pub(super) fn new(
        settings: &DatasetSettings,
        templates: &Compiled,
        columns: &[impl Column],
    ) -> Result<Self, Vec<(String, String)>> {
        let types: BTreeMap<&str, &str> =
            columns.iter().map(|column| (column.name(), column.type_info().name())).collect();
        let mut finder = Finder { source: &settings.source, types, faults: Vec::new() };
        let names = &settings.source.columns;

        let id = finder.column("id", &names.id, None);
        let engagement = finder.column("engagement", &names.engagement, Some(&[Kind::Number]));
        let time = finder.column("created_at", &names.created_at, Some(&[Kind::Instant, Kind::LocalTime]));
        let impressions = (settings.minimum_impressions > 0)
            .then(|| finder.column("impressions", &names.impressions, Some(&[Kind::Number])));
        let persona = if settings.maximum_per_persona.is_some() {
            finder.column("persona", &names.persona, None).map(|_| true)
        } else {
            Some(finder.types.contains_key(names.persona.as_str()))
        };
        let group = settings.source.group_column.as_deref();
        if let Some(group) = group {
            finder.find("/source/group_column", group, None);
        }
        for name in templates.functions() {
            if finder.types.contains_key(name.as_str()) {
                let sentence = format!(
                    "use {name}, which is a function of templates and a column of {}; to use the column, give it another name \
                     in a query (SELECT {} AS its_{name}, \u{2026})",
                    finder.origin(),
                    quoted(&name)
                );
                finder.faults.push(("/prompts".into(), sentence));
            }
        }
        let read: Vec<(String, bool)> = templates
            .columns()
            .iter()
            .filter_map(|name| finder.variable(settings, name).map(|text| (name.clone(), text)))
            .collect();

        let faults = finder.faults;
        let (Some(id), Some(_), Some(time), Some(persona)) = (id, engagement, time, persona) else {
            return Err(faults);
        };
        if !faults.is_empty() {
            return Err(faults);
        }
        let created_at = match time {
            Kind::LocalTime => format!("({} AT TIME ZONE 'UTC')", quoted(&names.created_at)),
            _ => quoted(&names.created_at),
        };
        let persona = if persona { text_of(&quoted(&names.persona)) } else { "NULL::text".into() };
        let group = group.map_or_else(|| persona.clone(), |group| text_of(&quoted(group)));
        let variable = |(name, text): &(String, bool)| {
            let name = quoted(name);
            if *text { text_of(&name) } else { format!("to_jsonb({name})") }
        };
        // Postgres knows times that the calendar of this program does not reach, infinity among them.
        let time = format!("LEAST({created_at}, '9999-01-01Z'::timestamptz)");
        let engagement = format!("{}::float8", quoted(&names.engagement));
        let id_text = format!("{}::text", quoted(&names.id));
        let selected = [time, persona, group, engagement.clone(), id_text]
            .into_iter()
            .chain(read.iter().map(variable))
            .collect();
        Ok(Self {
            // With its relation, or in ORDER BY it would be the column of that name among those that are selected, a text.
            id: format!("source.{}", quoted(&names.id))
                + if id == Kind::Text { " COLLATE \"C\"" } else { "" },
            engagement,
            created_at,
            impressions: impressions.flatten().map(|_| quoted(&names.impressions)),
            selected,
            variables: read,
        })
    }
}

/// An expression as text. The order of text differs between databases, except in this collation.
fn text_of(expression: &str) -> String {
    format!("{expression}::text COLLATE \"C\"")
}

struct Finder<'a> {
    source: &'a SourceSettings,
    types: BTreeMap<&'a str, &'a str>,
    faults: Vec<(String, String)>,
}

impl Finder<'_> {
    /// The kind of a column that has a role, which must be one of `kinds`.
    fn column(&mut self, role: &str, name: &str, kinds: Option<&[Kind]>) -> Option<Kind> {
        self.find(&format!("/source/columns/{role}"), name, kinds)
    }

    fn find(&mut self, field: &str, name: &str, kinds: Option<&[Kind]>) -> Option<Kind> {
        let field = field.to_owned();
        let Some(found) = self.types.get(name) else {
            self.faults
                .push((field, format!("names the column {name:?}, which {} does not have", self.origin())));
            return None;
        };
        let kind = kind(found);
        let wanted = match kinds {
            Some(kinds) if !kinds.contains(&kind) => kinds.first(),
            _ => return Some(kind),
        };
        let wanted = match wanted {
            Some(Kind::Number) => "a number",
            Some(Kind::Instant) => "a timestamp",
            _ => "text",
        };
        self.faults.push((field, format!("names the column {name:?}, which is {found} and not {wanted}")));
        None
    }

    /// Whether a variable of the templates is text; `None` where there is no such column.
    fn variable(&mut self, settings: &DatasetSettings, name: &str) -> Option<bool> {
        if settings.prompts.is_none() {
            let names = &settings.source.columns;
            let roles =
                [("original_input", &names.original_input), ("hook", &names.hook), ("body", &names.body)];
            let role = roles.into_iter().find(|(_, column)| *column == name).map_or("hook", |(role, _)| role);
            return self.column(role, name, Some(&[Kind::Text])).map(|_| true);
        }
        if let Some(found) = self.types.get(name) {
            return Some(kind(found) == Kind::Text);
        }
        let mut available: Vec<&str> = self.types.keys().copied().collect();
        available.truncate(30);
        let sentence = format!(
            "use {name:?}, which is no column of {}; there are: {}",
            self.origin(),
            available.join(", ")
        );
        self.faults.push(("/prompts".into(), sentence));
        None
    }

    fn origin(&self) -> String {
        match (&self.source.query, &self.source.table) {
            (Some(_), _) => "the query".into(),
            (None, table) => format!("the table {:?}", table.as_deref().unwrap_or("posts")),
        }
    }
}
