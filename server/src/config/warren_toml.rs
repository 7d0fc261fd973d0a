//! Reads `warren.toml`. A key that nobody knows is an error, for a misspelt limit is no limit.

use super::nearest::nearest;
use super::{Config, ConfigError, ENSEMBLE_KEYS, Ensemble, KEYS, Loaded, Overrides, Warning};
use toml::de::{DeTable, DeValue};

pub(super) fn load(text: &str, flags: &Overrides) -> Result<Loaded, ConfigError> {
    let syntax = |error: toml::de::Error| ConfigError::Syntax {
        line: error.span().map_or(1, |span| line_of(text, span.start)),
        reason: error.message().to_owned(),
    };
    let table = DeTable::parse(text).map_err(syntax)?;
    let written = keys_written(text, table.get_ref());
    for (key, line) in &written {
        known(key, *line)?;
    }
    let mut config: Config = toml::from_str(text).map_err(syntax)?;
    let line_of_key = |name: &str| written.iter().find(|(key, _)| key == name).map(|(_, line)| *line);
    if let Some(ensemble) = &config.ensemble {
        if let Some(server) = ensemble.servers.iter().find(|server| server.client_addr.is_none()) {
            return Err(ConfigError::Invalid {
                line: line_of_key("ensemble.server.id"),
                key: "ensemble.server.client_addr".to_owned(),
                reason: format!("server {} has no client_addr", server.id),
            });
        }
        let own = ensemble.servers.iter().find(|server| server.id == ensemble.server_id);
        if let (Some(own), None) = (own.and_then(|own| own.client_addr.clone()), line_of_key("client.addr")) {
            config.client.addr = own;
        }
    }
    config.lay_over(flags);
    config.validate().map_err(|bad| {
        let line = line_of_key(bad.key);
        bad.at_line(line)
    })?;
    let line = line_of_key("ensemble.server_id").unwrap_or(1);
    let odd = config.ensemble.as_ref().map_or(Vec::new(), Ensemble::oddities);
    Ok(Loaded {
        config,
        warnings: odd
            .into_iter()
            .map(|odd| Warning { line, text: format!("[[ensemble.server]]: {odd}") })
            .collect(),
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// Each key with its section and its line; a section that nobody knows stands for all its keys.
fn keys_written(text: &str, table: &DeTable<'_>) -> Vec<(String, usize)> {
    let mut written = Vec::new();
    for (section, value) in table {
        let line = line_of(text, section.span().start);
        let name = section.get_ref().as_ref();
        if let ("ensemble", DeValue::Table(keys)) = (name, value.get_ref()) {
            ensemble_keys_written(text, keys, &mut written);
            continue;
        }
        let known_section =
            KEYS.iter().any(|key| key.name.split_once('.').is_some_and(|(within, _)| within == name));
        match value.get_ref() {
            DeValue::Table(keys) if known_section => written.extend(
                keys.keys().map(|key| (format!("{name}.{}", key.get_ref()), line_of(text, key.span().start))),
            ),
            _ => written.push((name.to_owned(), line)),
        }
    }
    written.sort_by_key(|(_, line)| *line);
    written
}

/// The same for `[ensemble]`, whose servers are tables in a list.
fn ensemble_keys_written(text: &str, keys: &DeTable<'_>, written: &mut Vec<(String, usize)>) {
    for (key, value) in keys {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("server", DeValue::Array(servers)) => {
                for server in servers {
                    let DeValue::Table(keys) = server.get_ref() else { continue };
                    written.extend(keys.keys().map(|key| {
                        (format!("ensemble.server.{}", key.get_ref()), line_of(text, key.span().start))
                    }));
                }
            }
            (name, _) => written.push((format!("ensemble.{name}"), line_of(text, key.span().start))),
        }
    }
}

fn known(key: &str, line: usize) -> Result<(), ConfigError> {
    let keys = || KEYS.iter().chain(ENSEMBLE_KEYS);
    let sections = keys().filter_map(|key| key.name.split_once('.')).map(|(section, _)| section);
    let names = || keys().map(|known| known.name).chain(["ensemble.server"]);
    if names().any(|name| name == key) || sections.clone().any(|section| section == key) {
        return Ok(()); // A section's name with a plain value: serde says what is wrong with it.
    }
    let (_, last) = key.rsplit_once('.').unwrap_or(("", key));
    let misplaced = names().find(|name| name.rsplit_once('.').is_some_and(|(_, bare)| bare == last));
    let near = misplaced.or_else(|| nearest(key, names())).or_else(|| nearest(key, sections));
    Err(ConfigError::UnknownKey { line, key: key.to_owned(), nearest: near.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Listen, SuperDigest};

    fn read(text: &str) -> Result<Config, String> {
        load(text, &Overrides::default()).map(|loaded| loaded.config).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_are_read_and_the_rest_keeps_its_default() {
        let config = read(
            "data_dir = '/var/lib/warren'\n[client]\naddr = '*:2181'\n[metrics]\naddr = 'off'\n\
             [limits]\nmemory_mb = 512\n[security]\nsuper_digest = 'super:D/InIHSb7yEEbrWz8b9l71RjZJU='\n\
             [four_letter_words]\nwhitelist = ['ruok', '*']\n",
        )
        .unwrap();
        assert_eq!(config.client.addr.host, "*");
        assert_eq!(config.metrics.addr, Listen::Off);
        assert_eq!(config.limits.memory_mb, 512);
        assert_eq!(config.limits.packet_bytes_max, 1_048_575);
        assert_eq!(
            config.security.super_digest,
            Some(SuperDigest("super:D/InIHSb7yEEbrWz8b9l71RjZJU=".into()))
        );
        assert_eq!(read("").unwrap(), Config::default());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, said) in [
            ("data_dr = '/x'", "line 1: unknown key `data_dr`; did you mean `data_dir`?"),
            (
                "[limits]\n\nmemory = 1",
                "line 3: unknown key `limits.memory`; did you mean `limits.memory_mb`?",
            ),
            ("memory_mb = 1", "line 1: unknown key `memory_mb`; did you mean `limits.memory_mb`?"),
            (
                "[storage]\nmemory_mb = 1",
                "line 2: unknown key `storage.memory_mb`; did you mean `limits.memory_mb`?",
            ),
            ("[limit]\nmemory_mb = 1", "line 1: unknown key `limit`; did you mean `limits`?"),
            ("[colours]\nred = 1", "line 1: unknown key `colours`"),
            (
                "[ensemble]\nservers = []",
                "line 2: unknown key `ensemble.servers`; did you mean `ensemble.server`?",
            ),
            ("\n[limits]\nmemory_mb = 1", "line 3: limits.memory_mb: 1 is not between 16 and 1048576 MiB"),
            (
                "[limits]\nznode_bytes_max = 1048577",
                "line 2: limits.znode_bytes_max: 1048577 is not between 1 and 1048576 bytes; \
                 it can be lowered but not raised",
            ),
            (
                "[sessions]\ntimeout_ms_min = 50000",
                "line 2: sessions.timeout_ms_min: 50000 is above timeout_ms_max, 40000",
            ),
            (
                "[security]\nsuper_digest = 'x'",
                "line 2: security.super_digest: is not of the form USER:BASE64",
            ),
            (
                "[four_letter_words]\nwhitelist = ['rouk']",
                "`rouk` is not a four-letter word; did you mean `ruok`?",
            ),
            ("a = 1\na = 2", "line 2: duplicate key"),
            ("[client]\naddr = '2181'", "line 2: `2181` is not an address: it has no port (HOST:PORT)"),
            ("[limits]\nmemory_mb = 'much'", "line 2: invalid type: string \"much\", expected u32"),
            ("limits = 3", "line 1: invalid type"),
            ("[limits]\nmemory_mb = -1", "line 2: invalid value: integer `-1`"),
            ("[client\n", "line 1: "),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(said), "{text:?}\n  said {error:?}\n  not  {said:?}");
        }
    }

    #[test]
    fn a_section_may_be_written_with_dots() {
        assert_eq!(read("limits.memory_mb = 64").unwrap().limits.memory_mb, 64);
        let error = read("\nlimits.memory_bm = 64").unwrap_err();
        assert!(error.starts_with("line 2: unknown key `limits.memory_bm`"), "{error}");
    }
}
