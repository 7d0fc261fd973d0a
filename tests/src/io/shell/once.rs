//! One command at a time.

use super::{Outcome, Stage};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};

/// How it ended, and what it said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) status: i32,
    pub(super) out: String,
    pub(super) err: String,
}

impl Said {
    fn of(output: Output) -> Said {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            status: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    fn must(&self, status: i32, text: &str) -> Outcome<()> {
        if self.status == status && (self.out.contains(text) || self.err.contains(text)) {
            return Ok(());
        }
        Err(format!("expected status {status} and {text:?}, got {self:?}").into())
    }
}

impl Stage<'_> {
    pub(super) fn command(&self, servers: &str, words: &[&str]) -> Command {
        let mut command = Command::new(&self.plan.warren);
        command.args(["-s", servers]).args(words).env_remove("NO_COLOR").stdin(Stdio::null());
        command
    }

    pub(super) fn once(&self, servers: &str, words: &[&str]) -> Outcome<Said> {
        Ok(Said::of(self.command(servers, words).output()?))
    }

    /// Lines on its standard input.
    pub(super) fn piped(&self, servers: &str, options: &[&str], lines: &str) -> Outcome<Said> {
        let mut child = self
            .command(servers, options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().ok_or("it has a standard input")?;
        input.write_all(lines.as_bytes())?;
        drop(input);
        Ok(Said::of(child.wait_with_output()?))
    }
}

pub(super) fn statuses(stage: &mut Stage<'_>) -> Outcome<()> {
    let at = stage.warren.at();
    let once = |words: &[&str]| stage.once(&at, words);
    once(&["create", "/once", "data"])?.must(0, "Created /once")?;
    once(&["get", "/once"])?.must(0, "data")?;
    once(&["get", "/once", "-o", "json"])?.must(0, r#""data":"data""#)?;
    once(&["create", "/x/y/z"])?.must(1, "the nearest that exists is /")?;
    once(&["create", "/once/child"])?.must(0, "Created")?;
    once(&["delete", "/once"])?.must(1, "deleteall /once")?;
    once(&["delete", "-v", "7", "/once/child"])?.must(1, "it is in version 0")?;
    once(&["get", "/nothing", "-o", "json"])?.must(1, r#""code":"NoNode""#)?;
    once(&["get", "once"])?.must(64, "must start with /")?;
    once(&["gett", "/once"])?.must(64, "'get'")?;
    once(&["create", "-e", "/gone"])?.must(0, "the session ends with this command")?;
    once(&["stat", "/gone"])?.must(1, "Node does not exist: /gone")?;
    once(&["-r", "get", "/once"])?.must(0, "data")?;
    // zkCli's own way to name a server.
    let zkcli = Command::new(&stage.plan.warren).args(["-server", &at, "ls", "/once"]).output()?;
    Said::of(zkcli).must(0, "[child]")?;
    let below = stage.once(&format!("{at}/once"), &["ls", "/"])?;
    below.must(0, "[child]")?;
    // Nobody there: one address, then two of which one serves.
    let free = super::super::daemon::free_port(&mut stage.dice);
    let nobody = format!("127.0.0.1:{free}");
    stage.once(&nobody, &["get", "/once"])?.must(2, "warren -s HOST:PORT")?;
    stage.once(&format!("{nobody},{at}"), &["get", "/once"])?.must(0, "data")?;
    stage.once("::1:2181", &["get", "/once"])?.must(64, "brackets")?;
    stage.once(&nobody, &["version"])?.must(0, "Warren CLI version")?;
    // What a pipe says: every line is carried out, and the worst is told.
    let said = stage.piped(&at, &[], "ls /once\nget /nothing\nget /once\n")?;
    said.must(1, "Node does not exist: /nothing")?;
    said.must(1, "[child]\ndata\n")?;
    stage.piped(&nobody, &[], "ls /\n")?.must(2, "warren -s HOST:PORT")?;
    // Bytes come through as they are, from a file and to one.
    let (file, bytes) = (stage.folder.join("bytes"), [0, 255, 10, 27, 13, 10]);
    std::fs::write(&file, bytes)?;
    let name = file.to_str().ok_or("a path is text")?;
    stage.once(&at, &["set", "-f", name, "/once"])?.must(0, "")?;
    let raw = stage.command(&at, &["get", "-r", "/once"]).output()?;
    if raw.stdout != bytes {
        return Err(format!("{bytes:?} came back as {:?}", raw.stdout).into());
    }
    // A reader that goes is no failure.
    let mut many =
        stage.command(&at, &["find", "/"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    drop(many.stdout.take());
    let end = many.wait_with_output()?;
    if !end.stderr.is_empty() {
        return Err(format!("a closed pipe is complained about: {:?}", Said::of(end)).into());
    }
    stage.once(&at, &["deleteall", "/once"])?.must(0, "")
}

/// What `cp` makes has the data and the ACLs of what it is of. Between two servers nobody would see that both lack them.
pub(super) fn copies(stage: &mut Stage<'_>) -> Outcome<()> {
    let at = stage.warren.at();
    let once = |words: &[&str]| stage.once(&at, words);
    once(&["create", "/from", "top"])?.must(0, "")?;
    once(&["create", "/from/child", "below"])?.must(0, "")?;
    once(&["setAcl", "/from/child", "world:anyone:cra"])?.must(0, "")?;
    once(&["cp", "-r", "/from", "/to"])?.must(0, "")?;
    once(&["get", "/to"])?.must(0, "top")?;
    once(&["get", "/to/child"])?.must(0, "below")?;
    once(&["getAcl", "/to/child"])?.must(0, "'world,'anyone\n: cra\n")?;
    once(&["cp", "-r", "--open-acl", "/from", "/open"])?.must(0, "")?;
    once(&["getAcl", "/open/child"])?.must(0, "'world,'anyone\n: cdrwa\n")?;
    for path in ["/from", "/to", "/open"] {
        once(&["deleteall", path])?.must(0, "")?;
    }
    Ok(())
}

pub(super) fn watches(stage: &mut Stage<'_>) -> Outcome<()> {
    let at = stage.warren.at();
    stage.once(&at, &["create", "/watched", "one"])?.must(0, "")?;
    let mut child =
        stage.command(&at, &["-o", "json", "get", "-w", "/watched"]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("it has a standard output")?).lines();
    let first = lines.next().ok_or("it ended before it said the data")??;
    stage.once(&at, &["set", "/watched", "two"])?.must(0, "")?;
    let second = lines.next().ok_or("it ended before it said the event")??;
    let status = child.wait()?;
    if !first.contains("one") || !second.contains(r#""event":"NodeDataChanged""#) || !status.success() {
        return Err(format!("{status}: {first} {second}").into());
    }
    stage.once(&at, &["delete", "/watched"])?.must(0, "")
}
