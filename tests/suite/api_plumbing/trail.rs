//! The audit trail: what is recorded, what is listed, page by page.

use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, StatusCode};
use serde_json::json;
use tuneloop::api::auth::Role;
use tuneloop::audit::{self, Actor, AuditEvent};

use super::service::Service;

#[tokio::test]
async fn text_that_cannot_be_stored_is_a_fault_of_the_caller() {
    let service = Service::start().await;
    let (_, key) = service.key(Role::Operator).await;
    let answer = service.make(&key, "1", &service.thing("a\0b")).await;
    assert_eq!((answer.status, answer.kind()), (StatusCode::UNPROCESSABLE_ENTITY, "unstorable-text"));
    let answer = service.get(&key, "/v1/audit?actor=%00").await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn audit_events_are_recorded_whole_and_never_changed() {
    let service = Service::start().await;
    let (_, key) = service.key(Role::Viewer).await;
    let event = AuditEvent {
        pipeline: Some(&service.name),
        before: Some(json!({ "weight": 0 })),
        after: Some(json!({ "weight": 1000 })),
        reason: Some("ramp"),
        request_id: Some("request-1"),
        ..AuditEvent::new(Actor::Scheduler, "traffic.set", ("traffic", 7))
    };
    let mut tx = service.db.begin().await.unwrap();
    audit::record(&mut tx, event.clone()).await.unwrap();
    tx.rollback().await.unwrap();
    let uri = format!("/v1/audit?pipeline={}", service.name);
    assert_eq!(service.get(&key, &uri).await.body, json!({ "items": [] }));

    audit::record(&mut service.db.acquire().await.unwrap(), event).await.unwrap();
    let mut listed = service.get(&key, &uri).await.body["items"][0].take();
    assert!(listed["id"].take().is_i64() && listed["at"].take().as_str().unwrap().ends_with('Z'));
    let expected = json!({
        "id": null, "at": null, "actor": "scheduler", "action": "traffic.set", "subject_kind": "traffic",
        "subject_id": "7", "pipeline": service.name, "before": { "weight": 0 }, "after": { "weight": 1000 },
        "reason": "ramp", "request_id": "request-1", "trace_id": null,
    });
    assert_eq!(listed, expected);

    for change in
        ["UPDATE audit_events SET reason = ''", "DELETE FROM audit_events", "TRUNCATE audit_events CASCADE"]
    {
        let error = sqlx::query(change).execute(&service.db).await.unwrap_err();
        assert!(error.to_string().contains("append-only"), "{change}: {error}");
    }
}

#[tokio::test]
async fn a_change_by_api_names_its_key() {
    let service = Service::start().await;
    let (_, key) = service.key(Role::Operator).await;
    let request = Request::post("/things")
        .header("authorization", format!("Bearer {key}"))
        .header(CONTENT_TYPE, "application/json")
        .body(serde_json::to_vec(&service.thing("x")).unwrap().into())
        .unwrap();
    service.send(request).await;
    let trail = service.get(&key, &format!("/v1/audit?actor=key:{}&action=thing.make", service.name)).await;
    assert_eq!(trail.body["items"][0]["subject_id"], service.name);
}

#[tokio::test]
async fn pages_neither_skip_nor_repeat_while_events_arrive() {
    let service = Service::start().await;
    let (_, key) = service.key(Role::Viewer).await;
    let record = async |subject: i32| {
        let event = AuditEvent {
            pipeline: Some(&service.name),
            ..AuditEvent::new(Actor::Worker, "run.advance", ("run", subject))
        };
        audit::record(&mut service.db.acquire().await.unwrap(), event).await.unwrap();
    };
    for subject in 1..=5 {
        record(subject).await;
    }
    let base = format!("/v1/audit?limit=2&pipeline={}", service.name);
    let mut uri = base.clone();
    let mut pages = Vec::new();
    loop {
        let page = service.get(&key, &uri).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        let subjects = page.body["items"].as_array().unwrap().iter();
        pages
            .push(subjects.map(|event| event["subject_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>());
        record(99).await;
        let Some(cursor) = page.body["next_cursor"].as_str() else { break };
        uri = format!("{base}&cursor={cursor}");
    }
    assert_eq!(pages, [vec!["5", "4"], vec!["3", "2"], vec!["1"]]);

    for (filter, count) in
        [("subject_kind=run&subject_id=3", 1), ("actor=system", 0), ("action=run.advance", 8)]
    {
        let page = service.get(&key, &format!("/v1/audit?pipeline={}&{filter}", service.name)).await;
        assert_eq!(page.body["items"].as_array().unwrap().len(), count, "{filter}");
    }
    for (bad, field) in [("limit=0", "limit"), ("cursor=x", "cursor"), ("pipelin=hook", "pipelin")] {
        let answer = service.get(&key, &format!("/v1/audit?{bad}")).await;
        assert_eq!((answer.status, answer.kind()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid-request"));
        assert_eq!(answer.body["errors"][0]["field"], field);
    }
}
