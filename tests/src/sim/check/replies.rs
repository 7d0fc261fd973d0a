//! Replies come in the session's order (see [`super::conversation`]) and are true: a write's is its outcome in the
//! log, a read's is the answer from the tree at the zxid of its header.

use super::conversation::{Conversation, Sent};
use super::history::{Fact, History};
use super::{Violation, hold, shown};
use warren_server::answer::{self, Asker, WantsWatch};
use warren_server::listings::Listings;
use warren_storage::Code;
use warren_storage::tree::{Outcome, Reply};
use warren_transport::reply::OpResult;
use warren_transport::{Opcode, ReplyHeader, Request, Response};

pub(super) const PROPERTY: &str = "replies in session order, and true";

/// Judge a reply. What a read's watch stands on, if it set one.
pub(super) fn on_reply(
    history: &History,
    conversation: &Conversation,
    sent: &Sent,
    header: ReplyHeader,
    packet: &[u8],
    body: &[u8],
) -> Result<Option<WantsWatch>, Violation> {
    let wrong = |what: String| Violation { property: PROPERTY, what: format!("xid {}: {what}", sent.xid) };
    if let Some(code) = sent.refused {
        hold(header.err == code.wire(), PROPERTY, || {
            format!("xid {}: {code:?} became {}", sent.xid, header.err)
        })?;
        return Ok(None);
    }
    let Some(request) = sent.request() else { return Ok(None) };
    let Some((session, _)) = conversation.attached else {
        return Err(wrong("a reply before a session".into()));
    };
    if sent.is_write {
        let tag = conversation.tag(sent.writes_before + 1);
        let Some((tag, fact)) = tag.and_then(|tag| Some((tag, history.write(tag)?))) else {
            return Err(wrong(format!("{tag:?} is answered and not in the log")));
        };
        hold(fact.at == header.zxid, PROPERTY, || {
            format!("{tag:?} was applied at {} and is answered at {}", shown(fact.at), shown(header.zxid))
        })?;
        written(fact, &request, header, body).map_err(wrong)?;
        return Ok(None);
    }
    if sent.is_read {
        let Some(tree) = history.at(header.zxid) else {
            return Err(wrong(format!("there is no zxid {}", shown(header.zxid))));
        };
        // Nothing kept: what the server answers from its kept lists must be the same.
        let listings = Listings::default();
        let asker = Asker {
            identity: &conversation.identity,
            session,
            xid: sent.xid,
            listings: &listings,
            skip_acl: false,
        };
        let mut expected = Vec::new();
        let watch =
            answer::answer(tree, &asker, &request, &mut expected).expect("nothing fails on this disk");
        hold(expected.get(4..) == Some(packet), PROPERTY, || {
            format!("{request:?} is not answered from the tree at {}: {header:?}", shown(header.zxid))
        })?;
        return Ok(watch);
    }
    let expected: &[i32] = match request {
        Request::CloseSession | Request::Sync { .. } | Request::AddWatch { .. } | Request::SetWatches(_) => {
            &[0]
        }
        Request::CheckWatches { .. } | Request::RemoveWatches { .. } => &[0, Code::NoWatcher.wire()],
        Request::Reconfig { .. } => &[Code::ReconfigDisabled.wire()],
        _ => return Ok(None),
    };
    hold(expected.contains(&header.err), PROPERTY, || format!("{request:?} is answered {}", header.err))?;
    Ok(None)
}

/// Is this the reply to a write with this outcome?
fn written(fact: &Fact, request: &Request<'_>, header: ReplyHeader, body: &[u8]) -> Result<(), String> {
    let told = match header.err {
        0 => Ok(Response::decode(request.opcode(), body).map_err(|e| e.to_string())?),
        err => Err(err),
    };
    let same = match (&fact.outcome, &told) {
        (Outcome::Failed(code), Err(err)) => code.wire() == *err,
        (Outcome::Done(Reply::Created { path, .. }), Ok(Response::Path(p))) => {
            request.opcode() == Opcode::Create && &**path == *p
        }
        (Outcome::Done(Reply::Created { path, stat }), Ok(Response::PathAndStat(p, s))) => {
            &**path == *p && stat == s
        }
        (Outcome::Done(Reply::Stat(stat)), Ok(Response::Stat(s))) => stat == s,
        (Outcome::Done(Reply::Reconfigured { text, stat }), Ok(Response::Data(Some(data), s))) => {
            **text == **data && stat == s
        }
        (Outcome::Done(Reply::Deleted), Ok(Response::Empty)) => request.opcode() == Opcode::Delete,
        (Outcome::Done(Reply::SessionClosed { .. }), Ok(Response::Empty)) => {
            request.opcode() == Opcode::CloseSession
        }
        (Outcome::Done(Reply::Multi(replies)), Ok(Response::Multi(results))) => {
            replies.len() == results.len()
                && replies.iter().zip(results).all(|(reply, r)| same_result(reply, r))
        }
        (Outcome::Done(Reply::MultiFailed { at, code }), Ok(Response::Multi(results))) => {
            results.iter().enumerate().all(|(i, result)| {
                let err = match i.cmp(at) {
                    std::cmp::Ordering::Less => 0,
                    std::cmp::Ordering::Equal => code.wire(),
                    std::cmp::Ordering::Greater => Code::RuntimeInconsistency.wire(),
                };
                *result == OpResult::Error { err }
            })
        }
        _ => false,
    };
    if same { Ok(()) } else { Err(format!("{:?} is told as {told:?}", fact.outcome)) }
}

fn same_result(reply: &Reply, result: &OpResult<'_>) -> bool {
    match (reply, result) {
        (Reply::Created { path, .. }, OpResult::Create { path: p }) => &**path == *p,
        (Reply::Created { path, stat }, OpResult::Create2 { path: p, stat: s }) => &**path == *p && stat == s,
        (Reply::Stat(stat), OpResult::SetData { stat: s }) => stat == s,
        (Reply::Deleted, OpResult::Delete) | (Reply::Checked, OpResult::Check) => true,
        _ => false,
    }
}
