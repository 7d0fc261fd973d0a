//! The read index: how far a server must have applied before it answers a `sync`.

use super::view::LogView;
use crate::moment::Moment;
use raft::RawNode;
use std::time::Duration;
use warren_transport::peer::ServerId;

/// A read index that was not answered by then is asked again: raft drops one silently when it has no leader, and
/// while the leader has committed nothing in its term.
const RETRY: Duration = Duration::from_millis(200);

/// The requests of this server that wait for a read index; one is under way at a time, and what comes meanwhile shares
/// the next one.
pub(super) struct Reads {
    server: ServerId,
    incarnation: u64,
    asked: u64,
    waiting: Vec<u64>,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    /// The first time it was asked: an answer to any of its askings will do.
    since: u64,
    tokens: Vec<u64>,
    retry_at: Moment,
}

impl Reads {
    pub(super) fn new(server: ServerId, incarnation: u64) -> Reads {
        Reads { server, incarnation, asked: 0, waiting: Vec::new(), under_way: None }
    }

    pub(super) fn push(&mut self, token: u64) {
        self.waiting.push(token);
    }

    /// All that wait for an answer, or will be asked for.
    pub(super) fn into_tokens(self) -> Vec<u64> {
        let under_way = self.under_way.into_iter().flat_map(|under_way| under_way.tokens);
        under_way.chain(self.waiting).collect()
    }

    /// How many wait for an answer.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.under_way.as_ref().map_or(0, |under_way| under_way.tokens.len())
    }

    /// There is a leader that answers now.
    pub(super) fn hurry(&mut self, now: Moment) {
        if let Some(under_way) = &mut self.under_way {
            under_way.retry_at = now;
        }
    }

    /// Ask, if it is time.
    pub(super) fn ask(&mut self, now: Moment, node: &mut RawNode<LogView>) {
        match &mut self.under_way {
            Some(under_way) if now.us >= under_way.retry_at.us => under_way.retry_at = now + RETRY,
            None if !self.waiting.is_empty() => {
                self.under_way = Some(UnderWay {
                    since: self.asked + 1,
                    tokens: std::mem::take(&mut self.waiting),
                    retry_at: now + RETRY,
                });
            }
            _ => return,
        }
        self.asked += 1;
        node.read_index(self.name(self.asked));
    }

    /// An answer of raft's. Whose tokens it is for, if it is still waited for.
    pub(super) fn on_answer(&mut self, context: &[u8]) -> Option<Vec<u64>> {
        let number = u64::from_le_bytes(*context.last_chunk()?);
        let since = self.under_way.as_ref()?.since;
        if number < since || context != self.name(number) {
            return None;
        }
        self.under_way.take().map(|under_way| under_way.tokens)
    }

    /// A name that no other asking of any server has: raft drops a second one silently.
    fn name(&self, number: u64) -> Vec<u8> {
        let mut name = vec![self.server];
        name.extend_from_slice(&self.incarnation.to_le_bytes());
        name.extend_from_slice(&number.to_le_bytes());
        name
    }
}
