//! `warren restore`: a backup becomes the store of a server that has none.
//!
//! ```text
//!  file ─▶ DATA_DIR/warren.restoring: tree, sessions ended, log begun ─▶ looked through ─▶ renamed to DATA_DIR/warren
//! ```
//! The rename is the moment at which it is restored; whatever stops it before, the next run begins anew.

use super::super::full;
use super::{Work, stream_bytes};
use crate::backup::flags::RestoreFlags;
use crate::backup::format::{BackupReader, FormatError, Header};
use crate::cli::{Cli, Exit, Output};
use crate::status::bytes;
use rustix::fs::{FlockOperation, RenameFlags};
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use warren_storage::io::{FolderDisk, OpenError};
use warren_storage::log::{LogError, LogOptions};
use warren_storage::tree::{Ended, Identity, Import, ImportError, StreamCheck, TreeError, read_chunk};
use warren_storage::{DiskError, RecoverError, SharedDisk, Tree, TreeOptions, begin_log, recover};

/// A server's store, in its data folder.
const STORE: &str = "warren";
/// Its name while it is made.
const UNFINISHED: &str = "warren.restoring";
/// A ZooKeeper's data, in its data folder.
const ZOOKEEPER: &str = "version-2";
/// So far the epoch rises: the servers that the backup is of cannot have begun so many since it was made, unless they held
/// an election in every minute of two years.
const EPOCHS: u32 = 1_000_000;
/// No ensemble gets to a log index or term as high as this.
const POSITION_MAX: u64 = 1 << 48;
/// Memory for the tree while it is made.
const MEMORY_BYTES: u64 = 256 << 20;
/// What is to stay free for the server to begin with.
const FREE_BYTES_MIN: u64 = 128 << 20;
/// Of the tree, at a time, when it is looked through.
const CHUNK_BYTES: usize = 1 << 20;

/// Why a backup is no good.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsound {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("what is in the backup does not fit together: {0}. Take another one")]
    Stream(#[from] ImportError),
    #[error("the backup does not hold what its header says: {0}. Take another one")]
    Header(&'static str),
}

/// Why nothing is restored.
#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error("{} cannot be opened: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Unsound(#[from] Unsound),
    #[error(
        "a server runs on {}: nothing is restored onto a live store. Stop it, and move that folder away", .0.display()
    )]
    Live(PathBuf),
    #[error(
        "{} holds a store already, and nothing is written over: move it away (keep it until you know that you need it no \
         longer), then restore again", .0.display()
    )]
    Exists(PathBuf),
    #[error(
        "{} holds a ZooKeeper's data ({ZOOKEEPER}): restore into another data folder", .0.display()
    )]
    ZooKeeper(PathBuf),
    #[error("another `warren restore` works in {}; wait for it", .0.display())]
    Busy(PathBuf),
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Folder(#[from] OpenError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the store cannot be made: {}", full(.0))]
    Tree(#[from] TreeError),
    #[error("the store's log cannot be begun: {}", full(.0))]
    Log(#[from] LogError),
    #[error("what was made cannot be opened: {}", full(.0))]
    Recover(#[from] RecoverError),
    #[error("what was made is not what was read: {0}. Look after this machine's disk and memory")]
    Made(String),
    #[error("interrupted")]
    Interrupted,
    #[error("{0}")]
    System(String),
}

/// What is there now.
struct Restored {
    header: Header,
    store: PathBuf,
    ended: Ended,
    zxid: String,
    znodes: u64,
    file_bytes: u64,
}

/// Restore, say what came of it and what is to be done.
pub(in crate::io) fn restore(cli: &Cli, flags: &RestoreFlags) -> Exit {
    let mut work = match Work::begin("restore", 0) {
        Ok(work) => work,
        Err(why) => {
            eprintln!("warren: {why}");
            return Exit::Degraded;
        }
    };
    let restored = run(&cli.data_dir, &flags.from, &mut work);
    work.end();
    match restored {
        Ok(restored) => {
            say(cli, flags, &restored);
            Exit::Done
        }
        Err(e) => {
            eprintln!("warren: {e}; nothing is restored");
            Exit::Degraded
        }
    }
}

fn say(cli: &Cli, flags: &RestoreFlags, restored: &Restored) {
    let Restored { header, store, ended, zxid, znodes, file_bytes } = restored;
    if cli.output == Output::Json {
        let json = serde_json::json!({
            "store": store, "header": header, "zxid": zxid, "znodes": znodes,
            "sessions_ended": ended.sessions, "ephemerals_ended": ended.ephemerals, "file_bytes": file_bytes,
        });
        println!("{json}");
        return;
    }
    println!(
        "restored {} into {}: {znodes} znodes, {} of data, as of {} (zxid {}); every checksum and the tree's digest hold",
        flags.from.display(),
        store.display(),
        bytes(header.of.data_bytes),
        super::take::when(header),
        header.of.zxid
    );
    println!(
        "sessions: {} were open then and are ended, with their {} ephemeral znodes: locks and leases are free, and clients \
         that come with such a session are told that it has expired",
        ended.sessions, ended.ephemerals
    );
    println!(
        "zxids go on at {zxid}, ahead of all that clients have seen; sequence numbers and versions go on where they were"
    );
    println!(
        "next: start warrend on {}, and wait until it serves (`warren status`). In an ensemble, restore on this one voter \
         alone; empty the data folders of all other servers, whose old data must not come back, and start them after it: \
         they are sent the tree",
        cli.data_dir.display()
    );
}

fn run(data_dir: &Path, from: &Path, work: &mut Work) -> Result<Restored, RestoreError> {
    let open = || -> io::Result<(File, u64)> {
        let file = File::open(from)?;
        let there = file.metadata()?;
        match there.is_dir() {
            true => Err(io::ErrorKind::IsADirectory.into()),
            false => Ok((file, there.len())),
        }
    };
    let (file, file_bytes) = open().map_err(|source| RestoreError::Open { path: from.to_owned(), source })?;
    let reader = BackupReader::begin(BufReader::with_capacity(1 << 20, file)).map_err(Unsound::Format)?;
    let header = reader.header().clone();
    work.expect("restore", file_bytes);

    let (store, side) = (data_dir.join(STORE), data_dir.join(UNFINISHED));
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::Io { doing, path, source }
    };
    if !data_dir.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed("create", data_dir))?;
    }
    // Held to the end, so that there are never two at it.
    let folder = File::open(data_dir).map_err(failed("open", data_dir))?;
    match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(RestoreError::Busy(data_dir.to_owned())),
        Err(e) => return Err(failed("lock", data_dir)(e.into())),
    }
    refuse_data(data_dir, &store)?;
    remove_folder(&side).map_err(failed("remove what is left of", &side))?;

    let made = make(&side, reader, &header, work);
    if made.is_err() {
        // What is left is no store, and the next run would remove it.
        let _ = remove_folder(&side);
    }
    let (ended, zxid, znodes) = made?;
    belong_to_owner_of(data_dir, &side).map_err(failed("give the owner of the data folder", &side))?;
    let cwd = rustix::fs::CWD;
    match rustix::fs::renameat_with(cwd, &side, cwd, &store, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::EXIST) => return Err(RestoreError::Exists(store)),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            refuse_data(data_dir, &store)?;
            fs::rename(&side, &store).map_err(failed("rename", &side))?;
        }
        renamed => renamed.map_err(|e| failed("rename", &side)(e.into()))?,
    }
    folder.sync_all().map_err(failed("sync", data_dir))?;
    Ok(Restored { header, store, ended, zxid, znodes, file_bytes })
}

/// Nothing may be where the store is to be.
fn refuse_data(data_dir: &Path, store: &Path) -> Result<(), RestoreError> {
    if data_dir.join(ZOOKEEPER).exists() && !store.exists() {
        return Err(RestoreError::ZooKeeper(data_dir.to_owned()));
    }
    if store.symlink_metadata().is_err() {
        return Ok(());
    }
    let locked = File::open(store.join("lock")).is_ok_and(|lock| {
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    });
    Err(if locked { RestoreError::Live(store.to_owned()) } else { RestoreError::Exists(store.to_owned()) })
}

fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The store of the backup, in a folder that nobody looks into: what ended, zxid and number of znodes.
fn make(
    side: &Path,
    reader: BackupReader<BufReader<File>>,
    header: &Header,
    work: &mut Work,
) -> Result<(Ended, String, u64), RestoreError> {
    let disk: SharedDisk = Arc::new(FolderDisk::open(side)?);
    let random = |what: &mut [u8]| -> Result<(), RestoreError> {
        let got = rustix::rand::getrandom(&mut *what, rustix::rand::GetRandomFlags::empty());
        got.map(drop).map_err(|e| RestoreError::System(format!("the system gives no randomness: {e}")))
    };
    let (mut store_id, mut hash_seed) = ([0; 8], [0; 8]);
    random(&mut store_id)?;
    random(&mut hash_seed)?;
    let store_id = u64::from_le_bytes(store_id);
    let options =
        TreeOptions { memory_bytes: MEMORY_BYTES, hash_seed: u64::from_le_bytes(hash_seed), store_id };

    let import = Import::begin(disk.clone(), Identity { store_id, disk: 0, observes: false }, FREE_BYTES_MIN)
        .map_err(Unsound::Stream)?;
    let staged = fill(import, reader, work)?.finish().map_err(Unsound::Stream)?;
    let of = staged.head().clone();
    sane(header, &of)?;
    let mut tree = Tree::replace(disk.clone(), staged, options)?;
    let ended = tree.restart(header.of.time_ms, EPOCHS)?;
    let (at, zxid) = (tree.position(), tree.zxid());
    drop(tree);
    begin_log(disk.clone(), at)?;

    // As the server will find it.
    let made = recover(disk.clone(), options, LogOptions::default())?;
    if made.discarded || made.tree.position() != at || made.tree.zxid() != zxid {
        return Err(RestoreError::Made("tree and log do not fit together".to_owned()));
    }
    let znodes = of.znodes - of.ephemerals;
    let export = made.tree.export()?;
    work.expect("looking through", stream_bytes(znodes, of.data_bytes));
    look_through(export, znodes, work)?;
    drop(made);
    disk.sync_folder()?;
    Ok((ended, zxid.to_string(), znodes))
}

fn fill(
    mut import: Import,
    mut reader: BackupReader<BufReader<File>>,
    work: &mut Work,
) -> Result<Import, RestoreError> {
    let (mut block, mut chunk) = (Vec::new(), Vec::new());
    while reader.next_block(&mut block).map_err(Unsound::Format)? {
        let mut rest = block.as_slice();
        while !rest.is_empty() {
            read_chunk(&mut rest, &mut chunk).map_err(|e| Unsound::Format(e.into()))?;
            import.push(&chunk).map_err(Unsound::Stream)?;
        }
        if !work.goes_on(reader.position()) {
            return Err(RestoreError::Interrupted);
        }
    }
    Ok(import)
}

/// Is what was read what the header said, and can it be gone on from?
pub(super) fn sane(header: &Header, of: &warren_storage::tree::ExportHead) -> Result<(), Unsound> {
    let bad = |what| Err(Unsound::Header(what));
    if header.of.zxid != of.zxid.to_string() {
        return bad("the zxid is another one");
    }
    if (header.of.znodes, header.of.data_bytes) != (of.znodes, of.data_bytes) {
        return bad("the number of znodes or their size is another one");
    }
    if of.position.index == 0 || of.position.index.max(of.position.term) >= POSITION_MAX {
        return bad("its place in the log makes no sense");
    }
    // Clients take zxids for signed numbers.
    if of.zxid.epoch() > i32::MAX as u32 - 2 * EPOCHS {
        return bad("its epoch leaves no room for another one");
    }
    Ok(())
}

/// Rows, indexes, counts and digest of what was made.
fn look_through(
    mut export: warren_storage::tree::Export,
    znodes: u64,
    work: &mut Work,
) -> Result<(), RestoreError> {
    let mut check = StreamCheck::default();
    let mut done = 0;
    let bad = |e: ImportError| RestoreError::Made(e.to_string());
    while let Some(chunk) = export.next_chunk(CHUNK_BYTES)? {
        check.push(&chunk, &mut |_, _| {}).map_err(bad)?;
        done += chunk.len() as u64;
        if !work.goes_on(done) {
            return Err(RestoreError::Interrupted);
        }
    }
    let sessions = check.sessions();
    let head = check.finish().map_err(bad)?;
    match (head.znodes, head.ephemerals, sessions) == (znodes, 0, 0) {
        true => Ok(()),
        false => Err(RestoreError::Made(format!(
            "it has {} znodes, {} ephemerals and {sessions} sessions",
            head.znodes, head.ephemerals
        ))),
    }
}

/// Restored by root, the server must still be able to open it.
fn belong_to_owner_of(data_dir: &Path, side: &Path) -> io::Result<()> {
    let (owner, ours) = (fs::metadata(data_dir)?, fs::metadata(side)?);
    if (owner.uid(), owner.gid()) == (ours.uid(), ours.gid()) {
        return Ok(());
    }
    for entry in fs::read_dir(side)? {
        std::os::unix::fs::lchown(entry?.path(), Some(owner.uid()), Some(owner.gid()))?;
    }
    std::os::unix::fs::lchown(side, Some(owner.uid()), Some(owner.gid()))
}
