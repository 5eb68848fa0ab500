//! The statements that read a source. Names are quoted and values are bound; the only text of other people in them is the
//! query of the settings, which `parameters` has found to be one statement with matching parentheses.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres};

use super::layout::Layout;
use super::parameters::{self, Piece};
use super::{SourceError, SourceSettings};

/// A value in a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dataset) enum Parameter {
    Since,
    Until,
    Threshold,
    Impressions,
    /// Posts before the one whose engagement becomes the threshold.
    Offset,
}

impl Parameter {
    /// The parameter of this name in a query of the settings.
    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Since, Self::Until, Self::Threshold].into_iter().find(|parameter| parameter.name() == name)
    }

    /// Its name.
    pub(in crate::dataset) fn name(self) -> &'static str {
        match self {
            Self::Since => "since",
            Self::Until => "until",
            Self::Threshold => "threshold",
            Self::Impressions => "minimum_impressions",
            Self::Offset => "offset",
        }
    }

    fn sql_type(self) -> &'static str {
        match self {
            Self::Since | Self::Until => "timestamptz",
            Self::Threshold => "float8",
            Self::Impressions | Self::Offset => "int8",
        }
    }
}

/// The values of the parameters.
#[derive(Debug, Clone, Copy)]
pub(in crate::dataset) struct Bounds {
    /// Posts from this time on.
    pub(in crate::dataset) since: DateTime<Utc>,
    /// Posts up to this time.
    pub(in crate::dataset) until: DateTime<Utc>,
    /// Whether younger posts are left out; else they are in, should a clock be ahead.
    pub(in crate::dataset) mature: bool,
    /// Posts at or above this engagement.
    pub(in crate::dataset) threshold: f64,
    /// Posts seen so many times; 0 asks for no such column.
    pub(in crate::dataset) impressions: i64,
    /// See [`Parameter::Offset`].
    pub(in crate::dataset) offset: i64,
}

/// A statement, and which value stands for `$1`, `$2`, ….
#[derive(Debug, Clone, Default)]
pub(in crate::dataset) struct Sql {
    pub(in crate::dataset) text: String,
    pub(in crate::dataset) parameters: Vec<Parameter>,
}

impl Sql {
    fn text(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    fn value(mut self, parameter: Parameter) -> Self {
        let index = self.parameters.iter().position(|other| *other == parameter).unwrap_or_else(|| {
            self.parameters.push(parameter);
            self.parameters.len() - 1
        });
        // Writing to a String does not fail.
        let _ = write!(self.text, "(${}::{})", index + 1, parameter.sql_type());
        self
    }

    /// The table or query, as it stands behind FROM.
    pub(super) fn relation(mut self, source: &SourceSettings) -> Result<Self, SourceError> {
        let Some(query) = &source.query else {
            let table = source.table.as_deref().unwrap_or("posts");
            let parts: Vec<String> = table.splitn(2, '.').map(quoted).collect();
            return Ok(self.text(&parts.join(".")).text(" AS source"));
        };
        let pieces = parameters::parse(query).map_err(|error| SourceError::at("/query", error))?;
        self = self.text("(");
        for piece in pieces {
            self = match piece {
                Piece::Text(text) => self.text(text),
                Piece::Value(parameter) => self.value(parameter),
            };
        }
        // On a line of its own, should the query end in a comment.
        Ok(self.text("\n) AS source"))
    }

    fn predicate(self, predicate: &Predicate) -> Self {
        self.text(&predicate.before).value(predicate.value).text(&predicate.after)
    }

    fn all(mut self, predicates: &[Predicate]) -> Self {
        for (index, predicate) in predicates.iter().enumerate() {
            self = self.text(if index == 0 { "" } else { " AND " }).predicate(predicate);
        }
        self
    }

    /// The statement with its values, ready to run.
    pub(in crate::dataset) fn query(&self, bounds: &Bounds) -> Query<'static, Postgres, PgArguments> {
        // Safe: see the head of this file.
        let mut query = sqlx::query(AssertSqlSafe(self.text.clone()));
        for parameter in &self.parameters {
            query = match parameter {
                Parameter::Since => query.bind(bounds.since),
                Parameter::Until => query.bind(bounds.until),
                Parameter::Threshold => query.bind(bounds.threshold),
                Parameter::Impressions => query.bind(bounds.impressions),
                Parameter::Offset => query.bind(bounds.offset),
            };
        }
        query
    }
}

/// A condition on a row with one value in it.
struct Predicate {
    before: String,
    value: Parameter,
    after: String,
}

/// The filters, in the order in which posts are counted as left out by them: old, young, seen too rarely, below the
/// threshold.
fn filters(layout: &Layout, bounds: &Bounds) -> [Option<Predicate>; 4] {
    let predicate =
        |before: String, value, after: &str| Some(Predicate { before, value, after: after.into() });
    let (time, engagement) = (&layout.created_at, &layout.engagement);
    [
        predicate(format!("{time} >= "), Parameter::Since, ""),
        predicate(format!("{time} <= "), Parameter::Until, "").filter(|_| bounds.mature),
        layout
            .impressions
            .as_ref()
            .and_then(|seen| predicate(format!("{seen} >= "), Parameter::Impressions, "")),
        predicate(
            format!("({engagement} >= "),
            Parameter::Threshold,
            &format!(" AND {engagement} <> 'NaN')"),
        ),
    ]
}

/// Counts all posts, then those that each filter leaves out and the ones before let pass, as columns `posts`,
/// `too_old`, `too_young`, `few_impressions`, `below_threshold`.
pub(in crate::dataset) fn counts(
    source: &SourceSettings,
    layout: &Layout,
    bounds: &Bounds,
) -> Result<Sql, SourceError> {
    let names = ["too_old", "too_young", "few_impressions", "below_threshold"];
    let mut sql = Sql::default().text("SELECT count(*) AS posts");
    let mut passed: Vec<Predicate> = Vec::new();
    for (name, filter) in names.into_iter().zip(filters(layout, bounds)) {
        sql = match filter {
            None => sql.text(", 0::int8"),
            Some(filter) => {
                sql = sql.text(", count(*) FILTER (WHERE ").all(&passed);
                sql = sql.text(if passed.is_empty() { "(" } else { " AND (" });
                let sql = sql.predicate(&filter).text(") IS NOT TRUE)");
                passed.push(filter);
                sql
            }
        };
        sql = sql.text(&format!(" AS {name}"));
    }
    sql.text(" FROM ").relation(source)
}

/// The rows that pass all filters, highest engagement first; with `pairs` also those with less engagement.
pub(in crate::dataset) fn rows(
    source: &SourceSettings,
    layout: &Layout,
    bounds: &Bounds,
    pairs: bool,
) -> Result<Sql, SourceError> {
    let [since, until, seen, above] = filters(layout, bounds);
    let filters = [since, until, seen, above.filter(|_| !pairs)];
    let filters: Vec<Predicate> = filters.into_iter().flatten().collect();
    let sql = Sql::default().text("SELECT ").text(&layout.selected.join(", "));
    let sql = sql.text(" FROM ").relation(source)?.text(" WHERE ").all(&filters);
    let Layout { engagement, created_at, id, selected, .. } = layout;
    let rated = if pairs { format!(" AND {engagement} <> 'NaN'") } else { String::new() };
    let sql = sql.text(&rated);
    // Ids should be unique. Where they are not, rows that still tie are the same in all that is read of them.
    let read: Vec<String> = (2..=selected.len()).map(|column| column.to_string()).collect();
    let read = read.join(", ");
    Ok(sql.text(&format!(" ORDER BY {engagement} DESC, {created_at} DESC, {id}, {read}")))
}

/// The engagement of the post in the wanted place, among those at or above the threshold that is bound.
pub(in crate::dataset) fn threshold(
    source: &SourceSettings,
    layout: &Layout,
    bounds: &Bounds,
) -> Result<Sql, SourceError> {
    let filters: Vec<Predicate> = filters(layout, bounds).into_iter().flatten().collect();
    let engagement = &layout.engagement;
    let sql = Sql::default().text(&format!("SELECT {engagement} FROM ")).relation(source)?;
    let sql = sql.text(" WHERE ").all(&filters).text(&format!(" ORDER BY {engagement} DESC OFFSET "));
    Ok(sql.value(Parameter::Offset).text(" LIMIT 1"))
}

/// A name as an identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
