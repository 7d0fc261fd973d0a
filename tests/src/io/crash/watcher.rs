//! A watcher: knows the state in which it set each watch, and so whether an event was due.

use super::{Client, Left, Promise, SESSION_MS, Stage, WRITERS, stat};
use crate::sim::Dice;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::SeqCst;
use warren_storage::Stat;
use warren_transport::io::blocking::Connection;
use warren_transport::request::SetWatches;
use warren_transport::{EventType, Request, Response};

/// Of each writer's plain znodes, so many are watched.
const NAMES: usize = 8;

/// One watch: of a znode's data (or of its coming to be), or of a folder's children.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Watched {
    Node(String),
    Children(String),
}

impl Watched {
    fn path(&self) -> &str {
        match self {
            Watched::Node(path) | Watched::Children(path) => path,
        }
    }

    /// What changes when the watch is to fire; 0 when nothing is there.
    fn mark(&self, stat: Option<Stat>) -> i64 {
        match self {
            Watched::Node(_) => stat.map_or(0, |stat| stat.mzxid),
            Watched::Children(_) => stat.map_or(0, |stat| stat.pzxid),
        }
    }
}

pub(super) struct Watcher {
    dice: Dice,
    connection: Connection,
    number: usize,
    home: usize,
    all: Vec<Watched>,
    /// With the mark that was seen when it was set.
    set: BTreeMap<Watched, i64>,
    /// Of the last event of this connection that told one.
    last_event: i64,
}

impl Watcher {
    pub(super) fn new(stage: &Stage, n: usize, dice: Dice) -> Result<Watcher, Left> {
        let mut all = Vec::new();
        for writer in 0..WRITERS {
            all.push(Watched::Children(format!("/crash/w{writer}")));
            all.extend((0..NAMES).map(|n| Watched::Node(format!("/crash/w{writer}/n{n}"))));
        }
        // One place further than the writers, who are more.
        let number = n + 1;
        let home = stage.place_of(number);
        let connection = stage.connect(home, SESSION_MS)?;
        Ok(Watcher { dice, connection, number, home, all, set: BTreeMap::new(), last_event: 0 })
    }

    /// Set the watch, and learn what is there.
    fn watch(&mut self, watched: &Watched) -> Result<i64, Left> {
        Ok(match watched {
            Watched::Node(path) => {
                let reply = self.connection.call(&Request::Exists { path, watch: true })?;
                watched.mark(super::stat_of(&reply))
            }
            Watched::Children(path) => {
                let reply = self.connection.call(&Request::GetChildren2 { path, watch: true })?;
                match reply.response() {
                    Ok(Response::ChildrenAndStat(_, stat)) => watched.mark(Some(stat)),
                    _ => 0,
                }
            }
        })
    }

    /// Events that are here, each of which needs its watch. Returns what fired, with the mark of before.
    fn fired(&mut self, stage: &Stage) -> Result<Vec<(Watched, i64)>, Left> {
        let mut fired = Vec::new();
        while let Some(event) = self.connection.event() {
            stage.events.fetch_add(1, SeqCst);
            // One that a setWatches brings has no zxid of its own.
            if event.zxid != -1 && event.zxid < self.last_event {
                let text = format!("{event:?} came behind one of {:#x}", self.last_event);
                return Err(stage.broken(Promise::WatchesFire, text));
            }
            self.last_event = self.last_event.max(event.zxid);
            let watched = match event.kind {
                EventType::NodeChildrenChanged => Watched::Children(event.path.clone()),
                _ => Watched::Node(event.path.clone()),
            };
            match self.set.remove(&watched) {
                Some(mark) => fired.push((watched, mark)),
                None => {
                    return Err(stage.broken(Promise::WatchesFire, format!("{event:?} came without a watch")));
                }
            }
        }
        Ok(fired)
    }

    fn step(&mut self, stage: &Stage) -> Result<(), Left> {
        let watched = self.all[self.dice.index(self.all.len())].clone();
        let Some(mark) = self.set.get(&watched).copied() else {
            let mark = self.watch(&watched)?;
            self.set.insert(watched, mark);
            return self.settle(stage);
        };
        // A look without a watch may not show what the watch has not told.
        let now = watched.mark(stat(&mut self.connection, watched.path())?);
        if now != mark && self.set.contains_key(&watched) {
            let told = self.fired(stage)?;
            if !told.iter().any(|(fired, _)| *fired == watched) {
                let text =
                    format!("{watched:?} went from {mark:#x} to {now:#x}, seen before its watch fired");
                return Err(stage.broken(Promise::WatchesFire, text));
            }
            return self.reset(stage, told);
        }
        self.settle(stage)
    }

    /// What fired is watched anew, and must have changed.
    fn settle(&mut self, stage: &Stage) -> Result<(), Left> {
        let fired = self.fired(stage)?;
        self.reset(stage, fired)
    }

    fn reset(&mut self, stage: &Stage, fired: Vec<(Watched, i64)>) -> Result<(), Left> {
        for (watched, before) in fired {
            let mark = self.watch(&watched)?;
            if mark == before && mark != 0 {
                let text = format!("a watch fired on {watched:?}, which did not change");
                return Err(stage.broken(Promise::WatchesFire, text));
            }
            self.set.insert(watched, mark);
        }
        Ok(())
    }
}

impl Client for Watcher {
    fn work(&mut self, stage: &Stage) -> Left {
        loop {
            if let Err(left) = stage.go_on().and_then(|()| self.step(stage)) {
                return left;
            }
        }
    }

    fn home(&self) -> usize {
        self.home
    }

    fn check(&mut self, stage: &Stage) -> Result<(), Left> {
        // Events of the old connection that were received count; what fired then is not watched.
        self.fired(stage)?;
        if !stage.reattach(self.number, &mut self.connection, &mut self.home)? {
            let text = format!("a watcher's session {:#x} is over", self.connection.session().id);
            return Err(stage.broken(Promise::SessionsLive, text));
        }
        self.last_event = 0;
        let mut request = SetWatches { relative_zxid: self.connection.last_zxid(), ..SetWatches::default() };
        for (watched, mark) in &self.set {
            match watched {
                Watched::Children(path) => request.child.push(path),
                Watched::Node(path) if *mark == 0 => request.exist.push(path),
                Watched::Node(path) => request.data.push(path),
            }
        }
        let before = self.set.clone();
        let reply = self.connection.call(&Request::SetWatches(request))?;
        if let Err(e) = reply.response() {
            return Err(stage.broken(Promise::WatchesFire, format!("setWatches was refused: {e}")));
        }
        let at_once: BTreeSet<Watched> = self.fired(stage)?.into_iter().map(|(watched, _)| watched).collect();
        let mut told = at_once.clone();
        for (watched, mark) in before {
            let now = watched.mark(stat(&mut self.connection, watched.path())?);
            // Writers may be at work meanwhile: then an event comes before what it tells of is seen.
            told.extend(self.fired(stage)?.into_iter().map(|(watched, _)| watched));
            let untold = now != mark && !told.contains(&watched);
            let false_alarm = now == mark && at_once.contains(&watched) && !stage.is_at_work();
            if untold || false_alarm {
                let text = format!(
                    "{watched:?} had {mark:#x} when the watch was set and has {now:#x} after the restart; told: {}",
                    told.contains(&watched)
                );
                return Err(stage.broken(Promise::WatchesFire, text));
            }
        }
        Ok(())
    }
}
