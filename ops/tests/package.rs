//! What is installed on a host is sound, and the manual's way there is short.
#![allow(clippy::disallowed_methods, reason = "this is io: files")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use warren_server::config::{Config, FileText, Overrides, load};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("ops/ stands in the house").to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn the_settings_as_installed_are_the_defaults_in_the_hosts_folder() {
    let text = read("systemd/warren.toml");
    let loaded = load(FileText::WarrenToml(&text), &Overrides::default()).unwrap();
    assert!(loaded.warnings.is_empty());
    assert_eq!(loaded.config, Config { data_dir: "/var/lib/warren".into(), ..Config::default() });
    // What is commented out is sound as well, once it is not: three servers.
    let settings: Vec<&str> = text
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap_or(line))
        .filter(|line| {
            line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
        })
        .collect();
    let loaded = load(FileText::WarrenToml(&settings.join("\n")), &Overrides::default()).unwrap();
    assert_eq!(loaded.config.ensemble.unwrap().servers.len(), 3);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn units_and_settings_agree() {
    let unit = read("systemd/warrend.service");
    let files: u64 = value(&unit, "LimitNOFILE").parse().unwrap();
    assert!(files > 2 * u64::from(Config::default().client.connections_max));
    assert_eq!(value(&unit, "StateDirectory"), "warren");
    assert!(read("systemd/warren-backup.service").contains("--data-dir /var/lib/warren "));
    for user in ["systemd/warrend.service", "systemd/warren-backup.service"] {
        assert_eq!(value(&read(user), "User"), "warren");
    }
    assert!(read("systemd/sysusers.conf").contains("u warren "));
}

fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    let lines: Vec<&str> =
        unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
    assert_eq!(lines.len(), 1, "{key} stands there once");
    lines[0]
}

#[test]
fn an_ensemble_of_three_takes_fifteen_commands_at_most() {
    let mut hosts: Vec<&str> = Vec::new();
    let (mut commands, mut on) = (0, BTreeSet::new());
    let page = read("ops/manual/installing.md");
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(fence) => hosts = fence.split(' ').skip(1).filter(|host| host.starts_with("host")).collect(),
            None if !hosts.is_empty() => {
                commands += hosts.len();
                on.extend(hosts.iter().copied());
            }
            None => {}
        }
    }
    assert_eq!(on.len(), 3);
    assert!((8..=15).contains(&commands), "{commands} commands");
}
