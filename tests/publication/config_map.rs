//! Publication to a ConfigMap: what is written, whose it is, and what the API refuses.

use serde_json::{Value, json};
use tuneloop::publication::{Kubernetes, Reach};

use crate::kubernetes::{Fault, NAMESPACE};
use crate::service::{World, config_map, watched};

#[tokio::test]
async fn the_live_model_and_the_traffic_stand_in_the_config_map_and_every_revision_follows() {
    let world = World::start().await;
    world.publishing("hook", json!({"targets": [config_map("cluster", "models")]})).await;
    let state = world.published("hook", "cluster", 1).await;
    assert_eq!(
        (&state["kind"], &state["place"]),
        (&json!("config_map"), &json!("the ConfigMap shop/models"))
    );
    let data = world.kubernetes.data("models");
    assert_eq!(data["HOOK_MODEL"], "gpt-4o");
    let traffic = world.read("/v1/pipelines/hook/traffic").await;
    let document = world.kubernetes.traffic("models", "hook");
    for member in ["pipeline", "revision", "live", "weights", "kill_switch", "salt", "created_at"] {
        assert_eq!(document[member], traffic[member], "{member}");
    }
    assert_eq!(document["model_id"], "gpt-4o");
    assert_eq!(
        traffic["publications"],
        json!([{"target": "cluster", "status": "published", "published_revision": 1}])
    );

    let revision = world.go_live("hook", "ft:better").await;
    world.published("hook", "cluster", revision).await;
    assert_eq!(world.kubernetes.data("models")["HOOK_MODEL"], "ft:better");
    world.get("/v1/pipelines/hook/publications/nowhere/history").await.problem(404, "not-found");
    let history = world.read("/v1/pipelines/hook/publications/cluster/history").await;
    let revisions: Vec<_> =
        history["items"].as_array().unwrap().iter().map(|item| &item["revision"]).collect();
    assert_eq!(revisions, [2, 1]);
    assert_eq!(
        world.actions("hook").await,
        ["publication.added", "publication.published", "publication.published"]
    );
    let labels = r#"{pipeline="hook",target="cluster"}"#;
    let count = world.metric(&format!("tuneloop_publication_delay_seconds_count{labels}")).await;
    assert_eq!(count, Some(2.0));
    assert_eq!(world.metric(&format!("tuneloop_publication_revisions_behind{labels}")).await, Some(0.0));
    // What the Role of the chart allows, see `.ci/chart.py`.
    let calls: Vec<_> = world.kubernetes.kinds_of_calls().into_iter().collect();
    assert_eq!(calls, ["create configmaps", "get configmaps", "patch configmaps"]);
    world.end().await;
}

#[tokio::test]
async fn two_pipelines_share_a_config_map_and_leave_each_others_and_others_keys_alone() {
    let world = World::start().await;
    let others = json!({"metadata": {"name": "models"}, "data": {"theirs": "kept"}});
    world.kubernetes.create("configmaps", &others);
    let publication = json!({"targets": [config_map("cluster", "models")]});
    tokio::join!(world.publishing("hook", publication.clone()), world.publishing("body", publication));
    world.published("hook", "cluster", 1).await;
    world.published("body", "cluster", 1).await;
    let revision = world.go_live("body", "ft:body").await;
    world.published("body", "cluster", revision).await;
    let data = world.kubernetes.data("models");
    let keys: Vec<_> = data.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["BODY_MODEL", "HOOK_MODEL", "body.traffic.json", "hook.traffic.json", "theirs"]);
    assert_eq!((&data["BODY_MODEL"], &data["HOOK_MODEL"]), (&json!("ft:body"), &json!("gpt-4o")));
    let object = world.kubernetes.object("configmaps", "models").unwrap();
    let managers: Vec<_> = object["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["manager"].as_str().unwrap(), entry["operation"].as_str().unwrap()))
        .collect();
    assert!(managers.contains(&("tuneloop-hook", "Apply")) && managers.contains(&("tuneloop-body", "Apply")));
    world.end().await;
}

#[tokio::test]
async fn a_field_of_another_manager_is_told_and_taken_over_only_when_somebody_asks() {
    let world = World::start().await;
    let theirs = json!({"metadata": {"name": "models"}, "data": {"HOOK_MODEL": "by-hand"}});
    world.kubernetes.create("configmaps", &theirs);
    world.publishing("hook", json!({"targets": [config_map("cluster", "models")]})).await;
    let error = world.failing("hook", "cluster", "owns").await;
    assert_eq!(
        error,
        "another field manager owns fields of the ConfigMap shop/models: data.HOOK_MODEL (conflict with \"kubectl-create\" \
         using v1); remove the fields there, or take them over: by POST …/publish once, by \
         publication.correct_drift always"
    );
    assert_eq!(world.kubernetes.data("models"), json!({"HOOK_MODEL": "by-hand"}));
    let behind = r#"tuneloop_publication_revisions_behind{pipeline="hook",target="cluster"}"#;
    assert_eq!(world.metric(behind).await, Some(1.0));

    world.publish_again("hook", "cluster").await;
    world.published("hook", "cluster", 1).await;
    assert_eq!(world.kubernetes.data("models")["HOOK_MODEL"], "gpt-4o");
    assert_eq!(
        world.actions("hook").await,
        ["publication.added", "publication.failed", "publication.requested", "publication.published"]
    );
    world.end().await;
}

#[tokio::test]
async fn a_value_that_is_as_it_should_be_is_shared_with_its_owner() {
    let world = World::start().await;
    let theirs = json!({"metadata": {"name": "models"}, "data": {"HOOK_MODEL": "gpt-4o"}});
    world.kubernetes.create("configmaps", &theirs);
    world.publishing("hook", json!({"targets": [config_map("cluster", "models")]})).await;
    world.published("hook", "cluster", 1).await;
    // Only where they would differ is there anything to say.
    world.go_live("hook", "ft:better").await;
    world.failing("hook", "cluster", "data.HOOK_MODEL").await;
    assert_eq!(world.kubernetes.traffic("models", "hook")["revision"], 1);
    world.end().await;
}

#[tokio::test]
async fn what_the_api_refuses_is_told_and_done_when_it_no_longer_does() {
    let world = World::start().await;
    world.kubernetes.fault(Fault::Unavailable);
    world.publishing("hook", json!({"targets": [config_map("cluster", "models")]})).await;
    let error = world.failing("hook", "cluster", "503").await;
    assert!(error.contains("the server is currently unable to handle the request"), "{error}");
    let revision = world.go_live("hook", "ft:better").await;
    for (fault, words) in [
        (Fault::Unauthorized, "does not accept the credentials"),
        (Fault::PatchForbidden, "docs/publication.md"),
        (Fault::Forgetful, "what was read back from the ConfigMap shop/models is not what was written"),
        (Fault::Meddler, "HOOK_MODEL is \"meddled\" and should be \"ft:better\""),
    ] {
        world.kubernetes.fault(fault);
        world.publish_again("hook", "cluster").await;
        world.failing("hook", "cluster", words).await;
        let state = world.target("hook", "cluster").await;
        assert_eq!(state["published_revision"], Value::Null, "nothing is called published: {state}");
    }
    world.kubernetes.fault(None);
    world.kubernetes.delete("configmaps", "models");
    world.publish_again("hook", "cluster").await;
    world.published("hook", "cluster", revision).await;
    assert_eq!(world.kubernetes.data("models")["HOOK_MODEL"], "ft:better");
    world.end().await;
}

#[tokio::test]
async fn an_api_that_is_away_holds_up_nothing_and_gets_the_newest_when_it_is_back() {
    let world = World::start().await;
    world.publishing("hook", watched(false)).await;
    world.published("hook", "cluster", 1).await;
    world.kubernetes.fault(Fault::Silent);
    let mut revision = 0;
    for model in ["ft:one", "ft:two", "ft:three"] {
        revision = world.go_live("hook", model).await;
    }
    assert_eq!(world.read("/v1/pipelines/hook/traffic").await["live"], "3.0.0");
    // The call under way ends with its time: the API is back before that, and what was asked for is asked anew.
    world.failing("hook", "cluster", "did not answer within 20 seconds").await;
    world.kubernetes.fault(None);
    world.published("hook", "cluster", revision).await;
    assert_eq!(world.kubernetes.data("models")["HOOK_MODEL"], "ft:three");
    let history = world.read("/v1/pipelines/hook/publications/cluster/history").await;
    assert_eq!(history["items"].as_array().unwrap().len(), 2, "what came and went meanwhile is not written");
    world.end().await;
}

#[tokio::test]
async fn a_missing_namespace_and_a_missing_cluster_are_told() {
    let world = World::start().await;
    let elsewhere = json!({"name": "cluster", "config_map": {"namespace": "elsewhere", "name": "models"}});
    world.publishing("hook", json!({"targets": [elsewhere]})).await;
    let error = world.failing("hook", "cluster", "elsewhere").await;
    assert!(error.contains("namespaces \"elsewhere\" not found"), "{error}");
    world.end().await;

    let nowhere = |reach: &mut Reach| {
        let config = ::kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        reach.kubernetes = Kubernetes::at(config);
    };
    let world = World::with(nowhere).await;
    world.publishing("hook", json!({"targets": [config_map("cluster", "models")]})).await;
    let error = world.failing("hook", "cluster", "cannot be reached").await;
    assert!(error.contains("read the ConfigMap shop/models"), "{error}");
    world.end().await;
}

#[tokio::test]
async fn targets_come_and_go_with_the_configuration() {
    let world = World::start().await;
    let mut config = crate::harness::service::config();
    config["publication"] = json!({"targets": [config_map("cluster", "models"), {"name": "cluster", "file": {"path": "/etc/x"}}]});
    let problem = world.put("/v1/pipelines/hook", &[], config.clone()).await.problem(422, "invalid-request");
    let fields: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["/publication/targets/1/file/path", "/publication/targets/1/name"]);

    config["publication"] = json!({"targets": [config_map("cluster", "models")]});
    world.put("/v1/pipelines/hook", &[], config.clone()).await.expect(201);
    world.published("hook", "cluster", 1).await;
    // Another place under the same name begins anew; what stands at the former one stays.
    config["publication"] = json!({"targets": [
        {"name": "cluster", "config_map": {"namespace": NAMESPACE, "name": "other", "key": "MODEL", "field_manager": "us"}},
    ]});
    world.put("/v1/pipelines/hook", &[], config.clone()).await.expect(200);
    world.wait("hook", "cluster", "moved", |state| state["place"] == "the ConfigMap shop/other").await;
    world.published("hook", "cluster", 1).await;
    assert_eq!(world.kubernetes.data("other")["MODEL"], "gpt-4o");
    assert_eq!(world.kubernetes.data("models")["HOOK_MODEL"], "gpt-4o");

    config["publication"] = json!({});
    world.put("/v1/pipelines/hook", &[], config).await.expect(200);
    assert_eq!(world.read("/v1/pipelines/hook/publications").await["items"], json!([]));
    let again = world.post("/v1/pipelines/hook/publications/cluster/publish", Value::Null).await;
    again.problem(404, "not-found");
    world.go_live("hook", "ft:better").await;
    assert_eq!(world.kubernetes.data("other")["MODEL"], "gpt-4o");
    let actions = world.actions("hook").await;
    assert_eq!(actions.last().unwrap(), "publication.removed", "{actions:?}");
    assert_eq!(
        world.read("/v1/pipelines/hook/publications/cluster/history").await["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    world.end().await;
}
