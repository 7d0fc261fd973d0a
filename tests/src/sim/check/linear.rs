//! Writes are linearizable, and so are reads behind a sync; and a read sees exactly the writes of its session that
//! stand in front of it.

use super::conversation::{Conversation, Sent};
use super::history::History;
use super::{Verdict, hold, shown};

const PROPERTY: &str = "linearizable";

/// What was acknowledged to anybody.
pub struct Linear {
    acknowledged: i64,
    /// A lone server's plain reads are as fresh as those behind a sync.
    alone: bool,
}

impl Linear {
    pub(super) fn new(servers: usize) -> Linear {
        Linear { acknowledged: 0, alone: servers == 1 }
    }

    /// The highest zxid of a write whose reply somebody has read.
    pub(super) fn acknowledged(&self) -> i64 {
        self.acknowledged
    }

    pub(super) fn on_reply(
        &mut self,
        history: &History,
        conversation: &Conversation,
        sent: &Sent,
        zxid: i64,
    ) -> Verdict {
        if zxid < 0 {
            return Ok(());
        }
        let fresh = sent.is_write || sent.is_sync || self.alone;
        let floor = if fresh { sent.acknowledged } else { sent.synced };
        hold(zxid >= floor, PROPERTY, || {
            format!(
                "the reply to xid {} is at {}; {} was acknowledged before {} was asked",
                sent.xid,
                shown(zxid),
                shown(floor),
                if fresh { "it" } else { "the sync in front of it" }
            )
        })?;
        if conversation.attached.is_none() {
            return Ok(());
        }
        let write = |number| history.write(conversation.tag(number)?);
        if sent.is_write {
            self.acknowledged = self.acknowledged.max(zxid);
            return Ok(());
        }
        if sent.writes_before > 0 {
            let before = write(sent.writes_before).map(|fact| fact.at);
            hold(before.is_some_and(|before| before <= zxid), PROPERTY, || {
                format!(
                    "the read with xid {} is answered from {} and does not see write {} of its session, at {:?}",
                    sent.xid,
                    shown(zxid),
                    sent.writes_before,
                    before.map(shown)
                )
            })?;
        }
        if let (true, Some(next)) = (sent.is_read, write(sent.writes_before + 1)) {
            // A write that took no zxid changed nothing.
            hold(zxid < next.at || !next.counted, PROPERTY, || {
                format!(
                    "the read with xid {} is answered from {} and sees write {} of its session, which stands behind it, at {}",
                    sent.xid,
                    shown(zxid),
                    sent.writes_before + 1,
                    shown(next.at)
                )
            })?;
        }
        Ok(())
    }
}
