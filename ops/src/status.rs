//! A server's status, as one screen.

use std::fmt::Write as _;
use warren_server::admin::Status;

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
    row("disk", bytes(status.store_bytes));
    row("memory", bytes(status.memory_bytes));
    if !status.members.is_empty() {
        let _ = writeln!(out, "\n{:<4} {:<24} {:<24} {:<6} lag", "id", "peers", "clients", "link");
        for member in &status.members {
            let link = if member.linked { "up" } else { "down" };
            let lag = member.lag.map_or("-".to_owned(), |lag| lag.to_string());
            let _ = writeln!(
                out,
                "{:<4} {:<24} {:<24} {link:<6} {lag}",
                member.id, member.peer_addr, member.client_addr
            );
        }
    }
    for complaint in status.complaints() {
        let _ = writeln!(out, "\n! {complaint}");
    }
    out
}

fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

fn duration(s: u64) -> String {
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
    use warren_server::admin::Member;

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
            members: vec![member],
            ..Status::default()
        };
        let text = text(&status);
        assert!(
            text.contains("1 of east, leader") && text.contains("3.0 MiB") && text.contains("1 days 1 h"),
            "{text}"
        );
        assert!(text.contains("down   7") && text.contains("! server 2 is not linked: refused"), "{text}");
        assert!(text.lines().count() < 24);
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
