//! API keys and what their roles allow.

use axum::body::Body;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{Request, StatusCode};
use tuneloop::api::auth::{Role, revoke_key};
use tuneloop::audit::Actor;

use super::service::Service;

#[tokio::test]
async fn a_key_lets_in_until_it_is_revoked() {
    let service = Service::start().await;
    let (principal, key) = service.key(Role::Operator).await;
    assert!(key.starts_with("tl_") && key.len() == 67, "{key}");
    assert_eq!(service.get(&key, "/v1/audit").await.status, StatusCode::OK);

    let wrong = service.get(&format!("{key}0"), "/v1/audit").await;
    assert_eq!((wrong.status, wrong.kind()), (StatusCode::UNAUTHORIZED, "unauthorized"));
    assert!(wrong.headers[WWW_AUTHENTICATE].to_str().unwrap().contains("invalid_token"));
    let missing = service.send(Request::get("/v1/audit").body(Body::empty()).unwrap()).await;
    assert_eq!(missing.status, StatusCode::UNAUTHORIZED);
    assert_eq!(missing.headers[WWW_AUTHENTICATE], r#"Bearer realm="tuneloop""#);

    let mut conn = service.db.acquire().await.unwrap();
    assert!(revoke_key(&mut conn, principal.key_id, Actor::System).await.unwrap());
    assert!(!revoke_key(&mut conn, principal.key_id, Actor::System).await.unwrap());
    assert_eq!(service.get(&key, "/v1/audit").await.status, StatusCode::UNAUTHORIZED);

    let (_, other) = service.key(Role::Admin).await;
    let trail = service.get(&other, &format!("/v1/audit?subject_id={}", principal.key_id)).await;
    let actions: Vec<_> =
        trail.body["items"].as_array().unwrap().iter().map(|event| &event["action"]).collect();
    assert_eq!(actions, ["api_key.revoke", "api_key.create"]);
}

#[tokio::test]
async fn only_the_hash_of_a_key_is_stored() {
    let service = Service::start().await;
    let (principal, key) = service.key(Role::Viewer).await;
    let query = "SELECT row_to_json(k)::text FROM api_keys k WHERE id = $1 AND hash = sha256($2)";
    let query = sqlx::query_scalar(query).bind(principal.key_id).bind(key.as_bytes());
    let stored: String = query.fetch_one(&service.db).await.unwrap();
    assert!(!stored.contains(&key[3..]), "{stored}");
}

#[tokio::test]
async fn a_viewer_reads_and_changes_nothing() {
    let service = Service::start().await;
    let (_, viewer) = service.key(Role::Viewer).await;
    assert_eq!(service.get(&viewer, "/v1/audit").await.status, StatusCode::OK);
    let refused = service.make(&viewer, "1", &service.thing("x")).await;
    assert_eq!((refused.status, refused.kind()), (StatusCode::FORBIDDEN, "forbidden"));
    assert_eq!(service.effects().await, 0);
    for role in [Role::Operator, Role::Admin] {
        let (_, key) = service.key(role).await;
        assert_eq!(service.make(&key, "1", &service.thing("x")).await.status, StatusCode::CREATED);
    }
}
