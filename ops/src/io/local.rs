//! `warren local`: starts a whole ensemble on this machine, and stops it.

use super::admin;
use crate::cli::Exit;
use crate::local::{self, NAME, Place, Ports};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use warren_server::admin::{Request, Response, SOCKET};
use warren_transport::io::certs;

/// All servers must serve by then.
const SERVE_WITHIN: Duration = Duration::from_secs(60);
/// A server that was asked to stop is killed after this.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks at the servers.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Run it until Ctrl-C.
pub(super) fn run(servers: u8, observers: u8, dir: &Path, ports: Ports) -> Exit {
    let places = match local::places(servers, observers, dir, ports) {
        Ok(places) => places,
        Err(why) => {
            eprintln!("warren: {why}");
            return Exit::Usage;
        }
    };
    match start_and_wait(&places, dir) {
        Ok(exit) => exit,
        Err(why) => {
            eprintln!("warren: {why}");
            Exit::Degraded
        }
    }
}

fn start_and_wait(places: &[Place], dir: &Path) -> Result<Exit, String> {
    let interrupted = super::signals::watch().map_err(|e| format!("signals cannot be watched: {e}"))?;
    prepare(places, dir)?;
    let warrend = beside_this("warrend")?;
    let mut running: Vec<Running<'_>> = Vec::new();
    for place in places {
        running.push(Running::start(&warrend, place)?);
    }
    let until = Instant::now() + SERVE_WITHIN;
    while !places.iter().all(is_serving) {
        if interrupted.is_set() {
            return Ok(Exit::Done);
        }
        if let Some(dead) = running.iter_mut().find_map(Running::death) {
            return Err(dead);
        }
        if Instant::now() > until {
            let silent: Vec<String> =
                places.iter().filter(|p| !is_serving(p)).map(|p| p.id.to_string()).collect();
            return Err(format!(
                "servers {} do not serve after {} s; their logs are {}/*/log",
                silent.join(", "),
                SERVE_WITHIN.as_secs(),
                dir.display()
            ));
        }
        thread::sleep(LOOK_EVERY);
    }
    println!("{}", local::connect_string(places));
    eprintln!(
        "{} servers serve; their data and logs are in {}. Ctrl-C stops them.",
        places.len(),
        dir.display()
    );
    while !interrupted.is_set() {
        for server in &mut running {
            if let Some(dead) = server.death() {
                eprintln!("warren: {dead}");
                server.told = true;
            }
        }
        if running.iter().all(|server| server.told) {
            return Err("no server is left".to_owned());
        }
        thread::sleep(LOOK_EVERY);
    }
    eprintln!("stopping");
    Ok(Exit::Done)
}

/// Certificates where there are none, and settings.
fn prepare(places: &[Place], dir: &Path) -> Result<(), String> {
    let failed =
        |what: &str, path: &Path, e: &dyn std::fmt::Display| format!("{what} {}: {e}", path.display());
    // What the servers read is said in full paths, whatever the folder they run in.
    fs::create_dir_all(dir).map_err(|e| failed("cannot make", dir, &e))?;
    let ca_dir = dir.join("ca");
    if !ca_dir.join("ca.pem").exists() {
        certs::init(&ca_dir, NAME).map_err(|e| failed("cannot make the authority in", &ca_dir, &e))?;
    }
    let ca = ca_dir.join("ca.pem").canonicalize().map_err(|e| failed("cannot read", &ca_dir, &e))?;
    for place in places {
        fs::create_dir_all(&place.dir).map_err(|e| failed("cannot make", &place.dir, &e))?;
    }
    let absolute: Vec<Place> = places
        .iter()
        .map(|place| {
            let dir = place.dir.canonicalize().map_err(|e| failed("cannot read", &place.dir, &e))?;
            Ok(Place { dir, ..place.clone() })
        })
        .collect::<Result<_, String>>()?;
    for place in &absolute {
        let cert = place.cert();
        if !cert.exists() {
            certs::issue(&ca_dir, place.id)
                .and_then(|pem| certs::write_secret(&cert, &pem))
                .map_err(|e| failed("cannot make the certificate", &cert, &e))?;
        }
        let text = local::settings(place, &absolute, &ca);
        fs::write(place.config(), text).map_err(|e| failed("cannot write", &place.config(), &e))?;
    }
    Ok(())
}

fn beside_this(name: &str) -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|e| format!("cannot find this program's own folder: {e}"))?;
    let path = this.with_file_name(name);
    match path.exists() {
        true => Ok(path),
        false => Err(format!("{} is not there; build or install it beside `warren`", path.display())),
    }
}

fn is_serving(place: &Place) -> bool {
    let asked = admin::ask(&place.dir.join(SOCKET), &Request::Status);
    matches!(asked, Ok(Response::Status(status)) if status.serving)
}

/// A server's process; asked to stop, and waited for, when this is dropped.
struct Running<'a> {
    place: &'a Place,
    child: Child,
    /// Its death was said.
    told: bool,
}

impl<'a> Running<'a> {
    fn start(warrend: &Path, place: &'a Place) -> Result<Running<'a>, String> {
        let log = place.dir.join("log");
        let spawn = || -> io::Result<Child> {
            let file = File::options().create(true).append(true).open(&log)?;
            Command::new(warrend)
                .arg("--config")
                .arg(place.config())
                .stdin(Stdio::null())
                .stdout(file.try_clone()?)
                .stderr(file)
                // Ctrl-C in the terminal is for `warren` alone, which stops them in order.
                .process_group(0)
                .spawn()
        };
        match spawn() {
            Ok(child) => Ok(Running { place, child, told: false }),
            Err(e) => Err(format!("server {} cannot be started: {e}", place.id)),
        }
    }

    /// Said once when it died by itself.
    fn death(&mut self) -> Option<String> {
        if self.told {
            return None;
        }
        let status = self.child.try_wait().ok().flatten()?;
        let log = self.place.dir.join("log");
        Some(format!("server {} ended ({status}); its log is {}", self.place.id, log.display()))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) else { return };
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let until = Instant::now() + STOP_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
