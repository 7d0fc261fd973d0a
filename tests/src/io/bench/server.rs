//! The servers that are compared, by the script that the client suites use too.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Ticks of /proc's processor times in a second: what Linux shows on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// What steps are measured on: a server, or several.
pub(super) trait Measured {
    /// Where clients connect, with each in turn.
    fn at(&self) -> &[SocketAddr];
    /// Whose processor time counts.
    fn pids(&self) -> io::Result<Vec<u32>>;
}

impl Measured for Server {
    fn at(&self) -> &[SocketAddr] {
        std::slice::from_ref(&self.at)
    }

    fn pids(&self) -> io::Result<Vec<u32>> {
        Ok(vec![self.pid()?])
    }
}

pub(super) struct Server {
    pub(super) kind: &'static str,
    pub(super) at: SocketAddr,
    script: PathBuf,
    folder: PathBuf,
}

impl Server {
    pub(super) fn start(kind: &'static str, script: &Path, folder: PathBuf, port: u16) -> io::Result<Server> {
        let server = Server::new(kind, script, folder, port)?;
        server.control("start")?;
        Ok(server)
    }

    /// One that is not started yet.
    pub(super) fn new(kind: &'static str, script: &Path, folder: PathBuf, port: u16) -> io::Result<Server> {
        std::fs::create_dir_all(&folder)?;
        let at = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port));
        Ok(Server { kind, at, script: script.to_owned(), folder })
    }

    pub(super) fn control(&self, what: &str) -> io::Result<String> {
        let out = Command::new(&self.script)
            .arg(what)
            .env("SERVER_KIND", self.kind)
            .env("SERVER_DIR", &self.folder)
            .env("SERVER_PORT", self.at.port().to_string())
            .env("ZOOKEEPER_JAVA", "-Xmx3g -XX:+UseG1GC")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        if !out.status.success() {
            return Err(io::Error::other(format!("{}: {what} failed", self.kind)));
        }
        Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    pub(super) fn pid(&self) -> io::Result<u32> {
        self.control("pid")?.parse().map_err(io::Error::other)
    }

    /// Processor seconds that a process used so far.
    pub(super) fn cpu_seconds(pid: u32) -> io::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Behind the name, which may hold anything: user time is the 12th field, system time the 13th.
        let fields = stat.rsplit(") ").next().unwrap_or_default();
        let ticks: f64 =
            fields.split(' ').skip(11).take(2).map(|field| field.parse::<f64>().unwrap_or(0.0)).sum();
        Ok(ticks / TICKS_PER_SECOND)
    }

    pub(super) fn rss_mib(pid: u32) -> io::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib: f64 = line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0.0);
        Ok(kib / 1024.0)
    }

    /// A figure of `mntr`.
    pub(super) fn figure(&self, name: &str) -> io::Result<f64> {
        let page =
            warren_transport::io::blocking::four_letter_word(self.at, "mntr", Duration::from_secs(10))?;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.ok_or_else(|| io::Error::other(format!("mntr has no {name}")))
    }

    /// Kill it, start it, and ask until it answers `path`; how long that took.
    pub(super) fn restart(&self, path: &str, how: &str) -> io::Result<Duration> {
        use warren_transport::Request;
        use warren_transport::io::blocking::{Connection, Options};
        self.control(how)?;
        let start = Instant::now();
        let starting = Command::new(&self.script)
            .arg("start")
            .env("SERVER_KIND", self.kind)
            .env("SERVER_DIR", &self.folder)
            .env("SERVER_PORT", self.at.port().to_string())
            .env("ZOOKEEPER_JAVA", "-Xmx3g -XX:+UseG1GC")
            .stdin(Stdio::null())
            .spawn();
        let mut starting = starting?;
        let took = loop {
            let asked = Connection::connect(self.at, &Options::default())
                .and_then(|mut connection| connection.call(&Request::Exists { path, watch: false }));
            match asked {
                Ok(reply) if reply.header.err == 0 => break start.elapsed(),
                _ if start.elapsed() > Duration::from_secs(120) => {
                    return Err(io::Error::other(format!("{} does not come back", self.kind)));
                }
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        starting.wait()?;
        Ok(took)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.control("kill");
    }
}
