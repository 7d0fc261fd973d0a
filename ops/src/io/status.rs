//! `warren status`: the server's own word, and what the others run.

use super::{admin, peers};
use crate::cli::{Cli, Exit, Output};
use crate::status;
use std::io::{self, IsTerminal as _, Write as _};
use std::thread;
use std::time::Duration;
use warren_server::admin::Response;

/// The others answer by then, or their versions are not shown: a screen comes at once, whoever is dead.
const PEERS_WITHIN: Duration = Duration::from_millis(100);
/// Cursor to the top, and all behind it cleared.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Once, or again every so many seconds until it is interrupted.
pub(super) fn run(cli: &Cli, watch: Option<u32>) -> Exit {
    let Some(every) = watch else {
        let (text, exit) = look(cli);
        return print(&text, exit);
    };
    let clears = cli.output == Output::Text && io::stdout().is_terminal();
    loop {
        let (text, _) = look(cli);
        let shown = if clears { format!("{CLEAR}{text}") } else { text };
        // Whoever read it is gone.
        if print(&shown, Exit::Done) != Exit::Done {
            return Exit::Done;
        }
        thread::sleep(Duration::from_secs(every.into()));
    }
}

fn print(text: &str, exit: Exit) -> Exit {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => exit,
        Err(_) => Exit::Degraded,
    }
}

/// What is to be seen, and how it ends.
fn look(cli: &Cli) -> (String, Exit) {
    let mut server = match admin::status(&cli.socket()) {
        Ok(server) => server,
        Err((why, exit)) => {
            eprintln!("warren: {why}");
            return (String::new(), exit);
        }
    };
    let answers = peers::ask(&server.members, "srvr", PEERS_WITHIN);
    for member in &mut server.members {
        let answer = answers.get(&member.id).and_then(|answer| answer.as_ref().ok());
        member.version = answer.and_then(|answer| peers::version(&answer.text));
    }
    let exit = if server.complaints().is_empty() { Exit::Done } else { Exit::Degraded };
    match cli.output {
        Output::Text => (status::text(&server), exit),
        Output::Json => (warren_server::admin::line(&Response::Status(server)), exit),
    }
}
