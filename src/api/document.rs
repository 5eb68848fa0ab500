//! The OpenAPI document: what the endpoint groups say about themselves, and what holds for all of them.

use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{ArrayItems, Schema};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, OpenApi, Ref, RefOr};

use super::problem::{FieldError, Place, ProblemDetails};
use super::responses;

/// The name of the security scheme.
const BEARER: &str = "bearer";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "tuneloop",
        description = "A control plane that keeps a production language model improving by itself.\n\n\
            Every error is `application/problem+json` (RFC 9457) with a stable `type`. Lists are paged by \
            `cursor`. A POST with an `Idempotency-Key` can be sent again safely. Times are RFC 3339 in UTC.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "pipelines", description = "Named slots with one live model each, and how it is improved."),
        (name = "runs", description = "Attempts to produce a better model, and what people ask of them."),
        (name = "datasets", description = "What models were trained on, and where it came from."),
        (name = "trainings", description = "Paid jobs at a provider: events, loss curve, checkpoints, cost."),
        (name = "models", description = "Model versions with their lineage; promotion."),
        (name = "traffic", description = "Who serves how much: revisions, assignment, rollback."),
        (name = "experiments", description = "What was observed of served versions, and what it says."),
        (name = "audit", description = "Who did what to what, when and why."),
        (name = "webhooks", description = "Where notices of what happens are sent, and what became of them."),
        (name = "operations", description = "Health, readiness and metrics, for probes and scrapers."),
    ),
    components(schemas(ProblemDetails, FieldError, Place)),
)]
struct Base;

/// Brings the documents of the open and the guarded routes together.
pub(super) fn assemble(mut open: OpenApi, mut guarded: OpenApi) -> OpenApi {
    for (_, _, operation) in operations(&mut open) {
        operation.security = Some(vec![SecurityRequirement::default()]);
    }
    for (_, method, operation) in operations(&mut guarded) {
        operation.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>(BEARER, [])]);
        add_common_responses(method, operation);
    }
    let mut document = Base::openapi();
    document.merge(open);
    document.merge(guarded);
    let components = document.components.get_or_insert_with(Components::new);
    components.responses.extend(responses::all().map(|(name, response)| (name.to_owned(), response)));
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("tl_…")
        .description(Some("An API key, made by `tuneloop keys create --role operator`."))
        .build();
    components.add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    name_items_of_pages(components);
    document
}

/// Adds the problems that follow from how requests are read and who may send them. What the operation says itself stays.
fn add_common_responses(method: &str, operation: &mut Operation) {
    let body = operation.request_body.is_some();
    let input = body || operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty());
    let common = [
        ("400", "Malformed", body),
        ("401", "Unauthorized", true),
        ("403", "Forbidden", method != "get"),
        ("413", "BodyTooLarge", body),
        ("415", "UnsupportedMediaType", body),
        ("422", "Invalid", input),
        ("500", "Internal", true),
        ("503", "Unavailable", true),
    ];
    for (status, name, _) in common.into_iter().filter(|(_, _, applies)| *applies) {
        let reference = Ref::from_response_name(name);
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| reference.into());
    }
}

/// utoipa writes the item of a generic page out in full. It is a schema by itself, so that the page refers to it, and a
/// generated client has one type for it.
fn name_items_of_pages(components: &mut Components) {
    let names: Vec<String> = components.schemas.keys().cloned().collect();
    for name in names {
        let Some(item) = name.strip_prefix("Page_").filter(|item| components.schemas.contains_key(*item))
        else {
            continue;
        };
        let reference = Ref::from_schema_name(item);
        if let Some(RefOr::T(Schema::Object(page))) = components.schemas.get_mut(&name)
            && let Some(RefOr::T(Schema::Array(items))) = page.properties.get_mut("items")
        {
            items.items = ArrayItems::RefOrSchema(Box::new(reference.into()));
        }
    }
}

/// All operations, with path and method.
fn operations(document: &mut OpenApi) -> impl Iterator<Item = (&str, &'static str, &mut Operation)> {
    document.paths.paths.iter_mut().flat_map(|(path, item)| {
        let PathItem { get, put, post, delete, patch, .. } = item;
        let by_method = [("get", get), ("put", put), ("post", post), ("delete", delete), ("patch", patch)];
        by_method
            .into_iter()
            .filter_map(move |(method, operation)| Some((path.as_str(), method, operation.as_mut()?)))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn each_operation_has_a_tag_that_is_explained_and_an_id_of_its_own() {
        let mut document = super::super::openapi();
        let tags: BTreeSet<String> = document.tags.iter().flatten().map(|tag| tag.name.clone()).collect();
        let mut ids = BTreeSet::new();
        for (path, method, operation) in operations(&mut document) {
            let tag = operation.tags.iter().flatten().next();
            assert!(tag.is_some_and(|tag| tags.contains(tag)), "{method} {path}: {tag:?}");
            assert!(operation.summary.is_some(), "{method} {path} has no summary");
            let id = operation.operation_id.clone().unwrap_or_default();
            assert!(ids.insert(id.clone()), "{method} {path}: the operation id {id} is taken");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = serde_json::to_value(super::super::openapi()).unwrap();
        let mut stack = vec![&document];
        while let Some(value) = stack.pop() {
            match value {
                Value::Object(members) => {
                    if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                        let pointer = reference.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{reference} is missing");
                    }
                    stack.extend(members.values());
                }
                Value::Array(items) => stack.extend(items),
                _ => {}
            }
        }
    }

    #[test]
    fn pages_refer_to_their_items() {
        let document = serde_json::to_value(super::super::openapi()).unwrap();
        let items = &document["components"]["schemas"]["Page_AuditEvent"]["properties"]["items"]["items"];
        assert_eq!(*items, serde_json::json!({ "$ref": "#/components/schemas/AuditEvent" }));
    }

    #[test]
    fn guarded_operations_need_a_key_and_say_so() {
        let document = serde_json::to_value(super::super::openapi()).unwrap();
        let audit = &document["paths"]["/v1/audit"]["get"];
        assert_eq!(audit["security"], serde_json::json!([{ "bearer": [] }]));
        assert_eq!(audit["responses"]["401"]["$ref"], "#/components/responses/Unauthorized");
        assert_eq!(document["paths"]["/healthz"]["get"]["security"], serde_json::json!([{}]));
        assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
        let unauthorized = &document["components"]["responses"]["Unauthorized"]["content"];
        assert!(unauthorized["application/problem+json"]["schema"]["$ref"].is_string());
    }
}
