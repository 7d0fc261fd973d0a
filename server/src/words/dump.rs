//! The words that list: watches, sessions, ephemerals. They can be long, and tell what clients keep, so they are off
//! unless asked for.

use std::fmt::Write;

/// Members that expire together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpirySet<T> {
    /// ms since 1970.
    pub expires_ms: i64,
    /// Sessions, or connections.
    pub members: Vec<T>,
}

/// What a server knows of the sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sessions {
    /// Who decides about their expiry: when each expires.
    Expiring(Vec<ExpirySet<i64>>),
    /// The others: each with its timeout in ms, ordered by id.
    Known(Vec<(i64, i32)>),
}

/// `wchs`: sessions that watch, paths that are watched, and pairs of both. In ZooKeeper these are data and exists
/// watches alone.
pub fn wchs(connections: u64, paths: u64, watches: u64) -> String {
    format!("{connections} connections watching {paths} paths\nTotal watches:{watches}\n")
}

/// `wchc`: each session with the paths that it watches.
pub fn wchc<'a, P>(sessions: impl IntoIterator<Item = (i64, P)>) -> String
where
    P: IntoIterator<Item = &'a str>,
{
    let mut text = String::new();
    for (session, paths) in sessions {
        let _ = writeln!(text, "0x{session:x}");
        for path in paths {
            let _ = writeln!(text, "\t{path}");
        }
    }
    text.push('\n');
    text
}

/// `wchp`: each path with the sessions that watch it.
pub fn wchp<'a, S>(paths: impl IntoIterator<Item = (&'a str, S)>) -> String
where
    S: IntoIterator<Item = i64>,
{
    let mut text = String::new();
    for (path, sessions) in paths {
        let _ = writeln!(text, "{path}");
        for session in sessions {
            let _ = writeln!(text, "\t0x{session:x}");
        }
    }
    text.push('\n');
    text
}

/// `dump`: sessions by expiry, or by id where another server decides about that; each session's ephemerals, and connections by expiry: the peer's address as `cons`
/// has it, and the session (0 before it is set up).
pub fn dump(
    sessions: &Sessions,
    ephemerals: &[(i64, Vec<String>)],
    connections: &[ExpirySet<(std::net::SocketAddr, i64)>],
) -> String {
    let mut text = String::from("SessionTracker dump:\n");
    match sessions {
        Sessions::Expiring(expiring) => {
            text.push_str("Session ");
            sets(&mut text, expiring, |text, session| writeln!(text, "\t0x{session:x}"));
        }
        Sessions::Known(known) => {
            let _ = writeln!(text, "Global Sessions({}):", known.len());
            for (session, timeout_ms) in known {
                let _ = writeln!(text, "0x{session:x}\t{timeout_ms}ms");
            }
        }
    }
    let _ = writeln!(text, "ephemeral nodes dump:\nSessions with Ephemerals ({}):", ephemerals.len());
    for (session, paths) in ephemerals {
        let _ = writeln!(text, "0x{session:x}:");
        for path in paths {
            let _ = writeln!(text, "\t{path}");
        }
    }
    text.push_str("Connections dump:\nConnections ");
    sets(&mut text, connections, |text, (peer, session)| {
        writeln!(text, "\tip: {} sessionId: 0x{session:x}", super::facts::java_address(*peer))
    });
    text
}

fn sets<T>(text: &mut String, sets: &[ExpirySet<T>], line: impl Fn(&mut String, &T) -> std::fmt::Result) {
    let members: usize = sets.iter().map(|set| set.members.len()).sum();
    let _ = writeln!(text, "Sets ({})/({members}):", sets.len());
    for set in sets {
        let _ = writeln!(text, "{} expire at {}:", set.members.len(), java_date(set.expires_ms));
        for member in &set.members {
            let _ = line(text, member);
        }
    }
}

/// As `java.util.Date` prints itself in UTC: `Sat Nov 21 02:18:37 UTC 2026`.
fn java_date(ms: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, second) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000) / 1_000);
    // Years that begin in March have their leap day at the end; 719,468 days lie between March of year 0 and 1970.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    let year = year_of_era + era * 400 + i64::from(month < 2);
    format!(
        "{} {} {day:02} {:02}:{:02}:{:02} UTC {year}",
        DAYS[days.rem_euclid(7) as usize],
        MONTHS[month as usize],
        second / 3_600,
        second / 60 % 60,
        second % 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_javas() {
        for (ms, text) in [
            (0, "Thu Jan 01 00:00:00 UTC 1970"),
            (951_782_400_000, "Tue Feb 29 00:00:00 UTC 2000"),
            (1_795_227_517_999, "Sat Nov 21 02:18:37 UTC 2026"),
            (4_107_542_399_000, "Sun Feb 28 23:59:59 UTC 2100"),
            (-1, "Wed Dec 31 23:59:59 UTC 1969"),
        ] {
            assert_eq!(java_date(ms), text);
        }
    }

    /// Asked of ZooKeeper 3.9.5 in this state.
    #[test]
    fn lists_are_zookeepers() {
        let session = 0x100001520610000;
        assert_eq!(wchs(1, 2, 2), "1 connections watching 2 paths\nTotal watches:2\n");
        assert_eq!(wchc([(session, ["/a", "/nope"])]), "0x100001520610000\n\t/a\n\t/nope\n\n");
        assert_eq!(
            wchp([("/a", [session]), ("/nope", [session])]),
            "/a\n\t0x100001520610000\n/nope\n\t0x100001520610000\n\n"
        );
        let set = |expires_ms, members| ExpirySet { expires_ms, members };
        let text = dump(
            &Sessions::Expiring(vec![set(1_795_227_517_000, vec![]), set(1_795_227_519_000, vec![session])]),
            &[(session, vec!["/eph".to_owned()])],
            &[
                ExpirySet {
                    expires_ms: 1_795_227_509_000,
                    members: vec![("127.0.0.1:53272".parse().unwrap(), 0)],
                },
                ExpirySet {
                    expires_ms: 1_795_227_519_000,
                    members: vec![("127.0.0.1:46224".parse().unwrap(), session)],
                },
            ],
        );
        assert_eq!(
            text,
            "SessionTracker dump:\nSession Sets (2)/(1):\n0 expire at Sat Nov 21 02:18:37 UTC 2026:\n\
             1 expire at Sat Nov 21 02:18:39 UTC 2026:\n\t0x100001520610000\nephemeral nodes dump:\n\
             Sessions with Ephemerals (1):\n0x100001520610000:\n\t/eph\nConnections dump:\nConnections Sets (2)/(2):\n\
             1 expire at Sat Nov 21 02:18:29 UTC 2026:\n\tip: /127.0.0.1:53272 sessionId: 0x0\n\
             1 expire at Sat Nov 21 02:18:39 UTC 2026:\n\tip: /127.0.0.1:46224 sessionId: 0x100001520610000\n"
        );
    }
    /// As `LearnerSessionTracker` prints it: sorted by id, no expiry, for that is the leader's business.
    #[test]
    fn a_follower_tells_timeouts() {
        let known = Sessions::Known(vec![(0x100001520610000, 30_000), (0x200001520610000, 4_000)]);
        let text = dump(&known, &[], &[]);
        assert_eq!(
            text,
            "SessionTracker dump:\nGlobal Sessions(2):\n0x100001520610000\t30000ms\n0x200001520610000\t4000ms\n\
             ephemeral nodes dump:\nSessions with Ephemerals (0):\nConnections dump:\nConnections Sets (0)/(0):\n"
        );
    }
}
