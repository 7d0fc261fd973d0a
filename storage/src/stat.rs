//! What clients are told of a znode, and the kinds of znode.

/// ZooKeeper's `Stat`, as clients see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// zxid of the create.
    pub czxid: i64,
    /// zxid of the last setData (or the create).
    pub mzxid: i64,
    /// The leader's wall clock at the create, ms since 1970.
    pub ctime: i64,
    /// The leader's wall clock at the last setData, ms since 1970.
    pub mtime: i64,
    /// Number of setData.
    pub version: i32,
    /// Creates plus deletes of children: 2 × the internal count of creates − [`Stat::num_children`].
    pub cversion: i32,
    /// Number of setACL.
    pub aversion: i32,
    /// The session of an ephemeral; 0 for every other kind, containers and TTL nodes included.
    pub ephemeral_owner: i64,
    /// Bytes of data.
    pub data_length: i32,
    /// Number of children.
    pub num_children: i32,
    /// zxid of the last create or delete of a child (or the own create).
    pub pzxid: i64,
}

/// The kinds of znode, kept in the raw `ephemeralOwner` field as ZooKeeper's `EphemeralType` keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Stays until deleted.
    Persistent,
    /// Ends with its session.
    Ephemeral(i64),
    /// Deleted by the leader once its last child is gone.
    Container,
    /// Deleted by the leader when it has no children and was not modified for this many ms.
    Ttl(i64),
}

impl Kind {
    const CONTAINER: i64 = i64::MIN;
    const TTL_MASK: u64 = 0xff00_0000_0000_0000;
    /// The largest TTL, in ms: 40 bits.
    pub const TTL_MAX: i64 = 0xff_ffff_ffff;

    /// From the raw `ephemeralOwner` field.
    pub const fn from_owner(owner: i64) -> Kind {
        if owner == 0 {
            Kind::Persistent
        } else if owner == Self::CONTAINER {
            Kind::Container
        } else if owner as u64 & Self::TTL_MASK == Self::TTL_MASK {
            Kind::Ttl(owner & Self::TTL_MAX)
        } else {
            Kind::Ephemeral(owner)
        }
    }

    /// The raw `ephemeralOwner` field.
    pub const fn owner(self) -> i64 {
        match self {
            Kind::Persistent => 0,
            Kind::Ephemeral(session) => session,
            Kind::Container => Self::CONTAINER,
            Kind::Ttl(ms) => (Self::TTL_MASK as i64) | ms,
        }
    }

    /// What clients see as `ephemeralOwner`.
    pub const fn client_owner(self) -> i64 {
        match self {
            Kind::Ephemeral(session) => session,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_the_owner_field() {
        for kind in [
            Kind::Persistent,
            Kind::Ephemeral(0x1_0000_0000_0001),
            Kind::Container,
            Kind::Ttl(1),
            Kind::Ttl(Kind::TTL_MAX),
        ] {
            assert_eq!(Kind::from_owner(kind.owner()), kind);
        }
        assert_eq!(Kind::Container.owner() as u64, 0x8000_0000_0000_0000);
        assert_eq!(Kind::Ttl(5).owner() as u64, 0xff00_0000_0000_0005);
        assert_eq!((Kind::Container.client_owner(), Kind::Ttl(5).client_owner()), (0, 0));
    }
}
