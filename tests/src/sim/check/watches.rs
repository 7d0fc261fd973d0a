//! On each connection the watch events stand before any reply that shows the new data, none before the reply that
//! armed its watch, and each fires exactly as often as it should.
//!
//! For every connection a model of its watches is kept, armed by the replies that its client reads. Before a reply
//! at zxid z, all events up to z that the model expects must have been read; an event that is read must be the next
//! one expected.
//!
//! While a setWatches is under way its watches stand already, as its client has them since before: events of theirs
//! are welcome, and its reply is judged as a whole.

use super::conversation::{Conversation, Sent};
use super::history::History;
use super::{Verdict, Violation, hold, shown};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use warren_server::answer::WantsWatch;
use warren_server::watches::Table;
use warren_storage::tree::{Change, ChangeKind, Snapshot};
use warren_storage::{Acl, ZPath, perms};
use warren_transport::request::{AddWatchMode, SetWatches, WatcherType};
use warren_transport::{EventType, ReplyHeader, Request};

const PROPERTY: &str = "events before replies, each once";

/// A connection's watches on one path.
#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    /// One-shot, from exists and getData.
    data: bool,
    /// Its node did not exist when it was set.
    missing: bool,
    /// One-shot, from getChildren.
    child: bool,
    persistent: bool,
    recursive: bool,
}

impl Watch {
    fn is_none(&self) -> bool {
        !(self.data || self.child || self.persistent || self.recursive)
    }
}

/// An event that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Due {
    zxid: i64,
    kind: EventType,
    path: String,
    /// Only one of the identities on either side of an auth may know of it.
    doubtful: bool,
}

/// May the client know?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    Yes,
    No,
    Perhaps,
}

/// What a client would watch again behind a reconnect.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// From getData, and from exists on a node that was there.
    pub data: Vec<String>,
    /// From exists on a node that was not there.
    pub exist: Vec<String>,
    /// From getChildren.
    pub child: Vec<String>,
    /// From addWatch.
    pub persistent: Vec<String>,
    /// From addWatch, recursive.
    pub recursive: Vec<String>,
}

impl Kept {
    /// Is there nothing to watch?
    pub fn is_empty(&self) -> bool {
        [&self.data, &self.exist, &self.child, &self.persistent, &self.recursive].iter().all(|l| l.is_empty())
    }

    fn of(lists: &SetWatches<'_>) -> Kept {
        let owned = |list: &[&str]| list.iter().map(|p| (*p).to_owned()).collect();
        let (persistent, recursive) = lists.persistent.clone().unwrap_or_default();
        Kept {
            data: owned(&lists.data),
            exist: owned(&lists.exist),
            child: owned(&lists.child),
            persistent: owned(&persistent),
            recursive: owned(&recursive),
        }
    }
}

/// A setWatches under way.
#[derive(Debug, Default)]
struct Setting {
    kept: Kept,
    relative_zxid: i64,
    /// One-shot watches of which an event came.
    told: BTreeSet<(Half, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Half {
    Data,
    Child,
}

/// One connection's watches, as its client may rely on them.
#[derive(Debug, Default)]
pub struct Watches {
    on: BTreeMap<String, Watch>,
    /// Changes of the history that were looked at.
    seen: usize,
    due: VecDeque<Due>,
    setting: Option<Setting>,
    /// Removed, with the last zxid that may have fired before: such an event may be on its way.
    ghosts: Vec<(String, i64)>,
}

impl Watches {
    pub(super) fn begin_set(&mut self, lists: &SetWatches<'_>) {
        self.setting = Some(Setting {
            kept: Kept::of(lists),
            relative_zxid: lists.relative_zxid,
            told: BTreeSet::new(),
        });
    }

    /// What to watch again.
    pub(super) fn kept(&self) -> Kept {
        // A setWatches without an answer is asked again.
        let mut kept = self.setting.as_ref().map(|s| s.kept.clone()).unwrap_or_default();
        for (path, watch) in &self.on {
            let add = |list: &mut Vec<String>, is: bool| {
                if is && !list.contains(path) {
                    list.push(path.clone());
                }
            };
            add(&mut kept.data, watch.data && !watch.missing);
            add(&mut kept.exist, watch.data && watch.missing);
            add(&mut kept.child, watch.child);
            add(&mut kept.persistent, watch.persistent);
            add(&mut kept.recursive, watch.recursive);
        }
        kept
    }

    fn change(&mut self, path: &str, change: impl FnOnce(&mut Watch)) {
        let watch = self.on.entry(path.to_owned()).or_default();
        change(watch);
        if watch.is_none() {
            self.on.remove(path);
        }
    }

    /// The change fires what it fires (ZooKeeper's `WatchManager.triggerWatch`, data table and child table).
    fn fire(&mut self, zxid: i64, change: &Change, allowed: impl Fn(&[Acl]) -> Allowed) {
        let path: &str = &change.path;
        let kind = match change.kind {
            ChangeKind::Created => EventType::NodeCreated,
            ChangeKind::Deleted => EventType::NodeDeleted,
            ChangeKind::DataChanged => EventType::NodeDataChanged,
        };
        let own = self.on.get(path).copied().unwrap_or_default();
        let above = std::iter::successors(change.path.parent(), |p| warren_storage::path::parent_of(p))
            .any(|p| self.on.get(p).is_some_and(|w| w.recursive));
        let mut told = own.data || own.persistent || own.recursive || above;
        let deleted = change.kind == ChangeKind::Deleted;
        told |= deleted && own.child;
        if own.data || (deleted && own.child) {
            self.change(path, |w| {
                w.data = false;
                w.child &= !deleted;
            });
        }
        if told {
            self.due(zxid, kind, path, allowed(&change.acl));
        }
        let (Some(acl), Some(parent)) = (&change.parent_acl, change.path.parent()) else { return };
        let watch = self.on.get(parent).copied().unwrap_or_default();
        if watch.child {
            self.change(parent, |w| w.child = false);
        }
        if watch.child || watch.persistent {
            self.due(zxid, EventType::NodeChildrenChanged, parent, allowed(acl));
        }
    }

    fn due(&mut self, zxid: i64, kind: EventType, path: &str, allowed: Allowed) {
        if allowed != Allowed::No {
            let doubtful = allowed == Allowed::Perhaps;
            self.due.push_back(Due { zxid, kind, path: path.to_owned(), doubtful });
        }
    }
}

/// Look at all changes up to `zxid`.
fn advance(history: &History, conversation: &mut Conversation, zxid: i64) {
    let Conversation { identity, identity_before, watches, .. } = conversation;
    let allowed = |at: i64, acl: &[Acl]| {
        let now = identity.allowed(acl, perms::READ);
        match &*identity_before {
            Some((before, upto)) if at <= *upto && before.allowed(acl, perms::READ) != now => {
                Allowed::Perhaps
            }
            _ if now => Allowed::Yes,
            _ => Allowed::No,
        }
    };
    if watches.on.is_empty() {
        watches.seen = watches.seen.max(history.changes.partition_point(|(at, _)| *at <= zxid));
        return;
    }
    while let Some((at, change)) = history.changes.get(watches.seen).filter(|(at, _)| *at <= zxid) {
        watches.seen += 1;
        watches.fire(*at, change, |acl| allowed(*at, acl));
    }
}

/// A reply at this zxid was read: nothing up to it may be missing.
pub(super) fn on_zxid(history: &History, conversation: &mut Conversation, zxid: i64) -> Verdict {
    advance(history, conversation, zxid);
    // Whatever comes behind it was looked at after the auth.
    conversation.identity_before.take_if(|(_, upto)| zxid >= *upto);
    conversation.watches.due.retain(|due| !due.doubtful);
    match conversation.watches.due.front() {
        None => Ok(()),
        Some(due) => Err(Violation {
            property: PROPERTY,
            what: format!(
                "a reply at {} came before {:?} of {} at {}",
                shown(zxid),
                due.kind,
                due.path,
                shown(due.zxid)
            ),
        }),
    }
}

pub(super) fn on_event(
    history: &History,
    conversation: &mut Conversation,
    zxid: i64,
    kind: EventType,
    path: &str,
) -> Verdict {
    if zxid >= 0 {
        advance(history, conversation, zxid);
    }
    let watches = &mut conversation.watches;
    while let Some(due) = watches.due.front() {
        let (it, doubtful) = ((due.zxid, due.kind, due.path.as_str()) == (zxid, kind, path), due.doubtful);
        if it || doubtful {
            watches.due.pop_front();
        }
        if it {
            return Ok(());
        }
        if !doubtful {
            break;
        }
    }
    if let Some(setting) = &mut watches.setting {
        if setting.take(kind, path) {
            return Ok(());
        }
    }
    // Fired before it was removed, which the removal's reply need not wait for. One of a recursive watch tells of
    // what is below.
    if watches.ghosts.iter().any(|(ghost, last)| zxid <= *last && is_below(path, ghost)) {
        return Ok(());
    }
    Err(Violation {
        property: PROPERTY,
        what: format!(
            "{kind:?} of {path} at {} came, and {} was due",
            shown(zxid),
            watches.due.front().map_or("none".into(), |due| format!("{due:?}"))
        ),
    })
}

/// Is it this path, or below it?
fn is_below(path: &str, above: &str) -> bool {
    above == "/" || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Setting {
    /// Is this an event of a watch that is being set?
    fn take(&mut self, kind: EventType, path: &str) -> bool {
        let has = |list: &Vec<String>| list.iter().any(|p| p == path);
        let kept = &self.kept;
        let (data, child) = (has(&kept.data) || has(&kept.exist), has(&kept.child));
        let below = kept.recursive.iter().any(|above| is_below(path, above));
        let mut ours = has(&kept.persistent) || below;
        if data && kind != EventType::NodeChildrenChanged {
            ours |= self.told.insert((Half::Data, path.to_owned())) || child;
        }
        if child && matches!(kind, EventType::NodeChildrenChanged | EventType::NodeDeleted) {
            ours |= self.told.insert((Half::Child, path.to_owned()));
        }
        ours
    }

    /// Its reply is read: what was not told did not change, and is watched.
    ///
    /// `hidden` says of a path whether an event of it was not for this client's eyes: it spent the watch in silence.
    fn finish(self, tree: &Snapshot, hidden: impl Fn(&str) -> bool, watches: &mut Watches) -> Verdict {
        let Setting { kept, relative_zxid, told } = self;
        let node = |path: &str| tree.node(path).expect("nothing fails on this disk");
        let missed = |path: &str, what: &str| Violation {
            property: PROPERTY,
            what: format!("setWatches did not tell that {path} {what} behind {}", shown(relative_zxid)),
        };
        for path in &kept.data {
            if told.contains(&(Half::Data, path.clone())) {
                continue;
            }
            let changed = node(path).is_none_or(|node| node.mzxid > relative_zxid);
            if changed && hidden(path) {
                continue;
            }
            let node = node(path).ok_or_else(|| missed(path, "was deleted"))?;
            hold(node.mzxid <= relative_zxid, PROPERTY, || missed(path, "was set").what)?;
            watches.change(path, |w| w.data = true);
        }
        for path in kept.exist.iter().filter(|path| !told.contains(&(Half::Data, (*path).clone()))) {
            if node(path).is_some() && hidden(path) {
                continue;
            }
            hold(node(path).is_none(), PROPERTY, || missed(path, "was created").what)?;
            watches.change(path, |w| (w.data, w.missing) = (true, true));
        }
        for path in &kept.child {
            if told.contains(&(Half::Child, path.clone())) {
                continue;
            }
            let changed = node(path).is_none_or(|node| node.pzxid > relative_zxid);
            if changed && hidden(path) {
                continue;
            }
            let node = node(path).ok_or_else(|| missed(path, "was deleted"))?;
            hold(node.pzxid <= relative_zxid, PROPERTY, || missed(path, "got or lost children").what)?;
            watches.change(path, |w| w.child = true);
        }
        for path in &kept.persistent {
            watches.change(path, |w| w.persistent = true);
        }
        for path in &kept.recursive {
            watches.change(path, |w| w.recursive = true);
        }
        Ok(())
    }
}

/// A reply arms what its request asked for. `read` is what a read's watch stands on.
pub(super) fn on_reply(
    history: &History,
    conversation: &mut Conversation,
    sent: &Sent,
    header: ReplyHeader,
    read: Option<WantsWatch>,
) -> Verdict {
    let watches = &mut conversation.watches;
    if let Some(WantsWatch { path, child }) = read {
        let table = if child { Table::Child } else { Table::Data };
        let missing = header.err != 0;
        watches.change(&path, |w| match table {
            Table::Child => w.child = true,
            Table::Data => (w.data, w.missing) = (true, missing),
        });
        return Ok(());
    }
    match sent.request() {
        Some(Request::AddWatch { path, mode }) if path.is_empty() || ZPath::parse(path).is_ok() => {
            watches.change(if path.is_empty() { "/" } else { path }, |w| match mode {
                AddWatchMode::Persistent => w.persistent = true,
                AddWatchMode::PersistentRecursive => w.recursive = true,
            });
        }
        Some(Request::RemoveWatches { path, watcher }) => {
            watches.ghosts.push((path.to_owned(), history.latest().zxid().wire()));
            watches.change(path, |w| match watcher {
                WatcherType::Children => w.child = false,
                WatcherType::Data => w.data = false,
                WatcherType::Any => *w = Watch::default(),
                WatcherType::Persistent => w.persistent = false,
                WatcherType::PersistentRecursive => w.recursive = false,
            });
        }
        Some(Request::SetWatches(_)) => {
            if let Some(setting) = watches.setting.take() {
                let Some(tree) = history.at(header.zxid) else {
                    return Err(Violation {
                        property: PROPERTY,
                        what: format!("there is no zxid {}", shown(header.zxid)),
                    });
                };
                let since = setting.relative_zxid;
                let changes = history.changes.iter().filter(|(at, _)| *at > since && *at <= header.zxid);
                let hidden = |path: &str| {
                    changes.clone().any(|(_, change)| {
                        let unseen = |acl: &[Acl]| !conversation.identity.allowed(acl, perms::READ);
                        (&*change.path == path && unseen(&change.acl))
                            || (change.path.parent() == Some(path)
                                && change.parent_acl.as_ref().is_some_and(|acl| unseen(acl)))
                    })
                };
                setting.finish(tree, hidden, &mut conversation.watches)?;
            }
        }
        _ => {}
    }
    Ok(())
}
