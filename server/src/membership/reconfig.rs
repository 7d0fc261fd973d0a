//! What a client's `reconfig` says, as ZooKeeper's `PrepRequestProcessor` reads it.

use super::Refusal;
use crate::config::server_line::{self, LineError, ServerLine};
use crate::config::{Address, SERVERS_MAX, properties};
use warren_storage::{Member, MemberRole, Members};

/// Ids that leave at most, in one request: as many as there are.
const LEAVING_MAX: usize = 255;

/// Incremental: first some leave, then some join. Who leaves without being there is not missed, and who joins under an id
/// that is there takes the place of the one that was, also of one that leaves in the same request: it stays on its disk.
pub(super) fn changed(
    now: &Members,
    next: &mut Members,
    joining: &str,
    leaving: &str,
) -> Result<(), Refusal> {
    for text in bounded(leaving, LEAVING_MAX)? {
        let id: i64 = text.parse().map_err(|_| Refusal::BadNumber(format!("`{text}` is no server's id")))?;
        next.servers.retain(|member| i64::from(member.id) != id);
    }
    for text in bounded(joining, SERVERS_MAX)? {
        let mut parts = text.split('=').map(str::trim).filter(|part| !part.is_empty());
        let (Some(name), Some(line), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Refusal::BadArguments(format!("`{text}` is not of the form server.N=…")));
        };
        let id = id(name.rsplit_once('.').map_or(name, |(_, id)| id))?;
        let line = server(line)?;
        if line.client.is_none() {
            return Err(Refusal::BadArguments(format!(
                "`{text}` has no client port; a server that joins says all three ports"
            )));
        }
        let member = member(now, id, &line);
        next.servers.retain(|member| member.id != id);
        next.servers.push(member);
    }
    Ok(())
}

/// The whole list: Java properties, of which commas part the lines, too.
pub(super) fn replaced(now: &Members, list: &str) -> Result<Vec<Member>, Refusal> {
    let lines = properties::parse(&list.replace(',', "\n")).map_err(|e| Refusal::BadNumber(e.to_string()))?;
    let mut servers: Vec<Member> = Vec::new();
    for property in lines {
        let key = property.key.trim();
        if let Some(number) = key.strip_prefix("server.") {
            let id = id(number)?;
            let line = server(property.value.trim())?;
            servers.retain(|member| member.id != id);
            servers.push(member(now, id, &line));
            if servers.len() > SERVERS_MAX {
                return Err(Refusal::TooMany { servers: servers.len() });
            }
        } else if key.starts_with("group") || key.starts_with("weight") {
            return Err(Refusal::BadArguments(format!(
                "{key}: groups and weights are not known; a majority of the voters decides"
            )));
        } else if key == "version" {
            // It is of the configuration that was read, and the new one gets its own.
            i64::from_str_radix(property.value.trim(), 16)
                .map_err(|_| Refusal::BadNumber(format!("version `{}` is no number", property.value)))?;
        } else {
            return Err(Refusal::BadArguments(format!("`{key}` is not server.N")));
        }
    }
    if servers.iter().all(|member| member.role == MemberRole::Observer) && !servers.is_empty() {
        // ZooKeeper throws what it does not expect, here too.
        return Err(Refusal::BadNumber("all observe; somebody has to vote".to_owned()));
    }
    Ok(servers)
}

/// Trimmed, empty ones left out, and no more than `most`.
fn bounded(list: &str, most: usize) -> Result<Vec<&str>, Refusal> {
    let parts: Vec<&str> =
        list.split(',').map(str::trim).filter(|part| !part.is_empty()).take(most + 1).collect();
    match parts.len() > most {
        true => Err(Refusal::BadArguments(format!("more than {most} servers in one list"))),
        false => Ok(parts),
    }
}

fn id(text: &str) -> Result<u8, Refusal> {
    let number: i64 = text.parse().map_err(|_| Refusal::BadNumber(format!("`{text}` is no server's id")))?;
    match u8::try_from(number) {
        Ok(id) if id > 0 => Ok(id),
        _ => Err(Refusal::BadArguments(format!("{number} is no server's id; ids go from 1 to 255"))),
    }
}

/// A server as its line says it, on the disk that it has.
fn member(now: &Members, id: u8, line: &ServerLine) -> Member {
    Member {
        id,
        disk: now.get(id).map_or(1, |member| member.disk),
        role: if line.observer { MemberRole::Observer } else { MemberRole::Voter },
        peer_addr: line.peer.to_string(),
        client_addr: line.client.as_ref().map_or(String::new(), Address::to_string),
    }
}

fn server(text: &str) -> Result<ServerLine, Refusal> {
    let line = server_line::parse(text).map_err(|e| match e {
        LineError::Form(reason) => Refusal::BadArguments(reason),
        LineError::Number(reason) => Refusal::BadNumber(reason),
    })?;
    match line.peer.is_reachable() {
        true => Ok(line),
        false => {
            Err(Refusal::BadArguments(format!("`{text}` has no address at which others find the server")))
        }
    }
}
