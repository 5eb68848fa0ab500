//! Outcomes that are read from the application's own table.

use serde_json::{Value, json};

use crate::harness::service::TestService;

const QUERY: &str =
    "SELECT number AS id, model AS model_id, number AS unit, author AS persona, published_at AS served_at,
                            rate AS engagement_rate, tokens::numeric / 1000000 AS cost
                       FROM app_posts WHERE changed_at >= :since AND published_at < :until";

/// A service beside an application that keeps what it published.
async fn service() -> TestService {
    let service = TestService::start().await;
    // A number as id, a time without a zone, a numeric: as applications have them.
    sqlx::raw_sql(
        "CREATE TABLE app_posts (number bigint PRIMARY KEY, model text, author int, published_at timestamp,
                                 changed_at timestamptz NOT NULL DEFAULT now(), rate real, tokens int)",
    )
    .execute(&service.db)
    .await
    .unwrap();
    service
}

async fn publish(service: &TestService, number: i64, model: &str, age: &str, rate: f64) {
    sqlx::query(
        "INSERT INTO app_posts (number, model, author, published_at, rate, tokens)
         VALUES ($1, $2, $1 % 3, now() AT TIME ZONE 'UTC' - $3::text::interval, $4::float8::real, 350)",
    )
    .bind(number)
    .bind(model)
    .bind(age)
    .bind(rate)
    .execute(&service.db)
    .await
    .unwrap();
}

/// The state of the pull once `wanted` holds of it.
async fn pull(service: &TestService, wanted: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..400 {
        let answer = service.get("/v1/pipelines/hook/outcomes/pull").await;
        if answer.status.is_success() && wanted(&answer.body) {
            return answer.body;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it never came: {:?}", service.get("/v1/pipelines/hook/outcomes/pull").await);
}

#[tokio::test]
async fn rows_are_pulled_once_corrected_when_they_change_and_left_out_with_a_reason() {
    let service = service().await;
    service
        .pipeline("hook", |config| {
            config["outcomes"] =
                json!({"pull": {"query": QUERY, "interval_seconds": 0.2, "maturity_seconds": 1.0}});
        })
        .await;
    // What was served before the pipeline had traffic belongs nowhere.
    publish(&service, 1, "gpt-4o", "1 day", 0.01).await;
    publish(&service, 2, "gpt-4o", "0", 0.25).await;
    publish(&service, 3, "another", "0", 0.5).await;
    pull(&service, |state| state["last"]["duplicates"] == 1 && state["last"]["rejected"] == 2).await;
    let state = pull(&service, |_| true).await;
    let rejections = state["last"]["rejections"].as_array().unwrap();
    let reason = |id: &str| {
        let rejection = rejections.iter().find(|rejection| rejection["id"] == id).unwrap();
        rejection["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason("1"), "served_at is before the pipeline had any traffic");
    assert_eq!(reason("3"), "no version of pipeline hook is the model \"another\"");

    let grown = "UPDATE app_posts SET rate = 0.5, changed_at = now() WHERE number = 2";
    sqlx::query(grown).execute(&service.db).await.unwrap();
    let stored = "SELECT count(*), max(engagement_rate), max(cost), max(persona) FROM outcomes WHERE id = '2'
                   AND corrected_at IS NOT NULL";
    for attempt in 0.. {
        let row: (i64, Option<f64>, Option<f64>, Option<String>) =
            sqlx::query_as(stored).fetch_one(&service.db).await.unwrap();
        if row == (1, Some(0.5), Some(0.000_35), Some("2".to_owned())) {
            break;
        }
        assert!(attempt < 200, "{row:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    // A source that goes away is told of, and taken up again where it was left.
    sqlx::query("ALTER TABLE app_posts RENAME TO elsewhere").execute(&service.db).await.unwrap();
    let state = pull(&service, |state| state["error"].is_string()).await;
    let error = state["error"].as_str().unwrap();
    assert!(error.contains("relation \"app_posts\" does not exist"), "{error}");
    sqlx::query("ALTER TABLE elsewhere RENAME TO app_posts").execute(&service.db).await.unwrap();
    pull(&service, |state| state["error"].is_null() && state["last"]["duplicates"] == 1).await;
    service.end().await;
}

#[tokio::test]
async fn a_query_that_yields_no_outcomes_is_refused_with_its_field() {
    let service = service().await;
    for (pull, field, says) in [
        (json!({"query": "SELECT 1 AS id"}), "/outcomes/pull/query", "must yield a column \"unit\""),
        (
            json!({"query": "SELECT * FROM nowhere"}),
            "/outcomes/pull/query",
            "relation \"nowhere\" does not exist",
        ),
        (
            json!({"query": QUERY.replace("now", "x").replace("rate AS", "author AS likes, rate AS")}),
            "/outcomes/pull/query",
            "a column \"likes\"",
        ),
        (json!({"query": QUERY, "url_env": "NOT_SET"}), "/outcomes/pull/url_env", "NOT_SET"),
        (json!({"query": QUERY, "interval_seconds": 0}), "/outcomes/pull/interval_seconds", "at least 0.05"),
        (
            json!({"query": "DELETE FROM app_posts RETURNING number AS id, model AS model_id, number AS unit, published_at AS served_at"}),
            "/outcomes/pull/query",
            "refused",
        ),
    ] {
        let mut config = crate::harness::service::config();
        config["outcomes"] = json!({"pull": pull});
        let problem = service.put("/v1/pipelines/hook", &[], config).await.problem(422, "invalid-request");
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        assert!(problem["errors"][0]["message"].as_str().unwrap().contains(says), "{problem}");
    }
    service.end().await;
}
