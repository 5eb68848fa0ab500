//! The programs of `docs/webhooks.md` that verify a notice, run as they stand there.

use std::process::Command;

use chrono::TimeDelta;
use tuneloop::clock::Clock;
use tuneloop::standard_webhooks::WebhookSecret;

use crate::verify;

const SECRET: &str = "whsec_dHVuZWxvb3AncyB0ZXN0cw==";

/// The block of code that follows a heading.
fn documented(language: &str) -> &'static str {
    let text = include_str!("../../docs/webhooks.md");
    let block = text.split(&format!("```{language}\n")).nth(1).expect("docs/webhooks.md has the program");
    block.split("```").next().unwrap()
}

/// Calls the program's `verify` for a notice; whether it believed it.
fn believed(program: &str, flag: &str, code: &str, call: &str) -> bool {
    let output = Command::new(program).args([flag, &format!("{code}\n{call}")]).output();
    let output = output.unwrap_or_else(|error| panic!("the test needs {program}: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
    match String::from_utf8(output.stdout).unwrap().trim().to_lowercase().as_str() {
        "true" => true,
        "false" => false,
        other => panic!("{program} said {other}"),
    }
}

fn check(program: &str, flag: &str, language: &str, print: &str) {
    let code = documented(language);
    assert!(code.lines().count() <= 15, "{language}: {} lines", code.lines().count());
    let body = r#"{"specversion":"1.0","data":{"name":"zoe \u00eb"}}"#;
    let sign =
        |time: i64| WebhookSecret::new(SECRET).unwrap().sign("msg_1", &time.to_string(), body.as_bytes());
    let now = Clock::system().now().timestamp();
    let old = (Clock::system().now() - TimeDelta::minutes(6)).timestamp();
    let right = sign(now);
    let other =
        WebhookSecret::new("whsec_b3RoZXI=").unwrap().sign("msg_1", &now.to_string(), body.as_bytes());
    for (time, signature, expected) in [
        (now, right.clone(), true),
        (now, format!("{other} {right}"), true),
        (now, other, false),
        (now, right.trim_start_matches("v1,").to_owned(), false),
        (old, sign(old), false),
    ] {
        let headers = format!(
            r#"{{"webhook-id": "msg_1", "webhook-timestamp": "{time}", "webhook-signature": "{signature}"}}"#
        );
        let body = serde_json::to_string(body).unwrap();
        let call = print.replace("HEADERS", &headers).replace("BODY", &body);
        assert_eq!(believed(program, flag, code, &call), expected, "{language}: {signature}");
    }
}

#[test]
fn python_verifies() {
    check("python3", "-c", "python", &format!("print(verify({SECRET:?}, HEADERS, BODY.encode()))"));
}

#[test]
fn node_verifies() {
    check("node", "-e", "js", &format!("console.log(verify({SECRET:?}, HEADERS, Buffer.from(BODY)))"));
}

#[test]
fn rust_verifies() {
    // The same but for how it is laid out.
    let plain = |text: &str| text.split_whitespace().collect::<String>();
    assert!(
        plain(include_str!("verify.rs"))
            .replace(",)", ")")
            .contains(&plain(documented("rust")).replace(",)", ")"))
    );
    let now = Clock::system().now().timestamp();
    let right = WebhookSecret::new(SECRET).unwrap().sign("msg_1", &now.to_string(), b"{}");
    let verify = |signatures: &str, body: &[u8], at| {
        verify::verify(SECRET, "msg_1", &now.to_string(), signatures, body, at)
    };
    assert!(verify(&right, b"{}", now + 299) && verify(&format!("v1,AAAA {right}"), b"{}", now));
    assert!(
        !verify(&right, b"{ }", now) && !verify(&right, b"{}", now + 301) && !verify("v1,AAAA", b"{}", now)
    );
}
