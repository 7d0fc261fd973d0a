//! The journal of the segment that is written: small appends go there first.
//!
//! A commit of redb writes a dozen pages even for a single row, and takes longer to prepare than a write of a hundred KiB to
//! reach the disk. So a small append becomes one record of the journal, which is all that its sync has to write, and stays in
//! memory beside it. With the next append that is large, or finds the journal full, all that gathered goes into redb in one
//! commit, and the journal begins again at its beginning.
//!
//! ```text
//!  0      4 KiB                                  + journal
//!  ┌──────┬─────────┬─────────┬─────────┬─ ─ ─ ─┬─────────────────────
//!  │ head │ stamp 8 │ stamp 9 │ stamp 3 │       │ redb's bytes: all up to stamp 7
//!  └──────┴─────────┴─────────┴─────────┴─ ─ ─ ─┴─────────────────────
//! ```
//!
//! Each append of a log has a stamp, one above the one before ([`Stamped::stamp`]). What counts is the row of records from the
//! beginning whose stamps go on from what redb has; those of an earlier round have lower ones. So redb's commit voids the
//! journal, and nothing has to be erased. Opening puts what counts into redb.
//!
//! A file's space may be that of a former segment, whose records must never be taken for its own: the checksum of each
//! covers which segment it is of ([`Journal::of`]).

use super::LogError;
use super::backend::PAGE_BYTES;
use super::tables::{Birth, LogRecord, RecordKind, Stamped};
use bytes::{Buf, BufMut};
use parking_lot::Mutex;
use redb::StorageBackend;
use std::io;
use std::sync::Arc;

/// Tells the head.
const HEAD_MAGIC: [u8; 8] = *b"WARRENJ2";
/// What it was in format 1.
const HEAD_MAGIC_1: [u8; 8] = *b"WARRENJ1";
/// Magic, bytes of the journal, CRC-32 of these.
const HEAD_BYTES: usize = 8 + 8 + 4;
/// CRC-32 of the segment and all that follows it, bytes behind it.
const RECORD_HEADER_BYTES: usize = CRC_BYTES + 4;
const CRC_BYTES: usize = 4;
/// Index, term, kind, bytes of data.
const ENTRY_HEADER_BYTES: usize = 8 + 8 + 1 + 4;
/// Bytes of an append that goes into the journal, at most; a larger one would be written twice and spare redb little.
const APPEND_BYTES_MAX: usize = 512 << 10;

fn padded(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(PAGE_BYTES)
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// What the journal had that redb has not.
#[derive(Default)]
pub(super) struct Found {
    /// In order, without gaps.
    pub records: Vec<LogRecord>,
    /// Of the last append.
    pub stamped: Option<Stamped>,
}

/// The file behind journal and redb.
#[derive(Clone, Debug)]
pub(super) struct Halved {
    inner: Arc<dyn StorageBackend>,
    journal_bytes: u64,
}

impl Halved {
    /// An empty file, divided.
    pub(super) fn create(inner: Box<dyn StorageBackend>, journal_bytes: u64) -> io::Result<Halved> {
        let halved =
            Halved { inner: inner.into(), journal_bytes: journal_bytes.next_multiple_of(PAGE_BYTES) };
        let mut head = vec![0; PAGE_BYTES as usize];
        head[..8].copy_from_slice(&HEAD_MAGIC);
        head[8..16].copy_from_slice(&halved.journal_bytes.to_le_bytes());
        let crc = crc32fast::hash(&head[..16]);
        head[16..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        halved.inner.set_len(halved.body())?;
        // It is durable with the first commit.
        halved.inner.write(0, &head)?;
        Ok(halved)
    }

    /// A file that was divided. `Err(Some(format))` for one of another format.
    pub(super) fn open(inner: Box<dyn StorageBackend>) -> io::Result<Result<Halved, u32>> {
        let len = inner.len()?;
        let mut head = [0; HEAD_BYTES];
        if len < PAGE_BYTES {
            return Err(invalid("it has no head"));
        }
        inner.read(0, &mut head)?;
        let crc = u32::from_le_bytes(head[16..].try_into().expect("4 bytes"));
        if crc != crc32fast::hash(&head[..16]) {
            return Err(invalid("its head does not match its checksum"));
        }
        if head[..8] == HEAD_MAGIC_1 {
            return Ok(Err(1));
        }
        let journal_bytes = u64::from_le_bytes(head[8..16].try_into().expect("8 bytes"));
        if head[..8] != HEAD_MAGIC || journal_bytes % PAGE_BYTES != 0 || journal_bytes > len - PAGE_BYTES {
            return Err(invalid("it has no head"));
        }
        Ok(Ok(Halved { inner: inner.into(), journal_bytes }))
    }

    /// Where redb's bytes begin.
    fn body(&self) -> u64 {
        PAGE_BYTES + self.journal_bytes
    }
}

/// redb's part of it.
impl StorageBackend for Halved {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner.len()?.saturating_sub(self.body()))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(self.body() + offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(self.body() + len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(self.body() + offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Journal {
    file: Halved,
    /// CRC-32 of what tells the segment from others.
    segment: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes that are taken.
    at: u64,
    /// The record that is being made; its space is used again.
    record: Vec<u8>,
}

impl Journal {
    /// Of this segment.
    pub(super) fn of(file: Halved, birth: &Birth) -> Journal {
        let mut segment = [0; 24];
        let mut put = &mut segment[..];
        put.put_u64_le(birth.sequence);
        put.put_u64_le(birth.base_index);
        put.put_u64_le(birth.base_term);
        Journal { file, segment: crc32fast::hash(&segment), state: Mutex::default() }
    }

    fn crc(&self, covered: &[u8]) -> u32 {
        let mut crc = crc32fast::Hasher::new_with_initial(self.segment);
        crc.update(covered);
        crc.finalize()
    }

    /// Makes a small append durable. False when it is too large, or finds no room: then redb is to take it, with all that is
    /// here.
    pub(super) fn append(&self, records: &[LogRecord], stamped: Stamped) -> io::Result<bool> {
        let data: usize = records.iter().map(|record| ENTRY_HEADER_BYTES + record.data.len()).sum();
        let bytes = RECORD_HEADER_BYTES + Stamped::BYTES + data;
        let state = &mut *self.state.lock();
        if bytes > APPEND_BYTES_MAX || state.at + padded(bytes) > self.file.journal_bytes {
            return Ok(false);
        }
        let record = &mut state.record;
        record.clear();
        record.put_u32_le(0);
        record.put_u32_le((bytes - RECORD_HEADER_BYTES) as u32);
        stamped.put(record);
        for one in records {
            record.put_u64_le(one.index);
            record.put_u64_le(one.term);
            record.put_u8(one.kind as u8);
            record.put_u32_le(one.data.len() as u32);
            record.put_slice(&one.data);
        }
        let crc = self.crc(&record[CRC_BYTES..]);
        record[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
        record.resize(padded(bytes) as usize, 0);
        self.file.inner.write(PAGE_BYTES + state.at, record)?;
        self.file.inner.sync_data()?;
        state.at += padded(bytes);
        Ok(true)
    }

    /// redb has all that is here: it begins anew.
    pub(super) fn begin(&self) {
        self.state.lock().at = 0;
    }

    /// What is here and goes on from this stamp.
    pub(super) fn since(&self, name: &str, stamp: u64) -> Result<Found, LogError> {
        let failed = |e: io::Error| LogError::engine("cannot read the journal of", name, redb::Error::Io(e));
        let mut bytes = vec![0; self.file.journal_bytes as usize];
        self.file.inner.read(PAGE_BYTES, &mut bytes).map_err(failed)?;
        let mut found = Found::default();
        let (mut at, mut stamp) = (0, stamp);
        while let Some((stamped, mut entries)) = self.record(&bytes[at..]) {
            if stamped.stamp != stamp + 1 {
                break;
            }
            at += padded(RECORD_HEADER_BYTES + Stamped::BYTES + entries.len()) as usize;
            stamp = stamped.stamp;
            found.stamped = Some(stamped);
            while entries.has_remaining() {
                let record = entry(&mut entries)
                    .ok_or_else(|| LogError::damaged(name, "its journal has a record that nobody wrote"))?;
                found.records.push(record);
            }
        }
        Ok(found)
    }

    /// The record at the beginning of `bytes`, if there is one: its stamp and its entries.
    fn record<'a>(&self, bytes: &'a [u8]) -> Option<(Stamped, &'a [u8])> {
        let mut header = bytes.get(..RECORD_HEADER_BYTES)?;
        let (crc, len) = (header.get_u32_le(), header.get_u32_le() as usize);
        let covered = bytes.get(CRC_BYTES..RECORD_HEADER_BYTES.checked_add(len)?)?;
        if len < Stamped::BYTES || self.crc(covered) != crc {
            return None;
        }
        let mut body = &covered[RECORD_HEADER_BYTES - CRC_BYTES..];
        Some((Stamped::take(&mut body), body))
    }
}

fn entry(from: &mut &[u8]) -> Option<LogRecord> {
    if from.len() < ENTRY_HEADER_BYTES {
        return None;
    }
    let (index, term) = (from.get_u64_le(), from.get_u64_le());
    let kind = RecordKind::of(from.get_u8())?;
    let len = from.get_u32_le() as usize;
    let data = from.get(..len)?.to_vec().into();
    from.advance(len);
    Some(LogRecord { index, term, kind, data })
}

#[cfg(test)]
mod tests {
    use super::super::tables::HardState;
    use super::*;
    use crate::disk::Disk;
    use crate::simdisk::SimDisk;

    const JOURNAL_BYTES: u64 = 5 * PAGE_BYTES;
    const BIRTH: Birth = Birth { sequence: 3, base_index: 10, base_term: 2, chain: Vec::new() };

    fn stamped(stamp: u64) -> Stamped {
        Stamped {
            stamp,
            segment_bytes: stamp * 100,
            hard_state: HardState { term: 4, vote: 1, commit: stamp },
        }
    }

    fn record(index: u64, bytes: usize) -> LogRecord {
        LogRecord { index, term: 4, kind: RecordKind::ConfChangeV2, data: vec![index as u8; bytes].into() }
    }

    fn file(disk: &SimDisk) -> Halved {
        match disk.exists("file").unwrap() {
            true => Halved::open(disk.open("file", 1).unwrap()).unwrap().unwrap(),
            false => Halved::create(disk.open("file", 1).unwrap(), JOURNAL_BYTES).unwrap(),
        }
    }

    #[test]
    fn what_goes_on_from_redb_is_found_and_what_is_of_another_round_is_not() {
        let disk = SimDisk::new();
        let journal = Journal::of(file(&disk), &BIRTH);
        assert!(journal.append(&[record(11, 100), record(12, 0)], stamped(8)).unwrap());
        assert!(journal.append(&[], stamped(9)).unwrap());
        assert!(journal.append(&[record(13, 5_000)], stamped(10)).unwrap());
        let found = |stamp| {
            let found = Journal::of(file(&disk), &BIRTH).since("s", stamp).unwrap();
            (found.records, found.stamped.map(|stamped| stamped.stamp))
        };
        let all = vec![record(11, 100), record(12, 0), record(13, 5_000)];
        assert_eq!(found(7), (all, Some(10)));
        assert_eq!(found(10), (Vec::new(), None), "redb has them");
        // Four of five pages are taken.
        assert!(!journal.append(&[record(14, 5_000)], stamped(11)).unwrap(), "it finds no room");
        journal.begin();
        assert!(journal.append(&[record(15, 1)], stamped(12)).unwrap());
        assert_eq!(found(11), (vec![record(15, 1)], Some(12)), "behind it stands one of an earlier round");
    }

    #[test]
    fn a_large_append_is_not_for_the_journal() {
        let large = Halved::create(SimDisk::new().open("file", 1).unwrap(), 1 << 20).unwrap();
        let journal = Journal::of(large, &BIRTH);
        let room = APPEND_BYTES_MAX - RECORD_HEADER_BYTES - Stamped::BYTES - ENTRY_HEADER_BYTES;
        assert!(!journal.append(&[record(11, room + 1)], stamped(1)).unwrap());
        assert!(journal.append(&[record(11, room)], stamped(1)).unwrap());
    }

    #[test]
    fn what_stands_in_the_space_of_another_segment_is_not_taken() {
        let disk = SimDisk::new();
        assert!(Journal::of(file(&disk), &BIRTH).append(&[record(11, 1)], stamped(8)).unwrap());
        for other in [
            Birth { sequence: 4, ..BIRTH },
            Birth { base_index: 9, ..BIRTH },
            Birth { base_term: 3, ..BIRTH },
        ] {
            assert!(Journal::of(file(&disk), &other).since("s", 7).unwrap().records.is_empty(), "{other:?}");
        }
    }

    #[test]
    fn a_torn_record_ends_the_row() {
        let disk = SimDisk::new();
        let journal = Journal::of(file(&disk), &BIRTH);
        assert!(journal.append(&[record(11, 1)], stamped(8)).unwrap());
        assert!(journal.append(&[record(12, 3_000)], stamped(9)).unwrap());
        for at in [0, 5, 20, 2_500] {
            let (offset, mut byte) = (2 * PAGE_BYTES + at, [0]);
            journal.file.inner.read(offset, &mut byte).unwrap();
            journal.file.inner.write(offset, &[byte[0] ^ 1]).unwrap();
            assert_eq!(journal.since("s", 7).unwrap().records, [record(11, 1)], "byte {at}");
            journal.file.inner.write(offset, &byte).unwrap();
        }
        assert_eq!(journal.since("s", 7).unwrap().records.len(), 2);
    }

    #[test]
    fn a_file_of_another_format_is_told_from_a_damaged_one() {
        let disk = SimDisk::new();
        let halved = file(&disk);
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(&HEAD_MAGIC_1);
        let crc = crc32fast::hash(&head[..16]);
        head[16..].copy_from_slice(&crc.to_le_bytes());
        halved.inner.write(0, &head).unwrap();
        assert_eq!(Halved::open(disk.open("file", 1).unwrap()).unwrap().unwrap_err(), 1);
        halved.inner.write(0, &[1]).unwrap();
        let damaged = Halved::open(disk.open("file", 1).unwrap()).unwrap_err();
        assert_eq!(damaged.kind(), io::ErrorKind::InvalidData);
    }
}
