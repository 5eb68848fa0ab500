//! OpenAI's specification as the judge of answers.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, sync::Mutex};

use serde_json::{Map, Value, json};

use super::harness::Answer;

/// Methods and paths, as in `("get", "/models")`.
pub(super) type Operations = BTreeSet<(String, String)>;

pub(super) struct Spec {
    document: Value,
    exercised: Mutex<Operations>,
}

impl Spec {
    /// The specification, if it lies beside the project.
    pub(super) fn load() -> Option<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
        if !folder.exists() {
            println!("skipped: the specification is not beside the project");
            return None;
        }
        let text = fs::read_to_string(folder.join("openai/openai-finetuning.openapi.json")).unwrap();
        let mut document: Value = serde_json::from_str(&text).unwrap();
        modernize(&mut document["components"]["schemas"]);
        Some(Self { document, exercised: Mutex::default() })
    }

    /// All operations of the specification.
    pub(super) fn operations(&self) -> Operations {
        let paths = self.document["paths"].as_object().unwrap();
        let operation = |path: &String, methods: &Value| {
            let methods = methods.as_object().unwrap().keys().cloned();
            methods.map(|method| (method, path.clone())).collect::<Vec<_>>()
        };
        paths.iter().flat_map(|(path, methods)| operation(path, methods)).collect()
    }

    /// The operations that answered with a success so far.
    pub(super) fn exercised(&self) -> Operations {
        self.exercised.lock().unwrap().clone()
    }

    /// Checks an answer against the schema that the specification has for its operation and status. Errors
    /// that an operation does not list have the common schema of errors.
    pub(super) fn check(&self, method: &str, path: &str, answer: &Answer) {
        let operation = &self.document["paths"][path][method];
        assert!(operation.is_object(), "the specification has no {method} {path}");
        let place = format!("{method} {path} -> {}", answer.status);
        if !answer.status.is_success() {
            return self.conforms(
                &json!({"$ref": "#/components/schemas/ErrorResponse"}),
                &answer.json(),
                &place,
            );
        }
        self.exercised.lock().unwrap().insert((method.into(), path.into()));
        let content = &operation["responses"][answer.status.as_str()]["content"];
        if answer.content_type == "text/event-stream" {
            let schema = &content["text/event-stream"]["schema"];
            for event in events(answer) {
                self.conforms(schema, &event, &place);
            }
        } else if answer.content_type == "application/octet-stream" {
            // The specification gives the bytes of a file as a JSON string.
            self.conforms(&content["application/json"]["schema"], &json!(answer.text), &place);
        } else {
            self.conforms(&content[&answer.content_type]["schema"], &answer.json(), &place);
        }
    }

    /// Fails unless `value` conforms to `schema`.
    pub(super) fn conforms(&self, schema: &Value, value: &Value, place: &str) {
        let faults = self.faults(schema, value);
        assert!(faults.is_empty(), "{place}: {faults:#?} in {value:#}");
    }

    pub(super) fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        assert!(schema.is_object(), "there is no schema");
        let mut schema = schema.clone();
        schema["components"] = self.document["components"].clone();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }
}

/// The chunks of a stream, which must end as the protocol says.
pub(super) fn events(answer: &Answer) -> Vec<Value> {
    let mut data: Vec<&str> = answer.text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(data.pop(), Some("[DONE]"));
    data.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

/// Rewrites what is left of OpenAPI 3.0 (`nullable`, boolean `exclusiveMinimum`) in the words of JSON Schema
/// 2020-12, and forbids properties that a schema does not list, so that a misspelt optional one is found.
fn modernize(schema: &mut Value) {
    match schema {
        Value::Array(list) => list.iter_mut().for_each(modernize),
        Value::Object(object) => {
            object.values_mut().for_each(modernize);
            if object.get("exclusiveMinimum") == Some(&json!(true)) {
                let minimum = object.remove("minimum").unwrap();
                object.insert("exclusiveMinimum".into(), minimum);
            }
            if object.get("properties").is_some_and(Value::is_object) {
                object.entry("type").or_insert(json!("object"));
                object.entry("additionalProperties").or_insert(json!(false));
            }
            if object.remove("nullable") == Some(json!(true)) {
                let inner: Map<String, Value> = std::mem::take(object);
                object.insert("anyOf".into(), json!([inner, {"type": "null"}]));
            }
        }
        _ => {}
    }
}
