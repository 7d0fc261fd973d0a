//! Certificates change while the servers run.

use super::fleet::{Fleet, Server};
use super::{NAME, Outcome, all_well, issue};
use std::fs;
use std::path::Path;

const RELOADED: &str = "warren_certificates_reloaded_total";
const FAILED: &str = "warren_certificate_failures_total";

/// So often it was counted on each server.
fn counts(fleet: &Fleet, name: &str) -> Vec<i64> {
    fleet.servers.iter().map(|server| server.figure(name).unwrap_or(0)).collect()
}

/// Every server counts one more than before, at least.
fn until_all_count(fleet: &Fleet, name: &str, before: &[i64]) -> Outcome<()> {
    fleet.until(&format!("all servers count {name}"), |fleet| {
        counts(fleet, name).iter().zip(before).all(|(now, before)| now > before)
    })
}

/// Another file in the place of this one, at once.
fn put(path: &Path, text: &[u8]) -> Outcome<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    Ok(fs::rename(new, path)?)
}

pub(super) fn bad_files(fleet: &mut Fleet) -> Outcome<()> {
    let before = counts(fleet, FAILED);
    let good: Vec<Vec<u8>> = fleet.servers.iter().map(|s| fs::read(s.cert())).collect::<Result<_, _>>()?;
    for server in &fleet.servers {
        put(&server.cert(), b"no certificate")?;
    }
    until_all_count(fleet, FAILED, &before)?;
    for server in &fleet.servers {
        let log = server.log();
        if !log.contains("new certificates cannot be used, and those from before stay") {
            return Err(format!("server {} does not say so:\n{log}", server.id).into());
        }
    }
    all_well(fleet)?;
    // Another server's certificate is as bad.
    let (before, own) = (counts(fleet, FAILED), good[1].clone());
    put(&fleet.servers[0].cert(), &own)?;
    fleet.until("the certificate of another is refused", |b| counts(b, FAILED)[0] > before[0])?;
    for (server, good) in fleet.servers.iter().zip(good) {
        put(&server.cert(), &good)?;
    }
    all_well(fleet)
}

pub(super) fn renewed(fleet: &mut Fleet) -> Outcome<()> {
    // What the step before put right is read again, too: let that settle.
    fleet.until("the good files are read", |b| counts(b, RELOADED).iter().all(|n| *n > 0))?;
    let (before, failed) = (counts(fleet, RELOADED), counts(fleet, FAILED));
    for server in &fleet.servers {
        issue(fleet, "ca", server)?;
        server.hang_up()?;
    }
    until_all_count(fleet, RELOADED, &before)?;
    for server in &fleet.servers {
        if !server.log().contains("certificates are read again, for SIGHUP") {
            return Err(format!("server {} does not say that it heard SIGHUP", server.id).into());
        }
        if server.figure("warren_certificate_expires_seconds").is_none_or(|at| at < 1_700_000_000) {
            return Err(format!("server {} does not tell when its certificate ends", server.id).into());
        }
    }
    if counts(fleet, FAILED) != failed {
        return Err("a good certificate was refused".into());
    }
    all_well(fleet)
}

/// First all trust both authorities, then all show certificates of the new one, then none trusts the old one.
pub(super) fn rotated(fleet: &mut Fleet) -> Outcome<()> {
    fleet.warren(&["certs", "init", "--dir", "ca2", "--ensemble", NAME])?.must(0, "ca2/ca.pem")?;
    let (old, new) = (fs::read(fleet.folder.join("ca/ca.pem"))?, fs::read(fleet.folder.join("ca2/ca.pem"))?);
    let leader = fleet.leader()?;
    let step = |fleet: &Fleet, change: &dyn Fn(&Server) -> Outcome<()>| -> Outcome<()> {
        let before = counts(fleet, RELOADED);
        for server in &fleet.servers {
            change(server)?;
            server.hang_up()?;
        }
        until_all_count(fleet, RELOADED, &before)?;
        all_well(fleet)
    };
    step(fleet, &|server| put(&server.ca(), &[old.clone(), new.clone()].concat()))?;
    step(fleet, &|server| issue(fleet, "ca2", server))?;
    step(fleet, &|server| put(&server.ca(), &new))?;
    if fleet.leader()? != leader {
        return Err("leadership moved, though every link was to stay".into());
    }
    // A server with a certificate of the old authority is no longer let in.
    let late = leader % 3 + 1;
    fleet.server_mut(late).kill();
    issue(fleet, "ca", fleet.server(late))?;
    put(&fleet.server(late).ca(), &[old, new.clone()].concat())?;
    let others: Vec<(u8, usize)> =
        fleet.servers.iter().filter(|s| s.id != late).map(|s| (s.id, s.log().len())).collect();
    fleet.start(late)?;
    fleet.until("it is refused", |fleet| {
        let refused = |log: &str| log.contains("its certificate is not of this ensemble's authority");
        others.iter().any(|(id, from)| refused(&fleet.server(*id).log()[*from..]))
    })?;
    issue(fleet, "ca2", fleet.server(late))?;
    all_well(fleet)
}
