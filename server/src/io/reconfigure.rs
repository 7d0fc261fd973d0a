//! Changes of the membership that an operator asks this server for: brought to the leader like a write, and answered when
//! this server has applied them.

use super::engine::Engine;
use super::link_state::LinkState;
use crate::consensus::{self, Submission, table_of};
use crate::membership::{self, Refusal};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use warren_storage::{Asker, Change, Code, Command, Logged, Member, MemberRole, Members};
use warren_transport::peer::ServerId;

/// An answer that takes longer has no leader, or was lost with one.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks whether a change that was made is known to a majority.
const SETTLED_LOOK_EVERY: Duration = Duration::from_millis(20);
/// Changes that wait for their answer, at most; beyond, another one is refused.
const WAITING_MAX: usize = 64;

/// Why a change of the membership was not made, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReconfigureError {
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody knows.
    #[error(
        "no answer within {} s: there is no leader, or it was lost on the way. It may still be carried out; \
         `warren member list` shows it then",
        ANSWER_WITHIN.as_secs()
    )]
    NoAnswer,
    /// It is made, and who it took the vote from may be needed yet.
    #[error(
        "the change is made, but within {} s no majority of the voters said that it goes by it: servers that are down or cut \
         off may not know of it, and count on those who voted before. Let a server that leaves run until they are linked \
         (`warren status`) and serve, and then stop it",
        ANSWER_WITHIN.as_secs()
    )]
    NotSettled,
    /// Too many at once.
    #[error("{WAITING_MAX} changes of the membership wait for their answer here already")]
    TooMany,
}

/// Who waits for which answer.
pub(super) struct Reconfigurations {
    server: ServerId,
    incarnation: u64,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    askers: BTreeMap<u64, oneshot::Sender<Result<Members, Code>>>,
}

impl Reconfigurations {
    /// Of this run of this server.
    pub(super) fn new(server: ServerId, incarnation: u64) -> Arc<Reconfigurations> {
        Arc::new(Reconfigurations { server, incarnation, waiting: Mutex::default() })
    }

    pub(super) fn answer(&self, request: u64, answer: Result<Members, Code>) {
        if let Some(asker) = self.waiting.lock().askers.remove(&request) {
            // Who stopped waiting was told that nobody knows.
            let _ = asker.send(answer);
        }
    }

    fn ask(&self) -> Option<(Asker, oneshot::Receiver<Result<Members, Code>>)> {
        let mut waiting = self.waiting.lock();
        if waiting.askers.len() >= WAITING_MAX {
            return None;
        }
        waiting.last += 1;
        let request = waiting.last;
        let (tell, told) = oneshot::channel();
        waiting.askers.insert(request, tell);
        Some((Asker { server: self.server, incarnation: self.incarnation, request }, told))
    }
}

impl Engine {
    /// Change the membership, on whatever server it is asked.
    ///
    /// # Errors
    /// When it is refused, or not answered in time.
    pub(super) async fn reconfigure(&self, change: Change) -> Result<Members, ReconfigureError> {
        if self.ensemble.is_none() {
            return Err(Refusal::Standalone.into());
        }
        // What this server would say, for an answer that says no more than a code.
        let own = self.facts().map(|facts| membership::change(&facts.members, &change));
        let (asker, told) = self.reconfigure.ask().ok_or(ReconfigureError::TooMany)?;
        let command = Command::Reconfigure { asker: Some(asker), change, decided: None };
        let encoded = Logged { tag: None, ids: Vec::new(), command }.encode();
        self.consensus.push(consensus::Event::Submit(vec![Submission::Reconfigure(encoded)]));
        let answer = tokio::time::timeout(ANSWER_WITHIN, told).await;
        self.reconfigure.waiting.lock().askers.remove(&asker.request);
        match answer {
            Ok(Ok(Ok(members))) => {
                self.wait_until_settled(&members).await?;
                Ok(members)
            }
            Ok(Ok(Err(code))) => Err(match own {
                Some(Err(refusal)) if refusal.code() == code => refusal.into(),
                _ => Refusal::of(code).into(),
            }),
            Ok(Err(_)) | Err(_) => Err(ReconfigureError::NoAnswer),
        }
    }

    /// Until a majority of those that vote now goes by the configuration that has them: who is to go is needed until then, as a
    /// voter that does not know of its leaving waits for its vote.
    async fn wait_until_settled(&self, members: &Members) -> Result<(), ReconfigureError> {
        let until = tokio::time::Instant::now() + ANSWER_WITHIN;
        while !self.is_settled().await && !self.is_disowned(members) {
            if tokio::time::Instant::now() >= until {
                return Err(ReconfigureError::NotSettled);
            }
            tokio::time::sleep(SETTLED_LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn is_settled(&self) -> bool {
        let (tell, told) = oneshot::channel();
        // Who does not hear it has given up.
        self.look(move |service| {
            let _ = tell.send(service.is_settled());
        });
        told.await.unwrap_or(false)
    }

    /// Does a majority of those that vote refuse this server? Each goes by a configuration without it then, and tells it
    /// nothing more.
    fn is_disowned(&self, members: &Members) -> bool {
        let Some(ensemble) = &self.ensemble else { return false };
        let states = ensemble.states();
        let removed = |id| matches!(states.get(&id), Some(LinkState::Removed));
        2 * members.voters().filter(|member| removed(member.id)).count() > members.voters().count()
    }

    /// Make this server the only voter, whatever the others have: what they acknowledged and this one lacks is lost. Waits
    /// until it leads alone.
    ///
    /// # Errors
    /// When it stands alone anyway, does not belong to the ensemble, or does not get there in time.
    pub(super) async fn force_quorum(&self) -> Result<Members, ReconfigureError> {
        let Some(ensemble) = &self.ensemble else { return Err(Refusal::Standalone.into()) };
        let id = ensemble.config.server_id;
        let facts = self.facts().ok_or(ReconfigureError::NoAnswer)?;
        let own = facts.members.get(id).ok_or(Refusal::NoServer { id })?;
        let alone = Member { role: MemberRole::Voter, ..own.clone() };
        let before = facts.members.version;
        let table = table_of(Members { version: 0, servers: vec![alone] });
        self.consensus.push(consensus::Event::ForceQuorum(table));
        let until = tokio::time::Instant::now() + ANSWER_WITHIN;
        while tokio::time::Instant::now() < until {
            match self.facts() {
                Some(facts) if facts.members.servers.len() == 1 && facts.members.version > before => {
                    return Ok(facts.members);
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        Err(ReconfigureError::NoAnswer)
    }
}
