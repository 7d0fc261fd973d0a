//! The rules of the house, so far as a machine can tell.
#![allow(clippy::disallowed_methods, reason = "this is io: files and other programs")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Left to right; a crate uses only what stands to its left.
const LINE: [&str; 5] = ["storage", "transport", "server", "ops", "tests"];
/// What may stand at the top, beside the crates and dot files.
const TOP: [&str; 10] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "rustfmt.toml",
];
/// Longer files are not looked into: lists of dependencies and recorded data.
const UNREAD: [&str; 3] = ["Cargo.lock", "go.sum", "LICENSE"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the house").to_owned()
}

/// Files of the repository, from its root; those not committed yet count too.
fn files() -> Vec<PathBuf> {
    let out = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    assert!(out.status.success(), "git ls-files failed");
    let names = String::from_utf8(out.stdout).expect("file names are UTF-8");
    names.split_terminator('\0').map(PathBuf::from).filter(|name| root().join(name).is_file()).collect()
}

fn texts() -> impl Iterator<Item = (PathBuf, String)> {
    let read =
        |name: &PathBuf| !UNREAD.iter().any(|unread| name.file_name().is_some_and(|file| file == *unread));
    files().into_iter().filter(read).filter_map(|name| {
        let text = fs::read_to_string(root().join(&name)).ok()?;
        Some((name, text))
    })
}

#[test]
fn a_crate_uses_only_what_stands_to_its_left() {
    for (place, name) in LINE.iter().enumerate() {
        let text = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = toml::from_str(&text).unwrap();
        let mut tables: Vec<&toml::Table> = vec![&manifest];
        let targets = manifest.get("target").and_then(toml::Value::as_table);
        tables.extend(targets.into_iter().flat_map(|t| t.values()).filter_map(toml::Value::as_table));
        for table in tables {
            for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
                let used = table.get(kind).and_then(toml::Value::as_table);
                for krate in used.into_iter().flat_map(toml::Table::keys) {
                    let Some(krate) = krate.strip_prefix("warren-") else { continue };
                    let at = LINE.iter().position(|other| *other == krate).expect("it stands in the line");
                    assert!(at < place, "{name} uses {krate}, which does not stand to its left");
                }
            }
        }
    }
}

#[test]
fn the_top_of_the_house_is_tidy() {
    for name in files() {
        let mut parts = name.components().map(|part| part.as_os_str().to_string_lossy());
        let first = parts.next().expect("a file has a name");
        let known =
            LINE.contains(&&*first) || TOP.contains(&&*first) || first == "systemd" || first.starts_with('.');
        assert!(known, "{} does not belong at the top", name.display());
    }
}

#[test]
fn nothing_names_a_machine_or_a_registry() {
    // Put together here, so that this file does not hold what it looks for.
    let paths = ["root", "work", "home"].map(|folder| format!("/{folder}/"));
    let hosts = [
        ["index", ".crates.io"],
        ["static", ".crates.io"],
        ["proxy", ".golang.org"],
        ["pypi", ".org"],
        ["pythonhosted", ".org"],
        ["repo.maven", ".apache.org"],
        ["repo1", ".maven.org"],
        ["deb", ".debian.org"],
        ["registry", ".npmjs.org"],
    ]
    .map(|parts| parts.concat());
    for (name, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            let at = || format!("{}:{}: {line}", name.display(), number + 1);
            assert!(!hosts.iter().any(|host| line.contains(host.as_str())), "a registry's host: {}", at());
            for path in &paths {
                // A folder of the project may be called so; a path from the top may not.
                let from_top = line.match_indices(path.as_str()).any(|(start, _)| {
                    !line[..start].ends_with(|c: char| c.is_alphanumeric() || "._-}])\"".contains(c))
                });
                assert!(!from_top, "a path of some machine: {}", at());
            }
        }
    }
}

#[test]
fn scripts_are_sound_and_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let mut seen = 0;
    for (name, text) in texts() {
        let bash = text.starts_with("#!/usr/bin/env bash");
        if !bash && name.extension().is_none_or(|e| e != "sh") {
            continue;
        }
        seen += 1;
        let checked = Command::new("bash").arg("-n").arg(root().join(&name)).output().expect("bash runs");
        assert!(checked.status.success(), "{}: {}", name.display(), String::from_utf8_lossy(&checked.stderr));
        let mode = fs::metadata(root().join(&name)).unwrap().permissions().mode();
        assert_eq!(
            bash,
            mode & 0o111 != 0,
            "{}: what has a first line for it is run, and nothing else",
            name.display()
        );
    }
    assert!(seen > 5, "there are scripts");
}

#[test]
fn the_lock_file_is_in_step() {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1", "--no-deps"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// The oldest Rust that we say we are built with is no older than any that a crate below us asks for, and the README says the same.
#[test]
fn the_oldest_rust_is_told_truly() {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).expect("cargo tells JSON");
    let number = |text: &str| -> Vec<u32> { text.split('.').map(|part| part.parse().unwrap()).collect() };
    let packages = told["packages"].as_array().expect("there are packages");
    let asked = |package: &serde_json::Value| package["rust_version"].as_str().map(str::to_owned);
    let ours = packages.iter().find(|package| package["name"] == "warren-tests").and_then(asked);
    let ours = ours.expect("our own say it");
    for package in packages {
        if let Some(theirs) = asked(package) {
            let name = &package["name"];
            assert!(number(&theirs) <= number(&ours), "{name} asks for Rust {theirs}, and we say {ours}");
        }
    }
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&format!("Rust {ours} or later")), "the README says another one than {ours}");
}

#[test]
fn every_dependency_has_its_line_in_contributing() {
    let contributing = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let mut missing = Vec::new();
    for manifest in LINE.map(|name| root().join(name).join("Cargo.toml")) {
        let manifest: toml::Table = toml::from_str(&fs::read_to_string(manifest).unwrap()).unwrap();
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let used = manifest.get(kind).and_then(toml::Value::as_table);
            for krate in used.into_iter().flat_map(toml::Table::keys) {
                if !krate.starts_with("warren-") && !contributing.contains(&format!("| `{krate}` |")) {
                    missing.push(krate.clone());
                }
            }
        }
    }
    missing.sort();
    missing.dedup();
    assert!(missing.is_empty(), "without a line that says what for, and why this one: {missing:?}");
}
