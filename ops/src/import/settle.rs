//! From the tree as ZooKeeper had it to the one that is stored: what a ZooKeeper does at its start (sessions that are gone
//! lose their ephemerals, quotas are counted anew), and what cannot be taken over is left out, and told.

use super::fold::{Data, Fold, FoldError, NULL, Node, OPEN, UNKNOWN};
use super::report::Znodes;
use std::collections::{BTreeMap, HashMap};
use std::io;
use warren_storage::path::{self, parent_of};
use warren_storage::tree::{
    Composer, ImportError, Persisted, Totals, counted_bytes, limited_path, stats_path, stats_text,
};
use warren_storage::{Acl, Kind, Rules, SessionRow, Zxid};

/// Where clients read who belongs to the ensemble.
const CONFIG: &str = "/zookeeper/config";
/// Epochs that are left above the one of an import, at least: each election takes one.
const EPOCHS_LEFT_MIN: u32 = 1 << 24;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// Leave out sessions, and so ephemerals.
    pub drop_ephemerals: bool,
    /// The highest epoch that the files beside the snapshots name; later ones must lie above it.
    pub epoch: i64,
}

/// Why there is nothing to store.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// See [`FoldError`].
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// zxids that no ZooKeeper gives.
    #[error(
        "the last zxid is {zxid:#x} and the epoch {epoch:#x}: so high that none would be left for what comes after; the files \
         are not ZooKeeper's, or damaged"
    )]
    Zxid {
        /// The last one.
        zxid: i64,
        /// Of the tree, or of the files that keep it.
        epoch: i64,
    },
}

/// A tree that can be stored.
pub struct Settled<D> {
    fold: Fold<D>,
    /// In the order in which they are stored.
    paths: Vec<Box<str>>,
    /// By the place in `fold.lists`, with the one for lists that are unknown behind them: id and uses.
    acls: Vec<(u64, u64)>,
    /// What it adds up to.
    pub totals: Totals,
    /// What is in it, and what not.
    pub znodes: Znodes,
}

/// Settle what `fold` has.
pub fn settle<D: Data>(mut fold: Fold<D>, wishes: Wishes) -> Result<Settled<D>, SettleError> {
    let zxid = last_zxid(fold.zxid, wishes.epoch)?;
    let mut znodes = Znodes::default();
    sessions(&mut fold, wishes, &mut znodes);
    of_every_tree(&mut fold, &mut znodes)?;
    let paths = reachable(&mut fold, &mut znodes);
    quotas(&mut fold, &paths, &mut znodes)?;
    let acls = acls(&fold, &paths, &mut znodes);
    let mut totals = Totals { zxid, znodes: paths.len() as u64, acls: used(&acls), ..Totals::default() };
    let limits = Rules::default();
    for path in &paths {
        let node = &fold.nodes[path];
        totals.data_bytes += counted_bytes(path, node.data_bytes());
        totals.digest = totals.digest.wrapping_add(u64::from(node.stat.digest(path, node.content)));
        znodes.data_bytes += node.data_bytes();
        match Kind::from_owner(node.stat.owner) {
            Kind::Persistent => znodes.persistent += 1,
            Kind::Ephemeral(_) => znodes.ephemeral += 1,
            Kind::Container => znodes.container += 1,
            Kind::Ttl(_) => znodes.ttl += 1,
        }
        if node.data_bytes() > u64::from(limits.data_bytes_max) {
            znodes.large.note(|| format!("{path}: {} bytes", node.data_bytes()));
        }
        let depth = path.matches('/').count();
        if depth > usize::from(limits.path_depth_max) {
            znodes.deep.note(|| format!("{path}: {depth} elements"));
        }
    }
    totals.ephemerals = znodes.ephemeral;
    znodes.sessions = fold.sessions.len() as u64;
    znodes.acls = totals.acls;
    Ok(Settled { fold, paths, acls, totals, znodes })
}

fn last_zxid(zxid: i64, epoch: i64) -> Result<Zxid, SettleError> {
    let known = u32::try_from(epoch.max(zxid >> 32)).ok().filter(|_| zxid >= 0);
    let fits = known.filter(|epoch| *epoch <= i32::MAX as u32 - EPOCHS_LEFT_MIN);
    let epoch = fits.ok_or(SettleError::Zxid { zxid, epoch })?;
    Ok(Zxid::from_wire(zxid).max(Zxid::new(epoch, 0)))
}

/// Sessions that go, and the ephemerals of these and of those that were gone.
fn sessions<D: Data>(fold: &mut Fold<D>, wishes: Wishes, znodes: &mut Znodes) {
    let zxid = fold.zxid;
    if wishes.drop_ephemerals {
        let all: Vec<i64> = fold.sessions.keys().copied().collect();
        znodes.sessions_dropped = all.len() as u64;
        for session in all {
            fold.close(session, &[], zxid);
        }
    }
    // An owner that is no session of ours would be taken for another kind of znode.
    let odd: Vec<i64> =
        fold.sessions.keys().copied().filter(|id| Kind::from_owner(*id) != Kind::Ephemeral(*id)).collect();
    for session in odd {
        znodes.odd.note(|| {
            format!("session {session:#x} has an id that marks containers or TTL nodes; it and its ephemerals are left out")
        });
        fold.close(session, &[], zxid);
    }
    let before = fold.nodes.len();
    let owners: Vec<i64> = fold.owned.keys().copied().collect();
    for owner in owners {
        let goes = match Kind::from_owner(owner) {
            Kind::Ephemeral(session) => !fold.sessions.contains_key(&session),
            // Between the mark and the 40 bits of the time, TTL nodes have zeros.
            Kind::Ttl(ttl) if owner == Kind::Ttl(ttl).owner() && ttl > 0 => false,
            _ => {
                znodes.odd.note(|| {
                    format!(
                        "owner {owner:#x} is neither a session nor a time to live; its znodes are left out"
                    )
                });
                true
            }
        };
        if goes {
            fold.close(owner, &[], zxid);
        }
    }
    znodes.orphaned_ephemerals = (before - fold.nodes.len()) as u64;
}

/// What is in every tree, and was not in that of a 3.4; and of what is there, what would not be true.
fn of_every_tree<D: Data>(fold: &mut Fold<D>, znodes: &mut Znodes) -> Result<(), FoldError> {
    for (path, fresh) in [("/", 0), ("/zookeeper", 0), ("/zookeeper/quota", 0), (CONFIG, -1)] {
        if fold.nodes.contains_key(path) {
            continue;
        }
        let acl = if path == CONFIG { fold.list(Acl::read_only())? } else { OPEN };
        fold.insert(path, Some(&[]), acl, Persisted { aversion: fresh, ..Persisted::default() })?;
        znodes.odd.note(|| format!("{path} was not there and is made, as ZooKeeper does"));
    }
    if fold.nodes[CONFIG].data_bytes() > 0 {
        znodes.config_cleared = true;
        fold.put_data(CONFIG, Some(&[]))?;
    }
    Ok(())
}

/// All that can be stored, in order; the others are taken out.
fn reachable<D: Data>(fold: &mut Fold<D>, znodes: &mut Znodes) -> Vec<Box<str>> {
    let mut paths: Vec<Box<str>> = fold.nodes.keys().cloned().collect();
    paths.sort_unstable();
    fold.nodes.values_mut().for_each(|node| node.children = 0);
    // A parent comes before its children, so it is known by then whether it stays.
    paths.retain(|path| {
        let why = match (path::validate(path), parent_of(path)) {
            (Err(why), _) => why.to_string(),
            (Ok(()), None) => return true,
            (Ok(()), Some(parent)) => match fold.nodes.get_mut(parent) {
                Some(parent) if matches!(Kind::from_owner(parent.stat.owner), Kind::Ephemeral(_)) => {
                    "its parent is an ephemeral".to_owned()
                }
                Some(parent) => {
                    parent.children += 1;
                    return true;
                }
                None => "its parent is not there".to_owned(),
            },
        };
        znodes.left_out.note(|| format!("{path:?}: {why}"));
        fold.remove(path);
        false
    });
    paths
}

/// Statistics say what is there, as they do after a start of ZooKeeper's.
fn quotas<D: Data>(fold: &mut Fold<D>, paths: &[Box<str>], znodes: &mut Znodes) -> Result<(), FoldError> {
    let mut counted: HashMap<&str, (i64, i64), foldhash::fast::FixedState> =
        paths.iter().filter_map(|path| limited_path(path)).map(|of| (of, (0, 0))).collect();
    if counted.is_empty() {
        return Ok(());
    }
    for path in paths {
        let bytes = fold.nodes[path].data_bytes() as i64;
        let mut above = Some(&**path);
        while let Some(at) = above {
            if let Some((count, sum)) = counted.get_mut(at) {
                *count += 1;
                *sum += bytes;
            }
            above = parent_of(at);
        }
    }
    let counted: BTreeMap<&str, (i64, i64)> = counted.into_iter().collect();
    for (of, (count, bytes)) in counted {
        znodes.quotas += 1;
        let stats = stats_path(of);
        if fold.nodes.contains_key(&*stats) {
            fold.put_data(&stats, Some(stats_text(count, bytes).as_bytes()))?;
        } else {
            znodes.odd.note(|| format!("the quota on {of} has no statistics, so nothing counts against it"));
        }
    }
    Ok(())
}

/// Ids in the order of the lists, and how many znodes have each; 0 for those that nobody has.
fn acls<D: Data>(fold: &Fold<D>, paths: &[Box<str>], znodes: &mut Znodes) -> Vec<(u64, u64)> {
    let unknown = fold.lists.len();
    let mut acls = vec![(0, 0); unknown + 1];
    for path in paths {
        match fold.nodes[path].acl {
            OPEN => {}
            UNKNOWN => {
                znodes.closed.note(|| path.to_string());
                acls[unknown].1 += 1;
            }
            list => acls[list as usize].1 += 1,
        }
    }
    let mut next = 1;
    for (id, uses) in &mut acls {
        if *uses > 0 {
            *id = next;
            next += 1;
        }
    }
    acls
}

fn used(acls: &[(u64, u64)]) -> u64 {
    acls.iter().filter(|(_, uses)| *uses > 0).count() as u64
}

/// Why the tree cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] ImportError),
    /// What was put aside cannot be read.
    #[error("the data that were put aside cannot be read")]
    Data(#[source] io::Error),
}

impl<D: Data> Settled<D> {
    /// Memory that this takes, approximately, bytes.
    pub fn bytes(&self) -> u64 {
        self.fold.bytes()
    }

    /// Give all rows to `composer`, in order.
    pub fn write<S>(&self, composer: &mut Composer<S>) -> Result<(), WriteError>
    where
        S: FnMut(&[u8]) -> Result<(), ImportError>,
    {
        // Nobody but the super user passes it.
        let nobody = vec![Acl::new(0, "world", "anyone")];
        for (place, (id, uses)) in self.acls.iter().enumerate().filter(|(_, (_, uses))| *uses > 0) {
            composer.acl(*id, *uses, self.fold.lists.get(place).unwrap_or(&nobody))?;
        }
        for (id, timeout) in &self.fold.sessions {
            composer.session(*id, &session_row(*id, *timeout))?;
        }
        let mut data = Vec::new();
        for (path, node) in self.rows() {
            let acl = match node.acl {
                OPEN => 0,
                UNKNOWN => self.acls[self.fold.lists.len()].0,
                list => self.acls[list as usize].0,
            };
            data.clear();
            data.resize(node.data_bytes() as usize, 0);
            if !data.is_empty() {
                self.fold.data.read(node.at, &mut data).map_err(WriteError::Data)?;
            }
            let data = (node.length != NULL).then_some(&data[..]);
            composer.znode(path, &node.stat, acl, node.children, data)?;
        }
        self.write_indexes(composer)?;
        Ok(())
    }

    fn write_indexes<S>(&self, composer: &mut Composer<S>) -> Result<(), ImportError>
    where
        S: FnMut(&[u8]) -> Result<(), ImportError>,
    {
        let mut by_depth: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for (at, path) in self.paths.iter().enumerate().skip(1) {
            let at = u32::try_from(at).expect("memory ends before");
            by_depth.entry(path.matches('/').count()).or_default().push(at);
        }
        for at in by_depth.values().flatten() {
            composer.child(&self.paths[*at as usize])?;
        }
        let ephemerals = self.fold.owned.iter().filter_map(|(owner, paths)| match Kind::from_owner(*owner) {
            Kind::Ephemeral(session) => Some((session as u64, paths)),
            _ => None,
        });
        for (session, paths) in ephemerals.collect::<BTreeMap<_, _>>() {
            for path in paths {
                composer.ephemeral(session as i64, path)?;
            }
        }
        for (path, node) in self.rows() {
            if matches!(Kind::from_owner(node.stat.owner), Kind::Container | Kind::Ttl(_)) {
                composer.timed(path)?;
            }
        }
        Ok(())
    }

    fn rows(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.paths.iter().map(|path| (&**path, &self.fold.nodes[path]))
    }
}

/// A session as it is kept here: with the password that ZooKeeper makes of the id, so that its client may go on with it.
fn session_row(id: i64, timeout: i32) -> SessionRow {
    SessionRow {
        timeout_ms: timeout.max(1),
        password: password(id),
        generation: 1,
        owner: 0,
        last_sequence: 0,
    }
}

/// `ZooKeeperServer.generatePasswd`: what Java's `Random` gives first, begun with the id.
fn password(id: i64) -> [u8; 16] {
    const SECRET: i64 = 0xb341_5c00;
    const MULTIPLIER: u64 = 0x5_deec_e66d;
    const MASK: u64 = (1 << 48) - 1;
    let mut seed = ((id ^ SECRET) as u64 ^ MULTIPLIER) & MASK;
    let mut password = [0; 16];
    for four in password.chunks_exact_mut(4) {
        seed = seed.wrapping_mul(MULTIPLIER).wrapping_add(0xb) & MASK;
        four.copy_from_slice(&((seed >> 16) as u32).to_le_bytes());
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first session of a ZooKeeper, and what it told its client.
    #[test]
    fn passwords_are_zookeepers() {
        // Java: new Random(0).nextInt() is −1155484576.
        let first = |seed: i64| password(seed ^ 0xb341_5c00)[..4].to_vec();
        assert_eq!(first(0), (-1_155_484_576i32).to_le_bytes());
        assert_ne!(password(1), password(2));
    }

    #[test]
    fn the_zxid_is_at_least_the_epochs() {
        assert_eq!(last_zxid(0x2_0000_0005, 2).unwrap(), Zxid(0x2_0000_0005));
        assert_eq!(last_zxid(0x2_0000_0005, 4).unwrap(), Zxid::new(4, 0));
        for (zxid, epoch) in [(-1, 0), (0, i64::from(i32::MAX)), (i64::MAX, 0), (5, i64::MAX)] {
            assert!(last_zxid(zxid, epoch).is_err(), "{zxid:#x} {epoch:#x}");
        }
    }
}
