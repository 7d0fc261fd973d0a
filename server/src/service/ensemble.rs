//! What a server is told of its ensemble: who leads, who votes, and that it was so far behind that it gets another tree.

use super::sessions::EXPELLED;
use super::{Action, Service};
use crate::consensus;
use crate::moment::Moment;
use crate::room::Standing;
use crate::words::Mode;
use warren_storage::tree::{Change, Tree};
use warren_storage::{Asker, Code, Decided, Member, MemberRole};
use warren_transport::peer::ServerId;

impl Service {
    pub(super) fn on_leader(&mut self, now: Moment, term: u64, leader: Option<ServerId>) {
        if (term, leader) == (self.term, self.leader) {
            return;
        }
        (self.term, self.leader) = (term, leader);
        self.divergence.on_leader(now, leader);
        self.leading = leader == Some(self.options.server_id);
        self.epoch_asked = false;
        self.expiry.clear();
        self.reports.on_leader(now.ms());
        if self.leading {
            self.give_full_timeouts(now);
            self.last_time = now;
            self.sweeper.start(now);
        }
        self.show_standing();
        if !self.alone {
            match leader {
                Some(leader) => tracing::info!(leader, term, "there is a leader"),
                None => tracing::info!(term, "there is no leader; writes wait"),
            }
        }
    }

    pub(super) fn show_standing(&self) {
        let mode = match (self.alone, self.leading) {
            (true, _) if self.stands_alone() => Mode::Standalone,
            _ if self.read_only.is_on() => Mode::ReadOnly,
            (_, true) => Mode::Leader,
            (_, false) if self.observer => Mode::Observer,
            (_, false) => Mode::Follower,
        };
        let Service { term, leader, .. } = *self;
        self.room.set_standing(Standing { server_id: self.options.server_id, mode, leader, term });
    }

    /// Is it an ensemble of itself from the beginning? One that others have left is its ensemble's leader.
    fn stands_alone(&self) -> bool {
        let members = self.tree.members();
        members.servers.len() <= 1 && members.version == 0
    }

    /// Who votes is known, or is others.
    pub(super) fn on_voters(&mut self, now: Moment) {
        self.note_voters();
        self.conf_index = self.tree.position().index;
        let conf_state = self.tree.conf_state();
        self.alone = !self.observer && consensus::is_alone(conf_state, self.options.server_id);
        if self.alone {
            self.room.set_contact_ms(u64::MAX);
        } else if self.room.contact_ms() == u64::MAX {
            self.room.set_contact_ms(now.ms());
        }
        // Who contradicted may have been replaced, as an operator decides where no majority does. Who still votes says it again
        // at the next mark, before a tree that waits is sent.
        self.room.set_contradicted(0);
        // Who votes alone is the majority.
        if self.alone {
            self.room.set_confirmed(u64::MAX);
        } else if self.room.confirmed() == u64::MAX {
            self.room.set_confirmed(self.tree.position().index);
        }
        self.show_standing();
    }

    /// The tree has another table: who watches `/zookeeper/config` is told, and so is consensus.
    pub(super) fn on_members(&mut self, changes: &[Change]) {
        for change in changes {
            let (at, woken) = (self.tree.zxid(), &mut self.woken);
            self.room.watches.fire(at, change, woken);
        }
        self.tell_members();
    }

    /// The others say that this server does not belong to the ensemble any more.
    pub(super) fn on_expelled(&mut self) {
        if std::mem::replace(&mut self.expelled, true) {
            return;
        }
        let id = self.options.server_id;
        tracing::error!(
            "this server does not belong to the ensemble any more, and serves nobody. Stop it; to let it come back, empty its \
             folder, start it, and run `warren member add {id} …` (or `replace {id}` while it is listed) on another server"
        );
        self.dismiss_everybody(EXPELLED);
        // While it still leads: it does not know any more when those clients were heard of.
        self.expiry.clear();
        self.room.set_serving(false);
    }

    /// Does the table have this server, with the disk that it is?
    fn belongs(&self) -> bool {
        let members = self.tree.members();
        let own = members.get(self.options.server_id);
        // An observer has nothing that another disk of it could contradict.
        let is_it = |own: &Member| own.role == MemberRole::Observer || own.disk <= self.tree.disk();
        members.servers.is_empty() || own.is_some_and(is_it)
    }

    pub(super) fn tell_members(&mut self) {
        // A tree that takes part in nothing has no disk. And one that comes in by the log passes tables of the time before:
        // only who was in one can be missing from the next.
        if self.tree.disk() != 0 && !self.tree.members().servers.is_empty() {
            let belongs = self.belongs();
            if self.belonged && !belongs {
                self.on_expelled();
            }
            self.belonged |= belongs;
            // An observer that left may come back as it is.
            self.expelled &= !belongs;
        }
        let (mut members, retired) = (self.tree.members().clone(), self.tree.retired().clone());
        let id = self.options.server_id;
        let recorded = self.tree.recorded_store(id);
        let other = recorded.is_some_and(|store| store != self.tree.store_id());
        let recorded = recorded.is_some() && !other;
        if let Some(own) = members.servers.iter_mut().find(|member| member.id == id) {
            // One that joins may have been emptied while the store that it had before was on its way into the log.
            let joins = own.role == MemberRole::Joining && own.disk == self.tree.disk();
            if (self.observer || joins) && own.role != MemberRole::Observer && other {
                // It voted once, or could have, and its data were lost since: it must not vote as if nothing had happened.
                tracing::error!(
                    "this server took part with another store than the one it has now, and goes on observing; \
                     `warren member replace {id}` on another server lets it vote"
                );
                own.role = MemberRole::Observer;
            }
            // It goes on observing until its store is recorded.
            self.observer = own.role == MemberRole::Observer || self.observer && !recorded;
            self.show_standing();
        }
        self.actions.push_back(Action::Links);
        self.actions.push_back(Action::Members { members, retired, recorded });
    }

    /// A change that was decided is applied.
    pub(super) fn on_reconfigured(&mut self, asker: Option<Asker>, decided: Option<&Decided>) {
        let answer = match decided {
            Some(Decided::Made(_)) => {
                self.tell_members();
                Ok(self.tree.members().clone())
            }
            Some(Decided::Refused(code)) => Err(*code),
            None => Err(Code::SystemError),
        };
        let own = (self.options.server_id, self.options.incarnation);
        if let Some(asker) = asker.filter(|asker| (asker.server, asker.incarnation) == own) {
            self.actions.push_back(Action::Reconfigured { request: asker.request, answer });
        }
    }

    /// The tree is another one from now on, of a later position: what lies between was never applied here.
    pub(super) fn on_install(&mut self, now: Moment, tree: Tree) {
        assert!(!self.leading, "a leader takes no snapshot");
        let position = tree.position();
        assert!(
            position > self.tree.position(),
            "a snapshot at {position:?} after {:?}",
            self.tree.position()
        );
        tracing::info!(index = position.index, "took a snapshot; clients have to connect anew");
        // Before the new tree can be read, so that no reply shows a change whose event was skipped.
        self.dismiss_everybody("this server took a snapshot");
        let was_wrong = self.is_wrong();
        self.tree = tree;
        self.divergence.on_other_tree();
        self.room.digests.clear();
        self.room.set_checkpointed(self.tree.zxid());
        self.backlog.retain(|entry| entry.position.index > position.index);
        self.epoch_term = position.term;
        (self.refusals, self.misses) = (self.tree.refusals(), self.tree.misses());
        self.foreign_checkpoints += u32::from(std::mem::take(&mut self.checkpointing));
        self.unpublished = true;
        if was_wrong {
            tracing::warn!("this server's tree was wrong; it is another server's now");
            self.show_wrong();
        }
        self.on_voters(now);
        self.tell_members();
        self.actions.push_back(Action::Applied(position.index));
    }
}
