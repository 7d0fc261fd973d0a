//! Equal zxid, equal digest: the server's tree against the replayed log and against a naive model.

use super::history::History;
use super::model::Model;
use super::{Verdict, Violation, hold, shown};
use warren_server::service::Service;
use warren_storage::Snapshot;
use warren_storage::tree::TreeError;

const PROPERTY: &str = "equal zxid, equal digest";

pub(super) fn on_step(history: &History, service: &Service) -> Verdict {
    let tree = service.tree();
    let index = tree.position().index;
    let Some((zxid, digest)) = history.digest(index) else {
        return Err(Violation { property: PROPERTY, what: format!("entry {index} was never committed") });
    };
    hold((tree.zxid(), tree.digest()) == (zxid, digest), PROPERTY, || {
        format!(
            "behind entry {index} the server is at {} with {:?}, the replayed log at {} with {digest:?}",
            shown(tree.zxid().wire()),
            tree.digest(),
            shown(zxid.wire())
        )
    })
}

/// Every path, in order of levels.
pub(super) fn paths(tree: &Snapshot) -> Result<Vec<String>, TreeError> {
    let mut all = vec!["/".to_owned()];
    let mut at = 0;
    while at < all.len() {
        let parent = all[at].clone();
        let prefix = if parent == "/" { "" } else { &parent };
        let mut children = Vec::new();
        tree.children(&parent, &mut |name| {
            children.push(format!("{prefix}/{name}"));
            true
        })?;
        all.extend(children);
        at += 1;
    }
    Ok(all)
}

pub(super) fn on_quiet(history: &History, model: &Model, service: &Service) -> Verdict {
    on_step(history, service)?;
    let failed =
        |e: TreeError| Violation { property: PROPERTY, what: format!("the tree cannot be read: {e}") };
    let (ours, replayed) = (service.tree().snapshot(), history.latest());
    let all = paths(&ours).map_err(failed)?;
    hold(all == paths(&replayed).expect("nothing fails on this disk"), PROPERTY, || {
        "the server's paths are not those of the replayed log".into()
    })?;
    for path in &all {
        let (Some(node), Some(other)) =
            (ours.node(path).map_err(failed)?, replayed.node(path).expect("nothing fails on this disk"))
        else {
            return Err(Violation { property: PROPERTY, what: format!("{path} is a child and no znode") });
        };
        let same = node.stat() == other.stat() && node.data == other.data;
        hold(same && ours.acl(node.acl) == replayed.acl(other.acl), PROPERTY, || {
            format!("{path} is {:?} on the server and {:?} in the replayed log", node.stat(), other.stat())
        })?;
    }
    let sessions: std::collections::BTreeMap<_, _> = service.tree().sessions().collect();
    hold(sessions.len() == model.sessions.len(), PROPERTY, || {
        format!("{} sessions on the server, {} by the log", sessions.len(), model.sessions.len())
    })?;
    model.compare(&ours, &all).map_err(|what| Violation { property: PROPERTY, what })
}
