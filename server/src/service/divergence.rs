//! A tree that is not what the log makes of it: this server serves nobody with it, and does not lead.
//!
//! What is judged, and how, is in [`crate::divergence`]. A server that was found wrong closes its clients' connections,
//! takes no more of them, and hands leadership over if it has it. It goes on to vote, to keep the log and to apply it: its
//! log is right. It makes checkpoints only when memory asks for one, so that a restart has a chance to go on from one that
//! is older than the fault. That it is wrong is durable, in the tree's own file: a restart does not forget it, and another
//! server's tree in that file's place has nothing of it.

use super::sessions::WRONG;
use super::{Action, Service};
use crate::consensus::{Configuration, Submission, raft_id, voter_ids};
use crate::divergence::Verdict;
use crate::moment::Moment;
use std::collections::BTreeSet;
use warren_storage::tree::{Position, TreeError};
use warren_transport::peer::{Compare, Mark, PeerMessage, ServerId};

impl Service {
    /// Did the other servers find that this tree is not what the log makes?
    pub fn is_wrong(&self) -> bool {
        self.tree.differs().is_some()
    }

    /// Is that of this run, or was it found again in it?
    pub fn is_judged(&self) -> bool {
        !self.began_wrong
    }

    /// Is there anybody to compare with? Who votes alone is right, and whoever observes beside it may not be.
    pub(super) fn compares(&self) -> bool {
        !self.alone || self.tree.members().servers.len() > 1
    }

    /// Does a majority of those that vote know that they do? Then nobody counts on who voted before. They know what they have
    /// applied, as of the mark that they told last.
    pub fn is_settled(&self) -> bool {
        let conf = Configuration::of(self.tree.conf_state());
        // Who takes part in nothing yet knows of nobody.
        !self.voters.is_empty()
            && conf.outgoing.is_empty()
            && (self.alone || self.divergence.is_reached_by_most(self.conf_index, &self.voters, self.votes()))
    }

    /// Has this server a vote, as the disk that it is? One that was replaced may be told that its next disk has.
    fn votes(&self) -> bool {
        let conf = Configuration::of(self.tree.conf_state());
        let own = raft_id(self.options.server_id, self.tree.disk());
        conf.voters.contains(&own) || conf.outgoing.contains(&own)
    }

    /// A mark is applied.
    pub(super) fn on_mark(&mut self, now: Moment) -> Result<(), TreeError> {
        if !self.compares() {
            return Ok(());
        }
        let Position { index, term } = self.tree.position();
        let digest = self.tree.digest();
        let mark = Mark {
            index,
            term,
            zxid: self.tree.zxid().wire(),
            znodes: digest.znodes,
            sessions: digest.sessions,
            members: digest.members,
        };
        self.divergence.on_mark(now, mark);
        self.judge(index)
    }

    /// Another server says what it has.
    pub(super) fn on_compare(&mut self, from: ServerId, compare: &Compare) -> Result<(), TreeError> {
        match compare.mark {
            None => {
                self.divergence.on_wanted();
                Ok(())
            }
            Some(mark) => {
                self.divergence.on_told(from, mark, &self.voters);
                self.judge(mark.index)
            }
        }
    }

    fn judge(&mut self, index: u64) -> Result<(), TreeError> {
        let verdict = self.divergence.verdict(index, &self.voters);
        let (differ, agree) = self.divergence.parties(index);
        let news = self.divergence.news(&differ, &agree);
        self.room.metrics.digest_mismatches_count.add(news.len() as u64);
        match verdict {
            Verdict::Open => Ok(()),
            Verdict::Right => {
                if !news.is_empty() {
                    tracing::error!(
                        index,
                        servers = ?news,
                        "these servers' trees are not what the log makes: they stop to serve, and each says in its own log \
                         how it is rebuilt"
                    );
                }
                match self.tree.differs() {
                    Some(at) if at.index <= index => self.on_right(index)?,
                    Some(_) => return Ok(()),
                    None => {}
                }
                self.room.set_confirmed(index.max(self.room.confirmed()));
                Ok(())
            }
            Verdict::Wrong(right) => self.on_wrong(index, &right),
            Verdict::Split(others) => {
                self.room.set_contradicted(index);
                if !news.is_empty() {
                    tracing::error!(
                        index,
                        servers = ?others,
                        "these servers' trees are not the same as this one's, and no majority of all that vote says which is \
                         right. All go on to serve, with different data, and none gives its tree to a server that is too far \
                         behind for the log. Bring the servers that are down back, so that there is a majority; if all are \
                         up, keep a copy of every data folder, and compare a backup of each"
                    );
                }
                Ok(())
            }
        }
    }

    fn on_wrong(&mut self, index: u64, right: &Mark) -> Result<(), TreeError> {
        if self.is_wrong() {
            if self.began_wrong {
                self.began_wrong = false;
                tracing::error!(
                    index,
                    "this server's tree is still not what the log makes: the fault is in its last checkpoint. {}",
                    remedy(self.options.server_id)
                );
            }
            return Ok(());
        }
        let own = self.divergence.last();
        let what = own.map_or(String::new(), |own| {
            let parts = [
                ("znodes", own.znodes != right.znodes),
                ("sessions", own.sessions != right.sessions),
                ("members", own.members != right.members),
                ("the last zxid", own.zxid != right.zxid),
            ];
            let parts: Vec<&str> =
                parts.iter().filter(|(_, differs)| *differs).map(|(part, _)| *part).collect();
            parts.join(", ")
        });
        tracing::error!(
            index,
            "this server's tree is not what the log makes, which a majority has ({what} differ): it serves nobody any more, \
             and does not lead. {}",
            remedy(self.options.server_id)
        );
        // Before anything else is done, so that no restart forgets it.
        let at = Position { index, term: self.tree.position().term };
        self.tree.set_differs(Some(at))?;
        self.room.set_serving(false);
        self.dismiss_everybody(WRONG);
        self.show_wrong();
        Ok(())
    }

    fn on_right(&mut self, index: u64) -> Result<(), TreeError> {
        self.tree.set_differs(None)?;
        tracing::warn!(
            index,
            "this server's tree is what the log makes, as a majority has it; it serves again"
        );
        self.show_wrong();
        Ok(())
    }

    /// Tell whoever has to know whether this server is wrong.
    pub(super) fn show_wrong(&mut self) {
        let wrong = self.is_wrong();
        self.room.set_wrong(wrong);
        self.room.metrics.warren_tree_differs.set(i64::from(wrong));
        self.actions.push_back(Action::Abstain(wrong));
    }

    /// It started with a tree that was found wrong.
    pub(super) fn begin_wrong(&mut self) {
        if self.is_wrong() {
            tracing::error!(
                "this server's tree was found not to be what the log makes. It serves nobody until the log is replayed from \
                 its last checkpoint, and a majority has what that makes"
            );
            self.began_wrong = true;
            self.show_wrong();
        }
    }

    /// Set marks, and tell what this server has.
    pub(super) fn compare(&mut self, now: Moment) {
        if !self.compares() {
            return;
        }
        if self.leading && self.has_epoch() {
            let applied = self.tree.position().index;
            if self.backlog.is_empty() && self.divergence.is_mark_due(now, applied) {
                self.submit(Submission::Mark);
            }
        }
        if !self.divergence.is_telling_due(now) {
            return;
        }
        let own = self.options.server_id;
        let mark = self.divergence.last();
        let to: BTreeSet<ServerId> = match mark {
            Some(_) if !self.votes() => return,
            Some(_) => {
                let members = self.tree.members().servers.iter().map(|member| member.id);
                members.chain(self.voters.iter().copied()).collect()
            }
            None => self.leader.into_iter().collect(),
        };
        for to in to.into_iter().filter(|to| *to != own) {
            let message = PeerMessage::Compare(Compare { mark });
            self.actions.push_back(Action::Send { to, message });
        }
    }

    /// When to look after it next.
    pub(super) fn compare_at(&self) -> Moment {
        let telling = self.divergence.next_telling();
        let leads = self.leading && self.has_epoch() && self.backlog.is_empty();
        let mark = leads.then(|| self.divergence.next_mark(self.tree.position().index)).flatten();
        mark.map_or(telling, |mark| telling.earlier(mark))
    }

    /// Who votes, as raft has it: that is right whatever the tree is.
    pub(super) fn note_voters(&mut self) {
        self.voters = voter_ids(self.tree.conf_state());
    }
}

/// What an operator does about it.
fn remedy(id: ServerId) -> String {
    format!(
        "Restart it once: where its last checkpoint is older than the fault, it is right again by itself. If it does not serve \
         within a minute, `warren rebuild --yes` on it lets it take its data anew from the others (or `warren member replace {id}` \
         on another server, and this one started with an empty folder). Suspect its memory and its disk"
    )
}
