//! What is in a segment: its tables, rows and their encoding. The only place that knows.
//!
//! A record is cut into *pieces*, each a row of [`RECORDS`]. redb gives a large value a run of pages to itself,
//! rounded up to a power of two: a record of 130 KB would take, and have written, 256 KB. Pieces that fill their
//! pages waste an eighth at most ([`piece_len`]).
//!
//! The hard state travels in the last record of an append, so that the commit touches no second page for it; an
//! append without records has the row [`HARD_STATE_KEY`]. The higher stamp is the newer one.

use super::LogError;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use redb::TableDefinition;
use serde::{Deserialize, Serialize};

/// Version of all that is declared here. A segment with another one is refused.
pub(super) const FORMAT: u32 = 2;

/// Rows [`FORMAT_ROW`] and [`BIRTH_ROW`], written once when the segment begins.
pub(super) const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about");
/// [`FORMAT`], little endian; read before anything else.
pub(super) const FORMAT_ROW: &str = "format";
/// A [`Birth`], in postcard.
pub(super) const BIRTH_ROW: &str = "birth";

/// The records: [`key`] → piece.
pub(super) const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
/// Where an append without records puts its hard state. No record has this key: indexes begin at 1.
pub(super) const HARD_STATE_KEY: u64 = 0;

/// What a segment is told when it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Birth {
    /// Counts the segments of this log; the newest has the highest.
    pub sequence: u64,
    /// The index before the segment's first; 0 at the very beginning.
    pub base_index: u64,
    /// The term of that.
    pub base_term: u64,
    /// The segments that make up the log before this one, oldest first, What is not
    /// among them does not belong to the log any more.
    pub chain: Vec<Link>,
}

/// A segment in a [`Birth::chain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    pub sequence: u64,
    pub first_index: u64,
    /// What it holds.
    pub bytes: u64,
}

/// What an entry asks for, as raft tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// An entry of the state machine; may be empty.
    Normal = 0,
    /// A change of one member.
    ConfChange = 1,
    /// A joint change of members.
    ConfChangeV2 = 2,
}

impl RecordKind {
    /// What a kind as a number, as it is written to disks and streams, says; `None` for a number that is none.
    pub fn of(number: u8) -> Option<RecordKind> {
        [RecordKind::Normal, RecordKind::ConfChange, RecordKind::ConfChangeV2]
            .get(usize::from(number))
            .copied()
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// From 1, without gaps.
    pub index: u64,
    /// raft's term of the leader that made it.
    pub term: u64,
    /// What it asks for.
    pub kind: RecordKind,
    /// The entry. Cloning shares it.
    pub data: Bytes,
}

/// What raft must not forget beside the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term seen.
    pub term: u64,
    /// Who got the vote in it; 0: nobody.
    pub vote: u64,
    /// Known to be committed; may lag behind.
    pub commit: u64,
}

/// Pages of a segment, bytes: redb's default.
const PAGE_BYTES: usize = 4096;
/// What redb needs of a page for a single row: the page's header (4), the end of the value (4), the key (8).
const ROW_OVERHEAD_BYTES: usize = 16;
/// Keys have 8 bits for the piece.
const PIECES_MAX: u64 = 256;
/// The largest piece: with it, 256 pieces hold 256 MiB, far beyond any entry.
const PIECE_PAGES_MAX: usize = 256;
/// Bytes of a record at most, with its header.
pub(super) const RECORD_BYTES_MAX: usize = 128 << 20;
/// Rough cost of a row beside its bytes, to account for how full a segment is.
const ROW_BYTES: u64 = 24;

/// CRC-32 of all that follows.
const CRC_BYTES: usize = 4;
/// CRC, kind, flags, length of the data, term.
const HEADER_BYTES: usize = CRC_BYTES + 1 + 1 + 4 + 8;
/// Flag: the header goes on with a [`Stamped`].
const FLAG_STAMPED: u8 = 1;
/// Stamp, segment's bytes, term, vote, commit.
const STAMPED_BYTES: usize = 5 * 8;

/// A hard state with what tells which of two is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamped {
    /// Counts the appends of this log.
    pub stamp: u64,
    /// Bytes of the segment so far.
    pub segment_bytes: u64,
    pub hard_state: HardState,
}

/// The key of a piece.
pub(super) fn key(index: u64, piece: u64) -> u64 {
    assert!(index > 0 && index < 1 << 56 && piece < PIECES_MAX, "key of {index}/{piece}");
    index << 8 | piece
}

/// The index of a key.
pub(super) fn index_of(key: u64) -> u64 {
    key >> 8
}

/// How many of `left` bytes the next piece takes: as many as fill a run of pages, or all if that leaves no more
/// than an eighth of the run empty.
fn piece_len(left: usize) -> usize {
    let holds = |pages: usize| pages * PAGE_BYTES - ROW_OVERHEAD_BYTES;
    if left <= holds(1) {
        return left;
    }
    let mut pages = PIECE_PAGES_MAX;
    while holds(pages) > left {
        if left >= holds(pages) - holds(pages) / 8 {
            return left;
        }
        pages /= 2;
    }
    holds(pages)
}

impl Stamped {
    /// Bytes of it, encoded.
    pub(super) const BYTES: usize = STAMPED_BYTES;

    pub(super) fn put(&self, to: &mut impl BufMut) {
        for v in [
            self.stamp,
            self.segment_bytes,
            self.hard_state.term,
            self.hard_state.vote,
            self.hard_state.commit,
        ] {
            to.put_u64_le(v);
        }
    }

    pub(super) fn take(from: &mut impl Buf) -> Stamped {
        let mut next = || from.get_u64_le();
        Stamped {
            stamp: next(),
            segment_bytes: next(),
            hard_state: HardState { term: next(), vote: next(), commit: next() },
        }
    }

    /// The row of [`HARD_STATE_KEY`].
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = vec![0; CRC_BYTES];
        self.put(&mut row);
        let crc = crc32fast::hash(&row[CRC_BYTES..]);
        row[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
        row
    }

    pub(super) fn decode(segment: &str, mut row: &[u8]) -> Result<Stamped, LogError> {
        if row.len() != CRC_BYTES + STAMPED_BYTES || crc32fast::hash(&row[CRC_BYTES..]) != row.get_u32_le() {
            return Err(LogError::damaged(segment, "the hard state does not match its checksum"));
        }
        Ok(Stamped::take(&mut row))
    }
}

impl LogRecord {
    /// Bytes a segment is charged for this record.
    pub(super) fn stored_bytes(&self) -> u64 {
        (self.data.len() + HEADER_BYTES) as u64 + ROW_BYTES
    }

    /// Bytes in memory, roughly.
    pub(super) fn memory_bytes(&self) -> usize {
        self.data.len() + std::mem::size_of::<LogRecord>()
    }

    /// The record in pieces, in order. `scratch` is used again and again.
    pub(super) fn pieces<E>(
        &self,
        stamped: Option<Stamped>,
        scratch: &mut Vec<u8>,
        mut put: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        assert!(self.data.len() < RECORD_BYTES_MAX, "record {} of {} bytes", self.index, self.data.len());
        scratch.clear();
        scratch.put_u32_le(0);
        scratch.put_u8(self.kind as u8);
        scratch.put_u8(if stamped.is_some() { FLAG_STAMPED } else { 0 });
        scratch.put_u32_le(self.data.len() as u32);
        scratch.put_u64_le(self.term);
        if let Some(stamped) = stamped {
            stamped.put(scratch);
        }
        let header_len = scratch.len();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&scratch[CRC_BYTES..]);
        crc.update(&self.data);
        scratch[..CRC_BYTES].copy_from_slice(&crc.finalize().to_le_bytes());

        let mut left = header_len + self.data.len();
        let mut n = piece_len(left);
        // The header and the first of the data make the first piece, the rest needs no copy.
        let mut at = n - header_len;
        scratch.extend_from_slice(&self.data[..at]);
        put(key(self.index, 0), scratch)?;
        left -= n;
        let mut piece = 1;
        while left > 0 {
            n = piece_len(left);
            put(key(self.index, piece), &self.data[at..at + n])?;
            at += n;
            left -= n;
            piece += 1;
        }
        Ok(())
    }
}

/// A record that is being read, piece by piece.
pub(super) struct Assembly {
    record: LogRecord,
    stamped: Option<Stamped>,
    data: BytesMut,
    data_len: usize,
    crc_expected: u32,
    crc: crc32fast::Hasher,
    next_piece: u64,
}

/// The header of a record, without its data.
pub(super) struct Header {
    pub term: u64,
    pub stamped: Option<Stamped>,
    pub data_len: usize,
}

impl Assembly {
    /// Begins with piece 0.
    pub(super) fn begin(segment: &str, key: u64, row: &[u8]) -> Result<Assembly, LogError> {
        let index = index_of(key);
        let damaged = |what: &str| LogError::damaged(segment, format!("record {index} {what}"));
        if key & (PIECES_MAX - 1) != 0 {
            return Err(damaged("lacks its first piece"));
        }
        if row.len() < HEADER_BYTES {
            return Err(damaged("is too short"));
        }
        let mut rest = row;
        let crc_expected = rest.get_u32_le();
        let covered = rest;
        let kind = RecordKind::of(rest.get_u8()).ok_or_else(|| damaged("is of no known kind"))?;
        let flags = rest.get_u8();
        let data_len = rest.get_u32_le() as usize;
        let term = rest.get_u64_le();
        let stamped = match flags {
            0 => None,
            FLAG_STAMPED if rest.len() >= STAMPED_BYTES => Some(Stamped::take(&mut rest)),
            _ => return Err(damaged("has an unknown header")),
        };
        if data_len > RECORD_BYTES_MAX || rest.len() > data_len {
            return Err(damaged("has an impossible length"));
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(covered);
        let mut data = BytesMut::with_capacity(data_len);
        data.put_slice(rest);
        Ok(Assembly {
            record: LogRecord { index, term, kind, data: Bytes::new() },
            stamped,
            data,
            data_len,
            crc_expected,
            crc,
            next_piece: 1,
        })
    }

    /// Are all pieces there?
    pub(super) fn is_complete(&self) -> bool {
        self.data.len() == self.data_len
    }

    /// Adds the next piece.
    pub(super) fn add(&mut self, segment: &str, key: u64, row: &[u8]) -> Result<(), LogError> {
        let index = self.record.index;
        if key != super::tables::key(index, self.next_piece) || self.data.len() + row.len() > self.data_len {
            return Err(LogError::damaged(
                segment,
                format!("record {index} lacks piece {}", self.next_piece),
            ));
        }
        self.next_piece += 1;
        self.crc.update(row);
        self.data.put_slice(row);
        Ok(())
    }

    /// What term and stamp the header has; the data is not looked at.
    pub(super) fn header(&self) -> Header {
        Header { term: self.record.term, stamped: self.stamped, data_len: self.data_len }
    }

    /// The record, checked against its checksum.
    pub(super) fn finish(mut self, segment: &str) -> Result<LogRecord, LogError> {
        if self.crc.finalize() != self.crc_expected {
            return Err(LogError::damaged(
                segment,
                format!("record {} does not match its checksum", self.record.index),
            ));
        }
        self.record.data = self.data.freeze();
        Ok(self.record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_fill_their_pages() {
        for len in (1..2_000_000).step_by(1_237) {
            let (mut left, mut pages, mut pieces) = (len, 0, 0);
            while left > 0 {
                let n = piece_len(left);
                pages += (n + ROW_OVERHEAD_BYTES).div_ceil(PAGE_BYTES).next_power_of_two();
                left -= n;
                pieces += 1;
            }
            assert!(pages * PAGE_BYTES <= len + len / 7 + 2 * PAGE_BYTES, "{len} bytes take {pages} pages");
            assert!(pieces <= 12, "{len} bytes take {pieces} pieces");
        }
    }

    #[test]
    fn a_record_survives_its_pieces() {
        for len in [0, 1, 4_000, 4_080, 5_000, 70_000, 3_000_000] {
            let record = LogRecord {
                index: 7,
                term: 3,
                kind: RecordKind::ConfChange,
                data: (0..len).map(|i| i as u8).collect::<Vec<_>>().into(),
            };
            let stamped = Some(Stamped {
                stamp: 9,
                segment_bytes: 8,
                hard_state: HardState { term: 3, vote: 2, commit: 1 },
            });
            let mut rows = Vec::new();
            let put = |k, row: &[u8]| {
                rows.push((k, row.to_vec()));
                Ok::<_, ()>(())
            };
            record.pieces(stamped, &mut Vec::new(), put).unwrap();
            let read = |rows: &[(u64, Vec<u8>)]| {
                let mut assembly = Assembly::begin("s", rows[0].0, &rows[0].1)?;
                for (k, row) in &rows[1..] {
                    assembly.add("s", *k, row)?;
                }
                assert!(assembly.is_complete());
                assert_eq!(assembly.header().stamped, stamped);
                assembly.finish("s")
            };
            assert_eq!(read(&rows).unwrap(), record);
            let last = rows.last_mut().unwrap().1.last_mut().unwrap();
            *last ^= 1;
            if len > 0 {
                assert!(matches!(read(&rows), Err(LogError::Damaged { .. })));
            }
        }
    }
}
