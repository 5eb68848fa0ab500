//! Reading requests: JSON bodies and query strings, with the real service's complaints.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::errors::ApiError;

/// A JSON body. Unlike axum's `Json` it asks for no content type, as the real service.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| {
            ApiError::bad(format!("We could not parse the JSON body of your request: {error}."))
        })?;
        serde_path_to_error::deserialize(value).map(JsonBody).map_err(|error| {
            let (field, why) = (error.path().to_string(), error.inner());
            match field.as_str() {
                "." => ApiError::bad(format!("Invalid body: {why}.")),
                _ => ApiError::bad(format!("Invalid '{field}': {why}.")).param(field),
            }
        })
    }
}

/// The identifier in an address.
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Path::from_request_parts(parts, state)
            .await
            .map(|Path(id)| Self(id))
            .map_err(|error| ApiError::bad(error.body_text()))
    }
}

/// The pairs of a query string, in order.
pub(super) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(pairs)| Self(pairs))
            .map_err(|error| ApiError::bad(error.body_text()))
    }
}

impl Params {
    /// The value of `name`, if it is given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The pairs `k = v` of the parameters `name[k]=v`.
    pub(super) fn map<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |(key, value)| {
            let key = key.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?;
            Some((key, value.as_str()))
        })
    }

    /// Cuts the page out of `items` that the parameters `after` and `limit` ask for, and tells whether more
    /// follow. `maximum` is the largest `limit`, where the specification names one.
    pub(super) fn page<T>(
        &self,
        items: Vec<T>,
        id: impl Fn(&T) -> &str,
        default: usize,
        maximum: Option<usize>,
    ) -> Result<(Vec<T>, bool), ApiError> {
        let limit = self.limit(default, maximum)?;
        let start = match self.get("after") {
            None => 0,
            Some(after) => {
                items.iter().position(|item| id(item) == after).map(|at| at + 1).ok_or_else(|| {
                    ApiError::bad(format!("Invalid 'after': '{after}' is not in this list.")).param("after")
                })?
            }
        };
        let mut page: Vec<T> = items.into_iter().skip(start).collect();
        let more = page.len() > limit;
        page.truncate(limit);
        Ok((page, more))
    }

    fn limit(&self, default: usize, maximum: Option<usize>) -> Result<usize, ApiError> {
        let Some(text) = self.get("limit") else { return Ok(default) };
        let error = |message: &str| ApiError::bad(format!("Invalid 'limit': {message}.")).param("limit");
        let limit: usize = text.parse().map_err(|_| error("expected a whole number of at least 1"))?;
        if limit == 0 {
            return Err(error("expected a value >= 1").code("integer_below_min_value"));
        }
        match maximum {
            Some(maximum) if limit > maximum => {
                Err(error(&format!("expected a value <= {maximum}")).code("integer_above_max_value"))
            }
            _ => Ok(limit),
        }
    }
}
