//! Where answers, notes and progress are printed.

use crate::cli::Output;
use crate::shell::answer::Answer;
use crate::shell::failure::Failure;
use crate::shell::run::Listener;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Read as _, Stdout, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Work that takes longer shows how far it is.
const QUIET: Duration = Duration::from_millis(400);
/// Between two showings.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// The standard output for answers, the standard error for all else.
pub(super) struct Console {
    pub(super) output: Output,
    out: BufWriter<Stdout>,
    is_terminal: bool,
    shows_progress: bool,
    colors: bool,
    /// Since when the command runs, and when progress was shown last.
    since: Instant,
    shown: Option<Instant>,
    /// Nobody reads the output any more.
    broken: bool,
    interrupted: Arc<AtomicBool>,
    /// Before what is said about a failure.
    prefix: &'static str,
}

/// Are colours wanted on it? Not where it is no terminal, and not where `NO_COLOR` is set (no-color.org).
pub(super) fn colors(is_terminal: bool) -> bool {
    let asks_for_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    is_terminal && !asks_for_none && !dumb
}

impl Console {
    pub(super) fn new(output: Output, prefix: &'static str, interrupted: Arc<AtomicBool>) -> Console {
        Console {
            output,
            out: BufWriter::new(io::stdout()),
            is_terminal: io::stdout().is_terminal(),
            shows_progress: io::stderr().is_terminal(),
            colors: colors(io::stderr().is_terminal()),
            since: Instant::now(),
            shown: None,
            broken: false,
            interrupted,
            prefix,
        }
    }

    /// A command begins.
    pub(super) fn begin(&mut self) {
        self.since = Instant::now();
        self.interrupted.store(false, Ordering::Relaxed);
    }

    /// It ended: what was printed is seen.
    pub(super) fn end(&mut self) {
        self.clear_progress();
        let flushed = self.out.flush();
        self.check(flushed);
    }

    /// A line of its own, of the shell's.
    pub(super) fn line(&mut self, text: &str) {
        let written = writeln!(self.out, "{text}");
        self.check(written);
    }

    /// Why it failed, and what can be done about it.
    pub(super) fn failure(&mut self, failure: &Failure, hints: &[String]) {
        self.end();
        if self.output == Output::Json {
            eprintln!("{}", failure.json(hints));
            return;
        }
        eprintln!("{}{}", self.prefix, self.painted("31", &failure.to_string()));
        for hint in hints {
            eprintln!("  {}", self.painted("2", hint));
        }
    }

    fn painted(&self, color: &str, text: &str) -> String {
        match self.colors {
            true => format!("\x1b[{color}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn check(&mut self, written: io::Result<()>) {
        // Such as `| head`: no reason to go on, and no failure.
        self.broken |= written.is_err();
    }

    fn clear_progress(&mut self) {
        if self.shown.take().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

impl Listener for Console {
    fn answer(&mut self, answer: Answer) {
        self.clear_progress();
        let written = match self.output {
            Output::Text => self.out.write_all(&answer.text(self.is_terminal)),
            Output::Json => writeln!(self.out, "{}", answer.json()),
        };
        self.check(written);
    }

    fn note(&mut self, text: &str) {
        self.end();
        eprintln!("{}{}", self.prefix, self.painted("2", &format!("note: {text}")));
    }

    fn progress(&mut self, what: &str, done: usize, of: Option<usize>) {
        let due = self.shown.is_none_or(|shown| shown.elapsed() > SHOW_EVERY);
        if !self.shows_progress || self.since.elapsed() < QUIET || !due {
            return;
        }
        let of = of.map(|of| format!(" of {of}")).unwrap_or_default();
        eprint!("\r\x1b[K{what} {done}{of}");
        self.shown = Some(Instant::now());
    }

    fn is_interrupted(&self) -> bool {
        self.broken || self.interrupted.load(Ordering::Relaxed)
    }

    fn file(&mut self, path: &Path, max: usize) -> Result<Vec<u8>, Failure> {
        let read = |from: &mut dyn io::Read| {
            let mut data = Vec::new();
            from.take(max as u64 + 1).read_to_end(&mut data).map(|_| data)
        };
        let data = match path.to_str() {
            Some("-") => read(&mut io::stdin().lock()),
            _ => File::open(path).and_then(|mut file| read(&mut file)),
        };
        match data {
            Ok(data) if data.len() > max => {
                Err(Failure::Usage(format!("{} holds more than {max} bytes", path.display())))
            }
            Ok(data) => Ok(data),
            Err(e) => Err(Failure::Usage(format!("cannot read {}: {e}", path.display()))),
        }
    }
}
