//! The program as people meet it: its help, and what it says to settings it cannot use.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};

const DATABASE: (&str, &str) = ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing");
const KEY: (&str, &str) = ("OPENAI_API_KEY", "sk-1");

/// The program with no environment but `variables`.
fn tuneloop(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tuneloop"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

/// What the program says on standard error: exactly one line, with nothing on standard output.
fn one_line(output: &Output) -> String {
    assert!(output.stdout.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.ends_with(".\n"), "{text}");
    text.trim_end().to_owned()
}

/// The line about settings that cannot be used.
fn refusal(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = tuneloop(arguments, variables);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    one_line(&output)
}

#[test]
fn each_bad_setting_is_named_with_what_it_accepts() {
    const MODEL: &str = "the name of a provider's model, such as gpt-4o, without spaces";
    const BASE: &str = "an http or https URL without query, such as https://host.example/v1";
    const ROLES: &str = "one or more of api, worker and scheduler, separated by commas";
    const EXAMPLES: &str = "a whole number of at least 10";
    const THRESHOLD: &str = "a number of at least 0, such as 0.06";
    const PLACE: &str =
        "the path of a directory, its file:// URL with an absolute path, or a bucket as s3://bucket/prefix";
    const OTLP: &str = "the http or https URL of an OTLP gRPC collector, such as http://localhost:4317";
    for (variable, value, accepted) in [
        ("FINE_TUNING_MIN_EXAMPLES", "abc", EXAMPLES),
        ("FINE_TUNING_MIN_EXAMPLES", "9", EXAMPLES),
        ("FINE_TUNING_ENGAGEMENT_THRESHOLD", "NaN", THRESHOLD),
        ("FINE_TUNING_ENGAGEMENT_THRESHOLD", "-1", THRESHOLD),
        ("HOOK_MODEL", "gpt 4o", MODEL),
        ("BODY_MODEL", " ", MODEL),
        ("HOOK_BASE_MODEL", "a\nb", MODEL),
        ("BODY_BASE_MODEL", "a b", MODEL),
        ("OPENAI_BASE_URL", "api.openai.com", BASE),
        ("OPENAI_BASE_URL", "ftp://host/v1", BASE),
        ("TUNELOOP_PUBLIC_URL", "host", BASE),
        ("TUNELOOP_LISTEN", "8080", "an IP address and a port, such as 127.0.0.1:8080 or [::]:8080"),
        ("TUNELOOP_ROLES", "api,cook", ROLES),
        ("TUNELOOP_ROLES", ",", ROLES),
        ("DATASET_STORE_URL", "gs://bucket", PLACE),
        ("TUNELOOP_WORKER_SLOTS", "0", "a whole number from 1 to 1024"),
        ("TUNELOOP_LEASE_SECONDS", "1", "a whole number from 5 to 3600"),
        ("TUNELOOP_POLL_INTERVAL_MS", "0.5", "a whole number from 10 to 60000"),
        ("TUNELOOP_SHUTDOWN_GRACE_SECONDS", "soon", "a whole number from 0 to 3600"),
        ("TUNELOOP_DATABASE_CONNECTIONS", "1", "a whole number from 2 to 1000"),
        ("TUNELOOP_LOG_FORMAT", "xml", "text or json"),
        ("RUST_LOG", "tuneloop=loud", "log directives, such as info or info,tuneloop=debug"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317", OTLP),
    ] {
        let line = refusal(&["serve"], &[DATABASE, KEY, (variable, value)]);
        assert_eq!(line, format!("{variable} is {value:?}: it takes {accepted}."));
    }
}

#[test]
fn secrets_are_refused_without_being_repeated() {
    let line = refusal(&["serve"], &[DATABASE, ("OPENAI_API_KEY", "sk-hidden word")]);
    assert!(line.starts_with("OPENAI_API_KEY cannot be used: it takes a provider's key"), "{line}");
    assert!(!line.contains("hidden"), "{line}");
    for command in [&["serve"][..], &["migrate"], &["keys", "create", "--role", "admin", "--name", "me"]] {
        let line = refusal(command, &[KEY, ("DATABASE_URL", "mysql://me:hidden@localhost/shop")]);
        assert_eq!(
            line,
            "DATABASE_URL cannot be used: it takes the URL of a Postgres database, such as \
             postgres://user@host/database."
        );
    }
    for value in ["./mlruns", "http://host/?a=1", "http://me:hidden@host"] {
        let line = refusal(&["serve"], &[DATABASE, KEY, ("MLFLOW_TRACKING_URI", value)]);
        let accepted = "an http or https URL, such as http://localhost:5000";
        assert!(
            line.starts_with(&format!("MLFLOW_TRACKING_URI cannot be used: it takes {accepted}")),
            "{line}"
        );
        assert!(!line.contains("hidden"), "{line}");
    }
}

#[test]
fn a_missing_database_is_asked_for_and_the_demo_named() {
    const LINE: &str = "DATABASE_URL is not set: give the URL of a Postgres database, such as \
                        postgres://user@host/database, or try `tuneloop demo`.";
    assert_eq!(refusal(&["serve"], &[]), LINE);
    assert_eq!(refusal(&["migrate"], &[]), LINE);
    // A variable that is set to nothing counts as not set.
    assert_eq!(refusal(&["serve"], &[("DATABASE_URL", "")]), LINE);
}

#[test]
fn a_variable_that_is_set_to_nothing_takes_its_default() {
    let empty = ["FINE_TUNING_MIN_EXAMPLES", "TUNELOOP_ROLES", "TUNELOOP_LISTEN", "RUST_LOG", "HOOK_MODEL"]
        .map(|variable| (variable, ""));
    let output = tuneloop(&["serve"], &[&empty[..], &[DATABASE, KEY]].concat());
    // The settings are accepted: it gets as far as the database, where nothing listens.
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn a_flag_at_fault_is_named_as_a_flag() {
    let line = refusal(&["serve", "--min-examples", "3"], &[DATABASE, KEY]);
    assert_eq!(line, "--min-examples is \"3\": it takes a whole number of at least 10.");
    let line = refusal(&["serve", "--roles=cook"], &[DATABASE, KEY, ("TUNELOOP_ROLES", "api")]);
    assert!(line.starts_with("--roles is \"cook\": it takes one or more of"), "{line}");
    let line = refusal(&["serve", "--listen"], &[DATABASE, KEY]);
    assert!(line.starts_with("--listen has no value"), "{line}");
    let line = refusal(&["serve", "--roles", "api", "--roles", "worker"], &[DATABASE, KEY]);
    assert_eq!(line, "--roles is given twice: give it once.");
}

#[test]
fn a_worker_at_openai_needs_a_key_and_others_do_not() {
    let line = refusal(&["serve"], &[DATABASE]);
    assert!(line.starts_with("OPENAI_API_KEY is not set: give the key"), "{line}");
    for (variable, value) in
        [("TUNELOOP_ROLES", "api,scheduler"), ("OPENAI_BASE_URL", "http://localhost:9/v1")]
    {
        assert_eq!(tuneloop(&["serve"], &[DATABASE, (variable, value)]).status.code(), Some(1), "{variable}");
    }
}

#[test]
fn azure_alone_is_enough_for_a_worker_and_is_named_whole() {
    const ENDPOINT: (&str, &str) = ("AZURE_OPENAI_ENDPOINT", "https://name.openai.azure.com");
    const AZURE_KEY: (&str, &str) = ("AZURE_OPENAI_API_KEY", "hidden");
    // The settings are accepted: it gets as far as the database, where nothing listens.
    assert_eq!(tuneloop(&["serve"], &[DATABASE, ENDPOINT, AZURE_KEY]).status.code(), Some(1));
    for also in [None, Some(KEY)] {
        let with = |half| [Some(DATABASE), Some(half), also].into_iter().flatten().collect::<Vec<_>>();
        let line = refusal(&["serve"], &with(ENDPOINT));
        let expected =
            "AZURE_OPENAI_ENDPOINT is set without AZURE_OPENAI_API_KEY: give the key of the resource too.";
        assert_eq!(line, expected);
        let line = refusal(&["serve"], &with(AZURE_KEY));
        let expected = "AZURE_OPENAI_API_KEY is set without AZURE_OPENAI_ENDPOINT: give the address of the resource too.";
        assert_eq!(line, expected);
    }
    let line = refusal(&["serve"], &[DATABASE, ENDPOINT, ("AZURE_OPENAI_API_KEY", "hidden word")]);
    assert!(line.starts_with("AZURE_OPENAI_API_KEY cannot be used") && !line.contains("hidden"), "{line}");
}

#[test]
fn credentials_for_mlflow_go_together_and_are_never_repeated() {
    const USER: (&str, &str) = ("MLFLOW_TRACKING_USERNAME", "ann");
    const PASSWORD: (&str, &str) = ("MLFLOW_TRACKING_PASSWORD", "hidden");
    const TOKEN: (&str, &str) = ("MLFLOW_TRACKING_TOKEN", "hidden");
    for (variables, expected) in [
        (
            &[USER][..],
            "MLFLOW_TRACKING_USERNAME is set without MLFLOW_TRACKING_PASSWORD: give the password too.",
        ),
        (
            &[PASSWORD][..],
            "MLFLOW_TRACKING_PASSWORD is set without MLFLOW_TRACKING_USERNAME: give the user too.",
        ),
        (
            &[USER, PASSWORD, TOKEN][..],
            "MLFLOW_TRACKING_TOKEN is set beside MLFLOW_TRACKING_USERNAME: give one of them.",
        ),
        (
            &[TOKEN][..],
            "MLflow credentials are set without MLFLOW_TRACKING_URI: give the server's URL too, or remove them.",
        ),
    ] {
        assert_eq!(refusal(&["serve"], &[&[DATABASE, KEY], variables].concat()), expected);
    }
    let line = refusal(&["serve"], &[DATABASE, KEY, ("MLFLOW_TRACKING_TOKEN", "hidden word")]);
    assert!(line.starts_with("MLFLOW_TRACKING_TOKEN cannot be used") && !line.contains("hidden"), "{line}");
}

#[test]
fn a_directory_to_publish_to_must_be_there() {
    let line = refusal(&["serve", "--publication-dir", "/nowhere/at/all"], &[DATABASE, KEY]);
    assert!(
        line.starts_with("The directory /nowhere/at/all of --publication-dir cannot be opened"),
        "{line}"
    );
}

#[test]
fn a_reader_that_ends_early_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tuneloop"));
    let output = command.arg("openapi").env_clear().stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn text_in_another_encoding_is_refused_by_name() {
    let output = Command::new(env!("CARGO_BIN_EXE_tuneloop"))
        .arg("serve")
        .env_clear()
        .envs([DATABASE, KEY])
        .env("HOOK_MODEL", std::ffi::OsStr::from_bytes(b"mod\xe8le"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(one_line(&output), "HOOK_MODEL is not valid UTF-8: give it as text.");
}

#[test]
fn what_the_program_does_not_have_is_answered_with_a_hint() {
    let line = refusal(&["serve", "--frobnicate"], &[DATABASE, KEY]);
    assert_eq!(line, "tuneloop serve has no --frobnicate: see `tuneloop serve --help`.");
    let line = refusal(&["serve", "--lissten", "0.0.0.0:80"], &[DATABASE, KEY]);
    assert_eq!(line, "tuneloop serve has no --lissten, but --listen: see `tuneloop serve --help`.");
    assert_eq!(refusal(&["dance"], &[]), "tuneloop has no command dance: see `tuneloop --help`.");
    assert_eq!(
        refusal(&["keys", "burn"], &[]),
        "tuneloop keys has no command burn: see `tuneloop keys --help`."
    );
}

#[test]
fn a_key_needs_a_role_and_a_name() {
    let line = refusal(&["keys", "create", "--name", "ci"], &[DATABASE]);
    assert_eq!(line, "--role is not set: it takes viewer, operator or admin.");
    let line = refusal(&["keys", "create", "--name", "ci", "--role", "boss"], &[DATABASE]);
    assert_eq!(line, "--role is \"boss\": it takes viewer, operator or admin.");
    let line = refusal(&["keys", "create", "--role", "viewer"], &[DATABASE]);
    assert_eq!(line, "--name is not set: see `tuneloop keys create --help`.");
    let line = refusal(&["keys", "create", "--role", "viewer", "--name", " "], &[DATABASE]);
    assert_eq!(line, "--name is \" \": it takes a name, such as ci or maria.");
}

#[test]
fn help_reads_well_and_hides_secrets() {
    const COMMANDS: [&[&str]; 13] = [
        &[],
        &["serve"],
        &["demo"],
        &["migrate"],
        &["simulate"],
        &["openapi"],
        &["keys"],
        &["keys", "create"],
        &["keys", "list"],
        &["keys", "revoke"],
        &["audit"],
        &["audit", "verify"],
        &["audit", "export"],
    ];
    let variables = [("DATABASE_URL", "postgres://me:hidden@host/db"), ("OPENAI_API_KEY", "sk-hidden")];
    for command in COMMANDS {
        let output = tuneloop(&[command, &["--help"]].concat(), &variables);
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        let about = help.lines().next().unwrap();
        assert!((20..=100).contains(&about.len()), "{about}");
        assert!(!help.contains("hidden"), "{help}");
        assert!(help.lines().all(|line| line.len() <= 112), "{help}");
    }
    let help = String::from_utf8(tuneloop(&["serve", "--help"], &[]).stdout).unwrap();
    let headings: Vec<_> =
        help.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')).collect();
    let expected = [
        "Options:",
        "Service:",
        "Database:",
        "Provider:",
        "New pipelines:",
        "Worker:",
        "Publication:",
        "Notifications:",
        "Addresses that users name:",
        "Tracking:",
        "Logs & traces:",
    ];
    assert!(expected.iter().all(|heading| headings.contains(heading)), "{headings:?}");
    assert_eq!(headings.len(), expected.len(), "{headings:?}");
    for setting in [
        "[env: FINE_TUNING_MIN_EXAMPLES=]",
        "[default: 100]",
        "[env: DATABASE_URL]",
        "[env: RUST_LOG=]",
        "[default: gpt-3.5-turbo-0125]",
        "[possible values: text, json]",
    ] {
        assert!(help.contains(setting), "{setting} is missing in\n{help}");
    }
}

#[test]
fn version_and_bare_call() {
    let output = tuneloop(&["--version"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("tuneloop {}\n", env!("CARGO_PKG_VERSION"))
    );
    let output = tuneloop(&[], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("Usage: tuneloop <COMMAND>"));
}

#[test]
fn what_goes_wrong_later_is_one_sentence_with_its_cause() {
    let output = tuneloop(&["migrate"], &[DATABASE]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("cannot connect to the database nothing at 127.0.0.1:1: "), "{text}");
    assert_eq!(text.matches("refused").count(), 1, "{text}");
}
