//! Jute, the primitive types of ZooKeeper's wire: read from a slice without trust, written to a vector.
//!
//! This is the floor under [`crate::request`] and [`crate::reply`] (steps ② and ⑫ of the walk). All numbers are
//! big-endian. A string or buffer is an `int` length and its bytes, a vector an `int` count and its elements;
//! −1 says null, which is not the same as empty. Facts from ZooKeeper 3.9's `BinaryInputArchive` and
//! `BinaryOutputArchive`.
//!
//! Reading never panics, borrows all bytes from the input, and reserves for a vector only after the remaining
//! bytes were found to be enough for that many of its smallest elements.

use warren_storage::{Acl, AclRef, IdRef, Stat};

/// Why bytes are not the record that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JuteError {
    /// The record goes on behind the end of the packet.
    #[error("the packet ends early: {wanted} more bytes wanted, {left} left")]
    Truncated {
        /// Bytes that the next field takes at least.
        wanted: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// A length below −1.
    #[error("{0} is not a length")]
    Length(i32),
    /// A string that is not UTF-8. ZooKeeper replaces what it cannot read with U+FFFD, which it allows in no
    /// path; we refuse.
    #[error("a string is not UTF-8")]
    Utf8,
    /// Null where a value is needed.
    #[error("{0} is null")]
    Null(&'static str),
    /// A number outside the few that mean something.
    #[error("{value} is no {what}")]
    Unknown {
        /// What the field says.
        what: &'static str,
        /// The number.
        value: i32,
    },
}

/// The smallest string: its length alone.
pub(crate) const STRING_BYTES_MIN: usize = 4;
/// The smallest ACL: perms and two null strings.
const ACL_BYTES_MIN: usize = 12;
/// A Stat on the wire, bytes.
pub const STAT_BYTES: usize = 68;

/// Reads one record after the other from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// From the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// What is not read yet. ZooKeeper ignores bytes behind a record, and so do we.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `n` bytes.
    fn take(&mut self, n: usize) -> Result<&'a [u8], JuteError> {
        match self.rest.split_at_checked(n) {
            Some((front, rest)) => {
                self.rest = rest;
                Ok(front)
            }
            None => Err(JuteError::Truncated { wanted: n, left: self.rest.len() }),
        }
    }

    /// The next `N` bytes.
    fn array<const N: usize>(&mut self) -> Result<[u8; N], JuteError> {
        match self.rest.split_first_chunk() {
            Some((front, rest)) => {
                self.rest = rest;
                Ok(*front)
            }
            None => Err(JuteError::Truncated { wanted: N, left: self.rest.len() }),
        }
    }

    /// `boolean`: one byte; whatever is not 0 is true, as in Java's `readBoolean`.
    pub fn bool(&mut self) -> Result<bool, JuteError> {
        Ok(self.array::<1>()? != [0])
    }

    /// `int`.
    pub fn int(&mut self) -> Result<i32, JuteError> {
        self.array().map(i32::from_be_bytes)
    }

    /// `long`.
    pub fn long(&mut self) -> Result<i64, JuteError> {
        self.array().map(i64::from_be_bytes)
    }

    /// `buffer`; `None` is null.
    pub fn buffer(&mut self) -> Result<Option<&'a [u8]>, JuteError> {
        match self.int()? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => self.take(length).map(Some),
                Err(_) => Err(JuteError::Length(length)),
            },
        }
    }

    /// `ustring`; `None` is null.
    pub fn string(&mut self) -> Result<Option<&'a str>, JuteError> {
        match self.buffer()? {
            None => Ok(None),
            Some(bytes) => std::str::from_utf8(bytes).map(Some).map_err(|_| JuteError::Utf8),
        }
    }

    /// `ustring` that must not be null; `what` names it in the error.
    pub fn string_required(&mut self, what: &'static str) -> Result<&'a str, JuteError> {
        self.string()?.ok_or(JuteError::Null(what))
    }

    /// The count of a `vector` whose elements take `element_bytes_min` bytes at least; `None` is null. A count
    /// below −1 is an empty vector, as in ZooKeeper's generated code, which counts down from it.
    pub fn count(&mut self, element_bytes_min: usize) -> Result<Option<usize>, JuteError> {
        let count = self.int()?;
        if count == -1 {
            return Ok(None);
        }
        let count = usize::try_from(count).unwrap_or(0);
        let wanted = count.saturating_mul(element_bytes_min);
        if wanted > self.rest.len() {
            return Err(JuteError::Truncated { wanted, left: self.rest.len() });
        }
        Ok(Some(count))
    }

    /// `vector<ustring>`, in which ZooKeeper can do nothing with a null and neither can we.
    pub fn strings(&mut self, what: &'static str) -> Result<Vec<&'a str>, JuteError> {
        let count = self.count(STRING_BYTES_MIN)?.ok_or(JuteError::Null(what))?;
        let mut strings = Vec::with_capacity(count);
        for _ in 0..count {
            strings.push(self.string_required(what)?);
        }
        Ok(strings)
    }

    /// `vector<ACL>`. Null comes out as empty, and a null scheme or id as the empty string: ZooKeeper refuses
    /// both of each with −114 at the same point of its checks.
    pub fn acl(&mut self) -> Result<Vec<AclRef<'a>>, JuteError> {
        let count = self.count(ACL_BYTES_MIN)?.unwrap_or(0);
        let mut acl = Vec::with_capacity(count);
        for _ in 0..count {
            let perms = self.int()?;
            let scheme = self.string()?.unwrap_or("");
            let id = self.string()?.unwrap_or("");
            acl.push(AclRef { perms, id: IdRef { scheme, id } });
        }
        Ok(acl)
    }

    /// `Stat`.
    pub fn stat(&mut self) -> Result<Stat, JuteError> {
        Ok(Stat {
            czxid: self.long()?,
            mzxid: self.long()?,
            ctime: self.long()?,
            mtime: self.long()?,
            version: self.int()?,
            cversion: self.int()?,
            aversion: self.int()?,
            ephemeral_owner: self.long()?,
            data_length: self.int()?,
            num_children: self.int()?,
            pzxid: self.long()?,
        })
    }
}

/// Appends records to a vector, which is the caller's to reuse: in the steady state nothing is allocated.
#[derive(Debug)]
pub struct Writer<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Writer<'o> {
    /// Appends to `out`.
    pub fn new(out: &'o mut Vec<u8>) -> Writer<'o> {
        Writer { out }
    }

    /// Make room for `bytes` more, so that they are written in one pass.
    pub fn reserve(&mut self, bytes: usize) {
        self.out.reserve(bytes);
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// `boolean`.
    pub fn bool(&mut self, v: bool) {
        self.out.push(u8::from(v));
    }

    /// `int`.
    pub fn int(&mut self, v: i32) {
        self.raw(&v.to_be_bytes());
    }

    /// `long`.
    pub fn long(&mut self, v: i64) {
        self.raw(&v.to_be_bytes());
    }

    /// A length or a count.
    ///
    /// # Panics
    /// When it does not fit an `int`: values come from packets or from the store, both far below.
    pub fn length(&mut self, n: usize) {
        self.int(i32::try_from(n).expect("a length fits an int"));
    }

    /// `buffer`; `None` is null.
    pub fn buffer(&mut self, v: Option<&[u8]>) {
        match v {
            None => self.int(-1),
            Some(bytes) => {
                self.reserve(4 + bytes.len());
                self.length(bytes.len());
                self.raw(bytes);
            }
        }
    }

    /// `ustring`, not null.
    pub fn string(&mut self, v: &str) {
        self.buffer(Some(v.as_bytes()));
    }

    /// `ustring`; `None` is null.
    pub fn string_or_null(&mut self, v: Option<&str>) {
        self.buffer(v.map(str::as_bytes));
    }

    /// `vector<ustring>`, counted while it is written: nothing is collected first.
    pub fn strings<S: AsRef<str>>(&mut self, strings: impl IntoIterator<Item = S>) {
        let at = self.out.len();
        self.int(0);
        let mut count = 0i32;
        for s in strings {
            self.string(s.as_ref());
            count += 1;
        }
        self.out[at..at + 4].copy_from_slice(&count.to_be_bytes());
    }

    /// `vector<ACL>`.
    pub fn acl<'a>(&mut self, acl: impl ExactSizeIterator<Item = AclRef<'a>>) {
        self.length(acl.len());
        for a in acl {
            self.int(a.perms);
            self.string(a.id.scheme);
            self.string(a.id.id);
        }
    }

    /// `vector<ACL>` of owned ones.
    pub fn acl_owned(&mut self, acl: &[Acl]) {
        self.acl(acl.iter().map(Acl::as_ref));
    }

    /// `Stat`.
    pub fn stat(&mut self, stat: &Stat) {
        // Put together on the stack first: one copy, one check of the vector's room.
        let mut b = [0u8; STAT_BYTES];
        b[0..8].copy_from_slice(&stat.czxid.to_be_bytes());
        b[8..16].copy_from_slice(&stat.mzxid.to_be_bytes());
        b[16..24].copy_from_slice(&stat.ctime.to_be_bytes());
        b[24..32].copy_from_slice(&stat.mtime.to_be_bytes());
        b[32..36].copy_from_slice(&stat.version.to_be_bytes());
        b[36..40].copy_from_slice(&stat.cversion.to_be_bytes());
        b[40..44].copy_from_slice(&stat.aversion.to_be_bytes());
        b[44..52].copy_from_slice(&stat.ephemeral_owner.to_be_bytes());
        b[52..56].copy_from_slice(&stat.data_length.to_be_bytes());
        b[56..60].copy_from_slice(&stat.num_children.to_be_bytes());
        b[60..68].copy_from_slice(&stat.pzxid.to_be_bytes());
        self.raw(&b);
    }
}
