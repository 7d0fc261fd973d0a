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
