//! Where a pipeline's traffic is published for applications that do not ask the API.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use reqwest::Url;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::checks::Checks;

/// Each target is a job, and each check a call.
const MOST_TARGETS: usize = 20;
/// What the names of variables that hold signing secrets begin with, so that no other secret of the service can be named.
const SECRET_PREFIX: &str = "PUBLICATION_SECRET_";

/// Where the pipeline's traffic is published: the live model's id, and the document that an application needs to compute
/// assignments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PublicationSettings {
    /// The places; their names are unique in the pipeline.
    #[schema(max_items = 20)]
    pub targets: Vec<PublicationTarget>,
    /// How often what was published is read again, to see whether somebody changed it.
    pub check_seconds: f64,
    /// Whether what somebody changed is written again as it was, taking the fields over from others.
    pub correct_drift: bool,
}

impl Default for PublicationSettings {
    fn default() -> Self {
        Self { targets: Vec::new(), check_seconds: 60.0, correct_drift: false }
    }
}

/// A place to publish at: exactly one of `config_map`, `file` and `http`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublicationTarget {
    /// What it is called in the API, metrics and the audit trail.
    #[schema(example = "shop", pattern = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")]
    pub name: String,
    /// Two keys of a Kubernetes ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapTarget>,
    /// A file on the worker's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileTarget>,
    /// A call of the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpTarget>,
}

/// A ConfigMap, written by server-side apply. Keys of others in it are left alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigMapTarget {
    /// The namespace of the ConfigMap.
    pub namespace: String,
    /// The ConfigMap, made where it is missing.
    pub name: String,
    /// Under which name its fields are owned; `tuneloop-` and the pipeline's name where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_manager: Option<String>,
    /// The key that holds the live model's id; `HOOK_MODEL` for the pipeline `hook` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "HOOK_MODEL")]
    pub key: Option<String>,
    /// Deployments of the namespace that are restarted, pod by pod, once what they read at their start has changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart_deployments: Vec<String>,
    /// What they read at their start.
    #[serde(default)]
    pub restart_on: RestartOn,
}

/// What Deployments read when they start, and so are restarted for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestartOn {
    /// The live model's id, as an environment variable.
    #[default]
    LiveModel,
    /// The traffic document: every revision restarts them.
    Traffic,
}

/// The traffic document as a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileTarget {
    /// Relative to the directory that the operator gives the service as `--publication-dir`.
    #[schema(example = "hook.json")]
    pub path: String,
}

/// The traffic document as the body of a POST.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpTarget {
    /// Where it is sent.
    #[schema(example = "https://shop.example/tuneloop/traffic")]
    pub url: String,
    /// The environment variable of the workers with the secret to sign with, `whsec_…`, after Standard Webhooks. Its name
    /// begins with `PUBLICATION_SECRET_`. Without it the call is not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "PUBLICATION_SECRET_SHOP")]
    pub secret_env: Option<String>,
}

/// The one of the three that a target is.
#[derive(Debug, Clone, Copy)]
pub enum TargetKind<'a> {
    /// A ConfigMap.
    ConfigMap(&'a ConfigMapTarget),
    /// A file.
    File(&'a FileTarget),
    /// A call.
    Http(&'a HttpTarget),
}

impl PublicationTarget {
    /// What it is; `None` where it is none or several, which the checks refuse.
    #[must_use]
    pub fn kind(&self) -> Option<TargetKind<'_>> {
        match (&self.config_map, &self.file, &self.http) {
            (Some(target), None, None) => Some(TargetKind::ConfigMap(target)),
            (None, Some(target), None) => Some(TargetKind::File(target)),
            (None, None, Some(target)) => Some(TargetKind::Http(target)),
            _ => None,
        }
    }

    /// What it is in one word, as in the configuration.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        match self.kind() {
            Some(TargetKind::File(_)) => "file",
            Some(TargetKind::Http(_)) => "http",
            Some(TargetKind::ConfigMap(_)) | None => "config_map",
        }
    }

    /// The place in words, as it is told to people. Two targets with one place would write over each other.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        Some(match self.kind()? {
            TargetKind::ConfigMap(target) => format!("the ConfigMap {}/{}", target.namespace, target.name),
            TargetKind::File(target) => format!("the file {}", target.path),
            TargetKind::Http(target) => target.url.clone(),
        })
    }
}

impl PublicationSettings {
    /// The target of this name.
    #[must_use]
    pub fn target(&self, name: &str) -> Option<&PublicationTarget> {
        self.targets.iter().find(|target| target.name == name)
    }

    pub(super) fn check(&self, checks: &mut Checks<'_>) {
        checks.interval("check_seconds", self.check_seconds);
        checks.that("targets", self.targets.len() <= MOST_TARGETS, "must have at most 20 targets");
        let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
        for (index, target) in self.targets.iter().enumerate() {
            let field = |name: &str| format!("targets/{index}/{name}");
            let name = &target.name;
            checks.that(
                &field("name"),
                is_label(name) && name.starts_with(|first: char| first.is_ascii_lowercase()),
                "must begin with a letter, end with a letter or digit, and have up to 63 of a-z, 0-9 and -",
            );
            checks.that(&field("name"), names.insert(name), "is the name of another target already");
            let Some(kind) = target.kind() else {
                checks.that(
                    &format!("targets/{index}"),
                    false,
                    "must have exactly one of config_map, file and http",
                );
                continue;
            };
            let place = target.place().unwrap_or_default();
            checks.that(
                &format!("targets/{index}"),
                places.insert(place),
                "is the place of another target already",
            );
            match kind {
                TargetKind::ConfigMap(target) => target.check(checks, &field("config_map")),
                TargetKind::File(target) => checks.that(
                    &field("file/path"),
                    is_relative(&target.path),
                    "must be a path relative to --publication-dir, up to 1024 bytes, without `.` and `..`, whose last \
                     part does not begin with a dot",
                ),
                TargetKind::Http(target) => target.check(checks, &field("http")),
            }
        }
    }
}

impl ConfigMapTarget {
    fn check(&self, checks: &mut Checks<'_>, at: &str) {
        let good = is_label(&self.namespace);
        checks.that(&format!("{at}/namespace"), good, "must be the name of a namespace");
        checks.that(&format!("{at}/name"), is_object_name(&self.name), "must be the name of a ConfigMap");
        let manager = self.field_manager.as_ref().is_none_or(|manager| {
            (1..=128).contains(&manager.len()) && manager.chars().all(|c| c.is_ascii_graphic())
        });
        checks.that(
            &format!("{at}/field_manager"),
            manager,
            "must have 1 to 128 printable characters of ASCII, without spaces",
        );
        let key = self.key.as_ref().is_none_or(|key| {
            (1..=253).contains(&key.len())
                && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
                && key != "."
                && !key.starts_with("..")
                && !key.ends_with(".traffic.json")
        });
        checks.that(
            &format!("{at}/key"),
            key,
            "must be a key of a ConfigMap: 1 to 253 of letters, digits, -, _ and ., and not end with .traffic.json",
        );
        let deployments = &self.restart_deployments;
        let good = deployments.len() <= 20 && deployments.iter().all(|name| is_object_name(name));
        checks.that(
            &format!("{at}/restart_deployments"),
            good,
            "must be names of Deployments, at most 20 of them",
        );
    }
}

impl HttpTarget {
    fn check(&self, checks: &mut Checks<'_>, at: &str) {
        let good = self.url.len() <= 2_048
            && Url::parse(&self.url).is_ok_and(|url| {
                ["http", "https"].contains(&url.scheme())
                    && url.has_host()
                    && url.username().is_empty()
                    && url.password().is_none()
                    && url.fragment().is_none()
            });
        checks.that(
            &format!("{at}/url"),
            good,
            "must be an http or https URL of up to 2048 bytes, without a user and password in it",
        );
        let secret = self.secret_env.as_ref().is_none_or(|name| {
            name.strip_prefix(SECRET_PREFIX).is_some_and(|rest| {
                !rest.is_empty()
                    && rest.len() <= 200
                    && rest
                        .bytes()
                        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
            })
        });
        checks.that(
            &format!("{at}/secret_env"),
            secret,
            "must be the name of a variable: PUBLICATION_SECRET_ and capital letters, digits or _",
        );
    }
}

/// A label after RFC 1123, as namespaces are called.
fn is_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// A subdomain after RFC 1123, as most objects of Kubernetes are called.
fn is_object_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

/// A path that stays below the directory it is joined to, symbolic links apart, and is not one of the writer's own hidden
/// files.
fn is_relative(path: &str) -> bool {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let hidden = path.rsplit('/').next().is_none_or(|last| last.is_empty() || last.starts_with('.'));
    plain && !hidden && path.len() <= 1_024 && !path.contains('\0')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    fn faults(targets: &Value) -> Vec<String> {
        let settings: PublicationSettings = serde_json::from_value(json!({"targets": targets})).unwrap();
        let mut faults = BTreeMap::new();
        settings.check(&mut Checks { section: "/publication", faults: &mut faults });
        faults.into_keys().map(|field| field.replace("/publication/targets/", "")).collect()
    }

    #[test]
    fn targets_of_each_kind_are_accepted() {
        let targets = json!([
            {"name": "shop", "config_map": {"namespace": "shop", "name": "models.v1", "key": "MODEL", "restart_deployments": ["web"]}},
            {"name": "disk", "file": {"path": "shop/hook.json"}},
            {"name": "app-2", "http": {"url": "https://shop.example/x?y=1", "secret_env": "PUBLICATION_SECRET_SHOP"}},
        ]);
        assert_eq!(faults(&targets), Vec::<String>::new());
    }

    #[test]
    fn a_target_is_one_thing_at_a_place_of_its_own() {
        let file = json!({"path": "hook.json"});
        assert_eq!(faults(&json!([{"name": "a"}])), ["0"]);
        assert_eq!(
            faults(&json!([{"name": "a", "file": file, "http": {"url": "https://a.example"}}])),
            ["0"]
        );
        assert_eq!(faults(&json!([{"name": "a", "file": file}, {"name": "b", "file": file}])), ["1"]);
        let other = json!({"path": "other.json"});
        assert_eq!(faults(&json!([{"name": "a", "file": file}, {"name": "a", "file": other}])), ["1/name"]);
    }

    #[test]
    fn no_path_leaves_the_directory_and_no_other_variable_is_a_secret() {
        for path in ["/etc/passwd", "../x", "a/../../x", "./x", "", "a/", ".hidden", "a/.x"] {
            assert_eq!(faults(&json!([{"name": "a", "file": {"path": path}}])), ["0/file/path"], "{path}");
        }
        for (field, value) in [
            ("secret_env", "DATABASE_URL"),
            ("secret_env", "PUBLICATION_SECRET_"),
            ("url", "ftp://a.example"),
            ("url", "https://user:password@a.example"),
        ] {
            let mut http = json!({"url": "https://a.example"});
            http[field] = value.into();
            assert_eq!(faults(&json!([{"name": "a", "http": http}])), [format!("0/http/{field}")], "{value}");
        }
        for (field, value) in [
            ("namespace", "Shop"),
            ("name", "a/b"),
            ("key", "a b"),
            ("key", "hook.traffic.json"),
            ("field_manager", ""),
        ] {
            let mut config_map = json!({"namespace": "shop", "name": "models"});
            config_map[field] = value.into();
            let target = json!([{"name": "a", "config_map": config_map}]);
            assert_eq!(faults(&target), [format!("0/config_map/{field}")], "{value}");
        }
    }
}
