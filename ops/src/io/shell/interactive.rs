//! The prompt: lines typed on a terminal with completion and history, or read from a file or a pipe without them.

use super::console::{Console, colors};
use super::editor::{Current, Questions};
use super::session::{News, Session, Terms};
use super::{NEWS_MAX, history, interrupt, news, terms};
use crate::cli::{Cli, Exit, Output};
use crate::shell::address::Servers;
use crate::shell::command::{Line, LineCommand, OnOff, ShellCommand};
use crate::shell::failure::Failure;
use crate::shell::forms::is_kept;
use crate::shell::run::{Shell, hints};
use crate::shell::words;
use clap::CommandFactory as _;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{ColorMode, CompletionType, Config, Editor, ExternalPrinter};
use std::collections::VecDeque;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};

/// A line at most that is read from a file or a pipe, bytes.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// Candidates over which it is asked whether to show them.
const ASK_BEYOND: usize = 100;
/// Lines that the command `history` shows.
const SHOWN: usize = 11;

/// Read lines and carry them out, until there are no more.
pub(in crate::io) fn run(cli: &Cli) -> Exit {
    let interrupted = Arc::new(AtomicBool::new(false));
    let mut prompt = Prompt {
        console: Console::new(cli.output, "", Arc::clone(&interrupted)),
        output: cli.output,
        terms: terms(cli),
        current: Current::default(),
        interrupted,
        lines: VecDeque::new(),
        number: 0,
        worst: Exit::Done,
        prints_events: Arc::new(AtomicBool::new(true)),
        printer: Arc::new(Mutex::new(Box::new(print))),
    };
    let exit = if io::stdin().is_terminal() { prompt.typed() } else { prompt.piped() };
    prompt.close();
    exit
}

/// Prints what happens beside the answers, whatever is being typed; the flag tells events, which were asked for.
type Printer = Arc<Mutex<Box<dyn FnMut(&str, bool) + Send>>>;

/// Where there is no line that could be broken.
fn print(text: &str, is_event: bool) {
    if is_event { println!("{text}") } else { eprintln!("{text}") }
}

struct Prompt {
    console: Console,
    output: Output,
    terms: Terms,
    current: Current,
    interrupted: Arc<AtomicBool>,
    /// Numbered lines for history and redo, [`history::LINES_MAX`] at most.
    lines: VecDeque<(usize, String)>,
    number: usize,
    worst: Exit,
    prints_events: Arc<AtomicBool>,
    printer: Printer,
}

/// Does the shell go on?
enum Next {
    Line,
    Quit,
}

impl Prompt {
    /// Lines from a terminal.
    fn typed(&mut self) -> Exit {
        if let Err(e) = interrupt::watch(Arc::clone(&self.interrupted)) {
            eprintln!("warren: signals cannot be watched: {e}");
            return Exit::Degraded;
        }
        let colors = colors(io::stdout().is_terminal());
        let config = Config::builder()
            .max_history_size(history::LINES_MAX)
            .and_then(|config| config.history_ignore_dups(true))
            .map(|config| {
                let color = if colors { ColorMode::Enabled } else { ColorMode::Disabled };
                config
                    .completion_type(CompletionType::List)
                    .history_ignore_space(true)
                    .completion_prompt_limit(ASK_BEYOND)
                    .color_mode(color)
                    .build()
            });
        let editor = config.and_then(Editor::<Questions, FileHistory>::with_config);
        let mut editor = match editor {
            Ok(editor) => editor,
            Err(e) => {
                eprintln!("warren: the terminal cannot be used: {e}");
                return Exit::Degraded;
            }
        };
        editor.set_helper(Some(Questions { current: Arc::clone(&self.current), colors }));
        // A terminal without cursor movement has no printer; events are then printed as they come.
        if let Ok(mut printer) = editor.create_external_printer() {
            *self.printer.lock().expect("nobody panics with it") = Box::new(move |text, _| {
                let _ = printer.print(format!("{text}\n"));
            });
        }
        let file = self.history_file(&mut editor);
        self.console.line("Welcome to Warren. help lists what can be asked, TAB completes, Ctrl-D ends.");
        self.console.end();
        let _ = self.begin();
        loop {
            let prompt = self.prompt();
            match editor.readline(&prompt) {
                // What was pasted may be many lines.
                Ok(lines) => {
                    for line in lines.lines() {
                        if is_kept(line) && matches!(editor.add_history_entry(line), Ok(true)) {
                            if let Some(file) = &file {
                                // A history that cannot be written is no reason to stop.
                                let _ = editor.append_history(file);
                            }
                        }
                        if let Next::Quit = self.line(line) {
                            return Exit::Done;
                        }
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Exit::Done,
                Err(e) => {
                    eprintln!("warren: the terminal is gone: {e}");
                    return Exit::Degraded;
                }
            }
        }
    }

    fn history_file(&mut self, editor: &mut Editor<Questions, FileHistory>) -> Option<PathBuf> {
        let loaded = history::file().map_err(|e| e.to_string()).and_then(|file| match file {
            Some(file) => editor.load_history(&file).map(|()| Some(file)).map_err(|e| e.to_string()),
            None => Ok(None),
        });
        loaded.unwrap_or_else(|e| {
            eprintln!("warren: the history cannot be kept: {e}");
            None
        })
    }

    /// Lines from a file or a pipe. Fails at once when no server answers; otherwise all are carried out, and the worst
    /// status is told.
    fn piped(&mut self) -> Exit {
        if let Err(failure) = self.begin() {
            return failure.exit();
        }
        let mut input = io::stdin().lock();
        loop {
            let mut line = String::new();
            match input.by_ref().take(LINE_BYTES_MAX).read_line(&mut line) {
                Ok(0) => return self.worst,
                Ok(_) => {
                    let line = line.trim_end_matches(['\n', '\r']);
                    if let Next::Quit = self.line(line) {
                        return self.worst;
                    }
                }
                Err(e) => {
                    eprintln!("warren: the standard input cannot be read: {e}");
                    return Exit::Degraded;
                }
            }
        }
    }

    /// What the editor shows before the line.
    fn prompt(&self) -> String {
        let stage = self.session().map_or("CLOSED", |session| session.stage());
        format!("[warren: {}({stage}) {}] ", self.terms.servers, self.number)
    }

    fn session(&self) -> Option<Session> {
        self.current.lock().expect("nobody panics with it").as_ref().map(|(session, _)| session.clone())
    }

    /// A new session, in the place of the one that there was.
    fn begin(&mut self) -> Result<(), Failure> {
        self.close();
        let (news, told) = mpsc::sync_channel(NEWS_MAX);
        let missed = Arc::new(AtomicUsize::new(0));
        let begun =
            Session::begin(self.terms.clone(), news, Arc::clone(&missed), Arc::clone(&self.interrupted));
        let session = begun.map_err(|e| Failure::Told(format!("no thread: {e}")))?;
        let reporter = Reporter {
            told,
            missed,
            output: self.output,
            prints_events: Arc::clone(&self.prints_events),
            printer: Arc::clone(&self.printer),
        };
        std::thread::Builder::new()
            .name("warren-news".into())
            .spawn(move || reporter.report())
            .map_err(|e| Failure::Told(format!("no thread: {e}")))?;
        *self.current.lock().expect("nobody panics with it") =
            Some((session.clone(), self.terms.servers.root.clone()));
        session.attached().inspect_err(|failure| {
            let more = vec![
                "the shell goes on looking for it".to_owned(),
                "name servers by: warren -s HOST:PORT[,HOST:PORT], or connect HOST:PORT".to_owned(),
            ];
            self.console.failure(failure, &more);
        })
    }

    fn close(&mut self) {
        let current = self.current.lock().expect("nobody panics with it").take();
        if let Some((session, _)) = current {
            session.close();
        }
    }

    /// Carry out a line, and say what there is to be said about it.
    fn line(&mut self, line: &str) -> Next {
        let words = match words::split(line) {
            Ok(words) if words.is_empty() => return Next::Line,
            Ok(words) => words,
            Err(e) => {
                self.failed(&Failure::Usage(e.to_string()));
                return Next::Line;
            }
        };
        let number = self.number;
        self.number += 1;
        if is_kept(line) {
            if self.lines.len() >= history::LINES_MAX {
                self.lines.pop_front();
            }
            self.lines.push_back((number, line.to_owned()));
        }
        let typed = match Line::parse_words(&words) {
            Ok(typed) => typed,
            Err(e) if !e.use_stderr() => {
                self.console.line(&e.render().to_string());
                self.console.end();
                return Next::Line;
            }
            Err(e) => {
                // What clap says has a first word of its own, and ends in a newline.
                let said = e.render().to_string();
                self.failed(&Failure::Usage(said.trim_start_matches("error: ").trim_end().to_owned()));
                return Next::Line;
            }
        };
        self.console.begin();
        self.console.output = typed.output.unwrap_or(self.output);
        let next = match self.carry_out(typed.command) {
            Ok(next) => next,
            Err(failure) => {
                self.failed(&failure);
                Next::Line
            }
        };
        self.console.end();
        self.console.output = self.output;
        next
    }

    fn failed(&mut self, failure: &Failure) {
        // What can be done is asked for without the interruption that ended the command.
        self.interrupted.store(false, Ordering::Relaxed);
        let hints = match self.session() {
            Some(mut session) => {
                let root = self.terms.servers.root.clone();
                hints(&mut Shell { server: &mut session, listener: &mut self.console, root: &root }, failure)
            }
            None => Vec::new(),
        };
        self.console.failure(failure, &hints);
        if self.worst as u8 == 0 || failure.exit() == Exit::Unreachable {
            self.worst = failure.exit();
        }
    }

    fn carry_out(&mut self, command: LineCommand) -> Result<Next, Failure> {
        match command {
            LineCommand::Shell(command) => self.ask(command)?,
            LineCommand::Connect { servers } => self.connect(servers)?,
            LineCommand::Close => self.close(),
            LineCommand::History => {
                for (number, line) in self.lines.iter().skip(self.lines.len().saturating_sub(SHOWN)) {
                    self.console.line(&format!("{number} - {line}"));
                }
            }
            LineCommand::Redo { number } => {
                let own = self.number - 1;
                let line = self.lines.iter().find(|(n, _)| *n == number && number != own);
                let Some((_, line)) = line.cloned() else {
                    return Err(Failure::Usage(format!(
                        "no command has the number {number}; history shows the last"
                    )));
                };
                if words::scan(&line).first().is_some_and(|word| word.text == "redo") {
                    return Err(Failure::Usage("a redo is not done again".to_owned()));
                }
                self.console.line(&line);
                self.lines.pop_back();
                self.number = own;
                return Ok(self.line(&line));
            }
            LineCommand::Printwatches { on: None } => {
                let on = if self.prints_events.load(Ordering::Relaxed) { "on" } else { "off" };
                self.console.line(&format!("printwatches is {on}"));
            }
            LineCommand::Printwatches { on: Some(on) } => {
                self.prints_events.store(on == OnOff::On, Ordering::Relaxed);
            }
            LineCommand::Help { command: None } => self.help(),
            LineCommand::Help { command: Some(name) } => {
                let mut declared = Line::command();
                let Some(command) = declared.find_subcommand_mut(&name) else {
                    return Err(Failure::Usage(format!("there is no command {name}; help lists them")));
                };
                let text = command.render_help().to_string();
                self.console.line(text.trim_end());
            }
            LineCommand::Quit => return Ok(Next::Quit),
        }
        Ok(Next::Line)
    }

    fn ask(&mut self, command: ShellCommand) -> Result<(), Failure> {
        let Some(mut session) = self.session() else {
            return Err(Failure::Told("not connected; connect begins a new session".to_owned()));
        };
        let root = self.terms.servers.root.clone();
        Shell { server: &mut session, listener: &mut self.console, root: &root }.run(command)
    }

    fn connect(&mut self, servers: Option<Servers>) -> Result<(), Failure> {
        if let Some(servers) = servers {
            self.terms.servers = servers;
        }
        match self.begin() {
            // It is told already, and the shell goes on looking.
            Err(Failure::Unconnected(_)) | Ok(()) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    fn help(&mut self) {
        let declared = Line::command();
        let width = declared.get_subcommands().map(|command| command.get_name().len()).max().unwrap_or(0);
        for command in declared.get_subcommands().filter(|command| !command.is_hide_set()) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            self.console.line(&format!("{:<width$}  {about}", command.get_name()));
        }
        self.console.line("\nhelp COMMAND tells its options; -o json behind any prints for scripts");
    }
}

/// Prints what happens beside the answers, on a thread of its own, since the line editor may keep it waiting.
struct Reporter {
    told: Receiver<News>,
    missed: Arc<AtomicUsize>,
    output: Output,
    prints_events: Arc<AtomicBool>,
    printer: Printer,
}

impl Reporter {
    fn report(self) {
        while let Ok(news) = self.told.recv() {
            let mut printer = self.printer.lock().expect("nobody panics with it");
            let is_event = matches!(news, News::Event { .. });
            if !is_event || self.prints_events.load(Ordering::Relaxed) {
                printer(&news::text(&news, self.output), is_event);
            }
            let missed = self.missed.swap(0, Ordering::Relaxed);
            if missed > 0 {
                let text = format!("{missed} events came faster than they are printed, and are not shown");
                printer(&text, false);
            }
        }
    }
}
