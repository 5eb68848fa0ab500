//! Walking through the protocol's lists: `{"data": […], "has_more": …}`, continued with `after`.

use std::collections::HashSet;
use std::future::Future;
use std::ops::ControlFlow;

use serde_json::Value;

use super::errors::Operation;
use super::wire;
use crate::trainers::Result;

/// A list this long is a provider that never ends it.
const MOST_PAGES: usize = 1000;

/// Gives each page of a list to `visit`, until it breaks or the list ends.
///
/// A list that repeats itself or does not end is an error, never a short list: a job that was not found
/// would be created, and paid for, once more.
pub(super) async fn walk<F, Fut>(
    operation: Operation,
    limit: usize,
    mut fetch: F,
    mut visit: impl FnMut(Vec<Value>) -> ControlFlow<()> + Send,
) -> Result<()>
where
    F: FnMut(Option<String>) -> Fut,
    Fut: Future<Output = Result<Value>>,
{
    let mut cursors = HashSet::new();
    let mut after = None;
    for _ in 0..MOST_PAGES {
        let mut page = fetch(after).await?;
        let Some(Value::Array(items)) = page.get_mut("data").map(Value::take) else {
            return Err(operation.malformed("it has no list named data"));
        };
        // Where it does not say, a full page may have more behind it.
        let has_more = page.get("has_more").and_then(Value::as_bool).unwrap_or(items.len() >= limit);
        let Some(last) = items.last() else { return Ok(()) };
        let cursor = wire::text(last, "id");
        if visit(items).is_break() || !has_more {
            return Ok(());
        }
        let Some(cursor) = cursor else {
            return Err(operation.malformed("the last item of a page has no id"));
        };
        if !cursors.insert(cursor.clone()) {
            return Err(operation.malformed(format!("the list comes back to {cursor} again and again")));
        }
        after = Some(cursor);
    }
    Err(operation.malformed(format!("the list has more than {MOST_PAGES} pages")))
}
