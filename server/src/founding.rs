//! May a server whose store holds nothing take part in its ensemble?
//!
//! An empty store is either new or wiped. A wiped voter that came back as if nothing had happened could vote a
//! second time in a term and elect a leader without acknowledged writes. So each store has a random id, which is
//! recorded in the log beside its server's id at first contact ([`warren_storage::Command::Introduce`]), and an
//! empty one asks the other voters before consensus begins:
//!
//! - Voters that are empty, too, found a new ensemble together, as soon as they are a majority and nobody who
//!   answered has history. Each keeps durably with whose stores it founds. One that has begun does not say that it is empty
//!   any more: it goes on counting for those it had in mind, and for nobody else.
//! - Where others have history, the newest of their tables says who votes and which disk of this server is to come. Their
//!   leader records the asker's store as soon as it hears of it, unless another one is recorded. Once somebody answers that
//!   the committed log has this store, it joins. Until then it says nothing of raft's: it neither votes nor acknowledges.
//!   Who has a table without this server refuses to link up with it, which says as much.
//! - If another store is recorded, this server was wiped. It takes no part until an operator replaces it, which gives it
//!   the next disk; and who has no place in the table waits until it gets one.
//! - Whom the table has observe comes as an observer. It has nothing to vote with, so no store is recorded.
//!
//! # Why no id votes with two stores
//!
//! Let a store S of a voter be lost, and S′ be the empty one in its place. As long as a majority of the other voters has taken
//! part and keeps its disks, S′ does not found: none of them says that it is empty, and none had S′ in mind, which did not exist
//! when they began. So S′ is silent until a leader, of term t, has recorded it in an entry that is committed.
//!
//! - While S′ is silent, its id is to raft a server that is down, and raft holds. The leader of t has all that is
//!   committed. The majority Q of its entry is without this id, for S was gone before the entry was, and S′ is silent.
//! - Afterwards S′ votes, without knowing what S acknowledged. Whoever is elected with its vote needs one of Q beside, as two
//!   majorities meet in a server, and Q is without this one; and Q has everything up to the entry.
//! - S may have voted in a term, for somebody who is elected late. S′ begins with t and votes in none before it. In t its leader
//!   was elected without S′. In a later term, whoever had the vote of S lacks the entry, which did not exist then, and
//!   needs one of Q, which has it.
//! - If S was recorded, S′ never is: the first store in the log stays.
//!
//! Servers that are to be added to an ensemble which is there stand in their own files as voters, too: a majority of such a file
//! that nobody else can be reached from looks like a new ensemble. A file that says `join` rules that out: its server never
//! founds.
//!
//! A store that was restored or imported is neither: its server founds the ensemble with it, alone, and lets the others join.
//! Two of them would found two ensembles, and a server with data of before belongs to another; so all others that are there
//! must be empty first.

use crate::consensus::Configuration;
use std::collections::{BTreeMap, BTreeSet};
use warren_storage::log::{Append, HardState, Log, LogError};
use warren_storage::{MemberRole, Tree};
use warren_transport::peer::{Answer, Known, ServerId};

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not enough is known yet: ask again.
    Wait,
    /// Begin a new ensemble with the others that are empty.
    Found,
    /// Take part in the one that is there.
    Join {
        /// As this disk of the server.
        disk: u32,
        /// The log has recorded its store in this term, or before.
        term: u64,
    },
    /// Come to the one that is there, and observe.
    Observe {
        /// As this disk of the server.
        disk: u32,
    },
    /// The ensemble that is there has no such server: ask again.
    NoPlace,
    /// This server took part before, with another store: ask again, an operator may replace it.
    Wiped {
        /// Who knows.
        by: ServerId,
        /// The store that was recorded.
        recorded: u64,
    },
}

/// What is recorded in this tree of a server that asks.
pub fn known(tree: &Tree, server: ServerId) -> Known {
    let members = tree.members();
    let asks = members.get(server);
    Known {
        store: tree.recorded_store(server),
        term: tree.position().term,
        observes: asks.is_some_and(|member| member.role == MemberRole::Observer),
        disk: asks.map(|member| member.disk),
        version: members.version,
        voters: members.voters().map(|member| member.id).collect(),
        settled: Configuration::of(tree.conf_state()).outgoing.is_empty(),
    }
}

/// What a server that takes part answers one that asks. `last_index` is that of its log; `may_judge`: its tree is what the log
/// makes.
pub fn answer(tree: &Tree, last_index: u64, may_judge: bool, server: ServerId) -> Answer {
    let applied = tree.position().index;
    if (applied, last_index) == (0, 0) && !Configuration::of(tree.conf_state()).voters.is_empty() {
        return Answer::Begun(tree.begun().founders.get(&server).copied());
    }
    // Who was let in, and has nothing yet, knows of an ensemble and of nothing that is in its log.
    match last_index > 0 && applied >= last_index && may_judge {
        true => Answer::Recorded(known(tree, server)),
        false => Answer::Undecided,
    }
}

/// Who joins votes in no term before the one in which it was recorded. Put that into its log, unless it is there: before
/// consensus begins. What the log's term and vote are from now on.
///
/// # Errors
/// The log's.
pub fn keep_promise(tree: &Tree, log: &mut Log, now: HardState) -> Result<HardState, LogError> {
    let term = tree.begun().term;
    if now.term >= term {
        return Ok(now);
    }
    let hard_state = HardState { term, vote: 0, ..now };
    log.append(Append { records: &[], hard_state: Some(hard_state) })?;
    Ok(hard_state)
}

/// What is decided of a server that was given data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithData {
    /// Ask again.
    Wait,
    /// Found the ensemble.
    Found,
    /// This one is there, and does not say that it is empty: ask again.
    NotEmpty(ServerId),
}

/// The question of one server with an empty store.
#[derive(Debug)]
pub struct Founding {
    store_id: u64,
    voters: usize,
    joins: bool,
    answers: BTreeMap<ServerId, Answer>,
    /// Who has a table without this server, and so history.
    strangers: BTreeSet<ServerId>,
}

impl Founding {
    /// `voters` are the configured ones, the asker among them. One that `joins` does not found.
    pub fn new(store_id: u64, voters: usize, joins: bool) -> Founding {
        Founding { store_id, voters, joins, answers: BTreeMap::new(), strangers: BTreeSet::new() }
    }

    /// Another voter answered; its latest answer counts.
    pub fn hear(&mut self, from: ServerId, answer: Answer) {
        self.strangers.remove(&from);
        self.answers.insert(from, answer);
    }

    /// Another server refuses links, for its table has no such server as this one.
    pub fn hear_stranger(&mut self, from: ServerId) {
        self.strangers.insert(from);
    }

    /// Who counts for founding: it is empty, or has begun with this store in mind.
    fn founds_with(&self, answer: &Answer) -> bool {
        matches!(answer, Answer::Empty(_)) || *answer == Answer::Begun(Some(self.store_id))
    }

    /// Need nobody be waited for who did not answer? All other voters are to found the ensemble, too, or one has begun.
    pub fn is_certain(&self) -> bool {
        let mut answers = self.answers.values();
        let all =
            self.answers.len() + 1 >= self.voters && answers.clone().all(|answer| self.founds_with(answer));
        all || answers.any(|answer| matches!(answer, Answer::Begun(_)))
    }

    /// The stores that this server founds the ensemble with, for [`warren_storage::tree::Begun::founders`].
    pub fn founders(&self) -> BTreeMap<ServerId, u64> {
        let empty = self.answers.iter().filter_map(|(from, answer)| match answer {
            Answer::Empty(store) => Some((*from, *store)),
            _ => None,
        });
        empty.collect()
    }

    /// The same for a server that was given data. `others` are the other configured voters, and whether they are linked;
    /// those that are not are waited for until `patience` is over.
    pub fn with_data(&self, others: impl IntoIterator<Item = (ServerId, bool)>, patience: bool) -> WithData {
        let mut absent = false;
        for (server, linked) in others {
            match (self.answers.get(&server), linked) {
                (Some(Answer::Empty(_)), _) => {}
                (_, true) => return WithData::NotEmpty(server),
                (_, false) => absent = true,
            }
        }
        if absent && patience { WithData::Wait } else { WithData::Found }
    }

    /// What follows from the answers so far.
    pub fn verdict(&self) -> Verdict {
        let answers = self.answers.values();
        let history = answers.clone().any(|a| matches!(a, Answer::Recorded(_) | Answer::Undecided));
        if !history {
            return self.without_history();
        }
        let tables = answers.filter_map(|answer| match answer {
            Answer::Recorded(known) if !known.voters.is_empty() => Some(known),
            _ => None,
        });
        // Between its first entry and its table there is but a moment.
        let Some(newest) = tables.max_by_key(|known| known.version) else { return Verdict::Wait };
        let Some(disk) = newest.disk else { return Verdict::NoPlace };
        if newest.observes {
            return Verdict::Observe { disk };
        }
        let mut verdict = Verdict::Wait;
        for (from, answer) in &self.answers {
            match answer {
                Answer::Recorded(Known { store: Some(recorded), disk: of, term, .. })
                    if *of == Some(disk) =>
                {
                    if *recorded != self.store_id {
                        return Verdict::Wiped { by: *from, recorded: *recorded };
                    }
                    verdict = Verdict::Join { disk, term: *term };
                }
                _ => {}
            }
        }
        verdict
    }

    fn without_history(&self) -> Verdict {
        if !self.strangers.is_empty() {
            return Verdict::NoPlace;
        }
        for (from, answer) in &self.answers {
            match answer {
                Answer::Begun(Some(other)) if *other != self.store_id => {
                    return Verdict::Wiped { by: *from, recorded: *other };
                }
                _ => {}
            }
        }
        let founders = 1 + self.answers.values().filter(|answer| self.founds_with(answer)).count();
        if founders > self.voters / 2 && !self.joins { Verdict::Found } else { Verdict::Wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::{found, joining, raft_id};
    use bytes::Bytes;
    use std::sync::Arc;
    use warren_storage::log::LogOptions;
    use warren_storage::simdisk::SimDisk;
    use warren_storage::tree::Begun;
    use warren_storage::{SharedDisk, TreeOptions};

    fn verdict(voters: usize, answers: &[(ServerId, Answer)]) -> Verdict {
        let mut founding = Founding::new(7, voters, false);
        for (from, answer) in answers {
            founding.hear(*from, answer.clone());
        }
        founding.verdict()
    }

    /// Of the table of that version: server 1 has this disk, and the log has this store for it.
    fn knows(version: i64, disk: Option<u32>, store: Option<u64>) -> Answer {
        let voters = Bytes::from_static(&[1, 2, 3]);
        Answer::Recorded(Known { store, term: 4, observes: false, disk, version, voters, settled: true })
    }

    fn nothing() -> Answer {
        knows(0, Some(1), None)
    }

    const EMPTY: Answer = Answer::Empty(9);

    #[test]
    fn a_server_alone_founds_alone() {
        assert_eq!(verdict(1, &[]), Verdict::Found);
    }

    #[test]
    fn empty_servers_found_as_a_majority() {
        assert_eq!(verdict(3, &[]), Verdict::Wait);
        assert_eq!(verdict(3, &[(2, EMPTY)]), Verdict::Found);
        assert_eq!(verdict(5, &[(2, EMPTY)]), Verdict::Wait);
        assert_eq!(verdict(5, &[(2, EMPTY), (4, EMPTY)]), Verdict::Found);
    }

    /// They and the one that is there are three in their files, and it is cut off from them.
    #[test]
    fn who_joins_does_not_found_with_others_that_are_empty() {
        let mut founding = Founding::new(7, 3, true);
        founding.hear(2, EMPTY);
        assert_eq!(founding.verdict(), Verdict::Wait);
        founding.hear(3, EMPTY);
        assert_eq!(founding.verdict(), Verdict::Wait, "all of them say so");
        founding.hear(2, knows(0, Some(1), Some(7)));
        assert_eq!(founding.verdict(), Verdict::Join { disk: 1, term: 4 });
    }

    #[test]
    fn nobody_founds_beside_history() {
        assert_eq!(verdict(3, &[(2, EMPTY), (3, Answer::Undecided)]), Verdict::Wait);
        assert_eq!(verdict(5, &[(2, EMPTY), (3, EMPTY), (4, Answer::Undecided)]), Verdict::Wait);
        // It has history, and is about to write down who it is.
        let begins = Known {
            store: None,
            term: 1,
            observes: false,
            disk: None,
            version: 0,
            voters: Bytes::new(),
            settled: true,
        };
        assert_eq!(verdict(3, &[(2, EMPTY), (3, Answer::Recorded(begins))]), Verdict::Wait);
    }

    /// A majority of three has begun, and the third was emptied: neither the one that does not know its former store nor another
    /// that is empty helps it to found a second time.
    #[test]
    fn who_has_begun_counts_for_whom_it_had_in_mind() {
        assert_eq!(verdict(3, &[(2, Answer::Begun(Some(7)))]), Verdict::Found);
        assert_eq!(verdict(3, &[(2, Answer::Begun(None))]), Verdict::Wait);
        assert_eq!(verdict(3, &[(2, Answer::Begun(None)), (3, Answer::Begun(None))]), Verdict::Wait);
        assert_eq!(verdict(3, &[(2, Answer::Begun(None)), (3, EMPTY)]), Verdict::Found);
        let wiped = Verdict::Wiped { by: 2, recorded: 8 };
        assert_eq!(verdict(3, &[(2, Answer::Begun(Some(8))), (3, EMPTY)]), wiped);
    }

    #[test]
    fn a_founder_keeps_the_stores_it_founds_with() {
        let mut founding = Founding::new(7, 5, false);
        founding.hear(2, Answer::Empty(22));
        assert!(!founding.is_certain());
        founding.hear(3, Answer::Begun(Some(7)));
        assert_eq!(founding.founders(), BTreeMap::from([(2, 22)]));
        assert!(founding.is_certain(), "it does not keep one waiting that has begun");
    }

    /// Servers that are to be added are started before they are: those that are there do not link up with them.
    #[test]
    fn nobody_founds_beside_a_table_without_it() {
        let mut founding = Founding::new(7, 3, false);
        founding.hear_stranger(2);
        founding.hear(3, EMPTY);
        assert_eq!(founding.verdict(), Verdict::NoPlace);
        founding.hear(2, nothing());
        assert_eq!(founding.verdict(), Verdict::Wait);
    }

    /// However many say that they know nothing: a majority may have its entry on the way.
    #[test]
    fn a_new_server_joins_once_the_log_has_its_store() {
        assert_eq!(verdict(3, &[(2, nothing()), (3, nothing())]), Verdict::Wait);
        let known = [(2, knows(0, Some(1), Some(7))), (3, nothing())];
        assert_eq!(verdict(3, &known), Verdict::Join { disk: 1, term: 4 });
    }

    #[test]
    fn whom_the_table_has_observe_is_recorded_by_nobody() {
        let Answer::Recorded(known) = nothing() else { unreachable!() };
        let observes = Answer::Recorded(Known { observes: true, ..known });
        assert_eq!(verdict(3, &[(2, observes)]), Verdict::Observe { disk: 1 });
    }

    #[test]
    fn a_wiped_server_is_told_by_any_that_remembers() {
        let wiped = Verdict::Wiped { by: 3, recorded: 8 };
        let remembers = || knows(0, Some(1), Some(8));
        assert_eq!(verdict(3, &[(2, nothing()), (3, remembers())]), wiped);
        assert_eq!(verdict(3, &[(2, EMPTY), (3, remembers())]), wiped);
    }

    /// One that lags still knows the store of the disk before.
    #[test]
    fn a_replaced_server_joins_as_its_next_disk() {
        let behind = || knows(0, Some(1), Some(8));
        assert_eq!(verdict(3, &[(2, knows(5, Some(2), None)), (3, behind())]), Verdict::Wait);
        let newest = knows(5, Some(2), Some(7));
        assert_eq!(verdict(3, &[(2, newest.clone()), (3, behind())]), Verdict::Join { disk: 2, term: 4 });
        let again = knows(5, Some(2), Some(9));
        assert_eq!(verdict(3, &[(2, newest), (3, again)]), Verdict::Wiped { by: 3, recorded: 9 });
    }

    #[test]
    fn who_is_not_in_the_newest_table_waits() {
        let removed = knows(6, None, None);
        assert_eq!(verdict(3, &[(2, removed), (3, nothing())]), Verdict::NoPlace);
    }

    #[test]
    fn data_found_an_ensemble_of_those_who_have_none() {
        let mut founding = Founding::new(7, 3, false);
        let asked = |founding: &Founding, linked: [bool; 2], patience| {
            founding.with_data([(2, linked[0]), (3, linked[1])], patience)
        };
        assert_eq!(asked(&founding, [false, false], true), WithData::Wait);
        assert_eq!(asked(&founding, [false, false], false), WithData::Found);
        // Restored as well, it says nothing that would do; one with the old data neither.
        assert_eq!(asked(&founding, [true, false], false), WithData::NotEmpty(2));
        founding.hear(2, Answer::Undecided);
        assert_eq!(asked(&founding, [true, false], false), WithData::NotEmpty(2));
        founding.hear(2, EMPTY);
        assert_eq!(asked(&founding, [true, false], true), WithData::Wait);
        assert!(!founding.is_certain());
        founding.hear(3, EMPTY);
        assert_eq!(asked(&founding, [true, true], true), WithData::Found);
        assert!(founding.is_certain());
        founding.hear(3, nothing());
        assert_eq!(asked(&founding, [true, true], false), WithData::NotEmpty(3));
    }

    /// As one that is to be server 2 of three.
    fn begun(conf_state: Vec<u8>, begun: Begun) -> Tree {
        let options = TreeOptions { memory_bytes: 1 << 20, hash_seed: 1, store_id: 7 };
        let mut tree = Tree::open(Arc::new(SimDisk::new()), options).unwrap();
        tree.take_part(1, conf_state, begun).unwrap();
        tree
    }

    #[test]
    fn who_founds_does_not_say_that_it_is_empty() {
        let founders = BTreeMap::from([(1, 11)]);
        let tree = begun(found(&[1, 2, 3].map(|id| raft_id(id, 1))), Begun { founders, ..Begun::default() });
        assert_eq!(answer(&tree, 0, true, 1), Answer::Begun(Some(11)));
        assert_eq!(answer(&tree, 0, true, 3), Answer::Begun(None));
        assert_eq!(answer(&tree, 1, true, 1), Answer::Undecided, "something is in its log");
        // It was let in, and knows that there is an ensemble.
        let tree = begun(joining(raft_id(2, 1)), Begun { term: 4, ..Begun::default() });
        assert_eq!(answer(&tree, 0, true, 1), Answer::Undecided);
    }

    #[test]
    fn who_is_wrong_judges_nobody() {
        let mut tree = begun(found(&[raft_id(2, 1)]), Begun::default());
        tree.advance(1, 4);
        assert!(matches!(answer(&tree, 1, true, 1), Answer::Recorded(Known { term: 4, store: None, .. })));
        assert_eq!(answer(&tree, 1, false, 1), Answer::Undecided);
        assert_eq!(answer(&tree, 2, true, 1), Answer::Undecided);
    }

    /// Its former store may have voted in terms before.
    #[test]
    fn who_joins_promises_not_to_vote_in_terms_that_are_over() {
        let tree = begun(joining(raft_id(2, 1)), Begun { term: 4, ..Begun::default() });
        let disk: SharedDisk = Arc::new(SimDisk::new());
        let mut log = Log::open(disk.clone(), LogOptions::default()).unwrap().0;
        let promised = HardState { term: 4, vote: 0, commit: 0 };
        assert_eq!(keep_promise(&tree, &mut log, HardState::default()).unwrap(), promised);
        drop(log);
        let (mut log, recovered) = Log::open(disk, LogOptions::default()).unwrap();
        assert_eq!(recovered.hard_state, promised);
        let later = HardState { term: 5, vote: 9, commit: 1 };
        assert_eq!(keep_promise(&tree, &mut log, later).unwrap(), later);
    }
}
