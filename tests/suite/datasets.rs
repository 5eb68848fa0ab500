//! Datasets: where posts come from, which become examples, what is kept and shown of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tuneloop::clock::Clock;
use tuneloop::dataset::{self, DatasetError, DatasetSettings, DatasetStore, Snapshot, Sources};

use crate::harness::database::{TestDatabase, fresh_database};
use crate::harness::service::{TestService, config};

const PATH: &str = "/v1/pipelines/hook";

/// A service on which no training ends while a test looks at the dataset.
pub(crate) async fn service() -> TestService {
    TestService::with_training_time(Duration::from_hours(1)).await
}

/// Runs the pipeline until its dataset has been judged, and returns the run's dataset.
pub(crate) async fn dataset(service: &TestService, pipeline: &str, settings: Value) -> Value {
    let whole = |config: &mut Value| {
        config["dataset"].as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    };
    service.pipeline(pipeline, whole).await;
    let run = service.trigger(pipeline).await;
    let run = service
        .wait_for(&run, "past preflight", |run| {
            run["step"] != "collect" && run["step"] != "preflight" || run.get("finished_at").is_some()
        })
        .await;
    assert!(run.get("dataset").is_some(), "{run:#}");
    run["dataset"].clone()
}

async fn content(service: &TestService, dataset: &Value) -> String {
    let digest = dataset["digest"].as_str().unwrap();
    let text = service.text(&format!("/v1/datasets/{digest}/content"), &[]).await;
    assert_eq!(hex::encode(Sha256::digest(&text)), digest);
    text
}

pub(crate) async fn execute(service: &TestService, statement: &'static str) {
    sqlx::raw_sql(statement).execute(&service.db).await.unwrap();
}

async fn faults(service: &TestService, settings: Value) -> Vec<(String, String)> {
    let mut config = config();
    config["dataset"] = settings;
    let problem = service.put(PATH, &[], config).await.problem(422, "invalid-request");
    let text = |fault: &Value, part: &str| fault[part].as_str().unwrap().to_owned();
    let errors = problem["errors"].as_array().unwrap();
    errors.iter().map(|fault| (text(fault, "field"), text(fault, "message"))).collect()
}

#[tokio::test]
async fn each_filter_leaves_out_and_counts_its_posts() {
    let service = service().await;
    execute(
        &service,
        "ALTER TABLE posts ADD COLUMN impressions integer;
         INSERT INTO posts (persona_id, original_input, hook, engagement_rate, impressions, created_at)
         SELECT CASE WHEN n <= 15 THEN 'a' ELSE 'b' || n END, 'i' || n, 'h' || n, 0.5 - n / 1000.0, 1000,
                now() - interval '2 days' FROM generate_series(1, 40) n;
         INSERT INTO posts (hook, engagement_rate, impressions, created_at) VALUES
             ('old', 0.9, 1000, now() - interval '9 days'), ('young', 0.9, 1000, now()),
             ('unseen', 0.9, 10, now() - interval '2 days'), ('unknown', 0.9, NULL, now() - interval '2 days'),
             ('low', 0.01, 1000, now() - interval '2 days'), ('none', NULL, 1000, now() - interval '2 days'),
             ('nan', 'NaN', 1000, now() - interval '2 days'), ('', 0.9, 1000, now() - interval '2 days'),
             (NULL, 0.9, 1000, now() - interval '2 days')",
    )
    .await;
    let settings = json!({
        "minimum_examples": 10, "maturity_seconds": 3600, "minimum_impressions": 100, "maximum_per_persona": 5,
        "maximum_examples": 12,
    });
    let found = dataset(&service, "hook", settings).await;
    let expected = json!({
        "posts": 49, "too_old": 1, "too_young": 1, "few_impressions": 2, "below_threshold": 3, "empty": 2,
        "over_persona": 10, "over_maximum": 18, "examples": 12,
    });
    for (stage, count) in expected.as_object().unwrap() {
        assert_eq!(&found["counts"][stage], count, "{stage}: {found:#}");
    }
    let hooks: Vec<String> = content(&service, &found)
        .await
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["messages"][1]["content"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let expected: Vec<String> = (1..=5).chain(16..=22).map(|n| format!("h{n}")).collect();
    assert_eq!(hooks, expected, "the highest engagement comes first");
    service.end().await;
}

#[tokio::test]
async fn a_dynamic_threshold_gives_the_wanted_number_and_not_below_its_floor() {
    let service = service().await;
    execute(
        &service,
        "INSERT INTO posts (original_input, hook, engagement_rate)
         SELECT 'i' || n, 'h' || n, n / 1000.0 FROM generate_series(1, 100) n",
    )
    .await;
    let with = |floor: f64| json!({"minimum_examples": 10, "dynamic_threshold": {"target_examples": 30, "floor": floor}});
    let found = dataset(&service, "hook", with(0.0)).await;
    assert_eq!(found["counts"]["examples"], 30);
    let digest = found["digest"].as_str().unwrap();
    let manifest = service.read(&format!("/v1/datasets/{digest}")).await["manifest"].take();
    assert_eq!(manifest["threshold"], 0.071);
    let found = dataset(&service, "floor", with(0.08)).await;
    assert_eq!(found["counts"]["examples"], 21);
    service.end().await;
}

#[tokio::test]
async fn own_templates_make_the_messages_and_equal_posts_make_equal_bytes() {
    let service = service().await;
    service.posts(15, 0.08).await;
    let settings = json!({
        "minimum_examples": 10,
        "prompts": {
            "system": "You write for {{ persona_id }}.", "user": "{{ original_input | upper }}", "assistant": "{{ hook }}!",
        },
    });
    let found = dataset(&service, "hook", settings.clone()).await;
    let text = content(&service, &found).await;
    assert_eq!(
        text.lines().next().unwrap(),
        r#"{"messages":[{"role":"system","content":"You write for persona-1."},{"role":"user","content":"INPUT 1 OF 0.08"},{"role":"assistant","content":"hook 1 of 0.08!"}]}"#
    );
    let again = dataset(&service, "again", settings).await;
    assert_eq!(again["digest"], found["digest"]);
    service.end().await;
}

#[tokio::test]
async fn a_table_with_other_names_is_read_by_its_mapping() {
    let service = service().await;
    execute(
        &service,
        "CREATE SCHEMA shop;
         CREATE TABLE shop.\"Tweets; DROP TABLE posts\" (
             key text, \"Likes\" integer, published timestamp, who uuid, ask varchar(80), title text);
         INSERT INTO shop.\"Tweets; DROP TABLE posts\"
         SELECT 'k' || n, n, now() AT TIME ZONE 'UTC', gen_random_uuid(), 'ask ' || n, 'title ' || n
           FROM generate_series(1, 30) n",
    )
    .await;
    let settings = json!({
        "minimum_examples": 10, "engagement_threshold": 11, "maximum_per_persona": 1,
        "source": {
            "table": "shop.Tweets; DROP TABLE posts",
            "columns": {"id": "key", "engagement": "Likes", "created_at": "published", "persona": "who",
                        "original_input": "ask", "hook": "title"},
        },
    });
    let found = dataset(&service, "hook", settings).await;
    assert_eq!((&found["counts"]["posts"], &found["counts"]["examples"]), (&json!(30), &json!(20)));
    assert!(content(&service, &found).await.starts_with(
        r#"{"messages":[{"role":"user","content":"ask 30"},{"role":"assistant","content":"title 30"}]}"#
    ));
    service.end().await;
}

#[tokio::test]
async fn a_query_is_read_with_its_parameters_and_its_rows_are_filtered_alike() {
    let service = service().await;
    service.posts(30, 0.08).await;
    service.posts(5, 0.01).await;
    let query = "SELECT id AS key, created_at, engagement_rate::numeric AS rate, hook, ARRAY[1, 2] AS numbers
                   FROM posts -- :nothing, ';'
                  WHERE created_at >= :since AND created_at <= :until AND engagement_rate >= :threshold AND id % 2 = 0; ";
    let settings = json!({
        "minimum_examples": 10,
        "source": {"query": query, "columns": {"id": "key", "engagement": "rate"}},
        "prompts": {"user": "{{ numbers | join('+') }}", "assistant": "{{ hook }} {{ rate }}"},
    });
    let found = dataset(&service, "hook", settings).await;
    assert_eq!((&found["counts"]["posts"], &found["counts"]["examples"]), (&json!(15), &json!(15)));
    let text = content(&service, &found).await;
    assert!(text.contains(r#""content":"1+2""#) && text.contains("hook 2 of 0.08 0.08"), "{text}");
    let digest = found["digest"].as_str().unwrap();
    let manifest = service.read(&format!("/v1/datasets/{digest}")).await["manifest"].take();
    assert!(manifest["query"].as_str().unwrap().contains("created_at >= ($"), "{manifest:#}");
    assert!(manifest["parameters"][0]["since"].is_string(), "{manifest:#}");
    service.end().await;
}

#[tokio::test]
async fn a_source_that_does_not_fit_is_refused_by_field_when_the_pipeline_is_saved() {
    let service = service().await;
    execute(
        &service,
        "CREATE FUNCTION writes() RETURNS integer LANGUAGE sql AS 'INSERT INTO posts (hook) VALUES (''x'') RETURNING 1'",
    )
    .await;
    for (settings, field, part) in [
        (json!({"source": {"table": "tweets"}}), "/source/table", "does not exist"),
        (json!({"source": {"table": "nowhere.posts"}}), "/source/table", "does not exist"),
        (json!({"source": {"columns": {"hook": "headline"}}}), "/source/columns/hook", "\"headline\""),
        (
            json!({"source": {"columns": {"engagement": "body"}}}),
            "/source/columns/engagement",
            "TEXT and not a number",
        ),
        (
            json!({"source": {"columns": {"created_at": "id"}}}),
            "/source/columns/created_at",
            "not a timestamp",
        ),
        (json!({"source": {"columns": {"hook": "id"}}}), "/source/columns/hook", "not text"),
        (json!({"minimum_impressions": 5}), "/source/columns/impressions", "does not have"),
        (
            json!({"maximum_per_persona": 5, "source": {"columns": {"persona": "who"}}}),
            "/source/columns/persona",
            "\"who\"",
        ),
        (json!({"source": {"query": "SELEC * FROM posts"}}), "/source/query", "syntax error"),
        (json!({"source": {"query": "SELECT * FROM posts; SELECT 1"}}), "/source/query", "one statement"),
        (json!({"source": {"query": "SELECT * FROM posts FOR UPDATE"}}), "/source/query", "only read"),
        (
            json!({"source": {"query": "DELETE FROM posts RETURNING *"}}),
            "/source/query",
            "refused by the database",
        ),
        (
            json!({"source": {"query": "WITH gone AS (DELETE FROM posts RETURNING *) SELECT * FROM gone"}}),
            "/source/query",
            "refused by the database",
        ),
        (json!({"source": {"query": "SELECT id FROM posts WHERE id > :last"}}), "/source/query", ":last"),
        (
            json!({"source": {"query": "SELECT id, created_at FROM posts"}}),
            "/source/columns/engagement",
            "the query does not have",
        ),
        (json!({"source": {"url_env": "NOT_SET_ANYWHERE"}}), "/source/url_env", "NOT_SET_ANYWHERE"),
        (json!({"prompts": {"user": "{{ hook", "assistant": "x"}}), "/prompts/user", "line 1, column"),
        (json!({"prompts": {"user": "{{ headline }}", "assistant": "x"}}), "/prompts", "\"headline\""),
    ] {
        let mut whole = json!({"minimum_examples": 10});
        whole.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let found = faults(&service, whole).await;
        assert!(
            found.iter().any(|(at, sentence)| *at == format!("/dataset{field}") && sentence.contains(part)),
            "{settings} must be refused at {field} for {part:?}: {found:?}"
        );
    }
    service.get(PATH).await.problem(404, "not-found");

    // A function that writes shows only when it is called, and then it cannot.
    service.posts(20, 0.08).await;
    let query = "SELECT *, writes() AS written FROM posts WHERE writes() = 1";
    service.pipeline("hook", |config| config["dataset"]["source"] = json!({"query": query})).await;
    let run = service.trigger("hook").await;
    let run = service.wait_until(&run, "failed").await;
    assert_eq!(run["reason_code"], "source_unusable");
    assert!(run["reason"].as_str().unwrap().contains("read-only"), "{run:#}");
    let posts: i64 = sqlx::query_scalar("SELECT count(*) FROM posts").fetch_one(&service.db).await.unwrap();
    assert_eq!(posts, 20, "nothing was written");
    service.end().await;
}

#[tokio::test]
async fn another_database_is_reached_by_the_variable_that_holds_its_url() {
    let service = service().await;
    let other = fresh_database().await;
    sqlx::query(
        "INSERT INTO posts (original_input, hook, engagement_rate)
         SELECT 'i' || n, 'other ' || n, 0.09 FROM generate_series(1, 12) n",
    )
    .execute(&other.pool)
    .await
    .unwrap();
    let settings = json!({"minimum_examples": 10, "source": {"url_env": "SHOP_DATABASE_URL"}});
    let set = |url: &str| {
        service.variables.lock().unwrap().insert("SHOP_DATABASE_URL".into(), url.to_owned());
    };
    for (url, part) in [
        ("sk-secret", "does not hold the URL of a Postgres database"),
        ("postgres://me:sk-secret@127.0.0.1:1/shop", "does not answer"),
    ] {
        set(url);
        let found = faults(&service, settings.clone()).await;
        assert_eq!(found[0].0, "/dataset/source/url_env");
        assert!(found[0].1.contains(part) && !found[0].1.contains("secret"), "{found:?}");
    }
    set(&other.url);
    let found = dataset(&service, "hook", settings).await;
    assert!(content(&service, &found).await.contains("other 12"));
    let shown = service.read(PATH).await.to_string();
    assert!(shown.contains("SHOP_DATABASE_URL") && !shown.contains("postgres://"), "{shown}");
    service.end().await;
}

#[tokio::test]
async fn a_dataset_is_shown_paged_and_downloaded() {
    let service = service().await;
    service.posts(25, 0.08).await;
    let found = dataset(&service, "hook", json!({"minimum_examples": 10})).await;
    let digest = found["digest"].as_str().unwrap();
    let path = format!("/v1/datasets/{digest}");
    let shown = service.read(&path).await;
    assert_eq!(
        (&shown["digest"], &shown["pipeline"], &shown["examples"]),
        (&json!(digest), &json!("hook"), &json!(25))
    );
    assert_eq!(shown["manifest"]["schema_version"], 2);
    assert!(shown["manifest"]["oldest_post"].is_string() && shown["manifest"]["newest_post"].is_string());

    let text = content(&service, &found).await;
    let expected: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (mut cursor, mut items) = (String::new(), Vec::new());
    loop {
        let page = service.read(&format!("{path}/examples?limit=10{cursor}")).await;
        items.extend(page["items"].as_array().unwrap().clone());
        match page.get("next_cursor") {
            Some(next) => cursor = format!("&cursor={}", next.as_str().unwrap()),
            None => break,
        }
    }
    assert_eq!(items.len(), 25);
    for (index, (item, expected)) in items.iter().zip(expected).enumerate() {
        assert_eq!((&item["line"], &item["messages"]), (&json!(index + 1), &expected["messages"]));
    }
    let made_up = hex::encode("[3,7]");
    service.get(&format!("{path}/examples?cursor={made_up}")).await.problem(422, "invalid-request");
    let unknown = "0".repeat(64);
    for rest in ["", "/examples", "/content"] {
        service.get(&format!("/v1/datasets/{unknown}{rest}")).await.problem(404, "not-found");
    }
    service.end().await;
}

#[tokio::test]
async fn texts_are_cleaned_and_what_is_left_out_for_it_is_counted() {
    let service = service().await;
    execute(
        &service,
        "INSERT INTO posts (original_input, hook, engagement_rate)
         SELECT 'about ' || n, 'a hook with its very own number ' || n, 0.07 FROM generate_series(1, 12) n;
         INSERT INTO posts (original_input, hook, engagement_rate) VALUES
             ('<p>Cats &amp; dogs</p>', E'They <b>met</b>\\u200b  here: write to ann@example.com', 0.5),
             ('cats & DOGS', 'They met here: write to bob@example.com', 0.4),
             ('short', 'ab', 0.3), ('markup', '<br>', 0.2)",
    )
    .await;
    let settings = json!({"minimum_examples": 10, "cleaning": {"minimum_characters": 3}});
    let found = dataset(&service, "hook", settings).await;
    for (stage, count) in [("duplicates", 1), ("too_short", 1), ("empty", 1), ("examples", 13)] {
        assert_eq!(found["counts"][stage], count, "{stage}: {found:#}");
    }
    let text = content(&service, &found).await;
    let first = r#"{"messages":[{"role":"user","content":"Cats & dogs"},{"role":"assistant","content":"They met here: write to [EMAIL]"}]}"#;
    assert_eq!(text.lines().next().unwrap(), first);
    let digest = found["digest"].as_str().unwrap();
    let manifest = service.read(&format!("/v1/datasets/{digest}")).await["manifest"].take();
    assert_eq!(
        (&manifest["cleaning"]["findings"]["email"], &manifest["cleaning"]["html"]),
        (&json!(2), &json!(2))
    );

    let settings = json!({"minimum_examples": 10, "cleaning": {"personal_data": "drop"}});
    let found = dataset(&service, "drop", settings).await;
    assert_eq!((&found["counts"]["personal_data"], &found["counts"]["examples"]), (&json!(2), &json!(13)));
    service.end().await;
}

#[tokio::test]
async fn near_duplicates_are_reported_or_dropped() {
    let service = service().await;
    execute(
        &service,
        "INSERT INTO posts (original_input, hook, engagement_rate)
         SELECT 'about ' || n, (SELECT string_agg(md5(n || '-' || w), ' ') FROM generate_series(1, 40) w) || ' end', 0.07
           FROM generate_series(1, 12) n;
         INSERT INTO posts (original_input, hook, engagement_rate)
         SELECT 'again', replace(hook, ' end', ' finish'), 0.06 FROM posts WHERE original_input = 'about 3'",
    )
    .await;
    for (policy, found_near, left_out, examples) in
        [("report", 1, 0, 13), ("drop", 1, 1, 12), ("off", 0, 0, 13)]
    {
        let settings = json!({"minimum_examples": 10, "cleaning": {"near_duplicates": policy}});
        let found = dataset(&service, policy, settings).await;
        assert_eq!(
            (&found["counts"]["near_duplicates"], &found["counts"]["examples"]),
            (&json!(left_out), &json!(examples))
        );
        let run = service.read(&format!("/v1/runs?pipeline={policy}")).await["items"][0]["id"].clone();
        let events = service.read(&format!("/v1/runs/{}/events", run.as_str().unwrap())).await;
        let collected =
            events["items"].as_array().unwrap().iter().find(|event| event["data"]["counts"].is_object());
        assert_eq!(collected.unwrap()["data"]["cleaning"]["near_duplicates"], found_near, "{policy}");
    }
    service.end().await;
}

/// A source of posts in a database of its own, read by one connection alone.
async fn posts_of(statement: &'static str) -> (TestDatabase, PgPool, Sources) {
    let database = fresh_database().await;
    sqlx::raw_sql(statement).execute(&database.pool).await.unwrap();
    let one = PgPoolOptions::new().max_connections(1).connect(&database.url).await.unwrap();
    let sources = Sources::new(one.clone());
    (database, one, sources)
}

async fn collected(sources: &Sources, settings: Value) -> Result<Snapshot, DatasetError> {
    let settings = serde_json::from_value(settings).unwrap();
    dataset::collect(sources, "hook", &settings, Clock::system().now()).await
}

async fn backend(pool: &PgPool) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn rows_that_nobody_wants_are_not_waited_for() {
    let (_database, one, sources) = posts_of(
        "INSERT INTO posts (original_input, hook, engagement_rate)
         SELECT 'i' || n, 'h' || n, 0.09 FROM generate_series(1, 20000) n",
    )
    .await;
    let before = backend(&one).await;
    let all = collected(&sources, json!({})).await.unwrap();
    assert_eq!(all.manifest.counts.examples, 20_000);
    assert_eq!(backend(&one).await, before, "a connection that was read to its end is kept");
    let some = collected(&sources, json!({"maximum_examples": 10})).await.unwrap();
    assert_eq!((some.manifest.counts.examples, some.manifest.counts.over_maximum), (10, 19_990));
    assert_ne!(backend(&one).await, before, "one that was not is closed");
    let open: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid = $1",
    )
    .bind(before)
    .fetch_one(&one)
    .await
    .unwrap();
    assert_eq!(open, 0, "and its transaction with it");
}

#[tokio::test]
async fn a_statement_that_takes_too_long_ends_and_says_so() {
    let (_database, one, sources) =
        posts_of("INSERT INTO posts (hook, engagement_rate) VALUES ('h', 0.09)").await;
    let source = json!({"query": "SELECT posts.* FROM posts, pg_sleep(30)", "timeout_seconds": 1});
    let begun = Instant::now();
    let error = collected(&sources, json!({"source": source})).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(error.to_string().contains("statement timeout"), "{error}");
    // The setting ends with its transaction.
    let timeout: String = sqlx::query_scalar("SHOW statement_timeout").fetch_one(&one).await.unwrap();
    assert_eq!(timeout, "0");
}

#[tokio::test]
async fn a_number_that_cannot_be_held_is_told_with_the_id_of_its_row() {
    let (_database, _one, sources) = posts_of(
        "ALTER TABLE posts ADD COLUMN price numeric;
         INSERT INTO posts (hook, engagement_rate, price) VALUES ('a', 0.09, 3), ('b', 0.08, 10::numeric ^ 400)",
    )
    .await;
    let prompts = json!({"user": "{{ price }}", "assistant": "{{ hook }}"});
    let error = collected(&sources, json!({"prompts": prompts})).await.unwrap_err().to_string();
    assert!(error.contains("the row with the id \"2\"") && error.contains("its column \"price\""), "{error}");
    let prompts = json!({"user": "{{ hook | list + 1 }}", "assistant": "{{ hook }}"});
    let error = collected(&sources, json!({"prompts": prompts})).await.unwrap_err().to_string();
    assert!(error.contains("the row with the id \"1\"") && error.contains("prompts.user"), "{error}");
}

#[tokio::test]
async fn rows_with_one_id_come_in_one_order_whatever_order_they_are_stored_in() {
    let mut digests = Vec::new();
    for order in ["ASC", "DESC"] {
        let (database, _one, sources) = posts_of(
            "CREATE TABLE tweets (id int, engagement_rate float8, created_at timestamptz, hook text, original_input text, tags jsonb)",
        )
        .await;
        let fill = format!(
            "INSERT INTO tweets SELECT 1, 0.09, '2026-01-01', 'h' || n % 7, 'i' || n, to_jsonb(n)
               FROM generate_series(1, 50) n ORDER BY n {order}"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&database.pool).await.unwrap();
        for prompts in [Value::Null, json!({"user": "{{ tags }}", "assistant": "{{ hook }}"})] {
            let mut settings = json!({"source": {"table": "tweets"}, "lookback_seconds": 3e8});
            if !prompts.is_null() {
                settings["prompts"] = prompts;
            }
            let made = collected(&sources, settings).await.unwrap();
            assert_eq!(made.manifest.counts.examples, 50);
            digests.push(made.train.part.digest);
        }
    }
    assert_eq!(digests[..2], digests[2..]);
}

#[tokio::test]
async fn equal_posts_come_in_the_order_of_their_ids_as_numbers() {
    let (_database, _one, sources) = posts_of(
        "INSERT INTO posts (id, original_input, hook, engagement_rate, created_at) OVERRIDING SYSTEM VALUE
         SELECT n, 'i' || n, 'h' || 20 - n, 0.09, now() FROM generate_series(8, 12) n ORDER BY random()",
    )
    .await;
    let made = collected(&sources, json!({"split": {"validation_share": 0}})).await.unwrap();
    let store = DatasetStore::in_memory();
    store.put(&made).await.unwrap();
    let text = String::from_utf8(store.get(&made.train.part.digest).await.unwrap()).unwrap();
    let order: Vec<_> = (8..=12).map(|n| text.find(&format!("\"i{n}\"")).unwrap()).collect();
    assert!(order.is_sorted(), "{text}");
}

#[tokio::test]
async fn personal_data_in_numbers_and_in_what_a_template_puts_together_is_found() {
    let (_database, _one, sources) = posts_of(
        "ALTER TABLE posts ADD COLUMN card bigint, ADD COLUMN box text, ADD COLUMN host text;
         INSERT INTO posts (original_input, hook, engagement_rate, card, box, host) VALUES
             ('one', 'plain', 0.09, 7, NULL, NULL), ('two', 'paid', 0.08, 4111111111111111, 'ann', 'example.com')",
    )
    .await;
    let prompts = json!({
        "user": "{{ original_input }}", "assistant": "{{ hook }} {{ card }}{% if box %} by {{ box }}@{{ host }}{% endif %}",
    });
    let made =
        collected(&sources, json!({"prompts": prompts, "split": {"validation_share": 0}})).await.unwrap();
    let findings = &made.manifest.cleaning.findings;
    assert_eq!((findings.card, findings.email, made.manifest.cleaning.personal_data), (1, 1, 1));
    let store = DatasetStore::in_memory();
    store.put(&made).await.unwrap();
    let text = String::from_utf8(store.get(&made.train.part.digest).await.unwrap()).unwrap();
    assert!(text.contains("plain 7") && text.contains("paid [CARD] by [EMAIL]"), "{text}");
    let settings = json!({"prompts": prompts, "cleaning": {"personal_data": "drop"}});
    let counts = collected(&sources, settings).await.unwrap().manifest.counts;
    assert_eq!((counts.examples, counts.personal_data), (1, 1));
}

#[tokio::test]
async fn a_column_that_is_called_like_a_function_of_templates_is_refused_where_it_is_used() {
    let (_database, _one, sources) =
        posts_of("ALTER TABLE posts ADD COLUMN range text, ADD COLUMN namespace text").await;
    let check = |user: &str| {
        let prompts = json!({"user": user, "assistant": "{{ hook }}"});
        let settings: DatasetSettings = serde_json::from_value(json!({"prompts": prompts})).unwrap();
        let sources = sources.clone();
        async move { sources.check(&settings).await.map_err(|error| error.to_string()) }
    };
    let refused = check("{{ range }}").await.unwrap_err();
    assert!(refused.contains("use range, which is a function of templates and a column"), "{refused}");
    check("{{ namespace }}").await.unwrap();
    check("{{ dict(a=1) }}").await.unwrap();
}
