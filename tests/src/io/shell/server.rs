//! A server for the shell, by the script that the client suites use too.

use super::{Outcome, Plan};
use crate::io::daemon::free_port;
use crate::sim::Dice;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(super) struct Server {
    kind: &'static str,
    script: PathBuf,
    warrend: PathBuf,
    folder: PathBuf,
    port: u16,
}

impl Server {
    pub(super) fn start(kind: &'static str, plan: &Plan, folder: &Path, dice: &mut Dice) -> Outcome<Server> {
        std::fs::create_dir_all(folder)?;
        let server = Server {
            kind,
            script: plan.script.clone(),
            warrend: plan.warrend.clone(),
            folder: folder.to_owned(),
            port: free_port(dice),
        };
        server.control("start")?;
        Ok(server)
    }

    pub(super) fn at(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `start`, `kill` and what else the script knows.
    pub(super) fn control(&self, what: &str) -> Outcome<()> {
        let status = Command::new(&self.script)
            .arg(what)
            .env("SERVER_KIND", self.kind)
            .env("SERVER_DIR", &self.folder)
            .env("SERVER_PORT", self.port.to_string())
            .env("WARREND", &self.warrend)
            .stdin(Stdio::null())
            .status()?;
        if status.success() { Ok(()) } else { Err(format!("{} {what} failed", self.kind).into()) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.control("kill");
    }
}
