//! May a server whose store holds nothing take part in its ensemble?
//!
//! An empty store is either new or wiped. A wiped voter that came back as if nothing had happened could vote a
//! second time in a term and elect a leader without acknowledged writes. So each store has a random id, which is
//! recorded in the log beside its server's id at first contact ([`warren_storage::Command::Introduce`]), and an
//! empty one asks the other voters before consensus begins:
//!
//! - Voters that are empty, too, found a new ensemble together, as soon as they are a majority and nobody who
//!   answered has history.
//! - Where others have history, the newest of their tables says who votes and which disk of this server is to come. As many
//!   of its voters must answer that every majority which could have recorded this server has one among them. If none of
//!   them knows another store under that disk, it is new here, and joins.
//!   Who has a table without this server refuses to link up with it, which says as much.
//! - If one knows another store, this server was wiped. It takes no part until an operator replaces it, which gives it
//!   the next disk; and who has no place in the table waits until it gets one.
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
use warren_storage::Tree;
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
    Known {
        store: tree.recorded_store(server),
        disk: members.get(server).map(|member| member.disk),
        version: members.version,
        voters: members.voters().map(|member| member.id).collect(),
        settled: Configuration::of(tree.conf_state()).outgoing.is_empty(),
    }
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

    /// Did all other voters say that they are empty?
    pub fn all_are_empty(&self) -> bool {
        self.answers.len() + 1 >= self.voters && self.answers.values().all(|answer| *answer == Answer::Empty)
    }

    /// The same for a server that was given data. `others` are the other configured voters, and whether they are linked;
    /// those that are not are waited for until `patience` is over.
    pub fn with_data(&self, others: impl IntoIterator<Item = (ServerId, bool)>, patience: bool) -> WithData {
        let mut absent = false;
        for (server, linked) in others {
            match (self.answers.get(&server), linked) {
                (Some(Answer::Empty), _) => {}
                (_, true) => return WithData::NotEmpty(server),
                (_, false) => absent = true,
            }
        }
        if absent && patience { WithData::Wait } else { WithData::Found }
    }

    /// What follows from the answers so far.
    pub fn verdict(&self) -> Verdict {
        let known = |answer: &Answer| match answer {
            Answer::Recorded(known) => Some(known.clone()),
            Answer::Empty | Answer::Undecided => None,
        };
        let answers = self.answers.values();
        let history = answers.clone().any(|answer| *answer != Answer::Empty);
        if !history && !self.strangers.is_empty() {
            return Verdict::NoPlace;
        }
        if !history {
            let empty = self.answers.len();
            return if empty + 1 > self.voters / 2 && !self.joins { Verdict::Found } else { Verdict::Wait };
        }
        let tables = answers.filter_map(known).filter(|known| !known.voters.is_empty());
        // Between its first entry and its table there is but a moment.
        let Some(newest) = tables.max_by_key(|known| known.version) else { return Verdict::Wait };
        let Some(disk) = newest.disk else { return Verdict::NoPlace };
        let mut heard = 0;
        for (from, answer) in &self.answers {
            match answer {
                Answer::Recorded(Known { store: Some(recorded), disk: of, .. })
                    if *recorded != self.store_id && *of == Some(disk) =>
                {
                    return Verdict::Wiped { by: *from, recorded: *recorded };
                }
                // An empty store cannot be one of those that recorded: it would have had to be wiped as well.
                Answer::Recorded(_) | Answer::Empty => heard += usize::from(newest.voters.contains(from)),
                Answer::Undecided => {}
            }
        }
        let voters = newest.voters.len();
        let quorum = voters / 2 + 1;
        if heard > voters - quorum { Verdict::Join { disk } } else { Verdict::Wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn verdict(voters: usize, answers: &[(ServerId, Answer)]) -> Verdict {
        let mut founding = Founding::new(7, voters, false);
        for (from, answer) in answers {
            founding.hear(*from, answer.clone());
        }
        founding.verdict()
    }

    /// Of the table of that version: server 1 has this disk, recorded with this store.
    fn knows(version: i64, voters: &'static [u8], disk: Option<u32>, store: Option<u64>) -> Answer {
        Answer::Recorded(Known { store, disk, version, voters: Bytes::from_static(voters), settled: true })
    }

    fn nothing() -> Answer {
        knows(0, &[1, 2, 3], Some(1), None)
    }

    #[test]
    fn a_server_alone_founds_alone() {
        assert_eq!(verdict(1, &[]), Verdict::Found);
    }

    #[test]
    fn empty_servers_found_as_a_majority() {
        assert_eq!(verdict(3, &[]), Verdict::Wait);
        assert_eq!(verdict(3, &[(2, Answer::Empty)]), Verdict::Found);
        assert_eq!(verdict(5, &[(2, Answer::Empty)]), Verdict::Wait);
        assert_eq!(verdict(5, &[(2, Answer::Empty), (4, Answer::Empty)]), Verdict::Found);
    }

    /// They and the one that is there are three in their files, and it is cut off from them.
    #[test]
    fn who_joins_does_not_found_with_others_that_are_empty() {
        let mut founding = Founding::new(7, 3, true);
        founding.hear(2, Answer::Empty);
        assert_eq!(founding.verdict(), Verdict::Wait);
        founding.hear(3, Answer::Empty);
        assert_eq!(founding.verdict(), Verdict::Wait, "all of them say so");
        founding.hear(2, knows(0, &[2], Some(1), None));
        assert_eq!(founding.verdict(), Verdict::Join { disk: 1 });
    }

    #[test]
    fn nobody_founds_beside_history() {
        assert_eq!(verdict(3, &[(2, Answer::Empty), (3, Answer::Undecided)]), Verdict::Wait);
        let five = [(2, Answer::Empty), (3, Answer::Empty), (4, Answer::Undecided)];
        assert_eq!(verdict(5, &five), Verdict::Wait);
        // It has history, and is about to write down who it is.
        assert_eq!(verdict(3, &[(2, Answer::Empty), (3, knows(0, &[], None, None))]), Verdict::Wait);
    }

    /// Servers that are to be added are started before they are: those that are there do not link up with them.
    #[test]
    fn nobody_founds_beside_a_table_without_it() {
        let mut founding = Founding::new(7, 3, false);
        founding.hear_stranger(2);
        founding.hear(3, Answer::Empty);
        assert_eq!(founding.verdict(), Verdict::NoPlace);
        founding.hear(2, knows(0, &[2], Some(1), None));
        assert_eq!(founding.verdict(), Verdict::Join { disk: 1 });
    }

    /// A majority of three that recorded server 1 has 2 or 3 in it: one answer alone may be from the other.
    #[test]
    fn a_new_server_joins_once_every_majority_has_answered() {
        assert_eq!(verdict(3, &[(2, nothing())]), Verdict::Wait);
        assert_eq!(verdict(3, &[(2, nothing()), (3, nothing())]), Verdict::Join { disk: 1 });
        let five = || knows(0, &[1, 2, 3, 4, 5], Some(1), None);
        assert_eq!(verdict(5, &[(2, five()), (3, five())]), Verdict::Wait);
        assert_eq!(verdict(5, &[(2, five()), (3, five()), (4, five())]), Verdict::Join { disk: 1 });
        // Who does not vote was asked by nobody to record it.
        assert_eq!(verdict(3, &[(2, nothing()), (9, nothing())]), Verdict::Wait);
    }

    /// The file of the asker names three; meanwhile four others vote.
    #[test]
    fn the_table_says_how_many_must_answer() {
        let voters = &[2, 3, 4, 5];
        let joins = |version| knows(version, voters, Some(2), None);
        assert_eq!(verdict(3, &[(2, joins(8))]), Verdict::Wait);
        assert_eq!(verdict(3, &[(2, joins(8)), (4, joins(8))]), Verdict::Join { disk: 2 });
    }

    #[test]
    fn a_wiped_server_is_told_by_any_that_remembers() {
        let wiped = Verdict::Wiped { by: 3, recorded: 8 };
        let remembers = || knows(0, &[1, 2, 3], Some(1), Some(8));
        assert_eq!(verdict(3, &[(2, nothing()), (3, remembers())]), wiped);
        assert_eq!(verdict(3, &[(2, Answer::Empty), (3, remembers())]), wiped);
    }

    /// One that lags still knows the store of the disk before.
    #[test]
    fn a_replaced_server_joins_as_its_next_disk() {
        let behind = knows(0, &[1, 2, 3], Some(1), Some(8));
        let newest = knows(5, &[2, 3], Some(2), None);
        assert_eq!(verdict(3, &[(2, newest.clone()), (3, behind)]), Verdict::Join { disk: 2 });
        let again = knows(5, &[2, 3], Some(2), Some(9));
        assert_eq!(verdict(3, &[(2, newest), (3, again)]), Verdict::Wiped { by: 3, recorded: 9 });
    }

    #[test]
    fn who_is_not_in_the_newest_table_waits() {
        let removed = knows(6, &[2, 3], None, None);
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
        founding.hear(2, Answer::Empty);
        assert_eq!(asked(&founding, [true, false], true), WithData::Wait);
        assert!(!founding.all_are_empty());
        founding.hear(3, Answer::Empty);
        assert_eq!(asked(&founding, [true, true], true), WithData::Found);
        assert!(founding.all_are_empty());
        founding.hear(3, nothing());
        assert_eq!(asked(&founding, [true, true], false), WithData::NotEmpty(3));
    }

    /// It crashed between its introduction and the first thing that it kept.
    #[test]
    fn the_recorded_store_itself_joins() {
        let known = [(2, knows(0, &[1, 2, 3], Some(1), Some(7))), (3, nothing())];
        assert_eq!(verdict(3, &known), Verdict::Join { disk: 1 });
    }
}
