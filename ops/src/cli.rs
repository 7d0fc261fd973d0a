//! The command line of `warren`, declared once.

use crate::backup::flags::{BackupFlags, RestoreFlags, VerifyFlags};
use crate::log::flags::LogFlags;
use crate::shell::address::Servers;
use crate::shell::command::ShellCommand;
use crate::shell::forms;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use warren_server::admin::{MemberChange, Request, SOCKET};
use warren_server::config::Address;

/// How a command ended, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is done, and well.
    Done = 0,
    /// Refused, or something is not as it should be.
    Degraded = 1,
    /// Nobody answered.
    Unreachable = 2,
    /// The command line makes no sense.
    Usage = 64,
}

/// Operate Warren servers
///
/// Exit status: 0 done, 1 refused or degraded, 2 unreachable, 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "warren", version = warren_server::version::VERSION)]
pub struct Cli {
    /// The data folder of the server on this machine [default: ./warren-data where there is one, else /var/lib/warren where there is]
    #[arg(long, global = true, value_name = "DIR", default_value_os_t = crate::io::data_dir(), hide_default_value = true)]
    pub data_dir: PathBuf,

    /// The server's administration socket, if not DATA_DIR/admin.sock
    #[arg(long, global = true, value_name = "PATH")]
    pub admin: Option<PathBuf>,

    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,

    /// The servers that shell commands ask: HOST:PORT[,HOST:PORT]...[/CHROOT]
    #[arg(short, long = "server", value_name = "SERVERS", default_value = "127.0.0.1:2181")]
    pub servers: Servers,

    /// The session timeout that shell commands ask for, ms
    #[arg(long = "timeout", value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(i32).range(1..))]
    pub timeout_ms: i32,

    /// A server without a leader will do, which answers reads alone
    #[arg(short, long)]
    pub read_only: bool,

    /// For scripts of zkCli's: a connection is waited for in any case
    #[arg(long = "waitforconnection", hide = true)]
    pub wait_for_connection: bool,

    /// What to do; without it, the shell.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// How the server is, in one screen
    Status {
        /// Again and again, every so many seconds, until Ctrl-C
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", require_equals = true,
              value_parser = clap::value_parser!(u32).range(1..=3600))]
        watch: Option<u32>,
    },
    /// What is wrong or will be with this server and its host, and what to do about it
    ///
    /// It looks at disk, syncs, clock, limits, the other servers, certificates, settings and ports. Exit status: 0 nothing to
    /// do, 1 something to do, 2 the server does not answer.
    Doctor {
        /// The settings that the server is started with [default: /etc/warren/warren.toml, if it is of this data folder]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// The ensemble's leader
    #[command(subcommand)]
    Leader(Leader),
    /// Who belongs to the ensemble; any of its servers may be asked
    #[command(subcommand)]
    Member(Member),
    /// Make this server the only voter, when the majority of the voters is lost for good
    ///
    /// What the lost servers acknowledged and this one does not have is lost. Choose the survivor with the highest zxid
    /// (`warren status`), and stop the others first. They must not come back with their data: empty their data folders, and
    /// let them come in anew by `warren member add`.
    ForceQuorum {
        /// Say that you know what it costs
        #[arg(long, required = true)]
        yes_i_lose_data: bool,
    },
    /// Restart this server in place: its clients stay connected, and notice nothing but a pause
    ///
    /// The process becomes one of the program and the settings that are on the disk now; if those are no good, nothing is done.
    /// A leader hands leadership over first. Returns once the server serves again: go on to the next one then.
    Restart {
        /// Seconds after which it is said that the server does not serve yet
        #[arg(long, value_name = "SECONDS", default_value_t = 120)]
        within: u64,
    },
    /// Throw this server's data away, and take them anew from the others
    ///
    /// For a server whose tree is not what the others have (`warren status`), or whose disk is not to be trusted. The others go on
    /// to serve; a voter votes again as soon as it has the log (`warren member list`).
    Rebuild {
        /// Say that you mean this server's data
        #[arg(long, required = true)]
        yes: bool,
    },
    /// What an alert means, and what to do about it; without a name, the list of them
    Runbook {
        /// The alert
        name: Option<String>,
    },
    /// Certificates, by which the servers of an ensemble know each other
    #[command(subcommand)]
    Certs(Certs),
    /// Make certificates and settings for the servers of a new ensemble: a folder for each, to be copied to its /etc/warren
    Prepare {
        /// Where to write; DIR/ca is the authority, DIR/N what server N is given
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The ensemble's name, which certificates carry
        #[arg(long, value_name = "NAME", default_value = "warren")]
        ensemble: String,
        /// TCP port for clients, the same on every host
        #[arg(long, value_name = "PORT", default_value_t = 2181)]
        client_port: u16,
        /// UDP port for the other servers, likewise
        #[arg(long, value_name = "PORT", default_value_t = 2182)]
        peer_port: u16,
        /// Names or addresses of the hosts, in the order of their servers' ids
        #[arg(value_name = "HOST", required = true)]
        hosts: Vec<String>,
    },
    /// Back up a running server's data, and so its ensemble's, as of one zxid
    Backup(BackupFlags),
    /// Make a backup the data of a server that is not running and has none
    Restore(RestoreFlags),
    /// Is a backup whole, or the store of a stopped server sound? Nothing is changed
    ///
    /// Exit status: 0 nothing is damaged, 1 something is, and what to do.
    Verify(VerifyFlags),
    /// Who asked for which change, and when, as far back as the log goes
    ///
    /// From the log of the running server, or of a stopped one. A line for each request, refused ones too: what became of it
    /// was told to who asked. A session that ends takes its ephemerals with it; they are not listed. Passwords and digests are
    /// never shown, and data only with --data.
    Log(LogFlags),
    /// Make a store of a ZooKeeper's data (3.4 to 3.9), into DATA_DIR; the ZooKeeper must not run
    Import(crate::import::flags::ImportFlags),
    /// Run a whole ensemble on this machine until Ctrl-C, for trying and for tests
    Local {
        /// How many servers that vote
        #[arg(long, value_name = "N", default_value_t = 3)]
        servers: u8,
        /// How many observers beside them
        #[arg(long, value_name = "K", default_value_t = 0)]
        observers: u8,
        /// Where their data, settings and logs go
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The first server's client port P; server N has P+N-1, and UDP port P+100+N for the others
        #[arg(long, value_name = "PORT", default_value_t = 2181)]
        client_port: u16,
        /// The first server's port for Prometheus; server N has the Nth from it
        #[arg(long, value_name = "PORT", default_value_t = 7000)]
        metrics_port: u16,
        /// The first server's port of the AdminServer; server N has the Nth from it
        #[arg(long, value_name = "PORT", default_value_t = 8080)]
        admin_port: u16,
    },
    /// What the shell can do, one at a time.
    #[command(flatten)]
    Shell(ShellCommand),
}

/// What to do with certificates.
#[derive(Debug, Subcommand)]
pub enum Certs {
    /// Make an authority: DIR/ca.pem, which every server is given, and its key, which stays here
    Init {
        /// Where the authority is kept
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The ensemble that its certificates are for
        #[arg(long, value_name = "NAME", default_value = "warren")]
        ensemble: String,
    },
    /// Make a server's certificate and key, in one PEM file
    Issue {
        /// Where the authority is kept
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The server's id
        #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u8).range(1..))]
        server_id: u8,
        /// The file to write, mode 0600
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// What to do with the members.
#[derive(Debug, Subcommand)]
pub enum Member {
    /// Who belongs to the ensemble, and how they are
    List,
    /// Let a new server in; it votes as soon as it has the log
    Add {
        /// Its id
        #[arg(value_parser = clap::value_parser!(u8).range(1..))]
        id: u8,
        /// HOST:PORT (UDP) at which the other servers find it
        peer_addr: Address,
        /// HOST:PORT at which clients find it
        client_addr: Address,
        /// It never votes
        #[arg(long)]
        observer: bool,
    },
    /// Let an observer vote, as soon as it has the log
    Promote {
        /// Its id
        id: u8,
    },
    /// Make a voter an observer
    Demote {
        /// Its id
        id: u8,
    },
    /// Let a server go for good
    Remove {
        /// Its id
        id: u8,
    },
    /// Let a server whose data is lost come back, with an empty data folder
    Replace {
        /// Its id
        id: u8,
    },
}

impl Member {
    /// What it asks of the server.
    pub fn request(&self) -> Request {
        let change = match self {
            Member::List => return Request::Members,
            Member::Add { id, peer_addr, client_addr, observer } => MemberChange::Add {
                id: *id,
                peer_addr: peer_addr.to_string(),
                client_addr: client_addr.to_string(),
                observer: *observer,
            },
            Member::Promote { id } => MemberChange::Promote { id: *id },
            Member::Demote { id } => MemberChange::Demote { id: *id },
            Member::Remove { id } => MemberChange::Remove { id: *id },
            Member::Replace { id } => MemberChange::Replace { id: *id },
        };
        Request::ChangeMembers(change)
    }
}

/// What to do with the leader.
#[derive(Debug, Subcommand)]
pub enum Leader {
    /// Hand leadership over; ask the leader itself
    Transfer {
        /// To this server; without it, to the one that is furthest
        #[arg(long, value_name = "ID")]
        to: Option<u8>,
    },
}

impl Cli {
    /// From the words of the command line, the first of which is the program's name.
    pub fn of(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
        let mut words = words.into_iter();
        let program = words.next();
        let words: Vec<OsString> = words.collect();
        // Words that are no text are clap's to refuse.
        let words = match words.iter().map(|word| word.to_str().map(str::to_owned)).collect() {
            Some(text) => forms::zkcli_words(text).into_iter().map(OsString::from).collect(),
            None => words,
        };
        let words = program.into_iter().chain(words);
        Cli::from_arg_matches(&Cli::declared().try_get_matches_from(words)?)
    }

    /// The declaration, with the shell's commands in a list of their own, so that they do not drown the operator's.
    pub fn declared() -> clap::Command {
        let shell = ShellCommand::augment_subcommands(clap::Command::new("shell"));
        let mut list = String::from(
            "Shell commands, asked of the servers named by -s; without a command, all of them at a prompt:\n",
        );
        let mut declared = Cli::command();
        for command in shell.get_subcommands() {
            let name = command.get_name().to_owned();
            if !command.is_hide_set() {
                let about = command.get_about().map(ToString::to_string).unwrap_or_default();
                list.push_str(&format!("  {name:<20}  {about}\n"));
            }
            declared = declared.mut_subcommand(name, |command| command.hide(true));
        }
        declared.after_help(list)
    }

    /// Where the server is asked.
    pub fn socket(&self) -> PathBuf {
        self.admin.clone().unwrap_or_else(|| self.data_dir.join(SOCKET))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_is_sound() {
        Cli::declared().debug_assert();
    }

    #[test]
    fn the_socket_is_in_the_data_folder_unless_said_otherwise() {
        let cli = Cli::try_parse_from(["warren", "status", "--data-dir", "/d", "-o", "json"]).unwrap();
        assert_eq!((cli.socket(), cli.output), (PathBuf::from("/d/admin.sock"), Output::Json));
        let cli =
            Cli::try_parse_from(["warren", "--admin", "/s", "leader", "transfer", "--to", "2"]).unwrap();
        assert_eq!(cli.socket(), PathBuf::from("/s"));
        assert!(Cli::try_parse_from(["warren", "leader", "transfer", "--to", "300"]).is_err());
    }

    #[test]
    fn members_are_changed_by_plain_words() {
        let request = |words: &[&str]| match Cli::try_parse_from(words).map(|cli| cli.command) {
            Ok(Some(Command::Member(member))) => Ok(member.request()),
            Ok(other) => panic!("{other:?}"),
            Err(e) => Err(e.to_string()),
        };
        let add = MemberChange::Add {
            id: 4,
            peer_addr: "[::1]:2182".into(),
            client_addr: "h:2181".into(),
            observer: false,
        };
        assert_eq!(
            request(&["warren", "member", "add", "4", "[::1]:2182", "h:2181"]),
            Ok(Request::ChangeMembers(add))
        );
        assert_eq!(
            request(&["warren", "member", "replace", "2"]),
            Ok(Request::ChangeMembers(MemberChange::Replace { id: 2 }))
        );
        assert_eq!(request(&["warren", "member", "list"]), Ok(Request::Members));
        assert!(
            request(&["warren", "member", "add", "0", "h:1", "h:2"]).unwrap_err().contains("0 is not in")
        );
        assert!(request(&["warren", "member", "add", "4", "h", "h:2"]).unwrap_err().contains("no port"));
    }

    #[test]
    fn data_are_given_up_only_by_saying_so() {
        assert!(Cli::try_parse_from(["warren", "force-quorum"]).is_err());
        assert!(Cli::try_parse_from(["warren", "force-quorum", "--yes-i-lose-data"]).is_ok());
    }
}
