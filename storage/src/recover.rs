//! Opening tree and log together: the one place that decides whether they belong to one another.
//!
//! A server that takes a snapshot replaces its tree, durably, and then resets its log to the tree's position
//! ([`Log::reset`]). What a crash can leave of that:
//!
//! | crash | on the disk | done here |
//! |---|---|---|
//! | before the rename is durable | the former tree with its log, perhaps `tree.redb.new` | the latter is removed |
//! | between rename and reset | the new tree, a log that does not have its position | the log is discarded |
//! | after the reset | the new tree, a log that begins behind it | nothing |
//!
//! A log has the tree's position when it has, at that index, an entry of that term, or begins right behind it.
//! Discarding keeps term and vote, as what was promised to candidates stays promised.

use crate::disk::SharedDisk;
use crate::log::{self, HardState, Log, LogError, LogOptions};
use crate::tree::{Position, Tree, TreeError, TreeOptions};

/// Tree and log of one server, open.
pub struct Recovered {
    /// As of its last checkpoint.
    pub tree: Tree,
    /// Holds what the tree lacks.
    pub log: Log,
    /// What is in the log.
    pub found: log::Recovered,
    /// Was there a log that did not go with the tree, and that was discarded?
    pub discarded: bool,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The tree cannot be opened.
    #[error("the znode tree cannot be opened")]
    Tree(#[from] TreeError),
    /// The log cannot be opened.
    #[error("the log cannot be opened")]
    Log(#[from] LogError),
    /// Entries between tree and log are missing.
    #[error(
        "the log begins at {first}, and the tree ends at {tree}: what lies between is missing. \
         Restore the folder as a whole from a backup"
    )]
    Gap {
        /// First index in the log.
        first: u64,
        /// Last index in the tree.
        tree: u64,
    },
    /// Both are of a committed past, and not of the same.
    #[error(
        "entry {index} has term {tree} in the tree and term {log} in the log, where it is committed: they are of \
         different histories. Restore the folder as a whole, or empty it and let this server join anew"
    )]
    Histories {
        /// Where they differ.
        index: u64,
        /// The tree's term there.
        tree: u64,
        /// The log's.
        log: u64,
    },
    /// There is a tree and no log, so nobody knows how this server voted.
    #[error(
        "the tree is at entry {tree}, and there is no log beside it, which also holds the votes of this server. \
         Restore the folder as a whole, or empty it and let this server join anew"
    )]
    NoLog {
        /// Last index in the tree.
        tree: u64,
    },
}

/// Open what is on `disk`, or begin with an empty tree and log.
pub fn recover(disk: SharedDisk, tree: TreeOptions, log: LogOptions) -> Result<Recovered, RecoverError> {
    // A process that was killed may have left a file whose name is not durable. What is acknowledged from here on must not
    // go with it.
    disk.sync_folder().map_err(TreeError::from)?;
    let tree = Tree::open(disk.clone(), tree)?;
    let at = tree.position();
    if at.index > 0 && !log::exists(&*disk).map_err(LogError::from)? {
        return Err(RecoverError::NoLog { tree: at.index });
    }
    let (mut log, mut found) = Log::open(disk, log)?;
    if found.first_index > at.index + 1 {
        return Err(RecoverError::Gap { first: found.first_index, tree: at.index });
    }
    let term = log.reader().term(at.index)?;
    let discarded = term != Some(at.term);
    if discarded {
        if let Some(log) = term.filter(|_| at.index <= found.hard_state.commit) {
            return Err(RecoverError::Histories { index: at.index, tree: at.term, log });
        }
        discard(&mut log, at)?;
        found = log::Recovered {
            hard_state: log.hard_state(),
            first_index: at.index + 1,
            last_index: at.index,
            last_term: at.term,
            ..found
        };
        tracing::warn!(
            index = at.index,
            term = at.term,
            "the log did not reach the tree, as after a crash while a snapshot was installed; it begins anew behind it"
        );
    }
    Ok(Recovered { tree, log, found, discarded })
}

/// Begin the log of a store that was made without a server, of a backup or of another system's data, behind its tree. Term
/// and vote are those of nobody: the store takes part later ([`Tree::take_part_with`]).
///
/// # Errors
/// The log's.
pub fn begin_log(disk: SharedDisk, at: Position) -> Result<(), LogError> {
    let (mut log, _) = Log::open(disk, LogOptions::default())?;
    log.reset(at.index, at.term, Some(HardState { term: at.term, vote: 0, commit: at.index }))?;
    log.close()
}

fn discard(log: &mut Log, at: Position) -> Result<(), LogError> {
    let old = log.hard_state();
    // A vote in the tree's term would be in the log, with that term.
    let vote = if old.term < at.term { 0 } else { old.vote };
    let hard_state = HardState { term: old.term.max(at.term), vote, commit: at.index };
    log.reset(at.index, at.term, Some(hard_state))
}

#[cfg(test)]
mod tests;
