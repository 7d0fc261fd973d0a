//! The manual says what the code does.
#![allow(clippy::disallowed_methods, reason = "this is io: files and the environment")]

use std::path::Path;

#[test]
fn the_configuration_page_is_in_step() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("manual/configuration.md");
    let made = warren_ops::configuration();
    if std::env::var("WARREN_REWRITE").is_ok() {
        std::fs::write(&page, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&page).unwrap();
    assert!(kept == made, "make it anew: WARREN_REWRITE=1 cargo test -p warren-ops");
}

/// A page that another one sends the reader to is there.
#[test]
fn pages_that_are_named_are_there() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("manual");
    let mut named = 0;
    for entry in std::fs::read_dir(&manual).unwrap() {
        let page = entry.unwrap().path();
        let text = std::fs::read_to_string(&page).unwrap();
        let words = text.split(|c: char| c.is_whitespace() || "()[]`,;".contains(c));
        for word in words.filter(|word| word.trim_end_matches('.').ends_with(".md")) {
            let word = word.trim_end_matches('.').trim_start_matches("ops/manual/");
            if !word.contains("://") {
                named += 1;
                let at_the_top = manual.join("../..").join(word);
                let there = manual.join(word).exists() || at_the_top.exists();
                assert!(there, "{} names {word}", page.display());
            }
        }
    }
    assert!(named > 0, "no page names another");
}
