//! Are the trees of all servers what the log makes of them?
//!
//! What a tree is behind an entry is a function of the log up to there. So the leader sets *marks*: entries that change
//! nothing, behind which every server notes the digest of its tree. Voters tell theirs to everybody, and each server, voter
//! or observer, judges itself by what they tell:
//!
//! - More than half of those that vote have one and the same digest behind a mark, and this server's is another: this
//!   server is wrong, whoever it is, the leader included. The log is right on it, as raft sees to that; its tree is not.
//! - More than half have what this server has: it is right, whatever the others say.
//! - Neither: nobody can tell who is wrong. There is an alarm, and nothing stops; when a server that was silent tells what
//!   it has, it is judged again. A majority is counted of all that vote and not of those that answer, since two wrong
//!   servers of five that are alone for a moment must not stop the third.
//!
//! A server that is wrong stays so until a majority has what it has behind the mark at which that was found, or a later one:
//! as after a restart from a checkpoint of before the fault. Marks of different histories (a forced quorum) have different
//! terms, and are not compared.
//!
//! A tree that goes to another server takes the fault along, and two that have it in common may be a majority. So a
//! server gives away a checkpoint that a majority confirmed, by having the same behind that one or a later mark; one that is
//! contradicted is given to nobody, and one of which nobody says anything waits for [`CONFIRMED_WITHIN`].
//!
//! ```text
//!   leader ── Mark ─▶ log ─▶ every server applies it, and notes ─▶ Compare, from each voter to all ─▶ each judges itself
//! ```

use crate::moment::Moment;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use warren_transport::peer::{Mark, ServerId};

/// Marks that are remembered, of this server and of each that votes. A server that lags behind by more is judged by the
/// next ones.
pub const MARKS_MAX: usize = 64;
/// A tree that is to be sent to another server, and that nobody has said anything of, waits for the next mark for so many
/// intervals between marks at most. Then it is sent as it is: where no majority has a say, there is none that could
/// contradict, and the ensemble may need that server to have one.
pub const CONFIRMED_WITHIN: u32 = 2;
/// What a server has is told again after so many intervals between marks: a message may be lost.
const AGAIN: u32 = 5;

/// What a comparison comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Too few have told what they have, and nobody contradicts.
    Open,
    /// More than half of the voters have what this server has.
    Right,
    /// More than half of them have this, and this server does not.
    Wrong(Mark),
    /// There is no majority for anything, and these have something else than this server.
    Split(Vec<ServerId>),
}

/// The comparisons of one server.
#[derive(Debug)]
pub struct Divergence {
    server_id: ServerId,
    every: Duration,
    /// Of this server, by index.
    own: VecDeque<Mark>,
    /// Of those that vote.
    told: BTreeMap<ServerId, VecDeque<Mark>>,
    /// Somebody wants a mark.
    wanted: bool,
    next_mark: Moment,
    next_telling: Moment,
    /// Who was said to have something else.
    said: BTreeSet<ServerId>,
}

impl Divergence {
    /// Nothing is compared yet. `every`: between two marks, at least.
    pub fn new(now: Moment, server_id: ServerId, every: Duration) -> Divergence {
        Divergence {
            server_id,
            every,
            own: VecDeque::new(),
            told: BTreeMap::new(),
            wanted: false,
            next_mark: now + every,
            next_telling: now,
            said: BTreeSet::new(),
        }
    }

    /// The tree is another one: what was noted of the one before says nothing of it.
    pub fn on_other_tree(&mut self) {
        self.own.clear();
    }

    /// This server applied a mark, and has this. To be told at once.
    pub fn on_mark(&mut self, now: Moment, mark: Mark) {
        self.wanted = false;
        if self.own.len() == MARKS_MAX {
            self.own.pop_front();
        }
        self.own.push_back(mark);
        self.next_telling = now;
    }

    /// A server told what it has. Whoever does not vote has no say.
    pub fn on_told(&mut self, from: ServerId, mark: Mark, voters: &[ServerId]) {
        self.told.retain(|server, _| voters.contains(server));
        if from == self.server_id || !voters.contains(&from) {
            return;
        }
        let marks = self.told.entry(from).or_default();
        // What it has now, whatever it had there: it may have another tree, or another history, since.
        marks.retain(|old| old.index != mark.index);
        if marks.len() == MARKS_MAX {
            marks.pop_front();
        }
        marks.push_back(mark);
    }

    /// Who leads changed. Who has no mark yet asks this one for it, and asked nobody before.
    pub fn on_leader(&mut self, now: Moment, leader: Option<ServerId>) {
        if leader.is_some() && self.own.is_empty() {
            self.next_telling = now;
        }
    }

    /// As the leader: the next mark need not wait for the end of the interval.
    pub fn hurry(&mut self, now: Moment) {
        self.next_mark = now;
    }

    /// A server has no mark to compare.
    pub fn on_wanted(&mut self) {
        self.wanted = true;
    }

    /// What this server has behind the last mark.
    pub fn last(&self) -> Option<Mark> {
        self.own.back().copied()
    }

    /// Did more than half of those that vote apply a mark at this index or behind it? `votes`: this server is one of them.
    pub fn is_reached_by_most(&self, index: u64, voters: &[ServerId], votes: bool) -> bool {
        let last = |id: &ServerId| match *id == self.server_id {
            true => self.own.back().filter(|_| votes),
            false => self.told.get(id).and_then(VecDeque::back),
        };
        let reached = voters.iter().filter_map(last).filter(|mark| mark.index >= index).count();
        2 * reached > voters.len()
    }

    /// What follows from what is told of the mark at this index.
    pub fn verdict(&self, index: u64, voters: &[ServerId]) -> Verdict {
        let Some(own) = self.own.iter().rev().find(|mark| mark.index == index) else {
            return Verdict::Open;
        };
        let same_place = |mark: &&Mark| (mark.index, mark.term) == (own.index, own.term);
        let told = self.told.iter().filter(|(server, _)| voters.contains(server));
        let mut marks: Vec<(ServerId, Mark)> = told
            .filter_map(|(server, marks)| Some((*server, *marks.iter().rev().find(same_place)?)))
            .collect();
        if voters.contains(&self.server_id) {
            marks.push((self.server_id, *own));
        }
        let others: Vec<ServerId> =
            marks.iter().filter(|(_, mark)| mark != own).map(|(server, _)| *server).collect();
        let most = |mark: &&(ServerId, Mark)| {
            2 * marks.iter().filter(|(_, other)| *other == mark.1).count() > voters.len()
        };
        match marks.iter().find(most) {
            Some((_, mark)) if mark == own => Verdict::Right,
            Some((_, mark)) => Verdict::Wrong(*mark),
            None if others.is_empty() => Verdict::Open,
            None => Verdict::Split(others),
        }
    }

    /// Who has something else than this server behind this mark, and who has the same.
    pub fn parties(&self, index: u64) -> (Vec<ServerId>, Vec<ServerId>) {
        let (mut differ, mut agree) = (Vec::new(), Vec::new());
        let Some(own) = self.own.iter().rev().find(|mark| mark.index == index) else {
            return (differ, agree);
        };
        for (server, marks) in &self.told {
            let there = marks.iter().find(|mark| (mark.index, mark.term) == (own.index, own.term));
            match there {
                Some(mark) if mark == own => agree.push(*server),
                Some(_) => differ.push(*server),
                None => {}
            }
        }
        (differ, agree)
    }

    /// These were found to have something else than this server, and these to have the same: those of whom it is news, so
    /// that each is said once.
    pub fn news(&mut self, differ: &[ServerId], agree: &[ServerId]) -> Vec<ServerId> {
        agree.iter().for_each(|server| {
            self.said.remove(server);
        });
        differ.iter().copied().filter(|server| self.said.insert(*server)).collect()
    }

    /// As the leader that has applied up to here: is a mark due? Then the next one is not before the interval is over.
    pub fn is_mark_due(&mut self, now: Moment, applied: u64) -> bool {
        let due = now.us >= self.next_mark.us && self.wants_mark(applied);
        if due {
            self.next_mark = now + self.every;
        }
        due
    }

    fn wants_mark(&self, applied: u64) -> bool {
        self.wanted || self.last().is_none_or(|last| last.index < applied)
    }

    /// As the leader: when to look whether a mark is due.
    pub fn next_mark(&self, applied: u64) -> Option<Moment> {
        self.wants_mark(applied).then_some(self.next_mark)
    }

    /// Is it time to tell what this server has? Then the next time is set.
    pub fn is_telling_due(&mut self, now: Moment) -> bool {
        let due = now.us >= self.next_telling.us;
        if due {
            self.next_telling = now + self.every * AGAIN;
        }
        due
    }

    /// When to tell next.
    pub fn next_telling(&self) -> Moment {
        self.next_telling
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTERS: [ServerId; 3] = [1, 2, 3];

    fn at(ms: u64) -> Moment {
        Moment { us: ms * 1_000, wall_ms: 0 }
    }

    fn mark(index: u64, znodes: u64) -> Mark {
        Mark { index, term: 1, zxid: 7, znodes, sessions: 0, members: 0 }
    }

    fn server(id: ServerId) -> Divergence {
        Divergence::new(at(0), id, Duration::from_millis(100))
    }

    /// Server `id` has `own` behind mark 10, and is told this.
    fn judged(id: ServerId, own: u64, told: &[(ServerId, u64)], voters: &[ServerId]) -> Verdict {
        let mut one = server(id);
        one.on_mark(at(0), mark(10, own));
        told.iter().for_each(|(from, znodes)| one.on_told(*from, mark(10, *znodes), voters));
        one.verdict(10, voters)
    }

    #[test]
    fn the_minority_is_wrong_whoever_leads() {
        assert_eq!(judged(1, 5, &[(2, 5)], &VOTERS), Verdict::Right);
        assert_eq!(judged(1, 5, &[(2, 5), (3, 6)], &VOTERS), Verdict::Right);
        assert_eq!(judged(3, 6, &[(1, 5), (2, 5)], &VOTERS), Verdict::Wrong(mark(10, 5)));
        let five = [1, 2, 3, 4, 5];
        assert_eq!(judged(5, 6, &[(4, 6), (1, 5), (2, 5), (3, 5)], &five), Verdict::Wrong(mark(10, 5)));
        assert_eq!(judged(5, 6, &[(4, 6), (1, 5), (2, 5)], &five), Verdict::Split(vec![1, 2]));
    }

    #[test]
    fn without_a_majority_nobody_is_wrong() {
        assert_eq!(judged(1, 5, &[], &VOTERS), Verdict::Open);
        assert_eq!(judged(1, 5, &[(2, 6)], &VOTERS), Verdict::Split(vec![2]));
        assert_eq!(judged(1, 5, &[(2, 6), (3, 7)], &VOTERS), Verdict::Split(vec![2, 3]));
        assert_eq!(judged(1, 5, &[(2, 6)], &[1, 2]), Verdict::Split(vec![2]));
        assert_eq!(judged(1, 5, &[(2, 5), (3, 6), (4, 6)], &[1, 2, 3, 4]), Verdict::Split(vec![3, 4]));
    }

    #[test]
    fn an_observer_judges_itself_and_has_no_say() {
        assert_eq!(judged(9, 6, &[(1, 5)], &VOTERS), Verdict::Split(vec![1]));
        assert_eq!(judged(9, 6, &[(1, 5), (2, 5)], &VOTERS), Verdict::Wrong(mark(10, 5)));
        assert_eq!(judged(3, 6, &[(1, 5), (8, 5), (9, 5)], &VOTERS), Verdict::Split(vec![1]));
        // Its own word does not make a majority either.
        assert_eq!(judged(9, 5, &[(1, 5), (2, 6)], &VOTERS), Verdict::Split(vec![2]));
    }

    #[test]
    fn only_the_same_entry_is_compared() {
        let mut one = server(1);
        one.on_told(2, mark(10, 6), &VOTERS);
        one.on_told(3, Mark { term: 2, ..mark(20, 6) }, &VOTERS);
        assert_eq!(one.verdict(10, &VOTERS), Verdict::Open, "it has not come so far");
        one.on_mark(at(0), mark(10, 5));
        one.on_mark(at(0), mark(20, 5));
        assert_eq!(one.verdict(10, &VOTERS), Verdict::Split(vec![2]), "it was told before it came there");
        assert_eq!(one.verdict(20, &VOTERS), Verdict::Open, "of another history");
        // Server 2 was rebuilt, and says what it has now.
        one.on_told(2, mark(10, 5), &VOTERS);
        assert_eq!((one.verdict(10, &VOTERS), one.parties(10)), (Verdict::Right, (vec![], vec![2])));
        one.on_other_tree();
        assert_eq!((one.verdict(10, &VOTERS), one.last()), (Verdict::Open, None));
    }

    #[test]
    fn a_majority_of_those_that_vote_has_reached_an_entry() {
        let mut one = server(1);
        one.on_told(2, mark(10, 5), &VOTERS);
        assert!(!one.is_reached_by_most(10, &VOTERS, true));
        one.on_mark(at(0), mark(10, 6));
        assert!(one.is_reached_by_most(10, &VOTERS, true), "whatever they have there");
        assert!(!one.is_reached_by_most(11, &VOTERS, true) && !one.is_reached_by_most(10, &[2, 3], true));
        assert!(one.is_reached_by_most(10, &[2], true));
        assert!(
            !one.is_reached_by_most(10, &VOTERS, false),
            "this server is another disk than the one that votes"
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut one = server(1);
        for index in 0..3 * MARKS_MAX as u64 {
            one.on_mark(at(0), mark(index, 5));
            one.on_told(2, mark(index, 5), &VOTERS);
            one.on_told(9, mark(index, 5), &VOTERS);
        }
        assert_eq!((one.own.len(), one.told[&2].len(), one.told.len()), (MARKS_MAX, MARKS_MAX, 1));
        one.on_told(3, mark(1, 5), &[1, 3]);
        assert_eq!(one.told.keys().collect::<Vec<_>>(), [&3], "server 2 votes no more");
    }

    #[test]
    fn a_mark_is_due_when_anything_changed_or_somebody_has_none() {
        let mut leader = server(1);
        assert!(!leader.is_mark_due(at(99), 4) && leader.is_mark_due(at(100), 4));
        // It was lost on its way to the log.
        assert!(!leader.is_mark_due(at(199), 4) && leader.is_mark_due(at(200), 4));
        leader.on_mark(at(210), mark(5, 1));
        assert_eq!((leader.is_mark_due(at(900), 5), leader.next_mark(5)), (false, None));
        leader.on_wanted();
        assert!(leader.is_mark_due(at(900), 5));
        leader.on_mark(at(910), mark(6, 1));
        assert!(!leader.is_mark_due(at(1_900), 6) && leader.is_mark_due(at(1_900), 7));
        leader.hurry(at(1_910));
        assert!(leader.is_mark_due(at(1_910), 7));
    }

    #[test]
    fn what_it_has_is_told_at_once_and_now_and_then() {
        let mut one = server(1);
        assert!(one.is_telling_due(at(0)) && !one.is_telling_due(at(499)) && one.is_telling_due(at(500)));
        one.on_mark(at(510), mark(5, 1));
        assert!(one.is_telling_due(at(510)) && !one.is_telling_due(at(511)));
        assert_eq!(one.news(&[2, 3], &[]), [2, 3]);
        assert!(one.news(&[2], &[3]).is_empty());
        assert_eq!(one.news(&[2, 3], &[]), [3]);
    }
}
