//! A file over zeroed space: what the log's segments stand on.
//!
//! When a sync has to allocate blocks, the file system commits its journal too; over blocks that were allocated and
//! written before, it writes just the data. So a thread of the folder zeroes space ahead of what is written
//! ([`AheadFile::zero_next`]), and since redb doubles a file's length in one step, its length is only a mark:
//!
//! ```text
//!  0        4 KiB     8 KiB                        8 KiB + length
//!  ┌─────────┬─────────┬──────────────────────────────┬──────────────────┐
//!  │ mark A  │ mark B  │ redb's bytes                 │ zeroed ahead     │
//!  └─────────┴─────────┴──────────────────────────────┴──────────────────┘
//! ```
//! The mark is written to A and B in turn, by the sync after it changed and within that sync, so a torn one leaves the one before.
//! A file with no mark at all was never synced and is empty.
//!
//! While it is in use it is written past the system's cache ([`super::past_cache`]): for zeros that would be memory for
//! nothing, and the log's own writes wait for the disk anyway, gathered until their sync ([`crate::gather`]).

use super::past_cache::{Aligned, Page, PastCache};
use super::read_ahead::ReadAhead;
use super::readonly::refused;
use super::sound::failed_before;
use crate::disk::BulkFile;
use crate::run::{PAGE_BYTES, Run};
use parking_lot::{Condvar, Mutex};
use redb::StorageBackend;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells the file.
const MAGIC: [u8; 8] = *b"WARRENZ1";
/// Version of this layout.
const FORMAT: u32 = 1;
/// One mark, with all the page it has to itself.
const MARK_PAGE_BYTES: u64 = PAGE_BYTES as u64;
/// Where redb's bytes begin.
pub(super) const HEADER_BYTES: u64 = 2 * MARK_PAGE_BYTES;
/// Magic, format, sequence, length, CRC-32 of these.
const MARK_BYTES: usize = 8 + 4 + 8 + 8 + 4;
/// The unit of zeroing: a write into a piece that is being zeroed waits for it.
pub(super) const PIECE_BYTES: u64 = 256 << 10;
/// Runs that were written and are used again, at most: as many as the journal has taken when redb takes it over.
const IDLE_RUNS_MAX: usize = 8;

/// A piece of zeros.
pub(super) static ZEROS: Aligned<{ PIECE_BYTES as usize }> = Aligned([0; PIECE_BYTES as usize]);

/// What is known of a piece of the file (the header not counted).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// Never touched: allocating it is up to the next write.
    Raw,
    /// The thread is writing zeros to it.
    Zeroing,
    /// Has its blocks, or what was written to it.
    Ready,
}

#[derive(Debug)]
struct State {
    /// As redb has it.
    len: u64,
    /// Of the mark on the disk.
    sequence: u64,
    /// Does `len` differ from it?
    mark_pending: bool,
    /// Below this, bytes may differ from zero.
    dirty_end: u64,
    pieces: Vec<Piece>,
}

/// See the module. Shared between redb and the thread that zeroes.
#[derive(Debug)]
pub(super) struct AheadFile {
    file: PastCache,
    reads: ReadAhead,
    ahead_bytes: u64,
    state: Mutex<State>,
    zeroed: Condvar,
    failed: AtomicBool,
}

fn encode_mark(sequence: u64, len: u64) -> [u8; MARK_BYTES] {
    let mut mark = [0; MARK_BYTES];
    mark[..8].copy_from_slice(&MAGIC);
    mark[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    mark[12..20].copy_from_slice(&sequence.to_le_bytes());
    mark[20..28].copy_from_slice(&len.to_le_bytes());
    let crc = crc32fast::hash(&mark[..28]);
    mark[28..].copy_from_slice(&crc.to_le_bytes());
    mark
}

/// (sequence, length) of a mark; `Ok(None)`: there is none, or a torn one.
fn decode_mark(mark: &[u8; MARK_BYTES]) -> io::Result<Option<(u64, u64)>> {
    let word = |at: usize| u64::from_le_bytes(mark[at..at + 8].try_into().expect("8 bytes"));
    let half = |at: usize| u32::from_le_bytes(mark[at..at + 4].try_into().expect("4 bytes"));
    if mark[..8] != MAGIC || half(28) != crc32fast::hash(&mark[..28]) {
        return Ok(None);
    }
    if half(8) != FORMAT {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the file has layout {}, and this version of Warren knows {FORMAT}", half(8)),
        ));
    }
    Ok(Some((word(12), word(20))))
}

/// Reads as far as the file goes; what is behind its end is zeros.
fn read_or_zeros(file: &File, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        match file.read_at(out, offset) {
            Ok(0) => {
                out.fill(0);
                return Ok(());
            }
            Ok(n) => {
                out = &mut out[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// (sequence, length), if it was ever synced.
fn latest_mark(file: &File) -> io::Result<Option<(u64, u64)>> {
    let mut latest = None;
    for slot in 0..2 {
        let mut mark = [0; MARK_BYTES];
        read_or_zeros(file, slot * MARK_PAGE_BYTES, &mut mark)?;
        latest = latest.max(decode_mark(&mark)?);
    }
    Ok(latest)
}

/// Such a file, to be looked at.
#[derive(Debug)]
pub(super) struct ReadOnlyAhead {
    file: File,
    len: u64,
}

impl ReadOnlyAhead {
    pub(super) fn open(file: File) -> io::Result<ReadOnlyAhead> {
        let (_, len) = latest_mark(&file)?.unwrap_or_default();
        Ok(ReadOnlyAhead { file, len })
    }
}

impl StorageBackend for ReadOnlyAhead {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.saturating_add(out.len() as u64) > self.len {
            return Err(beyond(offset, out.len(), self.len));
        }
        read_or_zeros(&self.file, HEADER_BYTES + offset, out)
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(refused())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Err(refused())
    }
}

impl AheadFile {
    pub(super) fn open(file: PastCache, ahead_bytes: u64) -> io::Result<Arc<AheadFile>> {
        let physical = file.file().metadata()?.len();
        let latest = latest_mark(file.file())?;
        let (sequence, len) = latest.unwrap_or((0, 0));
        // The last one may be there in part, with what was written to it: a full disk gave no more.
        let ready = physical.saturating_sub(HEADER_BYTES).div_ceil(PIECE_BYTES);
        Ok(Arc::new(AheadFile {
            reads: ReadAhead::of(file.file()),
            file,
            ahead_bytes,
            state: Mutex::new(State {
                len,
                sequence,
                mark_pending: latest.is_none(),
                // Beyond the mark there may be remains all the same: see `folder` for why they do no harm.
                dirty_end: len,
                pieces: vec![Piece::Ready; ready as usize],
            }),
            zeroed: Condvar::new(),
            failed: AtomicBool::new(false),
        }))
    }

    /// Makes it an empty file that keeps its space: no mark, and no header of redb's.
    pub(super) fn clear(file: &File) -> io::Result<()> {
        file.write_all_at(&[0; HEADER_BYTES as usize + 4096], 0)
    }

    /// Is this such a file? For one that is not empty.
    pub(super) fn is_one(file: &File) -> bool {
        (0..2).any(|slot| {
            let mut magic = [0; MAGIC.len()];
            file.read_exact_at(&mut magic, slot * MARK_PAGE_BYTES).is_ok() && magic == MAGIC
        })
    }

    fn check(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) { Err(failed_before()) } else { Ok(()) }
    }

    /// Zeroes the next piece ahead, if one is due. `Ok(false)`: none is.
    pub(super) fn zero_next(&self) -> io::Result<bool> {
        self.check()?;
        let piece = {
            let mut state = self.state.lock();
            let target = state.dirty_end.saturating_add(self.ahead_bytes).div_ceil(PIECE_BYTES) as usize;
            if state.pieces.len() < target {
                state.pieces.resize(target, Piece::Raw);
            }
            let Some(piece) = state.pieces[..target].iter().position(|p| *p == Piece::Raw) else {
                return Ok(false);
            };
            state.pieces[piece] = Piece::Zeroing;
            piece
        };
        let offset = HEADER_BYTES + piece as u64 * PIECE_BYTES;
        // A file made of many small allocations would be in many extents.
        let flags = rustix::fs::FallocateFlags::empty();
        let result = rustix::fs::fallocate(self.file.file(), flags, offset, PIECE_BYTES)
            .or_else(|e| if e == rustix::io::Errno::OPNOTSUPP { Ok(()) } else { Err(e) })
            .map_err(io::Error::from)
            .and_then(|()| self.file.write(&ZEROS.0, offset));
        self.state.lock().pieces[piece] = if result.is_ok() { Piece::Ready } else { Piece::Raw };
        self.zeroed.notify_all();
        result.map(|()| true)
    }

    /// Has the system write what was zeroed, so that no sync of the log has to.
    pub(super) fn flush_zeros(&self) -> io::Result<()> {
        self.check()?;
        // A failure may be about the log's bytes, too.
        self.file.sync_beside().inspect_err(|_| self.failed.store(true, Ordering::Release))
    }

    /// Marks the pieces of a range as taken, and waits for the one that is being zeroed.
    fn take_pieces(&self, state: &mut parking_lot::MutexGuard<'_, State>, offset: u64, end: u64) {
        let range = (offset / PIECE_BYTES) as usize..end.div_ceil(PIECE_BYTES) as usize;
        if state.pieces.len() < range.end {
            state.pieces.resize(range.end, Piece::Raw);
        }
        for piece in range {
            while state.pieces[piece] == Piece::Zeroing {
                self.zeroed.wait(state);
            }
            state.pieces[piece] = Piece::Ready;
        }
    }
}

/// The log's hold on an [`AheadFile`]. What it is given in [runs](Run) goes to the disk as it is; for the rest it reads what
/// stands beside it in the same page.
#[derive(Debug)]
pub(super) struct AheadBackend {
    file: Arc<AheadFile>,
    /// Wakes the thread that zeroes.
    wake: super::folder::Wake,
    /// For its lock, too.
    folder: Arc<super::folder::Folder>,
    /// Written, and free for what comes next.
    idle: Mutex<Vec<Arc<Run>>>,
    /// The page that was written in part last, and its place behind the header: redb's own header, mostly.
    in_part: Mutex<Option<(u64, Box<Page>)>>,
}

fn beyond(offset: u64, len: usize, end: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{len} bytes at {offset} reach beyond the end of the file at {end}"),
    )
}

impl AheadBackend {
    pub(super) fn new(
        file: Arc<AheadFile>,
        wake: super::folder::Wake,
        folder: Arc<super::folder::Folder>,
    ) -> AheadBackend {
        AheadBackend { file, wake, folder, idle: Mutex::default(), in_part: Mutex::default() }
    }

    /// Whole pages, [`Aligned`] in memory, at this place of the file itself.
    fn write_pages(&self, data: &[u8], at: u64) -> io::Result<()> {
        self.folder.reserve.help_or_wait(|| self.file.file.write(data, at))
    }

    /// Bytes that are all in one page, behind the header.
    fn write_in_part(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (place, begin) = (offset - offset % MARK_PAGE_BYTES, (offset % MARK_PAGE_BYTES) as usize);
        let mut in_part = self.in_part.lock();
        let mut page = match in_part.take() {
            Some((at, page)) if at == place => page,
            _ => {
                let mut page = Box::new(Aligned([0; PAGE_BYTES]));
                read_or_zeros(self.file.file.file(), HEADER_BYTES + place, &mut page.0)?;
                page
            }
        };
        page.0[begin..begin + data.len()].copy_from_slice(data);
        self.write_pages(&page.0, HEADER_BYTES + place)?;
        *in_part = Some((place, page));
        Ok(())
    }

    /// Makes these bytes zeros, behind the header.
    fn write_zeros(&self, mut at: u64, end: u64) -> io::Result<()> {
        self.in_part.lock().take();
        while at < end {
            let whole = Run::takes(at, 0) && end - at >= MARK_PAGE_BYTES;
            let n = if whole {
                let n = (end - end % MARK_PAGE_BYTES - at).min(PIECE_BYTES);
                self.write_pages(&ZEROS.0[..n as usize], HEADER_BYTES + at)?;
                n
            } else {
                let n = (MARK_PAGE_BYTES - at % MARK_PAGE_BYTES).min(end - at);
                self.write_in_part(at, &ZEROS.0[..n as usize])?;
                n
            };
            at += n;
        }
        Ok(())
    }

    /// Bytes are about to be written here. Their space is theirs then, and the thread zeroes behind it.
    fn claim(&self, offset: u64, bytes: usize) -> io::Result<()> {
        let ahead = &self.file;
        ahead.check()?;
        let end = offset.saturating_add(bytes as u64);
        let grown = {
            let mut state = ahead.state.lock();
            if end > state.len {
                return Err(beyond(offset, bytes, state.len));
            }
            ahead.take_pieces(&mut state, offset, end);
            let grown = end.div_ceil(PIECE_BYTES) > state.dirty_end.div_ceil(PIECE_BYTES);
            state.dirty_end = state.dirty_end.max(end);
            grown
        };
        if grown {
            self.wake.wake(&self.file);
        }
        Ok(())
    }
}

impl BulkFile for AheadBackend {
    fn room(&self) -> Run {
        let idle = self.idle.lock().pop();
        idle.and_then(Arc::into_inner).unwrap_or_default()
    }

    fn put(&self, run: Arc<Run>) -> io::Result<()> {
        for (offset, part) in run.parts() {
            self.claim(offset, part.len())?;
            let held = |(at, _): &mut (u64, _)| (offset..offset + part.len() as u64).contains(at);
            self.in_part.lock().take_if(held);
            self.write_pages(part, HEADER_BYTES + offset)?;
        }
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_RUNS_MAX {
            idle.push(run);
        }
        Ok(())
    }
}

impl StorageBackend for AheadBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.state.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let len = self.file.state.lock().len;
        if offset.saturating_add(out.len() as u64) > len {
            return Err(beyond(offset, out.len(), len));
        }
        let (at, file) = (HEADER_BYTES + offset, self.file.file.file());
        self.file.reads.before(file, at, out.len());
        read_or_zeros(file, at, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let ahead = &self.file;
        ahead.check()?;
        let mut state = ahead.state.lock();
        if len > state.len && state.dirty_end > state.len {
            // What was cut off before, or lay in the file of old, comes back as zeros.
            let (at, end) = (state.len, len.min(state.dirty_end));
            ahead.take_pieces(&mut state, at, end);
            self.write_zeros(at, end)?;
        }
        state.mark_pending |= len != state.len;
        state.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let ahead = &self.file;
        ahead.check()?;
        let result = (|| {
            let mut state = ahead.state.lock();
            if state.mark_pending {
                let sequence = state.sequence + 1;
                let mut page = Aligned([0; PAGE_BYTES]);
                page.0[..MARK_BYTES].copy_from_slice(&encode_mark(sequence, state.len));
                self.write_pages(&page.0, sequence % 2 * MARK_PAGE_BYTES)?;
                state.sequence = sequence;
                state.mark_pending = false;
            }
            drop(state);
            ahead.file.file().sync_data()
        })();
        result.inspect_err(|_| {
            ahead.failed.store(true, Ordering::Release);
            self.folder.sync_failed();
        })
    }

    fn write(&self, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
        self.claim(offset, data.len())?;
        while !data.is_empty() {
            let here = (PAGE_BYTES - (offset % MARK_PAGE_BYTES) as usize).min(data.len());
            let (part, behind) = data.split_at(here);
            self.write_in_part(offset, part)?;
            (offset, data) = (offset + here as u64, behind);
        }
        Ok(())
    }
}
