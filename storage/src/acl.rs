//! Access control lists: who may do what to a znode.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Permission bits of an [`Acl`] (ZooKeeper's `ZooDefs.Perms`).
pub mod perms {
    /// Read data, children and Stat.
    pub const READ: i32 = 1;
    /// Set data.
    pub const WRITE: i32 = 2;
    /// Create children.
    pub const CREATE: i32 = 4;
    /// Delete children.
    pub const DELETE: i32 = 8;
    /// Set the ACL.
    pub const ADMIN: i32 = 16;
    /// All of them.
    pub const ALL: i32 = 31;
}

/// Somebody: an id within an authentication scheme, such as `digest` and `user:hash`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Id {
    /// `world`, `auth`, `digest`, `ip`, `super`, …
    pub scheme: String,
    /// What identifies somebody within the scheme.
    pub id: String,
}

/// One line of an access control list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Acl {
    /// Bits of [`perms`].
    pub perms: i32,
    /// Who has them.
    pub id: Id,
}

/// [`Id`], borrowed from a request or a log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdRef<'a> {
    /// See [`Id::scheme`].
    pub scheme: &'a str,
    /// See [`Id::id`].
    pub id: &'a str,
}

/// [`Acl`], borrowed from a request or a log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AclRef<'a> {
    /// See [`Acl::perms`].
    pub perms: i32,
    /// See [`Acl::id`].
    #[serde(borrow)]
    pub id: IdRef<'a>,
}

impl Id {
    /// The id `id` of `scheme`.
    pub fn new(scheme: impl Into<String>, id: impl Into<String>) -> Id {
        Id { scheme: scheme.into(), id: id.into() }
    }

    /// Borrowed.
    pub fn as_ref(&self) -> IdRef<'_> {
        IdRef { scheme: &self.scheme, id: &self.id }
    }
}

impl IdRef<'_> {
    /// Owned.
    pub fn to_id(self) -> Id {
        Id::new(self.scheme, self.id)
    }
}

impl Acl {
    /// `perms` for `id` of `scheme`.
    pub fn new(perms: i32, scheme: impl Into<String>, id: impl Into<String>) -> Acl {
        Acl { perms, id: Id::new(scheme, id) }
    }

    /// `world:anyone` with all permissions, alone: ZooKeeper's `OPEN_ACL_UNSAFE`.
    pub fn open() -> Vec<Acl> {
        vec![Acl::new(perms::ALL, "world", "anyone")]
    }

    /// `world:anyone` may read: ZooKeeper's `READ_ACL_UNSAFE`.
    pub fn read_only() -> Vec<Acl> {
        vec![Acl::new(perms::READ, "world", "anyone")]
    }

    /// Borrowed.
    pub fn as_ref(&self) -> AclRef<'_> {
        AclRef { perms: self.perms, id: self.id.as_ref() }
    }
}

impl AclRef<'_> {
    /// Owned.
    pub fn to_acl(self) -> Acl {
        Acl { perms: self.perms, id: self.id.to_id() }
    }
}

/// May somebody who is authenticated as `ids` do what `perm` (bits of [`perms`], any of them suffices) says,
/// where `acl` rules?
///
/// An id of scheme `super` may do everything; an empty list forbids nothing. `world:anyone` is everybody; `ip` is
/// matched by address and prefix length; all other schemes by equal text.
pub fn allows(acl: &[Acl], ids: &[IdRef<'_>], perm: i32) -> bool {
    if acl.is_empty() || ids.iter().any(|id| id.scheme == "super") {
        return true;
    }
    acl.iter().filter(|line| line.perms & perm != 0).any(|line| match line.id.scheme.as_str() {
        "world" => line.id.id == "anyone",
        "ip" => ids.iter().any(|id| id.scheme == "ip" && ip_matches(id.id, &line.id.id)),
        scheme => ids.iter().any(|id| id.scheme == scheme && id.id == line.id.id),
    })
}

/// Why an access control list is refused (−114).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid ACL")]
pub struct InvalidAcl;

/// The list that a create or setACL by `ids` stores for `asked`: duplicates go, `auth` becomes what the asker is
/// authenticated as, unknown schemes and malformed ids are refused, and so is an empty list.
pub fn fixup(asked: &[AclRef<'_>], ids: &[IdRef<'_>]) -> Result<Vec<Acl>, InvalidAcl> {
    let mut fixed = Vec::with_capacity(asked.len());
    for (at, line) in asked.iter().enumerate() {
        if asked[..at].contains(line) {
            continue;
        }
        let id = line.id.id;
        let valid = match line.id.scheme {
            "auth" => {
                let own = ids.iter().filter(|id| matches!(id.scheme, "digest" | "x509" | "sasl"));
                let before = fixed.len();
                fixed.extend(own.map(|id| Acl { perms: line.perms, id: id.to_id() }));
                if fixed.len() == before {
                    return Err(InvalidAcl);
                }
                continue;
            }
            "world" => id == "anyone",
            "ip" => parse_ip_range(id).is_some(),
            "digest" => digest_is_valid(id),
            "x509" => !id.is_empty() && id.contains('='),
            "sasl" => sasl_is_valid(id),
            _ => false,
        };
        if !valid {
            return Err(InvalidAcl);
        }
        fixed.push(line.to_acl());
    }
    if fixed.is_empty() { Err(InvalidAcl) } else { Ok(fixed) }
}

/// Two parts around colons, where Java's `split` does not count empty ones at the end.
fn digest_is_valid(id: &str) -> bool {
    id.trim_end_matches(':').split(':').count() == 2
}

/// A Kerberos name: `service[/host]@realm`, or anything without `@`.
fn sasl_is_valid(id: &str) -> bool {
    match id.split_once('@') {
        None => true,
        Some((name, realm)) => !realm.contains(['@', '/']) && name.matches('/').count() <= 1,
    }
}

/// Does the connection from `addr` belong to `range` (`addr` or `addr/bits`)?
fn ip_matches(addr: &str, range: &str) -> bool {
    let (Some((ours, _)), Some((theirs, bits))) = (parse_ip_range(addr), parse_ip_range(range)) else {
        return false;
    };
    match (ours, theirs) {
        (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
            (ours.to_bits() ^ theirs.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
            (ours.to_bits() ^ theirs.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// An address and how many of its leading bits count. Numbers of an IPv4 address may have leading zeros, which
/// are decimal all the same, as in ZooKeeper.
fn parse_ip_range(range: &str) -> Option<(IpAddr, u32)> {
    let (addr, bits) = match range.split_once('/') {
        None => (range, None),
        Some((addr, bits)) => (addr, Some(bits.parse::<u32>().ok()?)),
    };
    let addr = if addr.contains(':') {
        IpAddr::V6(addr.parse().ok()?)
    } else {
        let mut octets = [0; 4];
        let mut parts = addr.split('.');
        for octet in &mut octets {
            *octet = parts.next()?.parse().ok()?;
        }
        if parts.next().is_some() {
            return None;
        }
        IpAddr::V4(octets.into())
    };
    let bits_max = if addr.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(bits_max);
    (bits <= bits_max).then_some((addr, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id<'a>(scheme: &'a str, id: &'a str) -> IdRef<'a> {
        IdRef { scheme, id }
    }

    #[test]
    fn who_may() {
        let acl = [Acl::new(perms::READ, "world", "anyone"), Acl::new(perms::ALL, "digest", "bob:x")];
        assert!(allows(&acl, &[], perms::READ));
        assert!(!allows(&acl, &[], perms::WRITE));
        assert!(!allows(&acl, &[id("digest", "bob:y"), id("sasl", "bob:x")], perms::WRITE));
        assert!(allows(&acl, &[id("digest", "bob:x")], perms::WRITE));
        assert!(allows(&acl, &[id("super", "")], perms::ADMIN));
        assert!(allows(&[], &[], perms::ADMIN));
    }

    #[test]
    fn addresses_match_by_prefix() {
        for (range, addr, expected) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("010.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/32", "2001:db8:0:0:0:0:0:9", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("::/0", "::1", true),
        ] {
            assert_eq!(
                allows(&[Acl::new(1, "ip", range)], &[id("ip", addr)], 1),
                expected,
                "{addr} in {range}"
            );
        }
    }

    #[test]
    fn lists_are_fixed_up() {
        let line = |scheme, who| AclRef { perms: 31, id: id(scheme, who) };
        let ids = [id("ip", "1.2.3.4"), id("digest", "a:1"), id("sasl", "b")];
        assert_eq!(
            fixup(&[line("auth", ""), line("world", "anyone"), line("world", "anyone")], &ids),
            Ok(vec![
                Acl::new(31, "digest", "a:1"),
                Acl::new(31, "sasl", "b"),
                Acl::new(31, "world", "anyone")
            ])
        );
        assert_eq!(fixup(&[], &ids), Err(InvalidAcl));
        assert_eq!(fixup(&[line("auth", "")], &ids[..1]), Err(InvalidAcl));
        for (scheme, who, valid) in [
            ("world", "somebody", false),
            ("digest", "a", false),
            ("digest", "a:b", true),
            ("digest", "a:b:", true),
            ("digest", "a:b:c", false),
            ("ip", "1.2.3", false),
            ("ip", "1.2.3.4/33", false),
            ("ip", "1.2.3.4/32", true),
            ("ip", "::1/128", true),
            ("sasl", "a/b@C", true),
            ("sasl", "a@B@C", false),
            ("x509", "CN=a", true),
            ("super", "x", false),
            ("", "", false),
        ] {
            assert_eq!(fixup(&[line(scheme, who)], &ids).is_ok(), valid, "{scheme}:{who}");
        }
    }
}
