//! Requests that are sent again, one after the other and at once.

use std::time::Duration;

use axum::extract::FromRequest;
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{Request, StatusCode};
use serde_json::json;
use tuneloop::api::auth::{Principal, Role};
use tuneloop::api::idempotency::{self, Begin, Effect, Idempotent, RequestKey};
use tuneloop::api::reply::Reply;

use super::service::{Service, Thing};

#[tokio::test]
async fn a_request_that_is_sent_again_is_answered_again() {
    let service = Service::start().await;
    let (_, key) = service.key(Role::Operator).await;
    let first = service.make(&key, "1", &service.thing("x")).await;
    assert_eq!((first.status, first.replayed()), (StatusCode::CREATED, false));
    let again = service.make(&key, "1", &service.thing("x")).await;
    assert!(again.replayed());
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    for header in [LOCATION, ETAG, CONTENT_TYPE] {
        assert_eq!(again.headers[&header], first.headers[&header]);
    }
    assert_eq!(service.effects().await, 1);

    let other_body = service.make(&key, "1", &service.thing("y")).await;
    assert_eq!(other_body.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other_body.kind(), "idempotency-key-reused");
    let (_, other_key) = service.key(Role::Operator).await;
    for answer in [
        service.make(&key, "2", &service.thing("x")).await,
        service.make(&other_key, "1", &service.thing("x")).await,
    ] {
        assert_eq!((answer.status, answer.replayed()), (StatusCode::CREATED, false));
    }
    assert_eq!(service.effects().await, 3);
}

#[tokio::test]
async fn an_error_is_not_stored() {
    let service = Service::start().await;
    let (principal, key) = service.key(Role::Operator).await;
    for _ in 0..2 {
        let refused = service.make(&key, "1", &service.thing("refuse")).await;
        assert_eq!((refused.kind(), refused.replayed()), ("refused", false));
    }
    let stored = "SELECT count(*) FROM idempotency_keys WHERE api_key_id = $1";
    let stored: i64 = sqlx::query_scalar(stored).bind(principal.key_id).fetch_one(&service.db).await.unwrap();
    assert_eq!((stored, service.effects().await), (0, 0));
    assert_eq!(service.make(&key, "1", &service.thing("x")).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn without_a_key_each_request_is_done() {
    let service = Service::start().await;
    let (_, key) = service.key(Role::Operator).await;
    for _ in 0..2 {
        let request = Request::post("/things")
            .header("authorization", format!("Bearer {key}"))
            .header(CONTENT_TYPE, "application/json");
        let body = serde_json::to_vec(&service.thing("x")).unwrap();
        assert_eq!(service.send(request.body(body.into()).unwrap()).await.status, StatusCode::CREATED);
    }
    assert_eq!(service.effects().await, 2);
}

async fn request_key(idempotency_key: &str, body: &Thing) -> RequestKey {
    let request = Request::post("/things")
        .header("idempotency-key", idempotency_key)
        .header(CONTENT_TYPE, "application/json")
        .body(serde_json::to_vec(body).unwrap().into())
        .unwrap();
    Idempotent::<Thing>::from_request(request, &()).await.unwrap().key
}

async fn begin(service: &Service, principal: &Principal, key: &RequestKey) -> Effect {
    let begin = idempotency::begin(&service.db, principal, key).await.unwrap();
    if let Begin::Fresh(effect) = begin { Some(effect) } else { None }.expect("the request is fresh")
}

/// Ends when another session waits for the one of `effect`.
async fn until_another_waits(service: &Service, effect: &mut Effect) {
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut **effect).await.unwrap();
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid)))";
    tokio::time::timeout(Duration::from_secs(20), async {
        while !sqlx::query_scalar::<_, bool>(waits).bind(pid).fetch_one(&service.db).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the second request must wait for the first");
}

#[tokio::test]
async fn a_concurrent_request_waits_and_gets_the_reply_of_the_first() {
    let service = Service::start().await;
    let (principal, key) = service.key(Role::Operator).await;
    let thing = service.thing("x");
    let mut first = begin(&service, &principal, &request_key("1", &thing).await).await;
    let finish_first = async {
        until_another_waits(&service, &mut first).await;
        first.commit(Reply::ok("from the first")).await.unwrap();
    };
    let (second, ()) = tokio::join!(service.make(&key, "1", &thing), finish_first);
    assert!(second.replayed());
    assert_eq!((second.status, second.body), (StatusCode::OK, json!("from the first")));
    assert_eq!(service.effects().await, 0);
}

#[tokio::test]
async fn a_concurrent_request_does_the_work_when_the_first_fails() {
    let service = Service::start().await;
    let (principal, key) = service.key(Role::Operator).await;
    let thing = service.thing("x");
    let mut first = begin(&service, &principal, &request_key("1", &thing).await).await;
    let fail_first = async {
        until_another_waits(&service, &mut first).await;
        drop(first);
    };
    let (second, ()) = tokio::join!(service.make(&key, "1", &thing), fail_first);
    assert_eq!((second.status, second.replayed()), (StatusCode::CREATED, false));
    assert_eq!(service.effects().await, 1);
}

#[tokio::test]
async fn of_many_requests_at_once_one_is_done() {
    let service = Service::start().await;
    let (_, key) = service.key(Role::Operator).await;
    let thing = service.thing("x");
    let answers = futures_util::future::join_all((0..8).map(|_| service.make(&key, "1", &thing))).await;
    assert_eq!(answers.iter().filter(|answer| !answer.replayed()).count(), 1);
    assert!(
        answers.iter().all(|answer| answer.status == StatusCode::CREATED && answer.body == answers[0].body)
    );
    assert_eq!(service.effects().await, 1);
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day() {
    let service = Service::start().await;
    let (principal, key) = service.key(Role::Operator).await;
    let age = async |hours: i32, idempotency_key: &str| {
        let age = "UPDATE idempotency_keys SET created_at = now() - make_interval(hours => $1)
                    WHERE api_key_id = $2 AND key = $3";
        let age = sqlx::query(age).bind(hours).bind(principal.key_id).bind(idempotency_key);
        assert_eq!(age.execute(&service.db).await.unwrap().rows_affected(), 1);
    };
    service.make(&key, "1", &service.thing("x")).await;
    age(23, "1").await;
    assert!(service.make(&key, "1", &service.thing("x")).await.replayed());
    age(25, "1").await;
    let anew = service.make(&key, "1", &service.thing("other")).await;
    assert_eq!((anew.status, anew.replayed()), (StatusCode::CREATED, false));
    assert!(service.make(&key, "1", &service.thing("other")).await.replayed());

    service.make(&key, "2", &service.thing("x")).await;
    age(25, "2").await;
    assert!(idempotency::expire(&service.db).await.unwrap() >= 1);
    let left = "SELECT key FROM idempotency_keys WHERE api_key_id = $1";
    let left: Vec<String> =
        sqlx::query_scalar(left).bind(principal.key_id).fetch_all(&service.db).await.unwrap();
    assert_eq!(left, ["1"]);
}
