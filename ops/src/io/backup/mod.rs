//! Taking backups, restoring them, and looking at them. The work is at the lowest priority: a server's clients come first.

mod restore;
mod take;
mod target;
mod verify;

pub(super) use restore::restore;
pub(super) use take::take;
pub(super) use verify::verify_path;

use super::signals::Interrupted;
use crate::backup::progress::Progress;
use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

/// How far behind everything else.
const NICENESS: i32 = 19;

/// What a long command has on its way: it says how far it is, and looks whether it is to stop.
struct Work {
    progress: Progress,
    began: Instant,
    interrupted: Interrupted,
}

impl Work {
    fn begin(doing: &'static str, expected_bytes: u64) -> Result<Work, String> {
        let interrupted = super::signals::watch().map_err(|e| format!("signals cannot be watched: {e}"))?;
        // It only takes longer then.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        let terminal = std::io::stderr().is_terminal();
        let progress = Progress::new(doing, terminal, expected_bytes);
        Ok(Work { progress, began: Instant::now(), interrupted })
    }

    fn expect(&mut self, doing: &'static str, expected_bytes: u64) {
        self.end();
        self.progress = Progress::new(doing, std::io::stderr().is_terminal(), expected_bytes);
        self.began = Instant::now();
    }

    /// So much is done. False: the user wants no more of it.
    #[must_use]
    fn goes_on(&mut self, done_bytes: u64) -> bool {
        if let Some(text) = self.progress.at(self.began.elapsed(), done_bytes) {
            eprint!("{text}");
            let _ = std::io::stderr().flush();
        }
        !self.interrupted.is_set()
    }

    fn end(&mut self) {
        eprint!("{}", self.progress.end());
    }
}

/// Of a stream, bytes, by what a server says of its tree: rows have about so much beside paths and data.
fn stream_bytes(znodes: u64, data_bytes: u64) -> u64 {
    const ROW_BYTES: u64 = 170;
    data_bytes + znodes * ROW_BYTES
}
