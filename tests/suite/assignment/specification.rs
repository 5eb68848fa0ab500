//! The reference of `docs/assignment.md` is run as it stands there.

use std::process::Command;

const DOCUMENT: &str = include_str!("../../../docs/assignment.md");
const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/assignment/vectors.json");

/// Compares every vector with what the reference says, and counts them.
const DRIVER: &str = r#"
import json, sys
vectors = json.load(open(sys.argv[1], encoding="utf-8"))
for v in vectors:
    said = [bucket(v["traffic"]["salt"], v["unit"]), *assign(v["traffic"], v["pins"], v["unit"])]
    wanted = [v["bucket"], v["version"], v["reason"]]
    assert said == wanted, f"{v['what']}: {said} is not {wanted}"
print(len(vectors))
"#;

#[test]
fn the_python_reference_gives_every_vector() {
    if Command::new("python3").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI must have python3");
        eprintln!("skipped: there is no python3");
        return;
    }
    let code = DOCUMENT.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let program = format!("{code}{DRIVER}");
    let output = Command::new("python3").args(["-c", &program, VECTORS]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let count: usize = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!(count >= 20);
}
