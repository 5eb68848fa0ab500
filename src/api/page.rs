//! Lists a page at a time. A cursor holds the key of the last item of a page and is opaque to callers, so
//! that pages neither skip nor repeat items when others are added meanwhile.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{Object, ObjectBuilder, RefOr, Required, Type};
use utoipa::{IntoParams, ToSchema};

use super::problem::Problem;

/// The query parameters of a list without filters: `Query<PageQuery<K>>`, `params(PageQuery<K>)`. A list with
/// filters has the two fields among its own, in a struct with `deny_unknown_fields`, since serde cannot flatten
/// query strings; `api/audit.rs` is the example.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
pub struct PageQuery<K: DeserializeOwned> {
    /// The most items to return.
    #[serde(default)]
    pub limit: Limit,
    /// Where to go on.
    pub cursor: Option<Cursor<K>>,
}

impl<K: DeserializeOwned> IntoParams for PageQuery<K> {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(Limit::MAX))
            .default(Some(Limit::DEFAULT.into()));
        let parameters: [(_, _, RefOr<Schema>); 2] = [
            ("limit", "The most items to return.", limit.into()),
            (
                "cursor",
                "Where to go on: `next_cursor` of the previous page.",
                Object::with_type(Type::String).into(),
            ),
        ];
        let parameter = |(name, description, schema): (&str, &str, RefOr<Schema>)| {
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Query)
                .required(Required::False)
                .description(Some(description))
                .schema(Some(schema))
                .build()
        };
        parameters.map(parameter).into()
    }
}

/// How many items a page has at most: 1 to 200, 50 unless told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct Limit(u32);

impl Limit {
    const MAX: u32 = 200;
    const DEFAULT: u32 = 50;

    /// How many rows to ask the database for: one more than the page holds, to learn whether there are more.
    #[must_use]
    pub fn rows(self) -> i64 {
        i64::from(self.0) + 1
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(Self::DEFAULT)
    }
}

impl TryFrom<u32> for Limit {
    type Error = String;

    fn try_from(limit: u32) -> Result<Self, String> {
        if (1..=Self::MAX).contains(&limit) {
            return Ok(Self(limit));
        }
        Err(format!("must be between 1 and {}", Self::MAX))
    }
}

/// The key of the last item seen, in the order of the list: hexadecimal JSON. Whoever makes one up gets another
/// page of what they may read anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor<K>(pub K);

impl<'de, K: DeserializeOwned> Deserialize<'de> for Cursor<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = hex::decode(text).ok();
        let key = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        key.map(Self)
            .ok_or_else(|| D::Error::custom("must be `next_cursor` of the previous page of this list"))
    }
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// Send this as `cursor` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// The page made of `rows`, which were read with [`Limit::rows`]. `key` is what the list is ordered by.
    pub fn new<K: Serialize>(
        mut rows: Vec<T>,
        limit: Limit,
        key: impl FnOnce(&T) -> K,
    ) -> Result<Self, Problem> {
        let size = limit.0 as usize;
        let more = rows.len() > size;
        rows.truncate(size);
        let last = rows.last().filter(|_| more);
        let next_cursor = last.map(|item| serde_json::to_vec(&key(item)).map(hex::encode)).transpose();
        let next_cursor = next_cursor.map_err(|error| Problem::internal(&error))?;
        Ok(Self { items: rows, next_cursor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Result<PageQuery<(i64, String)>, String> {
        serde_urlencoded::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_cursor_of_a_full_page_names_its_last_item() {
        let rows = vec![(9, "a".to_owned()), (8, "b".to_owned()), (7, "c".to_owned())];
        let page = Page::new(rows, Limit(2), Clone::clone).unwrap();
        assert_eq!(page.items.len(), 2);
        let next = query(&format!("limit=2&cursor={}", page.next_cursor.unwrap())).unwrap();
        assert_eq!(next.cursor, Some(Cursor((8, "b".to_owned()))));
        assert_eq!((next.limit, next.limit.rows()), (Limit(2), 3));
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        assert_eq!(Page::new(vec![1, 2], Limit(2), |id| *id).unwrap().next_cursor, None);
        assert_eq!(Page::<i64>::new(vec![], Limit(2), |id| *id).unwrap().next_cursor, None);
    }

    #[test]
    fn limits_have_bounds_and_a_default() {
        assert_eq!(query("").unwrap().limit, Limit(50));
        assert_eq!(query("limit=200").unwrap().limit, Limit(200));
        for bad in ["limit=0", "limit=201", "limit=-1", "limit=x", "page=1"] {
            assert!(query(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cursor_of_nothing_is_refused() {
        for bad in ["cursor=xyz", "cursor=7b7d", "cursor="] {
            let error = query(bad).unwrap_err();
            assert!(error.contains("next_cursor"), "{error}");
        }
    }
}
