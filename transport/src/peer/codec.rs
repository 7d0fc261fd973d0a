//! Messages between servers, to bytes and back.
//!
//! A frame is a length in four bytes, the most significant first, and that many bytes of `postcard`. Every lane has its own
//! limit, and what a frame can unfold to in memory is bounded by counts beside it. What comes from a peer is refused with
//! a reason; the link then closes.

use super::{Answer, Forwarded, Lane, PeerEntry, PeerMessage, RaftMessage, ServerId, Touches};
use bytes::{Buf, BytesMut};
use postcard::ser_flavors::Flavor;
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// The longest body of a frame, bytes.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// The longest body of a frame on [`Lane::Consensus`], bytes: nothing there may delay the next heartbeat.
pub const CONSENSUS_FRAME_BYTES_MAX: usize = 64 << 10;
/// Bytes of a frame's length.
pub const LENGTH_BYTES: usize = 4;
/// Entries in one message, at most: an empty one takes four bytes on the wire and many times that in memory.
pub const ENTRIES_MAX: usize = 1 << 16;
/// Requests in one [`super::Forward`], at most.
pub const REQUESTS_MAX: usize = 1 << 16;
/// Sessions in one [`Touches`], at most.
pub const TOUCHES_MAX: usize = 1 << 19;
/// Servers between an observer's feeder and a voter, at most.
pub const PATH_MAX: usize = 16;
/// Fields of fixed size in any message, encoded, bytes at most: 10 for each number, and there are fewer than 16.
const HEAD_BYTES_MAX: usize = 160;
/// The same for an entry or a request.
const ITEM_BYTES_MAX: usize = 32;
/// A 64-bit number, encoded, bytes at most.
const NUMBER_BYTES_MAX: usize = 10;

// A message of nothing but sessions fits; the other counts are beside data that counts by its bytes.
const _: () = assert!(TOUCHES_MAX * NUMBER_BYTES_MAX + HEAD_BYTES_MAX <= FRAME_BYTES_MAX);

/// Why bytes are no message, or a message is not for the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The length is over the lane's limit.
    #[error("a message of {bytes} bytes, over the limit of {max}")]
    TooLong {
        /// Its length, bytes.
        bytes: usize,
        /// The limit, bytes.
        max: usize,
    },
    /// A list is over its limit.
    #[error("a message with a list of {items} items, over the limit of {max}")]
    TooMany {
        /// Items.
        items: usize,
        /// The limit.
        max: usize,
    },
    /// The bytes are not one message.
    #[error("{bytes} bytes that are not one message")]
    Undecodable {
        /// How many there are.
        bytes: usize,
    },
    /// It belongs on another lane.
    #[error("a message of the {belongs:?} lane on the {came:?} lane")]
    WrongLane {
        /// Where it belongs.
        belongs: Lane,
        /// Where it came.
        came: Lane,
    },
}

impl Lane {
    /// All, the most urgent first.
    pub const ALL: [Lane; 3] = [Lane::Consensus, Lane::Append, Lane::Request];

    /// The longest body of a frame on this lane, bytes.
    pub const fn frame_bytes_max(self) -> usize {
        match self {
            Lane::Consensus => CONSENSUS_FRAME_BYTES_MAX,
            Lane::Append | Lane::Request => FRAME_BYTES_MAX,
        }
    }
}

/// At least as many bytes as the message takes encoded, without the frame's length; refuses what no peer would take.
/// Cheap: nothing is encoded.
pub fn size_bound(message: &PeerMessage) -> Result<usize, CodecError> {
    let counted = |items: usize, max: usize| {
        if items > max { Err(CodecError::TooMany { items, max }) } else { Ok(()) }
    };
    let bytes = HEAD_BYTES_MAX
        + match message {
            PeerMessage::Raft(raft) => {
                counted(raft.entries.len(), ENTRIES_MAX)?;
                raft_bytes(raft)
            }
            PeerMessage::Forward(forward) => {
                counted(forward.requests.len(), REQUESTS_MAX)?;
                let one = |request: &Forwarded| match request {
                    Forwarded::Command(bytes) | Forwarded::Reconfigure(bytes) => bytes.len(),
                    Forwarded::OpenSession { .. } => 0,
                };
                forward.requests.iter().map(|request| ITEM_BYTES_MAX + one(request)).sum()
            }
            PeerMessage::Touches(Touches { sessions, .. }) => {
                counted(sessions.len(), TOUCHES_MAX)?;
                sessions.len() * NUMBER_BYTES_MAX
            }
            PeerMessage::Feed(feed) => {
                counted(feed.path.len(), PATH_MAX)?;
                counted(feed.entries.len(), ENTRIES_MAX)?;
                feed.path.len() + entries_bytes(&feed.entries)
            }
            PeerMessage::Answer(Answer::Recorded(known)) => ITEM_BYTES_MAX + known.voters.len(),
            PeerMessage::ForwardAck(_)
            | PeerMessage::Observe(_)
            | PeerMessage::FeedEnd(_)
            | PeerMessage::AskRead(_)
            | PeerMessage::AnswerRead(_)
            | PeerMessage::TouchesAck(_)
            | PeerMessage::Compare(_)
            | PeerMessage::Space(_)
            | PeerMessage::Ask(_)
            | PeerMessage::Answer(Answer::Empty(_) | Answer::Begun(_) | Answer::Undecided) => 0,
        };
    let max = message.lane().frame_bytes_max();
    if bytes > max { Err(CodecError::TooLong { bytes, max }) } else { Ok(bytes) }
}

fn raft_bytes(raft: &RaftMessage) -> usize {
    let snapshot = raft.snapshot.as_ref().map_or(0, |head| ITEM_BYTES_MAX + head.conf_state.len());
    raft.context.len() + entries_bytes(&raft.entries) + snapshot
}

fn entries_bytes(entries: &[PeerEntry]) -> usize {
    entries.iter().map(|entry| ITEM_BYTES_MAX + entry.data.len()).sum()
}

/// Append the message's frame to `out`. [`size_bound`] has let it pass.
pub fn encode(message: &PeerMessage, out: &mut BytesMut) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    postcard::serialize_with_flavor(message, Into(out)).expect("every message has an encoding");
    let bytes = out.len() - start - LENGTH_BYTES;
    assert!(bytes <= message.lane().frame_bytes_max(), "the bound on a message's size holds");
    let length = u32::try_from(bytes).expect("the limit is far below");
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// Take the body of the first frame, when it is there whole.
pub fn take(received: &mut BytesMut, bytes_max: usize) -> Result<Option<BytesMut>, CodecError> {
    let Some(length) = received.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let bytes = u32::from_be_bytes(*length) as usize;
    if bytes > bytes_max {
        return Err(CodecError::TooLong { bytes, max: bytes_max });
    }
    if received.len() < LENGTH_BYTES + bytes {
        return Ok(None);
    }
    received.advance(LENGTH_BYTES);
    Ok(Some(received.split_to(bytes)))
}

/// A frame's body, as the message that it must be on its lane.
pub fn decode(body: &[u8], lane: Lane) -> Result<PeerMessage, CodecError> {
    let undecodable = CodecError::Undecodable { bytes: body.len() };
    let (message, rest): (PeerMessage, _) = postcard::take_from_bytes(body).map_err(|_| undecodable)?;
    if !rest.is_empty() {
        return Err(undecodable);
    }
    let belongs = message.lane();
    if belongs != lane {
        return Err(CodecError::WrongLane { belongs, came: lane });
    }
    Ok(message)
}

/// Where `postcard` writes to.
struct Into<'a>(&'a mut BytesMut);

impl Flavor for Into<'_> {
    type Output = ();

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.extend_from_slice(&[data]);
        Ok(())
    }

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// For serde: [`RaftMessage::entries`], counted while they are read.
pub(super) fn entries<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PeerEntry>, D::Error> {
    from.deserialize_seq(Counted::<_, ENTRIES_MAX>(PhantomData))
}

/// For serde: [`super::Feed::path`].
pub(super) fn path<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ServerId>, D::Error> {
    from.deserialize_seq(Counted::<_, PATH_MAX>(PhantomData))
}

/// For serde: [`super::Forward::requests`].
pub(super) fn requests<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Forwarded>, D::Error> {
    from.deserialize_seq(Counted::<_, REQUESTS_MAX>(PhantomData))
}

/// For serde: [`Touches::sessions`].
pub(super) fn sessions<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Vec<warren_storage::SessionId>, D::Error> {
    from.deserialize_seq(Counted::<_, TOUCHES_MAX>(PhantomData))
}

/// A list of at most `MAX`. Its room grows as items come, whatever length it claims.
struct Counted<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Counted<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<T>, A::Error> {
        let claimed = from.size_hint().unwrap_or(0);
        if claimed > MAX {
            return Err(A::Error::invalid_length(claimed, &self));
        }
        let mut items = Vec::new();
        while let Some(item) = from.next_element()? {
            if items.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            items.push(item);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        AnswerRead, AskRead, Compare, Feed, FeedEnd, Forward, ForwardAck, Known, Mark, Observe, RaftKind,
        SnapshotHead, Space, TouchesAck, WhyNoFeed,
    };
    use super::*;
    use bytes::Bytes;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn data() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..300).prop_map(Bytes::from)
    }

    fn kind() -> impl Strategy<Value = RaftKind> {
        use RaftKind::*;
        proptest::sample::select(vec![
            Append,
            AppendResponse,
            RequestVote,
            RequestVoteResponse,
            RequestPreVote,
            RequestPreVoteResponse,
            Heartbeat,
            HeartbeatResponse,
            Snapshot,
            TimeoutNow,
            ReadIndex,
            ReadIndexResponse,
            TransferLeader,
        ])
    }

    fn entries() -> impl Strategy<Value = Vec<PeerEntry>> {
        let entry = (any::<u64>(), any::<u64>(), any::<bool>(), data())
            .prop_map(|(index, term, conf_change, data)| PeerEntry { index, term, conf_change, data });
        vec(entry, 0..5)
    }

    fn feed() -> impl Strategy<Value = PeerMessage> {
        let rest = (any::<bool>(), any::<Option<u8>>(), vec(any::<u8>(), 0..PATH_MAX), entries());
        let why = proptest::sample::select(vec![
            WhyNoFeed::Left,
            WhyNoFeed::Full,
            WhyNoFeed::Hungry,
            WhyNoFeed::Path,
            WhyNoFeed::Differs,
        ]);
        prop_oneof![
            (any::<[u64; 6]>(), rest).prop_map(|(n, (lost, leader, path, entries))| match lost {
                true => PeerMessage::Observe(Observe {
                    incarnation: n[0],
                    feed: n[1],
                    index: n[2],
                    term: n[3],
                    applied: n[4],
                    lost: n[5] % 2 == 0,
                }),
                false => PeerMessage::Feed(Feed {
                    incarnation: n[0],
                    feed: n[1],
                    index: n[2],
                    log_term: n[3],
                    commit: n[4],
                    term: n[5],
                    leader,
                    path,
                    entries,
                }),
            }),
            (any::<[u64; 2]>(), why).prop_map(|([incarnation, feed], why)| {
                PeerMessage::FeedEnd(FeedEnd { incarnation, feed, why })
            }),
            any::<[u64; 2]>()
                .prop_map(|[incarnation, number]| { PeerMessage::AskRead(AskRead { incarnation, number }) }),
            any::<[u64; 3]>().prop_map(|[incarnation, number, index]| {
                PeerMessage::AnswerRead(AnswerRead { incarnation, number, index })
            }),
        ]
    }

    fn raft() -> impl Strategy<Value = RaftMessage> {
        let head = (any::<u64>(), any::<u64>(), data()).prop_map(|(index, term, conf_state)| SnapshotHead {
            index,
            term,
            conf_state,
        });
        let rest = (any::<bool>(), any::<i64>(), data(), entries(), proptest::option::of(head));
        (kind(), any::<[u64; 9]>(), rest).prop_map(
            |(kind, n, (reject, priority, context, entries, snapshot))| RaftMessage {
                kind,
                to: n[0],
                from: n[1],
                term: n[2],
                log_term: n[3],
                index: n[4],
                commit: n[5],
                commit_term: n[6],
                request_snapshot: n[7],
                reject,
                reject_hint: n[8],
                priority,
                context,
                entries,
                snapshot,
            },
        )
    }

    fn message() -> impl Strategy<Value = PeerMessage> {
        let request = prop_oneof![
            data().prop_map(Forwarded::Command),
            data().prop_map(Forwarded::Reconfigure),
            any::<(i32, u64)>()
                .prop_map(|(timeout_ms, request)| Forwarded::OpenSession { timeout_ms, request }),
        ];
        let forward = (any::<[u64; 4]>(), vec(request, 0..5)).prop_map(|(n, requests)| Forward {
            term: n[0],
            incarnation: n[1],
            first: n[2],
            begin: n[3],
            requests,
        });
        prop_oneof![
            raft().prop_map(PeerMessage::Raft),
            forward.prop_map(PeerMessage::Forward),
            any::<[u64; 3]>().prop_map(|[term, incarnation, upto]| {
                PeerMessage::ForwardAck(ForwardAck { term, incarnation, upto })
            }),
            (any::<u64>(), vec(any::<i64>(), 0..50))
                .prop_map(|(number, sessions)| PeerMessage::Touches(Touches { number, sessions })),
            any::<u64>().prop_map(|number| PeerMessage::TouchesAck(TouchesAck { number })),
            (
                any::<Option<u64>>(),
                any::<u64>(),
                any::<Option<u32>>(),
                any::<i64>(),
                data(),
                any::<[bool; 2]>()
            )
                .prop_map(|(store, term, disk, version, voters, [settled, observes])| {
                    let known = Known { store, term, observes, disk, version, voters, settled };
                    PeerMessage::Answer(Answer::Recorded(known))
                }),
            any::<Option<u64>>().prop_map(|store| PeerMessage::Answer(Answer::Begun(store))),
            feed(),
            any::<(bool, bool)>().prop_map(|(asks, low)| PeerMessage::Space(Space { asks, low })),
            (any::<[u64; 5]>(), any::<i64>()).prop_map(|([index, term, znodes, sessions, members], zxid)| {
                let mark = Mark { index, term, zxid, znodes, sessions, members };
                PeerMessage::Compare(Compare { mark: Some(mark) })
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_and_no_longer_than_its_bound(messages in vec(message(), 1..4), cut in any::<usize>()) {
            let mut wire = BytesMut::new();
            for message in &messages {
                let before = wire.len();
                encode(message, &mut wire);
                prop_assert!(wire.len() - before - LENGTH_BYTES <= size_bound(message).unwrap());
            }
            // Arriving in two pieces, wherever they part.
            let cut = cut % (wire.len() + 1);
            let late = wire.split_off(cut);
            let mut received = wire;
            let mut came = Vec::new();
            for piece in [None, Some(late)] {
                if let Some(piece) = piece {
                    received.extend_from_slice(&piece);
                }
                while let Some(body) = take(&mut received, FRAME_BYTES_MAX).unwrap() {
                    let lane = messages[came.len()].lane();
                    came.push(decode(&body, lane).unwrap());
                }
            }
            prop_assert_eq!(came, messages);
            prop_assert!(received.is_empty());
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..200)) {
            for lane in Lane::ALL {
                if let Ok(message) = decode(&bytes, lane) {
                    prop_assert_eq!(message.lane(), lane);
                }
                let _ = take(&mut BytesMut::from(&bytes[..]), lane.frame_bytes_max());
            }
        }

        #[test]
        fn a_message_with_one_byte_more_or_less_is_refused(message in message(), more in any::<u8>()) {
            let mut wire = BytesMut::new();
            encode(&message, &mut wire);
            let mut body = wire[LENGTH_BYTES..].to_vec();
            let whole = body.len();
            prop_assert!(decode(&body[..whole - 1], message.lane()).is_err());
            body.push(more);
            prop_assert_eq!(decode(&body, message.lane()), Err(CodecError::Undecodable { bytes: whole + 1 }));
        }
    }

    /// A few bytes must not make many: the count is refused, whether its items are there or not.
    #[test]
    fn a_list_over_its_limit_is_refused_on_both_sides() {
        let touches =
            |many: usize| PeerMessage::Touches(Touches { number: 1, sessions: std::vec![i64::MIN; many] });
        let body = |message: &PeerMessage| {
            let mut wire = BytesMut::new();
            encode(message, &mut wire);
            wire.split_off(LENGTH_BYTES)
        };
        assert!(size_bound(&touches(TOUCHES_MAX)).is_ok());
        assert_eq!(decode(&body(&touches(TOUCHES_MAX)), Lane::Request), Ok(touches(TOUCHES_MAX)));
        let over = touches(TOUCHES_MAX + 1);
        assert_eq!(size_bound(&over), Err(CodecError::TooMany { items: TOUCHES_MAX + 1, max: TOUCHES_MAX }));
        assert!(decode(&body(&over), Lane::Request).is_err());

        let forward = |many: usize| {
            let requests = std::vec![Forwarded::Command(Bytes::new()); many];
            PeerMessage::Forward(Forward { term: 1, incarnation: 1, first: 1, begin: 1, requests })
        };
        assert!(decode(&body(&forward(REQUESTS_MAX)), Lane::Request).is_ok());
        assert!(decode(&body(&forward(REQUESTS_MAX + 1)), Lane::Request).is_err());
        assert!(matches!(size_bound(&forward(REQUESTS_MAX + 1)), Err(CodecError::TooMany { .. })));
    }

    #[test]
    fn a_frame_over_its_limit_is_refused_by_its_length_alone() {
        let mut bytes = BytesMut::from(&[0, 0, 1, 1][..]);
        assert_eq!(take(&mut bytes, 256), Err(CodecError::TooLong { bytes: 257, max: 256 }));
        let mut bytes = BytesMut::from(&[0, 0, 1, 0][..]);
        assert_eq!(take(&mut bytes, 256), Ok(None));
    }
}
