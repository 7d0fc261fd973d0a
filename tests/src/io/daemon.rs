//! A server as a process: started, asked, stopped, killed.

use crate::sim::Dice;
use rustix::process::{Pid, Signal};
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use warren_transport::io::blocking::four_letter_word;

/// How long a server may take to serve or to go.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at whether something is so.
pub const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Look again and again until `holds`, for as long as [`PATIENCE`] lasts.
pub fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}

/// A port of this machine on which nobody listens, below the range that is handed out for outgoing connections, so
/// that nobody gets it while the server is down.
pub fn free_port(dice: &mut Dice) -> u16 {
    loop {
        let port = 20_000 + dice.index(10_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// One `warrend` with a folder of its own.
#[derive(Debug)]
pub struct Daemon {
    warrend: PathBuf,
    folder: PathBuf,
    /// Where clients connect.
    pub clients: SocketAddr,
    /// Where metrics are served.
    pub metrics: SocketAddr,
    notify_socket: Option<PathBuf>,
    process: Option<Child>,
}

impl Daemon {
    /// One that is not started yet. `settings` are lines of `warren.toml` besides the folder and the addresses, which
    /// are given as flags.
    pub fn new(warrend: &Path, folder: &Path, settings: &str, dice: &mut Dice) -> io::Result<Daemon> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("warren.toml"), settings)?;
        let clients = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(dice)));
        let metrics = loop {
            let port = free_port(dice);
            if port != clients.port() {
                break SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            }
        };
        Ok(Daemon {
            warrend: warrend.to_owned(),
            folder: folder.to_owned(),
            clients,
            metrics,
            notify_socket: None,
            process: None,
        })
    }

    /// From the next start on it tells this socket how it is, as if systemd had started it.
    pub fn notifies(&mut self, socket: &Path) {
        self.notify_socket = Some(socket.to_owned());
    }

    /// Other settings, from the next start on.
    pub fn configure(&self, settings: &str) -> io::Result<()> {
        fs::write(self.folder.join("warren.toml"), settings)
    }

    /// Its folder: settings, log, and the data in `data`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Send the process a signal; it is started.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let process = self.process.as_ref().expect("it was started");
        Ok(rustix::process::kill_process(Pid::from_child(process), signal)?)
    }

    /// How often its log has this text.
    pub fn said(&self, text: &str) -> usize {
        let log = fs::read(self.log()).unwrap_or_default();
        String::from_utf8_lossy(&log).matches(text).count()
    }

    /// Start the process; it need not serve when this returns.
    pub fn spawn(&mut self) -> io::Result<()> {
        assert!(self.process.is_none(), "it is started once at a time");
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.warrend);
        if let Some(socket) = &self.notify_socket {
            command.env("NOTIFY_SOCKET", socket);
        }
        let process = command
            .arg("--config")
            .arg(self.folder.join("warren.toml"))
            .arg("--data-dir")
            .arg(self.folder.join("data"))
            .args(["--client-addr", &self.clients.to_string()])
            .args(["--metrics-addr", &self.metrics.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.process = Some(process);
        Ok(())
    }

    /// Wait until it serves.
    pub fn serving(&mut self) -> io::Result<()> {
        let process = self.process.as_mut().expect("it was started");
        let (mut gone, clients) = (None, self.clients);
        let served = eventually(|| {
            gone = process.try_wait().ok().flatten();
            gone.is_some()
                || four_letter_word(clients, "srvr", Duration::from_secs(2))
                    .is_ok_and(|a| a.contains("Mode:"))
        });
        match gone {
            Some(status) => {
                self.process = None;
                Err(io::Error::other(format!("it ended while starting: {status}\n{}", self.log_end())))
            }
            None if served => Ok(()),
            None => Err(io::Error::other(format!("it does not serve\n{}", self.log_end()))),
        }
    }

    /// Start it and wait until it serves.
    pub fn start(&mut self) -> io::Result<()> {
        self.spawn()?;
        self.serving()
    }

    /// The process, while it is started.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Did it end by itself?
    pub fn ended(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| !matches!(process.try_wait(), Ok(None)))
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGTERM; it must end with status 0.
    pub fn stop(&mut self) -> io::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        rustix::process::kill_process(Pid::from_child(&process), Signal::TERM)?;
        let mut status = None;
        if !eventually(|| {
            status = process.try_wait().ok().flatten();
            status.is_some()
        }) {
            let _ = process.kill();
            let _ = process.wait();
            return Err(io::Error::other("SIGTERM did not end it"));
        }
        match status {
            Some(status) if status.success() => Ok(()),
            status => Err(io::Error::other(format!("SIGTERM ended it with {status:?}\n{}", self.log_end()))),
        }
    }

    /// Where its output goes.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn log_end(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// The value of a metric.
    pub fn metric(&self, name: &str) -> io::Result<f64> {
        let page = get(self.metrics, "/metrics")?;
        page.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
            .ok_or_else(|| io::Error::other(format!("no metric {name}")))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A page, over HTTP/1.0 so that the end of the connection is its end.
fn get(at: SocketAddr, path: &str) -> io::Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
