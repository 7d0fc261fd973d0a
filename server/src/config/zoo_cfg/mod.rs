//! Reads an existing ZooKeeper's `zoo.cfg`, with ZooKeeper's meaning and defaults.
//!
//! `table.rs` says of every key what it does here: it is taken, it means nothing (and the operator is told why), or
//! it asks for something that must not be missing silently, and is refused. ZooKeeper turns any key `k` that it does
//! not know into the Java property `zookeeper.k`, so the properties of its manual stand in the table as well, without
//! their `zookeeper.`; with it they are understood too.

mod ensemble;
mod table;
#[cfg(test)]
mod tests;
mod values;

use super::nearest::nearest;
use super::properties::{self, Property};
use super::{Address, Config, ConfigError, Files, Listen, Loaded, Overrides, Warning};
use ensemble::{Keys, Servers};
use table::Does::{First, InEnsemble, Nothing, Refused, Takes};
use table::{Does, ENSEMBLE_ONLY, TABLE};
use values::REFUSED;

/// Under way: ZooKeeper's keys depend on each other, so some are settled at the end.
struct Draft {
    config: Config,
    /// Without their line.
    warnings: Vec<String>,
    client_port: Option<u16>,
    client_host: Option<String>,
    tick_ms: i32,
    /// −1 is unset.
    timeout_ms_min: i32,
    /// −1 is unset.
    timeout_ms_max: i32,
    metrics_class: String,
    metrics_host: String,
    metrics_port: Option<u16>,
    admin_enabled: bool,
    admin_host: String,
    admin_port: u16,
    servers: Servers,
    ensemble: Keys,
}

impl Draft {
    /// ZooKeeper's defaults, where Warren's differ. `dataDir` and `clientPort` have none.
    fn new(servers: Servers) -> Draft {
        let mut config = Config { data_dir: "".into(), ..Config::default() };
        config.metrics.addr = Listen::Off;
        config.client.listen_backlog = 0;
        config.client.connections_max = 0;
        config.client.connections_per_address_max = 60;
        config.limits.outstanding_max = 1_000;
        config.znodes.quotas_enforced = false;
        config.znodes.ttl_enabled = false;
        config.four_letter_words.whitelist = vec!["srvr".to_owned()];
        Draft {
            config,
            warnings: Vec::new(),
            client_port: None,
            client_host: None,
            tick_ms: 3_000,
            timeout_ms_min: -1,
            timeout_ms_max: -1,
            metrics_class: String::new(),
            metrics_host: "*".to_owned(),
            metrics_port: None,
            admin_enabled: true,
            // ZooKeeper's is every interface; but it tells what clients keep, to anybody.
            admin_host: "127.0.0.1".to_owned(),
            admin_port: 8_080,
            servers,
            ensemble: Keys::default(),
        }
    }

    /// Java's reading: `true` in any case is true, and everything else is false.
    fn java_boolean(&mut self, key: &str, value: &str) -> bool {
        let is_true = value.eq_ignore_ascii_case("true");
        if !is_true && !value.eq_ignore_ascii_case("false") {
            self.warnings.push(format!("{key}: `{value}` is not `true`, so it is false, as in ZooKeeper"));
        }
        is_true
    }
}

pub(super) fn load(bytes: &[u8], files: Files<'_>, flags: &Overrides) -> Result<Loaded, ConfigError> {
    let text = properties::decode(bytes);
    let all = properties::parse(&text)?;
    let mut warnings = Vec::new();
    let mut written = Vec::new();
    for (index, property) in all.iter().enumerate() {
        let key = spelled(&property.key);
        match all[index + 1..].iter().find(|later| spelled(&later.key) == key) {
            Some(later) => {
                let text = format!("{key}: line {} sets it again, and the last one counts", later.line);
                warnings.push(Warning { line: property.line, text });
            }
            None => written.push(property),
        }
    }
    let mut draft = Draft::new(ensemble::read(&written, files)?);
    for property in &written {
        take(&mut draft, property)?;
        warnings.extend(draft.warnings.drain(..).map(|text| Warning { line: property.line, text }));
        if !property.value.is_ascii() && std::str::from_utf8(bytes).is_ok() {
            let text =
                format!("{}: read as UTF-8, where ZooKeeper would read Latin-1", spelled(&property.key));
            warnings.push(Warning { line: property.line, text });
        }
    }
    let line_of = |key: &str| written.iter().find(|property| spelled(&property.key) == key).map(|p| p.line);
    settle(&mut draft, flags, files).map_err(|(key, reason)| ConfigError::Invalid {
        line: line_of(key),
        key: key.to_owned(),
        reason,
    })?;
    let line = draft.servers.line;
    warnings.extend(draft.warnings.drain(..).map(|text| Warning { line, text }));
    warnings.sort_by_key(|warning| warning.line);
    draft.config.validate().map_err(|bad| {
        // Of the keys with bounds, tell ZooKeeper's name.
        let key = match bad.key {
            "limits.packet_bytes_max" => "jute.maxbuffer",
            "security.super_digest" => "DigestAuthenticationProvider.superDigest",
            "sessions.tick_ms" => "tickTime",
            "sessions.timeout_ms_min" => "minSessionTimeout",
            "sessions.timeout_ms_max" => "maxSessionTimeout",
            "data_dir" => "dataDir",
            "admin.command_url" => "admin.commandURL",
            "znodes.container_check_ms" => "znode.container.checkIntervalMs",
            "znodes.container_deletes_per_minute_max" => "znode.container.maxPerMinute",
            key if key.starts_with("ensemble.server") => "server.N",
            other => other,
        };
        ConfigError::Invalid { line: line_of(key), key: key.to_owned(), reason: bad.reason }
    })?;
    Ok(Loaded { config: draft.config, warnings })
}

/// The key as the table has it: ZooKeeper trims keys, and takes what it does not know for `zookeeper.` plus the key.
fn spelled(key: &str) -> &str {
    let key = key.trim();
    key.strip_prefix("zookeeper.").unwrap_or(key)
}

fn rule(key: &str) -> Option<&'static Does> {
    let exact = TABLE.iter().find(|(name, _)| *name == key);
    let begins =
        || TABLE.iter().find(|(name, _)| name.strip_suffix('*').is_some_and(|start| key.starts_with(start)));
    exact.or_else(begins).map(|(_, does)| does)
}

fn take(draft: &mut Draft, property: &Property) -> Result<(), ConfigError> {
    let (key, value, line) = (spelled(&property.key), property.value.trim(), property.line);
    let asked_for = |values: &[&str]| values.iter().any(|asked| asked.eq_ignore_ascii_case(value));
    let alone = !draft.servers.distributed;
    let does = match rule(key) {
        Some(InEnsemble(_, anyway)) if alone && asked_for(anyway) => return Ok(()),
        Some(InEnsemble(..)) if alone => Some(&Nothing(ENSEMBLE_ONLY, &[])),
        Some(InEnsemble(does, _)) => Some(*does),
        does => does,
    };
    match does {
        Some(First) => Ok(()),
        Some(InEnsemble(..)) => unreachable!("what an ensemble makes of a key is said at once"),
        Some(Takes(take)) => take(draft, value).map_err(|reason| match reason.strip_prefix(REFUSED) {
            Some(reason) => ConfigError::Refused { line, key: key.to_owned(), reason: reason.to_owned() },
            None => ConfigError::Invalid { line: Some(line), key: key.to_owned(), reason },
        }),
        Some(Nothing(_, anyway) | Refused(_, anyway)) if asked_for(anyway) => Ok(()),
        Some(Nothing(why, _)) => {
            draft.warnings.push(format!("{key} has no effect: {why}"));
            Ok(())
        }
        Some(Refused(why, _)) => {
            Err(ConfigError::Refused { line, key: key.to_owned(), reason: (*why).to_owned() })
        }
        None => {
            let near = nearest(key, TABLE.iter().map(|(name, _)| *name).filter(|name| !name.ends_with('*')));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            draft.warnings.push(format!("{key} has no effect: Warren knows no such key or property{hint}"));
            Ok(())
        }
    }
}

/// What is known only when every key is read.
fn settle(draft: &mut Draft, flags: &Overrides, files: Files<'_>) -> Result<(), (&'static str, String)> {
    if draft.config.data_dir.as_os_str().is_empty() && flags.data_dir.is_none() {
        return Err(("dataDir", "is not set".to_owned()));
    }
    match draft.servers.distributed {
        true => ensemble::settle(draft, flags, files)?,
        false => ensemble::settle_alone(draft),
    }
    let Draft { config, .. } = draft;
    match (draft.client_port, &draft.client_host, &flags.client_addr) {
        (_, _, Some(_)) => {}
        (Some(port), host, None) => {
            config.client.addr = Address::new(host.clone().unwrap_or_else(|| "*".to_owned()), port);
        }
        (None, Some(_), None) => {
            return Err(("clientPortAddress", "is set but clientPort is not".to_owned()));
        }
        (None, None, None) => return Err(("clientPort", "is not set".to_owned())),
    }

    if draft.tick_ms <= 0 {
        return Err(("tickTime", format!("{} is not above 0", draft.tick_ms)));
    }
    let of_ticks = |given: i32, ticks: i32| match given {
        -1 => draft.tick_ms.saturating_mul(ticks),
        given => given,
    };
    let positive = |key, value: i32| match u32::try_from(value) {
        Ok(value) if value > 0 => Ok(value),
        _ => Err((key, format!("{value} is not above 0"))),
    };
    config.sessions.tick_ms = draft.tick_ms as u32;
    config.sessions.timeout_ms_min = positive("minSessionTimeout", of_ticks(draft.timeout_ms_min, 2))?;
    config.sessions.timeout_ms_max = positive("maxSessionTimeout", of_ticks(draft.timeout_ms_max, 20))?;
    if config.sessions.timeout_ms_min > config.sessions.timeout_ms_max {
        return Err(("minSessionTimeout", "must not be larger than maxSessionTimeout".to_owned()));
    }

    let class = draft.metrics_class.rsplit('.').next().unwrap_or_default();
    config.metrics.addr = match class {
        "" | "DefaultMetricsProvider" | "NullMetricsProvider" => Listen::Off,
        "PrometheusMetricsProvider" => {
            Listen::At(Address::new(draft.metrics_host.clone(), draft.metrics_port.unwrap_or(7_000)))
        }
        _ => {
            let reason = "only org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider is known";
            return Err(("metricsProvider.className", reason.to_owned()));
        }
    };

    config.admin.addr = match draft.admin_enabled {
        true => Listen::At(Address::new(draft.admin_host.clone(), draft.admin_port)),
        false => Listen::Off,
    };

    let words = &mut config.four_letter_words.whitelist;
    for always in ["srvr"].into_iter().chain(config.sessions.read_only.then_some("isro")) {
        if !words.iter().any(|word| word == always || word == "*") {
            words.push(always.to_owned());
        }
    }
    config.lay_over(flags);
    Ok(())
}
