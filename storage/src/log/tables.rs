//! What is in a segment: its tables, rows and their encoding. The only place that knows.
//!
//! The records of an append stand one behind the other in *bundles* ([`Bundle`]), so that redb has few rows to make of what the
//! journal gathered. A bundle is cut into *pieces*, each a row of [`RECORDS`]. redb gives a large value a run of pages to itself,
//! rounded up to a power of two: a bundle of 130 KB would take, and have written, 256 KB. Pieces that fill their
//! pages waste an eighth at most ([`piece_len`]).
//!
//! The hard state travels in the last record of an append, so that the commit touches no second page for it; an
//! append without records has the row [`HARD_STATE_KEY`]. The higher stamp is the newer one.

use super::LogError;
use bytes::{Buf, BufMut, Bytes};
use redb::TableDefinition;
use serde::{Deserialize, Serialize};

/// Version of all that is declared here. A segment with another one is refused, unless it is [`FORMAT_SINGLE`].
pub(super) const FORMAT: u32 = 3;
/// The version before: each record is a bundle of its own.
pub(super) const FORMAT_SINGLE: u32 = 2;

/// Rows [`FORMAT_ROW`] and [`BIRTH_ROW`], written once when the segment begins.
pub(super) const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about");
/// [`FORMAT`], little endian; read before anything else.
pub(super) const FORMAT_ROW: &str = "format";
/// A [`Birth`], in postcard.
pub(super) const BIRTH_ROW: &str = "birth";

/// The bundles: [`key`] → piece.
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
/// Bytes of a bundle at most, unless it is of a single record: whoever reads one record has to look through its bundle.
const BUNDLE_BYTES_MAX: usize = PIECE_PAGES_MAX * PAGE_BYTES - ROW_OVERHEAD_BYTES;
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

/// No record has a higher index: keys have 56 bits for it.
pub(super) const INDEX_MAX: u64 = (1 << 56) - 1;

/// The key of a piece of the bundle whose first record has this index.
pub(super) fn key(index: u64, piece: u64) -> u64 {
    assert!((1..=INDEX_MAX).contains(&index) && piece < PIECES_MAX, "key of {index}/{piece}");
    index << 8 | piece
}

/// The index of a key.
pub(super) fn index_of(key: u64) -> u64 {
    key >> 8
}

/// The keys of all bundles that begin at this record or before it.
pub(super) fn keys_through(index: u64) -> std::ops::RangeInclusive<u64> {
    HARD_STATE_KEY + 1..=key(index, PIECES_MAX - 1)
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

    /// Puts the record behind what is there.
    fn encode(&self, stamped: Option<Stamped>, to: &mut Vec<u8>) {
        assert!(self.data.len() < RECORD_BYTES_MAX, "record {} of {} bytes", self.index, self.data.len());
        let begin = to.len();
        to.put_u32_le(0);
        to.put_u8(self.kind as u8);
        to.put_u8(if stamped.is_some() { FLAG_STAMPED } else { 0 });
        to.put_u32_le(self.data.len() as u32);
        to.put_u64_le(self.term);
        if let Some(stamped) = stamped {
            stamped.put(to);
        }
        to.extend_from_slice(&self.data);
        let crc = crc32fast::hash(&to[begin + CRC_BYTES..]);
        to[begin..begin + CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
    }

    /// Bytes it takes encoded, at most.
    fn encoded_bytes_max(&self) -> usize {
        HEADER_BYTES + STAMPED_BYTES + self.data.len()
    }
}

/// The rows of records that follow on each other, in order. The last of the records gets what is stamped. `scratch` is used again
/// and again.
pub(super) fn rows<E>(
    records: &[LogRecord],
    stamped: Option<Stamped>,
    scratch: &mut Vec<u8>,
    mut put: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut left = records.iter().peekable();
    while let Some(first) = left.next() {
        scratch.clear();
        let mut record = first;
        loop {
            record.encode(stamped.filter(|_| left.peek().is_none()), scratch);
            let fits = |next: &&LogRecord| scratch.len() + next.encoded_bytes_max() <= BUNDLE_BYTES_MAX;
            match left.next_if(fits) {
                Some(next) => record = next,
                None => break,
            }
        }
        let (mut rest, mut piece) = (scratch.as_slice(), 0);
        while !rest.is_empty() {
            let (this, behind) = rest.split_at(piece_len(rest.len()));
            put(key(first.index, piece), this)?;
            (rest, piece) = (behind, piece + 1);
        }
    }
    scratch.shrink_to(BUNDLE_BYTES_MAX);
    Ok(())
}

/// A bundle whose records are looked through, one after the other.
pub(super) struct Bundle<'a> {
    segment: &'a str,
    next: u64,
    rest: &'a [u8],
}

/// A record as it stands in a bundle.
pub(super) struct Encoded<'a> {
    pub index: u64,
    pub term: u64,
    pub stamped: Option<Stamped>,
    pub data: &'a [u8],
    kind: RecordKind,
    crc: u32,
    covered: &'a [u8],
}

impl<'a> Bundle<'a> {
    /// All pieces, put together; the first record has the index `first`.
    pub(super) fn of(segment: &'a str, first: u64, bytes: &'a [u8]) -> Bundle<'a> {
        Bundle { segment, next: first, rest: bytes }
    }

    /// The next record; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Encoded<'a>>, LogError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let index = self.next;
        let damaged = |what: &str| LogError::damaged(self.segment, format!("record {index} {what}"));
        let mut rest = self.rest;
        if rest.len() < HEADER_BYTES {
            return Err(damaged("is too short"));
        }
        let crc = rest.get_u32_le();
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
        let (data, behind) = rest.split_at_checked(data_len).ok_or_else(|| damaged("is not there whole"))?;
        let covered = &covered[..covered.len() - behind.len()];
        (self.next, self.rest) = (index + 1, behind);
        Ok(Some(Encoded { index, term, stamped, data, kind, crc, covered }))
    }
}

/// A bundle that was read: all of its bytes, and where its records begin.
pub(super) struct Whole {
    first: u64,
    begins: Vec<u32>,
    bytes: Vec<u8>,
}

impl Whole {
    /// All pieces, put together; the first record has the index `first`.
    pub(super) fn of(segment: &str, first: u64, bytes: Vec<u8>) -> Result<Whole, LogError> {
        let mut begins = Vec::new();
        let mut bundle = Bundle::of(segment, first, &bytes);
        loop {
            let begin = bytes.len() - bundle.rest.len();
            if bundle.next()?.is_none() {
                break;
            }
            begins.push(u32::try_from(begin).expect("a bundle is smaller than that"));
        }
        Ok(Whole { first, begins, bytes })
    }

    /// The indexes of its records.
    pub(super) fn indexes(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.begins.len() as u64
    }

    /// One of them.
    pub(super) fn get<'a>(&'a self, segment: &'a str, index: u64) -> Result<Option<Encoded<'a>>, LogError> {
        let place = index.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        match place.and_then(|place| self.begins.get(place)) {
            Some(begin) => Bundle::of(segment, index, &self.bytes[*begin as usize..]).next(),
            None => Ok(None),
        }
    }
}

impl Encoded<'_> {
    /// The record, checked against its checksum.
    pub(super) fn record(&self, segment: &str) -> Result<LogRecord, LogError> {
        let Encoded { index, term, kind, data, .. } = *self;
        if crc32fast::hash(self.covered) != self.crc {
            return Err(LogError::damaged(segment, format!("record {index} does not match its checksum")));
        }
        Ok(LogRecord { index, term, kind, data: Bytes::copy_from_slice(data) })
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

    fn record(index: u64, len: usize) -> LogRecord {
        let data = (0..len).map(|i| (i as u64 * 7 + index) as u8).collect::<Vec<_>>().into();
        LogRecord { index, term: 3, kind: RecordKind::ConfChange, data }
    }

    const STAMPED: Stamped =
        Stamped { stamp: 9, segment_bytes: 8, hard_state: HardState { term: 3, vote: 2, commit: 1 } };

    fn rows_of(records: &[LogRecord]) -> Vec<(u64, Vec<u8>)> {
        let mut all = Vec::new();
        let put = |k, row: &[u8]| {
            all.push((k, row.to_vec()));
            Ok::<_, ()>(())
        };
        rows(records, Some(STAMPED), &mut Vec::new(), put).unwrap();
        all
    }

    /// What is in these rows, and what is stamped on the last record.
    fn read(rows: &[(u64, Vec<u8>)]) -> Result<(Vec<LogRecord>, Option<Stamped>), LogError> {
        let (mut records, mut stamped) = (Vec::new(), None);
        for bundle in rows.chunk_by(|(a, _), (b, _)| index_of(*a) == index_of(*b)) {
            let keys: Vec<u64> = bundle.iter().map(|(k, _)| *k).collect();
            let first = index_of(keys[0]);
            assert!(keys.iter().zip(0..).all(|(k, piece)| *k == key(first, piece)), "{keys:?}");
            let bytes = bundle.iter().flat_map(|(_, row)| row.iter().copied()).collect::<Vec<_>>();
            let mut bundle = Bundle::of("s", first, &bytes);
            while let Some(encoded) = bundle.next()? {
                assert_eq!(stamped, None, "it is on the last one");
                stamped = encoded.stamped;
                records.push(encoded.record("s")?);
            }
        }
        Ok((records, stamped))
    }

    #[test]
    fn records_survive_their_bundles() {
        let lens: [&[usize]; 8] = [
            &[0],
            &[4_000, 0, 1],
            &[4_080],
            &[70_000; 13],
            &[70_000; 20],
            &[10, 3_000_000, 10],
            &[100; 500],
            &[BUNDLE_BYTES_MAX - HEADER_BYTES - STAMPED_BYTES, 1],
        ];
        for lens in lens {
            let records: Vec<_> = lens.iter().zip(7..).map(|(len, index)| record(index, *len)).collect();
            let mut rows = rows_of(&records);
            assert_eq!(read(&rows).unwrap(), (records, Some(STAMPED)));
            let last = rows.last_mut().unwrap().1.last_mut().unwrap();
            *last ^= 1;
            assert!(matches!(read(&rows), Err(LogError::Damaged { .. })), "{lens:?}");
        }
    }

    #[test]
    fn what_the_journal_gathered_is_few_rows() {
        let records: Vec<_> = (1..=13).map(|index| record(index, 78_000)).collect();
        assert_eq!(rows_of(&records).len(), 1, "a MiB, but for less than an eighth");
        let records: Vec<_> = (1..=300).map(|index| record(index, 150)).collect();
        assert!(rows_of(&records).len() <= 3);
    }

    #[test]
    fn a_bundle_that_is_cut_short_is_damaged() {
        let (_, row) = rows_of(&[record(7, 30), record(8, 40)]).remove(0);
        let whole = HEADER_BYTES + 30;
        for len in (1..row.len()).filter(|len| *len != whole) {
            assert!(
                matches!(read(&[(key(7, 0), row[..len].to_vec())]), Err(LogError::Damaged { .. })),
                "{len}"
            );
        }
    }
}
