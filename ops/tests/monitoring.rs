//! Alerts, runbooks and dashboards speak of what there is, and of all of it.
#![allow(clippy::disallowed_methods, reason = "this is io: files")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use warren_ops::runbook::RUNBOOKS;
use warren_server::metrics::DECLARED;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn files(name: &str, ending: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = std::fs::read_dir(folder(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "there is nothing in {name}");
    found
}

/// An alert as it stands in the file, which has one line for each of its parts.
struct Alert {
    name: String,
    expr: String,
    runbook: String,
}

fn alerts() -> Vec<Alert> {
    let text = std::fs::read_to_string(folder("alerts/warren.yml")).unwrap();
    let mut alerts: Vec<Alert> = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("- alert: ") {
            alerts.push(Alert { name: name.into(), expr: String::new(), runbook: String::new() });
        } else if let Some(last) = alerts.last_mut() {
            if let Some(expr) = line.strip_prefix("expr: ") {
                last.expr = expr.into();
            } else if let Some(runbook) = line.strip_prefix("runbook: ") {
                last.runbook = runbook.into();
            }
        }
    }
    alerts
}

/// The names of series in a PromQL expression: words that are neither functions, keywords, labels, nor numbers.
fn series(expr: &str) -> BTreeSet<String> {
    const WORDS: [&str; 11] = [
        "by",
        "on",
        "and",
        "or",
        "unless",
        "without",
        "ignoring",
        "group_left",
        "group_right",
        "offset",
        "bool",
    ];
    /// Their labels may stand between them and their bracket.
    const AGGREGATES: [&str; 5] = ["sum", "max", "min", "avg", "count"];
    let mut found = BTreeSet::new();
    let (mut rest, mut labels) = (expr, false);
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let end = rest[1..].find('"').expect("a string ends") + 2;
            rest = &rest[end..];
        } else if c.is_ascii_alphabetic() || c == '_' {
            let end =
                rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let next = after.trim_start().chars().next();
            if WORDS.contains(&word) {
                // The labels that it names stand in brackets.
                if let Some(list) = after.trim_start().strip_prefix('(') {
                    rest = &list[list.find(')').expect("a list ends") + 1..];
                    continue;
                }
            } else if !labels && next != Some('(') && !AGGREGATES.contains(&word) {
                found.insert(word.to_owned());
            }
            rest = after;
        } else if c.is_ascii_digit() || c == '[' || c == '$' {
            // A number with its unit, a range, or a variable of the dashboard.
            let stop = |c: char| {
                if rest.starts_with('[') { c == ']' } else { !c.is_ascii_alphanumeric() && c != '.' }
            };
            let end = rest[1..].find(stop).map_or(rest.len(), |end| end + 1);
            rest = &rest[end..];
        } else {
            labels = if c == '{' { true } else { labels && c != '}' };
            rest = &rest[c.len_utf8()..];
        }
    }
    found
}

/// What Prometheus makes itself.
const PROMETHEUS: [&str; 2] = ["up", "ALERTS"];

fn must_be_declared(what: &str, expr: &str) {
    let declared: BTreeSet<String> = DECLARED.iter().flat_map(|d| d.kind.series(d.name)).collect();
    let asked = series(expr);
    assert!(!asked.is_empty(), "{what} asks for nothing: {expr}");
    for name in asked {
        assert!(
            declared.contains(&name) || PROMETHEUS.contains(&name.as_str()),
            "{what} asks for {name}, which no server has: {expr}"
        );
    }
}

#[test]
fn names_of_series_are_found() {
    let found = series(
        "sum by (job, le) (rate(a_bucket{job=~\"x y\", le!=\"1\"}[5m])) > 0.8 * on (job) group_left () b",
    );
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a_bucket", "b"]);
    assert_eq!(series("predict_linear(c[1h], 4 * 3600) < 1e9 or vector(1)").into_iter().next().unwrap(), "c");
    assert_eq!(series("rate(d{instance=\"$instance\"}[$__rate_interval])").len(), 1);
}

#[test]
fn each_alert_has_its_runbook_and_asks_for_what_there_is() {
    let alerts = alerts();
    for Alert { name, expr, runbook } in &alerts {
        assert_eq!(*runbook, format!("warren runbook {name}"));
        must_be_declared(name, expr);
    }
    let named: Vec<&str> = alerts.iter().map(|alert| alert.name.as_str()).collect();
    let printed: Vec<&str> = RUNBOOKS.iter().map(|(name, _)| *name).collect();
    assert_eq!(named, printed, "alerts, and the runbooks that the command has");
    let mut named: Vec<String> = named.into_iter().map(str::to_owned).collect();
    named.push("README".into());
    named.sort();
    let kept: Vec<String> = files("runbooks", "md").into_iter().map(|(name, _)| name).collect();
    assert_eq!(named, kept, "alerts, and the files of runbooks");
}

#[test]
fn runbooks_have_their_four_parts_and_commands_that_look() {
    for (name, text) in RUNBOOKS {
        let parts: Vec<&str> = text.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(parts, ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"], "{name}");
        let diagnosis = text.split("## Diagnosis").nth(1).unwrap().split("## Mitigation").next().unwrap();
        assert!(diagnosis.contains("```sh\n"), "{name} has nothing to look by");
        let mitigation = text.split("## Mitigation").nth(1).unwrap();
        assert!(!mitigation.contains("```sh\n"), "what the tests run changes nothing: {name}");
        assert!(mitigation.contains("\n1. "), "{name}");
        // Another runbook is named as it is called.
        for word in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| {
            word.strip_prefix("Warren").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
        }) {
            assert!(RUNBOOKS.iter().any(|(known, _)| known == &word), "{name} names {word}");
        }
    }
}

/// Every query of a dashboard, with its panel's title.
fn queries(value: &serde_json::Value, title: &str, found: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(object) => {
            let title = object.get("title").and_then(|t| t.as_str()).unwrap_or(title);
            if let Some(expr) = object.get("expr").and_then(|e| e.as_str()) {
                found.push((title.to_owned(), expr.to_owned()));
            }
            object.values().for_each(|value| queries(value, title, found));
        }
        serde_json::Value::Array(all) => all.iter().for_each(|value| queries(value, title, found)),
        _ => {}
    }
}

#[test]
fn panels_ask_for_what_there_is() {
    for (name, text) in files("dashboards", "json") {
        let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut found = Vec::new();
        queries(&dashboard, "", &mut found);
        assert!(found.len() > 10, "{name} has {} queries", found.len());
        for (title, expr) in found {
            must_be_declared(&format!("{name}, {title}"), &expr);
        }
    }
}

/// The page names what there is, and all that is of interest can be found from there.
#[test]
fn the_manual_names_metrics_alerts_and_limits_that_there_are() {
    for page in ["monitoring", "limits"] {
        let text = std::fs::read_to_string(folder("manual").join(format!("{page}.md"))).unwrap();
        for quoted in text.split('`').skip(1).step_by(2) {
            let plain =
                quoted.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.".contains(&b));
            if plain && quoted.starts_with("warren_") {
                let known = DECLARED
                    .iter()
                    .any(|d| d.kind.series(d.name).iter().any(|s| s == quoted) || d.name == quoted);
                assert!(known, "{page}.md names {quoted}");
            }
            let section = quoted.split_once('.').map(|(section, _)| section);
            let sections =
                ["client", "limits", "sessions", "storage", "metrics", "admin", "znodes", "security"];
            if plain && section.is_some_and(|section| sections.contains(&section)) {
                assert!(
                    warren_server::config::KEYS.iter().any(|key| key.name == quoted),
                    "{page}.md names {quoted}"
                );
            }
        }
    }
    let limits = std::fs::read_to_string(folder("manual/limits.md")).unwrap();
    for key in warren_server::config::KEYS
        .iter()
        .filter(|key| key.name.ends_with("_max") || key.name.starts_with("limits."))
    {
        assert!(limits.contains(key.name), "limits.md does not name {}", key.name);
    }
}
