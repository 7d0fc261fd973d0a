//! May a server whose store holds nothing take part in its ensemble?
//!
//! An empty store is either new or wiped. A wiped voter that came back as if nothing had happened could vote a
//! second time in a term and elect a leader without acknowledged writes. So each store has a random id, which is
//! recorded in the log beside its server's id at first contact ([`warren_storage::Command::Introduce`]), and an
//! empty one asks the other voters before consensus begins:
//!
//! - Voters that are empty, too, found a new ensemble together, as soon as they are a majority and nobody who
//!   answered has history.
//! - Where others have history, as many of them must answer that every majority which could have recorded this server has
//!   one among them. If none of them knows another store under its id, it is new here, and joins.
//! - If one knows another store, this server was wiped. It takes no part until an operator replaces it.

use std::collections::BTreeMap;
use warren_transport::peer::{Answer, ServerId};

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not enough is known yet: ask again.
    Wait,
    /// Begin a new ensemble with the others that are empty.
    Found,
    /// Take part in the one that is there.
    Join,
    /// This server took part before, with another store.
    Wiped {
        /// Who knows.
        by: ServerId,
        /// The store that was recorded.
        recorded: u64,
    },
}

/// The question of one server with an empty store.
#[derive(Debug)]
pub struct Founding {
    store_id: u64,
    voters: usize,
    answers: BTreeMap<ServerId, Answer>,
}

impl Founding {
    /// `voters` are the configured ones, the asker among them.
    pub fn new(store_id: u64, voters: usize) -> Founding {
        Founding { store_id, voters, answers: BTreeMap::new() }
    }

    /// Another voter answered; its latest answer counts.
    pub fn hear(&mut self, from: ServerId, answer: Answer) {
        self.answers.insert(from, answer);
    }

    /// What follows from the answers so far.
    pub fn verdict(&self) -> Verdict {
        let quorum = self.voters / 2 + 1;
        let (mut empty, mut clear, mut history) = (0, 0, false);
        for (from, answer) in &self.answers {
            match answer {
                Answer::Empty => empty += 1,
                Answer::Undecided => history = true,
                Answer::Recorded(Some(recorded)) if *recorded != self.store_id => {
                    return Verdict::Wiped { by: *from, recorded: *recorded };
                }
                Answer::Recorded(_) => (history, clear) = (true, clear + 1),
            }
        }
        if !history {
            return if empty + 1 >= quorum { Verdict::Found } else { Verdict::Wait };
        }
        // A majority with this server in it has quorum - 1 of the others. An empty store cannot be one of them: it would
        // have had to be wiped as well.
        if empty + clear > self.voters - quorum { Verdict::Join } else { Verdict::Wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(voters: usize, answers: &[(ServerId, Answer)]) -> Verdict {
        let mut founding = Founding::new(7, voters);
        for (from, answer) in answers {
            founding.hear(*from, answer.clone());
        }
        founding.verdict()
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

    #[test]
    fn nobody_founds_beside_history() {
        assert_eq!(verdict(3, &[(2, Answer::Empty), (3, Answer::Undecided)]), Verdict::Wait);
        assert_eq!(
            verdict(5, &[(2, Answer::Empty), (3, Answer::Empty), (4, Answer::Undecided)]),
            Verdict::Wait
        );
    }

    /// A majority of three that recorded server 1 has 2 or 3 in it: one answer alone may be from the other.
    #[test]
    fn a_new_server_joins_once_every_majority_has_answered() {
        assert_eq!(verdict(3, &[(2, Answer::Recorded(None))]), Verdict::Wait);
        assert_eq!(verdict(3, &[(2, Answer::Recorded(None)), (3, Answer::Recorded(None))]), Verdict::Join);
        let two = [(2, Answer::Recorded(None)), (3, Answer::Recorded(None))];
        assert_eq!(verdict(5, &two), Verdict::Wait);
        let three = [two[0].clone(), two[1].clone(), (4, Answer::Recorded(None))];
        assert_eq!(verdict(5, &three), Verdict::Join);
    }

    #[test]
    fn a_wiped_server_is_told_by_any_that_remembers() {
        let wiped = Verdict::Wiped { by: 3, recorded: 8 };
        assert_eq!(verdict(3, &[(2, Answer::Empty), (3, Answer::Recorded(Some(8)))]), wiped);
        assert_eq!(verdict(3, &[(2, Answer::Recorded(None)), (3, Answer::Recorded(Some(8)))]), wiped);
    }

    /// It crashed between its introduction and the first thing that it kept.
    #[test]
    fn the_recorded_store_itself_joins() {
        let known = [(2, Answer::Recorded(Some(7))), (3, Answer::Recorded(None))];
        assert_eq!(verdict(3, &known), Verdict::Join);
    }
}
