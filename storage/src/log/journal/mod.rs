//! A journal below redb: what a small commit writes goes to the disk in one piece.
//!
//! redb writes a commit's pages where they belong, half a dozen places even for a single row, and a sync takes the
//! longer the more places there are. So the pages of a small commit are put one behind the other into a record of the
//! journal, which is all that its sync has to write. Where they belong they are written later, all that gathered at
//! once, and most of them not at all, for the next commits replace them.
//!
//! ```text
//!  0      4 KiB             + half             + 2 halves
//!  ┌──────┬─────────────────┬──────────────────┬─────────────────────
//!  │ head │ records 41 42 … │ 17 18 … 40       │ redb's bytes
//!  └──────┴─────────────────┴──────────────────┴─────────────────────
//! ```
//!
//! Records are numbered without gaps, and those of a half follow each other from its beginning. When one is full, what
//! is in memory is written to its place, and the next record begins the other half: the sync of that record is the one
//! of those pages, too, and until it is through, the full half still has them. Opening replays the older half, if the
//! newer one follows it, and then the newer one: at worst pages are written again as they are.
//!
//! A large commit gains nothing and would be written twice; it goes to its place at once. If there are records that
//! a replay would put over it, a last one that voids them follows it, with a sync of its own. So after a large commit
//! the next ones go to their places, too, until enough small ones came in a row.
//!
//! A file's space may be that of a former segment, whose records must never be taken for its own: numbers begin
//! above all that are found in it.

#[cfg(test)]
mod tests;

use super::backend::PAGE_BYTES;
use bytes::{Buf, BufMut};
use parking_lot::{Mutex, MutexGuard};
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;

/// Tells the head.
const HEAD_MAGIC: [u8; 8] = *b"WARRENJ1";
/// Magic, bytes of a half, CRC-32 of these.
const HEAD_BYTES: usize = 8 + 8 + 4;
/// Tells a record.
const RECORD_MAGIC: [u8; 8] = *b"WARRENJR";
/// CRC-32 of all that follows it, flags, sequence, bytes of pieces.
const RECORD_HEADER_BYTES: usize = RECORD_MAGIC.len() + 4 + 4 + 8 + 8;
/// Where the CRC is, and what it covers begins.
const CRC_AT: usize = RECORD_MAGIC.len();
const CRC_BYTES: usize = 4;
/// Flag: all records before this one are void.
const FLAG_VOID: u32 = 1;
/// Offset, bytes, and how many of these follow: the rest are zeros.
const PIECE_HEADER_BYTES: usize = 8 + 4 + 4;
/// Bytes of a commit that goes through the journal, at most, if a half has room for them.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// So many small commits in a row go to their places after a large one, before the journal is used again.
const SMALL_IN_A_ROW: u32 = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Journaled {
    inner: Box<dyn StorageBackend>,
    half_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What was written since the last sync, as the record it is to become; empty: nothing was.
    gathering: Vec<u8>,
    /// Of pages that are not where they belong: those of the half that is written, and those gathering.
    pages: BTreeMap<u64, Box<[u8]>>,
    /// What is written goes to its place, until so many small commits came in a row.
    direct: u32,
    /// Bytes written since the last sync.
    batch_bytes: usize,
    /// Of the next record.
    sequence: u64,
    /// The half with the last record, and where in it the next one goes.
    half: u64,
    at: u64,
    /// Are there records which an open would replay?
    live: bool,
    /// Something failed, and nobody knows what is on the disk.
    failed: bool,
}

/// A record as it was found.
struct Found {
    sequence: u64,
    void: bool,
    pieces: Vec<u8>,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Where redb's bytes begin.
fn body(half_bytes: u64) -> u64 {
    PAGE_BYTES + 2 * half_bytes
}

fn padded(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(PAGE_BYTES)
}

fn encode_head(half_bytes: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&HEAD_MAGIC);
    head[8..16].copy_from_slice(&half_bytes.to_le_bytes());
    let crc = crc32fast::hash(&head[..16]);
    head[16..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Bytes of a half.
fn decode_head(head: &[u8; HEAD_BYTES]) -> io::Result<u64> {
    let crc = u32::from_le_bytes(head[16..].try_into().expect("4 bytes"));
    if head[..8] != HEAD_MAGIC || crc != crc32fast::hash(&head[..16]) {
        return Err(invalid("the file has no journal"));
    }
    Ok(u64::from_le_bytes(head[8..16].try_into().expect("8 bytes")))
}

fn begin_record(record: &mut Vec<u8>) {
    record.clear();
    record.resize(RECORD_HEADER_BYTES, 0);
}

fn put_piece(record: &mut Vec<u8>, offset: u64, data: &[u8]) {
    const ZEROS: [u8; 64] = [0; 64];
    let empty = data.rchunks(ZEROS.len()).take_while(|chunk| **chunk == ZEROS[..chunk.len()]).count();
    let kept = &data[..data.len().saturating_sub(empty * ZEROS.len())];
    record.put_u64_le(offset);
    record.put_u32_le(data.len() as u32);
    record.put_u32_le(kept.len() as u32);
    record.extend_from_slice(kept);
}

/// Completes a record that has its pieces.
fn seal_record(record: &mut Vec<u8>, flags: u32, sequence: u64) {
    let bytes = (record.len() - RECORD_HEADER_BYTES) as u64;
    let mut header = &mut record[..RECORD_HEADER_BYTES];
    header.put_slice(&RECORD_MAGIC);
    header.put_u32_le(0);
    header.put_u32_le(flags);
    header.put_u64_le(sequence);
    header.put_u64_le(bytes);
    let crc = crc32fast::hash(&record[CRC_AT + CRC_BYTES..]);
    record[CRC_AT..CRC_AT + CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
    record.resize(padded(record.len()) as usize, 0);
}

/// The record at the beginning of `bytes`, if there is one.
fn find_record(bytes: &[u8]) -> Option<Found> {
    let mut header = bytes.get(..RECORD_HEADER_BYTES)?;
    if !header.starts_with(&RECORD_MAGIC) {
        return None;
    }
    header.advance(RECORD_MAGIC.len());
    let crc = header.get_u32_le();
    let (flags, sequence, len) = (header.get_u32_le(), header.get_u64_le(), header.get_u64_le());
    let end = RECORD_HEADER_BYTES.checked_add(usize::try_from(len).ok()?)?;
    if crc32fast::hash(bytes.get(CRC_AT + CRC_BYTES..end)?) != crc {
        return None;
    }
    let pieces = bytes[RECORD_HEADER_BYTES..end].to_vec();
    Some(Found { sequence, void: flags & FLAG_VOID != 0, pieces })
}

impl Found {
    /// What it takes of its half.
    fn padded_bytes(&self) -> u64 {
        padded(RECORD_HEADER_BYTES + self.pieces.len())
    }

    fn each_piece(&self, mut put: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut rest = &self.pieces[..];
        let mut piece = Vec::new();
        while rest.len() >= PIECE_HEADER_BYTES {
            let (offset, len, kept) = (rest.get_u64_le(), rest.get_u32_le(), rest.get_u32_le() as usize);
            piece.clear();
            piece.extend_from_slice(
                rest.get(..kept).ok_or_else(|| invalid("a record of the journal is odd"))?,
            );
            piece.resize(len as usize, 0);
            rest.advance(kept);
            put(offset, &piece)?;
        }
        Ok(())
    }
}

impl Journaled {
    /// In a file that is empty. `journal_bytes`: for both halves; one takes a page at least.
    pub(super) fn create(inner: Box<dyn StorageBackend>, journal_bytes: u64) -> io::Result<Journaled> {
        let half_bytes = (journal_bytes / 2).next_multiple_of(PAGE_BYTES).max(PAGE_BYTES);
        inner.set_len(body(half_bytes))?;
        let mut sequence = 0;
        for half in 0..2 {
            let bytes = read_half(&*inner, half_bytes, half)?;
            for at in (0..bytes.len()).step_by(PAGE_BYTES as usize) {
                sequence = find_record(&bytes[at..]).map_or(sequence, |found| sequence.max(found.sequence));
            }
        }
        let mut head = vec![0; PAGE_BYTES as usize];
        head[..HEAD_BYTES].copy_from_slice(&encode_head(half_bytes));
        inner.write(0, &head)?;
        // One is left out, so that the first record follows no other. It is durable with the first sync.
        let journaled = Journaled::assemble(inner, half_bytes, sequence + 2);
        journaled.write_void(&mut journaled.state.lock())?;
        Ok(journaled)
    }

    /// In a file that has a journal; what is in it is replayed.
    pub(super) fn open(inner: Box<dyn StorageBackend>) -> io::Result<Journaled> {
        let len = inner.len()?;
        let mut head = [0; HEAD_BYTES];
        if len < PAGE_BYTES {
            return Err(invalid("the file has no journal"));
        }
        inner.read(0, &mut head)?;
        let half_bytes = decode_head(&head)?;
        if half_bytes > len / 2 || len < body(half_bytes) {
            return Err(invalid("the file ends within its journal"));
        }
        let (mut older, mut newer) =
            (read_records(&*inner, half_bytes, 0)?, read_records(&*inner, half_bytes, 1)?);
        let first = |records: &Vec<Found>| records.first().map(|record| record.sequence);
        let half = u64::from(first(&newer) > first(&older));
        if half == 0 {
            std::mem::swap(&mut older, &mut newer);
        }
        let Some(last) = newer.last() else {
            return Err(invalid("there is no record in the file's journal"));
        };
        let (sequence, at) = (last.sequence + 1, newer.iter().map(Found::padded_bytes).sum());
        let joined = older.last().is_some_and(|last| Some(last.sequence + 1) == first(&newer));
        let mut records = if joined { older } else { Vec::new() };
        records.append(&mut newer);
        let void = records.iter().rposition(|record| record.void).map_or(0, |at| at + 1);
        let replayed = &records[void..];
        for record in replayed {
            record.each_piece(|offset, piece| {
                // A length that is not durable, and what lies beyond it, were never acknowledged.
                let offset = body(half_bytes) + offset;
                if offset + piece.len() as u64 <= len { inner.write(offset, piece) } else { Ok(()) }
            })?;
        }
        let journaled = Journaled::assemble(inner, half_bytes, sequence);
        {
            // Behind the newest record: without that one, an older half would be taken for the newer.
            let state = &mut *journaled.state.lock();
            (state.half, state.at, state.live) = (half, at, !replayed.is_empty());
            if state.live {
                journaled.inner.sync_data()?;
                journaled.void(state)?;
            }
        }
        Ok(journaled)
    }

    fn assemble(inner: Box<dyn StorageBackend>, half_bytes: u64, sequence: u64) -> Journaled {
        let state = State {
            gathering: Vec::new(),
            pages: BTreeMap::new(),
            direct: 0,
            batch_bytes: 0,
            sequence,
            half: 0,
            at: 0,
            live: false,
            failed: false,
        };
        Journaled { inner, half_bytes, state: Mutex::new(state) }
    }

    fn body(&self) -> u64 {
        body(self.half_bytes)
    }

    /// Runs what writes. After a failure nothing is written any more.
    fn guarded<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state: MutexGuard<'_, State> = self.state.lock();
        if state.failed {
            return Err(io::Error::other(
                "an earlier write of this file failed; what it wrote since may be lost",
            ));
        }
        let done = act(&mut state);
        state.failed = done.is_err();
        done
    }

    /// Writes all pages to their places, neighbours together.
    fn settle(&self, state: &mut State) -> io::Result<()> {
        let mut run: Vec<u8> = Vec::new();
        let mut begin = 0;
        for (page, bytes) in std::mem::take(&mut state.pages) {
            if !run.is_empty() && begin * PAGE_BYTES + run.len() as u64 != page * PAGE_BYTES {
                self.inner.write(self.body() + begin * PAGE_BYTES, &run)?;
                run.clear();
            }
            if run.is_empty() {
                begin = page;
            }
            run.extend_from_slice(&bytes);
        }
        if run.is_empty() { Ok(()) } else { self.inner.write(self.body() + begin * PAGE_BYTES, &run) }
    }

    /// What gathered goes to its place, and what is written until the next sync, too.
    fn go_direct(&self, state: &mut State) -> io::Result<()> {
        state.gathering.clear();
        state.direct = SMALL_IN_A_ROW;
        self.settle(state)
    }

    /// Writes a sealed record behind the last one. In the other half, if this one is full; then `pages` is to be settled
    /// before.
    fn write_record(&self, state: &mut State, record: &[u8]) -> io::Result<()> {
        if state.at + record.len() as u64 > self.half_bytes {
            (state.half, state.at) = (1 - state.half, 0);
        }
        self.inner.write(PAGE_BYTES + state.half * self.half_bytes + state.at, record)?;
        state.at += record.len() as u64;
        state.sequence += 1;
        Ok(())
    }

    /// Makes sure that nothing is replayed any more. All must be in its place, durably.
    fn void(&self, state: &mut State) -> io::Result<()> {
        if std::mem::take(&mut state.live) {
            self.write_void(state)?;
            self.inner.sync_data()?;
        }
        Ok(())
    }

    fn write_void(&self, state: &mut State) -> io::Result<()> {
        let mut record = Vec::new();
        begin_record(&mut record);
        seal_record(&mut record, FLAG_VOID, state.sequence);
        self.write_record(state, &record)
    }

    fn put_pages(&self, state: &mut State, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset + data.len() as u64;
        for page in offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            let (from, to) = ((page * PAGE_BYTES).max(offset), ((page + 1) * PAGE_BYTES).min(end));
            let bytes = match state.pages.entry(page) {
                std::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
                std::collections::btree_map::Entry::Vacant(vacant) => {
                    let mut bytes = vec![0; PAGE_BYTES as usize].into_boxed_slice();
                    if to - from < PAGE_BYTES {
                        self.inner.read(self.body() + page * PAGE_BYTES, &mut bytes)?;
                    }
                    vacant.insert(bytes)
                }
            };
            let at = (from - page * PAGE_BYTES) as usize;
            bytes[at..at + (to - from) as usize]
                .copy_from_slice(&data[(from - offset) as usize..(to - offset) as usize]);
        }
        Ok(())
    }
}

/// The records that follow each other from the beginning of a half.
fn read_records(inner: &dyn StorageBackend, half_bytes: u64, half: u64) -> io::Result<Vec<Found>> {
    let bytes = read_half(inner, half_bytes, half)?;
    let mut records: Vec<Found> = Vec::new();
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(find_record) {
        if records.last().is_some_and(|last| last.sequence + 1 != found.sequence) {
            break;
        }
        at += found.padded_bytes() as usize;
        records.push(found);
    }
    Ok(records)
}

fn read_half(inner: &dyn StorageBackend, half_bytes: u64, half: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; half_bytes as usize];
    inner.read(PAGE_BYTES + half * half_bytes, &mut bytes)?;
    Ok(bytes)
}

impl StorageBackend for Journaled {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner.len()?.saturating_sub(self.body()))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock();
        self.inner.read(self.body() + offset, out)?;
        let end = offset + out.len() as u64;
        for (page, bytes) in state.pages.range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
            let (from, to) = ((page * PAGE_BYTES).max(offset), ((page + 1) * PAGE_BYTES).min(end));
            let at = (from - page * PAGE_BYTES) as usize;
            out[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&bytes[at..at + (to - from) as usize]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.guarded(|state| {
            if len < self.len()? {
                // No record may bring back what is cut off.
                self.go_direct(state)?;
            }
            self.inner.set_len(self.body() + len)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.guarded(|state| {
            let small = std::mem::take(&mut state.batch_bytes) <= SMALL_BYTES_MAX;
            if state.direct > 0 {
                state.direct = if small { state.direct - 1 } else { SMALL_IN_A_ROW };
                self.inner.sync_data()?;
                return self.void(state);
            }
            if state.gathering.is_empty() {
                return self.inner.sync_data();
            }
            let mut record = std::mem::take(&mut state.gathering);
            seal_record(&mut record, 0, state.sequence);
            if state.at + record.len() as u64 > self.half_bytes {
                self.settle(state)?;
            }
            self.write_record(state, &record)?;
            self.inner.sync_data()?;
            state.live = true;
            // Its space is used again.
            record.clear();
            state.gathering = record;
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.guarded(|state| {
            state.batch_bytes += data.len();
            if state.direct == 0 {
                if state.gathering.is_empty() {
                    begin_record(&mut state.gathering);
                }
                let bytes = state.gathering.len() + PIECE_HEADER_BYTES + data.len();
                if state.batch_bytes <= SMALL_BYTES_MAX && padded(bytes) <= self.half_bytes {
                    put_piece(&mut state.gathering, offset, data);
                    return self.put_pages(state, offset, data);
                }
                self.go_direct(state)?;
            }
            self.inner.write(self.body() + offset, data)
        })
    }

    /// Leaves a file in which there is nothing to replay.
    fn close(&self) -> io::Result<()> {
        let done = self.guarded(|state| {
            if state.live || !state.pages.is_empty() {
                self.go_direct(state)?;
                self.inner.sync_data()?;
                self.void(state)?;
            }
            Ok(())
        });
        self.inner.close().and(done)
    }
}
