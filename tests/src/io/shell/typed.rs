//! What is typed into a terminal.

use super::terminal::Terminal;
use super::{Outcome, Stage};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use warren_storage::{AclRef, CreateMode, IdRef, Op};
use warren_transport::io::blocking::{Connection, Options};
use warren_transport::{Change, Request};

/// Children of the znode that is completed.
const MANY: usize = 100_000;
/// How often that is measured.
const MEASURED: usize = 20;

impl Stage<'_> {
    fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    /// The shell, at its prompt.
    fn typed(&self, servers: &str) -> Outcome<Terminal> {
        let program = self.plan.warren.to_str().ok_or("a path is text")?;
        let terminal =
            Terminal::open(self.folder, &self.home(), &[program, "-s", servers, "--timeout", "6000"])?;
        terminal.shows("Welcome to Warren")?;
        terminal.shows("(CONNECTED) 0]")?;
        terminal.shows("connected to")?;
        Ok(terminal)
    }

    /// By another connection.
    fn elsewhere(&self, words: &[&str]) -> Outcome<()> {
        let said = self.once(&self.warren.at(), words)?;
        if said.status == 0 { Ok(()) } else { Err(format!("{words:?}: {said:?}").into()) }
    }
}

pub(super) fn completes(stage: &mut Stage<'_>) -> Outcome<()> {
    let terminal = stage.typed(&stage.warren.at())?;
    terminal.enters("create /typed \"hello there\"")?;
    terminal.shows("Created /typed")?;
    for name in ["alpha-one", "alpha-two", "with space", "z"] {
        stage.elsewhere(&["create", &format!("/typed/{name}")])?;
    }
    // A command, a znode, and what all candidates have in common.
    terminal.types("getAllC")?;
    terminal.presses(&["Tab"])?;
    terminal.ends_with("] getAllChildrenNumber")?;
    terminal.presses(&["C-u"])?;
    terminal.types("get /ty")?;
    terminal.presses(&["Tab"])?;
    terminal.ends_with("] get /typed")?;
    terminal.presses(&["Enter"])?;
    terminal.shows("\nhello there\n")?;
    terminal.types("stat /typed/al")?;
    terminal.presses(&["Tab"])?;
    terminal.ends_with("] stat /typed/alpha-")?;
    terminal.presses(&["Tab", "Tab"])?;
    terminal.shows("alpha-one  alpha-two")?;
    terminal.ends_with("] stat /typed/alpha-")?;
    terminal.types("t")?;
    terminal.presses(&["Tab", "Enter"])?;
    terminal.shows("numChildren = 0")?;
    terminal.types("get \"/typed/w")?;
    terminal.presses(&["Tab"])?;
    terminal.ends_with("] get \"/typed/with space\"")?;
    terminal.presses(&["Enter"])?;
    terminal.shows("\nnull\n")?;
    // Options, and a value.
    terminal.types("addWatch -m PERSISTENT_")?;
    terminal.presses(&["Tab"])?;
    terminal.ends_with("] addWatch -m PERSISTENT_RECURSIVE")?;
    terminal.presses(&["C-u"])?;
    terminal.enters("gett /typed")?;
    terminal.shows("unrecognized subcommand 'gett'")?;
    // Lines that are typed ahead of the answers, and lines that are pasted, are carried out one by one.
    terminal.types("create /typed/1\rcreate /typed/2\rls /typed\r")?;
    terminal.shows("[1, 2, alpha-one, alpha-two, with space, z]")?;
    terminal.pastes("delete /typed/1\ndelete /typed/2\nls /typed")?;
    terminal.presses(&["Enter"])?;
    terminal.shows("[alpha-one, alpha-two, with space, z]")?;
    terminal.enters("deleteall /typed")?;
    terminal.enters("ls /typed")?;
    terminal.shows("Node does not exist: /typed")
}

pub(super) fn events(stage: &mut Stage<'_>) -> Outcome<()> {
    stage.elsewhere(&["create", "/event", "before"])?;
    let terminal = stage.typed(&stage.warren.at())?;
    terminal.enters("get -w /event")?;
    terminal.shows("\nbefore\n")?;
    terminal.types("create /event/half")?;
    terminal.ends_with("] create /event/half")?;
    stage.elsewhere(&["set", "/event", "after"])?;
    terminal.shows("WatchedEvent state:SyncConnected type:NodeDataChanged path:/event")?;
    // The line stands below the event, and goes on.
    terminal.ends_with("] create /event/half")?;
    terminal.types("-and-half x")?;
    terminal.presses(&["Enter"])?;
    terminal.shows("Created /event/half-and-half")?;
    let event = terminal.all()?.find("type:NodeDataChanged").ok_or("the event is there")?;
    let line = terminal.all()?.rfind("] create /event/half-and-half x").ok_or("the line is there")?;
    if line < event {
        return Err("the event stands below the line".into());
    }
    // Many at once: none breaks a line.
    terminal.enters("addWatch /event")?;
    terminal.types("get /event")?;
    terminal.ends_with("] get /event")?;
    for n in 0..30 {
        stage.elsewhere(&["create", &format!("/event/{n}")])?;
    }
    terminal.shows("type:NodeCreated path:/event/29")?;
    terminal.ends_with("] get /event")?;
    terminal.presses(&["Enter"])?;
    terminal.shows("\nafter\n")?;
    terminal.enters("printwatches off")?;
    terminal.enters("create /event/silent")?;
    terminal.shows("Created /event/silent")?;
    stage.elsewhere(&["deleteall", "/event"])?;
    if terminal.all()?.contains("path:/event/silent") {
        return Err("events are printed all the same".into());
    }
    Ok(())
}

pub(super) fn history(stage: &mut Stage<'_>) -> Outcome<()> {
    stage.elsewhere(&["create", "/history", "kept"])?;
    {
        let terminal = stage.typed(&stage.warren.at())?;
        terminal.enters("get /history")?;
        terminal.shows("\nkept\n")?;
        terminal.enters("addauth digest alice:secret")?;
        terminal.enters("whoami")?;
        terminal.shows("digest: alice")?;
        terminal.enters("history")?;
        terminal.shows("0 - get /history")?;
        terminal.shows("2 - whoami")?;
        terminal.enters("redo 0")?;
        terminal.until("the data are shown again", |terminal| {
            Ok(terminal.all()?.matches("\nkept\n").count() == 2)
        })?;
        terminal.enters("quit")?;
        terminal.shows("ended with 0")?;
    }
    let file = stage.home().join("warren/history");
    let (text, mode) = (std::fs::read_to_string(&file)?, std::fs::metadata(&file)?.permissions().mode());
    if text.contains("secret") || !text.contains("get /history") || mode & 0o777 != 0o600 {
        return Err(format!("mode {mode:o}, {text}").into());
    }
    // Another run finds it, backwards and by search.
    let terminal = stage.typed(&stage.warren.at())?;
    terminal.presses(&["Up"])?;
    terminal.ends_with("] quit")?;
    terminal.presses(&["C-u", "C-r"])?;
    terminal.shows("reverse-i-search")?;
    terminal.types("get /hi")?;
    terminal.ends_with("get /history")?;
    terminal.presses(&["Enter"])?;
    terminal.shows("\nkept\n")?;
    // Killed, it loses nothing of what was entered.
    terminal.enters("stat /history")?;
    terminal.shows("numChildren")?;
    drop(terminal);
    if !std::fs::read_to_string(&file)?.contains("stat /history") {
        return Err("a line was not kept".into());
    }
    stage.elsewhere(&["delete", "/history"])
}

pub(super) fn interrupts(stage: &mut Stage<'_>) -> Outcome<()> {
    let at = stage.warren.at();
    many(&at)?;
    let terminal = stage.typed(&at)?;
    terminal.types("delete /many")?;
    terminal.presses(&["C-c"])?;
    terminal.until("a new line begins", |terminal| Ok(terminal.last_line()?.ends_with("0]")))?;
    terminal.enters("find /many -c nothing")?;
    terminal.shows("found ")?;
    terminal.presses(&["C-c"])?;
    terminal.shows("interrupted")?;
    // The session goes on.
    terminal.enters("getEphemerals")?;
    terminal.shows("\n[]\n")?;
    leaves(&terminal)
}

/// By Ctrl-D at the prompt: between two of them it is the terminal's, which throws it away.
fn leaves(terminal: &Terminal) -> Outcome<()> {
    terminal.until("it prompts", |terminal| {
        let line = terminal.last_line()?;
        Ok(line.starts_with("[warren: ") && line.ends_with(']'))
    })?;
    terminal.presses(&["C-d"])?;
    terminal.shows("ended with 0")
}

pub(super) fn resizes(stage: &mut Stage<'_>) -> Outcome<()> {
    let terminal = stage.typed(&stage.warren.at())?;
    let long = "x".repeat(150);
    terminal.types(&format!("create /resized {long}"))?;
    let typed = format!("create /resized {long}");
    terminal.until("the long line is shown whole", |terminal| {
        Ok(terminal.all()?.replace('\n', "").contains(&typed))
    })?;
    terminal.resizes(50, 20)?;
    terminal.types("yy")?;
    terminal.resizes(140, 40)?;
    terminal.types("zz")?;
    terminal.presses(&["Enter"])?;
    terminal.shows("Created /resized")?;
    terminal.enters("get /resized")?;
    terminal.shows(&format!("\n{long}yyzz\n"))?;
    terminal.enters("delete /resized")?;
    leaves(&terminal)
}

pub(super) fn reconnects(stage: &mut Stage<'_>) -> Outcome<()> {
    let terminal = stage.typed(&stage.warren.at())?;
    terminal.enters("create -e /reconnects x")?;
    terminal.shows("Created /reconnects")?;
    terminal.enters("addWatch /reconnects")?;
    terminal.enters("addauth digest alice:secret")?;
    terminal.types("get /recon")?;
    terminal.ends_with("] get /recon")?;
    stage.warren.control("kill")?;
    terminal.shows("lost: ")?;
    terminal.ends_with("] get /recon")?;
    stage.warren.control("start")?;
    terminal.shows("the same session")?;
    terminal.types("nects")?;
    terminal.presses(&["Enter"])?;
    terminal.shows("\nx\n")?;
    stage.elsewhere(&["set", "/reconnects", "again"])?;
    terminal.shows("type:NodeDataChanged path:/reconnects")?;
    terminal.enters("whoami")?;
    terminal.shows("digest: alice")?;
    // A command waits for the server.
    stage.warren.control("kill")?;
    terminal.until("the loss is told", |terminal| Ok(terminal.all()?.matches("lost: ").count() == 2))?;
    terminal.enters("get /reconnects")?;
    stage.warren.control("start")?;
    terminal.shows("\nagain\n")?;
    terminal.enters("quit")?;
    terminal.shows("ended with 0")?;
    if stage.once(&stage.warren.at(), &["stat", "/reconnects"])?.status == 0 {
        return Err("the ephemeral outlives its session".into());
    }
    Ok(())
}

pub(super) fn moves_on(stage: &mut Stage<'_>) -> Outcome<()> {
    // A server that is behind what the session saw would not have it; this one is ahead.
    for n in 0..5 {
        stage.elsewhere(&["create", &format!("/ahead-{n}")])?;
    }
    let folder = stage.folder.join("other");
    let other = super::Server::start("warren", stage.plan, &folder, &mut stage.dice)?;
    let servers = format!("{},{}", other.at(), stage.warren.at());
    let terminal = stage.typed(&servers)?;
    terminal.enters("create /only-here")?;
    terminal.shows("Created /only-here")?;
    other.control("kill")?;
    // The other server knows nothing of the session: another begins there.
    terminal.shows("the session is expired")?;
    terminal.shows(&format!("connected to {}", stage.warren.at()))?;
    terminal.enters("stat /only-here")?;
    terminal.shows("Node does not exist: /only-here")
}

/// Many children below `/many`, unless they are there.
fn many(at: &str) -> Outcome<()> {
    let mut connection = Connection::connect(at, &Options::default())?;
    if connection.call(&Request::Exists { path: "/many/node-0099999", watch: false })?.header.err == 0 {
        return Ok(());
    }
    let acl = vec![AclRef { perms: 31, id: IdRef { scheme: "world", id: "anyone" } }];
    let create = |path| {
        Change::new(Op::Create { path, data: None, acl: acl.clone(), mode: CreateMode::Persistent, ttl: 0 })
    };
    connection.call(&Request::Change(create("/many")))?;
    let paths: Vec<String> = (0..MANY).map(|n| format!("/many/node-{n:07}")).collect();
    for some in paths.chunks(1000) {
        let changes = some.iter().map(|path| create(path.as_str())).collect();
        let reply = connection.call(&Request::Multi(changes))?;
        if reply.header.err != 0 {
            return Err(format!("the children cannot be made: {}", reply.header.err).into());
        }
    }
    connection.close()?;
    Ok(())
}

pub(super) fn completes_among_many(stage: &mut Stage<'_>) -> Outcome<()> {
    let at = stage.warren.at();
    many(&at)?;
    let terminal = stage.typed(&at)?;
    // From the key to the screen, the terminal's own time and that of looking at it included.
    let mut took = Vec::new();
    let mut looks = Vec::new();
    for n in 0..MEASURED {
        let number = n * 4_999;
        let tail = format!("{:06}", number / 10);
        terminal.types(&format!("get /many/node-{tail}"))?;
        terminal.ends_with(&format!("] get /many/node-{tail}"))?;
        let look = Instant::now();
        terminal.last_line()?;
        looks.push(look.elapsed());
        // Ten begin so: nothing is filled in, and they are listed.
        let start = Instant::now();
        terminal.presses(&["Tab", "Tab"])?;
        let last = format!("node-{tail}9");
        let until = Instant::now() + Duration::from_secs(20);
        while !terminal.all()?.contains(&last) {
            if Instant::now() > until {
                return Err(format!("{last} is not offered\n{}", terminal.all()?).into());
            }
        }
        took.push(start.elapsed());
        terminal.presses(&["C-u"])?;
        terminal.until("the line is empty", |terminal| Ok(terminal.last_line()?.ends_with("0]")))?;
    }
    took.sort_unstable();
    looks.sort_unstable();
    println!(
        "shell: TAB among {MANY} children, from key to screen: median {} ms, most {} ms; of these, a look at the screen {} ms",
        took[took.len() / 2].as_millis(),
        took.last().map_or(0, Duration::as_millis),
        looks[looks.len() / 2].as_millis(),
    );
    // Of all, a part is offered, and the rest is told.
    terminal.types("ls /many/")?;
    terminal.presses(&["Tab"])?;
    terminal.ends_with("] ls /many/node-00")?;
    terminal.presses(&["Tab", "Tab"])?;
    terminal.shows("Display all 300 possibilities?")?;
    terminal.types("n")?;
    terminal.presses(&["C-u"])?;
    // And in their removal there is progress.
    terminal.enters("deleteall /many")?;
    terminal.shows("deleted ")?;
    terminal.enters("ls /many")?;
    terminal.shows("Node does not exist: /many")
}
