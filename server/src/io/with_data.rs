//! The first start on a store that a command made, of a backup or of a ZooKeeper's data.
//!
//! Its server founds an ensemble with it, as the only voter; the others of its settings join as soon as they have the tree,
//! and must be empty ([`crate::founding`]). Everybody gets a disk that none of the former ensemble had, so that whoever
//! comes with its data of then counts for nobody.

use super::Clock;
use super::daemon::{Opened, SERVER_ID, StartError};
use crate::config::Config;
use crate::{consensus, membership};
use warren_storage::log::{HardState, Recovered};
use warren_storage::{MemberRole, RecoverError};

/// Say durably as whom the store takes part.
pub(super) fn take_part(opened: &mut Opened, config: &Config) -> Result<(), StartError> {
    let (disk, conf_state, table) = match config.ensemble.as_ref() {
        None => {
            let disk = opened.tree.next_disk(SERVER_ID);
            (disk, consensus::found(&[consensus::raft_id(SERVER_ID, disk)]), None)
        }
        Some(settings) if settings.is_observer() => {
            let (server, folder) = (settings.server_id, opened.folder.clone());
            return Err(StartError::DataOfObserver { server, folder });
        }
        Some(settings) if settings.join => {
            let (server, folder) = (settings.server_id, opened.folder.clone());
            return Err(StartError::DataOfJoiner { server, folder });
        }
        Some(settings) => {
            let own = settings.server_id;
            let mut members = membership::found(settings);
            for member in &mut members.servers {
                member.disk = opened.tree.next_disk(member.id);
                if member.role == MemberRole::Voter && member.id != own {
                    member.role = MemberRole::Joining;
                }
            }
            let joining = members.servers.iter().filter(|member| member.role == MemberRole::Joining);
            let learners: Vec<u64> = joining.map(|m| consensus::raft_id(m.id, m.disk)).collect();
            let disk = opened.tree.next_disk(own);
            let conf_state = consensus::found_alone(consensus::raft_id(own, disk), &learners);
            (disk, conf_state, Some(consensus::table_of(members)))
        }
    };
    let failed =
        |folder: &str, source| StartError::Store { folder: folder.to_owned(), source: Box::new(source) };
    let table = table.as_ref().map(|table| (Clock::start().now().wall_ms, table));
    let taken = opened.tree.take_part_with(disk, conf_state, table);
    taken.map_err(|e| failed(&opened.folder, RecoverError::Tree(e)))?;
    // Killed in between, the next start does it: the log does not have the tree's position.
    let at = opened.tree.position();
    let hard_state = HardState { term: at.term, vote: 0, commit: at.index };
    let reset = opened.log.reset(at.index, at.term, Some(hard_state));
    reset.map_err(|e| failed(&opened.folder, RecoverError::Log(e)))?;
    opened.found = Recovered {
        hard_state,
        first_index: at.index + 1,
        last_index: at.index,
        last_term: at.term,
        ..opened.found
    };
    tracing::info!(
        zxid = opened.tree.zxid().to_string(),
        "this store was made by `warren restore` or `warren import`, and takes part for the first time"
    );
    Ok(())
}
