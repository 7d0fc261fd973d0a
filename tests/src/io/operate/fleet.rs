//! The servers that are operated, and the command that operates them.

use super::Outcome;
use crate::io::daemon::{LOOK_EVERY, eventually, free_port};
use crate::sim::Dice;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use warren_server::admin::{Response, Status};
use warren_transport::io::blocking::four_letter_word;

/// A command may take this long: the longest waits for an election.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);

/// How a command ended, and what it said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) status: i32,
    pub(super) out: String,
    pub(super) err: String,
}

impl Said {
    /// It must have ended so, and have said this on either channel.
    pub(super) fn must(self, status: i32, text: &str) -> Outcome<Said> {
        if self.status == status && (self.out.contains(text) || self.err.contains(text)) {
            return Ok(self);
        }
        Err(format!("expected status {status} and {text:?}, got {self:?}").into())
    }
}

/// A server that is given by a settings file; dead until it is started.
pub(super) struct Server {
    pub(super) id: u8,
    pub(super) dir: PathBuf,
    pub(super) clients: SocketAddr,
    pub(super) peers: SocketAddr,
    /// `--config` or `--zoo-cfg`, and its file.
    pub(super) settings: (&'static str, PathBuf),
    process: Option<Child>,
}

impl Server {
    pub(super) fn new(folder: &Path, id: u8, dice: &mut Dice) -> Outcome<Server> {
        let dir = folder.join(id.to_string());
        fs::create_dir_all(&dir)?;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let peers = loop {
            let port = free_port(dice);
            if UdpSocket::bind(at(port)).is_ok() {
                break at(port);
            }
        };
        let settings = ("--config", dir.join("warren.toml"));
        Ok(Server { id, dir, clients: at(free_port(dice)), peers, settings, process: None })
    }

    pub(super) fn cert(&self) -> PathBuf {
        self.dir.join("server.pem")
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(super) fn start(&mut self, warrend: &Path) -> Outcome<()> {
        assert!(self.process.is_none(), "it is started once at a time");
        let log = File::options().create(true).append(true).open(self.dir.join("log"))?;
        let process = Command::new(warrend)
            .arg(self.settings.0)
            .arg(&self.settings.1)
            .arg("--data-dir")
            .arg(self.data())
            .args(["--metrics-addr", "off"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.process = Some(process);
        Ok(())
    }

    /// Wait until it serves clients.
    pub(super) fn serves(&mut self) -> Outcome<()> {
        let clients = self.clients;
        let served = eventually(|| {
            self.is_gone()
                || four_letter_word(clients, "srvr", Duration::from_secs(2))
                    .is_ok_and(|a| a.contains("Mode:"))
        });
        match served && !self.is_gone() {
            true => Ok(()),
            false => Err(format!("server {} does not serve\n{}", self.id, self.log_end()).into()),
        }
    }

    pub(super) fn is_gone(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| !matches!(process.try_wait(), Ok(None)))
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGTERM, and wait until it is gone.
    pub(super) fn stop(&mut self) -> Outcome<()> {
        let process = self.process.as_ref().ok_or("it does not run")?;
        rustix::process::kill_process(
            rustix::process::Pid::from_child(process),
            rustix::process::Signal::TERM,
        )?;
        match eventually(|| self.is_gone()) {
            true => self.process = None,
            false => return Err(format!("server {} does not stop\n{}", self.id, self.log_end()).into()),
        }
        Ok(())
    }

    pub(super) fn pid(&self) -> Outcome<u32> {
        Ok(self.process.as_ref().ok_or("it does not run")?.id())
    }

    /// SIGHUP.
    pub(super) fn hang_up(&self) -> Outcome<()> {
        let process = self.process.as_ref().ok_or("it does not run")?;
        let pid = rustix::process::Pid::from_child(process);
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::HUP)?)
    }

    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("log")).unwrap_or_default()).into_owned()
    }

    pub(super) fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    pub(super) fn word(&self, word: &str) -> Outcome<String> {
        Ok(four_letter_word(self.clients, word, Duration::from_secs(5))?)
    }

    /// A figure of `mntr`.
    pub(super) fn figure(&self, name: &str) -> Option<i64> {
        let text = self.word("mntr").ok()?;
        text.lines().find_map(|line| line.strip_prefix(&format!("zk_{name}\t"))?.parse().ok())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All of it.
pub(super) struct Fleet {
    pub(super) warrend: PathBuf,
    pub(super) warren: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) dice: Dice,
    pub(super) servers: Vec<Server>,
}

impl Fleet {
    /// The command with these words, without a server.
    pub(super) fn warren(&self, words: &[&str]) -> Outcome<Said> {
        let mut process = Command::new(&self.warren)
            .args(words)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let until = Instant::now() + COMMAND_WITHIN;
        // What it prints fits into the pipe.
        while process.try_wait()?.is_none() {
            if Instant::now() > until {
                let _ = process.kill();
                let _ = process.wait();
                return Err(format!("`warren {}` does not end", words.join(" ")).into());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let Output { status, stdout, stderr } = process.wait_with_output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Said { status: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) })
    }

    /// The command, to a server.
    pub(super) fn ask(&self, id: u8, words: &[&str]) -> Outcome<Said> {
        let data = self.server(id).data().display().to_string();
        self.warren(&[&["--data-dir", &data], words].concat())
    }

    pub(super) fn server(&self, id: u8) -> &Server {
        self.servers.iter().find(|server| server.id == id).expect("there is such a server")
    }

    pub(super) fn server_mut(&mut self, id: u8) -> &mut Server {
        self.servers.iter_mut().find(|server| server.id == id).expect("there is such a server")
    }

    /// `warren status -o json`.
    pub(super) fn status(&self, id: u8) -> Outcome<Status> {
        let said = self.ask(id, &["status", "-o", "json"])?;
        match serde_json::from_str(&said.out)? {
            Response::Status(status) => Ok(*status),
            other => Err(format!("{other:?} is no status").into()),
        }
    }

    /// Who leads; waits until all running servers agree on somebody.
    pub(super) fn leader(&self) -> Outcome<u8> {
        let running = self.servers.iter().filter(|server| server.process.is_some());
        self.leader_of(&running.map(|server| server.id).collect::<Vec<_>>())
    }

    /// Who leads, as these servers agree.
    pub(super) fn leader_of(&self, ids: &[u8]) -> Outcome<u8> {
        let mut leader = None;
        let agreed = eventually(|| {
            let said: Vec<Option<u8>> =
                ids.iter().map(|id| self.status(*id).ok().and_then(|status| status.leader)).collect();
            leader = said.first().copied().flatten();
            leader.is_some() && said.iter().all(|other| *other == leader)
        });
        leader.filter(|_| agreed).ok_or_else(|| "the servers do not agree on a leader".into())
    }

    pub(super) fn start(&mut self, id: u8) -> Outcome<()> {
        let warrend = self.warrend.clone();
        self.server_mut(id).start(&warrend)
    }

    /// Wait until this holds.
    pub(super) fn until(&self, what: &str, mut holds: impl FnMut(&Fleet) -> bool) -> Outcome<()> {
        match eventually(|| holds(self)) {
            true => Ok(()),
            false => Err(format!("it does not come about that {what}").into()),
        }
    }
}
