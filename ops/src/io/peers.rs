//! The other servers, asked by four-letter words at the addresses where clients find them: all at once, and with little patience,
//! so that a screen does not wait for a server that is dead.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use warren_server::admin::Member;

/// An answer at most, bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// What one answered, and how long that took.
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) took: Duration,
}

/// Ask each that has an address for clients, within so long in all; whoever has not answered by then has not.
pub(super) fn ask(
    members: &[Member],
    word: &'static str,
    within: Duration,
) -> BTreeMap<u8, io::Result<Answer>> {
    let until = Instant::now() + within;
    let (tell, told) = mpsc::channel();
    let mut answers = BTreeMap::new();
    for member in members.iter().filter(|member| !member.client_addr.is_empty()) {
        answers.insert(member.id, Err(io::ErrorKind::TimedOut.into()));
        let (id, addr, tell) = (member.id, member.client_addr.clone(), tell.clone());
        // Not waited for: a name may take the resolver longer than anybody has.
        let asked = thread::Builder::new().name("warren-ask".into()).spawn(move || {
            let _ = tell.send((id, ask_one(&addr, word, within)));
        });
        if let Err(e) = asked {
            answers.insert(member.id, Err(e));
        }
    }
    drop(tell);
    while let Ok((id, answer)) = told.recv_timeout(until.saturating_duration_since(Instant::now())) {
        answers.insert(id, answer);
    }
    answers
}

fn ask_one(addr: &str, word: &str, within: Duration) -> io::Result<Answer> {
    let at = addr.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&at, within)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    let began = Instant::now();
    stream.write_all(word.as_bytes())?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    Ok(Answer { text, took: began.elapsed() })
}

/// The version that an answer to `srvr` tells.
pub(super) fn version(srvr: &str) -> Option<String> {
    let rest = srvr.strip_prefix("Zookeeper version: ")?;
    Some(rest.split([',', '\n']).next()?.trim().to_owned())
}

/// A figure of an answer to `mntr`.
pub(super) fn figure(mntr: &str, name: &str) -> Option<i64> {
    let of = |line: &str| line.split_once('\t').filter(|(key, _)| *key == name)?.1.trim().parse().ok();
    mntr.lines().find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn member(id: u8, client_addr: String) -> Member {
        Member { id, client_addr, ..Member::default() }
    }

    #[test]
    fn who_is_silent_is_not_waited_for() {
        let talks = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
        let members = [member(1, addr(&talks)), member(2, addr(&silent)), member(3, String::new())];
        thread::spawn(move || {
            let (mut stream, _) = talks.accept().unwrap();
            stream.read_exact(&mut [0; 4]).unwrap();
            stream
                .write_all(b"Zookeeper version: 3.9.5-warren-0.1.0, built on a day\nMode: leader\n")
                .unwrap();
        });
        let began = Instant::now();
        let answers = ask(&members, "srvr", Duration::from_millis(500));
        assert!(began.elapsed() < Duration::from_secs(2));
        assert_eq!(version(&answers[&1].as_ref().unwrap().text), Some("3.9.5-warren-0.1.0".into()));
        assert!(answers[&2].is_err() && !answers.contains_key(&3));
    }

    #[test]
    fn figures_are_found_by_their_whole_name() {
        let mntr = "zk_warren_clock_x\t1\nzk_warren_clock\t1700000000000\n";
        assert_eq!(figure(mntr, "zk_warren_clock"), Some(1_700_000_000_000));
        assert_eq!((figure(mntr, "zk_warren"), version("refused")), (None, None));
    }
}
