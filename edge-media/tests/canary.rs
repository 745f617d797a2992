//! The demo as a user runs it, with its log at the finest level: what the parties said, the
//! caller's number and every secret of its configuration are in no line of the log, in nothing
//! that it prints, and not in its report. How well the call went is the demo's own business.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::process::Command;

/// What is said in the call, besides the lines of the demo's catalogue.
const SAID: [&str; 3] = ["15555550142", "Dana Ortiz", "lisinopril"];
/// The demo's configuration, which lies in its data directory.
const SECRETS: [&str; 3] = [
    "demo-softphone-password",
    "demo-desktop-token-0123456789",
    "whsec_ZGVtby1zaWduaW5nLXNlY3JldC0wMTIzNDU2Nzg5",
];

#[test]
fn the_demo_logs_and_prints_nothing_personal_and_no_secret() {
    let data = tempfile::tempdir().unwrap();
    let report = data.path().join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_warmbridge"))
        .args(["--log", "json", "demo", "--data"])
        .arg(data.path())
        .arg("--report")
        .arg(&report)
        .env("WARMBRIDGE_LOG", "trace")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let log = String::from_utf8_lossy(&output.stderr);
    let report = std::fs::read_to_string(report).unwrap();
    // The call did take place, and the log does reach down to the finest level.
    assert!(report.contains("bridge.completed"), "{printed}\n{report}");
    assert!(
        log.contains("\"level\":\"TRACE\"") || log.contains("\"level\":\"DEBUG\""),
        "{} bytes",
        log.len()
    );

    let configuration = std::fs::read_to_string(data.path().join("warmbridge.toml")).unwrap();
    let catalogue = include_str!("../clips/demo.toml");
    let lines: Vec<&str> = catalogue.lines().filter_map(|line| line.split(" = \"").nth(1)).collect();
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end_matches('"')).collect();
    assert!(
        lines.len() > 5 && SAID.iter().skip(1).all(|word| catalogue.contains(word)),
        "the demo says other lines"
    );
    assert!(SECRETS.iter().all(|secret| configuration.contains(secret)), "the demo has other secrets");
    for word in SAID.iter().chain(&SECRETS).chain(&lines) {
        for (place, text) in
            [("the log", log.as_ref()), ("what is printed", printed.as_ref()), ("the report", &report)]
        {
            let line = text.lines().find(|line| line.contains(word));
            assert_eq!(line, None, "{word:?} is in {place}");
        }
    }
}
