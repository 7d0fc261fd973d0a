//! A real terminal, tmux's, with the shell in it.

use super::Outcome;
use crate::io::daemon::{LOOK_EVERY, PATIENCE};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Its size at first.
const COLUMNS: u16 = 110;
const ROWS: u16 = 30;

pub(super) struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// With this in it; `home` is where the history goes. Once the program ends, the terminal shows its status.
    pub(super) fn open(folder: &Path, home: &Path, program: &[&str]) -> Outcome<Terminal> {
        static OPENED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let n = OPENED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let terminal = Terminal { socket: folder.join(format!("tmux-{n}")) };
        let quoted: Vec<String> = program.iter().map(|word| format!("'{word}'")).collect();
        // The shell around the program outlives what is meant for the program.
        let line = format!("trap : INT; {}; echo \"ended with $?\"; sleep 600", quoted.join(" "));
        std::fs::create_dir_all(home)?;
        let state = format!("XDG_STATE_HOME={}", home.display());
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &COLUMNS.to_string(),
            "-y",
            &ROWS.to_string(),
            "env",
            &state,
            "sh",
            "-c",
            &line,
        ])?;
        Ok(terminal)
    }

    fn tmux(&self, words: &[&str]) -> Outcome<String> {
        let said = Command::new("tmux").arg("-u").arg("-S").arg(&self.socket).args(words).output()?;
        match said.status.success() {
            true => Ok(String::from_utf8_lossy(&said.stdout).into_owned()),
            false => Err(format!("tmux {words:?}: {}", String::from_utf8_lossy(&said.stderr)).into()),
        }
    }

    /// Type this.
    pub(super) fn types(&self, text: &str) -> Outcome<()> {
        self.tmux(&["send-keys", "-l", "--", text]).map(|_| ())
    }

    /// Paste this, as a terminal does for a program that asked to be told (bracketed paste).
    pub(super) fn pastes(&self, text: &str) -> Outcome<()> {
        self.tmux(&["set-buffer", "--", text])?;
        self.tmux(&["paste-buffer", "-p", "-r"]).map(|_| ())
    }

    /// Press keys, by tmux's names: `Enter`, `Tab`, `C-c`.
    pub(super) fn presses(&self, keys: &[&str]) -> Outcome<()> {
        let mut words = vec!["send-keys"];
        words.extend_from_slice(keys);
        self.tmux(&words).map(|_| ())
    }

    /// Type a line, and enter it.
    pub(super) fn enters(&self, line: &str) -> Outcome<()> {
        self.types(line)?;
        self.presses(&["Enter"])
    }

    pub(super) fn resizes(&self, columns: u16, rows: u16) -> Outcome<()> {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]).map(|_| ())
    }

    /// What it shows, and what it showed before; lines that were broken at its edge in one piece.
    pub(super) fn all(&self) -> Outcome<String> {
        self.tmux(&["capture-pane", "-p", "-J", "-S", "-2000"])
    }

    /// The last line that is not empty.
    pub(super) fn last_line(&self) -> Outcome<String> {
        let all = self.all()?;
        Ok(all.lines().map(str::trim_end).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned())
    }

    /// Look until it shows this.
    pub(super) fn shows(&self, text: &str) -> Outcome<()> {
        self.until(&format!("{text:?} is shown"), |terminal| Ok(terminal.all()?.contains(text)))
    }

    /// Look until the last line ends so.
    pub(super) fn ends_with(&self, text: &str) -> Outcome<()> {
        self.until(&format!("the last line ends with {text:?}"), |terminal| {
            Ok(terminal.last_line()?.ends_with(text.trim_end()))
        })
    }

    pub(super) fn until(&self, what: &str, mut holds: impl FnMut(&Terminal) -> Outcome<bool>) -> Outcome<()> {
        let until = Instant::now() + PATIENCE;
        while !holds(self)? {
            if Instant::now() > until {
                return Err(format!("not so: {what}; the terminal shows\n{}", self.all()?.trim_end()).into());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}
