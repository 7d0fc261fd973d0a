//! Of a tree that was, the beginning of another ensemble: what a restored backup goes through before anybody is served.
//!
//! Who had locks and leases when the backup was made has them no longer, and nobody may believe otherwise: all sessions
//! end, as if they had run out, and their ephemerals with them. The epoch rises so far that no zxid which a client has seen
//! lies ahead. Former members keep their numbers, so that none of their disks counts for one of the new ensemble.

use super::apply::{Outcome, Write};
use super::{Pressure, Tree, TreeError, Znode};
use crate::command::{Command, Logged, Rules};
use crate::{SessionId, Zxid};
use std::sync::Arc;

/// Where clients read who belongs to the ensemble.
const CONFIG: &str = "/zookeeper/config";

/// What a restart ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Sessions.
    pub sessions: u64,
    /// Ephemerals, which went with them.
    pub ephemerals: u64,
}

impl Tree {
    /// Begin anew, at this time and with an epoch that is so many higher, 1 at least; nothing else depends on when or where
    /// it is done. Durable when it returns. The log is to begin behind [`Tree::position`].
    ///
    /// # Errors
    /// The store's only. The tree must not be used afterwards.
    ///
    /// # Panics
    /// When the tree takes part in an ensemble, or the epoch would overflow.
    pub fn restart(&mut self, time_ms: i64, epochs: u32) -> Result<Ended, TreeError> {
        assert_eq!(self.disk, 0, "what takes part in an ensemble is not begun anew");
        let epoch = self.zxid().epoch().checked_add(epochs.max(1)).expect("there are epochs left");
        let term = self.position.term + 1;
        self.mid_entry = true;
        self.working.counters.zxid = Zxid::new(epoch, 0);
        self.roster.retire_all();
        self.conf_state.clear();
        self.clear_config(time_ms)?;
        self.advance(self.position.index + 1, term);

        let mut sessions: Vec<(SessionId, u32)> =
            self.sessions().map(|(id, row)| (id, row.generation)).collect();
        sessions.sort_unstable();
        let before = self.working.counters.ephemerals;
        for (session, generation) in &sessions {
            let command = Command::Expire { session: *session, generation: *generation, epoch };
            let logged = Logged { tag: None, ids: Vec::new(), command };
            let applied = self.apply(time_ms, &Rules::default(), &logged)?;
            assert!(matches!(applied.outcome, Outcome::Done(_)), "{:?}", applied.outcome);
            self.advance(self.position.index + 1, term);
            if self.pressure() != Pressure::None {
                self.checkpoint_now()?;
            }
        }
        self.checkpoint_now()?;
        let ephemerals = before - self.working.counters.ephemerals;
        Ok(Ended { sessions: sessions.len() as u64, ephemerals })
    }

    /// As a new tree has it: a server that stands alone writes nothing there.
    fn clear_config(&mut self, time_ms: i64) -> Result<(), TreeError> {
        let Some(node) = self.working.view.node(CONFIG)?.filter(|node| node.data_bytes() > 0) else {
            return Ok(());
        };
        let mut changes = Vec::new();
        let mut write = Write {
            zxid: self.working.counters.zxid.wire(),
            working: &mut self.working,
            changes: &mut changes,
            warned_ms: &mut self.warned_ms,
            time_ms,
            rules: &Rules::default(),
            ids: &[],
            session: None,
        };
        let mzxid = write.zxid;
        let empty = Some(Arc::from(&[][..]));
        write.replace(CONFIG, &node, Znode { mzxid, mtime: time_ms, data: empty, ..*node });
        Ok(())
    }

    /// A checkpoint of now, on this thread.
    pub(super) fn checkpoint_now(&mut self) -> Result<(), TreeError> {
        if let Some(checkpoint) = self.freeze() {
            let written = checkpoint.write()?;
            drop(self.install(written));
        }
        Ok(())
    }
}
