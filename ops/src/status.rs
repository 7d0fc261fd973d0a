//! A server's status, as one screen.

use std::fmt::Write as _;
use warren_server::admin::{Member, Membership, Status};

/// For people.
pub fn text(status: &Status) -> String {
    let mut out = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<12} {value}");
    };
    let ensemble = match status.ensemble.as_str() {
        "" => String::new(),
        name => format!(" of {name}"),
    };
    row("server", format!("{}{ensemble}, {}", status.server_id, status.role));
    row("version", status.version.clone());
    row(
        "clients",
        format!("{} on {}", if status.serving { "served" } else { "not served" }, status.client_addr),
    );
    if !status.members.is_empty() {
        row("leader", status.leader.map_or("none".to_owned(), |id| id.to_string()));
    }
    row("zxid", format!("{}, epoch {}", status.zxid, status.epoch));
    row("up", duration(status.uptime_s));
    row(
        "open",
        format!(
            "{} connections, {} sessions, {} watches, {} requests",
            status.connections, status.sessions, status.watches, status.outstanding
        ),
    );
    row("data", format!("{} znodes, {}", status.znodes, bytes(status.data_bytes)));
    row(
        "disk",
        format!(
            "{} of data and log, {} free; reserve {}",
            bytes(status.store_bytes),
            bytes(status.disk_free_bytes),
            bytes(status.disk_reserve_bytes)
        ),
    );
    row("sync", format!("{:.2} ms on average, {} ms at most", status.sync_avg_ms, status.sync_max_ms));
    row("memory", bytes(status.memory_bytes));
    if let Some(left) = status.certificate_s {
        row("certificate", format!("valid for {}", duration(left)));
    }
    if !status.members.is_empty() {
        out.push('\n');
        table(&mut out, &status.members, status.leader);
    }
    for complaint in status.complaints() {
        let _ = writeln!(out, "\n! {complaint}");
    }
    out
}

/// Who belongs to the ensemble, for people.
pub fn membership(membership: &Membership) -> String {
    let Membership { ensemble, server_id, version, leader, members, notes } = membership;
    let mut out = format!("{ensemble}, version {version}, as server {server_id} knows it\n\n");
    table(&mut out, members, *leader);
    for note in notes {
        let _ = writeln!(out, "\nnote: {note}");
    }
    out
}

/// A line for each server. Its disk is told once it is not the first.
fn table(out: &mut String, members: &[Member], leader: Option<u8>) {
    let _ = writeln!(
        out,
        "{:<4} {:<15} {:<24} {:<24} {:<6} {:<7} version",
        "id", "role", "peers", "clients", "link", "lag"
    );
    for Member { id, role, disk, peer_addr, client_addr, linked, idle, lag, version, .. } in members {
        let role = match (leader == Some(*id), disk) {
            (true, _) => "leader".to_owned(),
            (false, 2..) => format!("{role}, disk {disk}"),
            (false, _) => role.clone(),
        };
        let link = match (linked, idle) {
            (true, _) => "up",
            (false, true) => "idle",
            (false, false) => "down",
        };
        let lag = lag.map_or("-".to_owned(), |lag| lag.to_string());
        let version = version.as_deref().unwrap_or("-");
        let clients = if client_addr.is_empty() { "-" } else { client_addr };
        let _ =
            writeln!(out, "{id:<4} {role:<15} {peer_addr:<24} {clients:<24} {link:<6} {lag:<7} {version}");
    }
}

/// A size for people.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A time for people; s.
pub(crate) fn duration(s: u64) -> String {
    let (days, hours, minutes) = (s / 86_400, s / 3_600 % 24, s / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", s % 60),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} days {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_screen() {
        let member = Member { id: 2, why: "refused".into(), lag: Some(7), ..Member::default() };
        let status = Status {
            server_id: 1,
            role: "leader".into(),
            serving: true,
            ensemble: "east".into(),
            store_bytes: 3 << 20,
            uptime_s: 90_061,
            members: vec![member, Member { id: 3, idle: true, ..Member::default() }],
            ..Status::default()
        };
        let text = text(&status);
        assert!(
            text.contains("1 of east, leader") && text.contains("3.0 MiB") && text.contains("1 days 1 h"),
            "{text}"
        );
        assert!(text.contains("down   7") && text.contains("! server 2 is not linked: refused"), "{text}");
        assert!(text.contains("idle   -") && !text.contains("! server 3"), "{text}");
        assert!(text.lines().count() < 24);
    }

    #[test]
    fn members_are_a_line_each() {
        let member = |id, role: &str, disk| Member { id, role: role.into(), disk, ..Member::default() };
        let all = Membership {
            ensemble: "east".into(),
            server_id: 2,
            version: "100000007".into(),
            leader: Some(1),
            members: vec![member(1, "voter", 1), member(2, "voter", 3), member(3, "joining", 1)],
            notes: vec!["2 voters".into()],
        };
        let text = membership(&all);
        assert!(text.starts_with("east, version 100000007, as server 2 knows it\n"), "{text}");
        for line in ["\n1    leader ", "\n2    voter, disk 3 ", "\n3    joining ", "\nnote: 2 voters\n"] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(
            (bytes(1023), bytes(1024), bytes(3 << 40)),
            ("1023 B".into(), "1.0 KiB".into(), "3.0 TiB".into())
        );
        assert_eq!((duration(61), duration(3_660)), ("1 min 1 s".into(), "1 h 1 min".into()));
    }
}
