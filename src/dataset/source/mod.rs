//! Where posts come from: a table or a read-only query, in the service's database or in another.
//!
//! Either is a *relation* (`"public"."posts"`, `(SELECT …)`), to which the filters of the settings are applied alike.

mod access;
mod check;
mod layout;
mod outcomes;
mod parameters;
mod sql;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

pub use access::{Lookup, Sources};
pub(super) use check::refused;
pub(super) use layout::{ID, LEADING, Layout};
pub use outcomes::OutcomeQuery;
pub(super) use sql::{Bounds, Parameter, Sql, counts, rows, threshold};

/// Where the posts come from, and what the columns are called there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SourceSettings {
    /// The environment variable that holds the URL of the source's Postgres database; absent for the service's own.
    /// The variable must be set where the API and where the workers run; its value is never stored or shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "ANALYTICS_DATABASE_URL")]
    pub url_env: Option<String>,
    /// The table or view, such as `posts` or `public.posts`. `posts` where neither this nor `query` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// One `SELECT` in place of a table, which may use the parameters `:since`, `:until` and `:threshold`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "SELECT * FROM posts WHERE created_at >= :since AND language = 'en'")]
    pub query: Option<String>,
    /// What the columns are called.
    pub columns: Columns,
    /// The column that says which posts belong together, such as versions of one story: a group is trained on or
    /// validated with as a whole. The persona where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "story_id")]
    pub group_column: Option<String>,
    /// How long one statement may take, in seconds.
    #[schema(minimum = 1, maximum = 86_400)]
    pub timeout_seconds: u32,
}

impl Default for SourceSettings {
    fn default() -> Self {
        Self {
            url_env: None,
            table: None,
            query: None,
            columns: Columns::default(),
            group_column: None,
            timeout_seconds: 600,
        }
    }
}

/// What the columns of a source are called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Columns {
    /// Tells posts of equal engagement and time apart, so that their order is always the same.
    pub id: String,
    /// How much people engaged: any number.
    pub engagement: String,
    /// When the post was published: a timestamp, taken as UTC where it has no time zone.
    pub created_at: String,
    /// Who wrote it. Needed for `maximum_per_persona`.
    pub persona: String,
    /// How often it was seen. Needed for `minimum_impressions`.
    pub impressions: String,
    /// What the author asked for; the text of the template `hook`.
    pub original_input: String,
    /// The headline; the text of the templates `hook` and `body`.
    pub hook: String,
    /// The text; of the template `body`.
    pub body: String,
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            id: "id".into(),
            engagement: "engagement_rate".into(),
            created_at: "created_at".into(),
            persona: "persona_id".into(),
            impressions: "impressions".into(),
            original_input: "original_input".into(),
            hook: "hook".into(),
            body: "body".into(),
        }
    }
}

/// Why a source cannot be read.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The settings do not fit the source: fields as JSON pointers below the dataset's settings, and sentences.
    #[error("the source does not fit its settings: {}", sentences(.0))]
    Unusable(Vec<(String, String)>),
    /// Another database did not answer.
    #[error("the database whose URL is in {variable} does not answer")]
    Unreachable {
        /// The variable.
        variable: String,
    },
    /// The database did not answer as it should.
    #[error("the source's database did not answer as it should: {0}")]
    Database(#[from] sqlx::Error),
}

impl SourceError {
    pub(super) fn at(field: &str, sentence: impl Into<String>) -> Self {
        Self::Unusable(vec![(format!("/source{field}"), sentence.into())])
    }
}

fn sentences(faults: &[(String, String)]) -> String {
    let each: Vec<String> = faults.iter().map(|(field, fault)| format!("{field} {fault}")).collect();
    each.join("; ")
}

impl SourceSettings {
    /// What is wrong, as far as it can be told without the source.
    pub(super) fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |field: &str, sentence: String| faults.push((field.to_owned(), sentence));
        if self.table.is_some() && self.query.is_some() {
            fault("/query", "must be left out where a table is named, or the other way round".into());
        }
        if let Some(Err(error)) = self.query.as_deref().map(parameters::parse) {
            fault("/query", error);
        }
        if let Some(table) = &self.table
            && !table.split('.').all(valid_identifier)
        {
            fault("/table", "must be the name of a table, with its schema in front where need be".into());
        }
        if let Some(variable) = &self.url_env
            && !valid_variable(variable)
        {
            fault("/url_env", "must be the name of an environment variable: A-Z, 0-9 and _".into());
        }
        for (role, column) in self.columns.all() {
            if !valid_identifier(column) {
                fault(&format!("/columns/{role}"), "must be the name of a column".into());
            }
        }
        if self.group_column.as_deref().is_some_and(|column| !valid_identifier(column)) {
            fault("/group_column", "must be the name of a column".into());
        }
        if !(1..=86_400).contains(&self.timeout_seconds) {
            fault("/timeout_seconds", "must be between 1 and 86400".into());
        }
        faults
    }
}

impl Columns {
    fn all(&self) -> [(&'static str, &str); 8] {
        [
            ("id", &self.id),
            ("engagement", &self.engagement),
            ("created_at", &self.created_at),
            ("persona", &self.persona),
            ("impressions", &self.impressions),
            ("original_input", &self.original_input),
            ("hook", &self.hook),
            ("body", &self.body),
        ]
    }
}

/// What Postgres takes as an identifier when quoted.
fn valid_identifier(name: &str) -> bool {
    (1..=63).contains(&name.len()) && !name.contains('\0')
}

fn valid_variable(name: &str) -> bool {
    let letter = |c: u8| c.is_ascii_uppercase() || c == b'_';
    name.len() <= 128
        && name.bytes().next().is_some_and(letter)
        && name.bytes().all(|c| letter(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_without_the_source_is_told_by_field() {
        let fields = |settings: serde_json::Value| -> Vec<String> {
            let settings: SourceSettings = serde_json::from_value(settings).unwrap();
            settings.faults().into_iter().map(|(field, _)| field).collect()
        };
        assert!(fields(json!({})).is_empty());
        assert!(fields(json!({"table": "shop.Posts 2", "url_env": "SHOP_URL_2"})).is_empty());
        assert_eq!(fields(json!({"table": "posts", "query": "SELECT 1"})), ["/query"]);
        assert_eq!(fields(json!({"query": "SELECT :sicne"})), ["/query"]);
        assert_eq!(fields(json!({"table": "shop."})), ["/table"]);
        assert_eq!(fields(json!({"url_env": "postgres://me:pw@host/db"})), ["/url_env"]);
        assert_eq!(
            fields(json!({"columns": {"id": "", "hook": "x\u{0}"}, "timeout_seconds": 0})),
            ["/columns/id", "/columns/hook", "/timeout_seconds"]
        );
    }
}
