//! Who may belong to the ensemble next: a change that somebody asks for, judged against the members that are.
//!
//! Pure and static: the leader asks it when it stamps a change, and what depends on how servers are at the moment (is a
//! quorum of the new voters up to date, does another change run) is judged beside it, by consensus. A client's `reconfig`
//! is refused for the reasons and with the codes of ZooKeeper; an operator's command with words that say what to do.

mod reconfig;
#[cfg(test)]
mod tests;

use crate::config::{self, Address, Role, SERVERS_MAX, VOTERS_MAX, server_line};
use std::collections::{BTreeMap, BTreeSet};
use warren_storage::{Change, Code, Member, MemberRole, Members};

/// Why a change is refused: [`Refusal::code`] for clients, the text for operators.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The configuration is not the one that the change goes on from.
    #[error(
        "the configuration has version {now:x}, and the change goes on from {asked:x}: read it again, and decide anew"
    )]
    Version {
        /// What was asked for.
        asked: i64,
        /// What is.
        now: i64,
    },
    /// What was asked for cannot be read, or makes no sense.
    #[error("{0}")]
    BadArguments(String),
    /// A number that ZooKeeper does not expect and answers as it answers a broken request.
    #[error("{0}")]
    BadNumber(String),
    /// Nobody has that id.
    #[error("there is no server {id}; `warren member list` shows who there is")]
    NoServer {
        /// Who was named.
        id: u8,
    },
    /// Somebody has that id.
    #[error(
        "server {id} is there already; if it lost its data, `warren member replace {id}` lets it come back"
    )]
    ServerExists {
        /// Who was named.
        id: u8,
    },
    /// It is what it is asked to become.
    #[error("server {id} {does} already")]
    Already {
        /// Who was named.
        id: u8,
        /// What it does.
        does: &'static str,
    },
    /// Nobody would vote.
    #[error("server {id} is the last voter: promote or add another one first")]
    LastVoter {
        /// Who was named.
        id: u8,
    },
    /// A client's `reconfig` keeps two, as ZooKeeper does where a single server cannot be reconfigured.
    #[error(
        "{voters} voters would be left, and a reconfig leaves 2 at least; `warren member remove` goes down to one"
    )]
    TooFewVoters {
        /// How many would be left.
        voters: usize,
    },
    /// The table is full.
    #[error("{servers} servers; an ensemble has {SERVERS_MAX} at most")]
    TooMany {
        /// How many there would be.
        servers: usize,
    },
    /// Too many of them vote, or are to.
    #[error(
        "{voters} servers that vote or are to; an ensemble has {VOTERS_MAX} of them at most, and all others observe"
    )]
    TooManyVoters {
        /// How many there would be.
        voters: usize,
    },
    /// Two would be found at one address.
    #[error("{addr} of server {id} is the address of server {other}, too")]
    Duplicate {
        /// Which.
        addr: String,
        /// The one.
        id: u8,
        /// The other.
        other: u8,
    },
    /// Another change runs.
    #[error(
        "another change of the membership is under way: wait until `warren member list` shows it, and ask again"
    )]
    InProgress,
    /// The new voters could not commit anything.
    #[error(
        "no majority of the new voters is linked and up to date, so nothing could be committed after the change: \
         start them, or wait until `warren status` on the leader shows little lag, and ask again"
    )]
    NoQuorum,
    /// `reconfigEnabled` is not set.
    #[error("reconfig is not enabled for clients (reconfigEnabled); `warren member` works all the same")]
    Disabled,
    /// There is no ensemble.
    #[error("this server stands alone: its configuration has no [ensemble]")]
    Standalone,
    /// The leader said no more than this.
    #[error("the leader refuses it: {0}")]
    ByLeader(Code),
}

impl Refusal {
    /// What a client is answered.
    pub fn code(&self) -> Code {
        match self {
            Refusal::Version { .. } => Code::BadVersion,
            Refusal::BadNumber(_) => Code::MarshallingError,
            Refusal::InProgress => Code::ReconfigInProgress,
            Refusal::NoQuorum => Code::NewConfigNoQuorum,
            Refusal::Disabled => Code::ReconfigDisabled,
            Refusal::Standalone => Code::Unimplemented,
            Refusal::ByLeader(code) => *code,
            Refusal::BadArguments(_)
            | Refusal::NoServer { .. }
            | Refusal::ServerExists { .. }
            | Refusal::Already { .. }
            | Refusal::LastVoter { .. }
            | Refusal::TooFewVoters { .. }
            | Refusal::TooMany { .. }
            | Refusal::TooManyVoters { .. }
            | Refusal::Duplicate { .. } => Code::BadArguments,
        }
    }

    /// The refusal that is behind a code, as far as the code tells it: what a server knows whose change was refused in the
    /// log.
    pub fn of(code: Code) -> Refusal {
        match code {
            Code::ReconfigInProgress => Refusal::InProgress,
            Code::NewConfigNoQuorum => Refusal::NoQuorum,
            Code::ReconfigDisabled => Refusal::Disabled,
            Code::Unimplemented => Refusal::Standalone,
            other => Refusal::ByLeader(other),
        }
    }
}

/// The members after the change. [`Members::version`] stays as it is: whoever applies the change sets it.
///
/// # Errors
/// When the change cannot be read, contradicts the members, or leaves too few voters.
pub fn change(now: &Members, asked: &Change) -> Result<Members, Refusal> {
    let mut next = now.clone();
    match asked {
        Change::Reconfig { joining, leaving, new_members, version } => {
            if *version != -1 && *version != now.version {
                return Err(Refusal::Version { asked: *version, now: now.version });
            }
            match new_members {
                Some(list) => next.servers = reconfig::replaced(now, list)?,
                None => reconfig::changed(
                    now,
                    &mut next,
                    joining.as_deref().unwrap_or_default(),
                    leaving.as_deref().unwrap_or_default(),
                )?,
            }
            let voters = next.voters().count();
            if voters < 2 {
                return Err(Refusal::TooFewVoters { voters });
            }
        }
        Change::Add { id, peer_addr, client_addr, observer } => {
            if now.get(*id).is_some() {
                return Err(Refusal::ServerExists { id: *id });
            }
            if *id == 0 {
                return Err(Refusal::BadArguments("0 is no id; ids go from 1 to 255".to_owned()));
            }
            let role = if *observer { MemberRole::Observer } else { MemberRole::Joining };
            let (peer_addr, client_addr) = (reachable(peer_addr)?, reachable(client_addr)?);
            next.servers.push(Member { id: *id, disk: 1, role, peer_addr, client_addr });
        }
        // The leader asks the same for one that joins, once it has nearly all of the log.
        Change::Promote { id } => {
            let member = named(&mut next, *id)?;
            member.role = match member.role {
                MemberRole::Voter => return Err(Refusal::Already { id: *id, does: "votes" }),
                MemberRole::Joining => MemberRole::Voter,
                MemberRole::Observer => MemberRole::Joining,
            };
        }
        Change::Demote { id } => {
            keep_a_voter(now, *id)?;
            let member = named(&mut next, *id)?;
            if member.role == MemberRole::Observer {
                return Err(Refusal::Already { id: *id, does: "observes" });
            }
            member.role = MemberRole::Observer;
        }
        Change::Remove { id } => {
            keep_a_voter(now, *id)?;
            named(&mut next, *id)?;
            next.servers.retain(|member| member.id != *id);
        }
        Change::Replace { id } => {
            keep_a_voter(now, *id)?;
            let member = named(&mut next, *id)?;
            member.disk = member.disk.checked_add(1).ok_or_else(|| {
                Refusal::BadArguments(format!(
                    "server {id} was replaced too often: remove it, and add another"
                ))
            })?;
            if member.role == MemberRole::Voter {
                member.role = MemberRole::Joining;
            }
        }
    }
    next.servers.sort_by_key(|member| member.id);
    sound(&next)?;
    let disk_of = |members: &Members, id| members.get(id).map_or(0, |member| member.disk);
    for member in &next.servers {
        assert!(
            member.disk >= disk_of(now, member.id),
            "server {} goes back to a disk that is gone",
            member.id
        );
    }
    Ok(next)
}

/// What `/zookeeper/config` holds: a line for each server, and the version; no newline after it. Who joins does not vote
/// yet, and so is written as an observer.
pub fn text(members: &Members) -> String {
    let mut text = String::new();
    for member in &members.servers {
        let peer: Address = member.peer_addr.parse().expect("members have addresses that were read");
        let client = (!member.client_addr.is_empty())
            .then(|| member.client_addr.parse::<Address>().expect("members have addresses that were read"));
        let observer = member.role != MemberRole::Voter;
        let line = server_line::write(&peer, observer, client.as_ref());
        text.push_str(&format!("server.{}={line}\n", member.id));
    }
    text.push_str(&format!("version={:x}", members.version));
    text
}

/// What a new ensemble begins with: the servers of the configuration file, each on its first disk.
pub fn found(ensemble: &config::Ensemble) -> Members {
    let mut servers: Vec<Member> = ensemble
        .servers
        .iter()
        .map(|server| Member {
            id: server.id,
            disk: 1,
            role: match server.role {
                Role::Voter => MemberRole::Voter,
                Role::Observer => MemberRole::Observer,
            },
            peer_addr: server.peer_addr.to_string(),
            client_addr: server.client_addr.as_ref().map_or(String::new(), Address::to_string),
        })
        .collect();
    servers.sort_by_key(|member| member.id);
    Members { version: 0, servers }
}

/// With whom a server has links. Beside those in its table, these: who votes by raft's configuration, for a server that
/// leaves is needed until a joint one is left; and who stands in its file, for its table may be of a time before that one
/// came, and those it names may be gone.
///
/// Who left by the table counts in the file only as long as the table is not `current`. It is once the first entry of a
/// leader's term is applied, for whoever leads was a member before. Until then, who left may have come back with another
/// disk and be the only one that leads, or feeds: without a link nobody would ever say so here. A link is all that it gets.
/// What its former disk says counts no more than before, and who votes is what log and table say.
pub fn linked(
    members: &Members,
    retired: &BTreeMap<u8, u32>,
    voters: &[u8],
    file: &Members,
    current: bool,
) -> BTreeSet<u8> {
    let left = |id: &u8| current && retired.contains_key(id);
    let in_file = file.servers.iter().map(|member| member.id).filter(|id| !left(id));
    let in_table = members.servers.iter().map(|member| member.id);
    in_table.chain(in_file).chain(voters.iter().copied()).collect()
}

/// May this server have a vote, as raft has it or as it is to be? Of one that is in no table, its file says it.
pub fn may_vote(members: &Members, voters: &[u8], file: &Members, id: u8) -> bool {
    let member = members.get(id).or_else(|| file.get(id));
    voters.contains(&id) || member.is_some_and(|member| member.role != MemberRole::Observer)
}

/// What is odd about the members without being wrong, for operators.
pub fn oddities(members: &Members) -> Vec<String> {
    config::even_voters(members.voters().count()).into_iter().collect()
}

fn named(members: &mut Members, id: u8) -> Result<&mut Member, Refusal> {
    members.servers.iter_mut().find(|member| member.id == id).ok_or(Refusal::NoServer { id })
}

/// Without `id`, somebody must be left that votes.
fn keep_a_voter(now: &Members, id: u8) -> Result<(), Refusal> {
    let votes = now.get(id).is_some_and(|member| member.role == MemberRole::Voter);
    if votes && now.voters().count() == 1 {
        return Err(Refusal::LastVoter { id });
    }
    Ok(())
}

/// An address at which others can find a server, in the one form that it is compared in.
fn reachable(text: &str) -> Result<String, Refusal> {
    let bad = |reason: &str| Refusal::BadArguments(format!("`{text}` {reason}"));
    let address: Address =
        text.parse().map_err(|e: config::AddressError| Refusal::BadArguments(e.to_string()))?;
    if !address.is_reachable() {
        return Err(bad("is no address at which others find a server"));
    }
    Ok(address.to_string())
}

/// What must hold of the table as a whole.
fn sound(next: &Members) -> Result<(), Refusal> {
    let servers = &next.servers;
    if servers.len() > SERVERS_MAX {
        return Err(Refusal::TooMany { servers: servers.len() });
    }
    let voters = servers.iter().filter(|member| member.role != MemberRole::Observer).count();
    if voters > VOTERS_MAX {
        return Err(Refusal::TooManyVoters { voters });
    }
    for (at, member) in servers.iter().enumerate() {
        for other in &servers[at + 1..] {
            assert_ne!(member.id, other.id, "each server stands there once");
            let pairs = [(&member.peer_addr, &other.peer_addr), (&member.client_addr, &other.client_addr)];
            for (addr, same) in pairs {
                if !addr.is_empty() && addr.eq_ignore_ascii_case(same) {
                    return Err(Refusal::Duplicate { addr: addr.clone(), id: member.id, other: other.id });
                }
            }
        }
    }
    Ok(())
}
