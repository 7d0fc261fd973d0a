//! `/zookeeper/config`, as clients see it, is always one of the committed configurations, and never goes back on one
//! connection.

use super::{Verdict, Violation, hold};
use std::collections::BTreeMap;
use warren_server::membership;
use warren_storage::Tree;
use warren_transport::{Opcode, Response};

const PROPERTY: &str = "the configuration as clients see it";
const PATH: &str = "/zookeeper/config";

/// Every committed one, by its version.
#[derive(Default)]
pub struct ConfigNode(BTreeMap<i64, String>);

impl ConfigNode {
    /// The committed log went on.
    pub(super) fn on_committed(&mut self, tree: &Tree) -> Verdict {
        let members = tree.members();
        if members.servers.is_empty() || self.0.contains_key(&members.version) {
            return Ok(());
        }
        let node = tree.snapshot().node(PATH).expect("nothing fails on this disk");
        let data = node.and_then(|node| node.data.clone()).unwrap_or_default();
        let text = membership::text(members);
        hold(*data == *text.as_bytes(), PROPERTY, || {
            format!("the table is {text:?}, and {PATH} holds {:?}", String::from_utf8_lossy(&data))
        })?;
        self.0.insert(members.version, text);
        Ok(())
    }

    /// How many there were behind the first.
    pub fn changes(&self) -> usize {
        self.0.len().saturating_sub(1)
    }

    /// A client reads a reply to a question for it. `last` is the version that its connection saw last.
    pub(super) fn on_reply(&self, last: &mut i64, opcode: Opcode, body: &[u8]) -> Verdict {
        let Ok(Response::Data(Some(data), stat)) = Response::decode(opcode, body) else { return Ok(()) };
        let text = String::from_utf8_lossy(data);
        // A fresh ensemble's is not written yet.
        let Some(version) = text.rsplit_once("version=").map(|(_, version)| version) else { return Ok(()) };
        let version = i64::from_str_radix(version, 16)
            .map_err(|_| Violation { property: PROPERTY, what: format!("{text:?} has no version") })?;
        hold(self.0.get(&version).is_some_and(|known| *known == text), PROPERTY, || {
            format!("{text:?} was never committed, at {:x}", stat.mzxid)
        })?;
        hold(version >= *last, PROPERTY, || format!("version {version:x} is read behind {last:x}"))?;
        *last = version;
        Ok(())
    }
}

/// Is it a question for it?
pub(super) fn is_asked(request: &warren_transport::Request<'_>) -> bool {
    use warren_transport::Request;
    matches!(request, Request::GetData { path, .. } if *path == PATH)
        || matches!(request, Request::Reconfig { .. })
}
