//! The classic cases, as conversations in `scenarios/`. What they say is what happens; to write down what happens now,
//! run with `UPDATE_SCENARIOS=1` and review the difference.
#![allow(
    clippy::disallowed_methods,
    reason = "the scenarios are files, and the wish to rewrite them is in the environment"
)]

use std::path::Path;
use warren_tests::sim::scenario;

#[test]
fn scenarios_play_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let update = std::env::var("UPDATE_SCENARIOS").is_ok();
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    let mut differ = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let written = std::fs::read_to_string(&file).unwrap();
        let played = scenario::play(&written).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(!played.contains("!!"), "{name} breaks a property:\n{played}");
        if played == written {
            continue;
        }
        if update {
            std::fs::write(&file, played).unwrap();
        } else {
            differ.push(format!("{name} plays as:\n{played}"));
        }
    }
    assert!(differ.is_empty(), "{}\nUPDATE_SCENARIOS=1 writes them down", differ.join("\n"));
}
