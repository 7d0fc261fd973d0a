//! What the leader stamps on a submission (step ⑥), so that every server applies the same.

use crate::entropy::Entropy;
use crate::moment::Moment;
use warren_storage::{Command, Logged, Rules, SessionId};

/// The leader's stamp.
pub(super) struct Stamp {
    rules: Rules,
    next_session: SessionId,
}

impl Stamp {
    pub(super) fn new(now: Moment, server_id: u8, rules: Rules) -> Stamp {
        Stamp { rules, next_session: first_session(server_id, now.wall_ms) }
    }

    pub(super) fn rules(&self) -> Rules {
        self.rules
    }

    pub(super) fn refuse_growth(&mut self, refuse: bool) {
        self.rules.refuse_growth = refuse;
    }

    /// A createSession with a new id and a random password. ZooKeeper's password is a function of the id, which
    /// anybody can compute; ours is not.
    pub(super) fn open_session(
        &mut self,
        entropy: &mut dyn Entropy,
        timeout_ms: i32,
        owner: u8,
        incarnation: u64,
        request: u64,
    ) -> Vec<u8> {
        let session = self.next_session;
        self.next_session += 1;
        let mut password = [0; 16];
        entropy.fill(&mut password);
        let command = Command::CreateSession { session, timeout_ms, password, owner, incarnation, request };
        Logged { tag: None, ids: Vec::new(), command }.encode()
    }
}

/// The first id of a run: the server id in the top byte, then five bytes of time, then two bytes of counter
/// (ZooKeeper's `SessionTrackerImpl.initializeNextSessionId`). Ids of a later run are above those of an earlier
/// one as long as the clock does not go back; an id that exists is refused when applied.
fn first_session(server_id: u8, wall_ms: i64) -> SessionId {
    let time = ((wall_ms as u64) << 24 >> 8) & 0x00ff_ffff_ffff_ffff;
    let id = (server_id as u64) << 56 | time;
    // Not MIN: that is how a container says what it is.
    if id as i64 == i64::MIN { id as i64 + 1 } else { id as i64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_ids_carry_server_and_time() {
        let id = first_session(3, 0x1234_5678_9abc);
        assert_eq!(id as u64 >> 56, 3);
        assert_eq!(id as u64 & 0xffff, 0);
        assert!(first_session(3, 0x1234_5678_9abd) > id);
    }
}
