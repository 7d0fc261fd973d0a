//! The command `warren`, run.

use super::{Outcome, Trial};
use crate::io::daemon::{LOOK_EVERY, PATIENCE};
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

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

impl Trial {
    /// Start the command; what it prints goes to files, as it may be much.
    pub(super) fn begin(&self, words: &[&str]) -> Outcome<Child> {
        let out = |name: &str| File::create(self.folder.join(name));
        Ok(Command::new(&self.warren)
            .args(words)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(out("out")?)
            .stderr(out("err")?)
            .spawn()?)
    }

    /// Run the command to its end.
    pub(super) fn warren(&self, words: &[&str]) -> Outcome<Said> {
        let mut process = self.begin(words)?;
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = process.try_wait()? {
                break status;
            }
            if Instant::now() > until {
                let _ = process.kill();
                let _ = process.wait();
                return Err(format!("`warren {}` does not end", words.join(" ")).into());
            }
            std::thread::sleep(LOOK_EVERY);
        };
        let text = |name: &str| -> Outcome<String> {
            Ok(String::from_utf8_lossy(&std::fs::read(self.folder.join(name))?).into_owned())
        };
        Ok(Said { status: status.code().unwrap_or(-1), out: text("out")?, err: text("err")? })
    }
}
