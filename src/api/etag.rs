//! Versions of resources in HTTP: `ETag` on answers, `If-Match` on changes, so that nobody overwrites what
//! they have not seen.

use std::fmt;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::header::IF_MATCH;
use axum::http::request::Parts;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{ObjectBuilder, Required, Type};

use super::problem::{FieldError, Place, Problem};

/// A strong entity tag made of a resource's version; version 7 is `"7"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ETag(pub i64);

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// A text that is no entity tag of ours.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAnETag;

impl FromStr for ETag {
    type Err = NotAnETag;

    fn from_str(text: &str) -> Result<Self, NotAnETag> {
        let version = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        version.and_then(|version| version.parse().ok()).map(Self).ok_or(NotAnETag)
    }
}

/// The precondition of a change: the header `If-Match`, or that it is absent.
///
/// ```ignore
/// async fn put_traffic(if_match: IfMatch, …) {
///     …                              // lock the row, read its revision
///     if_match.check(revision)?;     // 412 when the caller saw another one
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfMatch(Option<Condition>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    /// `*`: the resource exists, at whatever version.
    Any,
    /// One of these tags. What is not a strong tag of ours matches nothing and is left out.
    OneOf(Vec<ETag>),
}

impl IfMatch {
    /// Refuses the change with 412 when the resource is not at a version that the caller named; `None` is a
    /// resource that does not exist. Without the header there is nothing to check.
    pub fn check(&self, current: impl Into<Option<i64>>) -> Result<(), Problem> {
        let current = current.into();
        let holds = match (&self.0, current) {
            (None, _) | (Some(Condition::Any), Some(_)) => true,
            (Some(Condition::OneOf(tags)), Some(version)) => tags.contains(&ETag(version)),
            (Some(_), None) => false,
        };
        if holds {
            return Ok(());
        }
        let problem = Problem::new(
            StatusCode::PRECONDITION_FAILED,
            "version-changed",
            "The resource is not at the version that was named",
        );
        Err(match current {
            Some(version) => problem
                .detail("Read the resource again, and send its `ETag` as `If-Match`.")
                .member("current_etag", ETag(version).to_string()),
            None => problem.detail("The resource does not exist; leave `If-Match` out to create it."),
        })
    }

    /// Refuses a change without `If-Match` with 428.
    pub fn require(&self) -> Result<&Self, Problem> {
        if self.0.is_some() {
            return Ok(self);
        }
        Err(Problem::new(
            StatusCode::PRECONDITION_REQUIRED,
            "precondition-required",
            "The change must name the version it is based on",
        )
        .detail("Read the resource, and send its `ETag` as `If-Match`."))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut conditions = None;
        for value in parts.headers.get_all(IF_MATCH) {
            let condition = value.to_str().ok().and_then(parse).ok_or_else(|| {
                Problem::invalid([FieldError::new(
                    Place::Header,
                    "If-Match",
                    "must be `*` or entity tags such as `\"7\"`",
                )])
            })?;
            conditions = Some(match (conditions, condition) {
                (Some(Condition::OneOf(mut tags)), Condition::OneOf(more)) => {
                    tags.extend(more);
                    Condition::OneOf(tags)
                }
                (None, condition) => condition,
                (Some(_), _) => Condition::Any,
            });
        }
        Ok(Self(conditions))
    }
}

/// A list of entity tags (RFC 9110, section 8.8.3) or `*`; `None` for anything else. Tags with a comma in them
/// are not ours, and splitting them does no harm beyond a refusal.
fn parse(value: &str) -> Option<Condition> {
    if value.trim() == "*" {
        return Some(Condition::Any);
    }
    let mut tags = Vec::new();
    for tag in value.split(',').map(str::trim) {
        let opaque = tag.strip_prefix("W/").unwrap_or(tag);
        let quoted = opaque.len() >= 2 && opaque.starts_with('"') && opaque.ends_with('"');
        if !quoted {
            return None;
        }
        tags.extend(tag.parse::<ETag>());
    }
    Some(Condition::OneOf(tags))
}

/// Documents the header: `params(IfMatch)`.
impl IntoParams for IfMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let parameter = ParameterBuilder::new()
            .name("If-Match")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(
                "The `ETag` of the version that the change is based on. The change is refused with 412 when \
                 the resource has moved on.",
            ))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String).examples(["\"7\""])));
        vec![parameter.build()]
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::FromRequestParts;
    use axum::http::Request;

    use super::*;

    async fn header(values: &[&str]) -> Result<IfMatch, Problem> {
        let request =
            values.iter().fold(Request::builder(), |request, value| request.header(IF_MATCH, *value));
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        IfMatch::from_request_parts(&mut parts, &()).await
    }

    #[tokio::test]
    async fn a_change_based_on_another_version_is_refused() {
        let if_match = header(&["\"6\", \"7\""]).await.unwrap();
        assert!(if_match.check(7).is_ok());
        assert!(if_match.check(6).is_ok());
        let problem = if_match.check(8).unwrap_err();
        assert_eq!(problem.status(), StatusCode::PRECONDITION_FAILED);
        assert_eq!(problem.details().members["current_etag"], "\"8\"");
        assert_eq!(if_match.check(None).unwrap_err().status(), StatusCode::PRECONDITION_FAILED);
        let two_lines = header(&["\"6\"", "\"7\""]).await.unwrap();
        assert!(two_lines.check(6).is_ok() && two_lines.check(7).is_ok() && two_lines.check(8).is_err());
    }

    #[tokio::test]
    async fn a_star_matches_whatever_exists() {
        let if_match = header(&["*"]).await.unwrap();
        assert!(if_match.check(1).is_ok());
        assert!(if_match.check(None).is_err());
    }

    #[tokio::test]
    async fn weak_and_foreign_tags_match_nothing() {
        for tag in ["W/\"7\"", "\"seven\"", "\"\""] {
            assert!(header(&[tag]).await.unwrap().check(7).is_err(), "{tag}");
        }
    }

    #[tokio::test]
    async fn an_absent_header_passes_the_check_but_not_where_it_is_required() {
        let absent = header(&[]).await.unwrap();
        assert!(absent.check(1).is_ok());
        assert_eq!(absent.require().unwrap_err().status(), StatusCode::PRECONDITION_REQUIRED);
        assert!(header(&["\"1\""]).await.unwrap().require().is_ok());
    }

    #[tokio::test]
    async fn a_tag_without_quotes_is_a_fault_of_the_caller() {
        for value in ["7", "\"7", "", "\"", "\"7\","] {
            let problem = header(&[value]).await.unwrap_err();
            assert_eq!(problem.details().errors[0].field, "If-Match", "{value}");
        }
    }
}
