//! Who a connection is: the ids it proved, and what follows from them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest as _, Sha1};
use std::net::IpAddr;
use warren_storage::{Acl, Id, IdRef};

/// Ids of one connection, at most; further ones are refused like wrong ones.
pub const IDS_MAX: usize = 64;

/// The ids that a connection is authenticated as.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    ids: Vec<Id>,
}

/// What authentication is configured.
#[derive(Clone, Debug, Default)]
pub struct Authentication {
    /// `super:BASE64(SHA1("super:password"))`; whoever proves it passes every ACL.
    pub super_digest: Option<String>,
    /// The digest scheme is off (`DigestAuthenticationProvider.enabled=false`).
    pub digest_off: bool,
}

impl Identity {
    /// A connection from this address, before it proved anything else.
    pub fn of(peer: IpAddr) -> Identity {
        // An IPv4 client of a dual-stack listener is that IPv4 address to every ACL.
        Identity { ids: vec![Id::new("ip", peer.to_canonical().to_string())] }
    }

    /// A connection that proved these.
    pub fn with(ids: Vec<Id>) -> Identity {
        Identity { ids }
    }

    /// Check credentials (an auth packet). False: refused, and the connection must be closed.
    pub fn authenticate(&mut self, config: &Authentication, scheme: &str, auth: &[u8]) -> bool {
        match scheme {
            "digest" if !config.digest_off => {
                let credentials = String::from_utf8_lossy(auth);
                let digest = digest_of(&credentials);
                let is_super = config.super_digest.as_deref() == Some(digest.as_str());
                if self.ids.len() + 2 > IDS_MAX {
                    return false;
                }
                if is_super {
                    self.add(Id::new("super", ""));
                }
                self.add(Id::new("digest", digest));
                true
            }
            // Known from the connection itself; asking again changes nothing.
            "ip" => true,
            _ => false,
        }
    }

    fn add(&mut self, id: Id) {
        if !self.ids.contains(&id) {
            self.ids.push(id);
        }
    }

    /// All ids.
    pub fn ids(&self) -> &[Id] {
        &self.ids
    }

    /// All ids, as a log record carries them.
    pub fn refs(&self) -> Vec<IdRef<'_>> {
        self.ids.iter().map(Id::as_ref).collect()
    }

    /// Does this ACL allow any of the permissions?
    pub fn allowed(&self, acl: &[Acl], perms: i32) -> bool {
        // Most lists are one line that everybody passes.
        let everybody =
            |line: &Acl| line.perms & perms != 0 && line.id.scheme == "world" && line.id.id == "anyone";
        acl.iter().any(everybody) || warren_storage::acl::allows(acl, &self.refs(), perms)
    }

    /// What whoAmI answers: scheme and user, without anything secret.
    pub fn who_am_i(&self) -> Vec<Id> {
        self.ids.iter().map(|id| Id::new(id.scheme.clone(), user_of(id.as_ref()))).collect()
    }
}

/// ZooKeeper's `DigestAuthenticationProvider.generateDigest`: `user:BASE64(SHA1(user:password))`.
pub fn digest_of(credentials: &str) -> String {
    let user = credentials.split(':').next().unwrap_or("");
    format!("{user}:{}", BASE64.encode(Sha1::digest(credentials.as_bytes())))
}

fn user_of(id: IdRef<'_>) -> String {
    match id.scheme {
        "digest" => id.id.split(':').next().unwrap_or("").to_owned(),
        _ => id.id.to_owned(),
    }
}

/// A line of an ACL as somebody without ADMIN may see it: a digest without its hash.
pub fn masked(acl: &Acl) -> Acl {
    if acl.id.scheme == "digest" {
        Acl::new(acl.perms, "digest", format!("{}:x", user_of(acl.id.as_ref())))
    } else {
        acl.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_zookeepers() {
        // From ZooKeeper's own documentation of the super user.
        assert_eq!(digest_of("super:test"), "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
    }

    #[test]
    fn the_super_user_is_digest_and_super() {
        let config = Authentication { super_digest: Some(digest_of("super:secret")), digest_off: false };
        let mut identity = Identity::of("127.0.0.1".parse().unwrap());
        assert!(identity.authenticate(&config, "digest", b"super:secret"));
        assert!(identity.authenticate(&config, "digest", b"bob:pw"));
        assert!(!identity.authenticate(&config, "sasl", b""));
        assert_eq!(identity.ids()[1], Id::new("super", ""));
        let shown: Vec<String> =
            identity.who_am_i().iter().map(|i| format!("{}:{}", i.scheme, i.id)).collect();
        assert_eq!(shown, ["ip:127.0.0.1", "super:", "digest:super", "digest:bob"]);
    }

    #[test]
    fn masking_hides_the_hash() {
        assert_eq!(masked(&Acl::new(1, "digest", "u:hash")), Acl::new(1, "digest", "u:x"));
        assert_eq!(masked(&Acl::new(1, "ip", "1.2.3.4")), Acl::new(1, "ip", "1.2.3.4"));
    }
}
