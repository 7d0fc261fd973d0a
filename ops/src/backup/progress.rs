//! How far a long command is: one line that is written over on a terminal, a line now and then elsewhere.

use crate::status::bytes;
use std::time::Duration;

/// Between two lines on a terminal…
const EVERY_TERMINAL: Duration = Duration::from_millis(250);
/// …and elsewhere, where each stays.
const EVERY_LINE: Duration = Duration::from_secs(10);

/// Says when there is something to say, and what. It is told the time.
#[derive(Debug)]
pub struct Progress {
    doing: &'static str,
    terminal: bool,
    /// About as many bytes as there are; 0: nobody knows.
    expected: u64,
    said: Duration,
    /// Is a line on the terminal that is to be written over?
    open: bool,
}

impl Progress {
    /// Of `doing`, such as "backup".
    pub fn new(doing: &'static str, terminal: bool, expected: u64) -> Progress {
        Progress { doing, terminal, expected, said: Duration::ZERO, open: false }
    }

    /// So many bytes are done (0: nobody counts), so long after the beginning: what to print, if anything.
    pub fn at(&mut self, since: Duration, done: u64) -> Option<String> {
        let every = if self.terminal { EVERY_TERMINAL } else { EVERY_LINE };
        if since < self.said + every {
            return None;
        }
        self.said = since;
        let rate = bytes((done as f64 / since.as_secs_f64()) as u64);
        let part = match done.checked_mul(100).and_then(|done| done.checked_div(self.expected)) {
            // The expectation is rough, and 100 % is for what is done.
            Some(percent) => format!(", {} %", percent.min(99)),
            None => String::new(),
        };
        let line = match done {
            0 => format!("{} …", self.doing),
            _ => format!("{}: {}{part}, {rate}/s", self.doing, bytes(done)),
        };
        self.open = self.terminal;
        Some(if self.terminal { format!("\r\x1b[K{line}") } else { format!("{line}\n") })
    }

    /// What to print before anything else is.
    pub fn end(&mut self) -> &'static str {
        if std::mem::take(&mut self.open) { "\r\x1b[K" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_often_and_in_one_line() {
        let mut progress = Progress::new("backup", true, 100 << 20);
        assert_eq!(progress.at(Duration::from_millis(100), 5 << 20), None);
        let line = progress.at(Duration::from_millis(500), 40 << 20).unwrap();
        assert_eq!(line, "\r\x1b[Kbackup: 40.0 MiB, 40 %, 80.0 MiB/s");
        assert_eq!(progress.at(Duration::from_millis(600), 50 << 20), None);
        assert!(progress.at(Duration::from_secs(1), 200 << 20).unwrap().contains(", 99 %,"));
        assert_eq!((progress.end(), progress.end()), ("\r\x1b[K", ""));
    }

    #[test]
    fn elsewhere_lines_stay() {
        let mut progress = Progress::new("restore", false, 0);
        assert_eq!(progress.at(Duration::from_secs(9), 1), None);
        assert_eq!(progress.at(Duration::from_secs(10), 10 << 20).unwrap(), "restore: 10.0 MiB, 1.0 MiB/s\n");
        assert_eq!(progress.end(), "");
        let mut progress = Progress::new("reading", false, 0);
        assert_eq!(progress.at(Duration::from_secs(10), 0).unwrap(), "reading …\n");
    }
}
