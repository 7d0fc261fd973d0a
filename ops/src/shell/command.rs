//! The commands of the shell, declared once: what is typed into it and what stands on `warren`'s command line are read by
//! the same declaration.
//!
//! Names and options are zkCli's (ZooKeeper 3.9's `org.apache.zookeeper.cli`), its older forms included; what is beyond
//! zkCli has options of its own.

use crate::cli::Output;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use warren_storage::path;

/// A path that a znode can have. A slash at its end, as completion leaves it, is taken off.
fn znode(text: &str) -> Result<String, String> {
    let trimmed = match text.trim_end_matches('/') {
        "" if text.starts_with('/') => "/",
        trimmed => trimmed,
    };
    path::validate(trimmed).map(|()| trimmed.to_owned()).map_err(|why| why.to_string())
}

/// A path to create: of a sequential znode it may end with a slash, and the name is the number alone.
fn new_znode(text: &str) -> Result<String, String> {
    match text.strip_suffix('/') {
        Some(parent) if !parent.is_empty() => path::validate(parent),
        _ => path::validate(text),
    }
    .map(|()| text.to_owned())
    .map_err(|why| why.to_string())
}

/// What is asked of the servers.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum ShellCommand {
    /// The children of a znode
    Ls {
        /// With its Stat
        #[arg(short = 's')]
        stat: bool,
        /// Tell when they change
        #[arg(short = 'w')]
        watch: bool,
        /// All that is below it, a path a line
        #[arg(short = 'R')]
        recursive: bool,
        /// Of this znode
        #[arg(value_parser = znode, default_value = "/")]
        path: String,
        /// The older form of -w
        #[arg(hide = true)]
        older_watch: Option<String>,
    },
    /// The older form of ls -s
    #[command(hide = true)]
    Ls2 {
        /// Of this znode
        #[arg(value_parser = znode)]
        path: String,
        /// The older form of -w
        #[arg(hide = true)]
        older_watch: Option<String>,
    },
    /// A znode's data
    Get(Get),
    /// A znode's Stat
    Stat {
        /// Tell when it changes, or comes to be
        #[arg(short = 'w')]
        watch: bool,
        /// Of this znode
        #[arg(value_parser = znode)]
        path: String,
        /// The older form of -w
        #[arg(hide = true)]
        older_watch: Option<String>,
    },
    /// Make a znode
    Create(Create),
    /// Change a znode's data
    Set(Set),
    /// Remove a znode that has no children
    Delete {
        /// Only in this version
        #[arg(short = 'v', value_name = "VERSION", allow_negative_numbers = true)]
        version: Option<i32>,
        /// This one
        #[arg(value_parser = znode)]
        path: String,
        /// The older form of -v
        #[arg(hide = true, allow_negative_numbers = true, conflicts_with = "version")]
        older_version: Option<i32>,
    },
    /// Remove a znode and all that is below it
    Deleteall {
        /// So many in one transaction
        #[arg(short = 'b', value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(..=100_000))]
        batch: u32,
        /// This one
        #[arg(value_parser = znode)]
        path: String,
    },
    /// The older form of deleteall
    #[command(hide = true)]
    Rmr {
        /// This one
        #[arg(value_parser = znode)]
        path: String,
    },
    /// Who may do what to a znode
    #[command(name = "getAcl", alias = "getacl")]
    GetAcl {
        /// With its Stat
        #[arg(short = 's')]
        stat: bool,
        /// To this one
        #[arg(value_parser = znode)]
        path: String,
    },
    /// Say who may do what to a znode
    #[command(name = "setAcl", alias = "setacl")]
    SetAcl {
        /// Print its Stat
        #[arg(short = 's')]
        stat: bool,
        /// Only in this version of the ACL
        #[arg(short = 'v', value_name = "VERSION", allow_negative_numbers = true)]
        version: Option<i32>,
        /// To all that is below it, too
        #[arg(short = 'R')]
        recursive: bool,
        /// To this one
        #[arg(value_parser = znode)]
        path: String,
        /// SCHEME:ID:PERMS[,SCHEME:ID:PERMS]..., with PERMS of c, d, r, w, a
        acl: String,
    },
    /// Say who you are: addauth digest USER:PASSWORD
    Addauth {
        /// Such as digest
        scheme: String,
        /// Such as USER:PASSWORD; it is not kept in the history
        auth: Option<String>,
    },
    /// As whom the server knows you
    Whoami,
    /// Tell of all changes of a znode until it is removed
    #[command(name = "addWatch", alias = "addwatch")]
    AddWatch {
        /// Of the znode and its children's names, or of all below it
        #[arg(short = 'm', value_name = "MODE", value_enum, ignore_case = true, default_value_t = WatchMode::PersistentRecursive)]
        mode: WatchMode,
        /// Of this one
        #[arg(value_parser = znode)]
        path: String,
    },
    /// Take watches back
    Removewatches(RemoveWatches),
    /// Let the server catch up with what was acknowledged before
    Sync {
        /// Any path will do
        #[arg(value_parser = znode, default_value = "/")]
        path: String,
    },
    /// How many znodes are below one
    #[command(name = "getAllChildrenNumber", alias = "getallchildrennumber")]
    GetAllChildrenNumber {
        /// This one
        #[arg(value_parser = znode, default_value = "/")]
        path: String,
    },
    /// The ephemerals of this session
    #[command(name = "getEphemerals", alias = "getephemerals")]
    GetEphemerals {
        /// Those below it
        #[arg(value_parser = znode, default_value = "/")]
        path: String,
    },
    /// A quota, and what is used of it
    Listquota {
        /// Of this znode
        #[arg(value_parser = znode)]
        path: String,
    },
    /// Limit what is below a znode
    Setquota(SetQuota),
    /// Lift limits: those named, or all
    Delquota(DelQuota),
    /// Who belongs to the ensemble; on the command line `config convert` is of a zoo.cfg
    Config(Config),
    /// Change who belongs to the ensemble
    Reconfig(Reconfig),
    /// What is below a znode, drawn as a tree
    Tree {
        /// So many levels
        #[arg(short = 'L', value_name = "LEVELS", value_parser = clap::value_parser!(u32).range(1..))]
        levels: Option<u32>,
        /// With sizes
        #[arg(short = 's')]
        sizes: bool,
        /// From this one
        #[arg(value_parser = znode, default_value = "/")]
        path: String,
    },
    /// The znodes below one that are as described, a path a line
    Find(Find),
    /// How many znodes and bytes are below a znode, child by child
    Du {
        /// The largest so many
        #[arg(short = 'n', value_name = "N", default_value_t = 20)]
        rows: usize,
        /// Below this one
        #[arg(value_parser = znode, default_value = "/")]
        path: String,
    },
    /// Copy a znode, with -r all that is below it, too
    Cp(Copy),
    /// This command's version
    Version,
}

/// get.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Get {
    /// With its Stat
    #[arg(short = 's')]
    pub stat: bool,
    /// Tell when it changes
    #[arg(short = 'w')]
    pub watch: bool,
    /// In base64
    #[arg(short = 'b', conflicts_with_all = ["hex", "raw"])]
    pub base64: bool,
    /// As a hexdump
    #[arg(short = 'x', conflicts_with = "raw")]
    pub hex: bool,
    /// The bytes alone, with nothing behind them
    #[arg(short = 'r', long, conflicts_with = "stat")]
    pub raw: bool,
    /// Of this znode
    #[arg(value_parser = znode)]
    pub path: String,
    /// The older form of -w
    #[arg(hide = true)]
    pub older_watch: Option<String>,
}

/// create.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Create {
    /// Sequential: the server puts a number behind the path
    #[arg(short = 's')]
    pub sequential: bool,
    /// Ephemeral: it goes with this session
    #[arg(short = 'e', conflicts_with_all = ["container", "ttl_ms"])]
    pub ephemeral: bool,
    /// Container: it goes after its last child
    #[arg(short = 'c', conflicts_with_all = ["sequential", "ttl_ms"])]
    pub container: bool,
    /// It goes when it has no child and nobody changed it for so long, ms
    #[arg(short = 't', value_name = "MS", value_parser = clap::value_parser!(i64).range(1..=warren_storage::Kind::TTL_MAX))]
    pub ttl_ms: Option<i64>,
    /// Make the parents that are missing
    #[arg(short = 'p', long)]
    pub parents: bool,
    /// Data are in base64
    #[arg(short = 'b', conflicts_with = "file")]
    pub base64: bool,
    /// Data are what this file holds; - is the standard input
    #[arg(short = 'f', long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// This one
    #[arg(value_parser = new_znode)]
    pub path: String,
    /// Its data, if no file has them
    #[arg(allow_negative_numbers = true)]
    pub data: Option<String>,
    /// Who may do what: SCHEME:ID:PERMS[,...]; everybody everything, if it is not said
    pub acl: Option<String>,
}

/// set.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Set {
    /// Print its Stat
    #[arg(short = 's')]
    pub stat: bool,
    /// Only in this version
    #[arg(short = 'v', value_name = "VERSION", allow_negative_numbers = true)]
    pub version: Option<i32>,
    /// Data are in base64
    #[arg(short = 'b', conflicts_with = "file")]
    pub base64: bool,
    /// Data are what this file holds; - is the standard input
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with = "data")]
    pub file: Option<PathBuf>,
    /// Of this znode
    #[arg(value_parser = znode)]
    pub path: String,
    /// To this
    #[arg(required_unless_present = "file", allow_negative_numbers = true)]
    pub data: Option<String>,
    /// The older form of -v
    #[arg(hide = true, allow_negative_numbers = true, conflicts_with = "version")]
    pub older_version: Option<i32>,
}

/// Modes of addWatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WatchMode {
    /// Of the znode, and of its children's names.
    #[value(name = "PERSISTENT")]
    Persistent,
    /// Of the znode, and of all below it.
    #[value(name = "PERSISTENT_RECURSIVE")]
    PersistentRecursive,
}

/// removewatches.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct RemoveWatches {
    /// Of its children
    #[arg(short = 'c', group = "kind")]
    pub children: bool,
    /// Of its data
    #[arg(short = 'd', group = "kind")]
    pub data: bool,
    /// Persistent ones
    #[arg(short = 'p', group = "kind")]
    pub persistent: bool,
    /// Persistent recursive ones
    #[arg(short = 'r', group = "kind")]
    pub recursive: bool,
    /// Of any kind, as if nothing were said
    #[arg(short = 'a', group = "kind")]
    pub any: bool,
    /// Forget them here, even if no server can be told
    #[arg(short = 'l')]
    pub local: bool,
    /// From this znode
    #[arg(value_parser = znode)]
    pub path: String,
}

/// setquota.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(group = clap::ArgGroup::new("limits").required(true).multiple(true))]
pub struct SetQuota {
    /// So many znodes; more are warned of
    #[arg(short = 'n', value_name = "COUNT", group = "limits", value_parser = clap::value_parser!(i64).range(1..=i64::from(i32::MAX)))]
    pub count: Option<i64>,
    /// So many bytes; more are warned of
    #[arg(short = 'b', value_name = "BYTES", group = "limits", value_parser = clap::value_parser!(i64).range(0..))]
    pub bytes: Option<i64>,
    /// So many znodes; more are refused
    #[arg(short = 'N', value_name = "COUNT", group = "limits", value_parser = clap::value_parser!(i64).range(1..=i64::from(i32::MAX)))]
    pub count_hard: Option<i64>,
    /// So many bytes; more are refused
    #[arg(short = 'B', value_name = "BYTES", group = "limits", value_parser = clap::value_parser!(i64).range(0..))]
    pub bytes_hard: Option<i64>,
    /// Below this one, itself included
    #[arg(value_parser = znode)]
    pub path: String,
}

/// delquota.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DelQuota {
    /// Of znodes
    #[arg(short = 'n')]
    pub count: bool,
    /// Of bytes
    #[arg(short = 'b')]
    pub bytes: bool,
    /// Of znodes, the one that refuses
    #[arg(short = 'N')]
    pub count_hard: bool,
    /// Of bytes, the one that refuses
    #[arg(short = 'B')]
    pub bytes_hard: bool,
    /// Of this one
    #[arg(value_parser = znode)]
    pub path: String,
}

/// config.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Config {
    /// As a list for clients
    #[arg(short = 'c')]
    pub clients: bool,
    /// Tell when it changes
    #[arg(short = 'w')]
    pub watch: bool,
    /// With the Stat
    #[arg(short = 's')]
    pub stat: bool,
    /// Not of an ensemble, but of files.
    #[command(subcommand)]
    pub settings: Option<Settings>,
}

/// What to do with files of settings, on the command line alone.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Settings {
    /// Write a zoo.cfg as the warren.toml that means the same
    ///
    /// What means nothing here stands in it as a comment, with the reason.
    Convert {
        /// The file; its dynamic file and `myid` are read as ZooKeeper would
        zoo_cfg: PathBuf,
        /// Where to write it, if not to the terminal; nothing is written over
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// reconfig.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub struct Reconfig {
    /// Print the Stat
    #[arg(short = 's')]
    pub stat: bool,
    /// Only if the configuration has this version, hexadecimal
    #[arg(short = 'v', value_name = "VERSION", value_parser = version_hex)]
    pub version: Option<i64>,
    /// A file with all members, a server.N line each
    #[arg(long, value_name = "FILE", group = "change", conflicts_with_all = ["members", "add", "remove"])]
    pub file: Option<PathBuf>,
    /// All members: server.N=HOST:PORT:PORT[:ROLE];[HOST:]PORT[,...]
    #[arg(long, value_name = "SERVERS", group = "change", conflicts_with_all = ["add", "remove"], value_parser = NonEmptyStringValueParser::new())]
    pub members: Option<String>,
    /// These come in: server.N=HOST:PORT:PORT[:ROLE];[HOST:]PORT[,...]
    #[arg(long, value_name = "SERVERS", group = "change", value_parser = NonEmptyStringValueParser::new())]
    pub add: Option<String>,
    /// These ids go: N[,N]...
    #[arg(long, value_name = "IDS", group = "change", value_parser = NonEmptyStringValueParser::new())]
    pub remove: Option<String>,
}

fn version_hex(text: &str) -> Result<i64, String> {
    i64::from_str_radix(text.trim_start_matches("0x"), 16).map_err(|e| e.to_string())
}

/// find.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Find {
    /// With a name like this; * stands for any characters, ? for one
    #[arg(short = 'n', long, value_name = "GLOB")]
    pub name: Option<String>,
    /// With this text in its data
    #[arg(short = 'c', long, value_name = "TEXT")]
    pub contains: Option<String>,
    /// With so many bytes at least
    #[arg(long, value_name = "N")]
    pub min_bytes: Option<u32>,
    /// With so many children at least
    #[arg(long, value_name = "N")]
    pub min_children: Option<u32>,
    /// Ephemeral
    #[arg(short = 'e', long)]
    pub ephemeral: bool,
    /// Below this one
    #[arg(value_parser = znode, default_value = "/")]
    pub path: String,
}

/// cp.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Copy {
    /// With all that is below it
    #[arg(short = 'r', short_alias = 'R', long)]
    pub recursive: bool,
    /// Where a znode is there already, change its data
    #[arg(long)]
    pub overwrite: bool,
    /// Everybody may do everything to the copies, whoever may to the originals
    #[arg(long)]
    pub open_acl: bool,
    /// This one
    #[arg(value_parser = znode)]
    pub from: String,
    /// To here
    #[arg(value_parser = znode)]
    pub to: String,
}

/// What is asked of the shell itself, or of the servers.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum LineCommand {
    /// Of the servers.
    #[command(flatten)]
    Shell(ShellCommand),
    /// Begin a new session, at these servers or the same
    Connect {
        /// HOST:PORT[,HOST:PORT]...[/CHROOT]
        servers: Option<super::address::Servers>,
    },
    /// End the session; its ephemerals go
    Close,
    /// The last commands
    History,
    /// Do a command of the history again
    Redo {
        /// Its number
        number: usize,
    },
    /// Are events printed as they come?
    Printwatches {
        /// Say so
        #[arg(value_enum)]
        on: Option<OnOff>,
    },
    /// What there is to be asked, or how one command is used
    Help {
        /// This one
        command: Option<String>,
    },
    /// End the session and the shell
    #[command(alias = "exit")]
    Quit,
}

/// on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the names say it")]
pub enum OnOff {
    On,
    Off,
}

/// A line that was typed.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(
    name = "",
    bin_name = "",
    no_binary_name = true,
    disable_help_subcommand = true,
    disable_version_flag = true
)]
pub struct Line {
    /// How to print
    #[arg(short, long, global = true, value_enum, hide = true)]
    pub output: Option<Output>,
    /// What is asked.
    #[command(subcommand)]
    pub command: LineCommand,
}

impl Line {
    /// From the words of a line; the error says what is wrong, or is the help that was asked for.
    pub fn parse_words(words: &[String]) -> Result<Line, clap::Error> {
        Line::try_parse_from(super::forms::zkcli_words(words.to_vec()))
    }
}
