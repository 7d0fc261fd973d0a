//! Log lines, to the standard error: for a terminal, or for systemd's journal, which has clocks of its own and is told how
//! grave a line is.

use crate::config::LogLevel;
use std::fmt;
use std::io::IsTerminal as _;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, Formatter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::Handle;

/// Where lines go.
type Stderr = fn() -> std::io::Stderr;

/// The log, once it is written.
pub struct Logging {
    filter: Handle<EnvFilter, Formatter<DefaultFields, Lines, Stderr>>,
    /// The environment says what is logged, whatever the settings say.
    is_fixed: bool,
}

impl Logging {
    /// From now on lines are written: at the level `info`, or what `directives` say for good. `journal`: systemd's journal reads
    /// them.
    pub fn start(directives: Option<&str>, journal: bool) -> Logging {
        let fixed = directives.and_then(|directives| EnvFilter::try_new(directives).ok());
        let is_fixed = fixed.is_some();
        let format = Format::default().with_target(false).with_timer(Time { journal });
        let builder = tracing_subscriber::fmt()
            .with_ansi(std::io::stderr().is_terminal())
            // It would print to the very place that took no line, and panic when that fails: a log file on a full disk is no
            // reason to die.
            .log_internal_errors(false)
            .event_format(Lines { journal, format })
            .with_writer(std::io::stderr as Stderr)
            .with_env_filter(fixed.unwrap_or_else(|| EnvFilter::new("info")))
            .with_filter_reloading();
        let filter = builder.reload_handle();
        builder.init();
        Logging { filter, is_fixed }
    }

    /// Write what is at least so grave.
    pub fn set_level(&self, level: LogLevel) {
        if !self.is_fixed {
            // It fails only when the log is gone, and then there is nothing to set.
            let _ = self.filter.reload(EnvFilter::new(level.to_string()));
        }
    }
}

/// A line, behind its priority where the journal reads it.
struct Lines {
    journal: bool,
    format: Format<tracing_subscriber::fmt::format::Full, Time>,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.journal {
            write!(writer, "<{}>", priority(event.metadata().level()))?;
        }
        self.format.format_event(context, writer, event)
    }
}

/// As `sd-daemon(3)` counts, which are syslog's numbers.
fn priority(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// None for the journal.
struct Time {
    journal: bool,
}

impl FormatTime for Time {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        match self.journal {
            true => Ok(()),
            false => SystemTime.format_time(writer),
        }
    }
}
