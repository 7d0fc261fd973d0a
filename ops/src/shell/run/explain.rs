//! What can be done about a failure.

use super::super::words::quoted;
use super::*;
use warren_storage::path::parent_of;

/// What the operator can do, a sentence each. May ask the server, and leaves out what it does not learn.
pub fn hints(shell: &mut Shell<'_>, failure: &Failure) -> Vec<String> {
    let (code, path) = match failure {
        Failure::Refused { code, path } => (*code, path.as_str()),
        Failure::Lost => {
            return vec!["it may have been carried out or not: look before you do it again".to_owned()];
        }
        Failure::Unconnected(_) => {
            return vec!["name servers by: warren -s HOST:PORT[,HOST:PORT]".to_owned()];
        }
        _ => return Vec::new(),
    };
    let typed = quoted(path, None);
    match code {
        Code::NoNode => match nearest(shell, path) {
            Some(parent) if Some(parent) != parent_of(path) => vec![format!(
                "the nearest that exists is {parent}; create -p makes the parents that are missing"
            )],
            Some(parent) => vec![format!("its parent exists: ls {}", quoted(parent, None))],
            None => Vec::new(),
        },
        Code::NotEmpty => {
            let children = match shell.exists(path, false) {
                Ok(Some(stat)) => format!("it has {} children; ", stat.num_children),
                _ => String::new(),
            };
            vec![format!("{children}deleteall {typed} removes it and all that is below it")]
        }
        Code::NoAuth => {
            let mut hints = vec![
                format!("getAcl {typed} tells who may"),
                "addauth digest USER:PASSWORD says who you are".to_owned(),
            ];
            if let Some(parent) = parent_of(path) {
                hints.push(format!("to create or delete it, what counts is the ACL of {parent}"));
            }
            hints
        }
        Code::BadVersion => match shell.exists(path, false) {
            Ok(Some(stat)) => {
                vec![format!("it is in version {}, and its ACL in version {}", stat.version, stat.aversion)]
            }
            _ => Vec::new(),
        },
        Code::NodeExists => vec![format!("set {typed} DATA changes it")],
        Code::InvalidAcl => vec![
            "auth needs an addauth before it; digest is USER:HASH, not a password; known are world, auth, digest, ip, \
             x509, sasl"
                .to_owned(),
        ],
        Code::QuotaExceeded => vec![
            "listquota of it or of one above it tells the limit; a server whose disk is nearly full refuses so, too"
                .to_owned(),
        ],
        Code::NotReadOnly => vec!["this server has no leader now: warren status tells why".to_owned()],
        Code::ReconfigDisabled => {
            vec!["the servers' setting reconfig_enabled (reconfigEnabled) allows it".to_owned()]
        }
        Code::Unimplemented => {
            vec!["the server does not do this; TTLs need extendedTypesEnabled=true on ZooKeeper".to_owned()]
        }
        Code::NewConfigNoQuorum => vec!["start the new servers first, and let them catch up".to_owned()],
        _ => Vec::new(),
    }
}

/// The nearest ancestor that exists.
fn nearest<'p>(shell: &mut Shell<'_>, path: &'p str) -> Option<&'p str> {
    let mut above = parent_of(path.trim_end_matches('/'));
    while let Some(parent) = above {
        match shell.exists(parent, false) {
            Ok(Some(_)) => return Some(parent),
            Ok(None) => above = parent_of(parent),
            Err(_) => return None,
        }
    }
    None
}
