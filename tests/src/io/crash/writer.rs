//! A writer: the only one that writes below its folder, so that it knows what must be there.

use super::{Client, Left, Promise, SESSION_MS, Stage, create};
use crate::sim::Dice;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering::SeqCst;
use warren_storage::{Code, CreateMode, Op, Stat};
use warren_transport::client::ReplyError;
use warren_transport::io::blocking::{Connection, Reply};
use warren_transport::reply::OpResult;
use warren_transport::{Change, Opcode, Request, Response};

/// Requests under way at most.
const UNDER_WAY_MAX: usize = 48;
/// Plain znodes that it plays with.
const NAMES: usize = 24;
/// Sequential znodes that it keeps; over it the oldest is deleted.
const SEQUENCES_MAX: usize = 40;
/// One znode in so many is large, so that segments fill and checkpoints come.
const LARGE_ONE_IN: u64 = 12;
const LARGE_BYTES: usize = 30_000;

/// What a request asks for.
#[derive(Clone, Debug)]
enum Ask {
    Create {
        name: usize,
        data: u64,
    },
    Set {
        name: usize,
        data: u64,
        version: i32,
    },
    Delete {
        name: usize,
        version: i32,
    },
    /// All or none, on different names.
    Multi(Vec<Ask>),
    /// A check of a version within a multi.
    Check {
        name: usize,
        version: i32,
    },
    Sequence {
        data: u64,
    },
    Unsequence {
        name: String,
    },
}

/// A znode as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    data: u64,
    version: i32,
    /// Of the last change, when it was told.
    mzxid: Option<i64>,
}

/// The folder as it must be.
#[derive(Clone, Debug, Default)]
struct Tree {
    plain: BTreeMap<usize, Known>,
    /// By data, which rises; the name when it was told.
    sequences: BTreeMap<u64, Option<String>>,
    /// Creates and deletes of children so far, of the folder and of the folder of sequences.
    changes: i32,
    sequence_changes: i32,
}

impl Tree {
    /// Carry it out; the code with which it is refused, if it is.
    fn apply(&mut self, ask: &Ask) -> Result<(), Code> {
        match ask {
            Ask::Create { name, data } => {
                if self.plain.contains_key(name) {
                    return Err(Code::NodeExists);
                }
                self.plain.insert(*name, Known { data: *data, version: 0, mzxid: None });
                self.changes += 1;
            }
            Ask::Set { name, data, version } => {
                let known = self.at(*name, *version)?;
                *known = Known { data: *data, version: known.version + 1, mzxid: None };
            }
            Ask::Delete { name, version } => {
                self.at(*name, *version)?;
                self.plain.remove(name);
                self.changes += 1;
            }
            Ask::Check { name, version } => {
                self.at(*name, *version)?;
            }
            Ask::Multi(asks) => {
                let before = self.clone();
                for ask in asks {
                    if let Err(code) = self.apply(ask) {
                        *self = before;
                        return Err(code);
                    }
                }
            }
            Ask::Sequence { data } => {
                self.sequences.insert(*data, None);
                self.sequence_changes += 1;
            }
            Ask::Unsequence { name } => {
                let found = self.sequences.iter().find(|(_, known)| known.as_ref() == Some(name));
                let data = *found.ok_or(Code::NoNode)?.0;
                self.sequences.remove(&data);
                self.sequence_changes += 1;
            }
        }
        Ok(())
    }

    fn at(&mut self, name: usize, version: i32) -> Result<&mut Known, Code> {
        let known = self.plain.get_mut(&name).ok_or(Code::NoNode)?;
        if version != -1 && version != known.version { Err(Code::BadVersion) } else { Ok(known) }
    }

    /// Is this what is found? Names and zxids that were not told may be anything.
    fn matches(&self, found: &Found) -> bool {
        self.changes == found.stat.cversion
            && self.sequence_changes == found.sequence_stat.cversion
            && self.plain.len() == found.plain.len()
            && self.plain.iter().zip(&found.plain).all(|((name, known), (found_name, (data, stat)))| {
                name == found_name
                    && known.data == *data
                    && known.version == stat.version
                    && known.mzxid.is_none_or(|mzxid| mzxid == stat.mzxid)
            })
            && self.sequences.len() == found.sequences.len()
            && self.sequences.iter().zip(&found.sequences).all(|((data, name), (found_data, found_name))| {
                data == found_data && name.as_ref().is_none_or(|name| name == found_name)
            })
    }
}

impl Tree {
    /// What was acknowledged and then a prefix of what was under way, if that is what is found.
    fn settle(&self, under_way: &VecDeque<Ask>, found: &Found) -> Option<Tree> {
        let mut tree = self.clone();
        let mut rest = under_way.iter();
        while !tree.matches(found) {
            // One that is refused changes nothing.
            let _ = tree.apply(rest.next()?);
        }
        Some(tree)
    }
}

/// The folder as it is.
#[derive(Clone, Debug, Default)]
struct Found {
    stat: Stat,
    sequence_stat: Stat,
    plain: BTreeMap<usize, (u64, Stat)>,
    sequences: BTreeMap<u64, String>,
}

pub(super) struct Writer {
    folder: String,
    dice: Dice,
    connection: Connection,
    number: usize,
    home: usize,
    /// As acknowledged.
    tree: Tree,
    /// As it will be, should all that is under way be carried out.
    ahead: Tree,
    under_way: VecDeque<Ask>,
    next_data: u64,
    /// The highest zxid of a write that was told.
    zxid: i64,
    /// The highest name of a sequential znode that was ever told, znodes that are gone included.
    sequence: String,
}

impl Writer {
    pub(super) fn new(stage: &Stage, n: usize, dice: Dice) -> Result<Writer, Left> {
        let home = stage.place_of(n);
        let mut connection = stage.connect(home, SESSION_MS)?;
        let folder = format!("/crash/w{n}");
        for path in [folder.clone(), format!("{folder}/sequence")] {
            connection.call(&Request::Change(create(&path, b"", CreateMode::Persistent)))?;
        }
        // The folder of sequences is a child of the folder.
        let tree = Tree { changes: 1, ..Tree::default() };
        Ok(Writer {
            folder,
            dice,
            connection,
            number: n,
            home,
            ahead: tree.clone(),
            tree,
            under_way: VecDeque::new(),
            next_data: 1,
            zxid: 0,
            sequence: String::new(),
        })
    }

    fn path(&self, name: usize) -> String {
        format!("{}/n{name}", self.folder)
    }

    fn data(&mut self) -> u64 {
        self.next_data += 1;
        self.next_data
    }

    /// One of everything that can be asked, and now and then what must be refused.
    fn choose(&mut self) -> Ask {
        match self.dice.index(8) {
            0..=2 if self.ahead.sequences.len() > SEQUENCES_MAX => {
                match self.ahead.sequences.values().flatten().next() {
                    Some(name) => Ask::Unsequence { name: name.clone() },
                    None => self.choose_plain(),
                }
            }
            0 | 1 => {
                let data = self.data();
                Ask::Sequence { data }
            }
            3 => {
                let first = self.dice.index(NAMES);
                let mut asks: Vec<Ask> =
                    (0..2 + self.dice.index(4)).map(|k| self.choose_on((first + k) % NAMES)).collect();
                if self.dice.one_in(3) {
                    let name = (first + NAMES - 1) % NAMES;
                    let version = self.version(name);
                    asks.push(Ask::Check { name, version });
                }
                Ask::Multi(asks)
            }
            _ => self.choose_plain(),
        }
    }

    fn choose_plain(&mut self) -> Ask {
        let name = self.dice.index(NAMES);
        self.choose_on(name)
    }

    fn choose_on(&mut self, name: usize) -> Ask {
        let data = self.data();
        if !self.ahead.plain.contains_key(&name) && !self.dice.one_in(20) {
            return Ask::Create { name, data };
        }
        let version = self.version(name);
        match self.dice.index(6) {
            0 => Ask::Delete { name, version },
            1 if self.dice.one_in(8) => Ask::Create { name, data },
            _ => Ask::Set { name, data, version },
        }
    }

    fn version(&mut self, name: usize) -> i32 {
        let version = self.ahead.plain.get(&name).map_or(0, |known| known.version);
        match self.dice.index(12) {
            0 => version + 1,
            1..=5 => -1,
            _ => version,
        }
    }

    fn send(&mut self, ask: Ask) -> Result<(), Left> {
        let mut texts = Vec::new();
        let mut datas = Vec::new();
        let asks = match &ask {
            Ask::Multi(asks) => asks.as_slice(),
            ask => std::slice::from_ref(ask),
        };
        for ask in asks {
            texts.push(match ask {
                Ask::Create { name, .. }
                | Ask::Set { name, .. }
                | Ask::Delete { name, .. }
                | Ask::Check { name, .. } => self.path(*name),
                Ask::Sequence { .. } => format!("{}/sequence/s-", self.folder),
                Ask::Unsequence { name } => format!("{}/sequence/{name}", self.folder),
                Ask::Multi(_) => unreachable!("a multi has no multi in it"),
            });
            datas.push(match ask {
                Ask::Create { data, .. } | Ask::Set { data, .. } | Ask::Sequence { data } => bytes_of(*data),
                _ => Vec::new(),
            });
        }
        let mut changes = asks.iter().zip(&texts).zip(&datas).map(|((ask, path), data)| match ask {
            Ask::Create { .. } => create(path, data, CreateMode::Persistent),
            Ask::Sequence { .. } => create(path, data, CreateMode::PersistentSequential),
            Ask::Set { version, .. } => {
                let op = Op::SetData { path, data: Some(data), version: *version };
                Change { opcode: Opcode::SetData, op }
            }
            Ask::Delete { version, .. } => {
                Change { opcode: Opcode::Delete, op: Op::Delete { path, version: *version } }
            }
            Ask::Unsequence { .. } => Change { opcode: Opcode::Delete, op: Op::Delete { path, version: -1 } },
            Ask::Check { version, .. } => {
                Change { opcode: Opcode::Check, op: Op::Check { path, version: *version } }
            }
            Ask::Multi(_) => unreachable!("a multi has no multi in it"),
        });
        let request = match &ask {
            Ask::Multi(_) => Request::Multi(changes.collect()),
            _ => Request::Change(changes.next().expect("there is one")),
        };
        self.connection.send(&request)?;
        let _ = self.ahead.apply(&ask);
        self.under_way.push_back(ask);
        Ok(())
    }

    /// The oldest request under way is answered.
    fn receive(&mut self, stage: &Stage) -> Result<(), Left> {
        let reply = self.connection.recv()?;
        let ask = self.under_way.pop_front().expect("replies come to what was asked");
        stage.acknowledged.fetch_add(1, SeqCst);
        let due = self.tree.apply(&ask);
        self.compare(stage, &ask, due, &reply)
    }

    fn compare(
        &mut self,
        stage: &Stage,
        ask: &Ask,
        due: Result<(), Code>,
        reply: &Reply,
    ) -> Result<(), Left> {
        let zxid = reply.header.zxid;
        let wrong = |what: &str| {
            let text = format!("{}: {ask:?} was answered {reply:?}: {what}", self.folder);
            stage.broken(Promise::RepliesFit, cut(text))
        };
        if zxid <= self.zxid {
            return Err(wrong(&format!("its zxid is not above {:#x}", self.zxid)));
        }
        let told = |stat: &Stat, tree: &mut Tree, name: usize| -> Result<(), &'static str> {
            let known = tree.plain.get_mut(&name).ok_or("there is no such znode")?;
            known.mzxid = Some(zxid);
            if stat.version != known.version {
                return Err("the version differs");
            }
            if stat.mzxid != zxid { Err("the Stat has another zxid") } else { Ok(()) }
        };
        match (ask, reply.response(), due) {
            (Ask::Multi(asks), Ok(Response::Multi(results)), due) => {
                if asks.len() != results.len() {
                    return Err(wrong("there are not as many results as requests"));
                }
                let refused = results.iter().find_map(|result| match result {
                    OpResult::Error { err } if *err != 0 && *err != Code::RuntimeInconsistency.wire() => {
                        Some(*err)
                    }
                    _ => None,
                });
                if refused != due.err().map(Code::wire) {
                    return Err(wrong(&format!("{due:?} was due")));
                }
                if due.is_ok() {
                    for (ask, result) in asks.iter().zip(&results) {
                        let fits = match (ask, result) {
                            (Ask::Create { name, .. }, OpResult::Create2 { stat, .. })
                            | (Ask::Set { name, .. }, OpResult::SetData { stat }) => {
                                told(stat, &mut self.tree, *name)
                            }
                            (Ask::Delete { .. }, OpResult::Delete) | (Ask::Check { .. }, OpResult::Check) => {
                                Ok(())
                            }
                            _ => Err("it is of another kind"),
                        };
                        fits.map_err(&wrong)?;
                    }
                }
            }
            (ask, Err(ReplyError::Refused(code)), Err(due)) if code == due => {
                let _ = ask;
            }
            (
                Ask::Create { name, .. } | Ask::Set { name, .. },
                Ok(Response::PathAndStat(_, stat) | Response::Stat(stat)),
                Ok(()),
            ) => told(&stat, &mut self.tree, *name).map_err(&wrong)?,
            (Ask::Delete { .. } | Ask::Unsequence { .. }, Ok(Response::Empty), Ok(())) => {}
            (Ask::Sequence { data }, Ok(Response::PathAndStat(path, _)), Ok(())) => {
                let name = path.rsplit('/').next().unwrap_or_default().to_owned();
                if name <= self.sequence {
                    let text = format!("{}: {name} came after {}", self.folder, self.sequence);
                    return Err(stage.broken(Promise::SequencesRise, text));
                }
                self.sequence.clone_from(&name);
                self.tree.sequences.insert(*data, Some(name.clone()));
                if let Some(known) = self.ahead.sequences.get_mut(data) {
                    *known = Some(name);
                }
            }
            (_, _, due) => return Err(wrong(&format!("{due:?} was due"))),
        }
        self.zxid = zxid;
        Ok(())
    }

    fn look(&mut self) -> Result<Found, Left> {
        let mut found = Found::default();
        let children = |path: &str, connection: &mut Connection| -> Result<(Vec<String>, Stat), Left> {
            let reply = connection.call(&Request::GetChildren2 { path, watch: false })?;
            match reply.response() {
                Ok(Response::ChildrenAndStat(names, stat)) => {
                    Ok((names.into_iter().map(str::to_owned).collect(), stat))
                }
                _ => Ok((Vec::new(), Stat::default())),
            }
        };
        let sequences = format!("{}/sequence", self.folder);
        let (names, stat) = children(&self.folder, &mut self.connection)?;
        let (sequence_names, sequence_stat) = children(&sequences, &mut self.connection)?;
        (found.stat, found.sequence_stat) = (stat, sequence_stat);
        for name in names.iter().filter(|name| *name != "sequence") {
            let (data, stat) = self.value(&format!("{}/{name}", self.folder))?;
            let name = name.strip_prefix('n').and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
            found.plain.insert(name, (data, stat));
        }
        for name in sequence_names {
            let (data, _) = self.value(&format!("{sequences}/{name}"))?;
            found.sequences.insert(data, name);
        }
        Ok(found)
    }

    fn value(&mut self, path: &str) -> Result<(u64, Stat), Left> {
        let reply = self.connection.call(&Request::GetData { path, watch: false })?;
        Ok(match reply.response() {
            Ok(Response::Data(data, stat)) => (number_of(data.unwrap_or_default()), stat),
            _ => (u64::MAX, Stat::default()),
        })
    }
}

impl Client for Writer {
    fn work(&mut self, stage: &Stage) -> Left {
        let depth = 1 + self.dice.index(UNDER_WAY_MAX);
        loop {
            if let Err(left) = stage.go_on() {
                return left;
            }
            while self.under_way.len() < depth {
                let ask = self.choose();
                if let Err(left) = self.send(ask) {
                    return left;
                }
            }
            // Half of them, so that the requests after them leave together too.
            for _ in 0..depth.div_ceil(2) {
                if let Err(left) = self.receive(stage) {
                    return left;
                }
            }
        }
    }

    fn home(&self) -> usize {
        self.home
    }

    fn writes(&self) -> bool {
        true
    }

    fn check(&mut self, stage: &Stage) -> Result<(), Left> {
        if !stage.reattach(self.number, &mut self.connection, &mut self.home)? {
            let text = format!("{}: the session {:#x} is over", self.folder, self.connection.session().id);
            return Err(stage.broken(Promise::SessionsLive, text));
        }
        let found = self.look()?;
        let under_way = std::mem::take(&mut self.under_way);
        self.tree = self.tree.settle(&under_way, &found).ok_or_else(|| {
            let text = format!(
                "{}: what is there is not what was acknowledged, with any of the {} requests under way after it\n\
                 acknowledged {:?}\nfound {found:?}",
                self.folder,
                under_way.len(),
                self.tree
            );
            stage.broken(Promise::NothingLost, text)
        })?;
        // What was not told is known now.
        for (name, known) in &mut self.tree.plain {
            let mzxid = found.plain[name].1.mzxid;
            if known.mzxid.is_none() && mzxid <= self.zxid {
                let text =
                    format!("{}: n{name} has zxid {mzxid:#x}, not above {:#x}", self.folder, self.zxid);
                return Err(stage.broken(Promise::RepliesFit, text));
            }
            known.mzxid = Some(mzxid);
        }
        for (data, name) in &mut self.tree.sequences {
            let there = &found.sequences[data];
            if name.is_none() {
                if *there <= self.sequence {
                    let text = format!("{}: {there} came after {}", self.folder, self.sequence);
                    return Err(stage.broken(Promise::SequencesRise, text));
                }
                self.sequence.clone_from(there);
                *name = Some(there.clone());
            }
        }
        self.zxid = self.zxid.max(self.connection.last_zxid());
        self.ahead = self.tree.clone();
        Ok(())
    }
}

/// Its number, and then as many bytes as the number says.
fn bytes_of(data: u64) -> Vec<u8> {
    let bytes = if data % LARGE_ONE_IN == 0 { LARGE_BYTES } else { 16 + (data % 200) as usize };
    let mut out = data.to_be_bytes().to_vec();
    out.resize(bytes, data as u8);
    out
}

/// The number, if the bytes are those of one.
fn number_of(bytes: &[u8]) -> u64 {
    let Some(head) = bytes.first_chunk() else { return u64::MAX };
    let data = u64::from_be_bytes(*head);
    if bytes == bytes_of(data) { data } else { u64::MAX }
}

fn cut(mut text: String) -> String {
    if text.len() > 2_000 {
        let end = (0..=2_000).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Ask, Found, Tree};
    use std::collections::VecDeque;
    use warren_storage::Stat;

    /// What a server has that carried these out.
    fn after(asks: &[Ask]) -> (Tree, Found) {
        let mut tree = Tree::default();
        for ask in asks {
            tree.apply(ask).unwrap();
        }
        let stat = |version, cversion| Stat { version, cversion, ..Stat::default() };
        let found = Found {
            stat: stat(0, tree.changes),
            sequence_stat: stat(0, tree.sequence_changes),
            plain: tree
                .plain
                .iter()
                .map(|(name, known)| (*name, (known.data, stat(known.version, 0))))
                .collect(),
            sequences: tree.sequences.keys().map(|data| (*data, format!("s-{data:010}"))).collect(),
        };
        (tree, found)
    }

    fn asks() -> Vec<Ask> {
        vec![
            Ask::Create { name: 1, data: 10 },
            Ask::Set { name: 1, data: 11, version: 0 },
            Ask::Sequence { data: 12 },
            Ask::Multi(vec![Ask::Create { name: 2, data: 13 }, Ask::Delete { name: 1, version: -1 }]),
            Ask::Create { name: 3, data: 14 },
        ]
    }

    #[test]
    fn every_prefix_of_what_was_under_way_will_do() {
        let asks = asks();
        for acknowledged in 0..=asks.len() {
            for carried_out in acknowledged..=asks.len() {
                let (tree, _) = after(&asks[..acknowledged]);
                let under_way = VecDeque::from(asks[acknowledged..].to_vec());
                assert!(tree.settle(&under_way, &after(&asks[..carried_out]).1).is_some());
            }
        }
    }

    #[test]
    fn a_lost_write_is_found() {
        let asks = asks();
        for acknowledged in 1..=asks.len() {
            let (tree, _) = after(&asks[..acknowledged]);
            let under_way = VecDeque::from(asks[acknowledged..].to_vec());
            let lost = after(&asks[..acknowledged - 1]).1;
            assert!(tree.settle(&under_way, &lost).is_none(), "{:?} is lost", asks[acknowledged - 1]);
        }
    }

    #[test]
    fn what_was_carried_out_out_of_order_or_in_part_or_by_nobody_is_found() {
        let asks = asks();
        let (tree, _) = after(&asks[..2]);
        let under_way = VecDeque::from(asks[2..].to_vec());
        // The last one without those before it.
        let skipped = after(&[asks[0].clone(), asks[1].clone(), asks[4].clone()]).1;
        assert!(tree.settle(&under_way, &skipped).is_none());
        // Half of the multi.
        let half = Ask::Create { name: 2, data: 13 };
        let torn = after(&[asks[0].clone(), asks[1].clone(), asks[2].clone(), half]).1;
        assert!(tree.settle(&under_way, &torn).is_none());
        // Other data, another version.
        let (_, mut other) = after(&asks[..2]);
        other.plain.get_mut(&1).unwrap().0 = 99;
        assert!(tree.settle(&under_way, &other).is_none());
        let (_, mut twice) = after(&asks[..2]);
        twice.plain.get_mut(&1).unwrap().1.version += 1;
        assert!(tree.settle(&under_way, &twice).is_none());
        // A znode that came and went all the same leaves its mark on the parent.
        let (_, mut touched) = after(&asks[..2]);
        touched.stat.cversion += 2;
        assert!(tree.settle(&under_way, &touched).is_none());
    }
}
