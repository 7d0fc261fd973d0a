//! The shell in the world: the terminal, the connection, the threads between them.
//!
//! - `session`: the connection, on a thread of its own. `console`: what is printed. `interrupt`: Ctrl-C.
//! - `interactive`: the prompt. `editor`: completion and colours for it. `history`: its file.

mod console;
mod editor;
mod history;
mod interactive;
mod interrupt;
mod news;
mod session;

use crate::cli::{Cli, Exit};
use crate::shell::command::ShellCommand;
use crate::shell::failure::Failure;
use crate::shell::forms::Watches;
use crate::shell::run::{Listener as _, Shell, hints};
use console::Console;
use session::{News, Session, Terms};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc;

pub(super) use interactive::run as interactive;

/// News that wait to be printed at most; for more there is a count.
const NEWS_MAX: usize = 10_000;

fn terms(cli: &Cli) -> Terms {
    Terms { servers: cli.servers.clone(), timeout_ms: cli.timeout_ms, read_only: cli.read_only }
}

/// Carry out one command.
pub(super) fn once(cli: &Cli, command: ShellCommand) -> Exit {
    let interrupted = Arc::new(AtomicBool::new(false));
    let mut console = Console::new(cli.output, "warren: ", Arc::clone(&interrupted));
    let (news, told) = mpsc::sync_channel(NEWS_MAX);
    let terms = terms(cli);
    let begun = Session::begin(terms.clone(), news, Arc::new(AtomicUsize::new(0)), interrupted);
    let mut session = match begun {
        Ok(session) => session,
        Err(e) => {
            eprintln!("warren: no thread: {e}");
            return Exit::Degraded;
        }
    };
    let watches = command.watches();
    let is_ephemeral = matches!(&command, ShellCommand::Create(create) if create.ephemeral);
    // The version is this command's own.
    let attached = if command == ShellCommand::Version { Ok(()) } else { session.attached() };
    let mut shell = Shell { server: &mut session, listener: &mut console, root: &terms.servers.root };
    let done = attached.and_then(|()| shell.run(command));
    let exit = match &done {
        Ok(()) => Exit::Done,
        Err(failure) => {
            let hints = hints(&mut shell, failure);
            console.failure(failure, &hints);
            failure.exit()
        }
    };
    console.end();
    if done.is_ok() && is_ephemeral {
        console.note("the session ends with this command, and the ephemeral with it; create it in the shell to keep it");
    }
    let waits_for_znode = matches!(&done, Err(failure) if failure.is(warren_storage::Code::NoNode));
    if let Some(watches) = watches.filter(|_| done.is_ok() || waits_for_znode) {
        return follow(&mut console, &session, &told, watches);
    }
    session.close();
    exit
}

/// Print events as they come: one, or all until the process is ended.
fn follow(console: &mut Console, session: &Session, told: &mpsc::Receiver<News>, watches: Watches) -> Exit {
    while let Ok(news) = told.recv() {
        let is_event = matches!(news, News::Event { .. });
        let text = news::text(&news, console.output);
        match news {
            News::Event { .. } => console.line(&text),
            // A new connection is news only behind a lost one.
            News::Connected { .. } => {}
            News::Lost { .. } | News::Expired => console.note(&text),
        }
        console.end();
        if news == News::Expired {
            console.failure(&Failure::Told("the watch went with the session".to_owned()), &[]);
            return Exit::Degraded;
        }
        if console.is_interrupted() || is_event && watches == Watches::Once {
            break;
        }
    }
    session.close();
    Exit::Done
}
