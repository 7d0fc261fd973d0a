//! The judgement of each thing that was looked at.

use super::{Ahead, Facts, Finding, Gravity, world_address};
use crate::status::{bytes, duration};
use std::collections::BTreeSet;
use std::time::Duration;
use warren_server::admin::Status;
use warren_server::config::{Config, Listen};

/// A median sync above this is slow for a log, and above the second too slow.
const SYNC_SLOW: Duration = Duration::from_millis(10);
const SYNC_BAD: Duration = Duration::from_millis(100);
/// Clocks that differ by more, ms: entries carry the leader's, and times to live are counted by it.
const CLOCK_WARN_MS: i64 = 1_000;
const CLOCK_BAD_MS: i64 = 60_000;
/// A certificate that ends sooner is warned about, s: a month; the authority's: half a year.
const CERTIFICATE_WARN_S: i64 = 30 * 86_400;
const AUTHORITY_WARN_S: i64 = 180 * 86_400;
/// Descriptors that the server takes beside those of connections, at most.
const FILES_BESIDE: u64 = 1_000;
/// A follower that is further behind is warned about, log entries.
const LAG_WARN: u64 = 10_000;
/// Free space is warned about below so many times the reserve.
const RESERVES_WARN: u64 = 2;
/// File systems that are no disk, by statfs(2): memory, and what forgets with the machine; and one whose syncs are another's word.
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
const NFS: u64 = 0x6969;

/// Judge all that was looked at.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut out = Findings(Vec::new());
    let status = facts.status.as_ref().and_then(|status| status.as_ref().ok());
    server(facts, &mut out);
    disk(facts, status.map(|status| &**status), &mut out);
    clock(facts, &mut out);
    limits(facts, status.map(|status| &**status), &mut out);
    peers(facts, status.map(|status| &**status), &mut out);
    certificates(facts, &mut out);
    settings(facts, &mut out);
    if let Some(settings) = &facts.settings {
        ports(facts, settings, &mut out);
    }
    out.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, check: &'static str, gravity: Gravity, found: String, todo: impl Into<String>) {
        self.0.push(Finding { check, gravity, found, todo: todo.into() });
    }

    fn ok(&mut self, check: &'static str, found: String) {
        self.add(check, Gravity::Ok, found, "");
    }
}

fn server(facts: &Facts, out: &mut Findings) {
    match &facts.status {
        None => {}
        Some(Err(why)) => out.add(
            "server",
            Gravity::Bad,
            why.clone(),
            "`systemctl status warrend` says whether it runs, `journalctl -u warrend -p warning` why not",
        ),
        Some(Ok(status)) => {
            let complaints = status.complaints();
            if complaints.is_empty() {
                out.ok("server", format!("serves as {}, up {}", status.role, duration(status.uptime_s)));
            }
            for complaint in complaints {
                out.add("server", Gravity::Bad, complaint, "");
            }
        }
    }
}

fn disk(facts: &Facts, status: Option<&Status>, out: &mut Findings) {
    if let (Some((free, all)), Some(settings)) = (facts.space, &facts.settings) {
        let reserve = u64::from(settings.storage.disk_reserve_mb) << 20;
        let found = format!(
            "{} of {} are free in {}; below {} writes that grow data are refused",
            bytes(free),
            bytes(all),
            facts.data_dir,
            bytes(reserve)
        );
        let todo = "remove what else is on that disk, or give it a larger one; deleting znodes helps, too, a checkpoint later";
        match free {
            _ if free < reserve => out.add("disk", Gravity::Bad, found, todo),
            _ if free < RESERVES_WARN * reserve => out.add("disk", Gravity::Warn, found, todo),
            _ => out.ok("disk", found),
        }
    }
    match facts.file_system {
        Some(TMPFS | RAMFS) => out.add(
            "disk",
            Gravity::Bad,
            format!("{} is in memory: all is lost when this host stops", facts.data_dir),
            "give it a folder on a disk (data_dir)",
        ),
        Some(NFS) => out.add(
            "disk",
            Gravity::Warn,
            format!("{} is on NFS, and a sync is only another host's word", facts.data_dir),
            "give it a folder on a disk of this host (data_dir)",
        ),
        _ => {}
    }
    let todo = "a log wants a disk of its own, or an SSD; with power-loss protection a sync takes far less than 1 ms";
    match &facts.syncs {
        None => {}
        Some(Err(why)) => out.add(
            "sync",
            Gravity::Note,
            format!("syncs could not be measured: {why}"),
            "ask as root, or as the server's user",
        ),
        Some(Ok(syncs)) if syncs.is_empty() => {}
        Some(Ok(syncs)) => {
            let (median, most) = (syncs[syncs.len() / 2], syncs[syncs.len() - 1]);
            let ms = |d: Duration| format!("{:.2} ms", d.as_secs_f64() * 1e3);
            let mut found = format!(
                "{} small writes: half were synced within {}, all within {}",
                syncs.len(),
                ms(median),
                ms(most)
            );
            if let Some(status) = status.filter(|status| status.sync_max_ms > 0) {
                found.push_str(&format!(
                    "; the server's own took {:.2} ms on average, {} ms at most",
                    status.sync_avg_ms, status.sync_max_ms
                ));
            }
            match median {
                _ if median > SYNC_BAD => out.add("sync", Gravity::Bad, found, todo),
                _ if median > SYNC_SLOW => out.add("sync", Gravity::Warn, found, todo),
                _ => out.ok("sync", found),
            }
        }
    }
}

fn clock(facts: &Facts, out: &mut Findings) {
    let todo = "`timedatectl set-ntp true`, with systemd-timesyncd or chrony installed";
    match facts.clock_synchronized {
        None => out.add("clock", Gravity::Note, "whether a time server keeps it is not known".to_owned(), ""),
        Some(true) => out.ok("clock", "a time server keeps it".to_owned()),
        Some(false) => out.add("clock", Gravity::Warn, "no time server keeps it".to_owned(), todo),
    }
    for (id, Ahead { ms, within_ms }) in &facts.clocks {
        // What a slow answer may account for counts for nothing.
        let surely = (ms.abs() - within_ms).max(0);
        let way = if *ms < 0 { "behind" } else { "ahead of" };
        let found = format!("server {id}'s is {} ms {way} this one's, give or take {within_ms} ms", ms.abs());
        match surely {
            _ if surely > CLOCK_BAD_MS => out.add("clock", Gravity::Bad, found, todo),
            _ if surely > CLOCK_WARN_MS => out.add("clock", Gravity::Warn, found, todo),
            _ => out.ok("clock", found),
        }
    }
}

fn limits(facts: &Facts, status: Option<&Status>, out: &mut Findings) {
    let Some(settings) = &facts.settings else { return };
    if let Some(status) = status.filter(|status| status.files_max > 0) {
        let needed = u64::from(settings.client.connections_max) + FILES_BESIDE;
        let found = format!(
            "{} files open of {}; client.connections_max is {}",
            status.files_open, status.files_max, settings.client.connections_max
        );
        match status.files_max < needed {
            true => out.add(
                "files",
                Gravity::Warn,
                found,
                format!("LimitNOFILE={needed} at least, by `systemctl edit warrend`; or fewer connections"),
            ),
            false => out.ok("files", found),
        }
    }
    if let Some(memory) = facts.memory_bytes {
        let budget = u64::from(settings.limits.memory_mb) << 20;
        let found = format!("limits.memory_mb is {} of {}", bytes(budget), bytes(memory));
        match budget > memory / 2 {
            true => out.add(
                "memory",
                Gravity::Warn,
                found,
                "leave half of the memory to connections, and to the system's cache of the store: lower limits.memory_mb",
            ),
            false => out.ok("memory", found),
        }
    }
}

fn peers(facts: &Facts, status: Option<&Status>, out: &mut Findings) {
    for member in status.map_or(&[][..], |status| &status.members) {
        if let Some(lag) = member.lag.filter(|lag| *lag > LAG_WARN) {
            out.add(
                "lag",
                Gravity::Warn,
                format!("server {} is {lag} log entries behind", member.id),
                "if that does not shrink, its disk or its network is slower than the others': `warren doctor` there",
            );
        }
    }
    for (id, version) in &facts.versions {
        if let Err(why) = version {
            out.add(
                "peers",
                Gravity::Warn,
                format!("server {id} does not answer where clients find it: {why}"),
                "is it running, and does a firewall between the hosts let its client port through?",
            );
        }
    }
    let versions: BTreeSet<&String> = facts.versions.values().flatten().collect();
    match versions.len() {
        0 => {}
        1 => out.ok("versions", format!("{} of all that answer", versions.first().expect("there is one"))),
        _ => {
            let each: Vec<String> = facts
                .versions
                .iter()
                .filter_map(|(id, version)| version.as_ref().ok().map(|version| format!("{id}: {version}")))
                .collect();
            out.add(
                "versions",
                Gravity::Warn,
                format!("they differ: {}", each.join(", ")),
                "finish the upgrade, one server after the other (upgrading.md)",
            );
        }
    }
}

fn certificates(facts: &Facts, out: &mut Findings) {
    let authority =
        facts.settings.as_ref().and_then(|s| s.ensemble.as_ref()).map(|e| e.ca.display().to_string());
    for (path, left) in &facts.certificates {
        let is_authority = authority.as_ref() == Some(path);
        let (warn_s, todo) = match is_authority {
            true => (
                AUTHORITY_WARN_S,
                "`warren certs init` a new one, and let the file hold both while the servers' certificates are exchanged",
            ),
            false => (
                CERTIFICATE_WARN_S,
                "`warren certs issue` a new one in its place, then `systemctl reload warrend`",
            ),
        };
        match left {
            Err(why) => out.add("certificates", Gravity::Bad, why.clone(), todo),
            Ok(left) if *left <= 0 => {
                out.add("certificates", Gravity::Bad, format!("{path} has ended"), todo);
            }
            Ok(left) => {
                let found = format!("{path} is valid for {}", duration(*left as u64));
                match *left < warn_s {
                    true => out.add("certificates", Gravity::Warn, found, todo),
                    false => out.ok("certificates", found),
                }
            }
        }
    }
    for path in &facts.open_keys {
        out.add(
            "certificates",
            Gravity::Bad,
            format!("anybody on this host may read {path}, and the key in it"),
            format!("chmod 640 {path}; and issue another, if strangers had accounts here"),
        );
    }
}

fn settings(facts: &Facts, out: &mut Findings) {
    match &facts.file {
        None => {}
        Some(Err(why)) => out.add(
            "settings",
            Gravity::Bad,
            format!("the next start will be refused: {why}"),
            "put it right before the server is restarted; `warrend --config FILE --check-config` tries it",
        ),
        Some(Ok((file, warnings))) => {
            for warning in warnings {
                out.add("settings", Gravity::Warn, warning.clone(), "");
            }
            let served = matches!(facts.status, Some(Ok(_)));
            let differs = facts.settings.as_ref().is_some_and(|settings| !alike(settings, file));
            match served && differs {
                true => out.add(
                    "settings",
                    Gravity::Warn,
                    "the file says other than what is in effect".to_owned(),
                    "`systemctl restart warrend` when the other servers are well, or take the change back",
                ),
                false => out.ok("settings", "the file is what is in effect, and sound".to_owned()),
            }
        }
    }
    if facts.settings.as_ref().is_some_and(|settings| settings.security.skip_acl) {
        out.add(
            "settings",
            Gravity::Warn,
            "security.skip_acl: everybody may do everything".to_owned(),
            "take it out again as soon as what it was for is done",
        );
    }
}

/// A server does not tell its super digest.
fn alike(one: &Config, other: &Config) -> bool {
    let without = |config: &Config| {
        let mut config = config.clone();
        config.security.super_digest = None;
        config
    };
    without(one) == without(other)
}

fn ports(facts: &Facts, settings: &Config, out: &mut Findings) {
    let mut open = Vec::new();
    let mut look = |what: &str, host: &str, port: u16| {
        if let Some(address) = world_address(host, &facts.addresses) {
            open.push(format!("{what} at {address} port {port}"));
        }
    };
    look("clients, who are not encrypted,", &settings.client.addr.host, settings.client.addr.port);
    if let Listen::At(at) = &settings.metrics.addr {
        look("metrics", &at.host, at.port);
    }
    match open.is_empty() {
        true => out.ok("ports", "none is at an address of the internet".to_owned()),
        false => out.add(
            "ports",
            Gravity::Warn,
            format!("what the internet may reach, unless a firewall stops it: {}", open.join("; ")),
            "listen at an inner address (client.addr, metrics.addr), or close the port to strangers",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use warren_server::admin::Member;

    fn well() -> Facts {
        let status = Status { serving: true, files_open: 50, files_max: 65_536, ..Status::default() };
        Facts {
            data_dir: "/d".into(),
            status: Some(Ok(Box::new(status))),
            settings: Some(Config::default()),
            file: Some(Ok((Config::default(), Vec::new()))),
            space: Some((10 << 30, 20 << 30)),
            syncs: Some(Ok(vec![Duration::from_millis(1); 20])),
            clock_synchronized: Some(true),
            clocks: BTreeMap::from([(2, Ahead { ms: -1_200, within_ms: 300 })]),
            memory_bytes: Some(8 << 30),
            certificates: BTreeMap::from([("/c.pem".into(), Ok(700 * 86_400))]),
            versions: BTreeMap::from([(1, Ok("a".into())), (2, Ok("a".into()))]),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            ..Facts::default()
        }
    }

    /// What is found about one thing, the gravest of it.
    fn found(facts: &Facts, check: &str) -> (Gravity, String) {
        let all = examine(facts);
        let worst = all.iter().filter(|f| f.check == check).max_by_key(|f| f.gravity);
        worst.map(|f| (f.gravity, f.found.clone())).unwrap_or_else(|| panic!("nothing of {check}: {all:?}"))
    }

    #[test]
    fn where_all_is_well_nothing_is_to_be_done() {
        let all = examine(&well());
        assert!(
            all.iter().all(|finding| finding.gravity == Gravity::Ok && finding.todo.is_empty()),
            "{all:?}"
        );
        assert!(all.len() >= 10, "and it says what it looked at");
    }

    type Spoil = fn(&mut Facts);

    #[test]
    fn each_ill_is_found_and_says_what_to_do() {
        let ills: &[(&str, Gravity, Spoil)] = &[
            ("server", Gravity::Bad, |f| f.status = Some(Err("nobody".into()))),
            ("disk", Gravity::Bad, |f| f.space = Some((200 << 20, 20 << 30))),
            ("disk", Gravity::Warn, |f| f.space = Some((400 << 20, 20 << 30))),
            ("disk", Gravity::Bad, |f| f.file_system = Some(TMPFS)),
            ("sync", Gravity::Warn, |f| f.syncs = Some(Ok(vec![Duration::from_millis(30); 3]))),
            ("sync", Gravity::Bad, |f| f.syncs = Some(Ok(vec![Duration::from_millis(130); 3]))),
            ("clock", Gravity::Warn, |f| f.clock_synchronized = Some(false)),
            ("clock", Gravity::Warn, |f| {
                f.clocks.insert(3, Ahead { ms: 5_000, within_ms: 10 });
            }),
            ("clock", Gravity::Bad, |f| {
                f.clocks.insert(3, Ahead { ms: -90_000, within_ms: 10 });
            }),
            ("files", Gravity::Warn, |f| {
                f.status =
                    Some(Ok(Box::new(Status { serving: true, files_max: 1_024, ..Status::default() })));
            }),
            ("memory", Gravity::Warn, |f| f.memory_bytes = Some(300 << 20)),
            ("lag", Gravity::Warn, |f| {
                let slow = Member { id: 3, linked: true, lag: Some(50_000), ..Member::default() };
                f.status =
                    Some(Ok(Box::new(Status { serving: true, members: vec![slow], ..Status::default() })));
            }),
            ("peers", Gravity::Warn, |f| {
                f.versions.insert(3, Err("refused".into()));
            }),
            ("versions", Gravity::Warn, |f| {
                f.versions.insert(3, Ok("b".into()));
            }),
            ("certificates", Gravity::Warn, |f| {
                f.certificates.insert("/c.pem".into(), Ok(20 * 86_400));
            }),
            ("certificates", Gravity::Bad, |f| {
                f.certificates.insert("/c.pem".into(), Ok(-5));
            }),
            ("certificates", Gravity::Bad, |f| f.open_keys.push("/c.pem".into())),
            ("settings", Gravity::Bad, |f| f.file = Some(Err("line 3: unknown key".into()))),
            ("settings", Gravity::Warn, |f| {
                let mut other = Config::default();
                other.limits.memory_mb = 512;
                f.file = Some(Ok((other, Vec::new())));
            }),
            ("settings", Gravity::Warn, |f| {
                let mut other = Config::default();
                other.security.skip_acl = true;
                f.settings = Some(other);
            }),
            ("ports", Gravity::Warn, |f| {
                let mut open = Config::default();
                open.client.addr = "*:2181".parse().unwrap();
                f.settings = Some(open);
                f.addresses.push("93.184.216.34".parse().unwrap());
            }),
        ];
        for (place, (check, gravity, spoil)) in ills.iter().enumerate() {
            let mut facts = well();
            spoil(&mut facts);
            let (is, what) = found(&facts, check);
            assert_eq!(is, *gravity, "{place}: {check}: {what}");
            let grave = examine(&facts).into_iter().find(|f| f.check == *check && f.gravity == *gravity);
            assert!(!grave.unwrap().todo.is_empty(), "{place}: {check} says nothing of what to do");
        }
    }

    #[test]
    fn a_slow_answer_is_no_wrong_clock_and_an_untold_digest_no_other_setting() {
        let mut facts = well();
        facts.clocks.insert(3, Ahead { ms: 3_000, within_ms: 2_500 });
        assert_eq!(found(&facts, "clock").0, Gravity::Ok);
        let mut file = Config::default();
        file.security.super_digest = Some(warren_server::config::SuperDigest("super:x".into()));
        facts.file = Some(Ok((file, Vec::new())));
        assert_eq!(found(&facts, "settings").0, Gravity::Ok);
    }
}
