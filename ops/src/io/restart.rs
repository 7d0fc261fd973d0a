//! `warren restart`: ask for it, and wait until the next process serves.

use super::admin;
use crate::cli::{Cli, Exit, Output};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};
use warren_server::admin::{Request, Response, Status};

/// Between two looks whether it serves.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// When it takes longer, a terminal is told what is waited for, and so often.
const TOLD_EVERY: Duration = Duration::from_secs(2);

pub(super) fn run(cli: &Cli, within: Duration) -> Exit {
    let before = match admin::status(&cli.socket()) {
        Ok(status) => status,
        Err((why, exit)) => return failed(&why, exit),
    };
    let began = Instant::now();
    match admin::ask(&cli.socket(), &Request::Restart) {
        Ok(Response::Done(_)) => {}
        Ok(Response::Refused(why)) => return failed(&format!("refused: {why}"), Exit::Degraded),
        Ok(_) => return failed("the server answered what was not asked", Exit::Degraded),
        Err(e) => return failed(&e.to_string(), Exit::Unreachable),
    }
    let mut told_at = began + TOLD_EVERY;
    let mut last = "it does not answer".to_owned();
    while began.elapsed() < within {
        std::thread::sleep(LOOK_EVERY);
        match admin::status(&cli.socket()) {
            Ok(now) if now.run != before.run && now.serving => {
                return served(cli, &before, &now, began.elapsed());
            }
            Ok(now) if now.run != before.run => last = "it has no leader yet".to_owned(),
            Ok(_) => last = "it finishes what is in flight".to_owned(),
            Err((why, _)) => last = why,
        }
        if Instant::now() >= told_at && std::io::stderr().is_terminal() {
            told_at += TOLD_EVERY;
            eprintln!("warren: {} s: {last}", began.elapsed().as_secs());
        }
    }
    failed(
        &format!(
            "server {} does not serve again after {} s: {last}. See its log (`journalctl -u warrend`) and `warren status`, and leave \
             the other servers as they are until it does",
            before.server_id,
            within.as_secs()
        ),
        Exit::Degraded,
    )
}

fn served(cli: &Cli, before: &Status, now: &Status, took: Duration) -> Exit {
    let kept = now.connections_kept.unwrap_or(0);
    match cli.output {
        Output::Json => println!(
            "{}",
            serde_json::json!({
                "server_id": now.server_id,
                "version": now.version,
                "took_ms": took.as_millis() as u64,
                "connections_before": before.connections,
                "connections_kept": kept,
            })
        ),
        Output::Text => println!(
            "server {} serves again after {} ms, version {}; it had {} connections and kept {kept}",
            now.server_id,
            took.as_millis(),
            now.version,
            before.connections
        ),
    }
    Exit::Done
}

fn failed(why: &str, exit: Exit) -> Exit {
    eprintln!("warren: {why}");
    exit
}
