//! What is set aside: whole groups, uploaded once, and only where there is enough of it.

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::datasets::{dataset, execute, service};
use crate::harness::service::TestService;

#[tokio::test]
async fn a_group_is_trained_on_or_validated_with_as_a_whole_and_stays_where_it_is() {
    let service = service().await;
    execute(
        &service,
        "ALTER TABLE posts ADD COLUMN story integer;
         INSERT INTO posts (story, original_input, hook, engagement_rate)
         SELECT n % 50, 'about ' || n, 'story-' || n % 50 || ' told in way ' || n, 0.07 FROM generate_series(1, 400) n",
    )
    .await;
    let settings = json!({
        "minimum_examples": 10, "source": {"group_column": "story"}, "split": {"validation_share": 0.2},
        "cleaning": {"near_duplicates": "off"},
    });
    let sides = async || {
        let run = service.trigger("hook").await;
        let run = service
            .wait_for(&run, "collected", |run| run.get("dataset").is_some() && run["step"] != "collect")
            .await;
        let id = run["id"].as_str().unwrap();
        service.post(&format!("/v1/runs/{id}/cancel"), json!({})).await;
        service.wait_until(id, "cancelled").await;
        let digest = run["dataset"]["digest"].as_str().unwrap();
        let manifest = service.read(&format!("/v1/datasets/{digest}")).await["manifest"].take();
        assert_eq!(manifest["parts"]["grouping"], "group");
        let validation = manifest["parts"]["validation"]["digest"].as_str().unwrap().to_owned();
        let mut stories = Vec::new();
        for digest in [digest, &validation] {
            let text = service.text(&format!("/v1/datasets/{digest}/content"), &[]).await;
            let found: std::collections::BTreeSet<String> =
                text.split("story-").skip(1).map(|rest| rest.split(' ').next().unwrap().to_owned()).collect();
            stories.push(found);
        }
        (stories.remove(0), stories.remove(0))
    };
    service.pipeline("hook", |config| config["dataset"] = settings).await;
    let (train, validation) = sides().await;
    assert!(train.is_disjoint(&validation), "{train:?} {validation:?}");
    assert!((3..=20).contains(&validation.len()) && train.len() + validation.len() == 50);
    execute(
        &service,
        "INSERT INTO posts (story, original_input, hook, engagement_rate)
         SELECT n % 60, 'more ' || n, 'story-' || n % 60 || ' told anew ' || n, 0.09 FROM generate_series(1, 200) n",
    )
    .await;
    let (more_train, more_validation) = sides().await;
    assert!(more_train.is_superset(&train) && more_validation.is_superset(&validation));
    service.end().await;
}

#[tokio::test]
async fn what_is_set_aside_is_uploaded_once_and_given_to_the_providers_job() {
    let service = TestService::start().await;
    execute(
        &service,
        "ALTER TABLE posts ADD COLUMN story integer;
         INSERT INTO posts (story, original_input, hook, engagement_rate)
         SELECT n % 100, 'about ' || n, 'a hook ' || n, 0.07 FROM generate_series(1, 400) n",
    )
    .await;
    service
        .pipeline("hook", |config| {
            config["dataset"] = json!({
                "minimum_examples": 10, "source": {"group_column": "story"}, "split": {"validation_share": 0.2},
                "cleaning": {"near_duplicates": "off"},
            });
        })
        .await;
    let run = service.trigger("hook").await;
    let run = service.wait_for_test(&run).await;
    let digest = run["dataset"]["digest"].as_str().unwrap();
    let manifest = service.read(&format!("/v1/datasets/{digest}")).await["manifest"].take();

    assert_eq!(service.simulator.creates().files, 2);
    let jobs = service.simulator.jobs();
    assert_eq!(jobs.len(), 1);
    let validation = jobs[0].validation_file.as_ref().expect("the job is measured on the validation file");
    for (file, part) in [(&jobs[0].training_file, "train"), (validation, "validation")] {
        let bytes = service.simulator.file_content(file).unwrap();
        assert_eq!(json!(hex::encode(Sha256::digest(&bytes))), manifest["parts"][part]["digest"], "{part}");
    }
    service.end().await;
}

#[tokio::test]
async fn too_few_examples_for_a_file_of_their_own_are_trained_on() {
    let service = service().await;
    execute(
        &service,
        "INSERT INTO posts (persona_id, original_input, hook, engagement_rate)
         SELECT 'p' || n, 'about ' || n, 'a hook ' || n, 0.07 FROM generate_series(1, 40) n",
    )
    .await;
    let dataset = dataset(&service, "hook", json!({"split": {"validation_share": 0.1}})).await;
    assert_eq!(dataset["examples"], 40);
    let digest = dataset["digest"].as_str().unwrap();
    let manifest = service.read(&format!("/v1/datasets/{digest}")).await["manifest"].take();
    assert_eq!(manifest["parts"]["train"]["examples"], 40, "{manifest:#}");
    assert!(manifest["parts"].get("validation").is_none(), "{manifest:#}");
    assert!(manifest["warnings"].to_string().contains("providers refuse fewer than 10"), "{manifest:#}");
    service.end().await;
}
